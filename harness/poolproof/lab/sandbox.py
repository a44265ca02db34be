# SPDX-License-Identifier: GPL-2.0-or-later
"""A place where a run can do as it likes: its own network, mounts, processes, and users when not root.

`enter` is called outside and runs a command inside; four processes make that up:

    caller ── gate ── init (pid 1 inside) ── the command ── QEMU, ssh, ...

Each of the first three dies with its parent, and the kernel kills everything inside a pid namespace with
its pid 1, so kill -9 of the caller leaves nothing. All mounts, interfaces and the run directory exist only
inside. The command gets a session of its own: a terminal's Ctrl-C reaches the caller only, which hands it on
exactly once.
"""

from __future__ import annotations

import errno
import json
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from poolproof.errors import HarnessError
from poolproof.lab import namespaces as ns
from poolproof.lab import netdev

RUN_DIR = Path("/run/pp")
HIDDEN_KVM = RUN_DIR / "host-kvm"
ENV_FLAG = "POOLPROOF_SANDBOX"

# A second Ctrl-C within this time is the same one (`timeout` signals its child and then its group).
_SAME_SIGNAL_S = 1.0
# What the command may take to tear down after SIGINT or SIGTERM before it is killed.
TEARDOWN_S = 20.0

_FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGWINCH)
_LIBVIRT_ACCOUNT = "libvirt-qemu"
_DEVICE_NODES = ("null", "zero", "full", "random", "urandom", "tty", "fuse")


def active() -> bool:
    """Whether this process runs inside a sandbox."""
    return os.environ.get(ENV_FLAG) == "1"


def enter(argv: Sequence[str], env: Mapping[str, str] | None = None) -> int:
    """Run `argv` inside a new sandbox and return its exit status (128+n when signal n ended it).

    Must be called from the main thread. HarnessError when the host does not allow the namespaces or
    /dev/net/tun cannot be used.
    """
    _require_tun()
    sys.stdout.flush()
    sys.stderr.flush()
    status_read, status_write = os.pipe()
    waited = {*_FORWARDED, signal.SIGCHLD}
    old_mask = signal.pthread_sigmask(signal.SIG_BLOCK, waited)
    try:
        caller = os.getpid()
        gate = os.fork()
        if gate == 0:
            os.close(status_read)
            _gate(list(argv), dict(env if env is not None else os.environ), caller, status_write, old_mask)
        os.close(status_write)
        status = _supervise(gate, waited)
        with os.fdopen(status_read, "rb") as pipe:
            report = pipe.read()
        if report:
            _explain(json.loads(report))
        return status
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, old_mask)


def prepare() -> Path:
    """Inside: the run directory, a private tmpfs with a short path. HarnessError when outside a sandbox."""
    if not active():
        raise HarnessError(
            "the lab runs inside the sandbox only",
            hint="start it through `poolproof` or poolproof.lab.sandbox.enter().",
        )
    return RUN_DIR


def expose_kvm() -> bool:
    """Let /dev/kvm exist inside; False when the host has none."""
    if not HIDDEN_KVM.exists():
        return False
    if not os.path.exists("/dev/kvm"):
        ns.bind(str(HIDDEN_KVM), "/dev/kvm")
    return True


def hide_kvm() -> None:
    """Take /dev/kvm away again, so that nothing tries it."""
    if os.path.exists("/dev/kvm"):
        ns.unmount("/dev/kvm")
        os.unlink("/dev/kvm")


# -- the caller's side ---------------------------------------------------------------------------------


def _supervise(gate: int, waited: set[signal.Signals]) -> int:
    """Hand signals on and wait; SIGKILL what does not end in time."""
    deadline: float | None = None
    last_signal = 0.0
    while True:
        remaining = None if deadline is None else max(0.0, deadline - time.monotonic())
        info = signal.sigwaitinfo(waited) if remaining is None else signal.sigtimedwait(waited, remaining)
        if info is None:
            os.kill(gate, signal.SIGKILL)
            deadline = None
            continue
        number = info.si_signo
        if number == signal.SIGCHLD:
            pid, status = os.waitpid(gate, os.WNOHANG)
            if pid == gate:
                code = os.waitstatus_to_exitcode(status)
                return code if code >= 0 else 128 - code
            continue
        if number == signal.SIGWINCH:
            os.kill(gate, number)
            continue
        now = time.monotonic()
        if now - last_signal < _SAME_SIGNAL_S:
            continue
        # The second request to stop is an impatient one.
        os.kill(gate, signal.SIGKILL if last_signal else number)
        last_signal = now
        deadline = now + TEARDOWN_S


def _require_tun() -> None:
    try:
        os.close(os.open("/dev/net/tun", os.O_RDWR))
    except FileNotFoundError:
        raise HarnessError(
            "/dev/net/tun does not exist: the guests' network cards need it",
            hint="as root: modprobe tun (in a container: start it with --device /dev/net/tun).",
        ) from None
    except OSError as exc:
        raise HarnessError(
            f"/dev/net/tun cannot be used: {exc.strerror}",
            hint="run as root, or let your user open it: chmod 0666 /dev/net/tun (the usual mode).",
        ) from None


def _read_sysctl(path: str) -> str:
    try:
        return Path("/proc/sys", path).read_text().strip()
    except OSError:
        return ""


def _explain(report: dict[str, str | int]) -> NoReturn:
    message = f"the sandbox could not be made: {report['what']}"
    raise HarnessError(message, hint=refusal_hint(_read_sysctl, int(report["errno"])))


def refusal_hint(sysctl: Callable[[str], str], code: int) -> str:
    """What to do about a refused namespace. `sysctl(path)` gives a /proc/sys value or an empty string."""
    if sysctl("user/max_user_namespaces") == "0":
        return "as root: sysctl -w user.max_user_namespaces=10000; or run as root."
    if sysctl("kernel/unprivileged_userns_clone") == "0":
        return "as root: sysctl -w kernel.unprivileged_userns_clone=1; or run as root."
    if sysctl("kernel/apparmor_restrict_unprivileged_userns") == "1":
        return (
            "AppArmor restricts user namespaces here (Ubuntu 23.10 and later): "
            "as root, sysctl -w kernel.apparmor_restrict_unprivileged_userns=0; or run as root."
        )
    if code in (errno.EPERM, errno.EACCES):
        return "run as root, or in a container with CAP_SYS_ADMIN (docker: --privileged)."
    if code == errno.ENOSPC:
        return "the limit of namespaces is reached: see /proc/sys/user/max_*_namespaces."
    return "run as root."


# -- the gate: makes the namespaces, outside the pid namespace itself ----------------------------------


def _gate(
    argv: list[str], env: dict[str, str], caller: int, status_fd: int, mask: Iterable[int]
) -> NoReturn:
    try:
        os.setsid()
        _unshare_all()
        # Only after unshare: gaining capabilities clears the setting.
        ns.die_with_parent()
        if os.getppid() != caller:
            os._exit(1)
        alive_read, alive_write = os.pipe()
        init = os.fork()
        if init == 0:
            os.close(alive_write)
            _init(argv, env, alive_read, status_fd, mask)
        os.close(alive_read)
        os.close(status_fd)
        _gate_loop(init)
    except BaseException as exc:
        _report(status_fd, exc)
    os._exit(1)


def _unshare_all() -> None:
    flags = ns.CLONE_NEWNS | ns.CLONE_NEWNET | ns.CLONE_NEWPID | ns.CLONE_NEWIPC
    uid, gid = os.geteuid(), os.getegid()
    if uid == 0:
        try:
            ns.unshare(flags)
            return
        except PermissionError:
            pass  # root of a container without CAP_SYS_ADMIN: try as anyone else would
    ns.unshare(flags | ns.CLONE_NEWUSER)
    ns.keep_identity(uid, gid)


def _gate_loop(init: int) -> NoReturn:
    while True:
        number = signal.sigwaitinfo({*_FORWARDED, signal.SIGCHLD}).si_signo
        if number != signal.SIGCHLD:
            os.kill(init, number)
            continue
        pid, status = os.waitpid(init, os.WNOHANG)
        if pid == init:
            code = os.waitstatus_to_exitcode(status)
            os._exit(code if code >= 0 else 128 - code)


def _report(status_fd: int, exc: BaseException) -> None:
    code = exc.errno if isinstance(exc, OSError) and exc.errno else 0
    what = str(exc)
    if isinstance(exc, OSError) and exc.strerror:
        what = f"{exc.filename}: {exc.strerror}" if exc.filename else exc.strerror
    os.write(status_fd, json.dumps({"what": what, "errno": code}).encode())


# -- pid 1 inside --------------------------------------------------------------------------------------


def _init(
    argv: list[str], env: dict[str, str], alive_fd: int, status_fd: int, mask: Iterable[int]
) -> NoReturn:
    try:
        ns.die_with_parent()
        # The write end lives in the gate alone: its end of file tells that the gate died before the prctl.
        if select.select([alive_fd], [], [], 0)[0]:
            os._exit(1)
        _make_world()
        env[ENV_FLAG] = "1"
        command = os.fork()
        if command == 0:
            os.set_inheritable(status_fd, False)
            os.close(alive_fd)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            try:
                os.execvpe(argv[0], argv, env)
            except OSError as exc:
                _report(status_fd, exc)
                os._exit(127)
        os.close(status_fd)
        _init_loop(command)
    except BaseException as exc:
        _report(status_fd, exc)
    os._exit(1)


def _init_loop(command: int) -> NoReturn:
    """Reap orphans (QEMU daemonizes), hand signals to the command, end with it."""
    while True:
        number = signal.sigwaitinfo({*_FORWARDED, signal.SIGCHLD}).si_signo
        if number != signal.SIGCHLD:
            os.kill(command, number)
            continue
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                os._exit(1)
            if pid == 0:
                break
            if pid == command:
                code = os.waitstatus_to_exitcode(status)
                os._exit(code if code >= 0 else 128 - code)


def _make_world() -> None:
    ns.mount("none", "/", flags=ns.MS_REC | ns.MS_PRIVATE)
    ns.mount("proc", "/proc", "proc", ns.MS_NOSUID | ns.MS_NODEV | ns.MS_NOEXEC)
    try:
        # /sys/class/net of this network namespace; a container may forbid it, and nothing here depends on it.
        ns.mount("sysfs", "/sys", "sysfs", ns.MS_NOSUID | ns.MS_NODEV | ns.MS_NOEXEC)
    except OSError:
        pass
    dev = os.open("/dev", os.O_PATH)
    _private_run()
    _private_dev(dev)
    os.close(dev)
    for table in ("passwd", "group"):
        _private_account(Path("/etc", table))
    netdev.set_up("lo")


def _private_run() -> None:
    """A tmpfs over /run in which all that was there is still there, and our directory besides."""
    old = os.open("/run", os.O_PATH)
    names = os.listdir("/run")
    ns.mount("tmpfs", "/run", "tmpfs", ns.MS_NOSUID, "mode=755")
    for name in names:
        source, target = f"/proc/self/fd/{old}/{name}", f"/run/{name}"
        try:
            if os.path.islink(source):
                os.symlink(os.readlink(source), target)
            else:
                ns.bind(source, target)
        except OSError:
            continue  # a mount of another user: of no use inside either
    os.close(old)
    RUN_DIR.mkdir(mode=0o700)
    ns.mount("tmpfs", str(RUN_DIR), "tmpfs", ns.MS_NOSUID, "mode=700")


def _private_dev(old: int) -> None:
    """A /dev with what programs need and without kvm, which is only shown once a guest has booted on it."""
    kvm = f"/proc/self/fd/{old}/kvm"
    if os.access(kvm, os.R_OK | os.W_OK):
        ns.bind(kvm, str(HIDDEN_KVM))
    ns.mount("tmpfs", "/dev", "tmpfs", ns.MS_NOSUID | ns.MS_NOEXEC, "mode=755")
    for name in (*_DEVICE_NODES, "net/tun"):
        source = f"/proc/self/fd/{old}/{name}"
        if os.path.exists(source):
            os.makedirs(os.path.dirname(f"/dev/{name}"), exist_ok=True)
            ns.bind(source, f"/dev/{name}")
    for name in ("shm", "pts"):
        os.mkdir(f"/dev/{name}")
    ns.mount("tmpfs", "/dev/shm", "tmpfs", ns.MS_NOSUID | ns.MS_NODEV, "mode=1777")
    options = "newinstance,ptmxmode=0666,mode=620"
    ns.mount("devpts", "/dev/pts", "devpts", ns.MS_NOSUID | ns.MS_NOEXEC, options)
    for name, to in (
        ("ptmx", "pts/ptmx"),
        ("fd", "/proc/self/fd"),
        ("stdin", "fd/0"),
        ("stdout", "fd/1"),
        ("stderr", "fd/2"),
    ):
        os.symlink(to, f"/dev/{name}")


def _private_account(table: Path) -> None:
    """libvirt's QEMU driver insists on its build's default account, which only libvirtd's package makes."""
    text = table.read_text()
    if f"\n{_LIBVIRT_ACCOUNT}:" in text:
        return
    entry = "x:0:0::/:/usr/sbin/nologin" if table.name == "passwd" else "x:0:"
    private = RUN_DIR / table.name
    private.write_text(f"{text.rstrip()}\n{_LIBVIRT_ACCOUNT}:{entry}\n")
    private.chmod(0o644)
    ns.mount(str(private), str(table), flags=ns.MS_BIND)

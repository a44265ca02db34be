# SPDX-License-Identifier: GPL-2.0-or-later
"""The agent that lives in a guest: JSON lines over a local TCP port that only ssh reaches.

    main(PORT)     daemonize, listen on 127.0.0.1:PORT, return once it does

Request {"id", "method", "params"}; answer {"id", "result"} or {"id", "error": {"errno", "message", "type"}}.
Bytes travel as {"b64": ...}. Every request runs in a thread of its own, so a blocked one holds up no other.
Standard library only; the pool.* methods come from poolref.tools.kernel_abi beside it. Every import costs an
emulated CPU up to a second of boot time: only what is always needed is imported at the start.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import socket
import struct
import threading
import time

from poolref.tools.plain import decode, encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_SYS_FINIT_MODULE, _SYS_DELETE_MODULE = 313, 176
_RNDADDENTROPY, _RNDRESEEDCRNG = 0x40085203, 0x5207
_MODULES = "/mnt/tools/modules"

# File, value when armed, value when not. Seconds are ten times the usual: an emulated CPU is slow.
_WATCHDOGS = (
    ("/proc/sys/kernel/soft_watchdog", "1", "0"),
    ("/proc/sys/kernel/hung_task_timeout_secs", "240", "0"),
    ("/sys/module/rcupdate/parameters/rcu_cpu_stall_suppress", "0", "1"),
)

_libc = ctypes.CDLL(None, use_errno=True)
_handles: dict[int, str] = {}


def _syscall(number: int, *arguments: Any) -> None:
    # c_long for every argument: the default of int would cut pointers and flags.
    if _libc.syscall(ctypes.c_long(number), *arguments) < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def run(argv: list[str], timeout: float | None = None, input: str = "") -> dict[str, Any]:
    """Run a command, `timeout` seconds at most: {"rc", "out", "err"}, undecodable bytes replaced."""
    import subprocess

    done = subprocess.run(argv, input=input.encode(), capture_output=True, timeout=timeout, check=False)
    out, err = (stream.decode(errors="replace") for stream in (done.stdout, done.stderr))
    return {"rc": done.returncode, "out": out, "err": err}


def read(path: str, limit: int = 1 << 20) -> str:
    """Up to `limit` bytes of a file as text."""
    with open(path, "rb") as file:
        return file.read(limit).decode(errors="replace")


def write(path: str, data: bytes | str) -> None:
    """Write bytes or text to a file, in one write(2) (sysfs and procfs want that)."""
    content = data if isinstance(data, bytes) else data.encode()
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        os.write(fd, content)
    finally:
        os.close(fd)


def insmod(name: str, params: str = "") -> None:
    """finit_module(2) of NAME.ko from the tools disk, or of a path; the kernel's errno when it refuses."""
    path = name if "/" in name else f"{_MODULES}/{name}.ko"
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _syscall(_SYS_FINIT_MODULE, ctypes.c_long(fd), ctypes.c_char_p(params.encode()), ctypes.c_long(0))
    finally:
        os.close(fd)


def rmmod(name: str, flags: int = os.O_NONBLOCK) -> None:
    """delete_module(2); `flags` as there (O_NONBLOCK, O_TRUNC)."""
    _syscall(_SYS_DELETE_MODULE, ctypes.c_char_p(name.encode()), ctypes.c_long(flags))


def open_file(path: str, flags: int = os.O_RDWR) -> int:
    """Hold a file open; returns a handle for close_file."""
    fd = os.open(path, flags | os.O_CLOEXEC)
    _handles[fd] = path
    return fd


def close_file(handle: int) -> None:
    """Close what open_file opened."""
    _handles.pop(handle)
    os.close(handle)


def meminfo() -> dict[str, int]:
    """/proc/meminfo, name to bytes (or to the number where it has no unit)."""
    figures = {}
    for line in read("/proc/meminfo").splitlines():
        name, _, rest = line.partition(":")
        words = rest.split()
        figures[name] = int(words[0]) * (1024 if len(words) > 1 else 1)
    return figures


def uptime() -> float:
    """Seconds since boot."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def seed_random(data: bytes) -> None:
    """Mix bytes into the kernel's generator, credit them, and make it use them from the next byte on."""
    fd = os.open("/dev/urandom", os.O_WRONLY)
    try:
        fcntl.ioctl(fd, _RNDADDENTROPY, struct.pack("=ii", len(data) * 8, len(data)) + data)
        fcntl.ioctl(fd, _RNDRESEEDCRNG)
    finally:
        os.close(fd)


def set_clock(ns: int) -> None:
    """Set the wall clock, nanoseconds since 1970."""
    time.clock_settime_ns(time.CLOCK_REALTIME, ns)


def watchdogs(on: bool) -> None:
    """Arm or disarm what would take the gap between a snapshot and its restore for a hang."""
    for path, armed, idle in _WATCHDOGS:
        try:
            write(path, armed if on else idle)
        except OSError:
            continue  # a kernel built without it


def console_level(level: int) -> None:
    """Kernel messages below this level go to the console."""
    write("/proc/sys/kernel/printk", str(level))


def renew(seed: bytes, ns: int) -> None:
    """After a restore, before anything else: other randomness than last time, the right time, watchdogs."""
    seed_random(seed)
    set_clock(ns)
    watchdogs(True)


def random_bytes(count: int) -> bytes:
    """Bytes of the kernel's generator."""
    return os.urandom(count)


def preload() -> None:
    """Import what the pool.* methods need, so that no step has to wait for that."""
    import subprocess

    import poolref.tools.kernel_abi

    del subprocess, poolref


def ping() -> None:
    """Nothing."""


METHODS: dict[str, Any] = {
    "exec": run,
    "read": read,
    "write": write,
    "insmod": insmod,
    "rmmod": rmmod,
    "open": open_file,
    "close": close_file,
    "meminfo": meminfo,
    "uptime": uptime,
    "seed_random": seed_random,
    "set_clock": set_clock,
    "watchdogs": watchdogs,
    "console_level": console_level,
    "renew": renew,
    "random": random_bytes,
    "preload": preload,
    "ping": ping,
}


def pool(method: str, params: dict[str, Any]) -> Any:
    """A method of PoolDevice. Opened anew each time: an open /dev/pool keeps the module from unloading."""
    from poolref.tools.kernel_abi import PoolDevice

    if method.startswith("_"):
        raise AttributeError(method)
    with PoolDevice() as device:
        return getattr(device, method)(**params)


class Connection:
    """One client; answers in the order they are ready."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._lock = threading.Lock()

    def serve(self) -> None:
        with self._sock, self._sock.makefile("rb") as lines:
            for line in lines:
                threading.Thread(target=self._answer, args=(json.loads(line),), daemon=True).start()

    def _answer(self, request: dict[str, Any]) -> None:
        answer: dict[str, Any] = {"id": request["id"]}
        try:
            method, params = request["method"], decode(request.get("params", {}))
            scope, _, rest = method.partition(".")
            result = pool(rest, params) if scope == "pool" and rest else METHODS[method](**params)
            answer["result"] = encode(result)
        except BaseException as exc:
            message = exc.strerror if isinstance(exc, OSError) and exc.strerror else str(exc)
            answer["error"] = {
                "errno": exc.errno if isinstance(exc, OSError) else None,
                "message": message,
                "type": type(exc).__name__,
            }
        data = json.dumps(answer).encode() + b"\n"
        with self._lock:
            try:
                self._sock.sendall(data)
            except OSError:
                pass  # the client is gone


def main(port: int) -> None:
    """Become the agent."""
    listener = socket.create_server(("127.0.0.1", port), backlog=8)
    if os.fork():
        return
    os.setsid()
    null = os.open("/dev/null", os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    while True:
        sock, _ = listener.accept()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=Connection(sock).serve, daemon=True).start()


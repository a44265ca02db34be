# SPDX-License-Identifier: GPL-2.0-or-later
"""Building an out-of-tree module inside a tree of the guest's own release.

A Makefile is arbitrary code, so the build runs unprivileged in namespaces of its own: no network, no view of
the host beyond the sources and the build tree, an overlay in memory instead of the user's tree, limits on
time, size and processes. `vm_images/modbuild/sandbox.sh` sets that up.
"""

from __future__ import annotations

import hashlib
import os
import re
import selectors
import shutil
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import HarnessError
from .ko import inspect_ko
from .store import RECIPE, BuildTree

_SHOWN_AS = "/poolproof/"  # where sandbox.sh shows the source tree
_LOG_CAP = 64 * 2**20
_DEATH_S = 10.0
_MEMORY_MB = 2048


@dataclass(frozen=True)
class BuiltModule:
    """A module that was built. `build_id` is the SHA-256 of the file."""

    ko: Path
    build_id: str
    srcversion: str
    vermagic: str
    log: Path


@dataclass(frozen=True)
class BuildFailure:
    """A build that made no usable module. `exit_status` is make's, or -1 when the time ran out."""

    first_error: str
    log: Path
    exit_status: int


def enclosing_tree(source: Path) -> Path:
    """The tree that includes may reach: the git work tree around `source`, else `source` itself.

    A work tree that holds the user's whole home directory does not count.
    """
    home = Path.home()
    for directory in (source, *source.parents):
        if (directory / ".git").exists():
            return source if home.is_relative_to(directory) else directory
    return source


def build_module(
    tree: BuildTree,
    source: Path,
    out_dir: Path,
    *,
    top: Path | None = None,
    make_args: Sequence[str] = (),
    timeout: float = 900,
    ko_name: str | None = None,
) -> BuiltModule | BuildFailure:
    """Build the kbuild directory `source` and put the module and `build.log` into `out_dir`.

    `top`: the tree whose other parts the sources may include (default: `enclosing_tree`). Of several modules
    that the build makes, `ko_name` or pool.ko is taken. `timeout` in seconds. HarnessError for what is no
    failure of the sources: no such directory, no Makefile, no namespaces.
    """
    source, top = _check_source(source, top)
    out_dir.mkdir(parents=True, exist_ok=True)
    log = out_dir / "build.log"
    with tempfile.TemporaryDirectory(prefix="poolproof-build-") as name:
        scratch, results = Path(name) / "mnt", Path(name) / "out"
        scratch.mkdir()
        results.mkdir()
        command = [
            *("setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--net", "--ipc", "--uts"),
            *(["--user", "--map-root-user"] if os.geteuid() != 0 else []),
            *("--fork", "--kill-child", "sh", str(RECIPE / "modbuild" / "sandbox.sh")),
            *map(str, (scratch, results, tree.root, top, source.relative_to(top), tree.kdir)),
            *("\n".join(map(str, tree.binds)), str(_MEMORY_MB)),
            *(f"-j{len(os.sched_getaffinity(0))}", *tree.make_args, *make_args),
        ]
        finished = _run(command, log, timeout)
        if not finished:
            return BuildFailure(f"the build took longer than {timeout:g} s and was stopped", log, -1)
        status_file = results / "status"
        if not status_file.exists():
            raise _setup_error(log)
        status = int(status_file.read_text())
        if status != 0:
            return BuildFailure(first_error(log.read_text(errors="replace")), log, status)
        return _collect(results / "modules.tar", source, out_dir, log, ko_name)


def _check_source(source: Path, top: Path | None) -> tuple[Path, Path]:
    if not source.is_dir():
        raise HarnessError(f"no such directory: {source}")
    source = source.resolve()
    if not any((source / name).is_file() for name in ("Kbuild", "Makefile")):
        raise HarnessError(
            f"{source} has neither a Kbuild file nor a Makefile",
            hint="give the directory whose Kbuild or Makefile says obj-m",
        )
    top = top.resolve() if top is not None else enclosing_tree(source)
    if not source.is_relative_to(top):
        raise HarnessError(f"{source} does not lie below {top}")
    for character in " \t\n:#$%\\":
        if character in str(source.relative_to(top)):
            raise HarnessError(
                f"kbuild cannot work in a directory whose name contains {character!r}: {source}"
            )
    return source, top


def _run(command: Sequence[str], log: Path, timeout: float) -> bool:
    """Run the sandbox and log what it prints, up to a cap; False when it had to be killed for its time."""
    deadline = time.monotonic() + timeout
    with log.open("wb") as sink:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        assert process.stdout is not None
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(process.stdout, selectors.EVENT_READ)
                while (left := deadline - time.monotonic()) > 0:
                    if not selector.select(left):
                        continue
                    chunk = os.read(process.stdout.fileno(), 65536)
                    if not chunk:
                        return True
                    room = _LOG_CAP - sink.tell()
                    sink.write(chunk[: max(room, 0)])
            return False
        finally:
            process.kill()  # the first process of the namespace dies with it, and all others with that
            process.wait()
            _await_silence(process.stdout.fileno())
            process.stdout.close()


def _await_silence(output: int) -> None:
    """Return once nobody holds the write end: the kernel kills a namespace without being waited for."""
    deadline = time.monotonic() + _DEATH_S
    with selectors.DefaultSelector() as selector:
        selector.register(output, selectors.EVENT_READ)
        while (left := deadline - time.monotonic()) > 0:
            if selector.select(left) and not os.read(output, 65536):
                return


def _setup_error(log: Path) -> HarnessError:
    text = log.read_text(errors="replace").strip()
    last = text.splitlines()[-1] if text else "no reason given"
    hint = "building modules needs root, or user namespaces and overlayfs"
    if Path("/proc/sys/kernel/apparmor_restrict_unprivileged_userns").exists():
        hint += (
            "; this system may forbid them to users: sysctl kernel.apparmor_restrict_unprivileged_userns=0"
        )
    return HarnessError(f"cannot set up the build sandbox: {last}", hint=hint)


def _collect(
    archive: Path, source: Path, out_dir: Path, log: Path, ko_name: str | None
) -> BuiltModule | BuildFailure:
    with tarfile.open(archive) as tar:
        modules = {member.name.removeprefix("./"): member for member in tar if member.isreg()}
        by_name = {name.rpartition("/")[2]: name for name in modules}
        chosen = by_name.get(ko_name or "pool.ko")
        if chosen is None and ko_name is None and len(modules) == 1:
            chosen = next(iter(modules))
        if chosen is None:
            made = ", ".join(sorted(modules)) or "none"
            wanted = ko_name or "pool.ko"
            message = (
                f"the build made several modules and no {wanted}: {made}"
                if modules
                else f"the build ended well but made no module: does {source}/Makefile set obj-m?"
            )
            return BuildFailure(message, log, 0)
        stream = tar.extractfile(modules[chosen])
        assert stream is not None  # a regular member
        ko = out_dir / chosen.rpartition("/")[2]
        with stream, ko.open("wb") as target:
            shutil.copyfileobj(stream, target)
    info = inspect_ko(ko)
    build_id = hashlib.sha256(ko.read_bytes()).hexdigest()
    return BuiltModule(ko, build_id, info.srcversion, info.vermagic, log)


_ERROR = re.compile(
    r"(: (fatal )?error: |^ERROR: |: undefined reference to |^ld: .*(error|cannot)|^error: )", re.I
)
_MAKE_ERROR = re.compile(r"\*\*\* (?P<message>.*)")
_MAKE_STEP = re.compile(
    r"^(\s*(CC|LD|AS|AR|MODPOST|BTF|HOSTCC)\b|make(\[\d+\])?: (Entering|Leaving|Nothing))"
)


def first_error(log: str) -> str:
    """The line of a build log that says what went wrong first, with paths relative to the source tree."""
    previous = ""
    for raw in log.splitlines():
        line = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", raw).strip()
        make_error = _MAKE_ERROR.search(line)
        if _ERROR.search(line):
            return _tidy(line)
        if make_error:
            # "[target] Error 1" only repeats that a command failed: the command's own words stand before it.
            vague = re.search(r"\] (Error \d+|Killed|Terminated)", line) and previous
            return _tidy(previous if vague else line)
        if line and not _MAKE_STEP.match(line):
            previous = line
    return _tidy(previous) or "make failed without a message"


def _tidy(line: str) -> str:
    printable = "".join(character if character.isprintable() else "?" for character in line)
    return printable.replace(_SHOWN_AS, "")[:300]

# SPDX-License-Identifier: GPL-2.0-or-later
"""A kernel that the user built: what it lacks, its modules, and how to build modules for it.

`KERNEL_BUILD` may be a kernel build directory (in or out of the source tree), a directory that `make
modules_install` was pointed at (it holds lib/modules/RELEASE), or lib/modules/RELEASE itself.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from ..errors import HarnessError
from .debian import read_list
from .hostsetup import find_program


@dataclass(frozen=True)
class KernelBuild:
    """What KERNEL_BUILD holds. `build`: directory to build modules in; `installed`: lib/modules/RELEASE."""

    release: str
    build: Path | None
    installed: Path | None

    def config(self) -> str | None:
        for path in (
            self.build / ".config" if self.build else None,
            self.installed and self.installed / "config",
        ):
            if path and path.is_file():
                return path.read_text(errors="replace")
        return None

    def modules(self) -> list[Path]:
        """The module files, in a stable order."""
        if self.installed:
            return sorted(self.installed.rglob("*.ko*"))
        assert self.build is not None
        order = self.build / "modules.order"
        if not order.is_file():
            return []
        names = (line.removeprefix("kernel/").removesuffix(".o") for line in order.read_text().split())
        paths = (self.build / (name.removesuffix(".ko") + ".ko") for name in names)
        return sorted(path for path in paths if path.is_file())

    def fingerprint(self) -> str:
        """Changes whenever a module file does."""
        stats = ((path, path.stat()) for path in self.modules())
        return "\n".join(f"{path} {stat.st_size} {stat.st_mtime_ns}" for path, stat in stats)

    @contextmanager
    def module_directory(self) -> Iterator[Path | None]:
        """lib/modules/RELEASE with depmod's indexes: the installed one, or links to the build's modules."""
        if self.installed:
            if not (self.installed / "modules.dep.bin").is_file():
                raise HarnessError(f"{self.installed} has no modules.dep.bin", hint="run depmod for it")
            yield self.installed
            return
        assert self.build is not None
        modules = self.modules()
        if not modules:
            yield None
            return
        with TemporaryDirectory(prefix="poolproof-modules-") as base:
            directory = Path(base, "lib/modules", self.release)
            for path in modules:
                link = directory / "kernel" / path.relative_to(self.build)
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(path)
            for name in ("modules.builtin", "modules.builtin.modinfo", "modules.order"):
                if (self.build / name).is_file():
                    (directory / name).write_bytes((self.build / name).read_bytes())
            depmod = find_program("depmod")
            if depmod is None:
                raise HarnessError("depmod is needed for a kernel with modules", hint="apt-get install kmod")
            done = subprocess.run(
                [depmod, "-b", base, self.release], capture_output=True, text=True, check=False
            )
            if done.returncode != 0:
                raise HarnessError(f"depmod failed: {done.stderr.strip()}")
            yield directory

    def sources(self) -> tuple[Path, ...]:
        """Directories that a module build reads: the build directory and the kernel source it points to."""
        assert self.build is not None
        found = [self.build]
        link = self.build / "source"
        if link.exists():
            found.append(link.resolve())
        text = (self.build / "Makefile").read_text(errors="replace")
        if match := re.search(r"^include (/\S+)/Makefile$", text, re.M):
            found.append(Path(match.group(1)).resolve())
        return tuple(dict.fromkeys(found))

    def make_args(self) -> tuple[str, ...]:
        return ("LLVM=1",) if "CONFIG_CC_IS_CLANG=y" in (self.config() or "") else ()


def find_kernel_build(path: Path, release: str) -> KernelBuild:
    """Tell what `path` is; HarnessError when it is nothing usable or of another release than the image."""
    if not path.is_dir():
        raise HarnessError(f"KERNEL_BUILD: no such directory: {path}")
    path = path.resolve()
    # An installed tree is known by depmod's file, or before depmod ran by its name and its kernel directory.
    candidates = [path / "lib/modules" / release, path]
    installed = next((each for each in candidates if (each / "modules.dep").is_file()), None)
    if installed is None:
        installed = next(
            (each for each in candidates if each.name == release and (each / "kernel").is_dir()), None
        )
    others = sorted(each.name for each in (path / "lib/modules").glob("*")) if installed is None else []
    if others:
        raise HarnessError(f"KERNEL_BUILD has modules for {', '.join(others)}, the image is {release}")
    build = (installed / "build").resolve() if installed else path
    # What a module's vermagic will say; kernel.release may differ from it in a distribution's headers.
    release_file = build / "include/generated/utsrelease.h"
    if not release_file.is_file():
        if installed:
            return KernelBuild(release, None, installed)
        raise HarnessError(
            f"{path} is neither a kernel build directory nor one with lib/modules/{release}",
            hint="a build directory holds include/generated/utsrelease.h after `make`",
        )
    match = re.search(r'UTS_RELEASE "(.*)"', release_file.read_text(errors="replace"))
    built = match.group(1) if match else "unknown"
    if built != release:
        raise HarnessError(f"KERNEL_BUILD is of kernel {built}, the image is {release}")
    return KernelBuild(release, build, installed)


def require_config(config: str, needs: Path, *, with_modules: bool) -> None:
    """HarnessError that names everything in the list `needs` that a kernel configuration lacks."""
    values = dict(re.findall(r"^CONFIG_(\w+)=(\S+)$", config, re.M))
    lacking = []
    for line in read_list(needs):
        name = line.removeprefix("y:")
        value = values.get(name)
        if value is None:
            lacking.append(f"CONFIG_{name}")
        elif value == "m" and (line.startswith("y:") or not with_modules):
            lacking.append(f"CONFIG_{name}=y (it is a module)")
    if lacking:
        raise HarnessError(
            f"this kernel lacks what a guest needs: {', '.join(lacking)}",
            hint="enable them; where a module will do, give the build or install directory as KERNEL_BUILD=",
        )


def compiler_note(config: str) -> str | None:
    """A sentence when the host's compiler is not the one that built the kernel."""
    match = re.search(r'^CONFIG_CC_VERSION_TEXT="(.*)"$', config, re.M)
    if not match:
        return None
    compiler = "clang" if "CONFIG_CC_IS_CLANG=y" in config else "gcc"
    program = find_program(compiler)
    if program is None:
        return f"the kernel was built by {match.group(1)}; this host has no {compiler} to build modules with"
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    here = done.stdout.splitlines()[0] if done.stdout else "unknown"
    built = match.group(1)
    # "gcc-12 (Debian ...) 12.2.0" and "gcc (Debian ...) 12.2.0" are the same compiler.
    same = here.partition(" ")[2] == built.partition(" ")[2]
    return None if same else f"the kernel was built by {built}, modules will be by {here}"

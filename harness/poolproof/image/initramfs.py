# SPDX-License-Identifier: GPL-2.0-or-later
"""The small initramfs of one kernel: busybox, the init script, and the kernel's modules for the guest.

The modules stay in it as an overlay layer below the shared root file system, which therefore serves every
kernel.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from ..errors import HarnessError
from .bootimage import decompress
from .cpio import CpioWriter
from .debian import read_list

_SUFFIX = re.compile(r"\.ko(\.xz|\.gz|\.zst)?$")


def module_name(path: str) -> str:
    """The name modprobe knows a module file by."""
    return _SUFFIX.sub("", path.rpartition("/")[2]).replace("-", "_")


class ModuleTree:
    """The modules of one kernel with their dependencies, as depmod wrote them down."""

    def __init__(self, directory: Path) -> None:
        """`directory`: .../lib/modules/RELEASE with modules.dep and modules.builtin."""
        self.directory = directory
        self._paths: dict[str, str] = {}
        self._needs: dict[str, list[str]] = {}
        for line in (directory / "modules.dep").read_text().splitlines():
            path, _, needs = line.partition(":")
            self._paths[module_name(path)] = path
            self._needs[path] = needs.split()
        builtin = directory / "modules.builtin"
        text = builtin.read_text() if builtin.exists() else ""
        self._builtin = {module_name(line) for line in text.splitlines()}

    def closure(self, names: Iterable[str]) -> list[str]:
        """Paths of the named modules and all they need, each after what it needs.

        A name with a leading "-" may be missing; any other that is neither a module nor built in is a
        HarnessError.
        """
        ordered: dict[str, None] = {}
        for name in names:
            path = self._paths.get(module_name(name.lstrip("-")))
            if path is not None:
                ordered.update(dict.fromkeys(reversed(self._needs[path])))
                ordered[path] = None
            elif not name.startswith("-") and module_name(name) not in self._builtin:
                raise HarnessError(
                    f"the kernel {self.directory.name} has no module {name}, and not built in either"
                )
        return list(ordered)

    def matching(self, patterns: Sequence[str]) -> list[str]:
        """Paths of the modules that match a pattern below kernel/, with all they need."""
        hits = [
            name
            for name, path in self._paths.items()
            if any(
                fnmatch.fnmatch(_SUFFIX.sub(".ko", path), "kernel/" + pattern.removesuffix(".ko") + ".ko")
                for pattern in patterns
            )
        ]
        return self.closure(sorted(hits))

    def read(self, path: str) -> bytes:
        """A module file, uncompressed."""
        data = (self.directory / path).read_bytes()
        return data if path.endswith(".ko") else decompress(data)


_INDEXES = (
    "modules.alias.bin",
    "modules.builtin.alias.bin",
    "modules.builtin.bin",
    "modules.builtin.modinfo",
    "modules.dep.bin",
    "modules.softdep",
    "modules.symbols.bin",
)


def build_initramfs(recipe: Path, modules: Path | None, busybox: Path, output: Path) -> None:
    """Write the initramfs for the kernel whose `lib/modules/RELEASE` is `modules` (None: everything built
    in).

    `recipe` is vm_images/initramfs. depmod's indexes are taken over whole: they may name modules that are
    left out.
    """
    boot: list[str] = []
    with output.open("wb") as stream:
        archive = CpioWriter(stream)
        for directory in ("bin", "dev", "early", "proc", "sys", "ro", "rw", "new", "layer/usr/lib/modules"):
            archive.directory(directory)
        archive.char_device("dev/console", 5, 1)
        archive.file("bin/busybox", busybox.read_bytes(), 0o755)
        archive.file("init", (recipe / "init").read_bytes(), 0o755)
        if modules is not None:
            tree = ModuleTree(modules)
            early = tree.closure(read_list(recipe / "early.list"))
            for number, path in enumerate(early):
                archive.file(f"early/{number:02}-{module_name(path)}.ko", tree.read(path))
            boot = tree.closure(read_list(recipe / "boot.list"))
            carried = dict.fromkeys([*early, *boot, *tree.matching(read_list(recipe / "available.list"))])
            for name in [*carried, *(index for index in _INDEXES if (modules / index).exists())]:
                archive.file(f"layer/usr/lib/modules/{modules.name}/{name}", (modules / name).read_bytes())
        names = " ".join(module_name(path) for path in boot)
        archive.file("layer/usr/lib/modules/boot.list", f"{names}\n".encode())
        archive.close()

# SPDX-License-Identifier: GPL-2.0-or-later
"""Writing an initramfs (cpio "newc"): owned by root and with device nodes, without being root."""

from __future__ import annotations

import stat
from typing import BinaryIO


class CpioWriter:
    """Adds members in order; parents of a member are made when missing."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._inode = 0
        self._made: set[str] = {""}

    def _member(self, name: str, mode: int, data: bytes = b"", rdev: tuple[int, int] = (0, 0)) -> None:
        self._inode += 1
        raw = name.encode() + b"\0"
        fields = (self._inode, mode, 0, 0, 1, 0, len(data), 0, 0, rdev[0], rdev[1], len(raw), 0)
        header = b"070701" + b"".join(b"%08x" % field for field in fields) + raw
        self._stream.write(header + b"\0" * (-len(header) % 4))
        self._stream.write(data + b"\0" * (-len(data) % 4))

    def directory(self, name: str, mode: int = 0o755) -> None:
        if name in self._made:
            return
        self._parents(name)
        self._made.add(name)
        self._member(name, stat.S_IFDIR | mode)

    def _parents(self, name: str) -> None:
        parent = name.rpartition("/")[0]
        if parent not in self._made:
            self.directory(parent)

    def file(self, name: str, data: bytes, mode: int = 0o644) -> None:
        self._parents(name)
        self._member(name, stat.S_IFREG | mode, data)

    def char_device(self, name: str, major: int, minor: int, mode: int = 0o600) -> None:
        self._parents(name)
        self._member(name, stat.S_IFCHR | mode, rdev=(major, minor))

    def close(self) -> None:
        """Write the trailer; the stream stays open."""
        self._member("TRAILER!!!", 0)

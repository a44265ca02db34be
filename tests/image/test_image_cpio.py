# SPDX-License-Identifier: GPL-2.0-or-later
"""The initramfs archive, read back by the format's definition (Documentation/driver-api/early-userspace)."""

from __future__ import annotations

import io

from poolproof.image.cpio import CpioWriter


def members(data: bytes) -> dict[str, tuple[int, bytes, tuple[int, int], int]]:
    """name -> (mode, content, (major, minor), uid), reading strictly."""
    found = {}
    offset = 0
    while True:
        assert offset % 4 == 0
        assert data[offset : offset + 6] == b"070701"
        fields = [int(data[offset + 6 + 8 * i : offset + 14 + 8 * i], 16) for i in range(13)]
        size, name_size = fields[6], fields[11]
        name = data[offset + 110 : offset + 110 + name_size]
        assert name.endswith(b"\0")
        start = (offset + 110 + name_size + 3) & ~3
        if name == b"TRAILER!!!\0":
            return found
        content = data[start : start + size]
        found[name[:-1].decode()] = (fields[1], content, (fields[9], fields[10]), fields[2])
        offset = (start + size + 3) & ~3


def test_members_read_back() -> None:
    buffer = io.BytesIO()
    archive = CpioWriter(buffer)
    archive.directory("dev")
    archive.char_device("dev/console", 5, 1)
    archive.file("a/b/file", b"12345", 0o755)
    archive.file("a/other", b"")
    archive.close()
    found = members(buffer.getvalue())
    assert list(found) == ["dev", "dev/console", "a", "a/b", "a/b/file", "a/other"]
    assert found["dev/console"] == (0o020600, b"", (5, 1), 0)
    assert found["a/b/file"] == (0o100755, b"12345", (0, 0), 0)
    assert found["a/b"][0] == 0o040755
    assert found["a/other"] == (0o100644, b"", (0, 0), 0)

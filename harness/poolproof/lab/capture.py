# SPDX-License-Identifier: GPL-2.0-or-later
"""Recorded frames: a bounded log in memory that spills to disk, and pcapng files with the keys inside.

pcapng: https://www.ietf.org/archive/id/draft-ietf-opsawg-pcapng-03.html
"""

from __future__ import annotations

import os
import struct
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from poolproof.lab.frames import Frame

SECRETS_POOL = int.from_bytes(b"POOL", "big")

_SECTION, _INTERFACE, _SECRETS, _PACKET = 0x0A0D0D0A, 1, 0x0A, 6
_LINKTYPE_ETHERNET = 1
_OPT_COMMENT, _SHB_USERAPPL, _IF_NAME, _IF_TSRESOL, _EPB_FLAGS = 1, 4, 2, 9, 2
_MAX_OPTION = 65535

_SPILL = struct.Struct("<QqBBHI")  # number, time, port, outbound, note length, data length


class FrameLog:
    """Frames in order of arrival, numbered from 0. Beyond `memory` bytes the oldest go to a file at `spill`,
    beyond `disk` bytes there recording of older frames is given up (`lost` counts them)."""

    def __init__(
        self, spill: Path, ports: Sequence[str], *, memory: int = 32 << 20, disk: int = 1 << 30
    ) -> None:
        self._ports = list(ports)
        self._path = spill
        self._memory, self._disk = memory, disk
        self._frames: deque[Frame] = deque()
        self._bytes = 0
        self._file: BinaryIO | None = None
        self._spilled: list[tuple[int, int]] = []  # (number, offset) of every 256th spilled frame
        self._spill_count = 0
        self._next = 0
        self.lost = 0
        self._changed = threading.Condition()

    def append(self, frame: Frame) -> None:
        """Number and keep a frame."""
        with self._changed:
            frame.number = self._next
            self._next += 1
            self._frames.append(frame)
            self._bytes += len(frame.data)
            while self._bytes > self._memory:
                oldest = self._frames.popleft()
                self._bytes -= len(oldest.data)
                self._write_spill(oldest)
            self._changed.notify_all()

    def mark(self) -> int:
        """Number the next frame will get."""
        with self._changed:
            return self._next

    def since(self, mark: int = 0) -> Iterator[Frame]:
        """Frames from number `mark` on, as far as recorded now."""
        with self._changed:
            recent = [frame for frame in self._frames if frame.number >= mark]
            first = self._frames[0].number if self._frames else self._next
            if self._file is not None:
                self._file.flush()
            start = max((offset for number, offset in self._spilled if number <= mark), default=0)
        if mark < first and self._path.exists():
            yield from self._read_spill(start, mark, first)
        yield from recent

    def wait_for(self, match: Callable[[Frame], bool], since: int, timeout: float) -> Frame | None:
        """The first frame from number `since` on that matches, waiting up to `timeout` seconds for it."""
        found: Frame | None = None
        checked = since

        def look() -> bool:
            nonlocal found, checked
            for frame in reversed(self._frames):
                if frame.number < checked:
                    break
                if match(frame):
                    found = frame  # goes on to the oldest
            checked = self._next
            return found is not None

        for frame in self.since(since):
            if match(frame):
                return frame
        with self._changed:
            self._changed.wait_for(look, timeout)
        return found

    def close(self) -> None:
        """Drop the spill file."""
        with self._changed:
            if self._file is not None:
                self._file.close()
                self._file = None
            self._path.unlink(missing_ok=True)

    def _write_spill(self, frame: Frame) -> None:
        if self._file is None:
            self._file = self._path.open("wb")
        offset = self._file.tell()
        if offset > self._disk:
            self.lost += 1
            return
        if self._spill_count % 256 == 0:
            self._spilled.append((frame.number, offset))
        self._spill_count += 1
        note = frame.note.encode()[:1000]
        port = self._ports.index(frame.port)
        head = _SPILL.pack(frame.number, frame.time_ns, port, frame.outbound, len(note), len(frame.data))
        self._file.write(head + note + frame.data)

    def _read_spill(self, start: int, mark: int, end: int) -> Iterator[Frame]:
        with self._path.open("rb") as file:
            file.seek(start)
            while len(head := file.read(_SPILL.size)) == _SPILL.size:
                number, time_ns, port, outbound, note_len, data_len = _SPILL.unpack(head)
                note, data = file.read(note_len), file.read(data_len)
                if number >= end or len(data) < data_len:
                    return
                if number >= mark:
                    frame = Frame(data, self._ports[port], time_ns, number, bool(outbound), note.decode())
                    yield frame


def write_pcapng(
    path: Path,
    frames: Iterable[Frame],
    ports: Sequence[str],
    *,
    secrets: str = "",
    comment: str = "",
    interface_names: Sequence[str] | None = None,
) -> int:
    """Write frames to a pcapng file (replaced in one step) and return how many.

    One interface per port; `secrets` (keylog text) becomes a Decryption Secrets Block, `comment` the
    section's comment, a frame's note its packet comment. Altered frames carry the outbound flag.
    """
    count = 0
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as out:
        options = _option(_SHB_USERAPPL, b"poolproof")
        if comment:
            options = _option(_OPT_COMMENT, comment.encode()) + options
        body = struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1) + options + _option(0)
        out.write(_block(_SECTION, body))
        for name in interface_names or ports:
            options = _option(_IF_NAME, name.encode()) + _option(_IF_TSRESOL, b"\x09") + _option(0)
            out.write(_block(_INTERFACE, struct.pack("<HHI", _LINKTYPE_ETHERNET, 0, 0) + options))
        if secrets:
            data = secrets.encode()
            out.write(_block(_SECRETS, struct.pack("<II", SECRETS_POOL, len(data)) + _pad(data)))
        index = {name: number for number, name in enumerate(ports)}
        for frame in frames:
            out.write(_packet(frame, index[frame.port]))
            count += 1
    os.replace(temporary, path)
    return count


def _packet(frame: Frame, interface: int) -> bytes:
    high, low = frame.time_ns >> 32, frame.time_ns & 0xFFFFFFFF
    size = len(frame.data)
    head = struct.pack("<IIIII", interface, high, low, size, size)
    options = _option(_EPB_FLAGS, struct.pack("<I", 2 if frame.outbound else 1))
    if frame.note:
        options = _option(_OPT_COMMENT, frame.note.encode()) + options
    return _block(_PACKET, head + _pad(frame.data) + options + _option(0))


def _pad(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def _option(code: int, value: bytes = b"") -> bytes:
    value = value[:_MAX_OPTION]
    return struct.pack("<HH", code, len(value)) + _pad(value)


def _block(kind: int, body: bytes) -> bytes:
    length = struct.pack("<I", len(body) + 12)
    return struct.pack("<I", kind) + length + body + length

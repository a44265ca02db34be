# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest's serial console: kept to the byte from the first one, read for crashes as it comes."""

from __future__ import annotations

import re
import socket
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from poolproof.lab import markers
from poolproof.lab.markers import Marker

# A device may flood the console: what goes beyond is read for markers and counted, not kept.
MAX_FILE = 64 << 20
MAX_EXCERPT = 32 << 10
_MAX_LINE = 4096

# Lines of others (two CPUs print at once) that may stand inside a report before it counts as over.
_STRAY_LINES = 4
_QUIET_S = 0.3


@dataclass(frozen=True)
class ConsoleFinding:
    """One report on the console. `offset`: its byte in the console file; `fatal`: the kernel stopped."""

    kind: str
    title: str
    excerpt: str
    offset: int = 0
    fatal: bool = False


@dataclass
class _Report:
    marker: Marker
    title: str
    offset: int
    lines: list[str]
    fatal: bool
    stray: list[str] = field(default_factory=list)  # lines since that may or may not belong to it
    ended: bool = False
    size: int = 0


@dataclass
class ReportParser:
    """Lines in, findings out. A report begins at a marker and gathers all that belongs to it."""

    findings: list[ConsoleFinding] = field(default_factory=list)
    _open: _Report | None = None
    _cut_here: bool = False
    _boots: int = 0

    @property
    def pending(self) -> bool:
        """Whether a report has begun and may have more to come."""
        return self._open is not None

    def expect_boot(self) -> None:
        """The next kernel banner is no surprise."""
        self.flush()
        self._boots = 0

    def feed(self, line: str, offset: int) -> None:
        """One line without its line end; `offset` is where it starts."""
        line = line.rstrip("\r")
        text = markers.STAMP.sub("", line)
        marker = self._marker(text)
        report = self._open
        if report is None:
            if marker is not None:
                self._open = _Report(marker, text, offset, [line], marker.fatal)
            return
        belongs = marker is not None or bool(markers.REPORT_BODY.match(text))
        if report.ended and marker is None:
            belongs = False
        if marker is not None and self._is_new(report, marker):
            self.flush()
            self._open = _Report(marker, text, offset, [line], marker.fatal)
            return
        if marker is not None:
            if markers.SEVERITY.index(marker.kind) < markers.SEVERITY.index(report.marker.kind):
                report.marker, report.title = marker, text
            report.fatal |= marker.fatal
            report.ended = False
        if belongs:
            for each in (*report.stray, line):
                self._append(report, each)
            report.stray.clear()
        else:
            report.stray.append(line)
        if any(end.match(text) for end in markers.REPORT_ENDS):
            report.ended = True
            if text.startswith("---[ end Kernel panic"):
                self.flush()
                return
        if len(report.stray) >= _STRAY_LINES:
            self.flush()

    def flush(self) -> None:
        """The report at hand is over."""
        report, self._open = self._open, None
        if report is not None:
            excerpt = "\n".join(report.lines)
            self.findings.append(
                ConsoleFinding(report.marker.kind, report.title, excerpt, report.offset, report.fatal)
            )

    def _marker(self, text: str) -> Marker | None:
        if any(pattern.search(text) for pattern in markers.SUPPRESSIONS):
            return None
        for marker in markers.MARKERS:
            if marker.pattern.search(text):
                if marker.kind == "reboot" and text.startswith("Linux version"):
                    self._boots += 1
                    if self._boots == 1:
                        return None
                return marker
        return None

    @staticmethod
    def _is_new(report: _Report, marker: Marker) -> bool:
        """A marker inside a report is part of it (an oops ends in a panic), unless that was complete."""
        if marker.kind == "reboot":
            return True
        return report.ended and not (report.fatal or marker.kind == "panic")

    @staticmethod
    def _append(report: _Report, line: str) -> None:
        if report.size < MAX_EXCERPT:
            report.lines.append(line[:_MAX_LINE])
            report.size += len(line) + 1


def scan(text: str) -> list[ConsoleFinding]:
    """Findings in a piece of kernel log."""
    parser = ReportParser()
    offset = 0
    for line in text.split("\n"):
        parser.feed(line, offset)
        offset += len(line.encode(errors="replace")) + 1
    parser.flush()
    return parser.findings


class Console:
    """Reads what connects to the listening unix socket at `socket_path` and keeps it in the file `path`.

    Positions (`mark`, `since`) are byte offsets into all that was ever read, over reboots and restores.
    """

    def __init__(self, socket_path: Path, path: Path) -> None:
        self.path = path
        self.dropped = 0
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(socket_path))
        self._listener.listen(1)
        self._file = path.open("wb", buffering=0)
        self._total = 0
        self._last = time.monotonic()
        self._parser = ReportParser()
        self._partial = b""
        self._partial_at = 0
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name=f"console {path.name}", daemon=True)
        self._thread.start()

    def mark(self) -> int:
        """The present end."""
        with self._changed:
            return self._total

    def raw(self, since: int = 0) -> bytes:
        """Bytes from a mark on."""
        with self.path.open("rb") as file:
            file.seek(since)
            return file.read()

    def text(self, since: int = 0) -> str:
        """Text from a mark on; bytes that are no UTF-8 become replacement characters."""
        return self.raw(since).decode(errors="replace")

    def wait_for(self, pattern: str, since: int = 0, timeout: float = 10.0) -> re.Match[str]:
        """Wait for `pattern` (multi-line mode) from a mark on; TimeoutError says what came instead."""
        regex = re.compile(pattern, re.MULTILINE)
        deadline = time.monotonic() + timeout
        while True:
            with self._changed:
                seen, closing = self._total, self._closing
            if match := regex.search(self.text(since)):
                return match
            with self._changed:
                while self._total == seen and not self._closing and time.monotonic() < deadline:
                    self._changed.wait(deadline - time.monotonic())
                if self._total == seen or closing:
                    break
        tail = self.text(since)[-400:].strip()
        raise TimeoutError(f"{pattern!r} not on the console after {timeout:g} s; it ends: {tail!r}")

    def findings(self, since: int = 0) -> list[ConsoleFinding]:
        """Reports that begin at or after a mark, the one still under way included."""
        with self._changed:
            parser = ReportParser(list(self._parser.findings), self._parser._open)
            parser.flush()
            return [finding for finding in parser.findings if finding.offset >= since]

    def settle(self, timeout: float = 3.0) -> None:
        """When a report has begun, wait for its end (or for silence), at most `timeout` seconds."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while self._parser.pending and (left := deadline - time.monotonic()) > 0:
                quiet = time.monotonic() - self._last
                if quiet >= _QUIET_S:
                    break
                self._changed.wait(min(left, _QUIET_S - quiet))
            self._parser.flush()

    def expect_boot(self) -> None:
        """A boot that we cause is about to come."""
        with self._changed:
            self._parser.expect_boot()

    def restored(self) -> None:
        """The guest was put back to its snapshot: what was half said belongs to the past."""
        with self._changed:
            self._parser.flush()
            self._partial = b""

    def close(self) -> None:
        """Stop reading; the file stays."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(2.0)
        self._listener.close()
        self._file.close()

    def _run(self) -> None:
        while not self._closing:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                while data := self._receive(connection):
                    self._take(data)

    @staticmethod
    def _receive(connection: socket.socket) -> bytes:
        try:
            return connection.recv(65536)
        except OSError:
            return b""

    def _take(self, data: bytes) -> None:
        with self._changed:
            if self._closing:
                return
            room = max(0, MAX_FILE - self._total + self.dropped)
            self._file.write(data[:room])
            self.dropped += max(0, len(data) - room)
            lines = (self._partial + data).split(b"\n")
            at = self._partial_at
            for line in lines[:-1]:
                self._parser.feed(line.decode(errors="replace"), at)
                at += len(line) + 1
            self._partial, self._partial_at = lines[-1][-_MAX_LINE:], at
            self._total += len(data)
            self._last = time.monotonic()
            self._changed.notify_all()

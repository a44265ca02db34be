# SPDX-License-Identifier: GPL-2.0-or-later
"""`context.evidence`: how steps and hooks put evidence beside the verdict.

Files go to `evidence/<scenario id>/` (`evidence/run/` outside of scenarios) in the run's directory. Text is
made harmless, everything has a size cap, names are reduced to a safe alphabet.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace
from pathlib import Path

from poolproof.behaving.selecting import slug
from poolproof.reports.text import line, sanitize
from poolproof.verdicts.axes import Health, worst_health
from poolproof.verdicts.results import Attachment, Environment, Finding

TEXT_CAP = 1 << 20
BINARY_CAP = 8 << 20
SCOPE_CAP = 24 << 20  # one scenario's attachments together
ATTACHMENT_COUNT, FINDING_COUNT, NOTE_COUNT = 200, 50, 200  # of one scenario
EXCERPT_CAP = 16 << 10

_SUFFIXES = {
    "text/plain": ".txt",
    "text/html": ".html",
    "text/x-python": ".py",
    "application/json": ".json",
    "application/vnd.tcpdump.pcap": ".pcap",
    "application/x-pcapng": ".pcapng",
}


@dataclass
class Scope:
    """What is being collected for one scenario, or for the run outside of any."""

    folder: str
    step: int | None = None
    checked: bool = False
    worst: Health = Health.CLEAN
    left_out: int = 0
    attachments: list[Attachment] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    parameters: dict[str, str] = field(default_factory=dict)
    stored: int = 0

    @property
    def health(self) -> Health:
        """The worst finding; without any CLEAN if somebody looked, else UNKNOWN."""
        if self.findings:
            return self.worst
        return Health.CLEAN if self.checked else Health.UNKNOWN


class Evidence:
    """Collects into whatever scope is current. Safe to call from any thread."""

    def __init__(self, run_dir: Path, environment: Environment) -> None:
        self.run_dir = run_dir
        self.run_scope = Scope("run")
        self._scope = self.run_scope
        self._environment = environment
        self._lock = threading.RLock()

    def enter(self, scope: Scope) -> None:
        """Make `scope` the current one (the runner's business)."""
        with self._lock:
            self._scope = scope

    @property
    def folder(self) -> Path:
        """The current scope's directory for evidence, created on demand."""
        path = self.run_dir / "evidence" / self._scope.folder
        path.mkdir(parents=True, exist_ok=True)
        return path

    def attach(self, name: str, data: str | bytes | Path, mime: str = "text/plain") -> None:
        """Keep `data` (text, bytes, or the file at a path) under `name`.

        Text (`text/*`, JSON) is made harmless and cut in the middle beyond 1 MiB; anything else is kept as it
        is and cut at the end beyond 8 MiB, 24 MiB a scenario in all. Raises OSError if the file cannot be
        read.
        """
        textual = mime.startswith("text/") or mime == "application/json"
        with self._lock:
            scope = self._scope
            if len(scope.attachments) >= ATTACHMENT_COUNT:
                scope.left_out += 1
                return
            room = max(0, min(TEXT_CAP if textual else BINARY_CAP, SCOPE_CAP - scope.stored))
            content, gone = _read(data, room, textual)
            path = self.folder / f"{len(scope.attachments) + 1:02d}-{_file_name(name, mime)}"
            path.write_bytes(content)
            scope.stored += len(content)
            scope.attachments.append(
                Attachment(
                    name=line(name, 200) or "attachment",
                    path=str(path.relative_to(self.run_dir)),
                    mime=mime,
                    size=len(content),
                    cut=gone,
                    step=scope.step,
                )
            )

    def finding(
        self, kind: str, title: str, excerpt: str | bytes = "", health: Health = Health.COMPLAINED
    ) -> None:
        """Record something about the device's health: complained (default), leaked or died."""
        with self._lock:
            scope = self._scope
            scope.worst = worst_health((scope.worst, health))
            if len(scope.findings) >= FINDING_COUNT:
                scope.left_out += 1
                return
            shown = sanitize(excerpt, EXCERPT_CAP)
            scope.findings.append(Finding(health, line(kind, 60), line(title, 400), shown, scope.step))

    def healthy(self) -> None:
        """State that the device was examined: without findings its health is `clean`, not `unknown`."""
        self._scope.checked = True

    def note(self, text: str | bytes) -> None:
        """A remark shown with the scenario (what was measured, which keys were used, ...)."""
        with self._lock:
            if len(self._scope.notes) >= NOTE_COUNT:
                self._scope.left_out += 1
                return
            self._scope.notes.append(sanitize(text, 4096))

    def parameter(self, name: str, value: object) -> None:
        """A parameter of the scenario beyond its outline's row (the pairing, the address family, ...)."""
        with self._lock:
            self._scope.parameters[line(name, 60)] = line(str(value), 200)

    @property
    def environment(self) -> Environment:
        """What the report says about the device and the machine."""
        return self._environment

    def describe(self, **changes: str | int) -> None:
        """Fill in the environment: its fields (kernel=, accelerator=, cpu=, ...); other names are details."""
        known = {key: value for key, value in changes.items() if key in Environment.__dataclass_fields__}
        details = {key: str(value) for key, value in changes.items() if key not in known}
        with self._lock:
            merged = {**self._environment.details, **details}
            self._environment = replace(self._environment, **known, details=merged)  # type: ignore[arg-type]


def _read(data: str | bytes | Path, room: int, textual: bool) -> tuple[bytes, int]:
    """At most about `room` bytes of `data`, and how many are missing."""
    if isinstance(data, Path):
        size = data.stat().st_size
        with data.open("rb") as stream:
            if textual and size > room:
                head = stream.read(room // 2)
                stream.seek(size - room // 2)
                cut = f"\n[cut: {size - 2 * (room // 2)} bytes]\n"
                shown = sanitize(head, room) + cut + sanitize(stream.read(room // 2), room)
                return shown.encode(), size - 2 * (room // 2)
            raw = stream.read(room)
    else:
        raw = data.encode("utf-8", "backslashreplace") if isinstance(data, str) else data
        size = len(raw)
    gone = max(0, size - room)
    return (sanitize(raw, room).encode() if textual else raw[:room]), gone


def _file_name(name: str, mime: str) -> str:
    suffix = _SUFFIXES.get(mime, ".bin")
    return slug(name.removesuffix(suffix)) + suffix

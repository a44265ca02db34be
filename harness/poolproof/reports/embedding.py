# SPDX-License-Identifier: GPL-2.0-or-later
"""What of the evidence goes into the page, and what stays beside it.

A single file that opens in a browser has an end. Scenarios that are not as expected may put more into it;
what does not fit is named with its path in the run's directory, never silently dropped.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path

from allure_commons.model2 import Attachment

from poolproof.reports.text import TEXT_LIMIT, line, sanitize
from poolproof.verdicts import results

BAD_ALLOWANCE, GOOD_ALLOWANCE = 2 << 20, 96 << 10
_LISTED = 60
_SUFFIXES = {"text/plain": "txt", "text/csv": "csv", "application/json": "json"}


class Embedder:
    """Turns evidence into attachments of the page, `limit` bytes in all; `store(content, name)` keeps."""

    def __init__(self, store: Callable[[bytes, str], object], run_dir: Path, limit: int) -> None:
        self._store = store
        self._run_dir = run_dir
        self._room = limit
        self._allowance = limit
        self._beside: list[str] = []

    def begin(self, allowance: int) -> None:
        """What follows belongs to one scenario, which may use `allowance` bytes."""
        self._allowance = min(allowance, self._room)
        self._beside = []

    def evidence(self, evidence: results.Attachment) -> list[Attachment]:
        """The evidence as an attachment, or none if it stays beside the page."""
        name = f"{evidence.name} [cut: {evidence.cut} bytes]" if evidence.cut else evidence.name
        try:
            content = (self._run_dir / evidence.path).read_bytes()
        except OSError as error:
            self._beside.append(f"{evidence.path}: {error.strerror}")
            return []
        where = f"{evidence.path}  {line(name, 200)}, {evidence.size} bytes"
        suffix = Path(evidence.path).suffix.lstrip(".") or "bin"
        return self._embed(name, content, evidence.mime, suffix, where)

    def text(self, name: str, text: str, mime: str = "text/plain") -> list[Attachment]:
        """Text from the results themselves as an attachment."""
        where = f"results.json  {line(name, 200)}"
        return self._embed(name, text.encode("utf-8", "replace"), mime, "txt", where)

    def own(self, path: Path, mime: str) -> list[Attachment]:
        """A text file of ours, whatever room is left."""
        content = sanitize(path.read_bytes(), 1 << 20).encode()
        return [self._keep(path.name, content, mime, _SUFFIXES[mime])]

    def beside(self) -> list[Attachment]:
        """An attachment that names what stayed beside the page since `begin`, if anything did."""
        if not self._beside:
            return []
        more = [f"... and {len(self._beside) - _LISTED} more"] if len(self._beside) > _LISTED else []
        lines = ["Too large for this page; these files are beside it:", *self._beside[:_LISTED], *more]
        return [self._keep("more evidence beside this page", "\n".join(lines).encode(), "text/plain", "txt")]

    def _embed(self, name: str, content: bytes, mime: str, suffix: str, where: str) -> list[Attachment]:
        if "html" in mime or "xml" in mime:
            mime = "text/plain"  # a page or drawing from a device is shown as its source
        if mime.startswith("text/") or mime == "application/json":
            content = sanitize(content, TEXT_LIMIT).encode()
            suffix = _SUFFIXES.get(mime, "txt")
        if len(content) > self._allowance:
            self._beside.append(where)
            return []
        return [self._keep(name, content, mime, suffix)]

    def _keep(self, name: str, content: bytes, mime: str, suffix: str) -> Attachment:
        self._allowance -= len(content)
        self._room -= len(content)
        source = f"{uuid.uuid4()}-attachment.{suffix}"
        self._store(content, source)
        return Attachment(name=line(name, 200), source=source, type=mime)

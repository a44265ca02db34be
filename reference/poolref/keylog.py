# SPDX-License-Identifier: GPL-2.0-or-later
"""Key log lines: what a dissector needs to decrypt a capture, one line for each key epoch of a session.

``POOL_SESSION <session_id, 32 hex digits> <epoch> <session_key, 64> <hmac_key, 64>``
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .constants import KEY_SIZE, SESSION_ID_SIZE
from .errors import DecodeError

LABEL = "POOL_SESSION"

Keylog = Callable[[str], None]
"""Takes one line, without its line end."""


@dataclass(frozen=True, slots=True)
class KeylogEntry:
    """The keys of one epoch of one session."""

    session_id: bytes
    epoch: int
    session_key: bytes
    hmac_key: bytes

    def line(self) -> str:
        """The text form, without a line end."""
        return f"{LABEL} {self.session_id.hex()} {self.epoch} {self.session_key.hex()} {self.hmac_key.hex()}"


def parse_line(line: str) -> KeylogEntry | None:
    """Read one line; None for an empty line or a ``#`` comment, DecodeError for anything that is not a
    key.
    """
    text = line.strip()
    if not text or text.startswith("#"):
        return None
    words = text.split()
    if len(words) != 5 or words[0] != LABEL:
        raise DecodeError(0, "line", f"not a {LABEL} line")
    try:
        entry = KeylogEntry(
            bytes.fromhex(words[1]), int(words[2]), bytes.fromhex(words[3]), bytes.fromhex(words[4])
        )
    except ValueError as error:
        raise DecodeError(0, "line", str(error)) from None
    sizes = (len(entry.session_id), len(entry.session_key), len(entry.hmac_key))
    if sizes != (SESSION_ID_SIZE, KEY_SIZE, KEY_SIZE) or entry.epoch < 0:
        raise DecodeError(0, "line", "wrong length")
    return entry

# SPDX-License-Identifier: GPL-2.0-or-later
"""Keys for decryption: by session and epoch, from objects, key logs, or captures that carry their keys."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from scapy.error import log_runtime

from poolref.errors import DecodeError
from poolref.keylog import parse_line
from poolref.keys import Keys

from .pcapng import MAGIC, key_logs


class KeyRing:
    """Keys of many sessions and epochs.  Key logs are followed: a packet without a fitting key makes the
    ring read what was appended to them since.
    """

    def __init__(self) -> None:
        self._keys: dict[bytes, list[Keys]] = {}
        self._logs: dict[Path, int] = {}  # how far each was read

    def add(self, session_id: bytes, keys: Keys) -> None:
        """Use ``keys`` for the session with this id (16 bytes); what is there already is not added again."""
        known = self._keys.setdefault(bytes(session_id), [])
        if all(keys.hmac_key != other.hmac_key for other in known):
            known.append(keys)
            known.sort(key=lambda item: item.epoch, reverse=True)

    def add_log(self, text: str) -> int:
        """Take the lines of a key log; how many keys they hold.  DecodeError for a line that is none."""
        entries = [entry for line in text.splitlines() if (entry := parse_line(line)) is not None]
        for entry in entries:
            self.add(entry.session_id, Keys.from_log(entry))
        return len(entries)

    def load(self, path: str | os.PathLike[str]) -> int:
        """Read a key log and follow it from then on, or take the keys that a pcapng capture carries; how many
        there are.  OSError, DecodeError.
        """
        log = Path(path)
        with log.open("rb") as file:
            if file.read(len(MAGIC)) == MAGIC:
                file.seek(0)
                return sum(map(self.add_log, key_logs(file)))
        self._logs[log] = 0
        return self._read(log)

    def refresh(self) -> int:
        """Read what was appended to the key logs; how many keys that was.  A log that can no longer be read
        is followed no longer, with a warning.
        """
        count = 0
        for log in list(self._logs):
            try:
                count += self._read(log)
            except (OSError, DecodeError) as error:
                del self._logs[log]
                log_runtime.warning("key log %s is no longer followed: %s", log, error)
        return count

    def find(self, session_id: bytes) -> Iterator[Keys]:
        """The session's keys that are not erased, the newest epoch first."""
        return (keys for keys in self._keys.get(bytes(session_id), ()) if keys.usable)

    def clear(self) -> None:
        """Forget all keys and key logs."""
        self._keys.clear()
        self._logs.clear()

    def __len__(self) -> int:
        return sum(map(len, self._keys.values()))

    def _read(self, log: Path) -> int:
        with log.open("rb") as file:
            file.seek(self._logs[log])
            data = file.read()
        complete = data[: data.rfind(b"\n") + 1]  # the writer may be in the middle of a line
        self._logs[log] += len(complete)
        return self.add_log(complete.decode("utf-8", "replace"))


keyring = KeyRing()
"""What every dissection and build uses that was not given keys of its own."""

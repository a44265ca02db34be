# SPDX-License-Identifier: GPL-2.0-or-later
"""The system's clocks and randomness, and the key log file."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Final

from ..keylog import Keylog

random_bytes: Final = os.urandom
monotonic: Final = time.monotonic_ns
"""ns of an unspecified epoch."""
wall_clock: Final = time.time_ns
"""UNIX time in ns."""


def keylog_file(path: str | os.PathLike[str]) -> Keylog:
    """A key log that appends each line to a file, which is made readable by its owner only."""
    target = Path(path)

    def log(line: str) -> None:
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "a", encoding="ascii") as file:
            file.write(line + "\n")

    return log

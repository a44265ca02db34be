# SPDX-License-Identifier: GPL-2.0-or-later
"""Verdicts: plain data about what was seen, without any opinion on how it was obtained or is shown.

Steps and hooks raise Inconclusive, NotSupported, DeviceDied or DeviceUntestable; everything else about them
is in `results` (the run's data), `requirements` (the ledger and its roll-up) and `gate` (the exit status).
"""

from poolproof.verdicts.axes import (
    DeviceDied,
    DeviceUntestable,
    Health,
    Inconclusive,
    NotSupported,
    Outcome,
    VerdictError,
    Wire,
)

__all__ = [
    "DeviceDied",
    "DeviceUntestable",
    "Health",
    "Inconclusive",
    "NotSupported",
    "Outcome",
    "VerdictError",
    "Wire",
]

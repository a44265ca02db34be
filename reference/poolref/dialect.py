# SPDX-License-Identifier: GPL-2.0-or-later
"""Deviations from the specification that a peer may be spoken to in.

The default of every field is normative; a new dialect is a new instance, never a branch in the code that
uses it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from .constants import MIN_DIFFICULTY

ByteOrder = Literal["big", "little"]


@dataclass(frozen=True, slots=True)
class Dialect:
    """How the wire differs from the specification."""

    name: str = "spec"
    nonce_seq_order: ByteOrder = "big"  # SEAL-02
    telemetry_order: ByteOrder = "big"  # section 12
    init_timestamp: Literal["wall", "monotonic"] = (
        "wall"  # HS-06; monotonic is neither sent as wall nor checked
    )
    min_difficulty: int = MIN_DIFFICULTY  # HS-04: the lowest a server of this dialect may be set to


SPEC: Final = Dialect()

# SPDX-License-Identifier: GPL-2.0-or-later
"""What a node is configured with; validated when made."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import TYPE_CHECKING

from . import constants as c
from .address import ZERO_ADDRESS, acceptable
from .constants import Role
from .dialect import SPEC, Dialect
from .errors import LocalError

if TYPE_CHECKING:
    from .misbehaviour.conduct import Conduct, Misbehaviour


@dataclass(frozen=True, slots=True)
class Settings:
    """EINVAL (LocalError) for a value out of its range."""

    difficulty: int = c.MIN_DIFFICULTY  # HS-04: bits of the puzzle without load, 16..20
    heartbeat_s: int = c.HEARTBEAT_INTERVAL_S  # section 12: seconds, 1..30
    address: bytes = ZERO_ADDRESS  # section 9: this node's own, or zero
    dialect: Dialect = SPEC
    misbehaviour: Misbehaviour | None = None  # what the node does wrong on purpose
    rekey_packets: int = c.REKEY_PACKETS_RANGE[1]  # RK-01: 2^10..2^28
    rekey_s: int = c.REKEY_RANGE_S[1]  # RK-01: seconds, 10..3600
    integrity_s: int = c.INTEGRITY_INTERVAL_S  # INT-01: seconds between challenges, 1..3600; 0: none
    mtu_min: int = c.MTU_RANGE[0]  # MTU-02, E-49: bytes, 512 up to mtu_max
    mtu_max: int = c.MTU_RANGE[1]  # MTU-02, E-49: bytes, up to 1400
    peer_exchange: bool = True  # DISC-03: whether this node tells its peers of the others it knows
    remote_admin: bool = True  # AUTH-02: whether peers may send CONFIG and ROLLBACK and read the journal

    def __post_init__(self) -> None:
        low, high = self.dialect.min_difficulty, c.MAX_CONFIGURED_DIFFICULTY
        if not low <= self.difficulty <= high:
            raise LocalError(errno.EINVAL, f"difficulty {self.difficulty} is not within {low}..{high}")
        low, high = c.HEARTBEAT_RANGE_S
        if not low <= self.heartbeat_s <= high:
            raise LocalError(errno.EINVAL, f"heartbeat of {self.heartbeat_s} s is not within {low}..{high}")
        low, high = c.REKEY_PACKETS_RANGE
        if not low <= self.rekey_packets <= high:
            raise LocalError(
                errno.EINVAL, f"a rekey after {self.rekey_packets} packets is not within {low}..{high}"
            )
        low, high = c.REKEY_RANGE_S
        if not low <= self.rekey_s <= high:
            raise LocalError(errno.EINVAL, f"a rekey after {self.rekey_s} s is not within {low}..{high}")
        low, high = c.INTEGRITY_RANGE_S
        if self.integrity_s and not low <= self.integrity_s <= high:
            raise LocalError(
                errno.EINVAL, f"a challenge every {self.integrity_s} s is neither 0 nor within {low}..{high}"
            )
        low, high = c.MTU_RANGE
        if not low <= self.mtu_min <= self.mtu_max <= high:
            raise LocalError(
                errno.EINVAL, f"MTU bounds {self.mtu_min} and {self.mtu_max} are not within {low}..{high}"
            )
        if not acceptable(self.address):
            raise LocalError(errno.EINVAL, "the node's address has a wrong checksum")

    @property
    def sent_address(self) -> bytes:
        """What INIT or CHALLENGE carries as this node's address."""
        return self.address if self.dialect.addressed else ZERO_ADDRESS

    def conduct(self, role: Role, *, established: bool) -> Conduct | None:
        """How one connection misbehaves, in its handshake or afterwards; None: not at all."""
        return None if self.misbehaviour is None else self.misbehaviour.conduct(role, established)

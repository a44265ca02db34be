# SPDX-License-Identifier: GPL-2.0-or-later
"""The configuration of a node: parameters, what a CONFIG carries, and the change that is tentative until it
is confirmed or undone (section 14).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple, Protocol

from . import constants as c
from .errors import DecodeError
from .settings import Settings
from .wire import Buffer, offset_of, sized, struct_of

ZERO_HASH: Final = bytes(32)

_CONFIG: Final = struct_of("config")
_PARAMETERS: Final = struct_of("parameters")
_ZERO_OFFSET: Final = offset_of("parameters", "zero")


@dataclass(frozen=True, slots=True)
class Parameters:
    """The 16 bytes of parameters.  Times are seconds, MTUs bytes of a whole packet."""

    difficulty: int
    heartbeat_s: int
    rekey_packets: int
    rekey_s: int
    mtu_min: int
    mtu_max: int

    @classmethod
    def of(cls, settings: Settings) -> Parameters:
        """What a node starts with."""
        return cls(
            settings.difficulty, settings.heartbeat_s, settings.rekey_packets, settings.rekey_s,
            settings.mtu_min, settings.mtu_max,
        )  # fmt: skip

    def pack(self) -> bytes:
        """The 16 bytes; struct.error when a value does not fit its field."""
        return _PARAMETERS.pack(
            self.difficulty, 0, self.heartbeat_s, self.rekey_packets, self.rekey_s, self.mtu_min, self.mtu_max
        )

    @classmethod
    def unpack(cls, data: Buffer) -> Parameters:
        """DecodeError unless it has 16 bytes, the second of them zero.  Ranges: :meth:`out_of_range`."""
        sized(data, c.PARAMETERS_SIZE, "parameters")
        difficulty, zero, *others = _PARAMETERS.unpack(data)
        if zero:
            raise DecodeError(_ZERO_OFFSET, "zero", f"{zero:#04x}")
        return cls(difficulty, *others)

    def out_of_range(self) -> str | None:
        """The name of the first parameter outside its range (CFG-01), None when there is none."""
        for name, value, (low, high) in (
            ("difficulty", self.difficulty, (c.MIN_DIFFICULTY, c.MAX_CONFIGURED_DIFFICULTY)),
            ("heartbeat", self.heartbeat_s, c.HEARTBEAT_RANGE_S),
            ("rekey_packets", self.rekey_packets, c.REKEY_PACKETS_RANGE),
            ("rekey_sec", self.rekey_s, c.REKEY_RANGE_S),
            ("mtu_min", self.mtu_min, c.MTU_RANGE),
            ("mtu_max", self.mtu_max, (self.mtu_min, c.MTU_RANGE[1])),
        ):
            if not low <= value <= high:
                return name
        return None


class Reference(NamedTuple):
    """What a change builds on: the version and hash of a configuration."""

    version: int
    hash: bytes


START: Final = Reference(0, ZERO_HASH)
"""Every node's, whatever its parameters."""


def config_hash(version: int, params: bytes) -> bytes:
    """SHA-256(version ‖ params)."""
    return hashlib.sha256(version.to_bytes(4, "big") + params).digest()


@dataclass(frozen=True, slots=True)
class ConfigPayload:
    """CONFIG plaintext (104 bytes).  ``timestamp`` is UNIX ns, ``deadline_ns`` counts from receipt (D-07);
    ``params`` are the 16 bytes as they are.
    """

    version: int
    prev_version: int
    config_hash: bytes
    prev_hash: bytes
    timestamp: int
    deadline_ns: int
    params: bytes

    @classmethod
    def proposing(
        cls, params: Parameters, base: Reference, version: int, deadline_ns: int, wall: int
    ) -> ConfigPayload:
        """The proposal of ``params`` as ``version`` on top of ``base``."""
        packed = params.pack()
        return cls(version, base.version, config_hash(version, packed), base.hash, wall, deadline_ns, packed)

    def pack(self) -> bytes:
        """The 104 bytes; struct.error when a value does not fit its field."""
        return _CONFIG.pack(
            self.version, self.prev_version, self.config_hash, self.prev_hash, self.timestamp,
            self.deadline_ns, self.params,
        )  # fmt: skip

    @classmethod
    def unpack(cls, plaintext: Buffer) -> ConfigPayload:
        """DecodeError unless it has 104 bytes."""
        sized(plaintext, c.CONFIG_SIZE, "config")
        return cls(*_CONFIG.unpack(plaintext))


class Refusal(StrEnum):
    """Why a CONFIG or ROLLBACK changes nothing (CFG-01, CFG-02, CFG-05, E-45, E-47, E-48)."""

    SIZE = "size"
    TENTATIVE = "another one is tentative"
    VERSION = "version"
    PREV_VERSION = "prev_version"
    PREV_HASH = "prev_hash"
    CONFIG_HASH = "config_hash"
    DEADLINE = "deadline"
    PARAMETERS = "parameters"
    NOT_TENTATIVE = "nothing is tentative"
    OTHER_SESSION = "another session proposed it"
    NOT_PERMITTED = "remote_admin is off"


class Undoing(StrEnum):
    """What ended a tentative configuration unconfirmed."""

    DEADLINE = "deadline"
    ROLLBACK = "rollback"
    SESSION_ENDED = "session ended"


@dataclass(frozen=True, slots=True)
class Current:
    """The configuration in force."""

    version: int
    hash: bytes
    params: Parameters


class Proposer(Protocol):
    """Who proposed what is tentative; told when it is undone."""

    def undone(self, undone: Current, restored: Current, why: Undoing, now: int) -> None:
        """``undone`` was in force until now, ``restored`` is again (CFG-04)."""


@dataclass(frozen=True, slots=True)
class Tentative:
    """A configuration in force until ``deadline`` (ns) unless its owner confirms it."""

    previous: Current
    owner: Proposer
    deadline: int


class Configuration:
    """The node's one configuration (CFG-06).

    :attr:`current` is replaced whole, never changed in place, so whoever reads it has one configuration and
    no mixture.  Each method first settles what is due at ``now``; a change that is confirmed or undone leaves
    :attr:`tentative` before anybody hears of it, so it cannot be settled twice (CFG-04).
    """

    def __init__(self, params: Parameters) -> None:
        self.current = Current(*START, params)
        self.tentative: Tentative | None = None
        self._confirmed_by: Proposer | None = None
        self._watchers: list[Callable[[], None]] = []

    @property
    def reference(self) -> Reference:
        """What the next change has to name as its predecessor."""
        return Reference(self.current.version, self.current.hash)

    def judge(self, payload: ConfigPayload) -> Refusal | Parameters:
        """CFG-01: the parameters of an acceptable proposal, or what is wrong with it.  Changes nothing."""
        if payload.version <= self.current.version:
            return Refusal.VERSION
        if payload.prev_version != self.current.version:
            return Refusal.PREV_VERSION
        if payload.prev_hash != self.current.hash:
            return Refusal.PREV_HASH
        if payload.config_hash != config_hash(payload.version, payload.params):
            return Refusal.CONFIG_HASH
        low, high = c.CONFIG_DEADLINE_RANGE
        if not low <= payload.deadline_ns <= high:
            return Refusal.DEADLINE
        try:
            params = Parameters.unpack(payload.params)
        except DecodeError:
            return Refusal.PARAMETERS
        return params if params.out_of_range() is None else Refusal.PARAMETERS

    def propose(self, payload: ConfigPayload, owner: Proposer, now: int) -> Refusal | None:
        """Put a proposal in force tentatively (CFG-02); why not, or None."""
        self.expire(now)
        if self.tentative is not None:
            return Refusal.TENTATIVE
        params = self.judge(payload)
        if isinstance(params, Refusal):
            return params
        self.tentative = Tentative(self.current, owner, now + payload.deadline_ns)
        self._put(Current(payload.version, payload.config_hash, params))
        return None

    def confirm(self, payload: ConfigPayload, owner: Proposer, now: int) -> Refusal | bool:
        """Make the tentative configuration permanent (CFG-03): True, False for a repeat that changes nothing,
        or why not.
        """
        self.expire(now)
        same = Reference(payload.version, payload.config_hash) == self.reference
        if self.tentative is None:
            return False if same and owner is self._confirmed_by else Refusal.NOT_TENTATIVE
        if owner is not self.tentative.owner:
            return Refusal.OTHER_SESSION
        if not same:
            return Refusal.CONFIG_HASH
        self.tentative = None
        self._confirmed_by = owner
        return True

    def roll_back(self, owner: Proposer, now: int) -> Refusal | None:
        """CFG-05: undo the tentative configuration; why not, or None."""
        self.expire(now)
        if self.tentative is None:
            return Refusal.NOT_TENTATIVE
        if owner is not self.tentative.owner:
            return Refusal.OTHER_SESSION
        self._undo(self.tentative, Undoing.ROLLBACK, now)
        return None

    def expire(self, now: int) -> None:
        """CFG-04: at its deadline a tentative configuration is undone."""
        if self.tentative is not None and now >= self.tentative.deadline:
            self._undo(self.tentative, Undoing.DEADLINE, now)

    def owner_ended(self, owner: Proposer, now: int) -> None:
        """CFG-03: the session of ``owner`` is over, and with it what it left unconfirmed."""
        self.expire(now)
        if self.tentative is not None and owner is self.tentative.owner:
            self._undo(self.tentative, Undoing.SESSION_ENDED, now)
        if owner is self._confirmed_by:
            self._confirmed_by = None

    def watch(self, watcher: Callable[[], None]) -> None:
        """Call ``watcher`` whenever other parameters are in force; once, however often it is given."""
        if watcher not in self._watchers:
            self._watchers.append(watcher)

    def unwatch(self, watcher: Callable[[], None]) -> None:
        """Stop calling ``watcher``; nothing when it is not called."""
        if watcher in self._watchers:
            self._watchers.remove(watcher)

    def _undo(self, tentative: Tentative, why: Undoing, now: int) -> None:
        undone = self.current
        self.tentative = None
        self._put(tentative.previous)
        tentative.owner.undone(undone, tentative.previous, why, now)

    def _put(self, current: Current) -> None:
        changed = current.params != self.current.params
        self.current = current
        if changed:
            for watcher in tuple(self._watchers):
                watcher()

# SPDX-License-Identifier: GPL-2.0-or-later
"""Named 64-bit counters (ERR-01): nothing is discarded without one of these moving."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Final

COUNTER_MAX: Final = (1 << 64) - 1


class Verdict(StrEnum):
    """What became of a packet that was not discarded."""

    ACCEPTED = "accepted"
    CLOSED = "closed"  # it ended the session or the attempt in the regular way


class DropReason(StrEnum):
    """Why a packet was discarded.  The value is the counter's name."""

    # parsing
    MALFORMED = "malformed"
    VERSION_MISMATCH = "version_mismatch"
    # finding the session, legality
    UNKNOWN_SESSION = "unknown_session"
    UNEXPECTED_TYPE = "unexpected_type"
    UNKNOWN_TYPE = "unknown_type"
    SPOOFED = "spoofed"
    # protection
    AUTH_FAIL = "auth_fail"
    REFLECTED = "reflected"
    REPLAY = "replay_drops"
    DUPLICATE = "duplicate"
    OUT_OF_WINDOW = "out_of_window"
    DECRYPT_FAIL = "decrypt_fail"
    BAD_ACK = "bad_ack"
    # handshake
    STALE_INIT = "stale_init"
    BAD_SESSION_ID = "bad_session_id"
    STALE_RESPONSE = "stale_response"
    BAD_PUZZLE = "bad_puzzle"
    LOW_ORDER_KEY = "low_order_key"
    BAD_PROOF = "bad_proof"
    NO_SLOT = "no_slot"
    TOO_DIFFICULT = "too_difficult"
    NO_RANDOMNESS = "no_randomness"
    # payloads
    UNSUBSCRIBED = "unsubscribed"
    OVERLOAD = "overload"
    FRAG_TIMEOUT = "frag_timeout"
    FRAG_EVICTED = "frag_evicted"
    UNSOLICITED = "unsolicited"
    ANNOUNCE_LIMITED = "announce_limited"
    PEERS_FULL = "peers_full"
    CONFIG_REJECT = "config_reject"
    NOT_PERMITTED = "not_permitted"
    JOURNAL_FULL = "journal_full"
    JOURNAL_BROKEN = "journal_broken"
    INTEGRITY_FAIL = "integrity_fail"
    INTEGRITY_LIMITED = "integrity_limited"


Outcome = Verdict | DropReason

EVENT_COUNTERS: Final = (
    "packets_sent",
    "packets_received",
    "challenges_sent",
    "handshakes_completed",
    "handshakes_failed",
    "handshake_timeouts",
    "handshakes_evicted",
    "sessions_ended",
    "peers_dead",
    "packets_resent",
    "sessions_timed_out",
    "send_failures",
    "multicast_failures",
    "errors_not_journalled",
)

COUNTER_NAMES: Final = tuple(str(reason) for reason in DropReason) + EVENT_COUNTERS


class Counters(Mapping[str, int]):
    """A fixed set of counters, each of which also feeds the same counter of ``parent``.

    They saturate at 2^64 - 1 (HB-03).
    """

    __slots__ = ("_parent", "_values")

    def __init__(self, parent: Counters | None = None) -> None:
        self._values = dict.fromkeys(COUNTER_NAMES, 0)
        self._parent = parent

    def count(self, name: str, amount: int = 1) -> None:
        """Add ``amount``; an unknown name is a programming error (KeyError)."""
        values = self._values
        value = values[name] + amount
        values[name] = value if value <= COUNTER_MAX else COUNTER_MAX
        if self._parent is not None:
            self._parent.count(name, amount)

    def __getitem__(self, name: str) -> int:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

# SPDX-License-Identifier: GPL-2.0-or-later
"""Numbers of the protocol: types, flags, states, codes, sizes and times.

Times are integer nanoseconds, sizes are bytes, unless the name says otherwise.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag
from typing import Final

VERSION: Final = 1
DEFAULT_PORT: Final = 9253

HEADER_SIZE: Final = 80
TAG_SIZE: Final = 16
KEY_SIZE: Final = 32
HMAC_SIZE: Final = 32
SESSION_ID_SIZE: Final = 16
ADDRESS_SIZE: Final = 32
NONCE_PREFIX_SIZE: Final = 4
MAX_PAYLOAD: Final = 65535
MAX_PLAINTEXT: Final = MAX_PAYLOAD - TAG_SIZE  # WIRE-04
MAX_MESSAGE: Final = 65535  # DATA-01

INIT_SIZE: Final = 64
CHALLENGE_SIZE: Final = 98
RESPONSE_SIZE: Final = 112
TELEMETRY_SIZE: Final = 44

NANOSECOND: Final = 1
MILLISECOND: Final = 1_000_000
SECOND: Final = 1_000_000_000


class Type(IntEnum):
    """Packet types (section 2); 0xD to 0xF are reserved."""

    INIT = 0x0
    CHALLENGE = 0x1
    RESPONSE = 0x2
    DATA = 0x3
    ACK = 0x4
    HEARTBEAT = 0x5
    REKEY = 0x6
    CLOSE = 0x7
    CONFIG = 0x8
    ROLLBACK = 0x9
    DISCOVER = 0xA
    JOURNAL = 0xB
    INTEGRITY = 0xC


FIRST_UNKNOWN_TYPE: Final = 0xD
TYPES: Final = 0x10  # a nibble


class Flag(IntFlag):
    """Header flags (section 3); bits 10 to 15 are zero."""

    ENCRYPTED = 1 << 0
    COMPRESSED = 1 << 1
    PRIORITY = 1 << 2
    FRAGMENT = 1 << 3
    LAST_FRAG = 1 << 4
    REQUIRE_ACK = 1 << 5
    TELEMETRY = 1 << 6
    ROLLBACK_READY = 1 << 7
    CONFIG_LOCKED = 1 << 8
    JOURNAL_SYNC = 1 << 9


RESERVED_FLAGS: Final = 0xFC00


class State(IntEnum):
    """Session states (section 5); IDLE doubles as the listener's state."""

    IDLE = 0
    INIT_SENT = 1
    CHALLENGED = 2
    ESTABLISHED = 3
    REKEYING = 4
    CLOSING = 5


class Role(IntEnum):
    """Which end of the handshake this is."""

    CLIENT = 0
    SERVER = 1


class ErrorCode(IntEnum):
    """Codes carried by CLOSE (section 15)."""

    AUTH_FAIL = 0x01
    DECRYPT_FAIL = 0x02
    SEQ_INVALID = 0x03
    FRAG_TIMEOUT = 0x04
    MTU_EXCEEDED = 0x05
    CONFIG_REJECT = 0x06
    REKEY_FAIL = 0x07
    JOURNAL_FULL = 0x08
    OVERLOAD = 0x09
    VERSION_MISMATCH = 0x0A


# Sequence numbers (SEQ-01, SEQ-02, SEQ-06): each role sends inside its own half-open range.
SEQ_RANGE: Final = {Role.CLIENT: (0, 1 << 62), Role.SERVER: (1 << 62, 1 << 63)}
INITIAL_SEQ_BITS: Final = 61
REPLAY_WINDOW: Final = 64

# Handshake (HS-04 .. HS-10)
MIN_DIFFICULTY: Final = 16
MAX_CONFIGURED_DIFFICULTY: Final = 20
MAX_ISSUED_DIFFICULTY: Final = 22
MAX_ACCEPTED_DIFFICULTY: Final = 24
LOAD_STEP: Final = 64
LOAD_PERIOD: Final = 1 * SECOND
SEARCH_LIMIT: Final = 25 * SECOND
SECRET_PERIOD: Final = 300 * SECOND
SECRET_OVERLAP: Final = 31 * SECOND
INIT_CLOCK_TOLERANCE: Final = 30 * SECOND
CHALLENGE_LIFETIME_S: Final = 30
RESPONSE_MEMORY: Final = 31 * SECOND
CONNECT_TIMEOUT: Final = 10 * SECOND
CHALLENGE_TIMEOUT: Final = 10 * SECOND
ACK_TIMEOUT: Final = 30 * SECOND
INIT_TIMEOUT: Final = 10 * SECOND
RESPONSE_TIMEOUT: Final = 30 * SECOND
MAX_PENDING_HANDSHAKES: Final = 256
MAX_SESSIONS: Final = 64

# Sessions
ACK_LIMIT: Final = 50 * MILLISECOND  # SEQ-05: the latest moment for an ACK
ACK_DELAY: Final = 25 * MILLISECOND  # when it is due here: half the limit, the rest is for scheduling
ACK_MERGE: Final = 16
HEARTBEAT_INTERVAL_S: Final = 5
HEARTBEAT_RANGE_S: Final = (1, 30)
HEARTBEAT_RETRY: Final = 1 * SECOND  # after one that a rekey was in the way of
HEARTBEATS_OUTSTANDING: Final = 32  # whose ACK may still give a round trip
DEAD_PEER: Final = 90 * SECOND
LINGER: Final = 5 * SECOND  # CLS-01: how long unread messages keep a slot
RECEIVE_QUEUE: Final = 4096  # DATA-04
HELD_LIMIT: Final = 1024
"""Packets held back during a rekey or by the raw window before a sender has to wait."""
CHANNELS: Final = 256

# MTU (MTU-02, MTU-03, DATA-02)
MTU_TCP_INITIAL: Final = 1400
MTU_SEARCH_STOP: Final = 16  # the search ends when its bounds differ by less
PROBE_DELAY: Final = 1 * SECOND  # from the establishment to the first probe
PROBE_SPACING: Final = 1 * SECOND
PROBE_TIMEOUT: Final = 2 * SECOND
PROBE_PERIOD: Final = 60 * SECOND
DATA_OVERHEAD: Final = HEADER_SIZE + TAG_SIZE
FRAGMENT_HEADER_SIZE: Final = 8
FRAGMENT_OVERHEAD: Final = DATA_OVERHEAD + FRAGMENT_HEADER_SIZE
REASSEMBLY_LIMIT: Final = 16
REASSEMBLY_TIMEOUT: Final = 5 * SECOND

# Rekey (section 13)
REKEY_REPEATS: Final = (5 * SECOND, 10 * SECOND, 20 * SECOND)  # RK-05: after the first proposal
REKEY_TIMEOUT: Final = 60 * SECOND  # RK-04, RK-05: for the accept, and for the peer's first new-key packet
REKEY_OVERLAP: Final = 2 * SECOND  # RK-04: how long the old keys outlive that packet, on raw
REKEY_GRACE: Final = 120 * SECOND  # RK-05: past the limit of time
REKEY_GRACE_PACKETS: Final = 1 << 20  # RK-05: past the limit of packets
REKEY_RETRY: Final = 1 * SECOND  # after the source of random bytes failed

# Configuration (section 14)
CONFIG_SIZE: Final = 104
PARAMETERS_SIZE: Final = 16
REKEY_PACKETS_RANGE: Final = (1 << 10, 1 << 28)
REKEY_RANGE_S: Final = (10, 3600)
MTU_RANGE: Final = (512, 1400)
CONFIG_DEADLINE_RANGE: Final = (50 * MILLISECOND, 3600 * SECOND)
CONFIRM_REPEATS: Final = (1 * SECOND, 2 * SECOND, 4 * SECOND)  # CFG-03: after the first confirm

# INTEGRITY (section 16)
INTEGRITY_INTERVAL_S: Final = 45
INTEGRITY_RANGE_S: Final = (1, 3600)
ANSWER_AFTER_ACK: Final = 5 * SECOND  # INT-01: from the challenge's ack to its answer
ANSWER_LIMIT: Final = 60 * SECOND  # INT-01: from the challenge to its answer
INTEGRITY_SPACING: Final = 1 * SECOND  # E-87: between two challenges
INTEGRITY_PER_SECOND: Final = 16  # E-87: challenges and reports of the peer's that are looked at

# Journal (section 17)
JOURNAL_RING: Final = 1024
JOURNAL_DETAIL: Final = 256
ERRORS_PER_SECOND: Final = 10  # ERR-01: journalled in each category

# Discovery (DISC-01 .. DISC-03, E-80 .. E-82)
ANNOUNCE_GROUP: Final = "239.253.0.1"
ANNOUNCE_PERIOD: Final = 30 * SECOND
ANNOUNCE_SPACING: Final = 100 * MILLISECOND  # between two accepted from one source
ANNOUNCE_SOURCES: Final = 1024  # sources heard within that time
MAX_PEERS: Final = 256
PEER_LIFETIME: Final = 120 * SECOND
EXCHANGE_PERIOD: Final = 30 * SECOND
EXCHANGE_SPACING: Final = 1 * SECOND  # between the packets of one exchange
EXCHANGE_ENTRY_SIZE: Final = 38
EXCHANGE_OVERHEAD: Final = HEADER_SIZE + TAG_SIZE + 2
MULTICAST_RETRY: Final = (1 * SECOND, 60 * SECOND)  # S08: the first and the longest wait

# Raw IP (section 4, TRN-04 .. TRN-08, HS-14)
RAW_PROTOCOL: Final = 253
RAW_MAX_PAYLOAD: Final = 65435  # WIRE-04
MTU_RAW_INITIAL: Final = 512  # MTU-02
IN_FLIGHT_LIMIT: Final = 32
RECEIVE_AHEAD: Final = 64  # a seq this far above the next expected one is too far
SENDS: Final = 8  # of one packet, the first included; then the session has timed out
FRAGMENTABLE_FROM: Final = 4  # the first send with DF clear
RTO_INITIAL: Final = 1 * SECOND  # before the first sample
RTO_RANGE: Final = (200 * MILLISECOND, 10 * SECOND)
RAW_REASSEMBLY_TIMEOUT: Final = 60 * SECOND  # E-89: a missing fragment is resent for up to 55 s
CLOSE_SENDS: Final = 3  # section 15
DRAIN_LIMIT: Final = 5 * SECOND  # section 15: how long a closing side waits for its data to arrive
INIT_REPEATS: Final = (500 * MILLISECOND, 1500 * MILLISECOND)  # after the first INIT
RESPONSE_REPEATS: Final = (1 * SECOND, 2 * SECOND, 4 * SECOND)  # TRN-08: after the first RESPONSE
AUTO_TIMEOUT: Final = 2500 * MILLISECOND  # without a CHALLENGE by then AUTO takes TCP

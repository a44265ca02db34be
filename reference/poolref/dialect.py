# SPDX-License-Identifier: GPL-2.0-or-later
"""Deviations from the specification that a peer may be spoken to in (spec/dialects.md).

The default of every field is normative; a new dialect is a new instance, never a branch on a name in the
code that uses it.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final, Literal, NamedTuple

from .constants import INITIAL_SEQ_BITS, MIN_DIFFICULTY, SEQ_RANGE, Role, Type

ByteOrder = Literal["big", "little"]

_SEALED_RESPONSE_SIZE: Final = 32 + 32 + 16
_KEYED_RESPONSE_SIZE: Final = 32 + 32 + 32 + 16


@dataclass(frozen=True, slots=True)
class Dialect:
    """How the wire differs from the specification."""

    name: str = "spec"
    nonce_seq_order: ByteOrder = "big"  # SEAL-02
    response: Literal["keyed", "sealed"] = "keyed"
    """HS-01: client_pubkey, solution, sealed(proof); or sealed(solution, proof), which has no key."""
    plain_seq: int = 0  # SEQ-03: of INIT and CHALLENGE
    initial_seq_bits: int = INITIAL_SEQ_BITS  # SEQ-01: random ones, once keys exist
    seq_ranges: Literal["disjoint", "own"] = "disjoint"
    """SEQ-06: a side's seqs lie in its role's range; or anywhere but among those the receiver has sent."""
    init_timestamp: Literal["wall", "monotonic"] = "wall"
    """HS-06: monotonic is neither sent as UNIX time nor checked."""
    min_difficulty: int = MIN_DIFFICULTY  # HS-04: the lowest a server of this dialect may be set to
    solution: Literal["any", "counter_first"] = "any"
    """HS-03: searched in any way; or as an 8-byte little-endian counter and 24 zero bytes."""
    telemetry_order: ByteOrder = "big"  # section 12
    telemetry_digest: int = 0  # HB-01: bytes that a HEARTBEAT's report may have behind it
    acked: frozenset[int] | None = None  # SEQ-05: the types that REQUIRE_ACK counts for; None: all
    rekey: Literal["two_way", "one_way"] = "two_way"
    """RK-02: proposed and accepted; or a new public key that takes effect without an answer (E-94)."""
    config_deadline: Literal["relative", "absolute"] = "relative"
    """CFG-04: ns from receipt; or of the sender's monotonic clock."""
    config_answer: Literal["exact", "flags"] = "exact"
    """CFG-02: an ACK with ack = the CONFIG's seq; or any ACK with the flag."""
    probe_flagged: bool = True  # MTU-01: a sender sets REQUIRE_ACK on a probe
    probe_echo: Literal["size", "whole"] = "size"
    """MTU-01: a probe with REQUIRE_ACK is answered by its size; or by all of it."""
    addressed: bool = True  # section 9: False: all addresses are zero
    handshake_ack: Literal["c0", "any"] = "c0"  # SEQ-03: what the handshake ACK acknowledges
    unseen: tuple[str, ...] = ()
    """Requirements of which nobody has seen whether builds deviate: to be probed before they are trusted."""

    @property
    def response_size(self) -> int:
        """Bytes of a RESPONSE's payload."""
        return _KEYED_RESPONSE_SIZE if self.response == "keyed" else _SEALED_RESPONSE_SIZE

    def seq_range(self, role: Role) -> tuple[int, int]:
        """Where the seqs of a role lie, the end not included."""
        return SEQ_RANGE[role] if self.seq_ranges == "disjoint" else (0, 1 << 64)

    def initial_seq(self, role: Role, random: bytes) -> int:
        """The first seq under new keys, from 8 random bytes (SEQ-01)."""
        low, _high = self.seq_range(role)
        return low + (int.from_bytes(random, "big") >> (64 - self.initial_seq_bits))


SPEC: Final = Dialect()

POOL_KO_1_0: Final = Dialect(
    name="pool-ko-1.0",
    nonce_seq_order="little",
    response="sealed",
    plain_seq=1,
    initial_seq_bits=64,
    seq_ranges="own",
    init_timestamp="monotonic",
    min_difficulty=8,
    solution="counter_first",
    telemetry_order="little",
    telemetry_digest=4,
    acked=frozenset({int(Type.HEARTBEAT), int(Type.CONFIG), int(Type.ROLLBACK)}),
    rekey="one_way",
    config_deadline="absolute",
    config_answer="flags",
    probe_flagged=False,
    probe_echo="whole",
    addressed=False,
    handshake_ack="any",
    unseen=("WIRE-03", "HS-14", "JRN-03"),
)
"""Deployed ``pool.ko`` 1.0 builds."""

DIALECTS: Final = {dialect.name: dialect for dialect in (SPEC, POOL_KO_1_0)}

CONTRADICTS: Final[dict[str, tuple[str, ...]]] = {
    "nonce_seq_order": ("SEAL-02",),
    "response": ("HS-01", "HS-02"),
    "plain_seq": ("SEQ-01", "SEQ-03"),
    "initial_seq_bits": ("SEQ-01",),
    "seq_ranges": ("SEQ-01", "SEQ-06"),
    "init_timestamp": ("HS-06",),
    "min_difficulty": ("HS-04",),
    "solution": (),
    "telemetry_order": ("HB-01",),
    "telemetry_digest": ("HB-01",),
    "acked": ("SEQ-05",),
    "rekey": ("RK-01", "RK-02", "RK-03"),
    "config_deadline": ("CFG-04",),
    "config_answer": ("CFG-02",),
    "probe_flagged": ("MTU-01",),
    "probe_echo": ("MTU-01",),
    "addressed": ("ADDR-01", "ADDR-02", "ADDR-03"),
    "handshake_ack": ("SEQ-03",),
}
"""The requirements that a build fails which deviates in a field."""


class Deviation(NamedTuple):
    """One field in which a dialect is not normative."""

    field: str
    normative: object
    value: object
    requirements: tuple[str, ...]


def deviations(dialect: Dialect) -> list[Deviation]:
    """Everything in which a dialect differs from the specification."""
    found = []
    for field in fields(Dialect):
        normative, value = getattr(SPEC, field.name), getattr(dialect, field.name)
        if field.name in CONTRADICTS and value != normative:
            found.append(Deviation(field.name, normative, value, CONTRADICTS[field.name]))
    return found

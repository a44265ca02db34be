# SPDX-License-Identifier: GPL-2.0-or-later
# ruff: noqa: RUF012 - scapy's fields_desc is a list
"""The POOL header, with protection: opened when dissected, sealed and signed when built.

``auth`` says what came of it: OK, BAD (wrong hmac or tag), NO_KEY, or None where there is nothing to
authenticate (INIT, CHALLENGE, advisory CLOSE, packets not dissected).  Only OK shows a plaintext.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from scapy.config import conf
from scapy.fields import (
    BitEnumField,
    BitField,
    ByteField,
    FlagsField,
    LongField,
    ShortField,
    XStrFixedLenField,
)
from scapy.layers.inet import IP, TCP, UDP
from scapy.packet import Packet, bind_bottom_up, bind_layers, bind_top_down, split_layers

from poolref import crypto, wire
from poolref.constants import (
    DEFAULT_PORT,
    HEADER_SIZE,
    MAX_PAYLOAD,
    RESERVED_FLAGS,
    SEQ_RANGE,
    Flag,
    Role,
    Type,
)
from poolref.keys import Keys

from . import payloads as p
from .keyring import KeyRing, keyring
from .payloads import Auth

IP_PROTOCOL = 253

_FLAG_NAMES = [flag.name or "" for flag in Flag]
_FLAG_NAMES += [f"RESERVED{bit}" for bit in range(16) if RESERVED_FLAGS >> bit & 1]
_ENCRYPTED = int(Flag.ENCRYPTED)
_SEALED_PROOF = wire.offset_of("response", "sealed_proof")
_FLAGS = slice(2, 4)
_PAYLOAD_LEN = slice(wire.PAYLOAD_LEN_OFFSET, wire.PAYLOAD_LEN_OFFSET + 2)
_SERVER_SEQ = SEQ_RANGE[Role.SERVER][0]


class Pool(Packet):
    """The 80 bytes of section 1.  ``keys`` is a Keys or KeyRing of the packet's own instead of the global
    ring.

    Left alone, payload_len and hmac are filled in, and ENCRYPTED follows from whether the payload is sealed,
    which it is when there are keys.  An explicit value always wins: flags without ENCRYPTED leave the
    payload in clear, a PoolSealed payload is sent as it is.  To change a dissected packet,
    ``del`` its payload_len and hmac, as for any checksum.
    """

    name = "POOL"
    __slots__ = ["keys"]
    fields_desc = [
        BitField("version", 1, 4),
        BitEnumField("type", int(Type.ACK), 4, {member.value: member.name for member in Type}),
        ByteField("reserved0", 0),
        FlagsField("flags", 0, 16, _FLAG_NAMES),
        LongField("seq", 0),
        LongField("ack", 0),
        XStrFixedLenField("session_id", wire.ZERO_SESSION_ID, 16),
        LongField("timestamp", 0),
        ShortField("payload_len", None),
        ByteField("channel", 0),
        ByteField("reserved1", 0),
        XStrFixedLenField("hmac", None, 32),
        p.Verdict("auth"),
    ]

    def __init__(self, *args: Any, keys: Keys | KeyRing | None = None, **fields: Any) -> None:
        self.keys = keys
        super().__init__(*args, **fields)

    def copy(self) -> Any:
        clone = super().copy()
        clone.keys = self.keys
        return clone

    def clone_with(self, payload: Any = None, **fields: Any) -> Any:
        clone = super().clone_with(payload, **fields)
        clone.keys = self.keys
        return clone

    # -- building --------------------------------------------------------------------------------------

    def do_build(self) -> bytes:
        if not self.explicit:
            return bytes(next(iter(self)).do_build())
        header = self.self_build()
        for transform in self.post_transforms:
            header = transform(header)
        return self._protect(header, self.do_build_payload())

    def _protect(self, header: bytes, payload: bytes) -> bytes:
        rest = b""
        following = self.payload.getlayer(Pool)
        if following is not None:  # several packets of one TCP segment, stacked
            rest = following.do_build()
            payload = payload[: len(payload) - len(rest)]
        keys = next(iter(self._candidates()), None) if self._protected() else None
        explicit_flags = "flags" in self.fields
        sealed = any(isinstance(layer, p.PoolSealed) for layer in self._inside())
        encrypted = bool(self.flags & _ENCRYPTED) if explicit_flags else bool(sealed or (keys and payload))
        if encrypted and keys is not None and not sealed:
            clear = _SEALED_PROOF if self.type == Type.RESPONSE else 0
            payload = payload[:clear] + keys.seal(self.seq, payload[clear:])
        packet = bytearray(header)
        if not explicit_flags:
            flags = int.from_bytes(packet[_FLAGS], "big") & ~_ENCRYPTED
            packet[_FLAGS] = (flags | (_ENCRYPTED if encrypted else 0)).to_bytes(2, "big")
        if self.payload_len is None:
            packet[_PAYLOAD_LEN] = min(len(payload), MAX_PAYLOAD).to_bytes(2, "big")
        if self.hmac is None and keys is not None:
            packet[wire.HMAC_OFFSET : HEADER_SIZE] = crypto.mac(keys.hmac_key, bytes(packet) + payload)
        return bytes(packet) + payload + rest

    # -- dissecting ------------------------------------------------------------------------------------

    def extract_padding(self, s: bytes) -> tuple[bytes, bytes | None]:
        return s[: self.payload_len], s[self.payload_len :]

    def do_dissect_payload(self, s: bytes) -> None:
        auth, plaintext = self._open(s)
        self.fields["auth"] = auth
        if plaintext is None:
            clear = self.type == Type.RESPONSE
            sealed = self.flags & _ENCRYPTED
            layer: Any = p.PoolResponse if clear and sealed else p.PoolSealed if sealed else conf.raw_layer
            if s:
                self.add_payload(layer(s, _internal=1, _underlayer=self))
        elif plaintext:
            super().do_dissect_payload(plaintext)
        elif self.type in _EMPTY:
            self.add_payload(_EMPTY[self.type]())

    def _open(self, payload: bytes) -> tuple[Auth | None, bytes | None]:
        """The verdict and the payload's plaintext, None when it must not be shown."""
        if not self._protected():
            return None, payload
        packet = (self.raw_packet_cache or b"") + payload
        candidates = list(self._candidates())
        fitting = next((keys for keys in candidates if keys.authentic(packet)), None)
        if fitting is None and self.keys is None and keyring.refresh():
            candidates = list(self._candidates())
            fitting = next((keys for keys in candidates if keys.authentic(packet)), None)
        if fitting is None:
            return (Auth.BAD if candidates else Auth.NO_KEY), None if payload else b""
        if not self.flags & _ENCRYPTED:
            self.keys = fitting
            return Auth.OK, payload
        clear = _SEALED_PROOF if self.type == Type.RESPONSE else 0
        opened = fitting.open(self.seq, payload[clear:])
        if opened is None:
            return Auth.BAD, None
        self.keys = fitting
        return Auth.OK, payload[:clear] + opened

    def _inside(self) -> Iterator[Packet]:
        """The layers of this packet's payload, without those of packets stacked after it."""
        layer: Packet = self.payload
        while layer and not isinstance(layer, Pool):
            yield layer
            layer = layer.payload

    def _candidates(self) -> Iterable[Keys]:
        if isinstance(self.keys, Keys):
            return (self.keys,)
        return (keyring if self.keys is None else self.keys).find(self.session_id)

    def _protected(self) -> bool:
        """Whether its place in the protocol calls for keys."""
        if self.type in (Type.INIT, Type.CHALLENGE):
            return False
        return not (self.type == Type.CLOSE and self.session_id == wire.ZERO_SESSION_ID and self.keys is None)

    def guess_payload_class(self, payload: bytes) -> Any:
        return _payload_class(self.version, self.type, int(self.flags), payload) or conf.raw_layer

    @classmethod
    def tcp_reassemble(
        cls,
        data: bytes,
        metadata: dict[str, Any],
        session: dict[str, Any],
        keys: Keys | KeyRing | None = None,
    ) -> Packet | None:
        """One packet out of a TCP stream, None while it is incomplete; what follows it is left as padding.

        For a TCPSession every whole packet, stacked: it miscounts when it has to ask three times.
        """
        size = HEADER_SIZE if len(data) < HEADER_SIZE else wire.packet_size(data)
        if len(data) < max(size, HEADER_SIZE):
            metadata["tcp_min_len"] = size
            return None
        if "original" not in metadata:
            return cls(data, keys=keys)
        first = cls(data[:size], keys=keys)
        rest = data[size:]
        while len(rest) >= HEADER_SIZE and len(rest) >= (size := wire.packet_size(rest)):
            first.add_payload(cls(rest[:size], keys=keys))
            rest = rest[size:]
        if rest:
            first.add_payload(conf.padding_layer(rest))
        return first

    # -- requests and answers --------------------------------------------------------------------------

    def hashret(self) -> bytes:
        # An INIT has no session id yet and a refusal none any more: only answers() can tell.
        return b"POOL"

    def answers(self, other: Packet) -> bool:
        return isinstance(other, Pool) and _answers(self, other)

    def mysummary(self) -> str:
        text = self.sprintf("POOL %type% seq=%seq% ack=%ack%")
        return text if self.auth is None else f"{text} auth={self.auth}"


_EMPTY = {
    int(Type.ACK): p.PoolAck,
    int(Type.ROLLBACK): p.PoolRollback,
    int(Type.CLOSE): p.PoolClose,
    int(Type.JOURNAL): p.PoolJournalRequest,
}

_BY_TYPE: dict[int, type[Packet]] = {
    Type.INIT: p.PoolInit,
    Type.CHALLENGE: p.PoolChallenge,
    Type.RESPONSE: p.PoolResponse,
    Type.DATA: p.PoolData,
    Type.HEARTBEAT: p.PoolHeartbeat,
    Type.REKEY: p.PoolRekey,
    Type.CLOSE: p.PoolClose,
    Type.CONFIG: p.PoolConfig,
    Type.JOURNAL: p.PoolJournal,
}

_INTEGRITY: dict[int, type[Packet]] = {
    1: p.PoolIntegrityChallenge,
    2: p.PoolIntegrityAnswer,
    3: p.PoolIntegrityState,
}


def _payload_class(version: int, kind: int, flags: int, payload: bytes) -> type[Packet] | None:
    if version != 1:
        return None
    if kind == Type.DATA and flags & Flag.FRAGMENT:
        return p.PoolFragment
    if kind == Type.DISCOVER:
        if flags & Flag.TELEMETRY:
            return p.PoolPeers
        return p.PoolProbe if flags & Flag.REQUIRE_ACK else p.PoolProbeAnswer
    if kind == Type.INTEGRITY:
        return _INTEGRITY.get(payload[0])
    return _BY_TYPE.get(kind)


def _answers(answer: Pool, asked: Pool) -> bool:
    refusal = answer.type == Type.CLOSE and answer.session_id == wire.ZERO_SESSION_ID
    if asked.type == Type.INIT:
        return refusal or (answer.type == Type.CHALLENGE and _echoes(answer, asked))
    if asked.type == Type.RESPONSE and refusal:
        return True
    if answer.version != asked.version or answer.session_id != asked.session_id:
        return False
    if asked.type == Type.CHALLENGE:
        return bool(answer.type == Type.RESPONSE)
    if asked.type == Type.ACK or (answer.seq >= _SERVER_SEQ) == (asked.seq >= _SERVER_SEQ):
        return False
    if answer.type == Type.ACK:
        return bool(answer.ack >= asked.seq)
    if answer.type != asked.type:
        return False
    a, b = answer.payload, asked.payload
    if isinstance(a, p.PoolProbeAnswer) and isinstance(b, p.PoolProbe):
        return bool(a.probe_size == b.probe_size)
    if isinstance(a, p.PoolIntegrityAnswer) and isinstance(b, p.PoolIntegrityChallenge):
        return bool(a.c == b.c)
    if isinstance(a, p.PoolRekey) and isinstance(b, p.PoolRekey):
        return bool(a.epoch == b.epoch and (b.stage, a.stage) == (1, 2))
    return isinstance(a, p.PoolJournal) and isinstance(b, p.PoolJournalRequest)


def _echoes(challenge: Pool, init: Pool) -> bool:
    """HS-14: on raw IP a CHALLENGE names the client's key; on TCP its ack is 0."""
    if not isinstance(init.payload, p.PoolInit) or not challenge.ack:
        return True
    return bool(challenge.ack == int.from_bytes(init.payload.client_pubkey[:8], "big"))


_STACKED: dict[type[Packet], tuple[Type, Flag]] = {
    p.PoolInit: (Type.INIT, Flag(0)),
    p.PoolChallenge: (Type.CHALLENGE, Flag(0)),
    p.PoolResponse: (Type.RESPONSE, Flag.REQUIRE_ACK),
    p.PoolData: (Type.DATA, Flag.REQUIRE_ACK),
    p.PoolFragment: (Type.DATA, Flag.REQUIRE_ACK | Flag.FRAGMENT),
    p.PoolAck: (Type.ACK, Flag(0)),
    p.PoolHeartbeat: (Type.HEARTBEAT, Flag.TELEMETRY),
    p.PoolRekey: (Type.REKEY, Flag.REQUIRE_ACK),
    p.PoolClose: (Type.CLOSE, Flag(0)),
    p.PoolConfig: (Type.CONFIG, Flag.REQUIRE_ACK),
    p.PoolRollback: (Type.ROLLBACK, Flag.REQUIRE_ACK),
    p.PoolProbe: (Type.DISCOVER, Flag.REQUIRE_ACK),
    p.PoolProbeAnswer: (Type.DISCOVER, Flag(0)),
    p.PoolPeers: (Type.DISCOVER, Flag.TELEMETRY),
    p.PoolJournal: (Type.JOURNAL, Flag.JOURNAL_SYNC),
    p.PoolJournalRequest: (Type.JOURNAL, Flag.JOURNAL_SYNC | Flag.REQUIRE_ACK),
    p.PoolIntegrityChallenge: (Type.INTEGRITY, Flag.REQUIRE_ACK),
    p.PoolIntegrityAnswer: (Type.INTEGRITY, Flag.REQUIRE_ACK),
    p.PoolIntegrityState: (Type.INTEGRITY, Flag.REQUIRE_ACK),
}
"""What a payload sets in the header above it, unless it is given there."""

for _layer, (_type, _flags) in _STACKED.items():
    bind_top_down(Pool, _layer, type=int(_type), flags=int(_flags))


def bind_port(port: int) -> None:
    """Take TCP streams from and to ``port`` for POOL, besides 9253."""
    bind_bottom_up(TCP, Pool, dport=port)
    bind_bottom_up(TCP, Pool, sport=port)


def unbind_port(port: int) -> None:
    """Undo :func:`bind_port`."""
    split_layers(TCP, Pool, dport=port)
    split_layers(TCP, Pool, sport=port)


bind_port(DEFAULT_PORT)
bind_top_down(TCP, Pool, sport=DEFAULT_PORT, dport=DEFAULT_PORT)
bind_layers(IP, Pool, proto=IP_PROTOCOL)
bind_bottom_up(UDP, p.PoolAnnounce, dport=DEFAULT_PORT)
bind_top_down(UDP, p.PoolAnnounce, sport=DEFAULT_PORT, dport=DEFAULT_PORT)

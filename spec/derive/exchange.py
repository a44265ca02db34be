# SPDX-License-Identifier: GPL-2.0-or-later
"""One handshake of version 1, computed from its random choices."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from casework import U64, Values, filler
from derivations import (
    ACK,
    CHALLENGE,
    CLOSE,
    ENCRYPTED,
    INIT,
    REQUIRE_ACK,
    RESPONSE,
    SECOND,
    SERVER_BASE,
    proof_of,
    public,
    puzzle_seed_of,
    server_ephemeral,
    session_id_of,
)
from derive import (
    aead_seal,
    header,
    nonce_of,
    session_keys,
    sign,
    solve,
    x25519,
)

WALL = 1_700_000_000 * SECOND


def packet(type_: int, payload: bytes = b"", **fields: Any) -> bytes:
    return header(type_, payload_len=len(payload), **fields) + payload


def advisory(code: int, now: int) -> bytes:
    """E-03."""
    return packet(CLOSE, bytes([code]), timestamp=now)


@dataclass(frozen=True)
class Exchange:
    """One handshake; every random choice is an attribute."""

    label: str
    difficulty: int = 16
    client_addr: bytes = bytes(32)
    server_addr: bytes = bytes(32)
    client_ip: bytes = bytes(10) + b"\xff\xff" + bytes([192, 0, 2, 7])
    now: int = 5000 * SECOND
    c0: int = 0x123456789
    s0: int = SERVER_BASE + 0x987654321

    @cached_property
    def secret(self) -> bytes:
        return filler(f"{self.label} K", 32)

    @cached_property
    def client_private(self) -> bytes:
        return filler(f"{self.label} client", 32)

    @cached_property
    def random(self) -> bytes:
        return filler(f"{self.label} random", 3)

    @cached_property
    def client_public(self) -> bytes:
        return public(self.client_private)

    @cached_property
    def init(self) -> bytes:
        return packet(INIT, self.client_public + self.client_addr, timestamp=WALL)

    def session_id_for(self, pubkey: bytes) -> bytes:
        return session_id_of(
            self.secret, self.now // SECOND, self.difficulty, self.random, self.client_ip, pubkey
        )

    @cached_property
    def session_id(self) -> bytes:
        return self.session_id_for(self.client_public)

    @cached_property
    def seed(self) -> bytes:
        return puzzle_seed_of(self.secret, self.session_id, self.client_ip, self.client_public)

    @cached_property
    def server_public(self) -> bytes:
        return public(server_ephemeral(self.secret, self.session_id))

    @cached_property
    def challenge_payload(self) -> bytes:
        return self.server_public + self.seed + struct.pack(">H", self.difficulty) + self.server_addr

    @cached_property
    def challenge(self) -> bytes:
        return packet(CHALLENGE, self.challenge_payload, session_id=self.session_id, timestamp=self.now)

    @cached_property
    def shared(self) -> bytes:
        return x25519(self.client_private, self.server_public)

    @cached_property
    def solution(self) -> bytes:
        return solve(self.seed, self.difficulty)

    def response_with(self, **changes: Any) -> bytes:
        """A RESPONSE whose hmac is right for whatever else is changed."""
        session_key, hmac_key = session_keys(self.shared)
        seq = changes.get("seq", self.c0)
        nonce = nonce_of(hmac_key, changes.get("nonce_seq", seq))
        sealed = aead_seal(session_key, nonce, changes.get("proof", proof_of(self.shared, self.session_id)))
        payload = self.client_public + changes.get("solution", self.solution) + sealed
        payload = (payload + bytes(1))[: changes.get("size", 112)]
        head = header(
            RESPONSE, flags=changes.get("flags", ENCRYPTED | REQUIRE_ACK), seq=seq, ack=changes.get("ack", 0),
            session_id=self.session_id, timestamp=self.now, payload_len=len(payload),
            version=changes.get("version", 1),
        )  # fmt: skip
        return sign(hmac_key, head, payload)

    @cached_property
    def response(self) -> bytes:
        return self.response_with()

    def ack_with(self, type_: int = ACK, **changes: Any) -> bytes:
        fields = {"seq": self.s0, "ack": self.c0, "session_id": self.session_id, "timestamp": self.now}
        return sign(session_keys(self.shared)[1], header(type_, **{**fields, **changes}), b"")

    @cached_property
    def ack(self) -> bytes:
        return self.ack_with()

    @cached_property
    def keys(self) -> Values:
        session_key, hmac_key = session_keys(self.shared)
        return {"session_key": session_key, "hmac_key": hmac_key}

    def client(self, **more: Any) -> Values:
        """The inputs of the client's steps."""
        return {
            "client_private": self.client_private, "client_addr": self.client_addr, "wall_ns": U64(WALL),
            "now_ns": U64(self.now), "solution": self.solution, "client_initial_seq": U64(self.c0),
            "challenge": self.challenge, **more,
        }  # fmt: skip

    def server(self, **more: Any) -> Values:
        """The inputs of the server's steps."""
        return {
            "secret": self.secret, "random": self.random, "client_ip": self.client_ip,
            "difficulty": self.difficulty, "server_addr": self.server_addr, "now_ns": U64(self.now),
            "wall_ns": U64(WALL), "server_initial_seq": U64(self.s0), **more,
        }  # fmt: skip

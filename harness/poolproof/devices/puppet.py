# SPDX-License-Identifier: GPL-2.0-or-later
"""A scripted POOL client, over TCP or raw IP, that does one thing at a time, right or wrong as told.

It is built from the reference's codecs, but keeps no rules of its own: whatever a scenario needs a peer to
do wrong, it can do.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable

from poolproof.devices.puppet_raw import RawStream
from poolproof.devices.puppet_session import Session
from poolproof.devices.puppet_stream import WAIT, Packet, PuppetError, Stream, Unreachable
from poolref import crypto, puzzle, wire
from poolref.constants import SEQ_RANGE, Flag, Role, Type
from poolref.errors import DecodeError
from poolref.keys import Keys
from poolref.wire import Challenge, Header, Init, Response

Rng = Callable[[int], bytes]
KeylogSink = Callable[[str], None]


def _connect(address: tuple[str, int]) -> Stream:
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    sock = socket.socket(family)
    sock.settimeout(WAIT)
    try:
        sock.connect(address)
    except OSError as exc:
        sock.close()
        raise Unreachable(f"cannot connect to {address[0]} port {address[1]}: {exc}", exc.errno) from exc
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return Stream(sock)


class Client:
    """A client handshake, step by step. `misdeed` names what `respond` shall do wrong (see MISDEEDS)."""

    def __init__(
        self, address: tuple[str, int], rng: Rng, keylog: KeylogSink | None = None, *, raw: bool = False
    ) -> None:
        self.rng = rng
        self.keylog = keylog
        self.stream: Stream | RawStream = RawStream(address[0]) if raw else _connect(address)
        self.private = rng(32)
        self.public = crypto.public_key(self.private)
        self.challenge: Challenge | None = None
        self.session_id = b""
        self.response = b""

    def init(self, *, public: bytes | None = None, version: int = 1, clock_offset_s: int = 0) -> bytes:
        """An INIT packet; nothing is sent."""
        payload = Init(self.public if public is None else public, bytes(32)).pack()
        stamp = time.time_ns() + clock_offset_s * 1_000_000_000
        return wire.build(Type.INIT, payload, version=version, timestamp=stamp)

    def await_challenge(self, timeout: float = WAIT) -> Challenge:
        """PuppetError when something else comes."""
        return self.take_challenge(self.stream.receive(timeout))

    def take_challenge(self, packet: Packet) -> Challenge:
        """Go on with a packet that has to be the CHALLENGE; PuppetError when it is not."""
        if packet.header.type != Type.CHALLENGE:
            raise PuppetError(f"instead of a CHALLENGE came {packet}")
        try:
            self.challenge = Challenge.unpack(packet.payload)
        except DecodeError as exc:
            raise PuppetError(f"the CHALLENGE does not decode: {exc}") from exc
        self.session_id = packet.header.session_id
        return self.challenge

    def solve(self, *, wrong: bool = False) -> bytes:
        """A solution of the challenge, or with `wrong` 32 bytes that are none."""
        assert self.challenge is not None, "no challenge yet"
        seed, difficulty = self.challenge.puzzle_seed, self.challenge.difficulty
        if difficulty > 24:
            raise PuppetError(f"the CHALLENGE asks for difficulty {difficulty}")
        if wrong:
            while True:
                candidate = self.rng(32)
                if not puzzle.solves(seed, candidate, difficulty):
                    return candidate
        search = puzzle.Search(seed, difficulty, self.rng(24))
        while True:
            solution = search.step(1 << 16)
            if solution is not None:
                return solution

    def respond(self, misdeed: str = "", *, zero_shared: bool = False) -> tuple[bytes, Keys]:
        """A RESPONSE packet with at most one misdeed, and the keys it was made with; nothing is sent."""
        assert self.challenge is not None, "no challenge yet"
        if misdeed and misdeed not in MISDEEDS:
            raise ValueError(f"unknown misdeed {misdeed!r}")
        private, public = self.private, self.public
        if misdeed == "another client key than in INIT":
            private = self.rng(32)
            public = crypto.public_key(private)
        shared = bytes(32) if zero_shared else crypto.exchange(private, self.challenge.server_pubkey)
        keys = Keys(shared)
        session_id = self.session_id
        if misdeed == "a wrong session id":
            session_id = session_id[:-1] + bytes([session_id[-1] ^ 1])
        proof = crypto.mac(shared, session_id)
        if misdeed == "a wrong proof":
            proof = proof[:-1] + bytes([proof[-1] ^ 1])
        low, _high = SEQ_RANGE[Role.CLIENT]
        self.first_seq = low + int.from_bytes(self.rng(8), "big") % (1 << 61)
        solution = self.solve(wrong=misdeed == "a wrong puzzle solution")
        payload = Response(public, solution, keys.seal(self.first_seq, proof)).pack()
        flags = int(Flag.ENCRYPTED | Flag.REQUIRE_ACK)
        header = Header(Type.RESPONSE, flags=flags, seq=self.first_seq, session_id=session_id)
        header.timestamp = time.monotonic_ns()
        if misdeed == "one byte too few":
            payload = payload[:-1]
        elif misdeed == "one byte too many":
            payload += b"\0"
        packet = keys.sign(header, payload)
        if misdeed == "a wrong hmac":
            flipped = bytes([packet[wire.HMAC_OFFSET] ^ 1])
            packet = packet[: wire.HMAC_OFFSET] + flipped + packet[wire.HMAC_OFFSET + 1 :]
        self.response = packet
        return packet, keys

    def finish(self, keys: Keys, timeout: float = WAIT) -> Session:
        """The session, once the server's ACK verified. PuppetError when something else comes."""
        packet = self.stream.receive(timeout)
        if packet.header.type != Type.ACK:
            raise PuppetError(f"instead of the handshake ACK came {packet}")
        if not keys.authentic(packet.raw):
            raise PuppetError("the handshake ACK carries a wrong hmac")
        if packet.header.ack != self.first_seq:
            raise PuppetError(
                f"the handshake ACK acknowledges {packet.header.ack}, not C0 = {self.first_seq}"
            )
        if self.keylog is not None:
            self.keylog(keys.log_entry(self.session_id).line())
        return Session(self.stream, keys, self.session_id, Role.CLIENT, self.first_seq + 1, packet.header.seq)

    def establish(self) -> Session:
        """The whole handshake as the specification wants it."""
        self.stream.send(self.init())
        self.await_challenge()
        response, keys = self.respond()
        self.stream.send(response)
        return self.finish(keys)

    def close(self) -> None:
        self.stream.close()


MISDEEDS = frozenset(
    {
        "a wrong puzzle solution",
        "a wrong proof",
        "a wrong hmac",
        "a wrong session id",
        "another client key than in INIT",
        "one byte too few",
        "one byte too many",
    }
)

_P = 2**255 - 19
_ORDER8 = (
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
)
LOW_ORDER_POINTS = {
    name: value.to_bytes(32, "little")
    for name, value in {
        "zero": 0,
        "one": 1,
        "order8-a": _ORDER8[0],
        "order8-b": _ORDER8[1],
        "p-1": _P - 1,
        "p": _P,
        "p+1": _P + 1,
        "p+order8-a": _P + _ORDER8[0],
        "p+order8-b": _P + _ORDER8[1],
        "2p-1": 2 * _P - 1,
        "2p": 2 * _P,
        "2p+1": 2 * _P + 1,
    }.items()
}

# SPDX-License-Identifier: GPL-2.0-or-later
# mypy: disallow-untyped-decorators=False
"""The client's handshake over TCP as a scapy automaton, and :func:`pool_connect`, which runs it."""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Callable
from typing import Any

from scapy.automaton import ATMT, Automaton

from poolref import crypto
from poolref.constants import (
    ACK_TIMEOUT,
    CHALLENGE_TIMEOUT,
    CONNECT_TIMEOUT,
    DEFAULT_PORT,
    INITIAL_SEQ_BITS,
    KEY_SIZE,
    MAX_ACCEPTED_DIFFICULTY,
    SEARCH_LIMIT,
    SECOND,
    Type,
)
from poolref.errors import HandshakeError, LowOrderKey, PoolTimeout, peer_error
from poolref.keys import Keys
from poolref.puzzle import START_SIZE, Search

from .connection import PoolConnection, PoolStream
from .header import Pool
from .keyring import keyring
from .payloads import Auth, PoolChallenge, PoolClose, PoolInit, PoolProof, PoolResponse

_ATMT: Any = ATMT  # its annotations describe the decorated states, not the functions that are decorated
_HASHES = 1 << 14


class PoolHandshake(Automaton):
    """The client's handshake on a connected TCP socket; :meth:`connect` runs it.

    Override :meth:`make_init` or :meth:`make_response` to misbehave.
    """

    def __init__(self, sock: socket.socket, **kargs: Any) -> None:
        # The automaton closes its socket when it ends; the connection goes on with the original.
        stream = PoolStream(sock.dup())
        super().__init__(sock, ll=lambda **_: stream, recvsock=lambda **_: stream, **kargs)

    def parse_args(  # type: ignore[override]
        self, sock: socket.socket, rng: Callable[[int], bytes] = os.urandom, **kargs: Any
    ) -> None:
        super().parse_args(**kargs)
        self.tcp = sock
        self.rng = rng
        self.private = crypto.draw(rng, KEY_SIZE)
        self.public = crypto.public_key(self.private)
        self.keys: Keys | None = None

    def connect(self) -> PoolConnection:
        """Complete the handshake; OSError when that fails.  An automaton does this once."""
        try:
            result = self.run()
        finally:
            self.stop()  # waits for its thread, which closes its copy of the socket
            self.destroy()
        if isinstance(result, PoolConnection):
            return result
        raise result or KeyboardInterrupt  # run() swallows the latter

    def make_init(self) -> Pool:
        packet: Pool = Pool(timestamp=time.time_ns()) / PoolInit(client_pubkey=self.public)
        return packet

    def make_response(self, challenge: Pool, keys: Keys, solution: bytes) -> Pool:
        seq = int.from_bytes(crypto.draw(self.rng, 8), "big") >> (64 - INITIAL_SEQ_BITS)
        header = Pool(seq=seq, session_id=challenge.session_id, timestamp=time.monotonic_ns(), keys=keys)
        proof = crypto.mac(keys.shared, challenge.session_id)
        body = PoolResponse(client_pubkey=self.public, solution=solution) / PoolProof(proof=proof)
        packet: Pool = header / body
        return packet

    @_ATMT.state(initial=1)
    def BEGIN(self) -> None:
        self.sent = self.make_init()

    @_ATMT.condition(BEGIN)
    def begin(self) -> None:
        self.send(self.sent)
        raise self.INIT_SENT()

    @_ATMT.state()
    def INIT_SENT(self) -> None:
        pass

    @_ATMT.receive_condition(INIT_SENT)
    def on_challenge(self, packet: Pool) -> None:
        if packet.type == Type.CHALLENGE and PoolChallenge in packet:
            raise self.CHALLENGED(packet)
        self._refused(packet)

    @_ATMT.timeout(INIT_SENT, CHALLENGE_TIMEOUT / SECOND)
    def no_challenge(self) -> None:
        raise self.FAILED(PoolTimeout("no CHALLENGE in time"))

    @_ATMT.state()
    def CHALLENGED(self, packet: Pool) -> None:
        challenge = packet.payload
        self.challenge = packet
        self.reason: OSError | None = None
        if challenge.difficulty > MAX_ACCEPTED_DIFFICULTY:
            self.reason = HandshakeError(errno.ERANGE, f"a puzzle of {challenge.difficulty} bits")
            return
        try:
            self.keys = Keys(crypto.exchange(self.private, challenge.server_pubkey))
        except LowOrderKey as error:
            self.reason = error
            return
        search = Search(challenge.puzzle_seed, challenge.difficulty, crypto.draw(self.rng, START_SIZE))
        deadline = time.monotonic_ns() + SEARCH_LIMIT
        while (solution := search.step(_HASHES)) is None and time.monotonic_ns() < deadline:
            pass
        if solution is None:
            self.reason = PoolTimeout("no solution of the puzzle in time")
            return
        self.sent = self.make_response(packet, self.keys, solution)

    @_ATMT.condition(CHALLENGED)
    def respond(self) -> None:
        if self.reason is not None:
            raise self.FAILED(self.reason)
        self.send(self.sent)
        raise self.RESPONSE_SENT()

    @_ATMT.state()
    def RESPONSE_SENT(self) -> None:
        pass

    @_ATMT.receive_condition(RESPONSE_SENT)
    def on_ack(self, packet: Pool) -> None:
        self._refused(packet)
        if packet.type != Type.ACK or self.keys is None:
            return
        ack = Pool(bytes(packet), keys=self.keys)
        if ack.auth is not Auth.OK:
            raise self.FAILED(HandshakeError(errno.EBADMSG, "the peer's ACK is not authentic"))
        raise self.ESTABLISHED(ack)

    @_ATMT.timeout(RESPONSE_SENT, ACK_TIMEOUT / SECOND)
    def no_ack(self) -> None:
        raise self.FAILED(PoolTimeout("no ACK in time"))

    @_ATMT.eof(INIT_SENT)
    def end_before_challenge(self) -> None:
        raise self.FAILED(HandshakeError(errno.ECONNRESET, "the connection ended before CHALLENGE"))

    @_ATMT.eof(RESPONSE_SENT)
    def end_before_ack(self) -> None:
        raise self.FAILED(HandshakeError(errno.ECONNRESET, "the connection ended before ACK"))

    @_ATMT.state(final=1)
    def ESTABLISHED(self, ack: Pool) -> PoolConnection:
        keys = self.keys
        assert keys is not None
        keyring.add(ack.session_id, keys)
        return PoolConnection(self.tcp, keys, ack.session_id, self.sent.seq + 1, ack.seq)

    @_ATMT.state(final=1)
    def FAILED(self, error: OSError) -> OSError:
        return error

    def _refused(self, packet: Pool) -> None:
        if packet.type == Type.CLOSE and isinstance(packet.payload, PoolClose):
            raise self.FAILED(peer_error(packet.payload.code, "the handshake"))


def pool_connect(
    host: str,
    port: int = DEFAULT_PORT,
    *,
    automaton: type[PoolHandshake] = PoolHandshake,
    rng: Callable[[int], bytes] = os.urandom,
) -> PoolConnection:
    """Connect to a node over TCP and complete the handshake; OSError when that fails."""
    sock = socket.create_connection((host, port), timeout=CONNECT_TIMEOUT / SECOND)
    sock.settimeout(None)
    try:
        return automaton(sock, rng=rng).connect()
    except BaseException:
        sock.close()
        raise

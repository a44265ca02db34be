# SPDX-License-Identifier: GPL-2.0-or-later
# mypy: disallow-untyped-decorators=False
"""The client's handshake as a scapy automaton, and :func:`pool_connect`, which runs it."""

from __future__ import annotations

import copy
import errno
import os
import socket
import time
from collections.abc import Callable
from typing import Any, Literal

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

from .connection import PoolConnection
from .header import Pool
from .payloads import Auth, PoolChallenge, PoolClose, PoolInit, PoolProof, PoolResponse
from .transport import raw_socket, transport_of

_ATMT: Any = ATMT  # its annotations describe the decorated states, not the functions that are decorated
_HASHES = 1 << 14


class PoolHandshake(Automaton):
    """The client's handshake on a connected TCP or raw IP socket; :meth:`connect` runs it.

    Override :meth:`make_init` or :meth:`make_response` to misbehave.  ``automatic`` is handed on to the
    connection that comes of it.
    """

    def __init__(self, sock: socket.socket, **kargs: Any) -> None:
        # The automaton closes its socket when it ends; the connection goes on with the original.
        transport = transport_of(sock.dup())
        super().__init__(sock, ll=lambda **_: transport, recvsock=lambda **_: transport, **kargs)

    def parse_args(  # type: ignore[override]
        self,
        sock: socket.socket,
        rng: Callable[[int], bytes] = os.urandom,
        automatic: bool = True,
        **kargs: Any,
    ) -> None:
        super().parse_args(**kargs)
        self.timeout = copy.deepcopy(self.timeout)  # scapy's timers belong to the class
        self.connected = sock
        self.reliable = sock.type != socket.SOCK_STREAM
        self.rng = rng
        self.automatic = automatic
        self.forged = False
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
        if self.reliable and packet.ack != int.from_bytes(self.public[:8], "big"):
            return  # HS-14: a blind spoofer's
        if packet.type == Type.CHALLENGE and PoolChallenge in packet:
            raise self.CHALLENGED(packet)
        self._refused(packet)

    @_ATMT.timeout(INIT_SENT, 0.5)
    def repeat_init(self) -> None:
        self._repeat()

    @_ATMT.timeout(INIT_SENT, 1.5)
    def repeat_init_again(self) -> None:
        self._repeat()

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
        if not self.reliable or packet.ack == int.from_bytes(self.public[:8], "big"):
            self._refused(packet)
        if packet.type != Type.ACK or packet.session_id != self.challenge.session_id:
            return
        ack = Pool(bytes(packet), keys=self.keys)
        if ack.auth is not Auth.OK:
            if not self.reliable:
                raise self.FAILED(self._not_authentic())
            self.forged = True  # anybody can have sent it (E-39)
        elif ack.ack == self.sent.seq and not ack.flags:
            raise self.ESTABLISHED(ack)

    @_ATMT.timeout(RESPONSE_SENT, 1)
    def repeat_response(self) -> None:
        self._repeat()

    @_ATMT.timeout(RESPONSE_SENT, 2)
    def repeat_response_again(self) -> None:
        self._repeat()

    @_ATMT.timeout(RESPONSE_SENT, 4)
    def repeat_response_at_last(self) -> None:
        self._repeat()

    @_ATMT.timeout(RESPONSE_SENT, ACK_TIMEOUT / SECOND)
    def no_ack(self) -> None:
        raise self.FAILED(self._not_authentic() if self.forged else PoolTimeout("no ACK in time"))

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
        return PoolConnection(
            self.connected, keys, ack.session_id, self.sent.seq + 1, ack.seq,
            automatic=self.automatic, rng=self.rng,
        )  # fmt: skip

    @_ATMT.state(final=1)
    def FAILED(self, error: OSError) -> OSError:
        return error

    def _not_authentic(self) -> OSError:
        return HandshakeError(errno.EBADMSG, "the peer's ACK is not authentic")

    def _repeat(self) -> None:
        if self.reliable:  # TRN-05, TRN-08: byte-identical
            self.send(self.sent)

    def _refused(self, packet: Pool) -> None:
        if packet.type == Type.CLOSE and isinstance(packet.payload, PoolClose):
            raise self.FAILED(peer_error(packet.payload.code, "the handshake"))


def pool_connect(
    host: str,
    port: int = DEFAULT_PORT,
    *,
    transport: Literal["tcp", "raw"] = "tcp",
    automaton: type[PoolHandshake] = PoolHandshake,
    rng: Callable[[int], bytes] = os.urandom,
    automatic: bool = True,
) -> PoolConnection:
    """Connect to a node and complete the handshake; OSError when that fails.

    ``raw`` is IP protocol 253 over IPv4, which has no port and needs CAP_NET_RAW (PermissionError).
    ``automatic`` is as in :class:`PoolConnection`.
    """
    if transport == "raw":
        sock = raw_socket(host)
    else:
        sock = socket.create_connection((host, port), timeout=CONNECT_TIMEOUT / SECOND)
        sock.settimeout(None)
    try:
        return automaton(sock, rng=rng, automatic=automatic).connect()
    except BaseException:
        sock.close()
        raise

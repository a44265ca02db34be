# SPDX-License-Identifier: GPL-2.0-or-later
"""The reference's handshake driven by a vector's fixed randomness and clocks."""

from __future__ import annotations

import errno
from collections.abc import Callable

from poolref.constants import SECRET_PERIOD
from poolref.core import NodeCore, Peer
from poolref.counters import DropReason, Verdict
from poolref.events import HandshakeFailed, PuzzlePosed
from poolref.handshake import ClientHandshake, ServerHandshake
from poolref.raw_handshake import RawClientHandshake, RawServerHandshake
from poolref.responder import Responder
from poolref.session import Session
from poolref.settings import Settings

from .reference_values import Values, raw, u64

_SERVER_BASE = 1 << 62


class Script:
    """A source of random bytes that hands out what a vector prescribes, in order."""

    def __init__(self, *portions: bytes) -> None:
        self._portions = list(portions)

    def __call__(self, size: int) -> bytes:
        portion = self._portions.pop(0)
        if len(portion) != size:
            raise ValueError(f"the reference draws {size} bytes where the script has {len(portion)}")
        return portion


def _seq_bytes(seq: int) -> bytes:
    """The 8 random bytes whose first 61 bits are a seq's offset in its range."""
    return (seq << 3).to_bytes(8, "big")


def _raw(given: Values) -> bool:
    return bool(given.get("transport") == "raw")


def _client(given: Values) -> ClientHandshake:
    seq = _seq_bytes(u64(given["client_initial_seq"])) if "client_initial_seq" in given else b""
    wall = u64(given["wall_ns"])
    core = NodeCore(
        Settings(address=raw(given["client_addr"])), Script(raw(given["client_private"]), seq), lambda: wall
    )
    kind = RawClientHandshake if _raw(given) else ClientHandshake
    return kind(core=core, index=0, now=u64(given["now_ns"]) if "now_ns" in given else 0)


def _client_error(client: ClientHandshake) -> str | None:
    while (event := client.next_event()) is not None:
        if isinstance(event, HandshakeFailed):
            return errno.errorcode[event.error.errno or 0]
    return None


def _failed(client: ClientHandshake, outcome: DropReason | Verdict) -> Values:
    error = _client_error(client)
    return (
        {"closed": True, "error": error}
        if outcome is Verdict.CLOSED
        else {"drop": str(outcome), "error": error}
    )


def _keys(session: Session) -> Values:
    return {
        "session_key": bytes(session.keys.session_key).hex(),
        "hmac_key": bytes(session.keys.hmac_key).hex(),
    }


def _responder(given: Values, *random: bytes) -> Responder:
    wall, previous = u64(given["wall_ns"]), given.get("previous_secret")
    rotated = u64(previous["rotated_at_ns"]) if previous else u64(given["now_ns"])
    secrets = [raw(previous["secret"])] if previous else []
    core = NodeCore(
        Settings(difficulty=given["difficulty"], address=raw(given["server_addr"])),
        Script(*secrets, raw(given["secret"]), *random),
        lambda: wall,
    )
    responder = Responder(core, rotated - SECRET_PERIOD if previous else rotated)
    responder.handle_timer(rotated)
    return responder


def _server(given: Values, responder: Responder) -> ServerHandshake:
    kind = RawServerHandshake if _raw(given) else ServerHandshake
    return kind(responder, Peer(raw(given["client_ip"])), u64(given["now_ns"]))


def _sent(endpoint: ClientHandshake | ServerHandshake) -> str:
    return b"".join(endpoint.packets_to_send()).hex()


def handshake_init(given: Values) -> Values:
    return {"packet": _sent(_client(given))}


def handshake_challenge(given: Values) -> Values:
    server = _server(given, _responder(given, raw(given["random"])))
    outcome = server.receive_packet(raw(given["packet"]), u64(given["now_ns"]))
    if isinstance(outcome, DropReason):
        return {"drop": str(outcome), "answer": _sent(server)}
    return {"packet": _sent(server)}


def _solved(client: ClientHandshake, given: Values) -> DropReason | Verdict:
    now = u64(given["now_ns"])
    client.packets_to_send()
    outcome = client.receive_packet(raw(given["challenge"]), now)
    if outcome is Verdict.ACCEPTED:
        if not isinstance(client.next_event(), PuzzlePosed):
            raise ValueError("no puzzle was posed")
        client.solved(raw(given["solution"]), now)
    return outcome


def handshake_response(given: Values) -> Values:
    client = _client(given)
    outcome = _solved(client, given)
    return {"packet": _sent(client)} if outcome is Verdict.ACCEPTED else _failed(client, outcome)


def handshake_establish(given: Values) -> Values:
    client = _client(given)
    _solved(client, given)
    outcome = client.receive_packet(raw(given["packet"]), u64(given["now_ns"]))
    if client.session is None:
        return _failed(client, outcome)
    return {"peer_initial_seq": str(client.session.window.highest), **_keys(client.session)}


def handshake_admit(given: Values) -> Values:
    now, packet = u64(given["now_ns"]), raw(given["packet"])
    seq = _seq_bytes(u64(given["server_initial_seq"]) - _SERVER_BASE)
    responder = _responder(given, seq, seq)
    if given["seen_before"]:
        _server(given, responder).receive_packet(packet, now)
    server = _server(given, responder)
    outcome = server.receive_packet(packet, now)
    if isinstance(outcome, DropReason):
        return {"drop": str(outcome), "answer": _sent(server)}
    if server.session is None:
        raise ValueError("a RESPONSE was taken, and no session came of it")
    return {"packet": _sent(server), **_keys(server.session)}


def handshake_transcript(given: Values) -> Values:
    """Both sides against each other."""
    now = u64(given["now_ns"])
    client = _client(given)
    seq = _seq_bytes(u64(given["server_initial_seq"]) - _SERVER_BASE)
    server = _server(given, _responder(given, raw(given["random"]), seq))
    init = b"".join(client.packets_to_send())
    server.receive_packet(init, now)
    challenge = _sent(server)
    _solved(client, {**given, "challenge": challenge})
    response = b"".join(client.packets_to_send())
    server.receive_packet(response, now)
    ack = b"".join(server.packets_to_send())
    client.receive_packet(ack, now)
    if client.session is None:
        raise ValueError("the handshake failed")
    packets = {"init": init.hex(), "challenge": challenge, "response": response.hex(), "ack": ack.hex()}
    return {**packets, **_keys(client.session)}


OPERATIONS: dict[str, Callable[[Values], Values]] = {
    "handshake.init": handshake_init,
    "handshake.challenge": handshake_challenge,
    "handshake.response": handshake_response,
    "handshake.admit": handshake_admit,
    "handshake.establish": handshake_establish,
    "handshake.transcript": handshake_transcript,
}

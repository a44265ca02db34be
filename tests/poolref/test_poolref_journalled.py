# SPDX-License-Identifier: GPL-2.0-or-later
"""What sessions and handshakes leave in the journal: who and why (JRN-04, ERR-01)."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from poolref_sim import EASY, START, WALL, Pair, World, data, deliver, easy_pair, flipped, jump
from test_poolref_handshake import Steps, rebuilt, wrong_solution

from poolref import wire
from poolref.constants import MAX_SESSIONS, SECOND, Flag, Type
from poolref.counters import DropReason
from poolref.journal import ChangeType
from poolref.session import Session
from poolref.wire import FragmentHeader

CLIENT, SERVER = "192.0.2.1 40000", "192.0.2.2 9253"


def journalled(session: Session) -> list[tuple[ChangeType, str]]:
    journal = session.core.journal
    assert journal.verify() is None
    return [(ChangeType(entry.change_type), entry.text) for entry in journal.entries()]


def errors(world: World) -> list[str]:
    return [
        entry.text for entry in world.server_core.journal.entries() if entry.change_type == ChangeType.ERROR
    ]


def test_a_session_from_its_beginning_to_its_end() -> None:
    pair = easy_pair()
    pair.world.now += SECOND
    pair.c.close(pair.world.now)
    pair.run()
    assert journalled(pair.c) == [
        (ChangeType.CONNECT, f"{SERVER} as client"),
        (ChangeType.DISCONNECT, f"{SERVER} local"),
    ]
    assert journalled(pair.s) == [
        (ChangeType.CONNECT, f"{CLIENT} as server"),
        (ChangeType.DISCONNECT, f"{CLIENT} closed"),
    ]
    times = [entry.timestamp for entry in pair.s.core.journal.entries()]
    assert times == [WALL, WALL + SECOND], "UNIX time"


@pytest.mark.parametrize(
    ("end", "client", "server"),
    [
        (lambda pair: pair.s.end_of_stream(START), None, "end_of_stream"),
        (lambda pair: pair.s.handle_timer(START + 91 * SECOND), None, "dead_peer"),
        (lambda pair: pair.c.close(START, 0x07), "local, 0x07 REKEY_FAIL", "closed, 0x07 REKEY_FAIL"),
        (lambda pair: pair.c.close(START, 0x77), "local, 0x77", "closed, 0x77"),
    ],
    ids=["end of stream", "dead peer", "code", "unknown code"],
)
def test_why_a_session_ended(end: Callable[[Pair], None], client: str | None, server: str) -> None:
    pair = easy_pair()
    end(pair)
    pair.run()
    if client is not None:
        assert journalled(pair.c)[1:] == [(ChangeType.DISCONNECT, f"{SERVER} {client}")]
    assert journalled(pair.s)[1:] == [(ChangeType.DISCONNECT, f"{CLIENT} {server}")]


def test_an_end_is_journalled_once() -> None:
    pair = easy_pair()
    pair.s.close(START)
    pair.s.close(START)
    pair.s.end_of_stream(START)
    assert len(journalled(pair.s)) == 2


def bad_tag(pair: Pair) -> bytes:
    packet = data(pair.c, b"x", START)
    header = wire.parse(packet)
    return pair.c.keys.sign(header, bytes(len(packet) - 80))


@pytest.mark.parametrize(
    ("make", "code", "name"),
    [
        (lambda pair: flipped(data(pair.c, b"x", START)), "0x01", "AUTH_FAIL"),
        (bad_tag, "0x02", "DECRYPT_FAIL"),
    ],
)
def test_protection_that_fails_is_an_error_and_then_the_end(
    make: Callable[[Pair], bytes], code: str, name: str
) -> None:
    pair = easy_pair()
    deliver(pair, make(pair))
    assert journalled(pair.s)[1:] == [
        (ChangeType.ERROR, f"{code} {CLIENT} protection"),
        (ChangeType.DISCONNECT, f"{CLIENT} protection, {code} {name}"),
    ]


def test_sequence_numbers_that_are_not_the_peers() -> None:
    pair = easy_pair()
    packet = data(pair.c, b"x", START)
    deliver(pair, packet)
    deliver(pair, packet)
    deliver(pair, data(pair.s, b"x", START))
    assert journalled(pair.s)[1:] == [
        (ChangeType.ERROR, f"0x03 {CLIENT} replay_drops"),
        (ChangeType.ERROR, f"0x03 {CLIENT} reflected"),
    ]


def test_the_end_of_the_sequence_numbers() -> None:
    pair = easy_pair()
    jump(pair.c, (1 << 62) - 2, pair.world.now)
    pair.c.send(b"x", START)
    assert journalled(pair.c)[1:] == []
    pair.c.acknowledge(START)
    assert journalled(pair.c)[1:] == [
        (ChangeType.ERROR, f"0x03 {SERVER} sequence_exhausted"),
        (ChangeType.DISCONNECT, f"{SERVER} sequence_exhausted, 0x03 SEQ_INVALID"),
    ]


def fragment(pair: Pair, msg_id: int) -> None:
    flags = int(Flag.FRAGMENT | Flag.REQUIRE_ACK)
    plaintext = FragmentHeader(msg_id, 0, 9).pack() + b"x"
    deliver(pair, pair.c.protect(Type.DATA, START, plaintext, flags=flags))


def test_messages_that_never_completed() -> None:
    pair = easy_pair()
    for msg_id in range(17):
        fragment(pair, msg_id)
    assert errors(pair.world) == [f"0x04 {CLIENT} frag_evicted"]
    pair.s.handle_timer(START + 5 * SECOND)
    assert errors(pair.world)[1:] == [f"0x04 {CLIENT} frag_timeout"]
    assert pair.s.counters[DropReason.FRAG_TIMEOUT] == 16


def test_a_full_receive_queue() -> None:
    pair = easy_pair()
    for _ in range(4096):
        pair.c.send(b"x", START)
        pair.run()
    assert errors(pair.world) == [f"0x09 {CLIENT} overload"]


def test_discards_without_a_category_are_counted_only() -> None:
    pair = easy_pair()
    deliver(pair, pair.c.protect(0xF, START))
    deliver(pair, data(pair.c, b"x", START, channel=9))
    deliver(pair, b"short")
    assert journalled(pair.s)[1:] == []
    assert [pair.s.counters[name] for name in ("unknown_type", "unsubscribed", "malformed")] == [1, 1, 1]


def test_what_comes_after_the_end_is_no_error() -> None:
    pair = easy_pair()
    late = flipped(data(pair.c, b"x", START))
    pair.s.close(START)
    deliver(pair, late)
    assert len(journalled(pair.s)) == 2


# -- handshakes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda steps: flipped(steps.response(), 30), "bad_session_id"),
        (wrong_solution, "bad_puzzle"),
        (lambda steps: flipped(steps.response()), "auth_fail"),
        (lambda steps: rebuilt(steps, proof=bytes(32)), "bad_proof"),
    ],
    ids=["session id", "puzzle", "hmac", "proof"],
)
def test_a_response_that_fails(make: Callable[[Steps], bytes], why: str) -> None:
    steps = Steps(World() if why == "bad_puzzle" else World(server_settings=EASY))
    steps.server.receive_packet(make(steps), START)
    assert errors(steps.world) == [f"0x01 {CLIENT} {why}"]
    assert len(steps.world.server_core.journal) == 1


def test_the_65th_session_is_logged() -> None:
    world = World(server_settings=EASY)
    while world.slots.take() is not None:
        pass
    for _ in range(MAX_SESSIONS):
        steps = Steps(world)
        steps.server.receive_packet(steps.init, START)
    assert errors(world) == [f"0x09 {CLIENT} no_slot"] * 10
    assert world.counters["errors_not_journalled"] == MAX_SESSIONS - 10


def test_another_version_is_logged() -> None:
    steps = Steps()
    steps.server.receive_packet(bytes([0x20]) + steps.init[1:], START)
    assert errors(steps.world) == [f"0x0a {CLIENT} version_mismatch"]


def test_a_forged_ack_is_logged_by_the_client() -> None:
    steps = Steps()
    steps.server.receive_packet(steps.response(), START)
    (ack,) = steps.server.packets_to_send()
    steps.client.receive_packet(flipped(ack), START)
    entries = steps.world.client_core.journal.entries()
    assert [entry.text for entry in entries] == [f"0x01 {SERVER} auth_fail"]


def test_an_attempt_that_is_not_established_is_no_connect() -> None:
    steps = Steps()
    steps.response()
    assert len(steps.world.client_core.journal) == len(steps.world.server_core.journal) == 0


# -- alerts ----------------------------------------------------------------------------------------


def test_an_alert_names_the_peer() -> None:
    pair = easy_pair()
    pair.s.alert(START, "counters go backwards")
    assert journalled(pair.s)[1:] == [(ChangeType.INTEGRITY, f"{CLIENT} counters go backwards")]


def test_entries_name_the_version_in_force() -> None:
    pair = easy_pair()
    current = pair.s.core.configuration.current
    pair.s.core.configuration.current = type(current)(7, current.hash, current.params)
    pair.s.close(START)
    entry = pair.s.core.journal.entries()[-1]
    assert (entry.config_before, entry.config_after) == (7, 7)

# SPDX-License-Identifier: GPL-2.0-or-later
"""The handshake over raw IP, and which datagram belongs to whom (section 4, HS-13, HS-14, TRN-03, TRN-08)."""

from __future__ import annotations

import errno
import random
from dataclasses import replace

import pytest
from poolref_raw_sim import (
    CLIENT,
    LATENCY,
    SERVER,
    Flight,
    Net,
    RawNode,
    Weather,
    dropping,
    ip,
    raw_pair,
    received,
    seconds,
    sound,
)
from poolref_sim import EASY, flipped, solve

from poolref import constants as c
from poolref import wire
from poolref.constants import HEADER_SIZE, MILLISECOND, SECOND, ErrorCode, Flag, State, Type
from poolref.counters import DropReason
from poolref.events import PuzzlePosed
from poolref.raw_handshake import RawClientHandshake

STRANGER = ip(66)
HARD = replace(EASY, difficulty=10)
"""Puzzles that a wrong solution does not solve by chance."""


def network(**arguments: object) -> tuple[Net, RawNode, RawNode]:
    net = Net(**arguments)  # type: ignore[arg-type]
    return net, net.node(CLIENT), net.node(SERVER, listening=True)


def drop_all(source: bytes, *types: Type):
    return lambda flight: [] if flight.source == source and flight.type in types else sound(flight)


def forwarded_late(flight: Flight) -> list[tuple[int, bytes]]:
    """So late that the test acts first."""
    return [(SECOND, flight.datagram.packet)]


# -- lost packets --------------------------------------------------------------------------------------


def test_init_is_repeated_and_given_up_at_10_s() -> None:
    net, client, _ = network(fate=drop_all(SERVER, Type.CHALLENGE))
    start = net.now
    handshake = net.connect(client, SERVER)
    net.run(10 * SECOND - 1)
    inits = net.of(CLIENT)
    assert seconds(inits, start) == [0, 0.5, 1.5]
    assert len({flight.datagram for flight in inits}) == 1
    assert len(net.of(SERVER, Type.CHALLENGE)) == 3
    assert handshake.state is State.INIT_SENT
    net.run(1)
    assert client.failure.errno == errno.ETIMEDOUT
    assert handshake.unanswered
    assert handshake.next_timer() is None
    assert len(client.demultiplexer) == 0


def test_with_tcp_to_fall_back_to_it_gives_up_at_2_5_s() -> None:
    net, client, _ = network(fate=drop_all(SERVER, Type.CHALLENGE))
    handshake = net.connect(client, SERVER, patience=c.AUTO_TIMEOUT)
    net.run(2500 * MILLISECOND - 1)
    assert handshake.state is State.INIT_SENT
    net.run(1)
    assert handshake.unanswered
    assert client.failure.errno == errno.ETIMEDOUT


@pytest.mark.parametrize("lost", [1, 2])
def test_a_lost_challenge_is_healed_by_repeating_init(lost: int) -> None:
    is_challenge = [lambda flight: flight.type is Type.CHALLENGE] * lost
    net, client, server = network(fate=dropping(*is_challenge))
    net.connect(client, SERVER, patience=c.AUTO_TIMEOUT)
    net.run(4 * SECOND)
    assert client.session.end is None
    assert server.session.end is None
    assert len(net.of(CLIENT, Type.INIT)) == lost + 1


def test_a_repeated_init_s_second_challenge_changes_nothing() -> None:
    net, client, server = network(fate=forwarded_late)
    net.connect(client, SERVER)
    net.run(1900 * MILLISECOND)  # three INITs are on their way, and three CHALLENGEs will be
    net.fate = sound
    net.run(3 * SECOND)
    assert len(net.of(SERVER, Type.CHALLENGE)) == 3
    assert len(client.sessions) == len(server.sessions) == 1
    assert client.core.counters["unexpected_type"] + client.core.counters["unknown_session"] == 2


def test_response_is_repeated_1_2_and_4_s_after_the_first() -> None:
    net, client, server = network(fate=drop_all(SERVER, Type.ACK))
    net.connect(client, SERVER)
    net.run(34 * SECOND)
    responses = net.of(CLIENT, Type.RESPONSE)
    assert seconds(responses, responses[0].at) == [0, 1, 2, 4]
    assert len({flight.datagram for flight in responses}) == 1
    assert client.failure.errno == errno.ETIMEDOUT
    assert client.traces[-1].packet[0] & 0xF != Type.RESPONSE
    assert not client.sessions
    # Each but the first was answered with the stored ACK, beside its own resends; nothing was made twice.
    assert len(server.sessions) == 1
    assert server.session.counters["duplicate"] == 3
    acks = [flight for flight in net.of(SERVER, Type.ACK) if flight.header.seq == server.session.first_seq]
    assert len({flight.datagram.packet for flight in acks if flight.header.flags == 0}) == 1


def test_an_attempt_after_its_challenge_is_not_unanswered() -> None:
    net, client, _ = network(fate=drop_all(SERVER, Type.ACK))
    handshake = net.connect(client, SERVER, patience=c.AUTO_TIMEOUT)
    net.run(29 * SECOND)
    assert handshake.state is State.CHALLENGED  # not given up at 2.5 s
    net.run(5 * SECOND)
    assert client.failure.errno == errno.ETIMEDOUT
    assert not handshake.unanswered


@pytest.mark.parametrize("lost", [1, 2, 3])
def test_a_lost_handshake_ack_is_healed(lost: int) -> None:
    is_ack = [lambda flight: flight.type is Type.ACK and flight.source == SERVER] * lost
    net, client, server = network(fate=dropping(*is_ack))
    net.connect(client, SERVER)
    net.run(5 * SECOND)
    assert client.session.end is None
    assert server.session.in_flight.due > net.now
    assert not server.session.outstanding


def test_a_lost_response_is_healed() -> None:
    net, client, server = network(fate=dropping(lambda flight: flight.type is Type.RESPONSE))
    net.connect(client, SERVER)
    net.run(2 * SECOND)
    assert client.session.end is None
    assert server.session.end is None


def test_the_handshake_ack_is_resent_like_every_packet() -> None:
    net, client, server = network()
    net.fate = lambda flight: (
        [] if flight.source == CLIENT and flight.type not in (Type.INIT, Type.RESPONSE) else sound(flight)
    )
    net.connect(client, SERVER)
    net.run(20 * SECOND)
    first_seq = server.session.first_seq
    welcome = next(flight for flight in net.of(SERVER, Type.ACK) if flight.header.seq == first_seq)
    resent = [flight for flight in net.of(SERVER) if flight.datagram.packet == welcome.datagram.packet]
    assert seconds(resent, welcome.at)[:3] == [0, 1, 3]
    assert client.session.counters["duplicate"] >= 2


def test_the_client_acknowledges_the_handshake_ack_within_50_ms() -> None:
    net, client, server = network()
    net.connect(client, SERVER)
    net.run(4 * LATENCY)
    established = net.now
    net.run(LATENCY + 50 * MILLISECOND)
    (ack,) = net.of(CLIENT, Type.ACK)
    assert ack.at - established <= 50 * MILLISECOND
    assert ack.header.ack == server.session.first_seq
    assert ack.header.seq == client.session.first_seq
    assert not server.session.outstanding


def test_data_that_overtakes_the_handshake_ack_arrives_all_the_same() -> None:
    net, client, server = network(fate=dropping(lambda flight: flight.type is Type.ACK))
    net.connect(client, SERVER)
    net.run(4 * LATENCY)
    server.session.send(b"early", net.now)
    net.flush(server, server.connections[0])
    net.run(500 * MILLISECOND)
    assert not client.sessions
    net.run(3 * SECOND)
    assert received(client.session) == [b"early"]


@pytest.mark.parametrize("seed", range(1, 11))
def test_sessions_come_about_over_a_bad_network(seed: int) -> None:
    print(f"seed {seed}")
    weather = Weather(random.Random(seed), loss=0.2, duplication=0.2, reordering=0.3, corruption=0.05)
    net, client, server = network(seed=seed, fate=weather)
    net.connect(client, SERVER)
    net.run(31 * SECOND)
    assert len(client.sessions) == len(server.sessions) == 1
    assert client.session.session_id == server.session.session_id
    assert client.session.end is None


def test_an_answer_that_comes_after_the_session_concerns_nobody() -> None:
    net, client, server = network()
    handshake = net.connect(client, SERVER)
    net.run(SECOND)
    assert len(client.demultiplexer) == len(server.demultiplexer) == 1
    net.inject(SERVER, CLIENT, wire.advisory_close(ErrorCode.OVERLOAD, net.now, handshake.echo))
    net.run(MILLISECOND)
    assert client.core.counters["unknown_session"] == 1
    assert client.session.counters["unknown_session"] == 0
    assert client.session.end is None


# -- spoofed packets -----------------------------------------------------------------------------------


def held_up(handshake_type: Type = Type.CHALLENGE) -> tuple[Net, RawNode, RawNode, RawClientHandshake]:
    """An attempt that waits, because the server's answers of that type are late."""
    net, client, server = network()
    net.fate = lambda flight: forwarded_late(flight) if flight.type is handshake_type else sound(flight)
    handshake = net.connect(client, SERVER)
    net.run(3 * LATENCY + MILLISECOND)
    return net, client, server, handshake


def test_challenge_and_refusals_carry_the_echo() -> None:
    net, client, _ = network()
    handshake = net.connect(client, SERVER)
    net.run(LATENCY)
    (init,) = net.of(CLIENT)
    (challenge,) = net.of(SERVER)
    assert challenge.header.ack == handshake.echo
    assert handshake.echo == int.from_bytes(init.datagram.packet[HEADER_SIZE : HEADER_SIZE + 8], "big")


@pytest.mark.parametrize("change", [1, 1 << 63])
def test_a_challenge_without_the_echo_is_spoofed(change: int) -> None:
    net, client, server, handshake = held_up()
    (late,) = net.of(SERVER, Type.CHALLENGE)
    packet = late.datagram.packet
    header = late.header
    forged = wire.build(
        Type.CHALLENGE, packet[HEADER_SIZE:], session_id=header.session_id, ack=header.ack ^ change
    )
    net.inject(SERVER, CLIENT, forged)
    net.run(MILLISECOND)
    assert client.core.counters["spoofed"] == 1
    assert handshake.state is State.INIT_SENT
    assert client.core.counters["handshakes_failed"] == 0
    net.run(3 * SECOND)
    assert client.session.session_id == server.session.session_id


@pytest.mark.parametrize("waiting_for", [Type.CHALLENGE, Type.ACK])
@pytest.mark.parametrize("code", [ErrorCode.AUTH_FAIL, ErrorCode.OVERLOAD, ErrorCode.VERSION_MISMATCH])
def test_an_advisory_close_counts_only_with_the_echo(waiting_for: Type, code: ErrorCode) -> None:
    net, client, _, handshake = held_up(waiting_for)
    state = handshake.state
    net.inject(SERVER, CLIENT, wire.advisory_close(code, net.now, handshake.echo ^ 1))
    net.run(MILLISECOND)
    assert client.core.counters["spoofed"] == 1
    assert handshake.state is state
    net.inject(SERVER, CLIENT, wire.advisory_close(code, net.now, handshake.echo))
    net.run(MILLISECOND)
    expected = {
        ErrorCode.AUTH_FAIL: errno.ECONNRESET,
        ErrorCode.OVERLOAD: errno.ECONNREFUSED,
        ErrorCode.VERSION_MISMATCH: errno.EPROTONOSUPPORT,
    }
    assert client.failure.errno == expected[code]
    assert not handshake.unanswered
    assert len(client.demultiplexer) == 0


def test_a_refusal_of_a_foreign_version_needs_the_echo_as_well() -> None:
    net, client, _, handshake = held_up()
    for echo in (handshake.echo ^ 1, handshake.echo):
        packet = wire.build(Type.CLOSE, bytes([ErrorCode.VERSION_MISMATCH]), version=2, ack=echo)
        assert client.core.counters["handshakes_failed"] == 0
        net.inject(SERVER, CLIENT, packet)
        net.run(MILLISECOND)
    assert client.core.counters["version_mismatch"] == 2
    assert client.failure.errno == errno.EPROTONOSUPPORT


@pytest.mark.parametrize("type", [Type.CHALLENGE, Type.CLOSE])
def test_an_answer_from_another_address_is_spoofed(type: Type) -> None:
    net, client, _, handshake = held_up()
    packet = wire.advisory_close(ErrorCode.OVERLOAD, net.now, handshake.echo)
    if type is Type.CHALLENGE:
        packet = net.of(SERVER, Type.CHALLENGE)[0].datagram.packet
    net.inject(STRANGER, CLIENT, packet)
    net.run(MILLISECOND)
    assert client.core.counters["spoofed"] == 1
    assert handshake.state is State.INIT_SENT


@pytest.mark.parametrize("session_id", [bytes(16), None])
def test_a_session_id_that_is_zero_or_in_use_is_refused(session_id: bytes | None) -> None:
    net, client, _, handshake = held_up()
    packet = net.of(SERVER, Type.CHALLENGE)[0].datagram.packet
    used = wire.parse(packet).session_id if session_id is None else session_id
    handshake._in_use = lambda each: each == used
    forged = wire.build(Type.CHALLENGE, packet[HEADER_SIZE:], session_id=used, ack=handshake.echo)
    net.inject(SERVER, CLIENT, forged)
    net.run(MILLISECOND)
    assert client.failure.errno == errno.EBADMSG
    assert client.core.counters["bad_session_id"] == 1


def test_a_forged_ack_does_not_end_the_attempt() -> None:
    net, client, server, handshake = held_up(Type.ACK)
    assert handshake.state is State.CHALLENGED
    genuine = net.of(SERVER, Type.ACK)[0].datagram.packet
    net.inject(SERVER, CLIENT, flipped(genuine))
    net.run(MILLISECOND)
    assert client.core.counters["auth_fail"] == 1
    assert handshake.state is State.CHALLENGED
    net.run(SECOND)
    assert client.session.session_id == server.session.session_id


@pytest.mark.parametrize(("forged", "number"), [(True, errno.EBADMSG), (False, errno.ETIMEDOUT)])
def test_without_a_genuine_ack_a_forged_one_tells_why(forged: bool, number: int) -> None:
    net, client, _, _ = held_up(Type.ACK)
    genuine = net.of(SERVER, Type.ACK)[0].datagram.packet
    if forged:
        client.demultiplexer.receive_datagram(SERVER, flipped(genuine), net.now)
    net.nodes.pop(SERVER)
    net._arrivals.clear()
    net.run(30 * SECOND - LATENCY - MILLISECOND - 1)
    assert client.core.counters["handshakes_failed"] == 0
    net.run(1)
    assert client.failure.errno == number


@pytest.mark.parametrize("flag", [each for each in Flag if each not in (Flag.ENCRYPTED, Flag.COMPRESSED)])
def test_an_ack_with_a_flag_is_not_the_handshake_s(flag: Flag) -> None:
    # A void of the server's first MTU probe has a valid hmac and ack = C0 (E-38).
    net, client, server, handshake = held_up(Type.ACK)
    void = server.session.protect(Type.ACK, net.now, flags=int(flag), seq=server.session.first_seq + 1)
    net.inject(SERVER, CLIENT, void)
    net.run(MILLISECOND)
    assert handshake.state is State.CHALLENGED
    assert client.core.counters["unexpected_type"] == 1
    net.run(SECOND)
    assert client.session.window.cumulative == server.session.first_seq


def test_the_handshake_ack_must_acknowledge_the_response() -> None:
    net, client, server, handshake = held_up(Type.ACK)
    session = server.session
    wrong = session.protect(Type.ACK, net.now, seq=session.first_seq, ack=session.ack - 1)
    mirrored = session.protect(Type.ACK, net.now, seq=session.ack)
    for packet, counter in ((wrong, "bad_ack"), (mirrored, "reflected")):
        net.inject(SERVER, CLIENT, packet)
        net.run(MILLISECOND)
        assert client.core.counters[counter] == 1
        assert handshake.state is State.CHALLENGED


def test_an_attempt_given_up_leaves_nothing_behind() -> None:
    net, client, _, handshake = held_up(Type.ACK)
    handshake.cancel()
    assert handshake.next_timer() is None
    client.demultiplexer.remove(client.connections[0])
    assert len(client.demultiplexer) == 0
    net.run(10 * SECOND)
    handshake.handle_timer(net.now)
    assert handshake.packets_to_send() == []


def test_solved_too_late_sends_nothing() -> None:
    net, client, _ = network()
    net.solving = False
    handshake = net.connect(client, SERVER)
    net.run(26 * SECOND)
    assert client.failure.errno == errno.ETIMEDOUT
    (puzzle,) = [event for event in client.events if isinstance(event, PuzzlePosed)]
    handshake.solved(solve(puzzle), net.now)
    net.run(5 * SECOND)
    assert net.of(CLIENT, Type.RESPONSE) == []


# -- the server ----------------------------------------------------------------------------------------


def test_an_init_leaves_no_trace_at_the_server() -> None:
    net, client, server = network(fate=drop_all(SERVER, Type.CHALLENGE))
    net.connect(client, SERVER)
    net.run(SECOND)
    assert server.core.counters["challenges_sent"] == 2
    assert len(server.demultiplexer) == 0
    assert server.connections == []
    assert server.core.slots.free == c.MAX_SESSIONS


def init(net: Net, **fields: int) -> bytes:
    payload = bytes(range(1, 33)) + bytes(32)
    return wire.build(Type.INIT, payload, **{"timestamp": net.wall, **fields})


def test_an_init_of_another_version_is_refused_with_the_echo() -> None:
    net, _, _ = network()
    net.inject(CLIENT, SERVER, init(net, version=2))
    net.run(MILLISECOND)
    (close,) = net.of(SERVER)
    header = close.header
    assert (header.type, header.version) == (Type.CLOSE, 1)
    assert close.datagram.packet[HEADER_SIZE:] == bytes([ErrorCode.VERSION_MISMATCH])
    assert header.ack == 0x0102030405060708
    assert header.session_id == bytes(16)
    assert header.hmac == bytes(32)


@pytest.mark.parametrize("size", [0, 7, 31])
def test_an_init_too_short_to_hold_a_key_is_not_answered(size: int) -> None:
    net, _, server = network()
    net.inject(CLIENT, SERVER, wire.build(Type.INIT, bytes(size), version=2))
    net.run(MILLISECOND)
    assert net.of(SERVER) == []
    assert server.core.counters["version_mismatch"] == 1


@pytest.mark.parametrize("when", [Type.INIT, Type.RESPONSE])
def test_a_full_node_refuses_with_the_echo(when: Type) -> None:
    net, client, server = network()
    if when is Type.RESPONSE:
        net.fate = lambda flight: forwarded_late(flight) if flight.type is Type.RESPONSE else sound(flight)
    handshake = net.connect(client, SERVER)
    if when is Type.RESPONSE:
        net.run(3 * LATENCY)
    while server.core.slots.take() is not None:
        pass
    net.run(1100 * MILLISECOND)
    close = net.of(SERVER, Type.CLOSE)[0]
    assert close.datagram.packet[HEADER_SIZE:] == bytes([ErrorCode.OVERLOAD])
    assert close.header.ack == handshake.echo
    assert client.failure.errno == errno.ECONNREFUSED
    assert server.core.counters["no_slot"] == 1


def failing_responses(net: Net, client: RawNode) -> list[tuple[str, bytes]]:
    (response,) = [flight.datagram.packet for flight in net.of(CLIENT, Type.RESPONSE)]
    solution = HEADER_SIZE + 32
    return [
        ("bad_puzzle", response[:solution] + bytes(32) + response[solution + 32 :]),
        ("auth_fail", flipped(response)),
        ("bad_session_id", flipped(response, 20)),
        ("malformed", wire.build(Type.RESPONSE, response[HEADER_SIZE:-1], flags=1)),
    ]


@pytest.mark.parametrize("number", range(4))
def test_a_response_that_fails_meets_silence(number: int) -> None:
    net = Net(fate=lambda flight: [] if flight.type is Type.RESPONSE else sound(flight))
    client, server = net.node(CLIENT), net.node(SERVER, HARD, listening=True)
    net.connect(client, SERVER)
    net.run(3 * LATENCY)
    counter, packet = failing_responses(net, client)[number]
    before = server.core.counters[counter]
    net.inject(CLIENT, SERVER, packet)
    net.run(MILLISECOND)
    assert net.of(SERVER, Type.CLOSE, Type.ACK) == []
    assert server.core.counters[counter] == before + 1
    assert server.sessions == []
    net.fate = sound  # the genuine one still works
    net.run(2 * SECOND)
    assert len(server.sessions) == 1


def test_a_response_is_used_once_even_after_its_session_ended() -> None:
    net, client, server = network()
    net.connect(client, SERVER)
    net.run(SECOND)
    (response,) = [flight.datagram.packet for flight in net.of(CLIENT, Type.RESPONSE)]
    client.session.close(net.now)
    net.flush(client, client.connections[0])
    net.run(SECOND)
    assert server.session.end is not None
    sent = len(net.of(SERVER))
    net.inject(CLIENT, SERVER, response)
    net.run(SECOND)
    assert len(server.sessions) == 1
    assert len(net.of(SERVER)) == sent
    assert server.core.counters["replay_drops"] == 1


# -- which datagram belongs to whom --------------------------------------------------------------------


@pytest.mark.parametrize("change", [-1, 1])
def test_a_datagram_has_exactly_its_packet_s_length(change: int) -> None:
    pair = raw_pair()
    packet = pair.c.protect(Type.DATA, pair.net.now, b"x")
    packet = packet[:-1] if change < 0 else packet + b"\0"
    pair.net.inject(CLIENT, SERVER, packet)
    pair.run(MILLISECOND)
    assert pair.server.core.counters["malformed"] == 1
    assert pair.s.counters["malformed"] == 0
    assert pair.s.end is None


@pytest.mark.parametrize("size", [0, 1, 79])
def test_a_datagram_shorter_than_a_header_is_malformed(size: int) -> None:
    pair = raw_pair()
    pair.net.inject(CLIENT, SERVER, bytes(size))
    pair.run(MILLISECOND)
    assert pair.server.core.counters["malformed"] == 1


@pytest.mark.parametrize("type", [Type.DATA, Type.ACK, Type.RESPONSE, Type.CLOSE])
def test_a_known_id_from_another_address_is_spoofed(type: Type) -> None:
    pair = raw_pair()
    packet = {
        Type.DATA: lambda: pair.c.protect(Type.DATA, pair.net.now, b"x"),
        Type.ACK: lambda: pair.c.protect(Type.ACK, pair.net.now),
        Type.CLOSE: lambda: pair.c.protect(Type.CLOSE, pair.net.now),
        Type.RESPONSE: lambda: next(
            trace.packet for trace in pair.client.traces if trace.packet[0] & 0xF == Type.RESPONSE
        ),
    }[type]()
    pair.net.inject(STRANGER, SERVER, packet)
    pair.run(100 * MILLISECOND)
    assert pair.server.core.counters["spoofed"] == 1
    assert pair.net.of(SERVER) == []
    assert pair.s.end is None
    assert received(pair.s) == []
    assert len(pair.server.sessions) == 1


@pytest.mark.parametrize("type", [Type.DATA, Type.ACK, Type.CLOSE, Type.CHALLENGE, Type.HEARTBEAT, 0xE])
def test_an_unknown_id_belongs_to_nobody(type: int) -> None:
    pair = raw_pair()
    pair.net.inject(CLIENT, SERVER, wire.build(type, session_id=bytes(15) + b"\1"))
    pair.run(100 * MILLISECOND)
    assert pair.server.core.counters["unknown_session"] == 1
    assert pair.net.of(SERVER) == []


def test_the_header_is_checked_before_a_session_is_looked_for() -> None:
    pair = raw_pair()
    for fields in ({"reserved0": 1}, {"flags": int(Flag.COMPRESSED)}, {"channel": 1}):
        pair.net.inject(CLIENT, SERVER, wire.build(Type.HEARTBEAT, **fields))
    pair.net.inject(CLIENT, SERVER, wire.build(Type.HEARTBEAT, version=2))
    pair.run(MILLISECOND)
    assert pair.server.core.counters["malformed"] == 3
    assert pair.server.core.counters["version_mismatch"] == 1
    assert pair.server.core.counters["unknown_session"] == 0


@pytest.mark.parametrize("type", [Type.INIT, Type.RESPONSE])
def test_a_node_that_does_not_listen_answers_nobody(type: Type) -> None:
    net, client, _ = network()
    packet = init(net) if type is Type.INIT else wire.build(Type.RESPONSE, bytes(112), flags=1)
    net.inject(SERVER, CLIENT, packet)
    net.inject(SERVER, CLIENT, init(net, version=2))
    net.run(MILLISECOND)
    assert net.of(CLIENT) == []
    assert client.core.counters["unexpected_type"] == 1
    assert client.core.counters["version_mismatch"] == 1


def test_attempts_at_one_peer_do_not_disturb_each_other() -> None:
    net, client, server = network()
    for _ in range(5):
        net.connect(client, SERVER)
    net.run(SECOND)
    ids = {session.session_id for session in client.sessions}
    assert len(ids) == 5
    assert ids == {session.session_id for session in server.sessions}
    assert client.core.counters["spoofed"] == 0
    for number, session in enumerate(client.sessions):
        session.send(b"%d" % number, net.now)
    for connection in client.connections:
        net.flush(client, connection)
    net.run(SECOND)
    messages = {session.session_id: received(session) for session in server.sessions}
    assert messages == {
        session.session_id: [b"%d" % number] for number, session in enumerate(client.sessions)
    }


def test_two_nodes_connect_to_each_other_at_once() -> None:
    net = Net()
    one, two = net.node(CLIENT, listening=True), net.node(SERVER, listening=True)
    net.connect(one, SERVER)
    net.connect(two, CLIENT)
    net.run(SECOND)
    assert len(one.sessions) == len(two.sessions) == 2
    assert {each.session_id for each in one.sessions} == {each.session_id for each in two.sessions}


def test_what_is_discarded_without_a_session_is_traced() -> None:
    net, client, _ = network()
    net.inject(SERVER, CLIENT, b"short")
    net.run(MILLISECOND)
    (trace,) = client.traces
    assert (trace.direction, trace.outcome) == ("received", DropReason.MALFORMED)


def test_arbitrary_datagrams_never_raise() -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    net, client, server = network()
    for _ in range(3):
        net.connect(client, SERVER)
    net.run(LATENCY)
    known = [flight.datagram.packet for flight in net.sent]
    for _ in range(3000):
        packet = (
            bytearray(chance.choice(known)) if chance.random() < 0.7 else bytearray(chance.randbytes(144))
        )
        for _ in range(chance.randrange(4)):
            packet[chance.randrange(len(packet))] = chance.randrange(256)
        if chance.random() < 0.2:
            del packet[chance.randrange(len(packet)) :]
        net.inject(chance.choice((CLIENT, SERVER, STRANGER)), chance.choice((CLIENT, SERVER)), bytes(packet))
        net.run(chance.randrange(5 * MILLISECOND))
        known += [flight.datagram.packet for flight in net.sent[-5:]]
        known = known[-200:]
    assert sum(client.core.counters.values()) + sum(server.core.counters.values()) > 3000

# SPDX-License-Identifier: GPL-2.0-or-later
"""The full product of states and types, in the table and in behaviour; every drop reason reached."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from poolref_raw_sim import CLIENT as RAW_CLIENT
from poolref_raw_sim import SERVER as RAW_SERVER
from poolref_raw_sim import RawPair, ip, raw_pair
from poolref_sim import (
    ALL_STATES,
    EASY,
    PEER,
    SERVER,
    START,
    WALL,
    Pair,
    World,
    data,
    deliver,
    easy_pair,
    flipped,
    solve,
)
from test_poolref_crypto import LOW_ORDER
from test_poolref_handshake import Steps, challenged, forged_ack, rebuilt, with_challenge, wrong_solution

from poolref import wire
from poolref.config import ConfigPayload, Parameters, Reference
from poolref.constants import FIRST_UNKNOWN_TYPE, JOURNAL_RING, SECOND, Flag, State, Type
from poolref.counters import COUNTER_NAMES, Counters, DropReason, Outcome, Verdict
from poolref.crypto import public_key
from poolref.discovery import Announce, Announcer
from poolref.events import PuzzlePosed
from poolref.handshake import ServerHandshake
from poolref.integrity import StateReport, challenge
from poolref.journal import ChangeType, Sync
from poolref.rekey import PROPOSE, RekeyPayload
from poolref.session import Session
from poolref.settings import Settings
from poolref.states import TABLE, Action, Transition, lookup
from poolref.wire import FragmentHeader, Header

# Section 5 of the specification, word for word.
_EVERYTHING = "DATA ACK HEARTBEAT REKEY CLOSE CONFIG ROLLBACK DISCOVER JOURNAL INTEGRITY"
ACCEPTED = {
    State.IDLE: "INIT RESPONSE",
    State.INIT_SENT: "CHALLENGE CLOSE",
    State.CHALLENGED: "ACK CLOSE",
    State.ESTABLISHED: _EVERYTHING,
    State.REKEYING: _EVERYTHING,
    State.CLOSING: "CLOSE ACK",
}
PRODUCT = [(state, type) for state in ALL_STATES for type in range(16)]


def legal(state: State, type: int) -> bool:
    return type in [Type[name] for name in ACCEPTED[state].split()]


def test_the_table_has_nothing_beyond_the_product() -> None:
    assert set(TABLE) == {(state, type) for state, type in PRODUCT if legal(state, type)}
    assert {transition.action for transition in TABLE.values()} == set(Action)


@pytest.mark.parametrize(("state", "type"), PRODUCT)
def test_lookup(state: State, type: int) -> None:
    found = lookup(state, type)
    if legal(state, type):
        assert isinstance(found, Transition)
        assert found.target in State
    else:
        unknown = type >= FIRST_UNKNOWN_TYPE
        assert found is (DropReason.UNKNOWN_TYPE if unknown else DropReason.UNEXPECTED_TYPE)


def plaintext_of(type: int) -> bytes:
    if type == Type.CONFIG:
        return first_config().pack()
    if type == Type.REKEY:
        return RekeyPayload(1, PROPOSE, public_key(bytes(32))).pack()
    if type == Type.INTEGRITY:
        return challenge(bytes(16))
    sizes: dict[int, int] = {Type.HEARTBEAT: 44, Type.DISCOVER: 2}
    sizes |= dict.fromkeys((Type.ACK, Type.CLOSE, Type.ROLLBACK, Type.JOURNAL), 0)
    return bytes(sizes[type]) if type in sizes else b"x"


def first_config(**changes: int) -> ConfigPayload:
    """A CONFIG that a node as it starts accepts, but for ``changes``."""
    params = Parameters.of(Settings())
    return replace(ConfigPayload.proposing(params, Reference(0, bytes(32)), 1, SECOND, WALL), **changes)


def in_session(sender: Session, type: int) -> bytes:
    """A packet of any type that is right in everything but perhaps its moment."""
    if type == Type.RESPONSE:
        seq = sender.next_seq
        sender.next_seq += 1
        header = Header(type, int(Flag.ENCRYPTED), seq, 0, sender.session_id)
        return sender.keys.sign(header, bytes(64) + sender.keys.seal(seq, bytes(32)))
    flags: dict[int, int] = {
        Type.DISCOVER: int(Flag.TELEMETRY),
        Type.JOURNAL: int(Flag.JOURNAL_SYNC | Flag.REQUIRE_ACK),
    }
    return sender.protect(type, START, plaintext_of(type), flags=flags.get(type, 0))


@pytest.mark.parametrize("type", range(16))
@pytest.mark.parametrize("state", [State.ESTABLISHED, State.REKEYING, State.CLOSING])
def test_behaviour_with_keys(state: State, type: int) -> None:
    pair = easy_pair()
    if type == Type.ROLLBACK:
        deliver(pair, in_session(pair.c, Type.CONFIG))
    pair.s.state = state
    outcome = deliver(pair, in_session(pair.c, type))
    name = "unknown" if type >= FIRST_UNKNOWN_TYPE else Type(type).name
    expected: Outcome
    if not legal(state, type):
        expected = DropReason.UNKNOWN_TYPE if name == "unknown" else DropReason.UNEXPECTED_TYPE
    else:
        expected = Verdict.CLOSED if type == Type.CLOSE else Verdict.ACCEPTED
    assert outcome is expected
    if isinstance(expected, DropReason):
        assert pair.s.counters[expected] == 1
    if expected is not Verdict.CLOSED:
        assert pair.s.state is (State.ESTABLISHED if type == Type.REKEY and legal(state, type) else state)
        assert pair.s.end is None, "the session survives"
        pair.s.state = State.ESTABLISHED
        assert deliver(pair, data(pair.c, b"control", START)) is Verdict.ACCEPTED


@pytest.mark.parametrize("type", range(16))
def test_behaviour_of_the_listener(type: int) -> None:
    world = World(server_settings=EASY)
    steps = Steps(world)
    payloads = {
        Type.INIT: steps.init[80:],
        Type.CHALLENGE: bytes(98),
        Type.RESPONSE: bytes(112),
        Type.ACK: b"",
    }
    packet = wire.build(
        type, payloads.get(Type(type) if type < 13 else Type.DATA, b"x"), timestamp=world.wall
    )
    if type == Type.RESPONSE:
        packet = steps.response()
    outcome = steps.server.receive_packet(packet, world.now)
    if legal(State.IDLE, type):
        assert outcome is Verdict.ACCEPTED
        assert (steps.server.session is not None) == (type == Type.RESPONSE)
        return
    assert outcome is lookup(State.IDLE, type)
    assert steps.server.state is State.IDLE
    assert steps.server.packets_to_send() == []
    assert steps.server.receive_packet(steps.init, world.now) is Verdict.ACCEPTED


@pytest.mark.parametrize("type", range(16))
@pytest.mark.parametrize("state", [State.INIT_SENT, State.CHALLENGED])
def test_behaviour_of_the_client(state: State, type: int) -> None:
    if state is State.INIT_SENT:
        steps = Steps(World(server_settings=EASY))
        good = steps.challenge()
        packets: dict[int, bytes] = {
            Type.CHALLENGE: good,
            Type.CLOSE: wire.advisory_close(9, 0),
            Type.RESPONSE: wire.build(Type.RESPONSE, bytes(112)),
        }
        packet = packets.get(type, wire.build(type))
    else:
        steps, keys, good = challenged()
        session_id = good[20:36]
        packet = keys.protect(Header(type, seq=2**62, session_id=session_id), bytes(112))
        if type == Type.ACK:
            packet = good
        elif type == Type.CLOSE:
            packet = wire.advisory_close(9, 0)
    outcome = steps.client.receive_packet(packet, START)
    if legal(state, type):
        assert outcome is (Verdict.CLOSED if type == Type.CLOSE else Verdict.ACCEPTED)
        assert steps.client.state is not state
        return
    assert outcome is lookup(state, type)
    assert steps.client.state is state
    assert steps.client.receive_packet(good, START) is Verdict.ACCEPTED


# -- every reason for which a packet is discarded --------------------------------------------------


def at_server(make: Callable[[Steps], bytes]) -> Counters:
    steps = Steps(World(server_settings=EASY))
    steps.server.receive_packet(make(steps), START)
    return steps.world.counters


def at_client(make: Callable[[Steps], bytes]) -> Counters:
    steps = Steps(World(server_settings=EASY))
    steps.client.receive_packet(make(steps), START)
    return steps.client.counters


def in_pair(make: Callable[[Pair], bytes]) -> Counters:
    pair = easy_pair()
    deliver(pair, make(pair))
    return pair.s.counters


def fragment(pair: Pair, msg_id: int, offset: int = 0, total: int = 9) -> bytes:
    plaintext = FragmentHeader(msg_id, offset, total).pack() + b"x"
    return pair.c.protect(Type.DATA, START, plaintext, flags=int(Flag.FRAGMENT))


def fragment_timeout() -> Counters:
    pair = easy_pair()
    deliver(pair, fragment(pair, 1))
    pair.s.handle_timer(START + 5 * SECOND)
    return pair.s.counters


def fragment_eviction() -> Counters:
    pair = easy_pair()
    for msg_id in range(17):
        deliver(pair, fragment(pair, msg_id))
    return pair.s.counters


def full_queue() -> Counters:
    pair = easy_pair()
    for _ in range(4097):
        deliver(pair, pair.c.protect(Type.DATA, START, b"x"))
    return pair.s.counters


def replayed(pair: Pair) -> bytes:
    packet = data(pair.c, b"x", START)
    deliver(pair, packet)
    return packet


def bad_tag(pair: Pair) -> bytes:
    header = Header(Type.DATA, int(Flag.ENCRYPTED), pair.c.next_seq, 0, pair.c.session_id)
    return pair.c.keys.sign(header, bytes(40))


def unsolved() -> Counters:
    steps = Steps(World(server_settings=Settings()))
    steps.server.receive_packet(wrong_solution(steps), START)
    return steps.world.counters


def late_response() -> Counters:
    steps = Steps(World(server_settings=EASY))
    response = steps.response()
    steps.server.receive_packet(response, START + 31 * SECOND)
    return steps.world.counters


def no_slot() -> Counters:
    world = World(server_settings=EASY)
    while world.slots.take() is not None:
        pass
    steps = Steps(world)
    steps.server.receive_packet(steps.init, START)
    return world.counters


def no_randomness() -> Counters:
    world = World(server_settings=EASY)
    world.server_core.rng = lambda size: b""
    steps = Steps(world)
    steps.server.receive_packet(steps.init, START)
    return world.counters


def journal_broken() -> Counters:
    def asked_and_answered_with_another_start(pair: Pair) -> bytes:
        pair.s.replication.request(START)
        sync = Sync(0, b"\x01" * 32, ())
        return pair.c.protect(Type.JOURNAL, START, sync.pack(), flags=int(Flag.JOURNAL_SYNC))

    return in_pair(asked_and_answered_with_another_start)


def integrity_fail() -> Counters:
    report = StateReport(1, 0, 0, 0, 0, 0, bytes(32))
    return in_pair(lambda pair: pair.c.protect(Type.INTEGRITY, START, report.pack()))


def integrity_flood() -> Counters:
    pair = easy_pair()
    for _ in range(17):
        deliver(pair, in_session(pair.c, Type.INTEGRITY))
    return pair.s.counters


def not_permitted() -> Counters:
    settings = replace(EASY, remote_admin=False)
    pair = World(server_settings=settings).pair()
    deliver(pair, in_session(pair.c, Type.JOURNAL))
    return pair.s.counters


def journal_full() -> Counters:
    core = World().server_core
    for index in range(JOURNAL_RING + 1):
        core.journal.append(ChangeType.CONNECT, "", index, 0, 0)
    return core.counters


def announced(static_peers: int, times: int) -> Counters:
    core = World().server_core
    for port in range(1, static_peers + 1):
        core.peers.add_static(SERVER._replace(port=port), START)
    announcer = Announcer(core, START)
    for _ in range(times):
        announcer.receive(Announce(b"k" * 32, bytes(32), 9253).pack(), PEER.ip, START)
    return core.counters


def over_raw(change: Callable[[RawPair], bytes], times: int = 1, source: bytes = RAW_CLIENT) -> Counters:
    """What the server counts when a datagram arrives ``times`` times from an address."""
    pair = raw_pair()
    before = dict(pair.server.core.counters)
    assert not [reason for reason in DropReason if before[reason]]
    packet = change(pair)
    for _ in range(times):
        pair.net.inject(source, RAW_SERVER, packet)
        pair.run(0)
    return pair.server.core.counters


def raw_data(pair: RawPair, skip: int = 0) -> bytes:
    return pair.c.protect(Type.DATA, pair.net.now, b"x", seq=pair.c.next_seq + skip)


REACHED: dict[DropReason, Callable[[], Counters]] = {
    DropReason.MALFORMED: lambda: in_pair(lambda pair: b"short"),
    DropReason.VERSION_MISMATCH: lambda: in_pair(lambda pair: wire.build(Type.DATA, version=2)),
    DropReason.UNKNOWN_SESSION: lambda: in_pair(lambda pair: wire.build(Type.DATA)),
    DropReason.UNEXPECTED_TYPE: lambda: in_pair(lambda pair: wire.build(Type.INIT, bytes(64))),
    DropReason.UNKNOWN_TYPE: lambda: in_pair(lambda pair: in_session(pair.c, 0xF)),
    DropReason.AUTH_FAIL: lambda: in_pair(lambda pair: flipped(data(pair.c, b"x", START))),
    DropReason.REFLECTED: lambda: in_pair(lambda pair: data(pair.s, b"x", START)),
    DropReason.REPLAY: lambda: in_pair(replayed),
    DropReason.DECRYPT_FAIL: lambda: in_pair(bad_tag),
    DropReason.BAD_ACK: lambda: in_pair(lambda pair: pair.c.protect(Type.ACK, START, ack=1)),
    DropReason.UNSUBSCRIBED: lambda: in_pair(lambda pair: data(pair.c, b"x", START, channel=1)),
    DropReason.INTEGRITY_FAIL: integrity_fail,
    DropReason.INTEGRITY_LIMITED: integrity_flood,
    DropReason.OVERLOAD: full_queue,
    DropReason.FRAG_TIMEOUT: fragment_timeout,
    DropReason.FRAG_EVICTED: fragment_eviction,
    DropReason.STALE_INIT: lambda: at_server(lambda steps: wire.build(Type.INIT, bytes(64))),
    DropReason.BAD_SESSION_ID: lambda: at_server(lambda steps: flipped(steps.response(), 30)),
    DropReason.STALE_RESPONSE: late_response,
    DropReason.BAD_PUZZLE: unsolved,
    DropReason.BAD_PROOF: lambda: at_server(lambda steps: rebuilt(steps, proof=bytes(32))),
    DropReason.LOW_ORDER_KEY: lambda: at_client(
        lambda steps: with_challenge(steps, server_pubkey=LOW_ORDER[0])
    ),
    DropReason.TOO_DIFFICULT: lambda: at_client(lambda steps: with_challenge(steps, difficulty=25)),
    DropReason.JOURNAL_FULL: journal_full,
    DropReason.JOURNAL_BROKEN: journal_broken,
    DropReason.CONFIG_REJECT: lambda: in_pair(
        lambda pair: pair.c.protect(Type.CONFIG, START, first_config(version=0).pack())
    ),
    DropReason.NOT_PERMITTED: not_permitted,
    DropReason.UNSOLICITED: lambda: in_pair(lambda pair: pair.c.protect(Type.DISCOVER, START, b"\5\x78")),
    DropReason.ANNOUNCE_LIMITED: lambda: announced(0, times=2),
    DropReason.PEERS_FULL: lambda: announced(256, times=1),
    DropReason.SPOOFED: lambda: over_raw(raw_data, source=ip(99)),
    DropReason.DUPLICATE: lambda: over_raw(raw_data, times=2),
    DropReason.OUT_OF_WINDOW: lambda: over_raw(lambda pair: raw_data(pair, skip=64)),
    DropReason.NO_SLOT: no_slot,
    DropReason.NO_RANDOMNESS: no_randomness,
}


def test_every_reason_is_reached() -> None:
    assert set(REACHED) == set(DropReason)


@pytest.mark.parametrize("reason", REACHED, ids=str)
def test_reached(reason: DropReason) -> None:
    counters = REACHED[reason]()
    assert counters[reason] == 1
    discards = {
        str(other): counters[other] for other in DropReason if counters[other] and other is not reason
    }
    assert discards == {}


def test_counter_names_are_fixed() -> None:
    assert set(Counters()) == set(COUNTER_NAMES)
    assert len(set(COUNTER_NAMES)) == len(COUNTER_NAMES)


def test_a_packet_that_is_discarded_on_the_way_in_is_acked_all_the_same() -> None:
    """Not delivered is not the same as not received."""
    pair = easy_pair()
    assert deliver(pair, data(pair.c, b"x", START, channel=9)) is DropReason.UNSUBSCRIBED
    due = pair.s.next_timer()
    assert due is not None
    pair.s.handle_timer(due)
    assert [wire.parse(packet).type for packet in pair.s.packets_to_send()] == [Type.ACK]


def test_a_wrong_ack_of_the_handshake_is_counted_once() -> None:
    steps, keys, ack = challenged()
    steps.client.receive_packet(forged_ack(keys, ack, ack=1), START)
    assert steps.client.counters[DropReason.BAD_ACK] == 1


def test_the_server_handshake_can_be_reused_by_nobody() -> None:
    steps = Steps(World(server_settings=EASY))
    response = steps.response()
    server = ServerHandshake(steps.world.responder, PEER, START)
    assert server.receive_packet(response, START) is Verdict.ACCEPTED
    assert server.receive_packet(response, START) is DropReason.UNEXPECTED_TYPE


def test_the_puzzle_of_the_challenge_is_the_one_posed() -> None:
    steps = Steps(World(server_settings=EASY))
    challenge = steps.challenge()
    steps.client.receive_packet(challenge, START)
    event = steps.client.next_event()
    assert isinstance(event, PuzzlePosed)
    assert event.seed == challenge[80 + 32 : 80 + 64]
    assert len(solve(event)) == 32

# SPDX-License-Identifier: GPL-2.0-or-later
"""What a sound peer does about each misbehaviour, exactly; and that none is missing."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from poolref_sim import Pair, World

from poolref import wire
from poolref.config import Parameters
from poolref.connection import TcpConnection
from poolref.constants import MAX_SESSIONS, SECOND, Role, State, Type
from poolref.core import Peer
from poolref.counters import DropReason
from poolref.dialect import Dialect
from poolref.discovery import Announcer
from poolref.events import (
    ConfigAccepted,
    ConfigConfirmed,
    ConfigRejected,
    ConfigRolledBack,
    HandshakeFailed,
    PacketTrace,
    SessionEnded,
)
from poolref.journal import ChangeType
from poolref.keys import Keys
from poolref.misbehaviour import (
    LOW_ORDER_POINTS,
    NOT_VIOLABLE,
    SWITCHES,
    Kind,
    Misbehaviour,
    Phase,
    Reaction,
    Switch,
    misbehaviour,
    parse,
    tamper,
)
from poolref.misbehaviour.conduct import opened
from poolref.peers import MAPPED, NO_KEY, Source
from poolref.settings import Settings

NAMES = {Role.CLIENT: "client", Role.SERVER: "server"}
PUZZLE = Settings(difficulty=4, dialect=Dialect(min_difficulty=0), integrity_s=0)
"""A puzzle that is solved at once, and yet has wrong solutions."""
BIG = 3000
"""Bytes of a message of three packets."""
PARAMETERS = Parameters(17, 7, 1 << 20, 3600, 512, 1400)
PATIENCE = {
    Phase.HEARTBEAT: 6.0,
    Phase.DATA: 6.0,
    Phase.MTU: 9.0,
    Phase.CONFIGURED: 30.0,
    Phase.CONFIG: 1.0,
    Phase.REKEY: 6.0,
}
"""Seconds within which the peer has misbehaved and the victim reacted, where it does so at once."""


class Encounter:
    """A peer in ``role``, sound without ``wrong``, and its victim; ``concerned`` are the messages whose
    packets it tampered with.
    """

    def __init__(self, role: Role, wrong: Misbehaviour | None) -> None:
        self.role, self.wrong = role, wrong
        settings = dict.fromkeys(Role, PUZZLE)
        settings[role] = replace(PUZZLE, misbehaviour=wrong)
        self.world = World(server_settings=settings[Role.SERVER], client_settings=settings[Role.CLIENT])
        self.core, self.victim_core = self.world.client_core, self.world.server_core
        if role is Role.SERVER:
            self.core, self.victim_core = self.victim_core, self.core
        self.victim_core.observer = self._observe
        self.refusals: list[int] = []
        self.session_ids: set[bytes] = set()
        self.pair: Pair
        self.sent: list[bytes] = []
        self.concerned: set[bytes] = set()
        self.received: list[bytes] = []

    def _observe(self, trace: PacketTrace) -> None:
        if trace.direction == "sent":
            code = wire.advisory_code(wire.parse(trace.packet), trace.packet)
            if code is not None:
                self.refusals.append(code)

    @property
    def done(self) -> int:
        return 0 if self.wrong is None else next(iter(self.wrong.done.values()))

    @property
    def peer(self) -> TcpConnection:
        return self.pair.client if self.role is Role.CLIENT else self.pair.server

    @property
    def victim(self) -> TcpConnection:
        return self.pair.server if self.role is Role.CLIENT else self.pair.client

    @property
    def victim_name(self) -> str:
        return NAMES[Role(1 - self.role)]

    def discards(self) -> dict[DropReason, int]:
        """By how much the victim's counters of discards have grown."""
        counters = self.victim_core.counters
        return {reason: counters[reason] for reason in DropReason if counters[reason]}

    def error(self) -> int | None:
        """The errno of the victim's failed attempt."""
        for event in self.pair.events[self.victim_name]:
            if isinstance(event, HandshakeFailed):
                return event.error.errno
        return None

    def end(self) -> SessionEnded | None:
        return None if self.victim.session is None else self.victim.session.end

    def meet(self) -> None:
        """Connect once."""
        client = self.world.client(in_use=lambda session_id: session_id in self.session_ids)
        self.pair = Pair(self.world, client, self.world.server())
        self.pair.run()
        if client.session is not None:
            self.session_ids.add(client.session.session_id)

    def say(self, message: bytes) -> None:
        """The peer sends a message, if it still can."""
        session = self.peer.session
        assert session is not None
        if session.end is not None:
            return
        before = self.done
        session.send(message, self.world.now)
        self.sent.append(message)
        if self.done > before:
            self.concerned.add(message)
        self.settle()

    def settle(self) -> None:
        self.pair.run()
        while (message := self.victim.take(self.world.now)) is not None:
            self.received.append(message.data)

    def act(self, phase: Phase, messages: int) -> None:
        """Give the peer occasion to misbehave."""
        session, victim = self.peer.session, self.victim.session
        if phase is Phase.HANDSHAKE or session is None or victim is None:
            return
        match phase:
            case Phase.DATA:
                victim.send(b"from the victim", self.world.now)
                self.settle()
                self.pair.advance(SECOND // 10)
                for number in range(messages):
                    self.say(b"message %d, of thirty bytes ..." % number)
            case Phase.FRAGMENTS:
                victim.subscriptions.subscribe(1)
                for number in range(2):
                    self.say(bytes([number]) * BIG)
            case Phase.HEARTBEAT:
                pass  # a heartbeat comes within the time that passes anyway
            case Phase.CLOSE:
                session.close(self.world.now)
                self.settle()
                self.victim.receive_eof(self.world.now)
            case Phase.CONFIG | Phase.ROLLBACK:
                session.configuring.propose(PARAMETERS, 10 * SECOND, self.world.now)
                self.settle()
                if ConfigAccepted(1) in self.pair.events[NAMES[self.role]]:
                    if phase is Phase.CONFIG:
                        session.configuring.confirm(self.world.now)
                    else:
                        session.configuring.rollback(self.world.now)
                    self.settle()
            case Phase.CONFIGURED:
                victim.configuring.propose(PARAMETERS, 10 * SECOND, self.world.now)
                self.settle()
            case Phase.JOURNAL:
                victim.replication.request(self.world.now)
                self.wait(0.1)
                for number in range(2):
                    self.core.journal.append(ChangeType.ERROR, f"0x00 {number}", self.world.wall, 0, 0)
                self.wait(0.1)
            case Phase.EXCHANGE:
                known = Peer(MAPPED + bytes([192, 0, 2, 77]), 9253)
                self.core.peers.see(known, NO_KEY, Source.ANNOUNCE, self.world.now)
                session.exchange.send_now(self.world.now)
                self.settle()
            case Phase.REKEY:
                self.wait(9)  # while packets are held a probe would be answered too late
                self.say(b"before the rekey")
                session.rekeying.start(self.world.now)
                self.settle()
                for number in range(3):
                    self.say(b"after the rekey %d" % number)
            case Phase.REKEYED:
                self.wait(9)
                victim.rekeying.start(self.world.now)
                self.settle()
                self.say(b"after the rekey")
            case Phase.INTEGRITY:
                for _ in range(2):
                    session.vigil.challenge_now(self.world.now)
                    self.settle()
                    self.wait(1.5)
            case Phase.CHALLENGED:
                victim.vigil.challenge_now(self.world.now)
                self.settle()
            case Phase.ANNOUNCE:
                self.announce()
            case Phase.MTU:
                pass  # a search begins by itself, too
            case _:
                raise AssertionError(f"no occasion for {phase}")

    def announce(self) -> None:
        """The peer announces itself once."""
        speaker, listener = Announcer(self.core, self.world.now), Announcer(self.victim_core, self.world.now)
        speaker.opened(self.world.now)
        speaker.listening(9253, self.world.now)
        speaker.handle_timer(self.world.now)
        datagrams = speaker.datagrams_to_send()
        assert datagrams
        for datagram in datagrams:
            listener.receive(datagram, MAPPED + bytes([192, 0, 2, 99]), self.world.now)

    def wait(self, seconds: float) -> None:
        self.pair.advance(round(seconds * SECOND))
        self.settle()

    def arrived(self, message: bytes) -> bool:
        """Whether it did, with whatever was appended to it."""
        return any(each.startswith(message) for each in self.received)


def run(
    switch: Switch, role: Role, wrong: Misbehaviour | None, reaction: Reaction, messages: int = 4
) -> Encounter:
    encounter = Encounter(role, wrong)
    for _ in range(switch.attempts - 1):
        encounter.meet()
        assert encounter.discards() == {}, "it shows too early"
    encounter.meet()
    encounter.act(switch.phase, messages)
    if reaction.after_s > 1:
        encounter.wait(reaction.after_s - 1)
        assert (encounter.error(), encounter.end()) == (None, None), "too early"
        assert not (reaction.gives_up and encounter.victim.closing), "too early"
        encounter.wait(1)
    encounter.wait(PATIENCE.get(switch.phase, 0))
    return encounter


def alive(encounter: Encounter) -> None:
    """The session carries messages both ways."""
    peer, victim = encounter.peer.session, encounter.victim.session
    assert peer is not None
    assert victim is not None
    assert (peer.end, victim.end) == (None, None)
    assert (peer.state, victim.state) == (State.ESTABLISHED, State.ESTABLISHED)
    victim.send(b"to the peer", encounter.world.now)
    encounter.say(b"to the victim")
    encounter.wait(0.6)
    assert encounter.received[-1] == b"to the victim"
    heard = []
    while (message := encounter.peer.take(encounter.world.now)) is not None:
        heard.append(message.data)
    assert heard[-1] == b"to the peer"


@cache
def control(name: str, role: Role) -> None:
    """The same, with a peer that misbehaves in nothing."""
    switch = SWITCHES[name]
    encounter = run(switch, role, None, Reaction())
    assert encounter.discards() == {}
    assert encounter.error() is None
    assert encounter.refusals == []
    assert encounter.received == encounter.sent
    if switch.phase is Phase.CLOSE:
        assert encounter.end() == SessionEnded("closed", None)
    else:
        alive(encounter)


def check(encounter: Encounter, reaction: Reaction) -> None:
    assert encounter.done > 0, "the peer did nothing wrong"
    assert encounter.discards() == reaction.counts
    assert encounter.error() == reaction.error
    assert encounter.refusals == ([] if reaction.refusal is None else [reaction.refusal])
    if reaction.error is not None or reaction.gives_up:
        assert encounter.victim.session is None
        assert encounter.victim.closing
        assert encounter.victim_core.slots.free == MAX_SESSIONS - (
            0 if encounter.role is Role.SERVER else len(encounter.session_ids)
        )
        return
    end = None if reaction.ends is None else SessionEnded(reaction.ends, reaction.code)
    assert encounter.end() == end
    session = encounter.victim.session
    assert session is not None
    assert session.untrusted is reaction.untrusted
    for message in encounter.concerned:
        assert encounter.arrived(message) is reaction.delivers
    if end is None:
        assert all(map(encounter.arrived, set(encounter.sent) - encounter.concerned))
        alive(encounter)


def mtu(encounter: Encounter) -> int:
    session = encounter.victim.session
    assert session is not None
    return session.mtu


def version(encounter: Encounter) -> int:
    """Of the configuration in force at the victim, nothing being tentative."""
    assert encounter.victim_core.configuration.tentative is None
    return encounter.victim_core.configuration.current.version


def lost(encounter: Encounter) -> int:
    session = encounter.victim.session
    assert session is not None
    return session.window.lost


def known(encounter: Encounter) -> int:
    """How many peers the victim knows beside this one."""
    listed = encounter.victim_core.peers.listed(encounter.world.now)
    return sum(each.source in (Source.ANNOUNCE, Source.EXCHANGE) for each in listed)


def copied(encounter: Encounter) -> int:
    """How many entries of the peer's journal the victim has, all of them as they are there."""
    session = encounter.victim.session
    assert session is not None
    ring = session.replication.replica.ring
    if ring is None:
        return 0
    true = encounter.core.journal.entries()
    assert ring.entries() == true[ring.first_index :][: len(ring)]
    return len(ring)


def proposal(encounter: Encounter) -> list[object]:
    """What the victim was told about its own proposal."""
    kinds = (ConfigAccepted, ConfigConfirmed, ConfigRejected, ConfigRolledBack)
    return [event for event in encounter.pair.events[encounter.victim_name] if isinstance(event, kinds)]


def epoch(encounter: Encounter) -> int:
    session = encounter.victim.session
    assert session is not None
    return session.keys.epoch


def figures(encounter: Encounter) -> tuple[int, bool]:
    """The largest mtu reported, and whether the victim's own figures are plausible."""
    session = encounter.victim.session
    assert session is not None
    assert session.heartbeats.peer_report is not None
    own = session.heartbeats.report(encounter.world.now)
    return session.heartbeats.peer_report.mtu, own.rtt_ns < SECOND and own.mtu == session.mtu


NO_ANSWER = [ConfigRejected(1, "no answer")]
AFTERMATH: dict[str, tuple[Callable[[Encounter], object], object]] = {
    "seq-gap": (lost, 3),
    "telemetry-lies": (figures, (0xFFFF, True)),
    "oversized-data": (mtu, 1400),
    "probe-size-lies": (mtu, 1400),
    "probe-padding": (mtu, 1400),
    "probe-out-of-range": (mtu, 1400),
    "probe-short": (mtu, 1400),
    "silent-probe-answer": (mtu, 512),
    "answer-unasked": (mtu, 1400),
    "exchange-count": (known, 0),
    "exchange-cut": (known, 0),
    "exchange-too-many": (known, 0),
    "exchange-nowhere": (known, 0),
    "exchange-twice": (known, 1),
    "announce-size": (known, 0),
    "announce-version": (known, 0),
    "announce-address": (known, 0),
    "announce-port": (known, 0),
    "announce-flood": (known, 1),
    "announce-lies": (known, 1),
    "config-twice": (version, 1),
    "silent-config-answer": (proposal, NO_ANSWER),
    "config-answer-ack": (proposal, NO_ANSWER),
    "config-answer-flags": (proposal, [ConfigRejected(1, "refused")]),
    "journal-broken": (copied, 0),
    "journal-edited": (copied, 0),
    "journal-forked": (copied, 1),
    "journal-left-out": (copied, 1),
    "journal-unasked": (copied, 0),
    "silent-journal": (copied, 0),
    "rekey-epoch": (epoch, 1),
    "rekey-stage": (epoch, 1),
    "rekey-accept-unasked": (epoch, 1),
    "rekey-padding": (epoch, 1),
    "rekey-size": (epoch, 1),
    "accept-twice": (epoch, 1),
    **{
        name: (version, 0)
        for name, switch in SWITCHES.items()
        if switch.phase in (Phase.CONFIG, Phase.ROLLBACK) and name != "config-twice"
    },
}
"""What there is to see besides, with the default values."""


def told(text: str, reaction: Reaction) -> Misbehaviour:
    """What is tested comes first.  A server without a client is not to go on as if it had a session."""
    return misbehaviour(text) if reaction.error is None else misbehaviour(text, "mute")


EVERYWHERE = [
    (switch.name, role)
    for switch in SWITCHES.values()
    for role in switch.roles
    if switch.reaction is not None
]


def ids(value: object) -> str:
    return NAMES[value] if isinstance(value, Role) else str(value)


@pytest.mark.parametrize(("name", "role"), EVERYWHERE, ids=ids)
def test_a_sound_peer_reacts(name: str, role: Role) -> None:
    switch = SWITCHES[name]
    control(name, role)
    reaction = switch.expected(role)
    encounter = run(switch, role, told(name, reaction), reaction)
    check(encounter, reaction)
    look, expected = AFTERMATH.get(name, (lambda encounter: None, None))
    assert look(encounter) == expected


def test_the_aftermath_is_of_switches() -> None:
    assert AFTERMATH.keys() <= SWITCHES.keys()


@pytest.mark.parametrize(
    ("phase", "look", "expected"),
    [
        (Phase.MTU, mtu, 1400),
        (Phase.CONFIG, version, 1),
        (Phase.EXCHANGE, known, 1),
        (Phase.ANNOUNCE, known, 1),
        (Phase.JOURNAL, copied, 3),
        (Phase.REKEY, epoch, 1),
        (Phase.REKEYED, epoch, 1),
        (Phase.CONFIGURED, proposal, [ConfigAccepted(1), ConfigRolledBack(1, "deadline")]),
    ],
)
def test_what_there_is_to_see_without_misbehaviour(
    phase: Phase, look: Callable[[Encounter], object], expected: object
) -> None:
    name = next(switch.name for switch in SWITCHES.values() if switch.phase is phase)
    for role in Role:
        assert look(run(SWITCHES[name], role, None, Reaction())) == expected


OUT_OF_RANGE = SWITCHES["config-range"].parameters[0].choices
VARIANTS = [
    *(f"low-order-key:point={point}" for point in LOW_ORDER_POINTS),
    *(f"reserved-flag:bit={bit}" for bit in range(10, 16)),
    *(f"reserved0:value={value}" for value in (0x80, 0xFF)),
    *(f"reserved1:value={value}" for value in (0x80, 0xFF)),
    *(f"opening-not-plain:field={field}" for field in ("flags", "seq", "hmac")),
    *(f"encrypted-short:size={size}" for size in range(17)),
    *(f"unknown-type:type={type}" for type in (13, 14, 15)),
    *(f"unknown-type-first:type={type}" for type in (13, 14, 15)),
    *(f"other-type-first:type={type}" for type in range(3, 13) if type not in (Type.ACK, Type.CLOSE)),
    *(f"handshake-type:type={type}" for type in (0, 1)),
    *(f"wrong-version:version={version}" for version in (0, 2, 3, 15)),
    *(f"opening-version:version={version}" for version in (0, 2, 15)),
    *(f"claims-version:version={version}" for version in (0, 2, 15)),
    *(f"stale-init:seconds={seconds}" for seconds in (-3600, -31, 31, 3600)),
    *(f"bad-hmac:byte={byte}" for byte in (0, 1, 15, 31)),
    *(f"bad-hmac:kind={kind}" for kind in ("HEARTBEAT", "ACK", "ANY")),
    *(f"bad-tag:byte={byte}" for byte in (0, 7, 15)),
    *(f"opening-size:size={size}" for size in (0, 1, 63, 65, 97, 99, 60_000)),
    *(f"response-size:size={size}" for size in (0, 1, 63, 65, 60_000)),
    *(f"too-difficult:bits={bits}" for bits in (26, 255, 256, 65_535)),
    *(f"payload-len-short:by={by}" for by in (1, 20, 29)),
    *(f"payload-len-long:by={by}" for by in (1, 79, 80, 81)),
    *(f"cut-short:by={by}" for by in (1, 16, 45)),
    *(f"late-replay:after={after}" for after in (1, 63, 64, 65)),
    *(f"stale-seq:behind={behind}" for behind in (1, 64, 1000)),
    *(f"ack-unsent:by={by}" for by in (64, 1 << 60)),
    *(f"fragment-past-end:by={by}" for by in (1, 1296, 0xFFFF)),
    *(f"fragment-short:size={size}" for size in (1, 4, 7)),
    *(f"fragment-overlap:by={by}" for by in (1, 1296)),
    *(f"telemetry-size:size={size}" for size in (0, 1, 43, 45, 48, 1024)),
    *(f"oversized-data:size={size}" for size in (1305, 65_519)),
    *(f"config-size:size={size}" for size in (0, 1, 103, 105, 1024)),
    *(f"config-range:which={which}" for which in OUT_OF_RANGE),
    *(f"config-deadline:ns={ns}" for ns in (0, 1, 49_999_999, 3_600_000_000_001, (1 << 64) - 1)),
    *(f"probe-size-lies:by={by}" for by in (1, 65_535)),
    *(f"probe-out-of-range:size={size}" for size in (0, 1, 511, 1401, 65_535)),
    *(f"answer-size-lies:by={by}" for by in (1, 65_535)),
    *(f"answer-long:by={by}" for by in (1, 1024)),
    *(f"answer-unasked:size={size}" for size in (0, 1, 511, 512, 1400, 1401, 65_535)),
    *(f"exchange-count:by={by}" for by in (1, 65_535)),
    *(f"exchange-cut:by={by}" for by in (1, 37, 38)),
    *(f"exchange-too-many:entries={entries}" for entries in (35, 1700)),
    *(f"announce-size:size={size}" for size in (0, 1, 75, 77, 1400)),
    *(f"announce-version:version={version}" for version in (0, 2, 255)),
    *(f"journal-left-out:entries={entries}" for entries in (1, 1 << 32)),
    *(f"rekey-epoch:by={by}" for by in (1, 2, 0xFFFFFFFF)),
    *(f"rekey-stage:stage={stage}" for stage in (0, 3, 255)),
    *(f"rekey-size:size={size}" for size in (0, 1, 32, 39, 41, 1024)),
    *(f"rekey-low-order:point={point}" for point in LOW_ORDER_POINTS),
    *(f"accept-low-order:point={point}" for point in LOW_ORDER_POINTS),
    *(f"accept-epoch:by={by}" for by in (1, 0xFFFFFFFF)),
    *(f"accept-size:size={size}" for size in (0, 39, 41)),
    *(f"rekey-old-keys:nth={nth}" for nth in (1, 3)),
    *(f"wrong-answer:byte={byte}" for byte in (17, 48, 49, 80)),
    *(f"answer-size:size={size}" for size in (17, 80, 82)),
    *(f"integrity-op:op={op}" for op in (4, 255)),
    *(f"state-size:size={size}" for size in (1, 72, 74)),
    *(
        f"state-lies:figure={figure},by={by}"
        for figure in ("highest_seq_received", "packets_received", "seq_sent", "packets_sent", "epoch")
        for by in (1000, 4294967295)
    ),
    *(
        f"state-lies:figure={figure},by=-1000"
        for figure in ("highest_seq_received", "seq_sent", "packets_sent")
    ),
]


@pytest.mark.parametrize("text", VARIANTS)
def test_the_reaction_is_the_same_for_other_values(text: str) -> None:
    switch, _values = parse(text)
    for role in switch.roles:
        reaction = switch.expected(role)
        check(run(switch, role, told(text, reaction), reaction, 70), reaction)


# -- on packets ------------------------------------------------------------------------------------


PHASES = (
    Phase.DATA,
    Phase.FRAGMENTS,
    Phase.CONFIG,
    Phase.JOURNAL,
    Phase.EXCHANGE,
    Phase.REKEY,
    Phase.REKEYED,
    Phase.INTEGRITY,
    Phase.CHALLENGED,
    Phase.CLOSE,
)


@cache
def sound_packets() -> tuple[tuple[bytes, Keys | None, Role, bool], ...]:
    """Packets of every kind that two sound peers exchange: bytes, keys, who sent it, whether in a session."""
    found: list[tuple[bytes, Keys | None, Role, bool]] = []
    for phase in PHASES:
        for role in Role:
            encounter = Encounter(role, None)
            traces: list[PacketTrace] = []
            encounter.core.observer = traces.append
            encounter.meet()
            assert encounter.peer.session is not None
            epochs = [Keys(encounter.peer.session.keys.shared)]
            early = len(traces)
            encounter.act(phase, 2)
            encounter.wait(6)
            epochs.append(Keys(encounter.peer.session.keys.shared, epoch=1))
            for number, trace in enumerate(traces):
                if trace.direction == "sent":
                    header = wire.parse(trace.packet)
                    keys = next((each for each in epochs if each.authentic(trace.packet)), epochs[0])
                    found.append((trace.packet, keys, role, number >= early and header.hmac != bytes(32)))
    return tuple(found)


def test_sound_packets_are_of_many_kinds() -> None:
    kinds: set[Kind] = set()
    for packet, keys, _role, established in sound_packets():
        draft = opened(packet, keys, established)
        assert draft is not None
        assert draft.build() == packet  # nothing changes by itself
        kinds |= draft.kinds
    assert kinds >= {
        Kind.INIT, Kind.CHALLENGE, Kind.RESPONSE, Kind.HANDSHAKE_ACK, Kind.DATA, Kind.FRAGMENT,
        Kind.LAST_FRAGMENT, Kind.ACK, Kind.HEARTBEAT, Kind.CLOSE, Kind.CONFIG_PROPOSAL, Kind.CONFIG_CONFIRM,
        Kind.PROBE, Kind.PROBE_ANSWER, Kind.EXCHANGE, Kind.JOURNAL_ENTRIES, Kind.REKEY_PROPOSE,
        Kind.REKEY_ACCEPT, Kind.INTEGRITY_CHALLENGE, Kind.INTEGRITY_ANSWER, Kind.INTEGRITY_STATE,
    }  # fmt: skip


@pytest.mark.parametrize("name", SWITCHES)
def test_tampering_is_about_one_kind_and_never_raises(name: str) -> None:
    switch = SWITCHES[name]
    changed = 0
    for packet, keys, role, established in sound_packets():
        for heard in (b"", packet):
            out = tamper(switch, packet, keys, role=role, established=established, heard=heard)
            assert all(isinstance(each, bytes) for each in out)
            changed += out != [packet]
    told_of_packets = (switch.change or switch.emit) and not switch.delay_ms and not switch.pace_ms
    unseen = {Kind.ROLLBACK, Kind.VOID, Kind.CONFIG_ANSWER} & set(switch.kinds)
    if told_of_packets and switch.attempts == 1 and not unseen and not ONLY_LATER & {name}:
        assert changed > 0


ONLY_LATER = {
    "other-derivation",
    "late-replay",
    "msg-id-reused",
    "ack-goes-back",
    "rekey-unfinished",
    "rekey-mirrored",
    "state-backwards",
} | {
    switch.name
    for switch in SWITCHES.values()
    if any(each.name == "nth" and each.default != 1 for each in switch.parameters)
}
"""Switches that a single packet does not show."""


def test_what_is_not_opened_is_left_alone() -> None:
    packet, keys, role, _established = next(
        each for each in sound_packets() if wire.parse(each[0]).type == Type.DATA
    )
    assert keys is not None
    switch = SWITCHES["bad-tag"]
    assert tamper(switch, packet, None, role=role) == [packet]
    assert tamper(switch, packet, Keys(bytes(31) + b"x"), role=role) == [packet]
    assert tamper(switch, packet[:-1], keys, role=role) == [packet[:-1]]
    assert tamper(switch, packet, keys, role=role) != [packet]
    with pytest.raises(ValueError, match=r"within 0\.\.15"):
        tamper(switch, packet, keys, role=role, byte="16")
    with pytest.raises(ValueError, match="has no parameter 'colour'"):
        tamper(switch, packet, keys, role=role, colour="red")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sing", "there is no misbehaviour 'sing'"),
        ("bad-hmac:byte", "byte is a number, not ''"),
        ("bad-hmac:byte=x", "byte is a number, not 'x'"),
        ("bad-hmac:byte=32", "byte is within 0..31, not 32"),
        ("bad-hmac:kind=NOISE", "kind is one of ANY, INIT"),
        ("low-order-key:point=origin", "point is one of zero, one"),
        ("mute:loud=1", "mute has no parameter 'loud', only kind, nth, every"),
        ("zero-session-id:x=1", "zero-session-id has no parameter 'x', only none"),
    ],
)
def test_what_is_no_misbehaviour(text: str, message: str) -> None:
    with pytest.raises(ValueError) as error:
        misbehaviour(text)
    assert message in str(error.value)


def test_a_misbehaviour_says_what_it_is() -> None:
    wrong = misbehaviour("bad-hmac:nth=0x3,kind=ACK", "zero-session-id")
    assert str(wrong) == "bad-hmac:kind=ACK,nth=3,every=0,byte=0 zero-session-id"
    assert wrong.done == {"bad-hmac": 0, "zero-session-id": 0}


def test_several_at_once() -> None:
    wrong = misbehaviour("reserved0:nth=2", "replay:nth=1", "ack-unsent:nth=4")
    encounter = Encounter(Role.CLIENT, wrong)
    encounter.meet()
    encounter.act(Phase.DATA, 4)
    encounter.wait(1)
    counts = {DropReason.MALFORMED: 1, DropReason.REPLAY: 1, DropReason.BAD_ACK: 1}
    assert encounter.discards() == counts
    assert wrong.done == {"reserved0": 1, "replay": 1, "ack-unsent": 1}


def test_nth_and_every_choose_the_packets() -> None:
    for text, expected in (("reserved0:nth=3", 1), ("reserved0:nth=3,every=1", 2), ("reserved0:every=1", 4)):
        encounter = Encounter(Role.CLIENT, misbehaviour(text))
        encounter.meet()
        encounter.act(Phase.DATA, 4)
        assert encounter.discards() == {DropReason.MALFORMED: expected}
        assert len(encounter.received) == 4 - expected


def test_without_misbehaviour_there_is_no_conduct() -> None:
    encounter = Encounter(Role.CLIENT, None)
    encounter.meet()
    for connection in (encounter.pair.client, encounter.pair.server):
        assert connection.handshake.conduct is None
        assert connection.session is not None
        assert connection.session.conduct is None
    other = Encounter(Role.CLIENT, misbehaviour("refuses"))  # a server's
    other.meet()
    assert other.pair.client.handshake.conduct is None


def test_a_slow_stream_is_slow_but_whole() -> None:
    encounter = Encounter(Role.CLIENT, misbehaviour("slow-bytes:ms=1"))
    encounter.meet()
    encounter.wait(1)
    assert encounter.pair.client.session is not None
    assert encounter.pair.server.session is not None
    encounter.say(b"slowly")
    encounter.wait(0.05)
    assert encounter.received == []
    encounter.wait(0.2)
    assert encounter.received == [b"slowly"]
    encounter.pair.client.session.close(encounter.world.now)
    encounter.settle()
    assert not encounter.pair.client.closing  # the CLOSE has yet to go out
    encounter.wait(0.2)
    assert encounter.pair.client.closing
    assert encounter.end() == SessionEnded("closed", None)


# -- closure ---------------------------------------------------------------------------------------

SPEC = Path(__file__).resolve().parents[2] / "spec" / "requirements.toml"
VIOLATED = {requirement for switch in SWITCHES.values() for requirement in switch.violates}


def requirements() -> dict[str, int | None]:
    """Every requirement, with its section of protocol.md."""
    found: dict[str, int | None] = {}
    for entry in tomllib.loads(SPEC.read_text(encoding="utf-8"))["requirement"]:
        match = re.match(r"protocol\.md#(\d+)-", entry["section"])
        found[entry["id"]] = int(match[1]) if match else None
    return found


def test_every_requirement_has_a_switch_or_a_reason() -> None:
    wanted = {name for name, section in requirements().items() if section is not None and section <= 18}
    assert len(wanted) > 90
    assert wanted - VIOLATED - NOT_VIOLABLE.keys() == set()
    assert NOT_VIOLABLE.keys() - wanted == set()
    assert NOT_VIOLABLE.keys() & VIOLATED == set()
    assert VIOLATED - requirements().keys() == set()


def test_reasons_are_reasons() -> None:
    assert len(set(NOT_VIOLABLE.values())) == len(NOT_VIOLABLE)
    assert all(len(reason) > 20 for reason in NOT_VIOLABLE.values())


def test_switches_are_told_apart() -> None:
    assert len({switch.sentence for switch in SWITCHES.values()}) == len(SWITCHES)
    for name, switch in SWITCHES.items():
        assert name == switch.name
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name)
        assert switch.violates
        assert switch.sentence.endswith(".")
        for parameter in switch.parameters:
            assert parameter.read(str(parameter.default)) == parameter.default

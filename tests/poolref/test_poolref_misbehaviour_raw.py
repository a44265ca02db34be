# SPDX-License-Identifier: GPL-2.0-or-later
"""What a sound peer does about misbehaviour over raw IP: it discards, and what would be right comes again."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
from poolref_raw_sim import CLIENT, LATENCY, SERVER, Fate, Net, RawNode, received, sound
from poolref_sim import EASY

from poolref.constants import SECOND, Role
from poolref.counters import DropReason
from poolref.events import HandshakeFailed, SessionEnded
from poolref.misbehaviour import SWITCHES, Misbehaviour, Phase, Reaction, Switch, misbehaviour, parse
from poolref.raw_session import RawSession

PUZZLE = replace(EASY, difficulty=4, integrity_s=0)
PAUSE = 3.0
"""Seconds between messages, so that what is resent has arrived before the next one."""
EVERYWHERE = [
    (switch.name, role) for switch in SWITCHES.values() for role in switch.roles if switch.raw is not None
]


class Encounter:
    """A peer in ``role``, sound without ``wrong``, and its victim."""

    def __init__(self, role: Role, wrong: Misbehaviour | None, fate: Fate = sound) -> None:
        self.role, self.wrong = role, wrong
        self.net = Net(1, fate)
        settings = dict.fromkeys(Role, PUZZLE)
        settings[role] = replace(PUZZLE, misbehaviour=wrong)
        self.client = self.net.node(CLIENT, settings[Role.CLIENT])
        self.server = self.net.node(SERVER, settings[Role.SERVER], listening=True)
        self.peer, self.victim = self.client, self.server
        if role is Role.SERVER:
            self.peer, self.victim = self.server, self.client
        self.sent: list[bytes] = []
        self.concerned: set[bytes] = set()
        self.received: list[bytes] = []
        self.net.connect(self.client, SERVER)
        self.wait(10 * LATENCY / SECOND)

    @property
    def done(self) -> int:
        return 0 if self.wrong is None else next(iter(self.wrong.done.values()))

    def wait(self, seconds: float) -> None:
        self.net.run(round(seconds * SECOND))
        for session in self.victim.sessions:
            self.received += received(session)

    def discards(self) -> dict[DropReason, int]:
        counters = self.victim.core.counters
        return {reason: counters[reason] for reason in DropReason if counters[reason]}

    def error(self) -> int | None:
        for event in self.victim.events:
            if isinstance(event, HandshakeFailed):
                return event.error.errno
        return None

    def ends(self) -> list[SessionEnded]:
        return [event for event in self.victim.events if isinstance(event, SessionEnded)]

    def flush(self, node: RawNode) -> None:
        for connection in node.connections:
            self.net.flush(node, connection)

    def say(self, node: RawNode, message: bytes) -> None:
        session = node.session
        before = self.done
        session.send(message, self.net.now)
        self.flush(node)
        if node is self.peer:
            self.sent.append(message)
            if self.done > before:
                self.concerned.add(message)

    def act(self, phase: Phase, messages: int) -> None:
        peer, victim = self.peer, self.victim
        match phase:
            case Phase.DATA:
                self.say(victim, b"from the victim")
                self.wait(0.2)
            case Phase.REKEY | Phase.REKEYED:
                self.wait(9)
                self.say(peer, b"before the rekey")
                self.wait(PAUSE)
                proposer = peer if phase is Phase.REKEY else victim
                proposer.session.rekeying.start(self.net.now)
                self.flush(proposer)
                self.wait(PAUSE)
            case Phase.CHALLENGED:
                victim.session.vigil.challenge_now(self.net.now)
                self.flush(victim)
                return
            case _:
                return
        if victim.session.end is not None:
            return
        for number in range(messages):
            self.say(self.peer, b"message %d, of thirty bytes ..." % number)
            self.wait(PAUSE)


def run(
    switch: Switch, role: Role, wrong: Misbehaviour | None, reaction: Reaction, messages: int = 3
) -> Encounter:
    encounter = Encounter(role, wrong, narrow if switch.phase is Phase.MTU else sound)
    encounter.act(switch.phase, messages)
    encounter.wait(max(reaction.after_s, 12.0))
    return encounter


def narrow(flight) -> list[tuple[int, bytes]]:  # type: ignore[no-untyped-def]
    """A path that takes 1000 bytes."""
    return sound(flight) if len(flight.datagram.packet) <= 1000 else []


def alive(encounter: Encounter) -> None:
    peer, victim = encounter.peer.session, encounter.victim.session
    assert (peer.end, victim.end) == (None, None)
    encounter.say(encounter.peer, b"to the victim")
    encounter.say(encounter.victim, b"to the peer")
    encounter.wait(PAUSE)
    assert encounter.received[-1] == b"to the victim"
    assert received(peer)[-1] == b"to the peer"


@cache
def control(phase: Phase, role: Role) -> None:
    """The same, with a peer that misbehaves in nothing."""
    switch = next(switch for switch in SWITCHES.values() if switch.raw is not None and switch.phase is phase)
    encounter = run(switch, role, None, Reaction())
    assert encounter.discards() == {}
    assert encounter.error() is None
    assert encounter.received == encounter.sent
    alive(encounter)


def check(encounter: Encounter, reaction: Reaction) -> None:
    assert encounter.done > 0, "the peer did nothing wrong"
    discards = encounter.discards()
    if reaction.ends is not None:
        discards.pop(DropReason.UNKNOWN_SESSION, None)  # of what the peer goes on to send
    if encounter.net.fate is narrow:
        discards.pop(DropReason.DUPLICATE, None)  # of what is resent because of the gap
    assert discards == reaction.counts
    assert encounter.error() == reaction.error
    if reaction.error is not None:
        assert encounter.victim.sessions == []
        return
    assert encounter.ends() == ([] if reaction.ends is None else [SessionEnded(reaction.ends, reaction.code)])
    for message in encounter.sent:
        if message in encounter.concerned:
            assert (message in encounter.received) is reaction.delivers
        elif reaction.ends is None:
            assert message in encounter.received
    if reaction.ends is None:
        assert encounter.victim.session.untrusted is reaction.untrusted
        alive(encounter)


def ids(value: object) -> str:
    return value.name.lower() if isinstance(value, Role) else str(value)


@pytest.mark.parametrize(("name", "role"), EVERYWHERE, ids=ids)
def test_a_sound_peer_reacts(name: str, role: Role) -> None:
    switch = SWITCHES[name]
    control(switch.phase, role)
    reaction = switch.expected(role, "raw")
    check(run(switch, role, misbehaviour(name), reaction), reaction)


@pytest.mark.parametrize(
    "text",
    [
        "bad-hmac:byte=31",
        "bad-tag:byte=0",
        "datagram-too-long:by=1000",
        "payload-len-short:by=20",
        "payload-len-long:by=80",
        "cut-short:by=46",
        "seq-ahead:by=65",
        "seq-ahead:by=4294967296",
        "replay:times=9",
        "late-replay:after=1",
        "stale-seq:behind=1",
        "stale-init:seconds=31",
    ],
)
def test_the_reaction_is_the_same_for_other_values(text: str) -> None:
    switch, values = parse(text)
    for role in switch.roles:
        reaction = switch.expected(role, "raw")
        if "times" in values:
            reaction = replace(reaction, counts={DropReason.DUPLICATE: 9})
        check(run(switch, role, misbehaviour(text), reaction), reaction)


def test_a_seq_63_ahead_waits_for_the_ones_before() -> None:
    """The edge that is no fault: it is committed, and what was resent comes before it."""
    wrong = misbehaviour("seq-gap:kind=DATA,every=0,by=63")
    encounter = Encounter(Role.CLIENT, wrong)
    encounter.say(encounter.peer, b"early")
    encounter.wait(PAUSE)
    assert wrong.done["seq-gap"] == 1
    assert encounter.discards() == {}
    assert encounter.received == [b"early"]  # in its place: the one that was resent as it should have been


def test_a_withheld_void_holds_up_what_follows() -> None:
    """Why TRN-07 has voids: nothing after the lost probe is delivered."""
    sizes = []
    for wrong in (None, misbehaviour("void-withheld")):
        encounter = Encounter(Role.CLIENT, wrong, narrow)
        encounter.wait(2.5)
        encounter.say(encounter.peer, b"behind the probe")
        encounter.wait(PAUSE)
        sizes.append(len(encounter.received))
    assert sizes == [1, 0]


def test_sessions_over_raw_can_be_told_from_others() -> None:
    encounter = Encounter(Role.CLIENT, None)
    assert isinstance(encounter.victim.session, RawSession)

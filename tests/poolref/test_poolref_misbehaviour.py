# SPDX-License-Identifier: GPL-2.0-or-later
"""What a sound peer does about each misbehaviour, exactly; and that none is missing."""

from __future__ import annotations

import re
import tomllib
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from poolref_sim import Pair, World

from poolref import wire
from poolref.connection import TcpConnection
from poolref.constants import SECOND, Role, State, Type
from poolref.counters import DropReason
from poolref.dialect import Dialect
from poolref.events import HandshakeFailed, PacketTrace, SessionEnded
from poolref.misbehaviour import (
    LOW_ORDER_POINTS,
    NOT_VIOLABLE,
    SWITCHES,
    Misbehaviour,
    Phase,
    Reaction,
    Switch,
    misbehaviour,
    parse,
)
from poolref.settings import Settings

NAMES = {Role.CLIENT: "client", Role.SERVER: "server"}
PUZZLE = Settings(difficulty=4, dialect=Dialect(min_difficulty=0))
"""A puzzle that is solved at once, and yet has wrong solutions."""
BIG = 3000
"""Bytes of a message of three packets."""
PATIENCE = {Phase.HEARTBEAT: 6.0, Phase.DATA: 6.0}
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
        self.victim_core = self.world.server_core if role is Role.CLIENT else self.world.client_core
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

    def discards(self) -> dict[DropReason, int]:
        """By how much the victim's counters of discards have grown."""
        counters = self.victim_core.counters
        return {reason: counters[reason] for reason in DropReason if counters[reason]}

    def error(self) -> int | None:
        """The errno of the victim's failed attempt."""
        for event in self.pair.events[NAMES[Role(1 - self.role)]]:
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
            case _:
                raise AssertionError(f"no occasion for {phase}")

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
        return
    end = None if reaction.ends is None else SessionEnded(reaction.ends, reaction.code)
    assert encounter.end() == end
    for message in encounter.concerned:
        assert encounter.arrived(message) is reaction.delivers
    if end is None:
        assert all(map(encounter.arrived, set(encounter.sent) - encounter.concerned))
        alive(encounter)


def told(text: str, reaction: Reaction) -> Misbehaviour:
    """What is tested comes first.  A server without a client is not to go on as if it had a session."""
    return misbehaviour(text) if reaction.error is None else misbehaviour(text, "mute")


EVERYWHERE = [(switch.name, role) for switch in SWITCHES.values() for role in switch.roles]


def ids(value: object) -> str:
    return NAMES[value] if isinstance(value, Role) else str(value)


@pytest.mark.parametrize(("name", "role"), EVERYWHERE, ids=ids)
def test_a_sound_peer_reacts(name: str, role: Role) -> None:
    switch = SWITCHES[name]
    control(name, role)
    reaction = switch.expected(role)
    check(run(switch, role, told(name, reaction), reaction), reaction)


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
]


@pytest.mark.parametrize("text", VARIANTS)
def test_the_reaction_is_the_same_for_other_values(text: str) -> None:
    switch, _values = parse(text)
    for role in switch.roles:
        reaction = switch.expected(role)
        check(run(switch, role, told(text, reaction), reaction, 70), reaction)


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


TO_COME = ("TRN", "WIRE-04", "MTU", "RK", "CFG", "INT", "JRN", "DISC")
"""Parts without switches yet."""


def test_every_requirement_has_a_switch_or_a_reason() -> None:
    wanted = {name for name, section in requirements().items() if section is not None and section <= 18}
    assert len(wanted) > 90
    missing = wanted - VIOLATED - NOT_VIOLABLE.keys()
    assert {name for name in missing if not name.startswith(TO_COME)} == set()
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

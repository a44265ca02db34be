# SPDX-License-Identifier: GPL-2.0-or-later
"""Two peers over TCP, one of which misbehaves, without sockets and in virtual time."""

from __future__ import annotations

from dataclasses import replace

from poolref_sim import Pair, World

from poolref import wire
from poolref.config import Parameters
from poolref.connection import TcpConnection
from poolref.constants import SECOND, Role, State
from poolref.core import Peer
from poolref.counters import DropReason
from poolref.dialect import Dialect
from poolref.discovery import Announcer
from poolref.events import (
    ConfigAccepted,
    HandshakeFailed,
    PacketTrace,
    SessionEnded,
)
from poolref.journal import ChangeType
from poolref.misbehaviour import (
    Misbehaviour,
    Phase,
    Reaction,
    Switch,
)
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

# SPDX-License-Identifier: GPL-2.0-or-later
"""Anything two nodes and the network between them may do, in any order, over TCP and over raw IP.

POOLREF_MACHINE=EXAMPLES runs that many random walks of each kind from a seed that is printed;
POOLREF_MACHINE=EXAMPLES:SEED repeats them.  Otherwise few, and the same every time.
"""

from __future__ import annotations

import contextlib
import errno
import os
import random
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, Phase, note, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from poolref_conversation import ADDRESSES, SIDES, Conversation, RawConversation, Side, TcpConversation, other
from poolref_raw_sim import LATENCY, Flight, Weather, sound
from poolref_sim import EASY
from poolref_watch import Accounts, Ledger, Watch, keys_in_use

from poolref import constants as c
from poolref import inbox
from poolref.config import Parameters
from poolref.constants import MILLISECOND, SECOND, Type
from poolref.errors import LocalError
from poolref.events import ConfigAccepted, ConfigConfirmed, ConfigRejected, ConfigRolledBack, Event
from poolref.inbox import Message

CONFIG_EVENTS = (ConfigAccepted, ConfigRejected, ConfigConfirmed, ConfigRolledBack)

sides = st.sampled_from(SIDES)
channels = st.integers(0, 3)
sizes = st.one_of(st.integers(1, 60), st.integers(1290, 1410), st.integers(2000, 9000))
probabilities = st.sampled_from([0.0, 0.05, 0.3])
durations = st.one_of(
    st.integers(1, 200).map(lambda ms: ms * MILLISECOND),
    st.integers(1, 20).map(lambda s: s * SECOND),
    st.sampled_from([91, 301, 700]).map(lambda s: s * SECOND),
)
parameters = st.builds(
    Parameters,
    difficulty=st.integers(16, 20),
    heartbeat_s=st.integers(1, 30),
    rekey_packets=st.just(1 << 28),
    rekey_s=st.sampled_from([10, 60, 3600]),
    mtu_min=st.sampled_from([512, 600]),
    mtu_max=st.sampled_from([600, 1000, 1400]),
)
deadlines = st.sampled_from([50 * MILLISECOND, 2 * SECOND, 60 * SECOND])


@contextlib.contextmanager
def local(number: int) -> Iterator[None]:
    """The request is taken or refused with this errno, no other."""
    try:
        yield
    except LocalError as error:
        if error.errno != number:
            raise


def sender_of(flight: Flight) -> Side:
    return "client" if flight.source == ADDRESSES["client"] else "server"


class Talk(RuleBasedStateMachine):
    """One conversation after another between the same two nodes."""

    make: Callable[..., Conversation]

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.watch = Watch()
        self.number = 0

    def teardown(self) -> None:
        try:
            if hasattr(self, "net") and self.net.established:
                self.settle()
        finally:
            self.patch.undo()
            self.watch.close()

    @initialize(
        number=st.integers(0, 1 << 16),
        queue=st.sampled_from([80, 4096]),
        rekey_s=st.sampled_from([10, 60, 3600]),
        integrity_s=st.sampled_from([0, 1, 45]),
    )
    def start(self, number: int, queue: int, rekey_s: int, integrity_s: int) -> None:
        self.patch.setattr(inbox, "RECEIVE_QUEUE", queue)
        self.patch.setattr(c, "RECEIVE_QUEUE", queue)
        client = replace(EASY, rekey_s=rekey_s, integrity_s=integrity_s)
        self.net = type(self).make(number, client=client, server=EASY)
        self.net.passing, self.net.touched = self.passing, self.touched
        self.accounts = [Accounts(end, every_packet=self.net.reliable) for end in self.net.ends.values()]
        self.rng = random.Random(number)
        self.seen: list[tuple[Side, bytes]] = []
        self.harmed = False
        self.begin()

    def begin(self) -> None:
        """A session without anything in its way."""
        self.net.weather = None
        self.net.meddle = lambda flight: None
        self.ledgers = {side: Ledger() for side in SIDES}
        self.harmed = False
        """Somebody did to a stream what only a man in the middle can."""
        self.silenced = False
        """A side could not send for a while: it may owe an answer (INT-01)."""
        self.framed = True
        """Nobody changed a header in a stream, after which its packets may not be found any more."""
        self.net.connect()
        self.net.run(SECOND)
        assert self.net.established
        for side in SIDES:
            for channel in (1, 2):
                self.net.session(side).subscriptions.subscribe(channel)

    @property
    def proposed(self) -> bool:
        """Whether somebody was told that a proposal was accepted, and of nothing since."""
        return any(isinstance(self.told(side), ConfigAccepted) for side in SIDES)

    def told(self, side: Side) -> Event | None:
        """The latest that a side heard of its proposals."""
        events = [event for event in self.net.ends[side].events if isinstance(event, CONFIG_EVENTS)]
        return events[-1] if events else None

    def passing(self, flight: Flight) -> None:
        self.seen = [*self.seen[-30:], (sender_of(flight), flight.datagram.packet)]

    def touched(self, flight: Flight, copies: list[tuple[int, bytes]]) -> None:
        """The network does not simply deliver: over TCP messages may then be missing."""
        if not self.net.reliable:
            side = sender_of(flight)
            self.harmed = True
            self.ledgers[side].ordered = False
            self.ledgers[side].doubt()

    # -- what the users do -----------------------------------------------------------------------------

    @precondition(lambda self: self.net.established)
    @rule(side=sides, channel=channels, sizes=st.lists(sizes, min_size=1, max_size=6))
    def send(self, side: Side, channel: int, sizes: list[int]) -> None:
        for size in sizes:
            if self.net.established:
                self.send_one(side, channel, size)
        self.net.flush()

    def send_one(self, side: Side, channel: int, size: int) -> None:
        self.number += 1
        data = self.number.to_bytes(8, "big")[-min(size, 8) :] + random.Random(self.number).randbytes(
            max(0, size - 8)
        )
        receiver = self.net.session(other(side))
        sound = self.net.reliable or (self.net.weather is None and self.framed)
        if not self.net.session(side).writable:
            with pytest.raises(LocalError, match="too much"):
                self.net.session(side).send(data, self.net.now, channel)
            return
        self.net.session(side).send(data, self.net.now, channel)
        certain = channel in receiver.subscriptions and sound and size >= 8
        self.ledgers[side].sent(Message(channel, data), certain=certain)

    @rule(side=sides)
    def chat(self, side: Side) -> None:
        """A message goes and is read at once."""
        if self.net.established:
            self.send_one(side, 0, 20)
            self.net.run(3 * LATENCY)
            self.receive(side=other(side), channel=0, most=100)

    @rule(side=sides, channel=st.one_of(st.none(), channels), most=st.sampled_from([1, 100]))
    def receive(self, side: Side, channel: int | None, most: int) -> None:
        while most and (message := self.net.take(side, channel)) is not None:
            self.ledgers[other(side)].received(message)
            most -= 1
        self.net.flush()

    @precondition(lambda self: self.net.established)
    @rule(side=sides, channel=channels, on=st.booleans())
    def subscribe(self, side: Side, channel: int, on: bool) -> None:
        subscriptions = self.net.session(side).subscriptions
        if on:
            subscriptions.subscribe(channel)
        else:
            subscriptions.unsubscribe(channel)
            self.ledgers[other(side)].doubt(channel)

    @precondition(lambda self: self.net.established)
    @rule(side=sides, params=parameters, deadline=deadlines, wait=st.sampled_from([0, 5 * LATENCY]))
    def propose(self, side: Side, params: Parameters, deadline: int, wait: int) -> None:
        if params.out_of_range() is not None:
            return
        with local(errno.EBUSY):
            self.net.session(side).configuring.propose(params, deadline, self.net.now)
        self.net.run(wait)

    @precondition(lambda self: self.net.established and self.proposed)
    @rule(side=sides, undo=st.booleans())
    def decide(self, side: Side, undo: bool) -> None:
        configuring = self.net.session(side).configuring
        with local(errno.ENOENT):
            (configuring.rollback if undo else configuring.confirm)(self.net.now)
        self.net.flush()

    @precondition(lambda self: self.net.established)
    @rule(side=sides)
    def ask_for_the_journal(self, side: Side) -> None:
        self.net.session(side).replication.request(self.net.now)
        self.net.flush()

    @precondition(lambda self: self.net.established)
    @rule(who=st.sampled_from([("client",), ("server",), SIDES]))
    def rekey(self, who: tuple[Side, ...]) -> None:
        for side in who:
            self.net.session(side).rekeying.start(self.net.now)
        self.net.flush()

    @precondition(lambda self: self.net.established)
    @rule(side=sides)
    def challenge(self, side: Side) -> None:
        self.net.session(side).vigil.challenge_now(self.net.now)
        self.net.flush()

    @precondition(lambda self: self.net.established)
    @rule(side=sides)
    def probe(self, side: Side) -> None:
        self.net.session(side).discovery.probe_now(self.net.now)

    @precondition(lambda self: self.net.established)
    @rule(side=sides, code=st.one_of(st.none(), st.integers(1, 10)), really=st.integers(0, 3))
    def close(self, side: Side, code: int | None, really: int) -> None:
        if really:
            return
        self.net.session(side).close(self.net.now, code)
        for ledger in self.ledgers.values():
            ledger.doubt()
        self.net.flush()

    @precondition(lambda self: not self.net.established)
    @rule()
    def connect(self) -> None:
        self.net.run(10 * SECOND)
        self.begin()

    # -- what time and the network do ------------------------------------------------------------------

    @rule(duration=durations)
    def advance(self, duration: int) -> None:
        self.net.run(duration)

    @rule(loss=probabilities, duplication=probabilities, reordering=probabilities, number=st.integers(0, 99))
    def weather(self, loss: float, duplication: float, reordering: float, number: int) -> None:
        chance = random.Random(number)
        self.net.weather = Weather(chance, loss, duplication, reordering)

    @rule(corruption=st.sampled_from([0.02, 0.2]), number=st.integers(0, 99))
    def damage(self, corruption: float, number: int) -> None:
        if self.net.reliable:  # a stream does not survive it
            self.net.weather = Weather(random.Random(number), corruption=corruption)

    @rule()
    def calm(self) -> None:
        self.net.weather = None

    @rule(duration=st.sampled_from([3, 30, 60, 100]))
    def silence(self, duration: int) -> None:
        """Nothing gets through for so many seconds."""
        before = self.net.meddle
        self.net.meddle = lambda flight: []
        self.net.run(duration * SECOND)
        self.net.meddle = before

    @precondition(lambda self: self.net.established)
    @rule(side=sides, on=st.booleans())
    def congestion(self, side: Side, on: bool) -> None:
        """A stream's transport takes no more."""
        if not self.net.reliable:
            self.net.session(side).congested = on
            self.silenced |= on

    @rule(kind=st.sampled_from(list(Type)), twice=st.booleans())
    def hit_the_next(self, kind: Type, twice: bool) -> None:
        """The next packet of a type is lost, or comes twice."""

        def meddle(flight: Flight) -> list[tuple[int, bytes]] | None:
            if flight.datagram.packet[0] & 15 != kind:
                return None
            self.net.meddle = lambda flight: None
            return sound(flight) * 2 if twice else []

        self.net.meddle = meddle

    @precondition(lambda self: self.seen)
    @rule(back=st.booleans(), picks=st.lists(st.integers(1, 30), min_size=1, max_size=8))
    def replay(self, back: bool, picks: list[int]) -> None:
        """Packets seen before come again, at their receiver or at their sender: that changes nothing."""
        self.net.run(2 * LATENCY)  # before it has arrived the first time it would not come again
        for pick in picks:
            sender, packet = self.seen[-min(pick, len(self.seen))]
            self.net.inject(sender if back else other(sender), packet)
        self.net.run(MILLISECOND)

    @precondition(lambda self: self.seen)
    @rule(pick=st.integers(1, 30), bit=st.integers(0, 639))
    def forge(self, pick: int, bit: int) -> None:
        """A packet seen before comes again with a bit of its header changed."""
        sender, packet = self.seen[-min(pick, len(self.seen))]
        changed = int.from_bytes(packet[:80], "big") ^ 1 << bit
        self.net.inject(other(sender), changed.to_bytes(80, "big") + packet[80:])
        if not self.net.reliable:
            self.harmed = True
            self.framed = False
            for ledger in self.ledgers.values():
                ledger.doubt()

    # -- what must hold --------------------------------------------------------------------------------

    @precondition(lambda self: self.net.established)
    @rule()
    def settle(self) -> None:
        """When the network is sound for long enough and the queues are read, nothing is missing and the ends
        agree.
        """
        self.net.weather = None
        self.net.meddle = lambda flight: None
        for side in SIDES:
            self.net.session(side).congested = False
        for _ in range(40):
            self.net.run(SECOND)
            for side in SIDES:
                while (message := self.net.take(side)) is not None:
                    self.ledgers[other(side)].received(message)
            self.net.flush()
        if not self.net.established:
            return
        for side in SIDES:
            self.ledgers[side].check_all_arrived()
        note(f"settled, {self.ledgers['client'].delivered} and {self.ledgers['server'].delivered} delivered")
        if self.net.reliable or not self.harmed:
            self.agree()

    def agree(self) -> None:
        """Both ends say the same of each other, at a moment when nothing is on its way."""
        for _ in range(200):
            client, server = self.net.session("client"), self.net.session("server")
            if (client.window.highest, server.window.highest) == (
                server.next_seq - 1, client.next_seq - 1
            ) and not (client.outstanding or server.outstanding):  # fmt: skip
                break
            self.net.run(LATENCY)
        if not any(self.net.session(side).rekeying.underway for side in SIDES):
            ours, theirs = (self.net.session(side).keys for side in SIDES)
            assert (ours.epoch, ours.hmac_key) == (theirs.epoch, theirs.hmac_key)
        for side in SIDES:
            session, peer = self.net.session(side), self.net.session(other(side))
            assert session.window.highest == peer.next_seq - 1
            assert not session.outstanding
            assert not session.untrusted or self.silenced
            if not session.reliable:
                assert session.window.lost == 0
            self.agree_on_configuration(side)
            self.agree_on_journal(side)

    def agree_on_configuration(self, side: Side) -> None:
        """What a side was told of its proposal is what became of it."""
        told = self.told(side)
        configuration = self.net.ends[other(side)].core.configuration
        if isinstance(told, ConfigConfirmed):
            assert configuration.current.version == told.version
            assert configuration.tentative is None
        if isinstance(told, ConfigRolledBack):
            assert configuration.current.version != told.version

    def agree_on_journal(self, side: Side) -> None:
        """The copy of the peer's journal is part of it."""
        ring = self.net.session(side).replication.replica.ring
        if ring is not None:
            journal = self.net.ends[other(side)].core.journal
            for index in range(max(ring.first_index, journal.first_index), ring.next_index):
                assert ring.entry(index) == journal.entry(index)
            assert ring.next_index == journal.next_index

    @invariant()
    def states_are_legal(self) -> None:
        self.watch.check_states()

    @invariant()
    def keys_are_in_use_or_erased(self) -> None:
        if not hasattr(self, "net"):
            return
        self.watch.check_keys(keys_in_use(self.net.ends.values()))

    @invariant()
    def packets_are_accounted_for(self) -> None:
        if hasattr(self, "net"):
            for accounts in self.accounts:
                accounts.check()

    @invariant()
    def journals_hold(self) -> None:
        if hasattr(self, "net"):
            for end in self.net.ends.values():
                assert end.core.journal.verify() is None


class TcpTalk(Talk):
    make = TcpConversation


class RawTalk(Talk):
    make = RawConversation


def run(machine: type[Talk]) -> None:
    """Few walks, the same every time; or as many as POOLREF_MACHINE says."""
    examples, _, number = os.environ.get("POOLREF_MACHINE", "").partition(":")
    if not examples:
        profile = settings(
            max_examples=12, stateful_step_count=30, derandomize=True, deadline=None, database=None,
            suppress_health_check=list(HealthCheck), phases=[Phase.generate],
        )  # fmt: skip
        run_state_machine_as_test(machine, settings=profile)
        return
    chosen = int(number) if number else random.SystemRandom().randrange(1 << 32)
    print(f"POOLREF_MACHINE={examples}:{chosen}")
    profile = settings(
        max_examples=int(examples), stateful_step_count=60, deadline=None, database=None, print_blob=True,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    run_state_machine_as_test(seed(chosen)(machine), settings=profile)


@pytest.mark.parametrize("machine", [TcpTalk, RawTalk], ids=["tcp", "raw"])
def test_any_order_of_events(machine: type[Talk]) -> None:
    run(machine)

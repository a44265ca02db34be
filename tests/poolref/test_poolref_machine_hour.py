# SPDX-License-Identifier: GPL-2.0-or-later
"""Hours of the protocol, each in about a second: what only time brings about happens, and is seen to."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace

import pytest
from poolref_conversation import SIDES, Conversation, RawConversation, Side, TcpConversation, other
from poolref_raw_sim import Flight, Weather
from poolref_sim import EASY
from poolref_watch import Accounts, Ledger, Watch, keys_in_use

from poolref.config import Parameters
from poolref.constants import SECOND, Flag, Type
from poolref.counters import DropReason
from poolref.events import (
    ConfigAccepted,
    ConfigConfirmed,
    ConfigRolledBack,
    JournalReceived,
    RekeyCompleted,
    SessionEnded,
)
from poolref.inbox import Message

MINUTE = 60 * SECOND
KINDS = pytest.mark.parametrize("kind", [TcpConversation, RawConversation], ids=["tcp", "raw"])


class Hour:
    """A conversation with the books kept, and traffic every minute."""

    def __init__(self, kind: type[Conversation], seed: int) -> None:
        print(f"seed {seed}")
        self.net = kind(seed, client=replace(EASY, rekey_s=600), server=EASY)
        self.chance = random.Random(seed)
        self.accounts = [Accounts(end, every_packet=self.net.reliable) for end in self.net.ends.values()]
        self.ledgers: dict[Side, Ledger] = {side: Ledger() for side in SIDES}  # type: ignore[misc]
        if self.net.reliable:
            self.net.weather = Weather(
                self.chance, loss=0.02, duplication=0.01, reordering=0.05, corruption=0.005
            )
        self.net.connect()
        self.net.run(5 * SECOND)
        assert self.net.established
        for side in SIDES:
            self.net.session(side).subscriptions.subscribe(7)

    def minutes(self, count: int) -> None:
        for _ in range(count):
            for side in SIDES:
                data = self.chance.randbytes(self.chance.choice([1, 100, 1300, 6000]) + 8)
                channel = self.chance.choice([0, 7])
                self.net.session(side).send(data, self.net.now, channel)
                self.ledgers[side].sent(Message(channel, data), certain=True)
            self.net.run(MINUTE)
            self.read()

    def read(self) -> None:
        for side in SIDES:
            while (message := self.net.take(side)) is not None:
                self.ledgers[other(side)].received(message)
        for accounts in self.accounts:
            accounts.check()

    def told(self, side: Side, kind: type) -> int:
        return sum(isinstance(event, kind) for event in self.net.ends[side].events)


@pytest.fixture(autouse=True)
def watch() -> Iterator[Watch]:
    seen = Watch()
    yield seen
    seen.check_states()
    seen.close()


PARAMS = Parameters(17, 3, 1 << 20, 600, 512, 1200)


@KINDS
def test_an_hour_of_a_session(kind: type[Conversation], watch: Watch) -> None:
    hour = Hour(kind, 1)
    net = hour.net
    client = net.session("client")
    client.replication.request(net.now)
    hour.minutes(10)

    client.configuring.propose(PARAMS, 20 * SECOND, net.now)
    net.run(5 * SECOND)
    client.configuring.confirm(net.now)
    hour.minutes(5)
    assert net.server.core.configuration.current.params == PARAMS
    assert (hour.told("client", ConfigAccepted), hour.told("client", ConfigConfirmed)) == (1, 1)

    client.configuring.propose(Parameters(20, 30, 1 << 20, 600, 600, 600), 30 * SECOND, net.now)
    net.run(20 * SECOND)
    assert net.server.core.configuration.current.version == 2
    assert net.session("server").mtu == 600
    net.run(20 * SECOND)  # the deadline passes
    assert net.server.core.configuration.current.version == 1
    assert net.server.core.configuration.current.params == PARAMS
    assert hour.told("client", ConfigRolledBack) == 1

    hour.minutes(38)
    net.weather = None  # so that no probe gets lost
    hour.minutes(3)
    for side in SIDES:
        hour.ledgers[side].check_all_arrived()
        session = net.session(side)
        assert session.heartbeats.round_trip.srtt > 0
        assert session.heartbeats.peer_report is not None
        assert session.heartbeats.peer_report.uptime_ns > 55 * MINUTE
        assert not session.untrusted
        assert net.ends[side].core.journal.verify() is None
    assert net.session("client").mtu == 1400
    assert net.session("server").mtu == 1200  # what the confirmed configuration allows
    assert hour.told("client", JournalReceived) >= 3
    replica = client.replication.replica.ring
    assert replica is not None
    assert replica.entries() == net.server.core.journal.entries()
    epochs = {net.session(side).keys.epoch for side in SIDES}
    assert len(epochs) == 1
    assert min(epochs) >= 5  # one every 600 s
    for side in SIDES:
        assert hour.told(side, RekeyCompleted) == min(epochs)
        assert net.session(side).vigil.answered >= 70  # one every 45 s
        assert net.ends[side].core.counters["packets_sent"] > 3600 // 5  # heartbeats and their ACKs
    watch.check_keys(keys_in_use(net.ends.values()))
    net.session("server").close(net.now)
    net.run(6 * SECOND)
    assert [net.ends[side].session.end.cause for side in SIDES] == ["closed", "local"]  # type: ignore[union-attr]
    watch.check_keys(0)


def held(net: Conversation, kind: Type, delay: int) -> None:
    """The next packet of a type takes that long."""

    def meddle(flight: Flight) -> list[tuple[int, bytes]] | None:
        if flight.datagram.packet[0] & 15 != kind:
            return None
        return [(delay, flight.datagram.packet)]

    net.meddle = meddle


@KINDS
def test_secrets_rotate_and_challenges_expire(kind: type[Conversation], watch: Watch) -> None:
    """A client comes every 20 s for an hour; each fifth RESPONSE takes 25 s, each seventh 31 s."""
    net = kind(2)
    counters = net.server.core.counters
    secrets = {bytes(net.responder._secret)}
    established = 0
    late = crossed = 0
    for number in range(130):
        delay = {5: 25, 7: 32}.get(number % 8, 0)
        before = bytes(net.responder._secret)
        net.meddle = lambda flight: None
        if delay:
            held(net, Type.RESPONSE, delay * SECOND)
        net.connect()
        net.run(27 * SECOND)
        secrets.add(bytes(net.responder._secret))
        if delay == 32:
            net.run(6 * SECOND)
            assert not net.established
            late += 1
            expired = DropReason.STALE_RESPONSE if net.reliable else "handshake_timeouts"
            assert counters[expired] >= late  # the server has closed the stream by then
        else:
            assert net.established
            established += 1
            crossed += delay == 25 and bytes(net.responder._secret) != before
            net.session("client").close(net.now)
            net.run(SECOND // 2)
    assert net.now > 3600 * SECOND
    assert len(secrets) >= 12  # one for each 300 s
    assert crossed >= 1  # a RESPONSE made for the secret before was accepted
    assert counters["handshakes_completed"] == established
    watch.check_keys(0)


def test_a_message_that_is_never_completed_is_forgotten(watch: Watch) -> None:
    hour = Hour(TcpConversation, 3)
    net = hour.net

    def meddle(flight: Flight) -> list[tuple[int, bytes]] | None:
        fragment = int.from_bytes(flight.datagram.packet[2:4], "big") & Flag.LAST_FRAG
        return [] if fragment else None

    net.meddle = meddle
    net.session("client").send(bytes(5000), net.now)
    net.run(4 * SECOND)
    assert net.server.core.counters[DropReason.FRAG_TIMEOUT] == 0
    net.run(4 * SECOND)
    assert net.server.core.counters[DropReason.FRAG_TIMEOUT] == 1
    net.meddle = lambda flight: None
    hour.minutes(2)
    hour.ledgers["client"].check_all_arrived()
    (entry,) = [entry for entry in net.server.core.journal.entries() if "0x04" in entry.text]
    assert "frag_timeout" in entry.text


@KINDS
def test_a_peer_that_falls_silent_is_given_up(kind: type[Conversation], watch: Watch) -> None:
    hour = Hour(kind, 4)
    net = hour.net
    hour.minutes(1)
    net.meddle = lambda flight: []
    net.run(25 * SECOND if net.reliable else 84 * SECOND)
    assert net.established
    net.run(15 * SECOND)
    causes = {net.ends[side].session.end.cause for side in SIDES}  # type: ignore[union-attr]
    assert causes - {"end_of_stream"} == {"timeout" if net.reliable else "dead_peer"}
    watch.check_keys(0)
    net.meddle = lambda flight: None
    net.connect()
    net.run(5 * SECOND)
    assert net.established
    assert hour.told("client", SessionEnded) == 1

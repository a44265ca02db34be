# SPDX-License-Identifier: GPL-2.0-or-later
"""New keys in a session by hand, proposed by either side, and what is asked of a session's secret."""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Callable, Iterator

import pytest
from scapy.compat import raw
from scapy_raw_peer import RawPeer

import scapy_pool as sp
from poolref import crypto
from poolref.constants import SECOND, Type
from poolref.errors import LowOrderKey, PoolTimeout
from poolref.keylog import parse_line
from poolref.keys import Keys
from poolref.rekey import ACCEPT, PROPOSE
from scapy_pool.rekey import Rekey


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("scapy_pool.upkeep.FIRST_TIMEOUT", SECOND // 20)
    monkeypatch.setattr("scapy_pool.connection._NAP", 0.01)
    sp.keyring.clear()
    yield
    sp.keyring.clear()


def until(condition: Callable[[], bool], timeout: float = 5) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def echoed(connection: sp.PoolConnection, text: bytes) -> bool:
    connection.send(text)
    while (packet := connection.recv()) is not None:
        if sp.PoolData in packet:
            return bool(packet.data == text)
    return False


@pytest.fixture
def peer() -> Iterator[RawPeer]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with RawPeer(theirs) as peer:
        peer.other_end = ours  # type: ignore[attr-defined]
        yield peer
    ours.close()


@pytest.fixture
def connection(peer: RawPeer) -> Iterator[sp.PoolConnection]:
    with sp.PoolHandshake(peer.other_end).connect() as connection:  # type: ignore[attr-defined]
        assert echoed(connection, b"before")
        yield connection


def test_the_peer_proposes(peer: RawPeer, connection: sp.PoolConnection) -> None:
    lines: list[str] = []
    peer.core.keylog = lines.append
    for epoch in (1, 2, 3):
        peer.orders.append(lambda session, now: session.rekeying.start(now))
        until(lambda: connection.keys.epoch == epoch)  # noqa: B023
        assert echoed(connection, b"under epoch %d" % epoch)
        until(lambda: peer.session.keys.epoch == epoch and not peer.session.rekeying.underway)  # noqa: B023
    logged = [parse_line(line) for line in lines]
    assert [(entry.epoch, entry.hmac_key) for entry in logged if entry][-1] == (
        3, connection.keys.hmac_key
    )  # fmt: skip
    assert len(connection.ring) == 4


def test_this_side_proposes(peer: RawPeer, connection: sp.PoolConnection) -> None:
    packets = []
    for epoch in (1, 2):
        packets.append(raw(connection.make(b"x", seq=1)))
        connection.rekey()
        assert connection.keys.epoch == epoch
        assert echoed(connection, b"under epoch %d" % epoch)
    until(lambda: peer.session.keys.epoch == 2 and not peer.session.rekeying.underway)
    assert peer.session.end is None
    packets.append(raw(connection.make(b"x", seq=1)))
    assert len(set(packets)) == 3
    assert {sp.Pool(packet).auth for packet in packets} == {sp.Auth.OK}  # by the ring, every epoch


def test_nobody_accepts(connection: sp.PoolConnection, peer: RawPeer) -> None:
    peer.incoming = lambda packet: packet[0] & 15 != Type.REKEY
    with pytest.raises(PoolTimeout):
        connection.rekey(timeout=0.2)
    assert connection.keys.epoch == 0


def test_challenges_are_answered(peer: RawPeer, connection: sp.PoolConnection) -> None:
    peer.orders.append(lambda session, now: session.vigil.challenge_now(now))
    until(lambda: peer.session.vigil.answered == 1)
    assert not peer.session.untrusted


def test_a_key_without_a_secret_ends_the_session(peer: RawPeer, connection: sp.PoolConnection) -> None:
    def propose(session: object, now: int) -> None:
        proposal = raw(sp.PoolRekey(epoch=1, stage=PROPOSE, pubkey=bytes(32)))
        peer.session.transmit(Type.REKEY, now, proposal)

    peer.orders.append(propose)
    until(lambda: peer.session.end is not None)
    assert peer.session.end is not None
    assert (peer.session.end.cause, peer.session.end.code) == ("closed", 7)


class TestRekey:
    """Without a connection."""

    keys = Keys(b"k" * 32)

    def sides(self) -> tuple[Rekey, Rekey]:
        return Rekey(random.Random(1).randbytes), Rekey(random.Random(2).randbytes)

    def test_both_ends_have_the_same_keys(self) -> None:
        ours, theirs = self.sides()
        accepted = theirs.accept(self.keys, ours.propose(self.keys))
        assert accepted is not None
        answer, following = accepted
        assert (answer.stage, answer.epoch) == (ACCEPT, 1)
        completed = ours.complete(self.keys, answer)
        assert completed is not None
        assert (completed.epoch, completed.shared) == (1, following.shared)

    def test_of_two_proposals_the_lower_key_wins(self) -> None:
        ours, theirs = self.sides()
        proposals = ours.propose(self.keys), theirs.propose(self.keys)
        lower = min(proposals, key=lambda proposal: bytes(proposal.pubkey))
        answers = [ours.accept(self.keys, proposals[1]), theirs.accept(self.keys, proposals[0])]
        assert [answer is None for answer in answers] == [proposals[0] is lower, proposals[1] is lower]

    def test_a_repeat_and_another_epoch_change_nothing(self) -> None:
        ours, theirs = self.sides()
        proposal = ours.propose(self.keys)
        assert theirs.accept(self.keys, proposal) is not None
        assert theirs.accept(self.keys, proposal) is None
        proposal.epoch = 2
        assert self.sides()[1].accept(self.keys, proposal) is None
        answer = sp.PoolRekey(epoch=2, stage=ACCEPT, pubkey=crypto.public_key(b"p" * 32))
        assert ours.complete(self.keys, answer) is None
        assert theirs.complete(self.keys, answer) is None  # proposed nothing

    def test_a_low_order_key_is_refused(self) -> None:
        ours, theirs = self.sides()
        with pytest.raises(LowOrderKey):
            ours.accept(self.keys, sp.PoolRekey(epoch=1, stage=PROPOSE, pubkey=bytes(32)))
        theirs.propose(self.keys)
        with pytest.raises(LowOrderKey):
            theirs.complete(self.keys, sp.PoolRekey(epoch=1, stage=ACCEPT, pubkey=bytes(32)))

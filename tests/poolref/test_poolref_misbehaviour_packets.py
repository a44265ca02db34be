# SPDX-License-Identifier: GPL-2.0-or-later
"""Misbehaviour on single packets, several kinds at once, slowly, and what is no misbehaviour."""

from __future__ import annotations

from functools import cache

import pytest
from poolref_encounter import Encounter

from poolref import wire
from poolref.constants import Role, Type
from poolref.counters import DropReason
from poolref.events import (
    PacketTrace,
    SessionEnded,
)
from poolref.keys import Keys
from poolref.misbehaviour import (
    SWITCHES,
    Kind,
    Phase,
    misbehaviour,
    tamper,
)
from poolref.misbehaviour.conduct import opened

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

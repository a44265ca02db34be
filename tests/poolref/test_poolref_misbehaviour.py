# SPDX-License-Identifier: GPL-2.0-or-later
"""What a sound peer does about each misbehaviour, exactly; and that none is missing."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from poolref_encounter import NAMES, Encounter, alive, run

from poolref.constants import MAX_SESSIONS, SECOND, Role, Type
from poolref.events import (
    ConfigAccepted,
    ConfigConfirmed,
    ConfigRejected,
    ConfigRolledBack,
    SessionEnded,
)
from poolref.misbehaviour import (
    LOW_ORDER_POINTS,
    NOT_VIOLABLE,
    SWITCHES,
    Misbehaviour,
    Phase,
    Reaction,
    misbehaviour,
    parse,
)
from poolref.peers import Source


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
        encounter = run(switch, role, told(text, reaction), reaction, 70)
        check(encounter, reaction)
        if switch.phase in (Phase.CONFIG, Phase.EXCHANGE, Phase.ANNOUNCE, Phase.REKEY):
            look, expected = AFTERMATH.get(switch.name, (lambda encounter: None, None))
            assert look(encounter) == expected


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

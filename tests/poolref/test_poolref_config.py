# SPDX-License-Identifier: GPL-2.0-or-later
"""Configurations without sessions: what a CONFIG carries, when one is accepted, confirmed, undone."""

from __future__ import annotations

import errno
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from poolref_sim import START, WALL
from poolref_vectors import cases

from poolref.config import (
    ConfigPayload,
    Configuration,
    Current,
    Parameters,
    Reference,
    Refusal,
    Undoing,
    config_hash,
)
from poolref.constants import MILLISECOND, SECOND
from poolref.errors import DecodeError, LocalError
from poolref.settings import Settings

MINUTE = 60 * SECOND
DEFAULTS = Parameters(16, 5, 1 << 28, 3600, 512, 1400)
OTHERS = Parameters(18, 1, 1 << 10, 10, 600, 1000)


class Owner:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[int, int, Undoing]] = []

    def undone(self, undone: Current, restored: Current, why: Undoing, now: int) -> None:
        self.told.append((undone.version, restored.version, why))


def proposal(
    configuration: Configuration, proposed: Parameters = OTHERS, step: int = 1, **changes: Any
) -> ConfigPayload:
    """One that fits ``configuration``, but for ``changes``."""
    base = configuration.reference
    payload = ConfigPayload.proposing(proposed, base, base.version + step, MINUTE, WALL)
    return replace(payload, **changes)


@pytest.fixture
def configuration() -> Configuration:
    return Configuration(DEFAULTS)


# -- the payload -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("given", "expected"), cases("config", "config.hash"))
def test_hashes_as_in_the_vectors(given: dict[str, Any], expected: dict[str, Any]) -> None:
    assert config_hash(given["version"], bytes.fromhex(given["params"])).hex() == expected["hash"]


@pytest.mark.parametrize(("given", "expected"), cases("config", "config.encode"))
def test_payloads_as_in_the_vectors(given: dict[str, Any], expected: dict[str, Any]) -> None:
    payload = ConfigPayload.proposing(
        Parameters.unpack(bytes.fromhex(given["params"])),
        Reference(given["prev_version"], bytes.fromhex(given["prev_hash"])),
        given["version"],
        int(given["deadline_ns"]),
        int(given["timestamp"]),
    )
    assert payload.pack().hex() == expected["plaintext"]
    assert ConfigPayload.unpack(payload.pack()) == payload


@pytest.mark.parametrize(("given", "expected"), cases("config", "config.judge"))
def test_judged_as_in_the_vectors(given: dict[str, Any], expected: dict[str, Any]) -> None:
    current = given["current"]
    configuration = Configuration(DEFAULTS)
    configuration.current = Current(current["version"], bytes.fromhex(current["hash"]), DEFAULTS)
    before = configuration.current
    try:
        verdict = configuration.propose(
            ConfigPayload.unpack(bytes.fromhex(given["plaintext"])), Owner(), START
        )
    except DecodeError:
        verdict = Refusal.SIZE
    if expected == {"accepted": True}:
        assert verdict is None
        assert configuration.current != before
    else:
        assert expected == {"drop": "config_reject"}
        assert verdict is not None
        assert configuration.current is before
        assert configuration.tentative is None


def test_the_byte_between_difficulty_and_heartbeat_is_zero() -> None:
    packed = bytearray(OTHERS.pack())
    assert Parameters.unpack(packed) == OTHERS
    packed[1] = 1
    with pytest.raises(DecodeError):
        Parameters.unpack(packed)


@pytest.mark.parametrize(
    ("change", "refusal"),
    [
        ({"version": 0}, Refusal.VERSION),
        ({"prev_version": 1}, Refusal.PREV_VERSION),
        ({"prev_hash": b"\x01" * 32}, Refusal.PREV_HASH),
        ({"config_hash": bytes(32)}, Refusal.CONFIG_HASH),
        ({"version": 2}, Refusal.CONFIG_HASH),
        ({"params": DEFAULTS.pack()}, Refusal.CONFIG_HASH),
        ({"deadline_ns": 50 * MILLISECOND - 1}, Refusal.DEADLINE),
        ({"deadline_ns": 3600 * SECOND + 1}, Refusal.DEADLINE),
        ({"deadline_ns": 0}, Refusal.DEADLINE),
        ({"deadline_ns": (1 << 64) - 1}, Refusal.DEADLINE),
    ],
    ids=str,
)
def test_why_a_proposal_is_refused(
    configuration: Configuration, change: dict[str, Any], refusal: Refusal
) -> None:
    assert configuration.judge(proposal(configuration)) == OTHERS
    owner = Owner()
    assert configuration.propose(proposal(configuration, **change), owner, START) is refusal
    assert (configuration.current, configuration.tentative) == (Current(0, bytes(32), DEFAULTS), None)


@pytest.mark.parametrize("deadline", [50 * MILLISECOND, 3600 * SECOND])
def test_the_shortest_and_the_longest_deadline(configuration: Configuration, deadline: int) -> None:
    assert configuration.propose(proposal(configuration, deadline_ns=deadline), Owner(), START) is None
    configuration.expire(START + deadline - 1)
    assert configuration.tentative is not None
    configuration.expire(START + deadline)
    assert configuration.tentative is None


def test_parameters_that_do_not_decode_are_refused(configuration: Configuration) -> None:
    params = b"\x10\x01" + OTHERS.pack()[2:]
    payload = proposal(configuration, params=params, config_hash=config_hash(1, params))
    assert configuration.propose(payload, Owner(), START) is Refusal.PARAMETERS


def test_the_timestamp_is_not_looked_at(configuration: Configuration) -> None:
    assert configuration.propose(proposal(configuration, timestamp=0), Owner(), START) is None


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"difficulty": 15}, "difficulty"),
        ({"heartbeat_s": 0}, "heartbeat"),
        ({"rekey_packets": (1 << 28) + 1}, "rekey_packets"),
        ({"rekey_s": 9}, "rekey_sec"),
        ({"mtu_min": 511}, "mtu_min"),
        ({"mtu_max": 599}, "mtu_max"),
    ],
    ids=str,
)
def test_which_parameter_is_out_of_range(change: dict[str, int], name: str) -> None:
    assert OTHERS.out_of_range() is None
    assert replace(OTHERS, **change).out_of_range() == name


# -- accepted, confirmed, undone -------------------------------------------------------------------


def test_a_node_starts_with_version_0_and_a_zero_hash_whatever_its_parameters() -> None:
    settings = Settings(20, 30, rekey_packets=1 << 10, rekey_s=10, mtu_min=1000, mtu_max=1001)
    current = Configuration(Parameters.of(settings)).current
    assert current == Current(0, bytes(32), Parameters(20, 30, 1 << 10, 10, 1000, 1001))


def test_accepted_means_in_force_until_confirmed(configuration: Configuration) -> None:
    owner = Owner()
    payload = proposal(configuration)
    assert configuration.propose(payload, owner, START) is None
    assert configuration.current == Current(1, payload.config_hash, OTHERS)
    assert configuration.confirm(payload, owner, START + MINUTE - 1) is True
    configuration.expire(START + 2 * MINUTE)
    configuration.owner_ended(owner, START + 2 * MINUTE)
    assert configuration.current == Current(1, payload.config_hash, OTHERS)
    assert owner.told == []


def test_versions_may_be_skipped_and_predecessors_must_fit(configuration: Configuration) -> None:
    owner = Owner()
    seventh = proposal(configuration, step=7)
    assert configuration.propose(seventh, owner, START) is None
    assert configuration.confirm(seventh, owner, START) is True
    assert configuration.propose(seventh, owner, START) is Refusal.VERSION
    eighth = proposal(configuration, DEFAULTS)
    assert (eighth.version, eighth.prev_version, eighth.prev_hash) == (8, 7, seventh.config_hash)
    assert configuration.propose(eighth, owner, START) is None


def test_a_second_proposal_is_refused_while_one_is_tentative(configuration: Configuration) -> None:
    owner = Owner()
    first = proposal(configuration)
    configuration.propose(first, owner, START)
    second = proposal(configuration, DEFAULTS)
    assert second.version == 2
    assert configuration.propose(second, owner, START) is Refusal.TENTATIVE
    assert configuration.propose(first, Owner(), START) is Refusal.TENTATIVE
    assert configuration.current.version == 1


def test_the_deadline_restores_exactly_what_was_before(configuration: Configuration) -> None:
    owner = Owner()
    before = configuration.current
    payload = proposal(configuration)
    configuration.propose(payload, owner, START)
    configuration.expire(START + MINUTE - 1)
    assert configuration.current.version == 1
    configuration.expire(START + MINUTE)
    configuration.expire(START + MINUTE)
    assert configuration.current is before
    assert owner.told == [(1, 0, Undoing.DEADLINE)]
    assert configuration.propose(payload, owner, START + MINUTE) is None, "undone, it may come again"


def test_at_the_deadline_a_confirm_comes_too_late(configuration: Configuration) -> None:
    owner = Owner()
    payload = proposal(configuration)
    configuration.propose(payload, owner, START)
    assert configuration.confirm(payload, owner, START + MINUTE) is Refusal.NOT_TENTATIVE
    assert owner.told == [(1, 0, Undoing.DEADLINE)]


def test_at_the_deadline_a_rollback_comes_too_late(configuration: Configuration) -> None:
    owner = Owner()
    configuration.propose(proposal(configuration), owner, START)
    assert configuration.roll_back(owner, START + MINUTE) is Refusal.NOT_TENTATIVE
    assert owner.told == [(1, 0, Undoing.DEADLINE)]


def test_at_the_deadline_another_proposal_is_judged_against_what_is_restored(
    configuration: Configuration,
) -> None:
    owner, other = Owner(), Owner()
    payload = proposal(configuration)
    configuration.propose(payload, owner, START)
    assert configuration.propose(payload, other, START + MINUTE) is None
    assert owner.told == [(1, 0, Undoing.DEADLINE)]
    assert configuration.tentative is not None
    assert configuration.tentative.owner is other


def test_a_rollback(configuration: Configuration) -> None:
    owner = Owner()
    assert configuration.roll_back(owner, START) is Refusal.NOT_TENTATIVE
    configuration.propose(proposal(configuration), owner, START)
    assert configuration.roll_back(Owner(), START) is Refusal.OTHER_SESSION
    assert configuration.roll_back(owner, START) is None
    assert configuration.roll_back(owner, START) is Refusal.NOT_TENTATIVE
    configuration.expire(START + MINUTE)
    assert configuration.current == Current(0, bytes(32), DEFAULTS)
    assert owner.told == [(1, 0, Undoing.ROLLBACK)]


def test_the_end_of_the_owners_session_undoes_at_once(configuration: Configuration) -> None:
    owner = Owner()
    configuration.propose(proposal(configuration), owner, START)
    configuration.owner_ended(Owner(), START)
    assert configuration.current.version == 1
    configuration.owner_ended(owner, START)
    assert configuration.current.version == 0
    assert owner.told == [(1, 0, Undoing.SESSION_ENDED)]


def test_confirms_that_fit_nothing(configuration: Configuration) -> None:
    owner = Owner()
    payload = proposal(configuration)
    assert configuration.confirm(payload, owner, START) is Refusal.NOT_TENTATIVE
    configuration.propose(payload, owner, START)
    assert configuration.confirm(payload, Owner(), START) is Refusal.OTHER_SESSION
    wrong_version, wrong_hash = replace(payload, version=2), replace(payload, config_hash=bytes(32))
    assert configuration.confirm(wrong_version, owner, START) is Refusal.CONFIG_HASH
    assert configuration.confirm(wrong_hash, owner, START) is Refusal.CONFIG_HASH
    assert configuration.tentative is not None


def test_a_repeated_confirm_changes_nothing(configuration: Configuration) -> None:
    owner = Owner()
    payload = proposal(configuration)
    configuration.propose(payload, owner, START)
    assert configuration.confirm(payload, owner, START) is True
    assert configuration.confirm(payload, owner, START + 10 * MINUTE) is False
    assert configuration.confirm(payload, Owner(), START) is Refusal.NOT_TENTATIVE
    other = replace(payload, config_hash=bytes(32))
    assert configuration.confirm(other, owner, START) is Refusal.NOT_TENTATIVE
    configuration.owner_ended(owner, START)
    assert configuration.confirm(payload, owner, START) is Refusal.NOT_TENTATIVE


def test_nothing_was_ever_confirmed_by_a_zero_hash(configuration: Configuration) -> None:
    start = replace(proposal(configuration), version=0, config_hash=bytes(32))
    assert configuration.confirm(start, Owner(), START) is Refusal.NOT_TENTATIVE


def test_watchers_hear_when_other_parameters_are_in_force(configuration: Configuration) -> None:
    heard: list[Parameters] = []

    def watcher() -> None:
        heard.append(configuration.current.params)

    configuration.watch(watcher)
    configuration.watch(watcher)
    owner = Owner()
    payload = proposal(configuration)
    configuration.propose(payload, owner, START)
    configuration.roll_back(owner, START)
    configuration.propose(payload, owner, START)
    configuration.confirm(payload, owner, START)
    assert heard == [OTHERS, DEFAULTS, OTHERS]
    configuration.propose(proposal(configuration), owner, START)
    configuration.unwatch(watcher)
    configuration.roll_back(owner, START)
    assert heard == [OTHERS, DEFAULTS, OTHERS], "the same parameters again are no news"


def test_a_watcher_that_looks_at_the_clock_undoes_nothing_again(configuration: Configuration) -> None:
    owner = Owner()
    configuration.propose(proposal(configuration), owner, START)
    configuration.watch(lambda: configuration.expire(START + MINUTE))
    configuration.expire(START + MINUTE)
    assert owner.told == [(1, 0, Undoing.DEADLINE)]


class Races(RuleBasedStateMachine):
    """Whatever is done when, each tentative configuration is settled exactly once."""

    def __init__(self) -> None:
        super().__init__()
        self.configuration = Configuration(DEFAULTS)
        self.owners = [Owner(), Owner()]
        self.now = START
        self.last = proposal(self.configuration)
        self.accepted = self.confirmed = 0
        self.permanent = self.configuration.current

    @rule(which=st.integers(0, 1), deadline=st.sampled_from([50 * MILLISECOND, SECOND]))
    def propose(self, which: int, deadline: int) -> None:
        payload = proposal(self.configuration, deadline_ns=deadline)
        if self.configuration.propose(payload, self.owners[which], self.now) is None:
            self.accepted += 1
            self.last = payload

    @rule(which=st.integers(0, 1))
    def confirm(self, which: int) -> None:
        if self.configuration.confirm(self.last, self.owners[which], self.now) is True:
            self.confirmed += 1
            self.permanent = self.configuration.current

    @rule(which=st.integers(0, 1))
    def roll_back(self, which: int) -> None:
        self.configuration.roll_back(self.owners[which], self.now)

    @rule(which=st.integers(0, 1))
    def owner_ended(self, which: int) -> None:
        self.configuration.owner_ended(self.owners[which], self.now)

    @rule(duration=st.sampled_from([0, 1, 25 * MILLISECOND, SECOND]))
    def wait(self, duration: int) -> None:
        self.now += duration

    @rule()
    def timer(self) -> None:
        self.configuration.expire(self.now)

    @invariant()
    def settled_once(self) -> None:
        undone = sum(len(owner.told) for owner in self.owners)
        open_ = self.configuration.tentative is not None
        assert self.accepted == self.confirmed + undone + open_
        if not open_:
            assert self.configuration.current is self.permanent


TestRaces = Races.TestCase
TestRaces.settings = hypothesis_settings(max_examples=30, stateful_step_count=30, deadline=None)


# -- settings --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"rekey_packets": (1 << 10) - 1},
        {"rekey_packets": (1 << 28) + 1},
        {"rekey_s": 9},
        {"rekey_s": 3601},
        {"mtu_min": 511},
        {"mtu_max": 1401},
        {"mtu_min": 1001, "mtu_max": 1000},
    ],
    ids=str,
)
def test_settings_out_of_range(change: dict[str, Any]) -> None:
    with pytest.raises(LocalError) as caught:
        Settings(**change)
    assert caught.value.errno == errno.EINVAL


def test_settings_at_the_limits() -> None:
    assert Settings(rekey_packets=1 << 10, rekey_s=10, mtu_min=1400).mtu_max == 1400
    assert Settings(rekey_packets=1 << 28, rekey_s=3600, mtu_max=512).mtu_min == 512
    assert Settings().remote_admin


def test_what_a_node_starts_with_is_in_range() -> None:
    assert Parameters.of(Settings()) == DEFAULTS
    assert DEFAULTS.out_of_range() is None

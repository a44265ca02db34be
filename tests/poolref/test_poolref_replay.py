# SPDX-License-Identifier: GPL-2.0-or-later
"""The replay window against a model that remembers everything."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poolref.replay import ReplayWindow


def window(initial: int = 1000, *seqs: int) -> ReplayWindow:
    made = ReplayWindow(initial)
    for seq in seqs:
        assert made.fresh(seq)
        made.commit(seq)
    return made


@pytest.mark.parametrize(("behind", "fresh"), [(62, True), (63, True), (64, False), (65, False), (1, True)])
def test_the_edge_of_the_window(behind: int, fresh: bool) -> None:
    assert window(1000, 2000).fresh(2000 - behind) is fresh


def test_a_seq_counts_once() -> None:
    made = window(1000, 1001, 1003)
    assert [made.fresh(seq) for seq in (1000, 1001, 1002, 1003, 1004)] == [False, False, True, False, True]


def test_nothing_below_the_initial_seq_was_ever_sent() -> None:
    assert not any(window(1000).fresh(seq) for seq in range(930, 1001))


@pytest.mark.parametrize("step", [1, 2, 63, 64, 65, 1 << 40])
def test_a_jump_forgets_nothing_it_should_keep(step: int) -> None:
    made = window(1000, 1000 + step)
    assert made.highest == 1000 + step
    assert not made.fresh(1000 + step)
    assert not made.fresh(1000)
    assert made.lost == step - 1


def test_loss_and_late_arrival() -> None:
    made = window(0, 1, 2, 10)
    assert (made.received, made.lost) == (4, 7)
    made.commit(5)
    assert (made.received, made.lost) == (5, 6)
    assert made.loss_ppm == 6 * 1_000_000 // 11


@given(st.lists(st.integers(-70, 200), max_size=60))
def test_against_a_model(steps: list[int]) -> None:
    made, seen, highest = ReplayWindow(10_000), {10_000}, 10_000
    seq = 10_000
    for step in steps:
        seq = max(0, seq + step)
        expected = seq > highest or (seq > highest - 64 and seq not in seen and seq > 10_000)
        assert made.fresh(seq) is expected
        if expected:
            made.commit(seq)
            seen.add(seq)
            highest = max(highest, seq)
    assert made.highest == highest
    assert made.received == len(seen)
    assert made.lost == highest - 10_000 + 1 - len(seen)

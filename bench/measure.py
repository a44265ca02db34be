# SPDX-License-Identifier: GPL-2.0-or-later
"""Measuring by taking turns: what else runs on the machine hits what is measured and its yardstick alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Awaitable, Callable

Round = Callable[[], int]
"""Does a batch of work and says how many units it was."""
AsyncRound = Callable[[], Awaitable[int]]

_AT_LEAST = 5
"""Rounds of each, however long one takes."""


def alternate(seconds: float, *rounds: Round) -> list[float]:
    """Median rate of each, in units a second; the rounds take turns for ``seconds``."""
    rates: list[list[float]] = [[] for _ in rounds]
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(rates[0]) < _AT_LEAST:
        for work, samples in zip(rounds, rates, strict=True):
            start = time.perf_counter()
            done = work()
            samples.append(done / (time.perf_counter() - start))
    return [statistics.median(samples) for samples in rates]


async def alternate_async(seconds: float, *rounds: AsyncRound) -> list[float]:
    """The same for coroutines."""
    rates: list[list[float]] = [[] for _ in rounds]
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(rates[0]) < _AT_LEAST:
        for work, samples in zip(rounds, rates, strict=True):
            start = time.perf_counter()
            done = await work()
            samples.append(done / (time.perf_counter() - start))
    return [statistics.median(samples) for samples in rates]


def report(what: str, figure: str, goal: str = "", *, met: bool = True) -> None:
    """One line of a benchmark, with its goal if it has one."""
    mark = f"  (goal: {goal}{'' if met else ', MISSED'})" if goal else ""
    print(f"{what:32}{figure}{mark}", flush=True)

# SPDX-License-Identifier: GPL-2.0-or-later
"""The reference's answers about raw IP's window and timeouts."""

from __future__ import annotations

from collections.abc import Callable

from poolref.reliable import ReceiveWindow, Sent, retransmission_timeout
from poolref.telemetry import RoundTrip

from .reference_values import Values, u64


def raw_window(given: Values) -> Values:
    window: ReceiveWindow[int] = ReceiveWindow(u64(given["initial"]))
    outcomes, acks = [], []
    for seq in map(u64, given["seqs"]):
        reason = window.objection(seq)
        outcomes.append("accepted" if reason is None else str(reason))
        if reason is None:
            window.accept(seq, seq)
        acks.append(str(window.cumulative))
    return {"outcomes": outcomes, "acks": acks}


def raw_timeouts(given: Values) -> Values:
    round_trip = RoundTrip()
    for sample in map(u64, given["samples_ns"]):
        round_trip.sample(sample)
    rto = retransmission_timeout(round_trip.srtt, round_trip.jitter)
    sent = Sent(0, b"", 0, rto)
    sends = [0]
    while not sent.exhausted:
        sends.append(sent.due)
        sent.again(sent.due)
    return {"rto_ns": str(rto), "sends_ns": list(map(str, sends)), "timeout_ns": str(sent.due)}


OPERATIONS: dict[str, Callable[[Values], Values]] = {
    "raw.window": raw_window,
    "raw.timeouts": raw_timeouts,
}

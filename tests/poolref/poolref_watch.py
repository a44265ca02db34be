# SPDX-License-Identifier: GPL-2.0-or-later
"""What must hold at every moment of whatever nodes do: changes of state, key material, counters, messages."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import pytest
from poolref_conversation import End

from poolref.constants import State
from poolref.counters import DropReason, Outcome, Verdict
from poolref.handshake import ClientHandshake, ServerHandshake
from poolref.inbox import Message
from poolref.keys import Keys
from poolref.session import Session
from poolref.states import LOCAL, TABLE

LEGAL = {(source, step.target) for (source, _), step in TABLE.items()} | set(LOCAL)

DECIDED_ON_ARRIVAL = (
    DropReason.VERSION_MISMATCH, DropReason.AUTH_FAIL, DropReason.REFLECTED, DropReason.REPLAY,
    DropReason.DUPLICATE, DropReason.OUT_OF_WINDOW, DropReason.DECRYPT_FAIL, DropReason.UNKNOWN_SESSION,
    DropReason.SPOOFED, DropReason.BAD_SESSION_ID, DropReason.STALE_RESPONSE, DropReason.BAD_PUZZLE,
    DropReason.BAD_PROOF, DropReason.STALE_INIT, DropReason.NO_SLOT,
)  # fmt: skip
"""What a packet is discarded for before anything acts on it, and nothing else is counted for."""


class Watch:
    """Sees every change of state and all key material from its creation to :meth:`close`."""

    def __init__(self) -> None:
        self.changes: Counter[tuple[State, State]] = Counter()
        self.keys: list[Keys] = []
        self._patch = pytest.MonkeyPatch()
        for owner in (Session, ClientHandshake, ServerHandshake):
            self._patch.setattr(owner, "state", self._state_property(), raising=False)
        made = Keys.__init__

        def make(keys: Keys, *args: Any, **kwargs: Any) -> None:
            made(keys, *args, **kwargs)
            self.keys.append(keys)

        self._patch.setattr(Keys, "__init__", make)

    def close(self) -> None:
        self._patch.undo()

    def _state_property(self) -> property:
        def read(owner: Any) -> State:
            state: State = owner.__dict__["state"]
            return state

        def write(owner: Any, state: State) -> None:
            before = owner.__dict__.get("state")
            owner.__dict__["state"] = state
            if before is not None and before is not state:
                self.changes[before, state] += 1

        return property(read, write)

    def check_states(self) -> None:
        """Only changes that the state table has."""
        assert set(self.changes) <= LEGAL

    def check_keys(self, in_use: int) -> None:
        """Key material is in use or overwritten; forget the overwritten."""
        usable = [keys for keys in self.keys if keys.usable]
        for keys in self.keys:
            if not keys.usable:
                for secret in (
                    keys.shared, keys.session_key, keys.hmac_key, keys.seq_key, keys.k_int, keys.k_int_mac
                ):  # fmt: skip
                    assert not any(secret)
        assert len(usable) <= in_use
        self.keys = usable


def keys_in_use(ends: Iterable[End]) -> int:
    """How many sets of keys sessions may have at most: more than one only while epochs overlap."""
    sessions = [end.session for end in ends if end.session is not None and end.session.end is None]
    return sum(3 if session.rekeying.overlapping else 1 for session in sessions)


@dataclass(slots=True)
class _Pending:
    message: Message
    certain: bool = True


@dataclass(slots=True)
class Ledger:
    """The messages of one direction.  In the order of each channel none is lost, doubled, changed or made up,
    except that one which was put in doubt may be missing.
    """

    ordered: bool = True
    """False once somebody changed the order on the way."""
    delivered: int = 0
    _pending: dict[int, deque[_Pending]] = field(default_factory=lambda: defaultdict(deque))

    def sent(self, message: Message, *, certain: bool) -> None:
        self._pending[message.channel].append(_Pending(message, certain))

    def doubt(self, channel: int | None = None) -> None:
        """What is on its way, on one channel or on all, may not arrive."""
        for number, pending in self._pending.items():
            if channel is None or number == channel:
                for item in pending:
                    item.certain = False

    def received(self, message: Message) -> None:
        self.delivered += 1
        pending = self._pending[message.channel]
        if not self.ordered:
            assert any(item.message == message for item in pending), "never sent, or twice"
            pending.remove(next(item for item in pending if item.message == message))
            return
        while pending:
            item = pending.popleft()
            if item.message == message:
                return
            assert not item.certain, f"a message of {len(item.message.data)} bytes is missing"
        raise AssertionError("never sent, or twice, or out of order")

    def check_all_arrived(self) -> None:
        """Nothing more comes; forget what was in doubt."""
        for pending in self._pending.values():
            assert not any(item.certain for item in pending)
            pending.clear()


class Accounts:
    """ERR-01: every packet of a node is counted once, as what became of it."""

    def __init__(self, end: End, *, every_packet: bool) -> None:
        self.end = end
        self.every_packet = every_packet
        """Whether each packet that the network brings is judged: a stream may end, or lose its framing."""
        self.sent = 0
        self.outcomes: Counter[Outcome | None] = Counter()

    def check(self) -> None:
        """Take the traces since the last time and compare with the counters."""
        for trace in self.end.traces:
            if trace.direction == "sent":
                self.sent += 1
            else:
                self.outcomes[trace.outcome] += 1
        self.end.traces.clear()
        counters = self.end.core.counters
        assert counters["packets_sent"] == self.sent
        received = sum(times for outcome, times in self.outcomes.items() if isinstance(outcome, Verdict))
        assert counters["packets_received"] == received
        total = self.outcomes.total()
        assert total == self.end.handed if self.every_packet else total <= self.end.handed
        for reason in DropReason:
            if reason in DECIDED_ON_ARRIVAL:
                assert counters[reason] == self.outcomes[reason], reason
            else:
                assert counters[reason] >= self.outcomes[reason], reason

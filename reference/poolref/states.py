# SPDX-License-Identifier: GPL-2.0-or-later
"""All state logic of a session in one table (section 5).

A session moves IDLE -> INIT_SENT -> CHALLENGED -> ESTABLISHED at the client and IDLE -> ESTABLISHED at
the server, which keeps nothing between INIT and RESPONSE (HS-01).  ESTABLISHED and REKEYING exchange
everything; CLOSING ends. Every (state, type) pair that is legal has an entry here: the action to take and
the state that follows.  Every other pair goes through :func:`lookup`'s policy, a discard with a named
reason (WIRE-05, WIRE-06).

When the table is consulted differs with the keys: without keys, and in CHALLENGED, before anything else;
with keys after the packet was authenticated, opened and its seq committed (SEAL-05).  So the table never
sees forged types.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from .constants import FIRST_UNKNOWN_TYPE, TYPES, State, Type
from .counters import DropReason


class Action(StrEnum):
    """What a legal packet causes."""

    ISSUE_CHALLENGE = "issue_challenge"
    ADMIT = "admit"
    SOLVE = "solve"
    ESTABLISH = "establish"
    REFUSED = "refused"  # an advisory CLOSE
    DELIVER = "deliver"
    ACKNOWLEDGED = "acknowledged"
    HEARTBEAT = "heartbeat"
    REKEY = "rekey"
    CLOSED = "closed"
    CONFIG = "config"
    ROLLBACK = "rollback"
    DISCOVER = "discover"
    JOURNAL = "journal"
    INTEGRITY = "integrity"


@dataclass(frozen=True, slots=True)
class Transition:
    """The action for a legal packet and the state after it, if the action succeeds."""

    action: Action
    target: State


def _while(state: State) -> dict[tuple[int, int], Transition]:
    """What an established session accepts; a completed rekey's change of state is the rekey's own
    business.
    """
    return {
        (state, Type.DATA): Transition(Action.DELIVER, state),
        (state, Type.ACK): Transition(Action.ACKNOWLEDGED, state),
        (state, Type.HEARTBEAT): Transition(Action.HEARTBEAT, state),
        (state, Type.REKEY): Transition(Action.REKEY, state),
        (state, Type.CLOSE): Transition(Action.CLOSED, State.CLOSING),
        (state, Type.CONFIG): Transition(Action.CONFIG, state),
        (state, Type.ROLLBACK): Transition(Action.ROLLBACK, state),
        (state, Type.DISCOVER): Transition(Action.DISCOVER, state),
        (state, Type.JOURNAL): Transition(Action.JOURNAL, state),
        (state, Type.INTEGRITY): Transition(Action.INTEGRITY, state),
    }


TABLE: Final[dict[tuple[int, int], Transition]] = {
    (State.IDLE, Type.INIT): Transition(Action.ISSUE_CHALLENGE, State.IDLE),
    (State.IDLE, Type.RESPONSE): Transition(Action.ADMIT, State.ESTABLISHED),
    (State.INIT_SENT, Type.CHALLENGE): Transition(Action.SOLVE, State.CHALLENGED),
    (State.INIT_SENT, Type.CLOSE): Transition(Action.REFUSED, State.IDLE),
    (State.CHALLENGED, Type.ACK): Transition(Action.ESTABLISH, State.ESTABLISHED),
    (State.CHALLENGED, Type.CLOSE): Transition(Action.REFUSED, State.IDLE),
    **_while(State.ESTABLISHED),
    **_while(State.REKEYING),
    (State.CLOSING, Type.CLOSE): Transition(Action.CLOSED, State.CLOSING),
    (State.CLOSING, Type.ACK): Transition(Action.ACKNOWLEDGED, State.CLOSING),
}


LOCAL: Final[dict[tuple[State, State], str]] = {
    (State.IDLE, State.INIT_SENT): "connect",
    (State.INIT_SENT, State.IDLE): "timeout, unacceptable CHALLENGE",
    (State.CHALLENGED, State.IDLE): "timeout, forged ACK",
    (State.ESTABLISHED, State.REKEYING): "proposes a rekey",
    (State.REKEYING, State.ESTABLISHED): "rekey completed, or lost to the peer's proposal",
    (State.ESTABLISHED, State.CLOSING): "close, dead peer, error",
    (State.REKEYING, State.CLOSING): "close, dead peer, error, rekey failed",
}
"""Changes of state that are no entry of :data:`TABLE`, and what causes them."""


def _resolve(state: State, type: int) -> Transition | DropReason:
    transition = TABLE.get((state, type))
    if transition is not None:
        return transition
    return DropReason.UNKNOWN_TYPE if type >= FIRST_UNKNOWN_TYPE else DropReason.UNEXPECTED_TYPE


_ROWS: Final = tuple(tuple(_resolve(state, type) for type in range(TYPES)) for state in State)


def lookup(state: State, type: int) -> Transition | DropReason:
    """The transition of a legal pair, otherwise why the packet is discarded; ``type`` is 0..15."""
    return _ROWS[state][type]

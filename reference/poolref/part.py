# SPDX-License-Identifier: GPL-2.0-or-later
"""One concern of one session, with a timer of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final

if TYPE_CHECKING:
    from .session import Session

NEVER: Final = 1 << 63
"""Later than any moment (ns)."""


class Part:
    """The session calls :meth:`handle_timer` once ``due`` has come, and :meth:`end` when it is over."""

    receive_driven: ClassVar[bool] = False
    """The timer waits for something from the peer: it stands still while nothing is read (DATA-04)."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.due: int = NEVER

    def handle_timer(self, now: int) -> None:
        """Do what is due at ``now``."""

    def postpone(self, duration: int) -> None:
        """Nothing was read for ``duration`` ns: a receive-driven timer moves by as much."""
        if self.receive_driven and self.due != NEVER:
            self.due += duration

    def lost(self, now: int) -> None:
        """Something that this session sent, other than an MTU probe, did not arrive in time (raw only)."""

    def drained(self, now: int) -> None:
        """Nothing that this session sent is in flight any more (raw only; RK-02)."""

    def end(self, now: int) -> None:
        """The session is over: erase secrets, forget everything."""
        self.due = NEVER

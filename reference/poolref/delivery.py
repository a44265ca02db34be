# SPDX-License-Identifier: GPL-2.0-or-later
"""From authentic DATA packets to whole messages in the receive queue (section 10)."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, ClassVar, Final

from . import constants as c
from .constants import Flag
from .counters import DropReason, Outcome, Verdict
from .errors import DecodeError
from .events import MessageReceived
from .fragments import Reassembly
from .inbox import Inbox, Message, Subscriptions
from .part import NEVER, Part
from .wire import FragmentHeader, Header

if TYPE_CHECKING:
    from .session import Session

# Plain ints: comparing with members of an enumeration costs several times as much, for every packet.
_FRAGMENT: Final = int(Flag.FRAGMENT)
_LAST_FRAG: Final = int(Flag.LAST_FRAG)


_message_received: Final = lru_cache(256)(MessageReceived)
"""Events are immutable, so equal ones can be one: making a frozen object costs more than looking it up."""


class Delivery(Part):
    """Subscriptions, reassembly and the receive queue; messages received stay readable after the end."""

    receive_driven: ClassVar[bool] = True

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self.subscriptions = Subscriptions()
        self.reassembly = Reassembly(c.RAW_REASSEMBLY_TIMEOUT if session.reliable else c.REASSEMBLY_TIMEOUT)
        self.inbox = Inbox()
        self.bytes_received = 0

    def receive(self, header: Header, plaintext: bytes, now: int) -> Outcome:
        if header.channel not in self.subscriptions:
            return DropReason.UNSUBSCRIBED
        if header.flags & _FRAGMENT:
            result = self._reassemble(header, plaintext, now)
            if not isinstance(result, Message):
                return result
            message = result
        elif not plaintext or header.flags & _LAST_FRAG:  # E-19, E-65
            return DropReason.MALFORMED
        else:
            message = Message(header.channel, plaintext)
        self.inbox.put(message)
        self.bytes_received += len(message.data)
        self.session.emit(_message_received(message.channel, len(message.data)))
        return Verdict.ACCEPTED

    def handle_timer(self, now: int) -> None:
        expired = self.reassembly.expire(now)
        if expired:
            self.session.counters.count(DropReason.FRAG_TIMEOUT, expired)
            self.session.core.record_discard(DropReason.FRAG_TIMEOUT, self.session.peer, now)
        self._follow()

    def postpone(self, duration: int) -> None:
        self.reassembly.postpone(duration)
        self._follow()

    def end(self, now: int) -> None:
        super().end(now)
        self.reassembly.clear()

    def _reassemble(self, header: Header, plaintext: bytes, now: int) -> Message | Outcome:
        try:
            fragment = FragmentHeader.unpack_from(plaintext)
        except DecodeError:
            return DropReason.MALFORMED
        evicted = self.reassembly.evicted
        result = self.reassembly.add(
            fragment,
            plaintext[c.FRAGMENT_HEADER_SIZE :],
            header.channel,
            bool(header.flags & _LAST_FRAG),
            now,
        )
        if self.reassembly.evicted > evicted:
            self.session.counters.count(DropReason.FRAG_EVICTED)
            self.session.core.record_discard(DropReason.FRAG_EVICTED, self.session.peer, now)
        self._follow()
        return result

    def _follow(self) -> None:
        due = self.reassembly.next_timer()
        self.due = NEVER if due is None else due

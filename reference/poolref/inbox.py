# SPDX-License-Identifier: GPL-2.0-or-later
"""The receive queue of a session and the channels it takes messages from (DATA-03, DATA-04, CHAN-01)."""

from __future__ import annotations

import errno
from collections import deque
from typing import NamedTuple

from .constants import CHANNELS, RECEIVE_QUEUE
from .errors import LocalError, MessageTooBig


class Message(NamedTuple):
    """A received message."""

    channel: int
    data: bytes


class Subscriptions:
    """A bitmap of 256 channels; channel 0 is on from the start."""

    __slots__ = ("_bits",)

    def __init__(self) -> None:
        self._bits = 1

    def __contains__(self, channel: int) -> bool:
        return bool(self._bits >> channel & 1)

    def subscribe(self, channel: int) -> None:
        """EINVAL outside 0..255."""
        self._bits |= 1 << _valid(channel)

    def unsubscribe(self, channel: int) -> None:
        """EINVAL outside 0..255."""
        self._bits &= ~(1 << _valid(channel))

    def listed(self) -> tuple[int, ...]:
        """The subscribed channels in ascending order."""
        return tuple(channel for channel in range(CHANNELS) if channel in self)


def _valid(channel: int) -> int:
    if not 0 <= channel < CHANNELS:
        raise LocalError(errno.EINVAL, f"channel {channel} is not within 0..{CHANNELS - 1}")
    return channel


class Inbox:
    """Received messages in order, at most 4096."""

    __slots__ = ("_messages",)

    def __init__(self) -> None:
        self._messages: deque[Message] = deque()

    def __len__(self) -> int:
        return len(self._messages)

    @property
    def full(self) -> bool:
        return len(self._messages) >= RECEIVE_QUEUE

    def put(self, message: Message) -> None:
        self._messages.append(message)

    def take(self, channel: int | None, max_size: int | None) -> Message | None:
        """The oldest message (of ``channel``, if given), None without one.

        MessageTooBig when it exceeds ``max_size`` bytes; it then stays where it is.
        """
        messages = self._messages
        if messages and channel is None and max_size is None:
            return messages.popleft()
        for position, message in enumerate(messages):
            if channel is None or message.channel == channel:
                if max_size is not None and len(message.data) > max_size:
                    raise MessageTooBig(len(message.data))
                del messages[position]
                return message
        return None

    def clear(self) -> None:
        self._messages.clear()

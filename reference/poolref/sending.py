# SPDX-License-Identifier: GPL-2.0-or-later
"""The half of a session that sends: messages, packets held back, acknowledgements, the end."""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar, Final

from . import constants as c
from .constants import ErrorCode, Flag, Role, State, Type
from .core import NOBODY, NodeCore, Peer
from .counters import Counters
from .endpoint import Endpoint
from .errors import LocalError, code_name
from .events import EndCause, Event, SessionEnded
from .fragments import split
from .journal import ChangeType
from .keys import Keys
from .part import Part
from .replay import ReplayWindow

if TYPE_CHECKING:
    from .mtu import MtuSearch
    from .rekey import Rekeying

_ACK: Final = int(Type.ACK)
_DISCOVER: Final = int(Type.DISCOVER)
_REQUIRE_ACK: Final = int(Flag.REQUIRE_ACK)
_U32: Final = (1 << 32) - 1
_NEVER_HELD: Final = (_ACK, int(Type.REKEY), int(Type.CLOSE))  # RK-02


class Sender(Endpoint):
    """What a :class:`~poolref.session.Session` is without its receiving half and its parts."""

    reliable: ClassVar[bool] = False
    """Whether this session itself resends what is lost: acks are then cumulative (TRN-04)."""
    rekeying: Rekeying
    discovery: MtuSearch
    parts: tuple[Part, ...]

    def __init__(
        self,
        *,
        core: NodeCore,
        counters: Counters,
        role: Role,
        index: int,
        session_id: bytes,
        keys: Keys,
        first_seq: int,
        peer_seq: int,
        now: int,
        peer: Peer = NOBODY,
    ) -> None:
        """``first_seq`` and ``peer_seq`` are the initial seqs, both consumed by the handshake (SEQ-03)."""
        super().__init__(counters, core.observer, core.settings.conduct(role, established=True))
        self.core = core
        self.role = role
        self.index = index
        self.session_id = session_id
        self.keys = keys
        self.peer = peer
        self.settings = core.settings
        self.state = State.ESTABLISHED
        self.window = ReplayWindow(peer_seq)
        self.mtu = c.MTU_TCP_INITIAL  # from here on MtuSearch's
        self.established_at = now
        self.bytes_sent = 0
        self.congested = False
        """Set while the transport takes no more: ACKs and heartbeats then wait, so that nothing piles up."""
        self.end: SessionEnded | None = None
        self.first_seq = first_seq
        self.next_seq = first_seq + 1
        self._seq_limit = core.settings.dialect.seq_range(role)[1]
        self._next_msg_id = 0
        self._held: deque[tuple[Type, bytes, int, int]] = deque()
        self._ack_pending = 0
        self._ack_due: int | None = None
        self._linger_until: int | None = None

    # -- the user ----------------------------------------------------------------------------------------

    def send(self, data: bytes, now: int, channel: int = 0) -> None:
        """Send a message of 1..65535 bytes: EINVAL, EMSGSIZE, EAGAIN while not :attr:`writable`, or ENOTCONN
        once the session ended (DATA-01).
        """
        if not data:
            raise LocalError(errno.EINVAL, "a message has at least one byte")
        if len(data) > c.MAX_MESSAGE:
            raise LocalError(errno.EMSGSIZE, f"a message of {len(data)} bytes exceeds {c.MAX_MESSAGE}")
        if not 0 <= channel < c.CHANNELS:
            raise LocalError(errno.EINVAL, f"channel {channel} is not within 0..{c.CHANNELS - 1}")
        if not self.writable:
            raise LocalError(errno.EAGAIN, "too much waits to be sent")
        pieces: Iterable[tuple[bytes, int]] = ((data, 0),)
        if len(data) > self.mtu - c.DATA_OVERHEAD:
            pieces = split(data, self._next_msg_id, self.mtu - c.FRAGMENT_OVERHEAD)
            self._next_msg_id = (self._next_msg_id + 1) & _U32
        for plaintext, flags in pieces:
            self.transmit(Type.DATA, now, plaintext, flags=flags | _REQUIRE_ACK, channel=channel)
            if self.end is not None:
                raise LocalError(errno.ENOTCONN, "the session has ended")
        self.bytes_sent += len(data)

    @property
    def active(self) -> bool:
        """Whether the session takes messages: it has not ended and is not being closed."""
        return self.end is None

    @property
    def outstanding(self) -> bool:
        """Whether something of this side's own is unacknowledged and will be resent (raw only)."""
        return False

    @property
    def writable(self) -> bool:
        """Whether :meth:`send` takes a message: not too much is held back (RK-02, TRN-04)."""
        return len(self._held) < c.HELD_LIMIT

    @property
    def unsent(self) -> bool:
        """Whether something that :meth:`send` took is still held back."""
        return bool(self._held)

    def close(self, now: int, code: int | None = None) -> None:
        """End the session with a CLOSE (CLS-01); does nothing once it ended."""
        if self.end is None:
            self.close_with(now, "local", code)

    # -- the parts ---------------------------------------------------------------------------------------

    def transmit(
        self, type: Type, now: int, plaintext: bytes = b"", *, flags: int = 0, channel: int = 0
    ) -> int | None:
        """Seal and queue a packet; the seq it took, None when it is held for later or the session ended."""
        if self.end is not None:
            return None
        if type not in _NEVER_HELD and (self._held or self.holding):
            self._held.append((type, plaintext, flags, channel))
            return None
        return self._dispatch(type, now, plaintext, flags, channel)

    @property
    def holding(self) -> bool:
        """Whether packets other than REKEY, ACK and CLOSE are held back at present."""
        return self.rekeying.holding

    def release(self, now: int) -> None:
        """Send what was held, as far as it may go."""
        while self._held and not self.holding and self.end is None:
            type, plaintext, flags, channel = self._held.popleft()
            self._dispatch(type, now, plaintext, flags, channel)
            if type == _DISCOVER and flags & _REQUIRE_ACK:
                self.discovery.left(now)

    @property
    def flowing(self) -> bool:
        """Whether :meth:`transmit` sends at once."""
        return not self._held and not self.holding and self.end is None

    def acknowledge(self, now: int, *, ack: int | None = None, flags: int = 0) -> None:
        """Send an ACK of its own at once, with exactly this ``ack`` if given."""
        if self.end is None and self._seq_left(now):
            self._queue(self.protect(Type.ACK, now, flags=flags, ack=ack), now)

    def owe_ack(self, now: int, *, at_once: bool = False) -> None:
        """SEQ-05: an ACK within 50 ms, one for up to 16 packets."""
        self._ack_pending += 1
        if self._ack_due is None:
            self._ack_due = now + c.ACK_DELAY
        if at_once or self._ack_pending >= c.ACK_MERGE:
            self._send_ack(now)

    def protect(
        self,
        type: int,
        now: int,
        plaintext: bytes = b"",
        *,
        flags: int = 0,
        channel: int = 0,
        seq: int | None = None,
        ack: int | None = None,
    ) -> bytes:
        """A packet of this session, sealed and signed but not queued; takes the next seq unless one is
        given.
        """
        if seq is None:
            seq = self.next_seq
            self.next_seq += 1
        if ack is None:
            ack = self.ack
        return self.keys.packet(type, flags, seq, ack, self.session_id, now, channel, plaintext)

    @property
    def ack(self) -> int:
        """What packets sent now acknowledge (SEQ-05)."""
        return self.window.highest

    def record(self, change_type: ChangeType, why: str) -> None:
        """A journal entry that names this session's peer (JRN-04)."""
        self.core.record(change_type, f"{self.peer} {why}")

    def emit(self, event: Event) -> None:
        """Tell the user of an event."""
        self._events.append(event)

    # -- the end -----------------------------------------------------------------------------------------

    def close_with(self, now: int, cause: EndCause, code: int | None) -> None:
        """Tell the peer with a CLOSE, then end."""
        if self.end is not None:
            return
        if cause != "local" and code is not None:
            self.core.record_error(code, f"{self.peer} {cause}", now)
        if self.next_seq < self._seq_limit:
            self._queue(self.protect(Type.CLOSE, now, b"" if code is None else bytes([code])), now)
        self.finish(now, cause, code)

    def finish(self, now: int, cause: EndCause, code: int | None) -> None:
        """End without a word to the peer."""
        self.end = SessionEnded(cause, code)
        self.state = State.CLOSING
        self.record(ChangeType.DISCONNECT, cause if code is None else f"{cause}, {code_name(code)}")
        for part in self.parts:
            part.end(now)
        self.keys.erase()
        self._held.clear()
        self.closing = True
        self._ack_due = None
        self._linger_until = now + c.LINGER
        self.counters.count("sessions_ended")
        self.emit(self.end)

    # -- details -----------------------------------------------------------------------------------------

    def _protection(self) -> Keys | None:
        return self.keys

    def _dispatch(self, type: Type, now: int, plaintext: bytes, flags: int, channel: int) -> int | None:
        if not self._seq_left(now):
            return None
        seq = self.next_seq
        self._queue(self.protect(type, now, plaintext, flags=flags, channel=channel), now)
        if self.next_seq + self.window.received >= self.rekeying.age.packets_due:
            self.rekeying.age.worn(now)
        return seq

    def _seq_left(self, now: int) -> bool:
        """False when the last seq is due, which goes to a CLOSE that ends the session (SEQ-01)."""
        if self.next_seq < self._seq_limit - 1:
            return True
        self.close_with(now, "sequence_exhausted", ErrorCode.SEQ_INVALID)
        return False

    def _send_ack(self, now: int) -> None:
        if self.congested:
            self._ack_due = now
            return
        self._ack_pending = 0
        self._ack_due = None
        self.acknowledge(now)

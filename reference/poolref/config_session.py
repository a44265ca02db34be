# SPDX-License-Identifier: GPL-2.0-or-later
"""Configuration over a session: what a peer proposes to this node, and what this side proposes to the peer
(section 14).

The two have nothing to do with each other: a CONFIG is about its receiver's configuration only (E-46).
"""

from __future__ import annotations

import errno
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from typing import TYPE_CHECKING, Final

from . import constants as c
from .config import START as NO_CONFIGURATION
from .config import ConfigPayload, Current, Parameters, Reference, Refusal, Undoing
from .constants import ErrorCode, Flag, Type
from .counters import DropReason, Outcome, Verdict
from .errors import DecodeError, LocalError
from .events import ConfigAccepted, ConfigConfirmed, ConfigRejected, ConfigRolledBack, Event
from .journal import ChangeType
from .part import NEVER, Part
from .wire import Header

if TYPE_CHECKING:
    from .session import Session

_LOCKED: Final = int(Flag.CONFIG_LOCKED)
_READY: Final = int(Flag.ROLLBACK_READY)
_RETRY: Final = 20 * c.MILLISECOND
"""When to look again whether a packet may go out."""
_LATE: Final = 10 * c.SECOND
"""How long after its deadline word of a rollback is waited for."""
_U32: Final = (1 << 32) - 1


def may_administer(session: Session) -> bool:
    """AUTH-02: whether the peer may change the configuration and read the journal."""
    return session.core.settings.remote_admin


class _Stage(Enum):
    """How far an own proposal has come."""

    PROPOSED = auto()
    ACCEPTED = auto()
    CONFIRMING = auto()
    ROLLING_BACK = auto()


@dataclass(slots=True)
class _Own:
    """This side's proposal.  ``seqs`` are those of the packets that the latest request went out in, ``sends``
    when (ns) it goes out, again or for the first time; ``give_up`` is when no answer is expected any more.
    """

    payload: ConfigPayload
    base: Reference
    sends: list[int]
    give_up: int
    stage: _Stage = _Stage.PROPOSED
    seqs: list[int] = field(default_factory=list)

    @property
    def reference(self) -> Reference:
        return Reference(self.payload.version, self.payload.config_hash)

    @property
    def packet(self) -> tuple[Type, bytes, int]:
        """Type, plaintext and flags of the request."""
        if self.stage is _Stage.ROLLING_BACK:
            return Type.ROLLBACK, b"", 0
        return Type.CONFIG, self.payload.pack(), _LOCKED if self.stage is _Stage.CONFIRMING else 0


class Configuring(Part):
    """A session's share in the node's configuration (as its ``Proposer``) and in its peer's."""

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self.peer_configuration = NO_CONFIGURATION
        """The peer's configuration as far as this session knows: by its own proposals, or told by
        :meth:`learn`.
        """
        self._own: _Own | None = None
        dialect = session.settings.dialect
        self._absolute = dialect.config_deadline == "absolute"
        self._by_flags = dialect.config_answer == "flags"

    # -- this node's configuration ---------------------------------------------------------------------

    def receive_config(self, header: Header, plaintext: bytes, now: int) -> Outcome:
        """A proposal, or with CONFIG_LOCKED the confirmation of one (CFG-01 .. CFG-03)."""
        if not may_administer(self.session):
            return self._refuse(header, Refusal.NOT_PERMITTED, now)
        configuration = self.session.core.configuration
        try:
            payload = ConfigPayload.unpack(plaintext)
        except DecodeError:
            return self._refuse(header, Refusal.SIZE, now)
        if self._absolute:
            payload = replace(payload, deadline_ns=max(0, payload.deadline_ns - now))
        before = configuration.current
        if header.flags & _LOCKED:
            confirmed = configuration.confirm(payload, self, now)
            if isinstance(confirmed, Refusal):
                return self._refuse(header, confirmed, now)
            if confirmed:
                self._record(before, before, "confirmed")
        else:
            refusal = configuration.propose(payload, self, now)
            if refusal is not None:
                return self._refuse(header, refusal, now)
            self._record(before, configuration.current, "accepted")
        self.session.acknowledge(now, ack=header.seq, flags=_LOCKED)
        self._follow()
        return Verdict.ACCEPTED

    def receive_rollback(self, header: Header, plaintext: bytes, now: int) -> Outcome:
        """CFG-05."""
        if not may_administer(self.session):
            return self._refuse(header, Refusal.NOT_PERMITTED, now)
        if plaintext:
            return self._refuse(header, Refusal.SIZE, now)
        refusal = self.session.core.configuration.roll_back(self, now)
        if refusal is not None:
            return self._refuse(header, refusal, now)
        self.session.acknowledge(now, ack=header.seq, flags=_READY)
        self._follow()
        return Verdict.ACCEPTED

    def undone(self, undone: Current, restored: Current, why: Undoing, now: int) -> None:
        """What this session's peer proposed is no longer in force (CFG-04); it hears of a deadline here."""
        self._record(undone, restored, f"restored ({why})")
        if why is Undoing.DEADLINE:
            self.session.acknowledge(now, flags=_READY)
            self.session.core.stir(self.session)
        self._follow()

    def _refuse(self, header: Header, why: Refusal, now: int) -> DropReason:
        session = self.session
        if why is Refusal.NOT_PERMITTED:
            session.counters.count(DropReason.NOT_PERMITTED)
        session.core.record_error(ErrorCode.CONFIG_REJECT, f"{session.peer} {why}", now)
        session.acknowledge(now, ack=header.seq)
        self._follow()
        return DropReason.CONFIG_REJECT

    def _record(self, before: Current, after: Current, what: str) -> None:
        """E-46: the detail begins with the hash of what is in force afterwards."""
        core = self.session.core
        detail = f"{after.hash.hex()} {what} {self.session.peer}"
        core.journal.append(ChangeType.CONFIG, detail, core.wall_clock(), before.version, after.version)

    # -- the peer's configuration ----------------------------------------------------------------------

    def learn(self, reference: Reference) -> None:
        """What the peer's journal says about its configuration."""
        self.peer_configuration = reference

    def propose(
        self, params: Parameters, deadline_ns: int, now: int, base: Reference | None = None
    ) -> ConfigPayload:
        """Propose ``params`` to the peer, to be undone unless confirmed ``deadline_ns`` after it arrived; on
        top of ``base``, or of what is known of the peer's configuration.

        Tells with ConfigAccepted or ConfigRejected.  EBUSY while another proposal is open, EINVAL for values
        out of range, EOVERFLOW after the last version, ENOTCONN once the session ended.
        """
        base = self.peer_configuration if base is None else base
        wrong = params.out_of_range()
        if wrong is not None:
            raise LocalError(errno.EINVAL, f"{wrong} is out of range")
        low, high = c.CONFIG_DEADLINE_RANGE
        if not low <= deadline_ns <= high:
            raise LocalError(errno.EINVAL, f"a deadline of {deadline_ns} ns is not within {low}..{high}")
        if base.version >= _U32:
            raise LocalError(errno.EOVERFLOW, "the peer's configuration has the last version")
        wall = self.session.core.wall_clock()
        payload = ConfigPayload.proposing(params, base, base.version + 1, deadline_ns, wall)
        self.propose_payload(payload, now)
        return payload

    def propose_payload(self, payload: ConfigPayload, now: int) -> None:
        """Propose exactly this, in range or not.  EBUSY, ENOTCONN as :meth:`propose`."""
        self._require_active()
        if self._own is not None:
            raise LocalError(errno.EBUSY, f"version {self._own.payload.version} is still open")
        base = Reference(payload.prev_version, payload.prev_hash)
        self._own = _Own(payload, base, [now], now + payload.deadline_ns)
        self._send(self._own, now)

    def confirm(self, now: int) -> None:
        """Make what the peer accepted permanent (CFG-03); tells with ConfigConfirmed.  ENOENT when nothing
        accepted is open, ENOTCONN once the session ended.
        """
        own = self._request(_Stage.CONFIRMING, (_Stage.ACCEPTED,), now)
        own.sends += [now + after for after in c.CONFIRM_REPEATS]
        self._send(own, now)

    def rollback(self, now: int) -> None:
        """Let the peer undo what was proposed (CFG-05); tells with ConfigRolledBack.  ENOENT when nothing
        unconfirmed is open, ENOTCONN once the session ended.
        """
        own = self._request(_Stage.ROLLING_BACK, (_Stage.PROPOSED, _Stage.ACCEPTED), now)
        self._send(own, now)

    def acknowledged(self, header: Header, now: int) -> None:
        """Look at an ACK: an answer has exactly the request's seq as its ack (E-44)."""
        own = self._own
        if own is None:
            return
        if header.flags & _READY and own.stage is not _Stage.PROPOSED:
            asked = own.stage is _Stage.ROLLING_BACK and header.ack in own.seqs
            self._rolled_back(own, "asked for" if asked else "deadline")
        elif header.ack in own.seqs or (self._by_flags and header.flags & _LOCKED):
            if header.flags & _LOCKED:
                self._locked(own)
            elif not header.flags & _READY and not self._overtaken(header):
                self._refused(own)
        self._follow()

    def _overtaken(self, header: Header) -> bool:
        """On raw an ACK without flags comes at once, whereas an answer with one waits for its turn: as long
        as packets before are missing, one of them may be the answer (E-44).
        """
        return header.seq > self.session.ack

    def _locked(self, own: _Own) -> None:
        if own.stage is _Stage.PROPOSED:
            own.stage = _Stage.ACCEPTED
            own.give_up += _LATE
            self.peer_configuration = own.reference
            self.session.emit(ConfigAccepted(own.payload.version))
        elif own.stage is _Stage.CONFIRMING:
            self._close(ConfigConfirmed(own.payload.version))

    def _refused(self, own: _Own) -> None:
        if own.stage is _Stage.PROPOSED:
            self._close(ConfigRejected(own.payload.version, "refused"))
        elif own.stage is not _Stage.ACCEPTED:
            self._rolled_back(own, "nothing was tentative any more")

    def _rolled_back(self, own: _Own, why: str) -> None:
        self.peer_configuration = own.base
        self._close(ConfigRolledBack(own.payload.version, why))

    def _unanswered(self, own: _Own, why: str) -> None:
        if own.stage is _Stage.PROPOSED or own.stage is _Stage.CONFIRMING:
            self._close(ConfigRejected(own.payload.version, why))
        else:
            self._rolled_back(own, why)

    def _close(self, event: Event) -> None:
        self._own = None
        self.session.emit(event)

    def _request(self, stage: _Stage, allowed: tuple[_Stage, ...], now: int) -> _Own:
        self._require_active()
        own = self._own
        if own is None or own.stage not in allowed:
            raise LocalError(errno.ENOENT, "no proposal is open in that way")
        own.stage = stage
        own.seqs = []
        own.sends = [now]
        own.give_up = max(own.give_up, now + c.CONFIRM_REPEATS[-1] + _LATE)
        return own

    def _require_active(self) -> None:
        if self.session.end is not None:
            raise LocalError(errno.ENOTCONN, "the session has ended")

    # -- both ------------------------------------------------------------------------------------------

    def handle_timer(self, now: int) -> None:
        self.session.core.configuration.expire(now)
        own = self._own
        if own is not None:
            if now >= own.give_up:
                self._unanswered(own, "no answer")
            elif own.sends and now >= own.sends[0]:
                self._send(own, now)
        self._follow()

    def end(self, now: int) -> None:
        self.session.core.configuration.owner_ended(self, now)
        if self._own is not None:
            self._unanswered(self._own, "the session ended")
        super().end(now)

    def _send(self, own: _Own, now: int) -> None:
        """Send the request if it can go out at once: its seq has to be known."""
        if self.session.flowing:
            own.sends.pop(0)
            type, plaintext, flags = own.packet
            if self._absolute and plaintext:
                plaintext = replace(own.payload, deadline_ns=now + own.payload.deadline_ns).pack()
            if self._by_flags:
                flags |= Flag.REQUIRE_ACK  # without it no such peer answers at all
            seq = self.session.transmit(type, now, plaintext, flags=flags)
            if seq is not None:
                own.seqs.append(seq)
        else:
            own.sends[0] = now + _RETRY
        self._follow()

    def _follow(self) -> None:
        due = NEVER
        tentative = self.session.core.configuration.tentative
        if tentative is not None and tentative.owner is self:
            due = tentative.deadline
        if self._own is not None:
            due = min(due, self._own.give_up, *self._own.sends[:1])
        self.due = due

# SPDX-License-Identifier: GPL-2.0-or-later
"""Which dialect a peer speaks, found out in at most three handshake attempts (DIA-01), with the evidence
(DIA-02).

What decides is what nobody could carry a session without: how packets before keys look, the RESPONSE, and
the nonce.  Everything else that is seen is compared with the dialect that this leads to, and is told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from .crypto import Rng
from .dialect import CONTRADICTS, DIALECTS, SPEC, Dialect
from .dialect_attempt import Attempt

ATTEMPTS: Final = 3
DECIDING: Final = ("plain_seq", "response", "nonce_seq_order")


def _equal(name: str) -> Callable[[Dialect, object], bool]:
    return lambda dialect, seen: bool(getattr(dialect, name) == seen)


_FITS: Final[dict[str, Callable[[Dialect, object], bool]]] = {
    **{name: _equal(name) for name in CONTRADICTS},
    "min_difficulty": lambda dialect, seen: isinstance(seen, int) and seen >= dialect.min_difficulty,
    "addressed": lambda dialect, seen: dialect.addressed or not seen,
    "acked": lambda dialect, seen: seen == ("all" if dialect.acked is None else "some"),
    "telemetry_digest": lambda dialect, seen: seen in (0, dialect.telemetry_digest),
    "handshake_ack": lambda dialect, seen: dialect.handshake_ack in ("any", seen),
}


@dataclass(frozen=True, slots=True)
class Evidence:
    """Something seen in attempt number ``attempt``; ``field`` of Dialect is what it tells, or empty."""

    attempt: int
    field: str
    seen: object
    text: str

    def fits(self, dialect: Dialect) -> bool:
        """Whether a sound build of the dialect would show this."""
        return not self.field or (self.seen is not None and _FITS[self.field](dialect, self.seen))

    @property
    def requirements(self) -> tuple[str, ...]:
        """What a device fails that deviates in this."""
        return CONTRADICTS.get(self.field, ())


@dataclass(frozen=True, slots=True)
class Finding:
    """``dialect`` is None when it is unknown; ``why`` says what it was found by, or why it was not."""

    dialect: Dialect | None
    why: str
    evidence: tuple[Evidence, ...]
    attempts: int

    @property
    def name(self) -> str:
        """The dialect's, or ``unknown``."""
        return "unknown" if self.dialect is None else self.dialect.name

    def contradicting(self, dialect: Dialect) -> list[Evidence]:
        """What was seen that a sound build of a dialect would not show."""
        return [each for each in self.evidence if not each.fits(dialect)]

    @property
    def failed(self) -> tuple[str, ...]:
        """The requirements that the peer fails by what was seen, in alphabetical order."""
        return tuple(sorted({each for seen in self.contradicting(SPEC) for each in seen.requirements}))

    def report(self) -> str:
        """The finding in lines of text."""
        lines = [f"dialect {self.name} after {self.attempts} attempts: {self.why}"]
        known = [SPEC] if self.dialect in (None, SPEC) else [SPEC, self.dialect]
        for each in self.evidence:
            marks = [f"not as in {dialect.name}" for dialect in known if dialect and not each.fits(dialect)]
            lines.append(
                f"  attempt {each.attempt}: {each.text}" + (f" ({', '.join(marks)})" if marks else "")
            )
        if self.failed:
            lines.append("  fails " + " ".join(self.failed))
        if self.dialect is not None and self.dialect.unseen:
            lines.append("  not known of this dialect: " + " ".join(self.dialect.unseen))
        return "\n".join(lines)


class DialectProbe:
    """Call :meth:`begin` for an attempt, run it over a connection of its own, call :meth:`ended`, until
    :attr:`finding` is there.
    """

    def __init__(self, rng: Rng, known: Iterable[Dialect] = DIALECTS.values()) -> None:
        self.finding: Finding | None = None
        self._rng = rng
        self._known: Sequence[Dialect] = tuple(known)
        self._openings = list(self._known)
        self._refused: list[Dialect] = []
        self._reasons: list[str] = []
        self._evidence: list[Evidence] = []
        self._attempts = 0
        self._attempt: Attempt | None = None

    def begin(self, wall: int, now: int) -> Attempt:
        """The next attempt; ``wall`` is UNIX ns.  RandomnessError when ``rng`` fails."""
        self._attempts += 1
        candidates = [each for each in self._known if each not in self._refused]
        self._attempt = Attempt(self._openings[0], candidates, self._note, self._rng, wall, now)
        return self._attempt

    def ended(self) -> None:
        """The attempt is over."""
        attempt = self._attempt
        if attempt is None:
            raise RuntimeError("no attempt has begun")
        self._reasons.append(attempt.why)
        self._note("", None, attempt.why)
        if attempt.end == "session":
            self._decide(attempt)
        elif attempt.end in ("version", "full", "useless"):
            self._unknown(attempt.why)
        else:
            if attempt.end == "no_challenge":
                del self._openings[0]
            elif attempt.spoken is not None:
                self._refused.append(attempt.spoken)
            exhausted = not self._openings or len(self._refused) == len(self._known)
            if exhausted or self._attempts >= ATTEMPTS:
                self._unknown("; ".join(self._reasons))

    def _note(self, field: str, seen: object, text: str) -> None:
        self._evidence.append(Evidence(self._attempts, field, seen, text))

    def _decide(self, attempt: Attempt) -> None:
        """The session's dialect, unless what decides is mixed."""
        deciding = [
            each for each in self._evidence if each.field in DECIDING and each.attempt == self._attempts
        ]
        spoken = attempt.spoken
        against = [each for each in deciding if spoken is None or not each.fits(spoken)]
        if spoken is None or against:
            name = "no dialect" if spoken is None else spoken.name
            self._unknown(f"a session in {name}, but " + "; ".join(each.text for each in against))
        else:
            self._finish(spoken, f"a RESPONSE in {spoken.name} led to a session")

    def _unknown(self, why: str) -> None:
        self._finish(None, why)

    def _finish(self, dialect: Dialect | None, why: str) -> None:
        self.finding = Finding(dialect, why, tuple(self._evidence), self._attempts)

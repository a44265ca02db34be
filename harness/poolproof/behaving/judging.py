# SPDX-License-Identifier: GPL-2.0-or-later
"""From an exception to a verdict.

    raised                       in a step       in a before_ hook     in an after_ hook or cleanup
    AssertionError, `failures`   fail            inconclusive          fail
    DeviceDied, `deaths`         fail, died      inconclusive, died    wire as it was, died
    NotSupported, Inconclusive   not supported, inconclusive: wherever raised
    DeviceUntestable             inconclusive, and the run ends
    a pending step               inconclusive
    anything else                inconclusive, and a fault of the harness is counted

The last line is the important one: an error in our own code neither passes nor blames the device. Before the
first step nothing has been asked of the device, so nothing that goes wrong there is a failed check. A step's
own hooks count as the step.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from types import TracebackType

import behave
from behave.exception import StepNotImplementedError

from poolproof.errors import HarnessError
from poolproof.verdicts.axes import DeviceDied, DeviceUntestable, Inconclusive, NotSupported, Wire
from poolproof.verdicts.results import StepStatus

_HIDDEN = (str(Path(behave.__file__).parent), str(Path(__file__).parent))


class Phase(Enum):
    """Where something was raised."""

    BEFORE = "before"
    STEP = "step"
    AFTER = "after"


@dataclass(frozen=True, slots=True)
class Judgement:
    """What one exception says. `wire` PASS leaves the wire verdict alone (the device died afterwards)."""

    status: StepStatus
    wire: Wire
    reason: str
    trace: str = ""
    excerpt: str = ""
    untestable: bool = False

    @property
    def died(self) -> bool:
        return self.status is StepStatus.DIED

    @property
    def harness(self) -> bool:
        return self.status in (StepStatus.HARNESS_ERROR, StepStatus.UNDEFINED)


# Which of several exceptions raised together (an exception group) speaks for all.
_WEIGHT = (
    StepStatus.NOT_SUPPORTED,
    StepStatus.PENDING,
    StepStatus.INCONCLUSIVE,
    StepStatus.HARNESS_ERROR,
    StepStatus.FAILED,
    StepStatus.DIED,
)


class Judge:
    """Classifies exceptions; `failures` and `deaths` extend what counts as the device's doing."""

    def __init__(
        self, failures: tuple[type[BaseException], ...] = (), deaths: tuple[type[BaseException], ...] = ()
    ) -> None:
        self._failures: tuple[type[BaseException], ...] = (AssertionError, *failures)
        self._deaths: tuple[type[BaseException], ...] = (DeviceDied, *deaths)

    def judge(self, error: BaseException, phase: Phase) -> Judgement:
        """The judgement on `error` raised in `phase`."""
        judgements = [self._judge_one(leaf) for leaf in _leaves(error)]
        worst = max(judgements, key=lambda each: _WEIGHT.index(each.status))
        if phase is Phase.BEFORE and worst.wire is Wire.FAIL:
            return replace(worst, wire=Wire.INCONCLUSIVE)
        if phase is Phase.AFTER and worst.died:
            return replace(worst, wire=Wire.PASS)
        return worst

    def _judge_one(self, error: BaseException) -> Judgement:
        # Before deaths: that it died while being brought up is why, and no check had been asked of it.
        if isinstance(error, DeviceUntestable):
            reason = f"the device could not be tested: {_text(error)}"
            return Judgement(StepStatus.INCONCLUSIVE, Wire.INCONCLUSIVE, reason, untestable=True)
        death = next((each for each in _causes(error) if isinstance(each, self._deaths)), None)
        if death is not None:
            said = f"the device died: {_text(death)}" if isinstance(death, DeviceDied) else _text(death)
            excerpt = str(getattr(death, "excerpt", ""))
            return Judgement(StepStatus.DIED, Wire.FAIL, said, _trace(error), excerpt)
        if isinstance(error, NotSupported):
            return Judgement(StepStatus.NOT_SUPPORTED, Wire.NOT_SUPPORTED, _text(error))
        if isinstance(error, Inconclusive):
            return Judgement(StepStatus.INCONCLUSIVE, Wire.INCONCLUSIVE, _text(error))
        if isinstance(error, self._failures):
            return Judgement(StepStatus.FAILED, Wire.FAIL, _text(error), _trace(error))
        if isinstance(error, StepNotImplementedError):
            return Judgement(StepStatus.PENDING, Wire.INCONCLUSIVE, f"pending step: {_text(error)}")
        if isinstance(error, KeyboardInterrupt):
            return Judgement(StepStatus.INCONCLUSIVE, Wire.INCONCLUSIVE, "interrupted")
        said = str(error) if isinstance(error, HarnessError) else describe(error)
        return Judgement(StepStatus.HARNESS_ERROR, Wire.INCONCLUSIVE, f"harness error: {said}", _trace(error))


def describe(error: BaseException) -> str:
    """One line and more: type and message."""
    message = str(error)
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def _text(error: BaseException) -> str:
    """The message; for a bare `assert` the line of code that did not hold."""
    message = str(error).strip()
    if message:
        return message
    frames = _frames(error.__traceback__)
    if frames and frames[-1].line:
        return f"does not hold: {frames[-1].line.strip()}"
    return type(error).__name__


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _leaves(each)
    else:
        yield error


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__


def _frames(trace: TracebackType | None) -> list[traceback.FrameSummary]:
    """The frames of steps and what they call, without behave's and this package's own."""
    return [each for each in traceback.extract_tb(trace) if not each.filename.startswith(_HIDDEN)]


def _trace(error: BaseException) -> str:
    lines = traceback.format_list(_frames(error.__traceback__))
    for cause in list(_causes(error))[1:]:
        lines.append(f"caused by {describe(cause)}\n")
        lines.extend(traceback.format_list(_frames(cause.__traceback__)))
    return "".join(lines).replace(f"{Path.cwd()}/", "")

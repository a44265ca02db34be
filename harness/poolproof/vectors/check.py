# SPDX-License-Identifier: GPL-2.0-or-later
"""Running the vectors against a command that speaks the JSON lines of spec/vectors/README.md."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import IO, Any

from poolproof.errors import HarnessError

from .suite import Case

RESTARTS = 5
_CHUNK = 1 << 16
_LONGEST = 1 << 22


class Judgement(StrEnum):
    """What an implementation's answer to a case was worth."""

    RIGHT = "right"
    WRONG = "wrong"
    UNSUPPORTED = "unsupported"
    NOT_RUN = "not run"


@dataclass(frozen=True, slots=True)
class Judged:
    """``detail`` says what was wrong with the answer."""

    case: Case
    judgement: Judgement
    detail: str = ""


class Silent(Exception):
    """The command gave no usable answer and has to be started anew."""


class Implementation:
    """A running command; HarnessError when it cannot be started.  A context manager that ends it."""

    def __init__(self, command: Sequence[str], timeout: float) -> None:
        self._timeout = timeout
        self._pending = b""
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
            )
        except OSError as error:
            raise HarnessError(
                f"cannot run {command[0]}: {error.strerror}",
                hint="poolproof vectors check -- COMMAND; see spec/vectors/README.md",
            ) from error
        self._out = _pipe(self._process.stdout)
        self._in = _pipe(self._process.stdin)
        os.set_blocking(self._in.fileno(), False)

    def __enter__(self) -> Implementation:
        return self

    def __exit__(self, *exc: object) -> None:
        self._in.close()
        try:
            self._process.wait(timeout=1)  # it should end by itself, now that its stdin has ended
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._out.close()

    def ask(self, case: Case) -> dict[str, Any]:
        """The reply to one case; Silent when there is none."""
        request = {"id": case.id, "op": case.op, "input": case.input}
        line = self._exchange(json.dumps(request).encode() + b"\n")
        try:
            reply = json.loads(line)
        except ValueError:
            raise Silent(f"not a line of JSON: {line[:200]!r}") from None
        if not isinstance(reply, dict) or reply.get("id") != case.id:
            raise Silent(f"not an answer to this case: {line[:200]!r}")
        return reply

    def _exchange(self, request: bytes) -> bytes:
        """Write the request and read a line, whichever of the two can go on."""
        deadline = time.monotonic() + self._timeout
        with selectors.DefaultSelector() as selector:
            selector.register(self._out, selectors.EVENT_READ)
            selector.register(self._in, selectors.EVENT_WRITE)
            while b"\n" not in self._pending:
                ready = selector.select(max(0.0, deadline - time.monotonic()))
                if not ready:
                    raise Silent(f"no answer within {self._timeout:g} s")
                for key, _ in ready:
                    if key.fileobj is self._out:
                        self._read()
                        continue
                    try:
                        request = request[os.write(self._in.fileno(), request) :]
                    except BrokenPipeError:
                        raise Silent("it no longer reads its stdin") from None
                    if not request:
                        selector.unregister(self._in)
        line, _, self._pending = self._pending.partition(b"\n")
        return line

    def _read(self) -> None:
        chunk = os.read(self._out.fileno(), _CHUNK)
        if not chunk:
            raise Silent("it ended")
        self._pending += chunk
        if len(self._pending) > _LONGEST:
            raise Silent(f"a line of more than {_LONGEST} bytes")


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    if stream is None:
        raise HarnessError("a pipe to the command is missing")
    return stream


def judge(case: Case, reply: dict[str, Any]) -> Judged:
    """Compare a reply with what the case expects."""
    if reply.get("unsupported") is True:
        return Judged(case, Judgement.UNSUPPORTED)
    if "result" not in reply:
        return Judged(case, Judgement.WRONG, f"error: {reply.get('error', 'neither result nor error')}")
    result = reply["result"]
    if json.dumps(result, sort_keys=True) == json.dumps(case.expected, sort_keys=True):
        return Judged(case, Judgement.RIGHT)
    return Judged(case, Judgement.WRONG, _difference(case.expected, result))


def _difference(expected: dict[str, Any], result: Any) -> str:
    if not isinstance(result, dict):
        return f"result is {_short(result)}"
    parts = []
    for name in sorted({*expected, *result}, key=str):
        if name not in result:
            parts.append(f"{name} is missing, expected {_short(expected[name])}")
        elif name not in expected:
            parts.append(f"{name} is {_short(result[name])}, not expected")
        elif expected[name] != result[name]:
            parts.append(f"{name} is {_short(result[name])}, expected {_short(expected[name])}")
    return "; ".join(parts) or "a value of another JSON type"


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 160 else f"{text[:157]}..."


def run(cases: Iterable[Case], command: Sequence[str], timeout: float) -> list[Judged]:
    """Every case judged; a command that stops answering is started anew, at most RESTARTS times."""
    waiting = list(cases)[::-1]
    judged: list[Judged] = []
    for _ in range(RESTARTS + 1):
        if not waiting:
            break
        with Implementation(command, timeout) as implementation:
            while waiting:
                case = waiting.pop()
                try:
                    judged.append(judge(case, implementation.ask(case)))
                except Silent as silent:
                    judged.append(Judged(case, Judgement.WRONG, str(silent)))
                    break
    why = f"the command stopped answering {RESTARTS + 1} times"
    return judged + [Judged(case, Judgement.NOT_RUN, why) for case in reversed(waiting)]

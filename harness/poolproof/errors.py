"""Errors that end a run with one clear line instead of a traceback."""

from __future__ import annotations


class HarnessError(Exception):
    """The harness itself cannot go on (exit status 2).

    `message` says what was wrong, `hint` what to do about it.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  {self.hint}" if self.hint else self.message

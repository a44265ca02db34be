# SPDX-License-Identifier: GPL-2.0-or-later
"""The programs in reference/README.md run and print what stands below them."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest

import poolref

README = Path(poolref.__file__).parents[1] / "README.md"
_BLOCK = re.compile(r"^```(python|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def examples() -> list[tuple[str, str]]:
    """Each program with what it is to print."""
    blocks = _BLOCK.findall(README.read_text(encoding="utf-8"))
    assert [kind for kind, _ in blocks] == ["python", "text"] * (len(blocks) // 2)
    return [(program, output) for (_, program), (_, output) in zip(blocks[::2], blocks[1::2], strict=True)]


EXAMPLES = examples()


def test_there_are_examples() -> None:
    assert len(EXAMPLES) == 6


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_an_example_does_what_it_says(number: int) -> None:
    program, expected = EXAMPLES[number]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(program, f"{README} example {number}", "exec"), {"__name__": "__main__"})  # noqa: S102
    assert printed.getvalue() == expected

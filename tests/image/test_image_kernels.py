# SPDX-License-Identifier: GPL-2.0-or-later
"""The matrix of kernels."""

from __future__ import annotations

from pathlib import Path

import pytest

from poolproof.errors import HarnessError
from poolproof.image.kernels import load_kernels, select
from poolproof.image.store import RECIPE

ENTRY = '[[kernel]]\nname = "{0}"\nsuite = "s"\nimage = "i"\nheaders = "h"\n{1}\n'


def test_the_shipped_matrix_is_well_formed() -> None:
    specs = load_kernels(RECIPE / "kernels.toml")
    assert select(specs, None).name == "6.1-cloud"


def test_selection(tmp_path: Path) -> None:
    file = tmp_path / "kernels.toml"
    file.write_text(ENTRY.format("a", 'extra = ["x", "y"]') + ENTRY.format("b", "default = true"))
    specs = load_kernels(file)
    assert select(specs, None).name == "b"
    assert select(specs, "a").extra == ("x", "y")
    with pytest.raises(HarnessError, match="no kernel named 'c'") as caught:
        select(specs, "c")
    assert caught.value.hint == "kernels: a, b"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (ENTRY.format("a", ""), "exactly one kernel"),
        (ENTRY.format("a", "default = true") * 2, "occurs twice"),
        (ENTRY.format("a", 'default = true\nboot = "floppy"'), "boot must be one of"),
        (ENTRY.format("a", "default = true\nfantasy = 1"), "fantasy"),
        ('[[kernel]]\nname = "a"\n', "missing"),
        ("[[kernel]", "kernels.toml"),
    ],
)
def test_mistakes_in_the_matrix_are_named(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "kernels.toml"
    file.write_text(text)
    with pytest.raises(HarnessError, match=message):
        load_kernels(file)

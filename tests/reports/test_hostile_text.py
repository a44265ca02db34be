# SPDX-License-Identifier: GPL-2.0-or-later
"""Whatever a device says, what is shown is harmless, bounded and does not hide that something was there."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poolproof.reports.text import line, sanitize


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("plain äöü 漢字 🙂\ttab\nline", "plain äöü 漢字 🙂\ttab\nline"),
        ("\x1b[31;1mred\x1b[0m", "red"),
        ("\x1b]0;title\x07x\x1b]8;;http://a\x1b\\y", "xy"),
        ("\x9b2Jx\x9d0;t\x9cy", "xy"),
        ("\x1bPq#0;2\x1b\\z\x1b7\x1b(B", "z"),
        ("a\x00b\x08c\x7f\x85", "a␀b␈c␡\\u0085"),
        ("\x1b", "␛"),
        ("one\r\ntwo\r\r\nthree\rfour", "one\ntwo\nthree␍four"),
        ("abc\u202edcb\u2066\u200b\ufeff", "abc\\u202edcb\\u2066\\u200b\\ufeff"),
        ("a\u2028b\ud800\uffff", "a\\u2028b\\ud800\\uffff"),
        (b"ok \xff\xfe\xc3", "ok ���"),
        ("\U000e0041tag", "\\ue0041tag"),
    ],
)
def test_what_is_shown(raw: str | bytes, shown: str) -> None:
    assert sanitize(raw) == shown


def test_every_invisible_character_is_named() -> None:
    for code in range(0x110000):
        character = chr(code)
        if unicodedata.category(character) in {"Cc", "Cf", "Cs", "Zl", "Zp"} and character not in "\t\n":
            assert character not in sanitize(f"x{character}y"), hex(code)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=400) | st.text(max_size=200))
def test_nothing_gets_through(raw: bytes | str) -> None:
    shown = sanitize(raw)
    for character in shown:
        assert character in "\t\n" or unicodedata.category(character) not in {"Cc", "Cf", "Cs", "Zl", "Zp"}
    assert sanitize(shown) == shown
    assert "\n" not in line(raw)
    shown.encode("utf-8")


def test_what_is_too_long_loses_its_middle_visibly() -> None:
    shown = sanitize("a" * 700 + "b" * 700 + "c" * 700, 1000)
    assert shown == "a" * 500 + "\n[cut: 1100 bytes]\n" + "c" * 500
    assert len(line("x" * 5000, 100)) < 140


@pytest.mark.parametrize("piece", ["\x1b]", "\x1b[", "\x1bP", "\x9d" * 8, "\r", "\x1b[" + "1;" * 40])
def test_no_input_takes_forever(piece: str) -> None:
    # A quadratic pattern would need minutes for this, and the suite would not end.
    assert len(sanitize(piece * 200_000, 4 << 20)) < 32 << 20

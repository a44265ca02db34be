# SPDX-License-Identifier: GPL-2.0-or-later
"""The JSON form of arguments and results."""

from __future__ import annotations

import dataclasses
import enum
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poolref.tools.kernel_abi import SessionInfo
from poolref.tools.plain import decode, encode

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.sampled_from(["b64", "object"]), inner),
    max_leaves=20,
)


@given(plain)
def test_what_goes_in_comes_out(value: Any) -> None:
    line = json.dumps(encode(value))
    assert "\n" not in line, "one line each"
    assert decode(json.loads(line)) == value


@pytest.mark.parametrize(
    ("value", "form"),
    [
        (b"\x00\xff", {"b64": "AP8="}),
        (bytearray(b"x"), {"b64": "eA=="}),
        (memoryview(b"x"), {"b64": "eA=="}),
        ((1, (b"",)), [1, [{"b64": ""}]]),
        ({1: 2}, {"1": 2}),
        ({"b64": "x"}, {"object": {"b64": "x"}}),
        ({"object": {"b64": 1}}, {"object": {"object": {"object": {"b64": 1}}}}),
    ],
)
def test_forms(value: Any, form: Any) -> None:
    assert encode(value) == form


class Colour(enum.IntEnum):
    RED = 3


@dataclasses.dataclass(frozen=True, slots=True)
class Inner:
    data: bytes
    colour: Colour


@dataclasses.dataclass
class Outer:
    inner: Inner
    names: tuple[str, ...]


def test_dataclasses_become_objects() -> None:
    line = json.dumps(encode(Outer(Inner(b"x", Colour.RED), ("a",))))
    assert json.loads(line) == {"inner": {"data": {"b64": "eA=="}, "colour": 3}, "names": ["a"]}
    row = SessionInfo(3, "::1", 4, "ESTABLISHED", "aa", telemetry={"mtu": 1400})
    assert SessionInfo(**decode(json.loads(json.dumps(encode(row))))) == row


@pytest.mark.parametrize("form", [{"b64": "not base64 ="}, {"b64": "é"}, {"b64": 3}, {"object": 3}])
def test_what_encode_never_makes(form: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        decode(form)

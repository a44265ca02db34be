# SPDX-License-Identifier: GPL-2.0-or-later
"""Playing a misbehaviour against a device: what can be played, and how it shows in the evidence."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any, cast

import pytest

from poolproof.devices.deviant import PLAYABLE, Deviant
from poolproof.devices.reference import _line
from poolproof.devices.stage import Stage
from poolref.constants import Role
from poolref.events import PacketTrace
from poolref.misbehaviour import SWITCHES, parse

FEATURE = Path(__file__).resolve().parents[2] / "features" / "misbehaviour.feature"


def deviant(role: str, text: str) -> Deviant:
    return Deviant(cast(Stage, None), role, text)


def test_what_can_be_played() -> None:
    found = deviant("client", "bad-hmac:byte=3")
    assert (found.switch.name, found.role, found.done) == ("bad-hmac", Role.CLIENT, 0)
    assert found.reaction == SWITCHES["bad-hmac"].expected(Role.CLIENT)


@pytest.mark.parametrize(
    ("role", "text", "said"),
    [
        ("client", "sing", "there is no misbehaviour"),
        ("client", "bad-hmac:byte=99", "byte is within"),
        ("client", "refuses", "cannot be played as client"),
        ("server", "stale-init", "cannot be played as server"),
        ("client", "config-hash", "cannot be played as client"),
    ],
)
def test_what_cannot(role: str, text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        deviant(role, text)


def rows() -> list[tuple[str, str]]:
    """(role, switch) of every row of the feature."""
    found, role = [], ""
    for line in FEATURE.read_text(encoding="utf-8").splitlines():
        if "misbehaves with <switch>" in line and "Outline" in line:
            role = "client" if "a client" in line else "server"
        elif line.startswith("      | ") and line.split()[1] != "switch":
            found.append((role, line.split()[1]))
    return found


def test_every_row_of_the_feature_can_be_played() -> None:
    assert len(rows()) > 40
    for role, text in rows():
        assert deviant(role, text).switch.phase in PLAYABLE


def test_every_row_is_of_the_requirements_it_is_tagged_with() -> None:
    tags: set[str] = set()
    claimed: set[str] = set()
    for line in FEATURE.read_text(encoding="utf-8").splitlines():
        if line.strip().startswith("@req"):
            tags = {word.removeprefix("@req.") for word in line.split()}
            claimed |= tags
        elif line.startswith("      | ") and line.split()[1] != "switch":
            switch, _values = parse(line.split()[1])
            assert tags & set(switch.violates), f"{switch.name} violates none of {tags}"
    violated = {each for _role, text in rows() for each in parse(text)[0].violates}
    violated -= {each for each in violated if each.startswith("TRN")}  # which is about raw IP here
    assert claimed == violated


def test_bytes_that_are_no_packet_are_told_in_the_timeline() -> None:
    packet = random.Random(1).randbytes(100)
    line = _line(PacketTrace(1_500_000_000, "sent", packet, None))
    assert line.startswith("      1.500000  sent      100 bytes: payload_len at offset 44")
    assert cast(Any, _line)(PacketTrace(0, "sent", b"", None)).endswith("truncated")

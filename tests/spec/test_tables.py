# SPDX-License-Identifier: GPL-2.0-or-later
"""The tables of protocol.md and abi.md say the same as the reference's own tables."""

from __future__ import annotations

import itertools
import re
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from poolref import constants, wire
from poolref.counters import COUNTER_NAMES, DropReason
from poolref.states import lookup
from poolref.tools import kernel_abi

SPEC = Path(__file__).resolve().parents[2] / "spec"
PROTOCOL = (SPEC / "protocol.md").read_text(encoding="utf-8")
ABI = (SPEC / "abi.md").read_text(encoding="utf-8")

Row = list[str]
C_TYPES = {"u8": 1, "u16": 2, "u32": 4, "u64": 8, "i32": 4, "44 bytes, packed": 44}


def section(text: str, heading: str) -> str:
    """What stands under a ``## `` heading that starts with ``heading``."""
    parts = re.split(r"^## ", text, flags=re.MULTILINE)
    found = [part for part in parts if part.startswith(heading)]
    assert len(found) == 1, heading
    return found[0]


def rows(text: str) -> Iterator[Row]:
    """The cells of every body row of every table, in the order of the text."""
    for line in text.splitlines():
        if line.lstrip().startswith("|") and not re.fullmatch(r"[\s|:-]+", line):
            yield [cell.strip() for cell in line.strip().strip("|").split("|")]


def pairs(text: str, pattern: str) -> dict[str, str]:
    """``name -> number`` of two-column-block tables whose number cells match ``pattern``."""
    found: dict[str, str] = {}
    for row in rows(text):
        for number, name in itertools.pairwise(row):
            if re.fullmatch(pattern, number) and name:
                found[name.split(" ")[0].rstrip(":")] = number
    return found


def test_header_layout() -> None:
    written = [
        (name, int(offset), int(size))
        for offset, size, name, *_ in rows(section(PROTOCOL, "1. Header"))
        if offset.isdigit()
    ]
    fields = [
        (field.name.replace("_type", ", type"), field.offset, field.size) for field in wire.FIELDS["header"]
    ]
    assert written == fields
    assert sum(size for _, _, size in written) == constants.HEADER_SIZE == 80


def test_types() -> None:
    written = pairs(section(PROTOCOL, "2. Types"), r"0x[0-9A-C]")
    assert {name: int(number, 16) for name, number in written.items()} == {
        each.name: each.value for each in constants.Type
    }


def test_flags() -> None:
    written = pairs(section(PROTOCOL, "3. Flags"), r"\d")
    assert {name: 1 << int(bit) for name, bit in written.items()} == {
        flag.name: flag.value for flag in constants.Flag
    }


def test_close_codes() -> None:
    written = pairs(section(PROTOCOL, "15. CLOSE"), r"0x0[1-9A]")
    assert {name: int(code, 16) for name, code in written.items()} == {
        code.name: code.value for code in constants.ErrorCode
    }


def test_every_counter_of_the_text_exists() -> None:
    table = section(PROTOCOL, "15. CLOSE").partition("The counters named")[2]
    written = set(re.findall(r"`(\w+)`", table))
    mentioned = set(re.findall(r"count(?:ed|s)? `(\w+)`|is `(malformed)`", PROTOCOL))
    assert {name for pair in mentioned for name in pair if name} <= written
    assert written - {"packets_lost"} <= {str(reason) for reason in DropReason}
    assert "malformed" in written
    assert set(COUNTER_NAMES) >= written - {"packets_lost"}


def test_state_table() -> None:
    written: dict[str, set[str]] = {}
    for number, name, types in rows(section(PROTOCOL, "5. States")):
        if number.isdigit():
            # "on raw also a duplicate RESPONSE" is answered before the table is consulted (SEQ-03).
            allowed = types.partition(";")[0].replace("advisory ", "")
            if allowed.startswith("the same as "):
                allowed = ", ".join(written[allowed.removeprefix("the same as ")])
            written[name] = {each for each in allowed.split(", ") if each != "none"}
        elif name == "*listener*":
            written["IDLE"] = set(types.split(", "))  # a listener's connection is in state 0
    for state in constants.State:
        legal = {kind.name for kind in constants.Type if not isinstance(lookup(state, kind), DropReason)}
        expected = {"INIT", "RESPONSE"} if state is constants.State.IDLE else written[state.name]
        assert legal == expected, state.name
    assert set(written) == {state.name for state in constants.State}


def test_telemetry_layout() -> None:
    text = section(PROTOCOL, "12. Telemetry")
    blocks = [block for row in rows(text) for block in (row[:3], row[3:6]) if block and block[0].isdigit()]
    written = {name: (int(offset), C_TYPES[kind]) for offset, name, kind in blocks}
    assert written == {field.name: (field.offset, field.size) for field in wire.FIELDS["telemetry"]}
    assert f"{constants.TELEMETRY_SIZE} bytes" in text


def test_handshake_sizes() -> None:
    written = {
        row[1]: int(row[3]) for row in rows(section(PROTOCOL, "8. Handshake")) if row[0] in ("C → S", "S → C")
    }
    assert written == {
        "INIT": constants.INIT_SIZE,
        "CHALLENGE": constants.CHALLENGE_SIZE,
        "RESPONSE": constants.RESPONSE_SIZE,
        "ACK": 0,
    }


def structures() -> dict[str, tuple[int, list[tuple[int, int]]]]:
    """Structure name -> its size and the (offset, size) of each field, as abi.md has them."""
    found: dict[str, tuple[int, list[tuple[int, int]]]] = {}
    current: list[str] = []
    for line in ABI.splitlines():
        title = re.match(r"\s*(\*\*\w+\*\*.*) \((\d+) bytes(?: each)?\)$", line)
        if title:
            current = re.findall(r"\*\*(\w+)\*\*", title[1])
            for name in current:
                found[name] = (int(title[2]), [])
        elif current and line.lstrip().startswith("|"):
            cells = next(rows(line), None)
            if cells and cells[0].isdigit():
                kind = re.fullmatch(r"(.+?)(?:\[(\d+)\])?", cells[2])
                assert kind
                for name in current:
                    found[name][1].append((int(cells[0]), C_TYPES[kind[1]] * int(kind[2] or 1)))
        elif line.startswith("##"):
            current = []
    return found


def layout(form: struct.Struct) -> list[tuple[int, int]]:
    """(offset, size) of each value that a format without implicit padding packs."""
    offset = 0
    found = []
    for count, code in re.findall(r"(\d*)([a-zA-Z])", form.format):
        if code == "x":
            offset += int(count or 1)
            continue
        repeat, size = (1, int(count)) if code == "s" else (int(count or 1), struct.calcsize("=" + code))
        for _ in range(repeat):
            found.append((offset, size))
            offset += size
    assert offset == form.size
    return found


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("connect_req", kernel_abi.CONNECT_REQ),
        ("send_req", kernel_abi.MESSAGE_REQ),
        ("recv_req", kernel_abi.MESSAGE_REQ),
        ("session_info", kernel_abi.SESSION_INFO),
        ("session_list", kernel_abi.SESSION_LIST),
        ("channel_req", kernel_abi.CHANNEL_REQ),
    ],
)
def test_abi_structures(name: str, form: struct.Struct) -> None:
    size, fields = structures()[name]
    # The format skips trailing reserved bytes, which the document lists.
    assert [field for field in fields if field in layout(form)] == layout(form)
    assert all(field in layout(form) or field == (20, 4) for field in fields)
    assert size == form.size


def test_ioctl_numbers() -> None:
    written = {row[1]: (int(row[0]), row[2]) for row in rows(section(ABI, "1. ioctls")) if row[0].isdigit()}
    size_of = {name: size for name, (size, _) in structures().items()} | {"u16": 2, "u32": 4}
    directions = {"_IO": 0, "_IOW": 1, "_IOWR": 3}
    assert len(written) == 8
    for name, (number, argument) in written.items():
        match = re.fullmatch(r"`(_IO\w*)`(?: (\w+).*)?", argument)
        assert match, argument
        code = directions[match[1]] << 30 | size_of.get(match[2], 0) << 16 | ord("P") << 8 | number
        assert getattr(kernel_abi, f"IOC_{name}") == code, name

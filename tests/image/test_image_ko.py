# SPDX-License-Identifier: GPL-2.0-or-later
"""Module files read, also broken and hostile ones."""

from __future__ import annotations

import struct
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poolproof.errors import HarnessError
from poolproof.image.ko import inspect_ko

MODINFO = (
    b"license=GPL\0depends=libcurve25519,udp_tunnel\0name=pool\0parm=port:the port\0parmtype=port:int\0"
    b"parm=debug:be loud\0srcversion=ABCDEF\0vermagic=6.1.0-9-test SMP preempt mod_unload \0"
)


def make_elf(modinfo: bytes | None = MODINFO, *, kind: int = 1, machine: int = 62) -> bytes:
    """A relocatable object with a string table and, if given, a .modinfo section."""
    names = b"\0.shstrtab\0.modinfo\0.bss\0"
    offset = 64
    rows = [struct.pack("<IIQQQQIIQQ", *[0] * 10)]
    rows.append(struct.pack("<IIQQQQIIQQ", 1, 3, 0, 0, offset, len(names), 0, 0, 1, 0))
    if modinfo is not None:
        rows.append(struct.pack("<IIQQQQIIQQ", 11, 1, 2, 0, offset + len(names), len(modinfo), 0, 0, 1, 0))
    # Without bytes in the file, however large it claims to be.
    rows.append(struct.pack("<IIQQQQIIQQ", 20, 8, 2, 0, offset, 2**40, 0, 0, 1, 0))
    body = names + (modinfo or b"")
    identity = b"\x7fELF\x02\x01\x01" + bytes(9)
    header = struct.pack(
        "<16sHHIQQQIHHHHHH",
        identity,
        kind,
        machine,
        1,
        0,
        0,
        offset + len(body),
        0,
        64,
        0,
        0,
        64,
        len(rows),
        1,
    )
    return header + body + b"".join(rows)


def test_what_a_module_says_about_itself(tmp_path: Path) -> None:
    file = tmp_path / "x.ko"
    file.write_bytes(make_elf())
    info = inspect_ko(file)
    assert info.name == "pool"
    assert info.release == "6.1.0-9-test"
    assert info.vermagic == "6.1.0-9-test SMP preempt mod_unload "
    assert (info.license, info.srcversion, info.version) == ("GPL", "ABCDEF", "")
    assert info.depends == ("libcurve25519", "udp_tunnel")
    assert info.parameters == ("port", "debug")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not a 64-bit"),
        (b"#!/bin/sh\n", "not a 64-bit"),
        (make_elf(kind=2), "not a relocatable"),
        (make_elf(machine=183), "not a relocatable"),
        (make_elf(None), r"no \.modinfo"),
        (make_elf()[:-10], "section table is broken"),
    ],
)
def test_what_is_no_module_is_refused(tmp_path: Path, data: bytes, reason: str) -> None:
    file = tmp_path / "x.ko"
    file.write_bytes(data)
    with pytest.raises(HarnessError, match=reason):
        inspect_ko(file)
    with pytest.raises(HarnessError, match="cannot read"):
        inspect_ko(tmp_path / "absent.ko")


@given(
    st.lists(st.tuples(st.integers(0, len(make_elf()) - 1), st.integers(0, 255)), max_size=8),
    st.integers(0, 900),
)
def test_a_broken_file_gives_one_clear_error(changes: list[tuple[int, int]], keep: int) -> None:
    data = bytearray(make_elf())
    for offset, value in changes:
        data[offset] = value
    with tempfile.NamedTemporaryFile(suffix=".ko") as file:
        file.write(data[:keep])
        file.flush()
        # Any other exception than the one that a user is shown as one line fails the test.
        with suppress(HarnessError):
            inspect_ko(Path(file.name))

# SPDX-License-Identifier: GPL-2.0-or-later
"""The control structures against the sizes and offsets of spec/abi.md, and against a C compiler's view."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from poolref.tools import kernel_abi

UAPI = Path(__file__).resolve().parents[2] / "kernel" / "uapi"


@pytest.mark.parametrize(
    ("layout", "size"),
    [
        (kernel_abi.CONNECT_REQ, 24),
        (kernel_abi.MESSAGE_REQ, 24),
        (kernel_abi.SESSION_INFO, 120),
        (kernel_abi.SESSION_LIST, 16),
        (kernel_abi.CHANNEL_REQ, 24),
        (kernel_abi.CONNECT_REQ_EARLIEST, 8),
        (kernel_abi.SESSION_INFO_EARLIEST, 112),
        (kernel_abi.TELEMETRY, 44),
    ],
)
def test_structure_sizes_are_those_of_the_abi(layout, size):
    assert layout.size == size


def test_ioctl_numbers_agree_with_the_module_header(tmp_path):
    """The compiler expands the module's own header; each number must be the one poolctl issues."""
    if not shutil.which("cc"):
        pytest.skip("no C compiler here")
    names = ["LISTEN", "CONNECT", "SEND", "RECV", "SESSIONS", "CLOSE_SESS", "STOP", "CHANNEL", "CONTROL"]
    source = tmp_path / "numbers.c"
    prints = "".join(f'printf("%u\\n", (unsigned)POOL_IOC_{name});' for name in names)
    includes = '#include <stdio.h>\n#include <sys/ioctl.h>\n#include "pool.h"\n'
    source.write_text(f"{includes}int main(void){{{prints}return 0;}}\n")
    program = tmp_path / "numbers"
    subprocess.run(["cc", "-I", str(UAPI), "-o", str(program), str(source)], check=True)
    seen = subprocess.run([str(program)], check=True, capture_output=True, text=True).stdout.split()
    assert [int(n) for n in seen] == [getattr(kernel_abi, f"IOC_{name}") for name in names]


@pytest.mark.parametrize(
    ("text", "packed"),
    [
        ("1.2.3.4", "00000000000000000000ffff01020304"),
        ("::1", "00000000000000000000000000000001"),
        ("fe80::1%eth0", "fe800000000000000000000000000001"),
    ],
)
def test_addresses_are_sixteen_bytes_without_scope(text, packed):
    assert kernel_abi.mapped(text).hex() == packed


def test_an_address_survives_the_round_trip():
    for text in ("10.253.0.2", "fd00:253::2"):
        assert kernel_abi.unmapped(kernel_abi.mapped(text)) == text


def test_a_name_is_not_an_address():
    with pytest.raises(ValueError, match="localhost"):
        kernel_abi.mapped("localhost")


@pytest.mark.parametrize("variant", ["current", "earliest"])
def test_session_rows_of_both_variants_read_alike(variant):
    device = object.__new__(kernel_abi.PoolDevice)
    device.variant = variant
    telemetry = kernel_abi.TELEMETRY.pack(1, 2, 3, 4, 1400, 6, 7, 8, 9)
    counts = (10, 20, 3, 4, 5)
    if variant == "current":
        row = (7, kernel_abi.mapped("10.0.0.9"), 9253, 2, 3, bytes(range(16)), *counts, telemetry)
        layout = kernel_abi.SESSION_INFO
    else:
        row = (7, 0x0A000009, 9253, 3, bytes(range(16)), *counts, telemetry)
        layout = kernel_abi.SESSION_INFO_EARLIEST
    info = device._session_info(layout.unpack(layout.pack(*row)))
    assert (info.index, info.peer_addr, info.peer_port, info.state) == (7, "10.0.0.9", 9253, "ESTABLISHED")
    assert info.session_id == bytes(range(16)).hex()
    assert (
        info.bytes_sent,
        info.bytes_recv,
        info.packets_sent,
        info.packets_recv,
        info.rekey_count,
    ) == counts
    assert info.telemetry["mtu"] == 1400
    assert info.telemetry["config_version"] == 9

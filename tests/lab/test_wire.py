# SPDX-License-Identifier: GPL-2.0-or-later
"""The wire on veth pairs, and frames by themselves."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from poolproof.lab.frames import Frame, matching, parse, with_checksums
from poolproof.lab.rules import Drop, Rule

ENTER = "import sys; from poolproof.lab import sandbox; sys.exit(sandbox.enter(sys.argv[1:]))"
INSIDE = Path(__file__).with_name("inside_wire.py")


def test_the_wire_inside_the_sandbox() -> None:
    command = [sys.executable, "-c", ENTER, sys.executable, "-m", "pytest", "-v", str(INSIDE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    if "HarnessError: the sandbox" in done.stderr or "HarnessError: /dev/net/tun" in done.stderr:
        pytest.skip(f"no sandbox on this host: {done.stderr.splitlines()[-1]}")
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed.group(1)) >= 20


# A TCP SYN to port 80; its IPv4 header is the usual textbook example, with the checksum b1e6.
SYN = bytes.fromhex(
    "001422b8e39700e018b1a4be08004500003c1c4640004006b1e6ac100a63ac100a0c"
    "a1b200500000000100000000a002fff0000000000204059c0402080a000000010000000001030307"
)
ICMP6 = bytes.fromhex(
    "333300000001525400fd000286dd6000000000083afffd0002530000000000000000000000 02".replace(" ", "")
    + "ff020000000000000000000000000001" + "8000000000010001"
)


def test_parse_reads_ipv4_and_tcp() -> None:
    packet = parse(SYN)
    assert packet is not None
    assert (packet.version, packet.source, packet.destination) == (4, "172.16.10.99", "172.16.10.12")
    assert (packet.source_port, packet.destination_port, packet.tcp_flags) == (41394, 80, 2)
    assert packet.payload_at == packet.end == 14 + 60 == len(SYN)


def test_parse_reads_ipv6() -> None:
    packet = parse(ICMP6)
    assert packet is not None
    assert (packet.version, packet.source, packet.protocol, packet.ttl) == (6, "fd00:253::2", 58, 255)


@pytest.mark.parametrize("cut", range(54))
def test_a_frame_cut_short_is_no_packet(cut: int) -> None:
    assert parse(SYN[:cut]) is None or cut >= 34


def test_the_checksum_of_the_textbook_header() -> None:
    assert with_checksums(SYN[:24] + b"??" + SYN[26:])[24:26] == b"\xb1\xe6"


def test_checksums_agree_with_an_independent_stack() -> None:
    scapy = pytest.importorskip("scapy.all")
    for frame in (SYN, ICMP6):
        other = scapy.Ether(frame)
        layer = other
        while layer:
            for name in ("chksum", "cksum"):
                if name in layer.fields:
                    delattr(layer, name)
            layer = layer.payload
        assert with_checksums(frame) == bytes(other)


def test_matching_conditions_all_hold() -> None:
    frame = Frame(SYN, "a", 0)
    assert matching(source="a", transport="tcp", port=80, payload=False)(frame)
    assert matching(source="172.16.10.99", destination="172.16.10.12")(frame)
    for other in (
        matching(source="b"),
        matching(transport="udp"),
        matching(port=81),
        matching(payload=True),
        matching(contains=b"x"),
        matching(where=lambda payload: len(payload) > 0),
    ):
        assert not other(frame)


def test_a_rule_counts_matches_from_the_kth() -> None:
    rule = Rule(lambda frame: frame.port == "a", Drop(), k=2, count=2)
    acted = [rule.apply(Frame(b"", port, 0)) is not None for port in "aabaa"]
    assert acted == [False, True, False, True, False]
    assert (rule.seen, rule.applied) == (4, 2)

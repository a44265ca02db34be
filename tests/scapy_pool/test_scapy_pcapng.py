# SPDX-License-Identifier: GPL-2.0-or-later
"""Captures that carry their keys."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from scapy.compat import raw
from scapy.layers.inet import IP
from scapy.layers.l2 import Ether
from scapy.sendrecv import sniff
from scapy_captured import LONG, SHORT, capture

import scapy_pool as sp
from poolproof.lab.capture import SECRETS_POOL, Frame, write_pcapng
from poolref.errors import DecodeError
from scapy_pool.pcapng import SECRETS_TYPE


@pytest.fixture(autouse=True)
def _empty_ring() -> Iterator[None]:
    sp.keyring.clear()
    yield
    sp.keyring.clear()


def block(order: str, kind: int, body: bytes) -> bytes:
    body += bytes(-len(body) % 4)
    length = struct.pack(order + "I", len(body) + 12)
    return struct.pack(order + "I", kind) + length + body + length


def section(order: str) -> bytes:
    return block(order, 0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1))


def secrets(order: str, text: str, kind: int = SECRETS_TYPE) -> bytes:
    return block(order, 0x0A, struct.pack(order + "II", kind, len(text)) + text.encode())


def test_a_capture_of_the_harness_opens_with_the_keys_inside_it(tmp_path: Path) -> None:
    session = capture()
    path = tmp_path / "x.pcapng"
    head = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / IP(
        src="192.0.2.1", dst="192.0.2.2", proto=253
    )
    frames = [Frame(raw(head / packet), "a", n, n) for n, packet in enumerate(session.packets)]
    write_pcapng(path, frames, ["a"], secrets=session.keylog)
    assert SECRETS_TYPE == SECRETS_POOL
    assert sp.keyring.load(path) == 1
    found = sniff(offline=str(path), session=sp.PoolSession, quiet=True)
    assert [packet.data for packet in found if sp.PoolData in packet] == [SHORT, LONG]


@pytest.mark.parametrize("order", ["<", ">"])
def test_both_byte_orders_and_several_blocks(tmp_path: Path, order: str) -> None:
    path = tmp_path / "x.pcapng"
    logs = [capture(seed).keylog for seed in (1, 2, 3)]
    other_order = section({"<": ">", ">": "<"}[order]) + secrets({"<": ">", ">": "<"}[order], logs[2])
    path.write_bytes(
        section(order)
        + secrets(order, logs[0])
        + secrets(order, "CLIENT_RANDOM 00 00\n", 0x544C534B)  # TLS keys are somebody else's
        + secrets(order, logs[1])
        + other_order
    )
    assert sp.keyring.load(path) == 3
    assert [sp.Pool(capture(seed).packets[4]).auth for seed in (1, 2, 3)] == [sp.Auth.OK] * 3


@pytest.mark.parametrize(
    "damage",
    [
        section("<") + struct.pack("<II", 1, 6),
        section("<") + struct.pack("<II", 1, 13),
        section("<") + b"\0\0\0",
        section("<") + secrets("<", "text")[:12],
        section("<") + block("<", 0x0A, struct.pack("<II", SECRETS_TYPE, 9) + b"text"),
        section("<")[:8] + b"no magic",
        section("<")[:8],
        section("<") + secrets("<", "not a key\n"),
    ],
    ids=["short", "odd", "cut-head", "cut-secrets", "long-secrets", "order", "nothing", "no-key"],
)
def test_what_is_no_pcapng_is_refused(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "x.pcapng"
    path.write_bytes(damage)
    with pytest.raises(DecodeError):
        sp.keyring.load(path)
    assert len(sp.keyring) == 0


def test_a_packet_cut_off_at_the_end_does_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "x.pcapng"
    path.write_bytes(section("<") + secrets("<", capture().keylog) + block("<", 6, bytes(200))[:50])
    assert sp.keyring.load(path) == 1

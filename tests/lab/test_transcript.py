# SPDX-License-Identifier: GPL-2.0-or-later
"""A capture as text: order restored, packets opened only when their keys verify them."""

from __future__ import annotations

import struct

from poolproof.lab.frames import Frame
from poolproof.lab.transcript import transcript
from poolref import wire
from poolref.constants import Flag, Type
from poolref.keys import Keys
from poolref.wire import Header

SESSION = bytes(range(16))
KEYS = Keys(bytes(32))
KEYLOG = [KEYS.log_entry(SESSION).line()]


def frame(data: bytes, seq: int, flags: int = 0x10, number: int = 0) -> Frame:
    tcp = struct.pack("!HHIIBBHHH", 40000, 9253, seq, 0, 5 << 4, flags, 0, 0, 0) + data
    addresses = bytes([10, 253, 0, 1, 10, 253, 0, 2])
    ip = struct.pack("!BxHxxHBBH", 0x45, 20 + len(tcp), 0, 64, 6, 0) + addresses
    return Frame(bytes(12) + b"\x08\x00" + ip + tcp, "harness", 1_000_000 * number, number)


def packet(message: bytes = b"plaintext", **fields: int) -> bytes:
    header = Header(Type.DATA, flags=int(Flag.REQUIRE_ACK), seq=7, session_id=SESSION)
    for name, value in fields.items():
        setattr(header, name, value)
    return KEYS.protect(header, message)


def test_a_known_key_opens_a_packet():
    text = transcript([frame(b"", 99, 0x02), frame(packet(), 100, number=5)], KEYLOG, {"10.253.0.2": "a"})
    assert "10.253.0.1:40000 > a:9253" in text
    assert "TCP SYN" in text.splitlines()[0]
    assert f"OK(9) {b'plaintext'.hex()}" in text


def test_without_the_key_there_is_no_plaintext():
    text = transcript([frame(packet(), 100)], [], {})
    assert "no key" in text
    assert b"plaintext".hex() not in text


def test_a_forged_packet_is_not_opened():
    forged = bytearray(packet())
    forged[wire.HMAC_OFFSET] ^= 1
    text = transcript([frame(bytes(forged), 100)], KEYLOG, {})
    assert "hmac BAD" in text
    assert b"plaintext".hex() not in text


def test_segments_are_put_into_order_and_repeats_shown_once():
    whole = packet(b"A" * 40) + packet(b"B" * 40)
    parts = [(0, 50), (200, len(whole)), (20, 120), (120, 200), (0, 50)]
    frames = [frame(b"", 999, 0x02)] + [frame(whole[a:b], 1000 + a) for a, b in parts]
    lines = [line for line in transcript(frames, KEYLOG, {}).splitlines() if "DATA" in line]
    assert len(lines) == 2
    assert "41414141" in lines[0]
    assert "42424242" in lines[1]


def test_bytes_that_are_no_packets_are_shown_as_such():
    text = transcript([frame(b"\xff" * 100, 5)], KEYLOG, {})
    assert "no packet" in text
    assert "100 bytes" in text

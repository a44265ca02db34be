# SPDX-License-Identifier: GPL-2.0-or-later
"""Decryption: the verdict, and that nothing but OK shows a plaintext."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from scapy.compat import raw
from scapy_captured import LONG, SHORT, capture

import scapy_pool as sp
from poolref.constants import HEADER_SIZE, Type
from poolref.errors import DecodeError
from poolref.keys import Keys
from poolref.wire import HMAC_OFFSET, Header


@pytest.fixture(autouse=True)
def _empty_ring() -> Iterator[None]:
    sp.keyring.clear()
    yield
    sp.keyring.clear()


def flipped(packet: bytes, offset: int) -> bytes:
    return packet[:offset] + bytes([packet[offset] ^ 1]) + packet[offset + 1 :]


def test_without_keys_the_verdict_is_no_key_and_nothing_is_shown() -> None:
    session = capture()
    for packet in session.packets[2:]:
        read = sp.Pool(packet)
        assert read.auth is sp.Auth.NO_KEY
        assert sp.PoolData not in read
        assert sp.PoolProof not in read
        assert raw(read) == packet
    assert {type(sp.Pool(packet).lastlayer()) for packet in session.of_type(Type.DATA)} == {sp.PoolSealed}


def test_packets_without_protection_have_no_verdict() -> None:
    session = capture()
    assert [sp.Pool(packet, keys=session.keys).auth for packet in session.packets[:2]] == [None, None]
    advisory = sp.Pool(raw(sp.Pool() / sp.PoolClose(code=9)))
    assert (advisory.auth, advisory.code) == (None, 9)


def test_with_the_key_object_everything_opens() -> None:
    session = capture()
    read = [sp.Pool(packet, keys=session.keys) for packet in session.packets[2:]]
    assert {packet.auth for packet in read} == {sp.Auth.OK}
    assert read[0][sp.PoolProof].proof == sp.Pool(session.packets[2], keys=session.keys).proof
    assert next(packet for packet in read if sp.PoolData in packet).data == SHORT
    assert b"".join(packet.data for packet in read if sp.PoolFragment in packet) == LONG


@pytest.mark.parametrize("offset", [1, 3, 4, 19, 40, 46, HMAC_OFFSET, HEADER_SIZE, -1])
def test_one_wrong_bit_is_bad_and_nothing_is_shown(offset: int) -> None:
    session = capture()
    packet = session.of_type(Type.DATA)[0]
    damaged = flipped(packet, offset % len(packet))
    read = sp.Pool(damaged, keys=session.keys)
    assert read.auth is sp.Auth.BAD
    assert sp.PoolData not in read
    assert raw(read) == damaged


def test_a_good_hmac_over_a_bad_tag_is_bad() -> None:
    keys = Keys(b"s" * 32)
    sealed = flipped(keys.seal(5, SHORT), 0)
    packet = keys.sign(Header(Type.DATA, 1, 5), sealed)
    read = sp.Pool(packet, keys=keys)
    assert (read.auth, read[sp.PoolSealed].sealed) == (sp.Auth.BAD, sealed)
    assert raw(read) == packet


def test_the_keys_of_another_session_are_bad() -> None:
    assert sp.Pool(capture().packets[4], keys=capture(2).keys).auth is sp.Auth.BAD


def test_a_truncated_packet_is_bad() -> None:
    session = capture()
    assert sp.Pool(session.of_type(Type.DATA)[0][:-1], keys=session.keys).auth is sp.Auth.BAD


def test_a_ring_of_ones_own_is_used_instead_of_the_global_one() -> None:
    session = capture()
    ring = sp.KeyRing()
    assert sp.Pool(session.packets[4], keys=ring).auth is sp.Auth.NO_KEY
    assert ring.add_log("# a comment\n\n" + session.keylog) == 1
    assert sp.Pool(session.packets[4], keys=ring).auth is sp.Auth.OK
    assert sp.Pool(session.packets[4]).auth is sp.Auth.NO_KEY


def test_a_key_log_is_followed(tmp_path: Path) -> None:
    session, other = capture(), capture(2)
    log = tmp_path / "keys.log"
    log.write_text(other.keylog)
    assert sp.keyring.load(log) == 1
    assert sp.Pool(other.packets[4]).auth is sp.Auth.OK
    assert sp.Pool(session.packets[4]).auth is sp.Auth.NO_KEY
    with log.open("a") as file:
        file.write(session.keylog[:60])  # the writer is in the middle of a line
        file.flush()
        assert sp.Pool(session.packets[4]).auth is sp.Auth.NO_KEY
        file.write(session.keylog[60:])
    assert sp.Pool(session.packets[4]).auth is sp.Auth.OK
    assert len(sp.keyring) == 2
    sp.keyring.load(log)
    assert len(sp.keyring) == 2  # the same keys are not added again


def test_a_key_log_that_went_away_does_not_disturb(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = tmp_path / "keys.log"
    log.write_text("")
    sp.keyring.load(log)
    log.unlink()
    for _ in range(2):
        assert sp.Pool(capture().packets[4]).auth is sp.Auth.NO_KEY
    assert [str(log) in record.getMessage() for record in caplog.records] == [True]


def test_a_wrong_key_log_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DecodeError):
        sp.KeyRing().add_log("POOL_SESSION 00 0 00 00\n")
    with pytest.raises(FileNotFoundError):
        sp.KeyRing().load(tmp_path / "none")


def test_every_epoch_of_a_session_opens_and_the_newest_seals() -> None:
    old, new = Keys(b"a" * 32), Keys(b"b" * 32, epoch=1)
    for keys in (new, old):
        sp.keyring.add(bytes(16), keys)
    for keys in (old, new):
        assert sp.Pool(keys.protect(Header(Type.DATA, 0, 1), b"x")).auth is sp.Auth.OK
    assert new.authentic(raw(sp.Pool(seq=1) / sp.PoolData(b"x")))


def test_erased_keys_are_not_used() -> None:
    keys = Keys(b"a" * 32)
    packet = keys.protect(Header(Type.DATA, 0, 1), b"x")
    sp.keyring.add(bytes(16), keys)
    keys.erase()
    assert sp.Pool(packet).auth is sp.Auth.NO_KEY


def test_whatever_an_authentic_packet_holds_is_read_without_an_error() -> None:
    keys = Keys(b"s" * 32)
    chance = random.Random(7)
    for _ in range(1000):
        plaintext = chance.randbytes(chance.choice([0, 1, 2, 5, 8, 17, 39, 40, 44, 50, 81, 103, 104, 200]))
        flags = chance.choice([0, 0x08, 0x20, 0x40, 0x60, 0x200, 0x220])
        header = Header(chance.randrange(16), flags, chance.getrandbits(62), session_id=b"i" * 16)
        packet = keys.protect(header, plaintext)
        read = sp.Pool(packet, keys=keys)
        assert raw(read) == packet
        assert read.summary()
        assert read.show(dump=True)

# SPDX-License-Identifier: GPL-2.0-or-later
"""The frame log and the pcapng writer, checked against a reader that is not ours."""

from __future__ import annotations

import shutil
import struct
import subprocess
import threading
from pathlib import Path

import pytest

from poolproof.lab.capture import SECRETS_POOL, FrameLog, write_pcapng
from poolproof.lab.frames import Frame

PORTS = ("a", "b", "harness")
SECRETS = "POOL_SESSION 00112233445566778899aabbccddeeff 0 " + "ab" * 32 + " " + "cd" * 32 + "\n"
TIME = 1_795_499_315_716_000_123


def frame(number: int, **changes: object) -> Frame:
    data = bytes([number % 256]) * (60 + number % 5)
    values = {"data": data, "port": PORTS[number % 3], "time_ns": TIME + number}
    return Frame(**{**values, **changes})  # type: ignore[arg-type]


def blocks(data: bytes) -> list[tuple[int, bytes]]:
    """(type, body) of each block; checks both lengths of each."""
    found, at = [], 0
    while at < len(data):
        kind, length = struct.unpack_from("<II", data, at)
        assert length % 4 == 0
        assert struct.unpack_from("<I", data, at + length - 4)[0] == length
        found.append((kind, data[at + 8 : at + length - 4]))
        at += length
    return found


def test_scapy_reads_back_what_was_written(tmp_path: Path) -> None:
    scapy = pytest.importorskip("scapy.all")
    path = tmp_path / "x.pcapng"
    frames = [frame(0), frame(1, note="dropped"), frame(2, outbound=True, note="corrupted (frame 1)")]
    assert write_pcapng(path, frames, PORTS, secrets=SECRETS, comment="handshake: two rows") == 3
    with scapy.PcapNgReader(str(path)) as reader:
        packets = list(reader)
    assert [bytes(p) for p in packets] == [f.data for f in frames]
    assert [p.sniffed_on for p in packets] == list(PORTS)
    assert [getattr(p, "comment", None) for p in packets] == [None, b"dropped", b"corrupted (frame 1)"]
    assert [getattr(p, "direction", None) for p in packets] == [1, 1, 2]
    assert int(packets[0].time * 10**9) == TIME


def test_the_keys_stand_before_the_packets(tmp_path: Path) -> None:
    path = tmp_path / "x.pcapng"
    write_pcapng(path, [frame(0)], PORTS, secrets=SECRETS)
    found = blocks(path.read_bytes())
    assert [kind for kind, _ in found] == [0x0A0D0D0A, 1, 1, 1, 0x0A, 6]
    kind, length = struct.unpack_from("<II", found[4][1])
    assert kind == SECRETS_POOL
    assert found[4][1][8 : 8 + length] == SECRETS.encode()
    write_pcapng(path, [frame(0)], PORTS)
    assert [kind for kind, _ in blocks(path.read_bytes())] == [0x0A0D0D0A, 1, 1, 1, 6]


@pytest.mark.skipif(shutil.which("capinfos") is None, reason="capinfos is not installed")
def test_capinfos_accepts_it(tmp_path: Path) -> None:
    path = tmp_path / "x.pcapng"
    write_pcapng(path, [frame(n) for n in range(10)], PORTS, secrets=SECRETS, comment="c")
    done = subprocess.run(["capinfos", "-c", "-M", str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "10" in done.stdout


def test_the_log_spills_and_gives_all_back_in_order(tmp_path: Path) -> None:
    log = FrameLog(tmp_path / "spill", PORTS, memory=5000)
    frames = [frame(n, note="x" * (n % 3), outbound=bool(n % 2)) for n in range(2000)]
    for each in frames:
        log.append(each)
    assert (tmp_path / "spill").stat().st_size > 50_000
    assert list(log.since()) == frames
    assert list(log.since(700)) == frames[700:]
    assert list(log.since(1995)) == frames[1995:]
    assert list(log.since(log.mark())) == []
    assert log.lost == 0
    log.close()
    assert not (tmp_path / "spill").exists()


def test_the_log_s_disk_is_bounded_and_says_what_it_lost(tmp_path: Path) -> None:
    log = FrameLog(tmp_path / "spill", PORTS, memory=1000, disk=20_000)
    for n in range(2000):
        log.append(frame(n))
    kept = [each.number for each in log.since()]
    assert (tmp_path / "spill").stat().st_size < 21_000
    assert log.lost == 2000 - len(kept) > 0
    assert kept[-1] == 1999
    log.close()


def test_waiting_finds_the_first_match_past_or_future(tmp_path: Path) -> None:
    log = FrameLog(tmp_path / "spill", PORTS)
    for n in range(10):
        log.append(frame(n))
    from_b = log.wait_for(lambda f: f.port == "b", 2, 0)
    assert from_b is not None
    assert from_b.number == 4
    threading.Timer(0.05, log.append, [frame(0, note="late")]).start()
    late = log.wait_for(lambda f: f.note == "late", 0, 10)
    assert late is not None
    assert late.number == 10
    assert log.wait_for(lambda f: f.note == "never", 0, 0.01) is None

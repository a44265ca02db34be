# SPDX-License-Identifier: GPL-2.0-or-later
"""The wire, with veth pairs for guests; run inside the sandbox by test_wire.py."""

from __future__ import annotations

import select
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from poolproof.errors import HarnessError
from poolproof.lab import netdev, wire
from poolproof.lab.capture import FrameLog
from poolproof.lab.frames import matching, parse, with_checksums

MACS = {"a": "52:54:00:fd:00:02", "b": "52:54:00:fd:00:03", "harness": wire.HARNESS_MAC}
SILENCE_S = 0.15


class Station:
    """The far end of a veth pair: plays a guest's network card."""

    def __init__(self, interface: str) -> None:
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        self.socket.setsockopt(263, 23, 1)
        self.socket.bind((interface, 0))

    def send(self, data: bytes) -> None:
        self.socket.send(data)

    def receive(self, timeout: float = 5.0) -> bytes | None:
        if not select.select([self.socket], [], [], timeout)[0]:
            return None
        return self.socket.recv(65536)


def mac(name: str) -> bytes:
    return bytes.fromhex(MACS[name].replace(":", ""))


def datagram(source: str, destination: str, payload: bytes, port: int = 9253) -> bytes:
    """A UDP datagram in IPv4 in Ethernet with right checksums."""
    numbers = {"harness": 1, "a": 2, "b": 3}
    udp = port.to_bytes(2, "big") * 2 + (8 + len(payload)).to_bytes(2, "big") + b"\0\0" + payload
    total = (20 + len(udp)).to_bytes(2, "big")
    addresses = bytes([10, 253, 0, numbers[source], 10, 253, 0, numbers[destination]])
    ip = b"\x45\0" + total + b"\0\0\0\0\x40\x11\0\0" + addresses
    return with_checksums(mac(destination) + mac(source) + b"\x08\0" + ip + udp)


Net = tuple[wire.Wire, Station, Station]


@pytest.fixture
def net(tmp_path: Path) -> Iterator[Net]:
    names = {"a": "ta", "b": "tb"}
    netdev.ip([f"link add {n} type veth peer name {n}far" for n in names.values()])
    netdev.ip([f"link add wire0 address {wire.HARNESS_MAC} type veth peer name wire0p"])
    ends = [*names.values(), *(f"{n}far" for n in names.values()), "wire0p"]
    for end in ends:
        netdev.silent(end)
        netdev.offloads_off(end)
    netdev.offloads_off("wire0")
    netdev.ip([f"link set dev {end} up" for end in ends])
    Path("/proc/sys/net/ipv6/conf/wire0/disable_ipv6").write_text("1")
    netdev.ip([f"addr add {wire.HARNESS_IP4}/24 dev wire0", "link set dev wire0 up"])
    log = FrameLog(tmp_path / "spill", ["a", "b", "harness"])
    made = wire.Wire({**names, "harness": "wire0p"}, log, seed=7)
    yield made, Station("tafar"), Station("tbfar")
    made.close()
    log.close()
    netdev.ip([f"link del dev {n}" for n in (*names.values(), "wire0")])


FROM_A = matching(source="a", transport="udp", payload=True)


def meet(net: Net) -> None:
    """Let the wire learn where everybody is, so that nothing is flooded any more."""
    _w, a, b = net
    a.send(datagram("a", "b", b"hello"))
    assert b.receive() == datagram("a", "b", b"hello")
    b.send(datagram("b", "a", b"hello"))
    assert a.receive() == datagram("b", "a", b"hello")


def test_frames_arrive_unchanged_and_are_recorded_once(net: Net) -> None:
    w, _a, _b = net
    meet(net)
    frames = list(w.frames())
    seen = [(f.port, f.payload, f.outbound) for f in frames]
    assert seen == [("a", b"hello", False), ("b", b"hello", False)]
    assert frames[0].number == 0
    assert w.missed() == 0


def test_a_full_sized_frame_passes(net: Net) -> None:
    _w, a, b = net
    big = datagram("a", "b", bytes(1472))
    assert len(big) == 1514
    a.send(big)
    assert b.receive() == big


def test_broadcast_reaches_everybody_else(net: Net) -> None:
    _w, a, b = net
    frame = b"\xff" * 6 + mac("a") + b"\x88\xb5" + bytes(50)
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x88B5)) as ours:
        ours.bind(("wire0", 0x88B5))
        a.send(frame)
        assert b.receive() == frame
        assert select.select([ours], [], [], 5)[0]
    assert a.receive(SILENCE_S) is None


def test_the_harness_speaks_and_is_spoken_to_with_whole_checksums(net: Net) -> None:
    _w, a, _b = net
    meet(net)
    subprocess.run(["ip", "neigh", "add", "10.253.0.2", "lladdr", MACS["a"], "dev", "wire0"], check=True)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ours:
        ours.settimeout(5)
        ours.bind((wire.HARNESS_IP4, 9253))
        ours.sendto(b"question", ("10.253.0.2", 9253))
        question = a.receive()
        assert question is not None
        assert question.endswith(b"question")
        assert with_checksums(question) == question
        a.send(datagram("a", "harness", b"answer"))
        assert ours.recv(100) == b"answer"


def test_the_kth_match_is_dropped_and_no_other(net: Net) -> None:
    w, a, b = net
    meet(net)
    rule = w.drop(FROM_A, k=2)
    for n in range(4):
        a.send(datagram("a", "b", bytes([n])))
    got = [b.receive() for _ in range(3)]
    assert got == [datagram("a", "b", bytes([n])) for n in (0, 2, 3)]
    assert (rule.seen, rule.applied) == (4, 1)
    assert [f.note for f in w.frames(2)] == ["", "dropped", "", ""]


def test_duplicate_delivers_twice_and_records_the_copy(net: Net) -> None:
    w, a, b = net
    meet(net)
    w.duplicate(FROM_A)
    a.send(datagram("a", "b", b"x"))
    assert [b.receive(), b.receive(), b.receive(SILENCE_S)] == [datagram("a", "b", b"x")] * 2 + [None]
    assert [(f.port, f.outbound, f.note) for f in w.frames(2)] == [
        ("a", False, "duplicated"),
        ("b", True, "duplicated (frame 2)"),
    ]


def test_reorder_lets_the_next_one_overtake(net: Net) -> None:
    w, a, b = net
    meet(net)
    w.reorder(FROM_A, depth=2)
    for n in range(4):
        a.send(datagram("a", "b", bytes([n])))
    assert [b.receive() for _ in range(4)] == [datagram("a", "b", bytes([n])) for n in (1, 2, 0, 3)]


def test_reorder_gives_up_when_nothing_overtakes(net: Net) -> None:
    w, a, b = net
    meet(net)
    w.reorder(FROM_A)
    a.send(datagram("a", "b", b"alone"))
    assert b.receive() == datagram("a", "b", b"alone")


def test_delay_comes_after_what_was_sent_later(net: Net) -> None:
    w, a, b = net
    meet(net)
    w.delay(0.2, FROM_A)
    a.send(datagram("a", "b", b"slow"))
    a.send(datagram("a", "b", b"fast"))
    assert [b.receive(), b.receive()] == [datagram("a", "b", b"fast"), datagram("a", "b", b"slow")]


def test_corruption_is_believed_and_the_same_for_the_same_seed(net: Net) -> None:
    w, a, b = net
    meet(net)
    w.corrupt(FROM_A, offset=3)
    a.send(datagram("a", "b", b"payload"))
    got = b.receive()
    assert got is not None
    assert with_checksums(got) == got
    packet = parse(got)
    assert packet is not None
    payload = got[packet.payload_at : packet.end]
    assert payload[:3] + payload[4:] == b"payoad"
    assert (payload[3] ^ ord("l")).bit_count() == 1
    # The draw follows from seed 7 and the rule being the first: it never changes.
    assert payload[3] == ord("l") ^ 0b001


def test_corruption_can_be_left_to_the_checksum(net: Net) -> None:
    w, a, b = net
    meet(net)
    w.corrupt(FROM_A, believable=False)
    a.send(datagram("a", "b", b"payload"))
    got = b.receive()
    assert got is not None
    assert with_checksums(got) != got


def test_rewrite_replaces_a_frame(net: Net) -> None:
    w, a, b = net
    meet(net)
    w.rewrite(lambda frame: frame.data.replace(b"true", b"lies"), FROM_A)
    a.send(datagram("a", "b", b"it is true"))
    assert b.receive() == datagram("a", "b", b"it is lies")


def test_loss_is_drawn_from_the_seed(net: Net) -> None:
    w, a, b = net
    meet(net)
    rule = w.lose(0.5, FROM_A)
    for n in range(40):
        a.send(datagram("a", "b", bytes([n])))
    assert rule.wait(15)
    w.clear()
    a.send(datagram("a", "b", b"end"))
    got = 0
    while b.receive() != datagram("a", "b", b"end"):
        got += 1
    assert (got, rule.applied) == (40 - rule.applied, rule.applied)
    assert 10 <= rule.applied <= 30


def test_the_first_rule_that_acts_decides(net: Net) -> None:
    w, a, b = net
    meet(net)
    first, second = w.drop(FROM_A), w.duplicate(FROM_A)
    a.send(datagram("a", "b", b"1"))
    a.send(datagram("a", "b", b"2"))
    assert [b.receive(), b.receive()] == [datagram("a", "b", b"2")] * 2
    assert (first.applied, second.seen) == (1, 1)


def test_a_cut_wire_carries_nothing_and_records_it(net: Net) -> None:
    w, a, b = net
    meet(net)
    w.cut("b")
    a.send(datagram("a", "b", b"lost"))
    assert b.receive(SILENCE_S) is None
    b.send(datagram("b", "a", b"lost too"))
    assert w.wait_for(lambda frame: bool(frame.note), 2) is not None
    assert a.receive(SILENCE_S) is None
    w.restore()
    a.send(datagram("a", "b", b"again"))
    assert b.receive() == datagram("a", "b", b"again")


def test_injected_frames_arrive_and_are_recorded(net: Net) -> None:
    w, _a, b = net
    w.inject("b", datagram("a", "b", b"forged"), "forged by the test")
    assert b.receive() == datagram("a", "b", b"forged")
    assert [(f.port, f.outbound, f.note) for f in w.frames()] == [("b", True, "forged by the test")]


def test_bridge_mode_forwards_without_us_and_still_records(net: Net) -> None:
    w, a, b = net
    meet(net)
    w.set_mode("bridge")
    a.send(datagram("a", "b", b"bridged"))
    assert b.receive() == datagram("a", "b", b"bridged")
    assert b.receive(SILENCE_S) is None
    assert w.wait_for(lambda frame: frame.payload == b"bridged", 2) is not None
    with pytest.raises(HarnessError, match="bridged"):
        w.drop()
    w.set_mode("relay")
    a.send(datagram("a", "b", b"relayed"))
    assert b.receive() == datagram("a", "b", b"relayed")
    assert [f.payload for f in w.frames(2)] == [b"bridged", b"relayed"]


def test_waiting_for_a_frame_that_does_not_come_ends(net: Net) -> None:
    w, _, _ = net
    assert w.wait_for(FROM_A, 0, SILENCE_S) is None


def test_a_predicate_that_fails_breaks_the_wire_loudly(net: Net) -> None:
    w, a, _ = net

    def broken(frame: object) -> bool:
        raise ZeroDivisionError

    w.drop(broken)
    a.send(datagram("a", "b", b"x"))
    w._thread.join(10)
    with pytest.raises(HarnessError, match="ZeroDivisionError"):
        w.inject("b", b"\0" * 60)
    with pytest.raises(HarnessError, match="ZeroDivisionError"):
        w.mark()


def test_a_capture_of_it_all_is_written(net: Net, tmp_path: Path) -> None:
    w, _a, _b = net
    meet(net)
    assert w.write_pcapng(tmp_path / "x.pcapng", 1, "POOL_SESSION 00 0 00 00\n", "scenario") == 1

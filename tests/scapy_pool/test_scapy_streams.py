# SPDX-License-Identifier: GPL-2.0-or-later
"""Packets found again in TCP segments and datagrams, messages in fragments, answers for requests."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scapy.compat import raw
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.sendrecv import sniff
from scapy.sessions import TCPSession
from scapy.utils import wrpcap
from scapy_captured import LONG, SHORT, Capture, capture

import scapy_pool as sp
from poolref.constants import Flag, Type
from poolref.keys import Keys
from poolref.wire import Header

CLIENT, SERVER = 40000, 9253
SERVER_SEQ = 1 << 62


@pytest.fixture(autouse=True)
def _empty_ring() -> Iterator[None]:
    sp.keyring.clear()
    yield
    sp.keyring.clear()


def segments(session: Capture, sizes: Any, network: Any = IP, port: int = SERVER) -> list[Any]:
    """The session in TCP segments of the sizes drawn from ``sizes``, cut anywhere within one direction."""
    result: list[Any] = []
    positions = {True: 1, False: 1}
    runs: list[tuple[bool, bytes]] = []
    for from_client, packet in session.stream:
        if runs and runs[-1][0] == from_client:
            runs[-1] = (from_client, runs[-1][1] + packet)
        else:
            runs.append((from_client, packet))
    hosts = ("fd00::1", "fd00::2") if network is IPv6 else ("192.0.2.1", "192.0.2.2")
    for from_client, data in runs:
        while data:
            chunk = data[: next(sizes)]
            data = data[len(chunk) :]
            source, target = hosts if from_client else hosts[::-1]
            ports = (CLIENT, port) if from_client else (port, CLIENT)
            segment = network(src=source, dst=target) / TCP(
                sport=ports[0], dport=ports[1], flags="A", seq=positions[from_client]
            )
            positions[from_client] += len(chunk)
            result.append(network(raw(segment / chunk)))
    return result


def sizes(seed: int, low: int = 1, high: int = 1460) -> Iterator[int]:
    rng = random.Random(seed)
    while True:
        yield rng.randint(low, high)


def stacked(packets: Any) -> list[Any]:
    """The POOL packets in what a session returned, in order."""
    found = []
    for packet in packets:
        layer = packet.getlayer(sp.Pool)
        while layer is not None:
            found.append(layer)
            layer = layer.payload.getlayer(sp.Pool)
    return found


@pytest.mark.parametrize("network", [IP, IPv6])
@pytest.mark.parametrize("seed", range(4))
def test_a_stream_cut_anywhere_is_framed_again(seed: int, network: Any, tmp_path: Path) -> None:
    session = capture()
    path = str(tmp_path / "capture.pcap")
    wrpcap(path, segments(session, sizes(seed), network))
    found = stacked(sniff(offline=path, session=TCPSession, quiet=True))
    assert [(packet.type, packet.seq) for packet in found] == [
        (sp.Pool(packet).type, sp.Pool(packet).seq) for packet in session.packets
    ]


def test_segments_of_several_packets_and_a_part_of_the_next() -> None:
    session = capture()
    for seed in range(5):
        found = stacked(
            sniff(offline=segments(session, sizes(seed, 200, 500)), session=TCPSession, quiet=True)
        )
        assert [raw(packet)[:80] for packet in found] == [packet[:80] for packet in session.packets]


def test_several_packets_in_one_segment_keep_their_bytes() -> None:
    session = capture()
    cut = segments(session, sizes(0, 9999, 9999))
    runs = [raw(segment[TCP].payload) for segment in cut]
    found = sniff(offline=cut, session=TCPSession, quiet=True)
    assert max(len(stacked([packet])) for packet in found) > 2
    assert [raw(packet[sp.Pool]) for packet in found] == runs
    sp.keyring.add(session.session_id, session.keys)
    found = sniff(offline=cut, session=TCPSession, quiet=True)
    assert sp.PoolFragment in found[4]
    assert [raw(packet[sp.Pool]) for packet in found] == runs


@pytest.mark.parametrize("seed", range(4))
def test_fragments_become_their_message(seed: int) -> None:
    session = capture()
    sp.keyring.add_log(session.keylog)
    found = stacked(sniff(offline=segments(session, sizes(seed)), session=sp.PoolSession, quiet=True))
    assert [packet.data for packet in found if sp.PoolData in packet] == [SHORT, LONG]
    assert not any(sp.PoolFragment in packet for packet in found)
    whole = next(packet for packet in found if packet.type == Type.DATA and packet.data == LONG)
    assert whole.flags == Flag.ENCRYPTED | Flag.REQUIRE_ACK
    others = [packet.type for packet in found if packet.type != Type.DATA]
    assert others == [packet[0] & 15 for packet in session.packets if packet[0] & 15 != Type.DATA]


def test_fragments_without_keys_pass_as_they_are() -> None:
    session = capture()
    found = stacked(sniff(offline=segments(session, sizes(1)), session=sp.PoolSession, quiet=True))
    assert [raw(packet)[:80] for packet in found] == [packet[:80] for packet in session.packets]
    assert {packet.auth for packet in found[2:]} == {sp.Auth.NO_KEY}


def datagrams(keys: Keys, pieces: list[tuple[int, bytes, bool]], total: int, first_seq: int = 1) -> list[Any]:
    """Fragments of one message on raw IP, as (offset, bytes, last)."""
    result = []
    for seq, (offset, chunk, last) in enumerate(pieces, first_seq):
        flags = Flag.FRAGMENT | Flag.REQUIRE_ACK | (Flag.LAST_FRAG if last else 0)
        plaintext = raw(sp.PoolFragment(msg_id=3, offset=offset, total_len=total, data=chunk))
        packet = keys.protect(
            Header(Type.DATA, flags, seq, session_id=bytes(range(16)), channel=2), plaintext
        )
        result.append(IP(raw(IP(src="192.0.2.1", dst="192.0.2.2", proto=253) / packet)))
    return result


def test_fragments_on_raw_ip_may_come_in_any_order_and_twice() -> None:
    keys = Keys(b"s" * 32)
    sp.keyring.add(bytes(range(16)), keys)
    pieces = [(4, b"efgh", False), (8, b"ij", True), (4, b"efgh", False), (0, b"abcd", False)]
    (whole,) = sniff(offline=datagrams(keys, pieces, 10), session=sp.PoolSession, quiet=True)
    assert (whole[sp.PoolData].data, whole[sp.Pool].channel, whole.src) == (b"abcdefghij", 2, "192.0.2.1")


def test_a_contradicting_fragment_ends_its_message() -> None:
    keys = Keys(b"s" * 32)
    sp.keyring.add(bytes(range(16)), keys)
    pieces = [(4, b"efgh", False), (4, b"EFGH", False), (8, b"ij", True), (0, b"abcd", False)]
    assert len(sniff(offline=datagrams(keys, pieces, 10), session=sp.PoolSession, quiet=True)) == 0


def test_the_directions_of_a_session_have_messages_of_their_own() -> None:
    keys = Keys(b"s" * 32)
    sp.keyring.add(bytes(range(16)), keys)
    ours = datagrams(keys, [(0, b"abcd", False), (4, b"ef", True)], 6)
    theirs = datagrams(keys, [(0, b"ABCD", False), (4, b"EF", True)], 6, first_seq=SERVER_SEQ)
    mixed = [ours[0], theirs[0], ours[1], theirs[1]]
    found = sniff(offline=mixed, session=sp.PoolSession, quiet=True)
    assert [packet[sp.PoolData].data for packet in found] == [b"abcdef", b"ABCDEF"]


def test_forged_fragments_are_not_put_together() -> None:
    keys = Keys(b"s" * 32)
    sp.keyring.add(bytes(range(16)), Keys(b"t" * 32))
    pieces = [(0, b"abcd", False), (4, b"ef", True)]
    found = stacked(sniff(offline=datagrams(keys, pieces, 6), session=sp.PoolSession, quiet=True))
    assert [packet.auth for packet in found] == [sp.Auth.BAD] * 2


def test_what_stands_above_a_port_or_protocol() -> None:
    packet = capture().packets[0]
    assert sp.Pool in IP(raw(IP() / TCP(dport=9253, sport=1) / packet))
    assert sp.Pool in IP(raw(IP() / TCP(dport=1, sport=9253) / packet))
    assert sp.Pool in IP(raw(IP(proto=253) / packet))
    assert (IP() / sp.Pool()).proto == 253
    assert (TCP() / sp.Pool()).dport == 9253
    assert sp.PoolAnnounce in IP(raw(IP() / UDP(dport=9253) / sp.PoolAnnounce()))
    other = raw(IP() / TCP(dport=4711, sport=1) / packet)
    assert sp.Pool not in IP(other)
    sp.bind_port(4711)
    try:
        assert sp.Pool in IP(other)
    finally:
        sp.unbind_port(4711)
    assert sp.Pool not in IP(other)


def test_each_packet_of_the_handshake_answers_the_one_before() -> None:
    session = capture()
    init, challenge, response, ack = (sp.Pool(packet, keys=session.keys) for packet in session.packets[:4])
    for asked, answer in ((init, challenge), (challenge, response), (response, ack)):
        assert answer.answers(asked)
        assert answer.hashret() == asked.hashret()
        assert not asked.answers(answer)
        assert not asked.answers(asked)
    assert not ack.answers(init)
    refusal = sp.Pool() / sp.PoolClose(code=9)
    assert refusal.answers(init)
    assert refusal.answers(response)
    assert not refusal.answers(sp.Pool(session.packets[4], keys=session.keys))


def test_on_raw_ip_a_challenge_names_the_clients_key() -> None:
    init = sp.Pool() / sp.PoolInit(client_pubkey=b"k" * 32)
    named = int.from_bytes(b"k" * 8, "big")
    for ack, expected in ((named, True), (named + 1, False), (0, True)):
        challenge = IP(src="192.0.2.2", dst="192.0.2.1", proto=253) / sp.Pool(ack=ack) / sp.PoolChallenge()
        assert challenge.answers(IP(src="192.0.2.1", dst="192.0.2.2", proto=253) / init) == expected


@pytest.mark.parametrize(
    ("asked", "answer", "expected"),
    [
        (sp.PoolData(b"x"), sp.PoolAck(), True),
        (sp.PoolConfig(), sp.PoolAck(), True),
        (sp.PoolData(b"x"), sp.PoolData(b"x"), False),
        (sp.PoolProbe(probe_size=700), sp.PoolProbeAnswer(probe_size=700), True),
        (sp.PoolProbe(probe_size=700), sp.PoolProbeAnswer(probe_size=701), False),
        (sp.PoolRekey(stage=1, epoch=2), sp.PoolRekey(stage=2, epoch=2), True),
        (sp.PoolRekey(stage=1, epoch=2), sp.PoolRekey(stage=2, epoch=3), False),
        (sp.PoolRekey(stage=1), sp.PoolRekey(stage=1), False),
        (sp.PoolIntegrityChallenge(c=b"c" * 16), sp.PoolIntegrityAnswer(c=b"c" * 16), True),
        (sp.PoolIntegrityChallenge(c=b"c" * 16), sp.PoolIntegrityAnswer(c=b"d" * 16), False),
        (sp.PoolJournalRequest(), sp.PoolJournal(), True),
    ],
)
def test_answers_within_a_session(asked: Any, answer: Any, expected: bool) -> None:
    request = sp.Pool(seq=7) / asked
    assert (sp.Pool(seq=SERVER_SEQ, ack=7) / answer).answers(request) == expected
    assert not (sp.Pool(seq=8, ack=7) / answer).answers(request)  # the same direction
    assert not (sp.Pool(seq=SERVER_SEQ, ack=7, session_id=b"s" * 16) / answer).answers(request)


def test_an_ack_of_something_earlier_is_no_answer() -> None:
    assert not (sp.Pool(seq=SERVER_SEQ, ack=6) / sp.PoolAck()).answers(sp.Pool(seq=7) / sp.PoolData(b"x"))

# SPDX-License-Identifier: GPL-2.0-or-later
"""Established sessions: messages, protection, sequence numbers, acknowledgement, heartbeats, the end."""

from __future__ import annotations

import errno

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from poolref_sim import EASY, Pair, World, data, deliver, easy_pair, flipped, jump

from poolref import wire
from poolref.constants import MILLISECOND, SECOND, ErrorCode, Flag, Role, State, Type
from poolref.counters import COUNTER_MAX, Counters, DropReason, Verdict
from poolref.dialect import Dialect
from poolref.errors import LocalError, MessageTooBig
from poolref.events import MessageReceived, PacketTrace, SessionEnded
from poolref.session import Session
from poolref.settings import Settings
from poolref.wire import Header, Telemetry


@pytest.fixture
def pair() -> Pair:
    return easy_pair()


def received(pair: Pair, to: str = "server") -> list[bytes]:
    connection = pair.server if to == "server" else pair.client
    out = []
    while (message := connection.take(pair.world.now)) is not None:
        out.append(message.data)
    return out


def sent(session: Session) -> list[Header]:
    return [wire.parse(packet) for packet in session.packets_to_send()]


def ended(pair: Pair, side: str) -> SessionEnded:
    (event,) = [event for event in pair.events[side] if isinstance(event, SessionEnded)]
    return event


# -- messages --------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 1303, 1304, 1305, 2592, 2593, 65535])
def test_messages_of_every_size_arrive_both_ways(pair: Pair, size: int) -> None:
    message = bytes(index % 251 for index in range(size))
    pair.c.send(message, pair.world.now)
    pair.s.send(message[::-1], pair.world.now, channel=0)
    pair.run()
    assert received(pair) == [message]
    assert received(pair, "client") == [message[::-1]]
    assert (pair.c.bytes_sent, pair.s.delivery.bytes_received) == (size, size)
    assert MessageReceived(0, size) in pair.events["server"]


def test_up_to_1304_bytes_go_in_one_packet_of_1400(pair: Pair) -> None:
    pair.c.send(b"x" * 1304, pair.world.now)
    (packet,) = pair.c.packets_to_send()
    assert len(packet) == 1400
    assert wire.parse(packet).flags == Flag.ENCRYPTED | Flag.REQUIRE_ACK
    pair.c.send(b"x" * 1305, pair.world.now)
    first, second = pair.c.packets_to_send()
    assert (len(first), len(second)) == (1400, 80 + 16 + 8 + 9)
    common = Flag.ENCRYPTED | Flag.REQUIRE_ACK | Flag.FRAGMENT
    assert [wire.parse(packet).flags for packet in (first, second)] == [common, common | Flag.LAST_FRAG]


@pytest.mark.parametrize(
    ("message", "channel", "number"),
    [
        (b"", 0, errno.EINVAL),
        (b"x" * 65536, 0, errno.EMSGSIZE),
        (b"x", 256, errno.EINVAL),
        (b"x", -1, errno.EINVAL),
    ],
)
def test_what_cannot_be_sent(pair: Pair, message: bytes, channel: int, number: int) -> None:
    with pytest.raises(LocalError) as error:
        pair.c.send(message, pair.world.now, channel)
    assert error.value.errno == number
    assert pair.c.packets_to_send() == []
    pair.c.send(b"x", pair.world.now, 255)
    assert len(pair.c.packets_to_send()) == 1


def test_a_message_too_big_for_the_buffer_stays(pair: Pair) -> None:
    pair.c.send(b"twelve bytes", pair.world.now)
    pair.run()
    with pytest.raises(MessageTooBig) as error:
        pair.server.take(pair.world.now, max_size=11)
    assert (error.value.errno, error.value.needed) == (errno.EMSGSIZE, 12)
    assert pair.server.take(pair.world.now, max_size=12) == (0, b"twelve bytes")


def test_channels(pair: Pair) -> None:
    assert pair.s.subscriptions.listed() == (0,)
    pair.c.send(b"unheard", pair.world.now, channel=7)
    pair.run()
    assert received(pair) == []
    assert pair.s.counters[DropReason.UNSUBSCRIBED] == 1
    for channel in (7, 255):
        pair.s.subscriptions.subscribe(channel)
    assert pair.s.subscriptions.listed() == (0, 7, 255)
    for channel in (0, 7, 255):
        pair.c.send(b"%d" % channel, pair.world.now, channel)
    pair.run()
    assert pair.server.take(pair.world.now, channel=255) == (255, b"255")
    assert pair.server.take(pair.world.now, channel=255) is None
    assert received(pair) == [b"0", b"7"]
    for channel in (7, 0, 7):  # once more changes nothing
        pair.s.subscriptions.unsubscribe(channel)
    assert pair.s.subscriptions.listed() == (255,)
    assert deliver(pair, data(pair.c, b"x", pair.world.now)) is DropReason.UNSUBSCRIBED
    for channel in (-1, 256):
        with pytest.raises(LocalError):
            pair.s.subscriptions.subscribe(channel)
        with pytest.raises(LocalError):
            pair.s.subscriptions.unsubscribe(channel)


def test_an_empty_data_packet_is_malformed(pair: Pair) -> None:
    assert deliver(pair, data(pair.c, b"", pair.world.now)) is DropReason.MALFORMED
    assert deliver(pair, data(pair.c, b"x", pair.world.now)) is Verdict.ACCEPTED


# -- protection and sequence numbers ---------------------------------------------------------------


def test_a_bad_hmac_ends_the_tcp_session_with_0x01(pair: Pair) -> None:
    assert deliver(pair, data(pair.c, b"x", pair.world.now)) is Verdict.ACCEPTED
    packet = flipped(data(pair.c, b"x", pair.world.now))
    assert deliver(pair, packet) is DropReason.AUTH_FAIL
    assert pair.s.end == SessionEnded("protection", ErrorCode.AUTH_FAIL)
    pair.run()
    assert ended(pair, "client") == SessionEnded("closed", ErrorCode.AUTH_FAIL)


def test_a_bad_tag_ends_the_tcp_session_with_0x02_and_commits_nothing(pair: Pair) -> None:
    session, now = pair.c, pair.world.now
    seq, before = session.next_seq, pair.s.window.highest
    sealed = session.keys.seal(seq, b"message")
    header = Header(Type.DATA, int(Flag.ENCRYPTED), seq, session.window.highest, session.session_id, now)
    assert deliver(pair, session.keys.sign(header, flipped(sealed, 0))) is DropReason.DECRYPT_FAIL
    assert pair.s.end == SessionEnded("protection", ErrorCode.DECRYPT_FAIL)
    assert pair.s.window.highest == before
    assert received(pair) == []
    pair.run()
    assert ended(pair, "client") == SessionEnded("closed", ErrorCode.DECRYPT_FAIL)


def test_a_forged_close_is_not_the_peers(pair: Pair) -> None:
    assert deliver(pair, wire.advisory_close(0, 0)) is DropReason.UNKNOWN_SESSION
    advisory = wire.build(Type.CLOSE, b"\x01", session_id=pair.s.session_id)
    assert deliver(pair, advisory) is DropReason.MALFORMED
    assert pair.s.end is None
    assert deliver(pair, wire.build(Type.CLOSE, session_id=pair.s.session_id, seq=pair.c.next_seq)) is (
        DropReason.AUTH_FAIL
    )
    assert pair.s.end is not None
    assert pair.s.end.cause == "protection"


def test_reflected_packets_are_discarded_and_harm_nothing(pair: Pair) -> None:
    own = data(pair.s, b"mine", pair.world.now)
    before = pair.s.window.highest
    assert deliver(pair, own) is DropReason.REFLECTED
    assert deliver(pair, pair.s.protect(Type.ACK, pair.world.now)) is DropReason.REFLECTED
    assert deliver(pair, pair.c.protect(Type.ACK, pair.world.now), "client") is DropReason.REFLECTED
    assert pair.s.window.highest == before
    assert deliver(pair, own, "client") is Verdict.ACCEPTED


@pytest.mark.parametrize("seq", [2**62, 2**63, 2**64 - 1])
def test_a_client_seq_outside_its_range_is_discarded(pair: Pair, seq: int) -> None:
    assert deliver(pair, data(pair.c, b"x", 0, seq=seq)) is DropReason.REFLECTED
    assert deliver(pair, data(pair.c, b"x", 0, seq=2**62 - 1)) is Verdict.ACCEPTED


@pytest.mark.parametrize("seq", [0, 2**62 - 1, 2**63])
def test_a_server_seq_outside_its_range_is_discarded(pair: Pair, seq: int) -> None:
    assert deliver(pair, data(pair.s, b"x", 0, seq=seq), "client") is DropReason.REFLECTED
    assert deliver(pair, data(pair.s, b"x", 0, seq=2**63 - 1), "client") is Verdict.ACCEPTED


@pytest.mark.parametrize(
    ("behind", "outcome"), [(0, "replay"), (62, "ok"), (63, "ok"), (64, "replay"), (65, "replay")]
)
def test_the_replay_window_in_a_session(pair: Pair, behind: int, outcome: str) -> None:
    top = pair.c.next_seq + 500
    assert deliver(pair, data(pair.c, b"top", 0, seq=top)) is Verdict.ACCEPTED
    late = data(pair.c, b"late", 0, seq=top - behind)
    assert deliver(pair, late) is (DropReason.REPLAY if outcome == "replay" else Verdict.ACCEPTED)
    assert deliver(pair, late) is DropReason.REPLAY
    assert deliver(pair, data(pair.c, b"next", 0, seq=top + 1)) is Verdict.ACCEPTED
    assert pair.s.end is None


def test_a_replayed_response_inside_its_session() -> None:
    traces: list[PacketTrace] = []
    pair = World(server_settings=EASY, observer=traces.append).pair()
    response = next(trace.packet for trace in traces if trace.packet[0] == 0x12)
    assert deliver(pair, response) is DropReason.REPLAY
    assert pair.s.end is None


def test_loss_is_counted_and_taken_back(pair: Pair) -> None:
    base = pair.c.next_seq
    for seq in (base, base + 4):
        deliver(pair, data(pair.c, b"x", 0, seq=seq))
    assert (pair.s.window.lost, pair.s.window.received) == (3, 3)
    assert pair.s.heartbeats.report(pair.world.now).loss_rate_ppm == 500_000
    deliver(pair, data(pair.c, b"x", 0, seq=base + 2))
    assert pair.s.window.lost == 2


def test_the_sequence_numbers_run_out_with_close_0x03() -> None:
    for side, limit in (("client", 2**62), ("server", 2**63)):
        pair = easy_pair()
        session = pair.c if side == "client" else pair.s
        jump(session, limit - 2, pair.world.now)
        session.send(b"last", pair.world.now)
        with pytest.raises(LocalError) as error:
            session.send(b"one too many", pair.world.now)
        assert error.value.errno == errno.ENOTCONN
        packets = sent(session)
        assert [(header.type, header.seq) for header in packets] == [
            (Type.DATA, limit - 2),
            (Type.CLOSE, limit - 1),
        ]
        assert session.end == SessionEnded("sequence_exhausted", ErrorCode.SEQ_INVALID)


def test_an_answer_that_takes_the_last_seq_ends_the_session(pair: Pair) -> None:
    jump(pair.s, 2**63 - 1, pair.world.now)
    pair.c.heartbeats.handle_timer(pair.world.now)
    (heartbeat,) = pair.c.packets_to_send()
    assert deliver(pair, heartbeat) is Verdict.ACCEPTED
    assert [(header.type, header.seq) for header in sent(pair.s)] == [(Type.CLOSE, 2**63 - 1)]
    assert pair.s.state is State.CLOSING


def test_a_bad_ack_is_counted_and_ignored(pair: Pair) -> None:
    pair.s.heartbeats.handle_timer(pair.world.now)
    pair.s.packets_to_send()
    for ack in (pair.s.first_seq - 1, pair.s.next_seq, 0):
        packet = pair.c.protect(Type.ACK, pair.world.now, ack=ack)
        assert deliver(pair, packet) is Verdict.ACCEPTED
    assert pair.s.counters[DropReason.BAD_ACK] == 3
    assert pair.s.heartbeats.round_trip.srtt == 0
    pair.world.now += 5
    assert deliver(pair, pair.c.protect(Type.ACK, 0, ack=pair.s.next_seq - 1)) is Verdict.ACCEPTED
    assert pair.s.counters[DropReason.BAD_ACK] == 3
    assert pair.s.heartbeats.round_trip.srtt == 5


def test_what_is_wrong_before_the_hmac_is_looked_at(pair: Pair) -> None:
    good = pair.c.keys.protect(Header(Type.DATA, 0, pair.c.next_seq, 0, pair.c.session_id), b"x")
    cases = {
        good[:40]: DropReason.MALFORMED,
        good + b"x": DropReason.MALFORMED,
        flipped(good, 1): DropReason.MALFORMED,
        flipped(good, 0, 0x30): DropReason.VERSION_MISMATCH,
        flipped(good, 20): DropReason.UNKNOWN_SESSION,
        flipped(good, 3): DropReason.MALFORMED,  # ENCRYPTED cleared
        wire.build(Type.INIT, bytes(64)): DropReason.UNEXPECTED_TYPE,
        wire.build(Type.CHALLENGE, bytes(98), session_id=pair.c.session_id): DropReason.UNEXPECTED_TYPE,
    }
    for packet, reason in cases.items():
        assert deliver(pair, packet) is reason
    assert pair.s.end is None
    assert deliver(pair, good) is Verdict.ACCEPTED


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_no_bytes_raise_or_get_in(source: st.DataObject) -> None:
    """WIRE-07: a right packet with any bytes changed is discarded; nothing reaches the user."""
    pair = easy_pair()
    packet = bytearray(data(pair.c, b"message", pair.world.now))
    original = bytes(packet)
    for _ in range(source.draw(st.integers(1, 4))):
        packet[source.draw(st.integers(0, len(packet) - 1))] = source.draw(st.integers(0, 255))
    size = source.draw(st.integers(0, len(packet)))
    changed = bytes(packet[:size] if source.draw(st.booleans()) else packet)
    outcome = deliver(pair, changed)
    assert (outcome is Verdict.ACCEPTED) == (changed == original)
    assert len(pair.s.inbox) == (changed == original)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.binary(max_size=200), max_size=6),
    st.sampled_from(["fresh server", "fresh client", "session"]),
)
def test_garbage_on_the_stream_never_raises(pieces: list[bytes], target: str) -> None:
    world = World(server_settings=EASY)
    if target == "session":
        connection = world.pair().server
    else:
        connection = world.server() if target == "fresh server" else world.client()
    for piece in pieces:
        connection.receive_data(piece, world.now)
        connection.data_to_send()
    connection.receive_eof(world.now)
    assert connection.closing


# -- acknowledgement -------------------------------------------------------------------------------


def test_require_ack_is_answered_within_50_ms(pair: Pair) -> None:
    packet = data(pair.c, b"x", pair.world.now)
    deliver(pair, packet)
    assert sent(pair.s) == []
    due = pair.s.next_timer()
    assert due is not None
    assert pair.world.now < due <= pair.world.now + 50 * MILLISECOND
    pair.s.handle_timer(due)
    (ack,) = sent(pair.s)
    assert (ack.type, ack.ack, ack.payload_len) == (Type.ACK, wire.parse(packet).seq, 0)
    pair.s.handle_timer(due + 50 * MILLISECOND)
    assert sent(pair.s) == []


def test_one_ack_for_sixteen_packets_without_waiting(pair: Pair) -> None:
    for _ in range(15):
        deliver(pair, data(pair.c, b"x", pair.world.now))
    assert sent(pair.s) == []
    last = data(pair.c, b"x", pair.world.now)
    deliver(pair, last)
    (ack,) = sent(pair.s)
    assert ack.ack == wire.parse(last).seq
    due = pair.s.next_timer()
    assert due is not None
    assert due > pair.world.now + 50 * MILLISECOND


def test_without_require_ack_and_for_an_ack_there_is_none(pair: Pair) -> None:
    deliver(pair, pair.c.protect(Type.DATA, 0, b"x"))
    deliver(pair, pair.c.protect(Type.ACK, 0, flags=int(Flag.REQUIRE_ACK)))
    due = pair.s.next_timer()
    assert due is not None
    assert due >= pair.world.now + SECOND


def test_every_packet_acks_the_highest_authenticated_seq(pair: Pair) -> None:
    top = pair.c.next_seq + 20
    deliver(pair, data(pair.c, b"x", 0, seq=top))
    deliver(pair, data(pair.c, b"x", 0, seq=top - 3))
    pair.s.send(b"x", pair.world.now)
    assert [header.ack for header in sent(pair.s)] == [top]


def test_a_congested_session_holds_its_acks(pair: Pair) -> None:
    pair.s.congested = True
    for _ in range(40):
        deliver(pair, data(pair.c, b"x", pair.world.now))
    pair.s.handle_timer(pair.world.now + 6 * SECOND)
    assert sent(pair.s) == []
    pair.s.congested = False
    due = pair.s.next_timer()
    assert due is not None
    pair.s.handle_timer(max(due, pair.world.now))
    assert [header.type for header in sent(pair.s)] == [Type.ACK]


# -- heartbeats ------------------------------------------------------------------------------------


def test_a_heartbeat_every_five_seconds_with_44_bytes(pair: Pair) -> None:
    start = pair.world.now
    pair.c.handle_timer(start + 5 * SECOND - 1)
    assert Type.HEARTBEAT not in [header.type for header in sent(pair.c)]
    pair.c.handle_timer(start + 5 * SECOND)
    (packet,) = pair.c.packets_to_send()
    header = wire.parse(packet)
    assert (header.type, header.flags) == (Type.HEARTBEAT, Flag.ENCRYPTED | Flag.TELEMETRY)
    plaintext = pair.c.keys.open(header.seq, packet[80:])
    assert plaintext is not None
    assert Telemetry.unpack(plaintext) == Telemetry(mtu=1400, uptime_ns=5 * SECOND)
    assert pair.c.heartbeats.due == start + 10 * SECOND


def test_a_heartbeat_is_acked_at_once_and_gives_the_round_trip(pair: Pair) -> None:
    pair.c.heartbeats.handle_timer(pair.world.now)
    (heartbeat,) = pair.c.packets_to_send()
    assert deliver(pair, heartbeat) is Verdict.ACCEPTED
    (ack,) = pair.s.packets_to_send()
    assert wire.parse(ack).type == Type.ACK
    assert pair.s.heartbeats.peer_report is not None
    assert pair.s.heartbeats.peer_report.mtu == 1400
    pair.world.now += 8000
    deliver(pair, ack, "client")
    assert (pair.c.heartbeats.round_trip.srtt, pair.c.heartbeats.round_trip.jitter) == (8000, 0)
    pair.c.heartbeats.round_trip.sent(10**30, 0)
    pair.c.heartbeats.round_trip.acknowledged(10**30, 16000)
    assert (pair.c.heartbeats.round_trip.srtt, pair.c.heartbeats.round_trip.jitter) == (9000, 1000)
    assert pair.c.heartbeats.report(pair.world.now).rtt_ns == 9000


@pytest.mark.parametrize("size", [0, 43, 45, 48])
def test_a_heartbeat_of_the_wrong_size_is_malformed(pair: Pair, size: int) -> None:
    outcome = deliver(pair, pair.c.protect(Type.HEARTBEAT, 0, bytes(size), flags=int(Flag.TELEMETRY)))
    assert outcome is DropReason.MALFORMED
    # It arrived all the same, and that is what an ACK says (E-36).
    assert [header.type for header in sent(pair.s)] == [Type.ACK]
    assert pair.s.heartbeats.peer_report is None


def test_two_idle_sides_keep_each_other_alive(pair: Pair) -> None:
    pair.advance(600 * SECOND)
    assert pair.c.end is None
    assert pair.s.end is None
    assert pair.c.counters["packets_sent"] == pair.s.counters["packets_received"]
    # 120 heartbeats and 120 ACKs, 10 probes and 10 answers, 13 challenges with their reports, ACKs and
    # answers, and the handshake
    assert 290 <= pair.c.counters["packets_received"] <= 320


def test_a_dead_peer_is_noticed_after_90_seconds(pair: Pair) -> None:
    start = pair.world.now
    for second in range(1, 90):
        pair.s.handle_timer(start + second * SECOND)
    assert pair.s.end is None
    assert (pair.s.next_timer() or 0) <= start + 90 * SECOND
    pair.s.handle_timer(start + 90 * SECOND)
    assert pair.s.end == SessionEnded("dead_peer", None)
    assert pair.s.counters["peers_dead"] == 1


def test_unauthentic_packets_do_not_keep_a_session_alive(pair: Pair) -> None:
    pair.world.now += 80 * SECOND
    assert deliver(pair, data(pair.s, b"x", 0)) is DropReason.REFLECTED
    pair.s.handle_timer(pair.world.now + 10 * SECOND)
    assert pair.s.end is not None


def test_throughput_and_queue_depth(pair: Pair) -> None:
    start = pair.world.now
    pair.c.send(b"x" * 1000, start)
    pair.run()
    assert pair.c.heartbeats.report(start + SECOND // 2).throughput_bps == 16_000
    assert pair.s.heartbeats.report(start).queue_depth == 1


def test_the_heartbeat_interval_is_configurable() -> None:
    pair = World(client_settings=Settings(heartbeat_s=30), server_settings=EASY).pair()
    pair.c.handle_timer(pair.world.now + 29 * SECOND)
    assert Type.HEARTBEAT not in [header.type for header in sent(pair.c)]
    pair.c.handle_timer(pair.world.now + 30 * SECOND)
    assert Type.HEARTBEAT in [header.type for header in sent(pair.c)]
    for wrong in (0, 31):
        with pytest.raises(LocalError):
            Settings(heartbeat_s=wrong)
    with pytest.raises(LocalError):
        Settings(address=b"x" * 32)


def test_telemetry_order_is_a_matter_of_dialect() -> None:
    little = Settings(dialect=Dialect(telemetry_order="little"))
    pair = World(client_settings=little, server_settings=little).pair()
    pair.c.heartbeats.handle_timer(pair.world.now)
    pair.run()
    assert pair.s.heartbeats.peer_report is not None
    assert pair.s.heartbeats.peer_report.mtu == 1400
    pair = World(client_settings=little, server_settings=EASY).pair()
    pair.c.heartbeats.handle_timer(pair.world.now)
    pair.run()
    assert pair.s.heartbeats.peer_report is not None
    assert pair.s.heartbeats.peer_report.mtu == 0x7805


# -- the end ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [None, 0x09, 0xEE])
def test_a_graceful_close_ends_both_sides_at_once(pair: Pair, code: int | None) -> None:
    pair.c.close(pair.world.now, code)
    pair.run()
    assert ended(pair, "client") == SessionEnded("local", code)
    assert ended(pair, "server") == SessionEnded("closed", code)
    assert pair.client.closing
    assert pair.server.closing
    assert not pair.c.keys.usable
    assert not pair.s.keys.usable
    assert (pair.c.state, pair.s.state) == (State.CLOSING, State.CLOSING)
    with pytest.raises(LocalError) as error:
        pair.s.send(b"x", pair.world.now)
    assert error.value.errno == errno.ENOTCONN
    pair.s.close(pair.world.now)
    assert pair.s.packets_to_send() == []


def test_a_close_with_more_than_a_code_is_malformed(pair: Pair) -> None:
    assert deliver(pair, pair.c.protect(Type.CLOSE, 0, b"\0\0")) is DropReason.MALFORMED
    assert pair.s.end is None
    assert deliver(pair, pair.c.protect(Type.CLOSE, 0)) is Verdict.CLOSED


def test_received_messages_stay_readable_for_five_seconds(pair: Pair) -> None:
    pair.c.send(b"first", pair.world.now)
    pair.c.send(b"second", pair.world.now)
    pair.c.close(pair.world.now)
    pair.run()
    assert pair.c.finished
    assert not pair.s.finished
    assert pair.server.take(pair.world.now) == (0, b"first")
    assert pair.s.next_timer() == pair.world.now + 5 * SECOND
    pair.s.handle_timer(pair.world.now + 5 * SECOND - 1)
    assert not pair.s.finished
    pair.s.handle_timer(pair.world.now + 5 * SECOND)
    assert pair.s.finished
    assert pair.server.take(pair.world.now) is None
    assert pair.s.next_timer() is None


def test_reading_the_last_message_finishes_the_session(pair: Pair) -> None:
    pair.c.send(b"only", pair.world.now)
    pair.c.close(pair.world.now)
    pair.run()
    assert not pair.s.finished
    pair.server.take(pair.world.now)
    assert pair.s.finished


def test_the_end_of_the_stream_ends_the_session(pair: Pair) -> None:
    pair.c.send(b"before", pair.world.now)
    stream = pair.client.data_to_send()
    pair.server.receive_data(stream + stream[:50], pair.world.now)
    pair.server.receive_eof(pair.world.now)
    assert pair.s.end == SessionEnded("end_of_stream", None)
    assert pair.s.counters[DropReason.MALFORMED] == 1, "the packet that was cut off"
    assert received(pair) == [b"before"]
    assert pair.server.data_to_send() == b"", "no answer is sent"


def test_after_the_end_packets_are_of_no_session(pair: Pair) -> None:
    late = data(pair.c, b"late", pair.world.now)
    pair.s.close(pair.world.now)
    assert deliver(pair, late) is DropReason.UNKNOWN_SESSION
    assert received(pair) == []


# -- the receive queue -----------------------------------------------------------------------------


def test_a_full_queue_stops_reading_and_holds_the_timers(pair: Pair) -> None:
    start = pair.world.now
    for _ in range(4100):
        pair.c.send(b"x", start)
    pair.run()
    assert len(pair.s.inbox) == 4096
    assert not pair.server.reading
    assert pair.s.counters[DropReason.OVERLOAD] == 1
    pair.world.now = start + 200 * SECOND
    pair.s.handle_timer(pair.world.now)
    assert pair.s.end is None, "the peer cannot be heard, so it is not dead"
    due = pair.s.next_timer()
    assert due is not None
    assert due > pair.world.now, "nor is there anything to do about it"
    assert pair.server.take(pair.world.now, channel=9) is None
    assert not pair.server.reading
    assert pair.server.take(pair.world.now) is not None
    assert len(pair.s.inbox) == 4096
    assert not pair.server.reading
    for _ in range(10):
        pair.server.take(pair.world.now)
    assert pair.server.reading
    assert (pair.s.next_timer() or 0) > start
    pair.s.handle_timer(pair.world.now + 89 * SECOND)
    assert pair.s.end is None
    assert len(received(pair)) == 4100 - 11


def test_the_end_of_the_stream_waits_for_the_queue(pair: Pair) -> None:
    for _ in range(4097):
        pair.c.send(b"x", pair.world.now)
    pair.run()
    pair.server.receive_eof(pair.world.now)
    assert pair.s.end is None
    assert len(received(pair)) == 4097
    assert pair.s.end == SessionEnded("end_of_stream", None)


def test_data_for_a_full_queue_is_neither_committed_nor_acked(pair: Pair) -> None:
    for _ in range(4096):
        deliver(pair, pair.c.protect(Type.DATA, 0, b"x"))
    highest = pair.s.window.highest
    packet = data(pair.c, b"x", 0)
    assert deliver(pair, packet) is DropReason.OVERLOAD
    assert pair.s.window.highest == highest
    pair.s.take()
    assert deliver(pair, packet) is Verdict.ACCEPTED


# -- observing -------------------------------------------------------------------------------------


def test_the_observer_sees_every_packet_with_its_outcome() -> None:
    traces: list[PacketTrace] = []
    pair = World(server_settings=EASY, observer=traces.append).pair()
    pair.c.send(b"x", pair.world.now)
    pair.run()
    deliver(pair, data(pair.s, b"x", 0))
    story = [(trace.direction, trace.packet[0] & 0xF, trace.outcome) for trace in traces]
    handshake = [Type.INIT, Type.CHALLENGE, Type.RESPONSE, Type.ACK, Type.DATA]
    expected: list[tuple[str, int, object]] = []
    for type in handshake:
        expected += [("sent", type, None), ("received", type, Verdict.ACCEPTED)]
    assert story == [*expected, ("received", Type.DATA, DropReason.REFLECTED)]
    assert all(trace.now == pair.world.now for trace in traces)


def test_counters_feed_their_parent_and_saturate() -> None:
    parent = Counters()
    child = Counters(parent)
    child.count("malformed")
    child.count("malformed", 2)
    assert (child["malformed"], parent["malformed"]) == (3, 3)
    child.count("malformed", COUNTER_MAX)
    assert child["malformed"] == COUNTER_MAX
    assert len(child) == len(list(child))
    with pytest.raises(KeyError):
        child.count("no such counter")


def test_packets_sent_and_received_are_what_the_seqs_say(pair: Pair) -> None:
    pair.c.send(b"x" * 5000, pair.world.now)
    pair.run()
    assert pair.c.next_seq - pair.c.first_seq == pair.s.window.received == 1 + 4
    assert pair.c.role is Role.CLIENT

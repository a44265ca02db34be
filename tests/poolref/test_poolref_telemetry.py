# SPDX-License-Identifier: GPL-2.0-or-later
"""What a heartbeat reports, when it leaves, and what happens at the ends of its fields."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
from poolref_sim import Pair, data, deliver, easy_pair

from poolref import wire
from poolref.config import ConfigPayload, Current, Undoing
from poolref.constants import MILLISECOND, SECOND, State, Type
from poolref.session import Session
from poolref.telemetry import RoundTrip
from poolref.wire import FIELDS, Telemetry

WIDTHS = {field.name: 8 * field.size for field in FIELDS["telemetry"]}
NARROW = [name for name, bits in WIDTHS.items() if bits < 64]


def heartbeats(session: Session) -> list[Telemetry]:
    """The reports that a session is about to send."""
    found = []
    for packet in session.packets_to_send():
        header = wire.parse(packet)
        if header.type == Type.HEARTBEAT:
            plaintext = session.keys.open(header.seq, packet[80:])
            assert plaintext is not None
            found.append(Telemetry.unpack(plaintext))
    return found


def beat(session: Session, now: int) -> Telemetry:
    """The report of a heartbeat sent now."""
    session.heartbeats.handle_timer(now)
    (report,) = heartbeats(session)
    return report


# -- the ends of the fields ------------------------------------------------------------------------


def test_the_fields_are_those_of_the_layout() -> None:
    assert [field.name for field in fields(Telemetry)] == list(WIDTHS)
    assert {WIDTHS[name] for name in NARROW} == {16, 32}


@pytest.mark.parametrize("name", NARROW)
@pytest.mark.parametrize("beyond", [-1, 0, 1, 5])
def test_narrow_fields_saturate(name: str, beyond: int) -> None:
    limit = (1 << WIDTHS[name]) - 1
    report = Telemetry.unpack(Telemetry(**{name: limit + beyond}).pack())
    assert getattr(report, name) == min(limit + beyond, limit)
    assert replace(report, **{name: 0}) == Telemetry(), "the neighbours stay"
    assert getattr(Telemetry.unpack(Telemetry(**{name: limit << 20}).pack()), name) == limit


def test_a_session_driven_past_32_bits_reports_the_largest_value() -> None:
    pair = easy_pair()
    pair.c.bytes_sent = 1 << 40
    pair.c.keys.epoch = (1 << 32) + 3
    pair.c.window.lost = 1 << 50
    report = beat(pair.c, pair.world.now + SECOND)
    assert report.throughput_bps == 0xFFFFFFFF
    assert report.rekey_count == 0xFFFFFFFF
    assert report.loss_rate_ppm == 999_999
    assert report.uptime_ns == SECOND


# -- the figures -----------------------------------------------------------------------------------


def test_throughput_is_of_the_messages_since_the_previous_heartbeat() -> None:
    pair = easy_pair()
    now = pair.world.now
    pair.c.send(bytes(10_000), now)
    assert beat(pair.c, now + 5 * SECOND).throughput_bps == 16_000
    pair.c.send(bytes(500), now + 6 * SECOND)
    assert beat(pair.c, now + 10 * SECOND).throughput_bps == 800
    assert beat(pair.c, now + 15 * SECOND).throughput_bps == 0
    assert beat(pair.c, now + 15 * SECOND).throughput_bps == 0, "no time has passed"


def test_loss_is_counted_and_taken_back() -> None:
    pair = easy_pair()
    late = [data(pair.c, b"x", 0) for _ in range(9)]
    for packet in late[3:]:
        deliver(pair, packet)
    # The handshake's packet and six arrived, three did not.
    assert beat(pair.s, pair.world.now + SECOND).loss_rate_ppm == 300_000
    deliver(pair, late[0])
    assert beat(pair.s, pair.world.now + SECOND).loss_rate_ppm == 200_000
    deliver(pair, late[1])
    deliver(pair, late[2])
    assert beat(pair.s, pair.world.now + SECOND).loss_rate_ppm == 0


def test_queue_depth_is_of_messages_not_yet_read() -> None:
    pair = easy_pair()
    for _ in range(3):
        pair.c.send(bytes(3000), pair.world.now)
    pair.run()
    assert beat(pair.s, pair.world.now + SECOND).queue_depth == 3
    pair.server.take(pair.world.now)
    assert beat(pair.s, pair.world.now + SECOND).queue_depth == 2


def test_uptime_and_mtu() -> None:
    pair = easy_pair()
    pair.c.mtu = 1234
    report = beat(pair.c, pair.world.now + 77 * SECOND)
    assert (report.uptime_ns, report.mtu) == (77 * SECOND, 1234)


def test_completed_rekeys_are_counted_at_both_sides() -> None:
    pair = easy_pair()
    for count in range(3):
        pair.advance(10 * SECOND)
        for side in (pair.c, pair.s):
            assert side.heartbeats.report(pair.world.now).rekey_count == count
            assert side.heartbeats.peer_report is not None
            assert side.heartbeats.peer_report.rekey_count == count
        pair.c.rekeying.start(pair.world.now)
        pair.run()


# -- the round trip --------------------------------------------------------------------------------


def test_heartbeats_that_are_never_acknowledged_do_not_pile_up() -> None:
    round_trip = RoundTrip()
    for seq in range(10_000):
        round_trip.sent(seq, seq)
    round_trip.acknowledged(9_967, 20_000)
    assert round_trip.srtt == 0, "forgotten"
    round_trip.acknowledged(9_968, 20_000)
    assert round_trip.srtt == 20_000 - 9_968
    round_trip.acknowledged(9_999, 29_999)
    assert round_trip.jitter > 0
    before = round_trip.srtt
    round_trip.acknowledged(9_999, 40_000)
    assert round_trip.srtt == before, "one sample each"


# -- when it leaves --------------------------------------------------------------------------------


class Proposer:
    def undone(self, undone: Current, restored: Current, why: Undoing, now: int) -> None:
        pass


def configure(pair: Pair, heartbeat_s: int, deadline: int = 3600 * SECOND) -> None:
    """Put another interval in force at the client, tentatively."""
    configuration = pair.world.client_core.configuration
    params = replace(configuration.current.params, heartbeat_s=heartbeat_s)
    version = configuration.current.version + 1
    payload = ConfigPayload.proposing(params, configuration.reference, version, deadline, 0)
    assert configuration.propose(payload, Proposer(), pair.world.now) is None


def times(pair: Pair, seconds: int) -> list[int]:
    """When within the next seconds the client's heartbeats leave."""
    found = []
    for second in range(1, seconds + 1):
        pair.c.handle_timer(pair.world.now + second * SECOND)
        found += [second for _ in heartbeats(pair.c)]
    pair.world.now += seconds * SECOND
    return found


def test_the_interval_is_that_of_the_configuration_in_force() -> None:
    pair = easy_pair()
    assert times(pair, 12) == [5, 10]
    stirred: list[Session] = []
    pair.world.client_core.stir = stirred.append
    configure(pair, 1)
    assert stirred == [pair.c]
    assert times(pair, 4) == [1, 2, 3, 4], "the first 3 s after the last one, as soon as it can"
    configure_again = pair.world.client_core.configuration
    assert configure_again.tentative is not None
    configure_again.roll_back(configure_again.tentative.owner, pair.world.now)
    assert times(pair, 11) == [5, 10]


def test_the_report_names_the_version_in_force() -> None:
    pair = easy_pair()
    assert beat(pair.c, pair.world.now).config_version == 0
    configure(pair, 5, deadline=10 * SECOND)
    assert beat(pair.c, pair.world.now).config_version == 1
    pair.world.client_core.configuration.expire(pair.world.now + 10 * SECOND)
    assert beat(pair.c, pair.world.now).config_version == 0


def test_another_parameter_does_not_disturb() -> None:
    pair = easy_pair()
    due = pair.c.heartbeats.due
    configure(pair, 5)
    assert pair.c.heartbeats.due == due


def test_none_leaves_during_a_rekey_one_soon_after() -> None:
    pair = easy_pair()
    pair.c.state = State.REKEYING
    now = pair.world.now + 5 * SECOND
    pair.c.heartbeats.handle_timer(now)
    assert heartbeats(pair.c) == []
    pair.c.state = State.ESTABLISHED
    assert pair.c.heartbeats.due == now + SECOND
    assert beat(pair.c, now + SECOND).uptime_ns == 6 * SECOND
    assert pair.c.heartbeats.due == now + 6 * SECOND


def test_none_leaves_while_the_transport_is_full() -> None:
    pair = easy_pair()
    pair.c.congested = True
    assert times(pair, 12) == []
    pair.c.congested = False
    assert times(pair, 12) == [3, 8]


def test_a_session_that_ended_no_longer_follows_the_configuration() -> None:
    pair = easy_pair()
    pair.c.close(pair.world.now)
    due = pair.c.heartbeats.due
    configure(pair, 1)
    assert pair.c.heartbeats.due == due
    pair.advance(100 * MILLISECOND)
    assert times(pair, 20) == []

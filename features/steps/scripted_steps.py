# SPDX-License-Identifier: GPL-2.0-or-later
"""Steps about scripted peers, which do one thing wrong at a time."""

from __future__ import annotations

from behave import given, then, when

from poolproof.devices.base import IPV4
from poolproof.devices.puppet import LOW_ORDER_POINTS
from poolproof.devices.puppet_session import RULE_BREAKERS
from poolproof.devices.puppet_stream import EndOfStream, NothingCame, PuppetError
from poolproof.devices.stage import SETTLE, eventually
from poolref.constants import SEQ_RANGE, Role, Type

SERVER_LOW, SERVER_INITIAL_END = SEQ_RANGE[Role.SERVER][0], SEQ_RANGE[Role.SERVER][0] + (1 << 61)
QUIET = 2.0
"""Seconds of silence that count as no answer, where silence is the right answer."""


def answer(client, timeout=SETTLE):
    """What the device answers to a scripted client: a packet, or None for a closed connection."""
    try:
        return client.stream.receive(timeout)
    except EndOfStream:
        return None


# -- handshakes


@given("a scripted client that keeps to the rules gets a session")
@then("a scripted client that keeps to the rules gets a session")
def control(context):
    context.stage.control()


@when("{count:d} scripted clients stop after their CHALLENGE")
def stop_after_challenge(context, count):
    for _ in range(count):
        client = context.stage.client()
        client.stream.send(client.init())
        client.await_challenge()


@when("{count:d} scripted clients connect and stay silent")
def stay_silent(context, count):
    for _ in range(count):
        context.stage.client()


@when('a scripted client uses the low-order key "{point}"')
def low_order_client(context, point):
    client = context.stage.client()
    context.attempt = client
    client.public = LOW_ORDER_POINTS[point]
    client.stream.send(client.init())
    context.answer = answer(client)
    if context.answer is None or context.answer.header.type != Type.CHALLENGE:
        return
    # Served so far: go on as an attacker would who knows that the shared secret is all zero.
    client.take_challenge(context.answer)
    packet, _keys = client.respond(zero_shared=True)
    client.stream.send(packet)
    context.answer = answer(client)


@when("a scripted client answers the CHALLENGE with {misdeed}")
def answers_with(context, misdeed):
    client = context.stage.client()
    context.attempt = client
    client.stream.send(client.init())
    client.await_challenge()
    packet, _keys = client.respond(misdeed)
    client.stream.send(packet)
    context.answer = answer(client)


@then("the device refuses the handshake")
def refused(context):
    seen = context.answer
    assert seen is None or seen.header.type == Type.CLOSE, f"instead of a refusal came {seen}"
    ends(context.attempt)


@then("the device refuses the handshake with the advisory CLOSE 0x01")
def refused_with_close(context):
    check_advisory(context.answer, 0x01)
    ends(context.attempt)


def ends(client):
    """AssertionError unless the device closes the connection now."""
    try:
        packet = client.stream.receive(SETTLE)
    except EndOfStream:
        return
    except NothingCame:
        raise AssertionError("the device leaves the connection open after refusing the handshake") from None
    raise AssertionError(f"after refusing the handshake the device sent {packet}")


def check_advisory(packet, code, version=1):
    assert packet is not None, "the connection was closed without a CLOSE"
    assert packet.header.type == Type.CLOSE, f"instead of a CLOSE came {packet}"
    assert packet.payload == bytes([code]), (
        f"the CLOSE carries {packet.payload.hex() or 'nothing'}, not {code:02x}"
    )
    assert packet.header.hmac == bytes(32), "an advisory CLOSE has no hmac"
    assert packet.header.version == version, f"the CLOSE is of version {packet.header.version}"


@then("the device lists no session with the scripted client")
def no_session_with_client(context):
    stage = context.stage
    listed = {each.session_id for each in stage.live_sessions(stage.roles["server"])}
    assert context.attempt.session_id.hex() not in listed, "the refused handshake left a session"
    assert not listed, f"sessions are listed: {listed}"


@when("a scripted client sends an INIT whose clock is {offset:d} s off")
def init_off(context, offset):
    client = context.stage.client()
    client.stream.send(client.init(clock_offset_s=offset))
    context.attempt = client


@then("the INIT is answered with a CHALLENGE")
def init_answered(context):
    context.attempt.await_challenge()


@then("the INIT is discarded and counted {counter}")
def init_discarded(context, counter):
    grown = eventually(lambda: context.stage.growth("server", counter), f"{counter} counting the INIT")
    assert grown == 1, f"{counter} grew by {grown}"
    try:
        packet = context.attempt.stream.receive(QUIET)
    except (NothingCame, EndOfStream):
        return
    raise AssertionError(f"the discarded INIT was answered with {packet}")


@when("a scripted client sends an INIT of version {version:d}")
def init_version(context, version):
    client = context.stage.client()
    client.stream.send(client.init(version=version))
    context.answer = answer(client)


@when("a scripted client sends an INIT")
def sends_init(context):
    client = context.stage.client()
    client.stream.send(client.init())
    context.answer = answer(client)


@then("it receives an advisory CLOSE {code} of version {version:d} with a zero session id")
def advisory_close(context, code, version):
    check_advisory(context.answer, int(code, 16), version)
    assert context.answer.header.session_id == bytes(16), "the CLOSE carries a session id"


@then("it receives a CHALLENGE with a difficulty in {low:d}..{high:d}")
def difficulty_in(context, low, high):
    client = context.stage.clients[-1]
    assert context.answer is not None, "the connection was closed"
    challenge = client.take_challenge(context.answer)
    assert low <= challenge.difficulty <= high, f"the difficulty is {challenge.difficulty}"


@when("another connection replays the RESPONSE of that session")
def replay_response(context):
    stage = context.stage
    client = stage.client()
    client.stream.send(stage.clients[-2].response)
    context.attempt, context.answer = client, answer(client)


@when("{count:d} scripted clients get a session one after the other")
def several_sessions(context, count):
    context.starts = []
    for _ in range(count):
        session = context.stage.scripted_session()
        context.starts.append(session.first_peer_seq)
        session.stream.close()


@then("every sequence number the device started with lies in the server's range")
def starts_in_range(context):
    outside = [hex(n) for n in context.starts if not SERVER_LOW <= n < SERVER_INITIAL_END]
    assert not outside, f"outside [2^62, 2^62+2^61): {outside}"


@then("no two of them are alike")
def starts_differ(context):
    assert len(set(context.starts)) == len(context.starts), f"repeated: {[hex(n) for n in context.starts]}"


@given("a scripted server that keeps to the rules gets the device's session")
def server_control(context):
    stage = context.stage
    server = stage.scripted_server()
    device = stage.cast("device", "client")
    with stage.groundwork("the device opens a session to an honest server"):
        try:
            index = device.connect(server.address, server.port)
        except OSError as exc:
            raise PuppetError(f"{exc}; {server.error}" if server.error else str(exc)) from exc
    device.close_session(index)


@given("a scripted server that {misdeed}")
def misbehaving_server(context, misdeed):
    context.stage.scripted_server(misdeed)


@then("the scripted server received no RESPONSE")
def no_response(context):
    server = context.stage.servers[-1]
    assert server.served.wait(SETTLE * 2), "the scripted server is still waiting"
    types = [packet.header.type for packet in server.received]
    assert types == [Type.INIT], f"it received types {types}"


@then("the device lists no session with the scripted server")
def no_session_with_server(context):
    stage = context.stage
    listed = stage.live_sessions(stage.roles["client"])
    assert not listed, f"sessions are listed: {listed}"


# -- sessions


@given("a scripted client has a session with the device")
def has_session(context):
    have_sessions_over(context, 1, IPV4)


@given("{count:d} scripted clients have a session with the device")
def have_sessions(context, count):
    have_sessions_over(context, count, IPV4)


@given("{count:d} scripted clients have a session with the device over {family}")
def have_sessions_over(context, count, family):
    for _ in range(count):
        with context.stage.groundwork("an honest client gets a session"):
            context.stage.scripted_session(family)


@given("the session still carries data both ways")
@then("the session still carries data both ways")
def carries_data(context):
    context.stage.exchange(context.stage.sessions[-1])


@when("it sends DATA")
def sends_data(context):
    session = context.stage.sessions[-1]
    context.message = context.stage.message(50)
    context.seq = session.send(session.data(context.message))


@then("the device receives it")
def device_receives(context):
    stage = context.stage
    seen = stage.roles["server"].recv(stage.index_of(stage.sessions[-1]))
    assert seen == context.message, "the device delivered something else"


@then("it receives an ACK for that packet")
def receives_ack(context):
    ack = context.stage.sessions[-1].await_ack(context.seq)
    assert ack.payload == b"", f"the ACK has a payload of {len(ack.payload)} bytes"
    assert ack.header.ack == context.seq, f"it acknowledges {ack.header.ack}, the packet had {context.seq}"


@when("it sends the same packet again")
def sends_again(context):
    session = context.stage.sessions[-1]
    session.send(session.last_sent)


@when("it skips {count:d} sequence numbers and sends DATA")
def skips(context, count):
    session = context.stage.sessions[-1]
    context.skipped = session.seq
    session.seq += count
    sends_data(context)


@when("it sends DATA with the first number skipped")
def sends_skipped(context):
    session = context.stage.sessions[-1]
    context.message = context.stage.message(51)
    session.send(session.data(context.message, seq=context.skipped))


@then("that packet is delivered")
def delivered(context):
    device_receives(context)


@then("that packet is discarded and counted {counter}")
def discarded(context, counter):
    stage = context.stage
    stage.barrier(stage.sessions[-1])
    grown = stage.growth("server", counter)
    assert grown == 1, f"{counter} grew by {grown}"


@when("it sends DATA with a wrong hmac")
def wrong_hmac(context):
    session = context.stage.sessions[-1]
    packet = bytearray(session.data(context.stage.message(50)))
    packet[48] ^= 1
    session.stream.send(bytes(packet))


@when("it sends DATA with a wrong tag")
def wrong_tag(context):
    session = context.stage.sessions[-1]
    session.stream.send(session.data_with_wrong_tag(context.stage.message(50)))


@then("the device ends the session")
def ends_session(context):
    stage = context.stage
    session, server = stage.sessions[-1], stage.roles["server"]
    wanted = session.session_id.hex()
    if not session.stream.closed:
        stage.await_end(session)
    eventually(
        lambda: wanted not in {each.session_id for each in stage.live_sessions(server)},
        "the device dropping the session",
    )


@when("the device sends DATA and the scripted client sends that packet back")
def reflects(context):
    stage = context.stage
    session = stage.sessions[-1]
    stage.roles["server"].send(stage.index_of(session), stage.message(30))
    session.stream.send(session.receive_type(Type.DATA).raw)
    stage.barrier(session)


@when("it sends DATA that acknowledges more than the device sent")
def acks_too_much(context):
    stage = context.stage
    session = stage.sessions[-1]
    session.send(session.data(stage.message(20), ack=session.highest + 1_000_000))
    assert len(stage.roles["server"].recv(stage.index_of(session))) == 20


@when("it sends a HEARTBEAT")
def sends_heartbeat(context):
    session = context.stage.sessions[-1]
    context.seq = session.send(session.heartbeat())


@when("it sends {packet}")
def sends_rule_breaker(context, packet):
    stage = context.stage
    session = stage.sessions[-1]
    if packet not in RULE_BREAKERS:
        raise ValueError(f"no scripted packet is called {packet!r}")
    session.stream.send(RULE_BREAKERS[packet](session, stage.message(40)))
    stage.barrier(session)


@then("the scripted client receives an authentic CLOSE")
def receives_close(context):
    check_close(context.stage.sessions[-1])


@then("every scripted client received an authentic CLOSE")
def all_receive_close(context):
    for session in context.stage.sessions:
        check_close(session)


def check_close(session):
    try:
        packet = session.receive_type(Type.CLOSE)
    except PuppetError as exc:
        raise AssertionError(f"no CLOSE came: {exc}") from exc
    assert len(packet.plaintext) <= 1, f"the CLOSE carries {len(packet.plaintext)} bytes"


@when("the scripted client drops the connection")
def drops(context):
    context.stage.sessions[-1].stream.close()


@when("the scripted client sends {count:d} random bytes and drops the connection")
def sends_garbage(context, count):
    stage = context.stage
    stage.sessions[-1].stream.send(stage.random.randbytes(count))
    stage.sessions[-1].stream.close()


@when("{clients:d} scripted clients send {count:d} random bytes and drop the connection")
def clients_send_garbage(context, clients, count):
    for _ in range(clients):
        client = context.stage.client()
        try:
            client.stream.send(context.stage.random.randbytes(count))
        except EndOfStream:
            pass  # refused before all of it was sent: as good an answer as any
        client.close()

# SPDX-License-Identifier: GPL-2.0-or-later
"""Steps about endpoints and the sessions between them."""

from __future__ import annotations

import contextlib
import errno
import threading
import time

from behave import given, then, when

from poolproof.devices.stage import eventually
from poolref.tools.kernel_abi import CHANNEL_LIST, CHANNEL_SUBSCRIBE, CHANNEL_UNSUBSCRIBE

ROLES = ("client", "server")


def error_of(call, *args):
    """The OSError that the call ends with. AssertionError when it succeeds."""
    try:
        result = call(*args)
    except OSError as exc:
        return exc
    raise AssertionError(f"it succeeded (with {result!r}) instead of being refused")


def check_errno(exc, name):
    seen = errno.errorcode.get(exc.errno, str(exc.errno))
    assert seen == name, f"refused with {seen} ({exc}), not {name}"


@given("the {kind} listens as server")
def listens(context, kind):
    context.stage.listen(kind)


@given("the {kind} is connected to it over {family}")
def is_connected(context, kind, family):
    with context.stage.groundwork(f"the {kind} connects to the {context.stage.roles['server'].kind}"):
        context.stage.connect(kind, family)


@when("the {kind} connects to it over {family}")
def connects(context, kind, family):
    context.stage.connect(kind, family)


@when("the {kind} tries to connect to it over {family}")
def tries_to_connect(context, kind, family):
    stage = context.stage
    client = stage.cast(kind, "client")
    started = time.monotonic()
    if stage.servers:
        target = stage.servers[-1]
        stage.failure = error_of(client.connect, target.address, target.port)
    else:
        server = stage.roles["server"]
        stage.failure = error_of(client.connect, server.address(family), server.port)
    context.took = time.monotonic() - started


@when("the {kind} tries to connect to a closed port over {family}")
def tries_a_closed_port(context, kind, family):
    stage = context.stage
    client = stage.cast(kind, "server")
    peer = stage.device.endpoint("reference", "server")
    stage.failure = error_of(client.connect, peer.address(family), 1)


@then("connecting fails with {name}")
@then("sending fails with {name}")
def fails_with(context, name):
    check_errno(context.stage.failure, name)


@then("connecting fails")
def fails(context):
    assert context.stage.failure is not None


@then("connecting fails within {limit:d} s")
def fails_within(context, limit):
    assert context.stage.failure is not None
    assert context.took < limit, f"it took {context.took:.1f} s"


@then("both ends list the session as ESTABLISHED with the same session id")
def both_list_it(context):
    client, server = (context.stage.session(role) for role in ROLES)
    assert client.session_id == server.session_id, f"{client.session_id} and {server.session_id}"
    assert int(client.session_id, 16), "the session id is zero"
    for role, info in (("client", client), ("server", server)):
        assert info.state == "ESTABLISHED", f"the {role} is in state {info.state}"


@then("a message from the {sender} arrives at the {receiver} intact")
def message_arrives(context, sender, receiver):
    context.stage.transfer(sender, context.stage.message(64))


@then("neither end discarded a packet")
def no_discards(context):
    for role in ROLES:
        grown = context.stage.discards(role)
        assert not grown, f"the {role} discarded packets: {grown}"


@when("both ends exchange messages of {sizes} bytes")
def exchange_sizes(context, sizes):
    stage = context.stage
    numbers = [int(n) for n in sizes.replace(" and ", ",").replace(" ", "").split(",") if n]
    context.sent = {role: [stage.message(size) for size in numbers] for role in ROLES}
    for role in ROLES:
        for message in context.sent[role]:
            stage.roles[role].send(stage.index[role], message)


@then("every message arrived intact and in order")
def all_arrived(context):
    stage = context.stage
    for sender, receiver in (ROLES, ROLES[::-1]):
        for sent in context.sent[sender]:
            seen = stage.roles[receiver].recv(stage.index[receiver])
            assert seen == sent, f"the {sender} sent {len(sent)} bytes, {len(seen)} other bytes arrived"


@when("the {role} tries to send a message of {size:d} bytes")
def tries_to_send(context, role, size):
    stage = context.stage
    stage.failure = error_of(stage.roles[role].send, stage.index[role], bytes(size))


@when("the {role} sends a message of {size:d} bytes")
def sends(context, role, size):
    stage = context.stage
    context.message = stage.message(size)
    stage.roles[role].send(stage.index[role], context.message)


@when("the {role} tries to receive into {size:d} bytes")
def tries_to_receive(context, role, size):
    stage = context.stage
    stage.failure = error_of(stage.roles[role].recv, stage.index[role], 0, size)


@then("receiving fails with EMSGSIZE and reports {size:d} bytes")
def receive_refused(context, size):
    check_errno(context.stage.failure, "EMSGSIZE")
    assert str(size) in str(context.stage.failure), f"reported: {context.stage.failure}"


@then("the {role} receives that message whole")
@then("the {role} still reads that message")
def receives_it(context, role):
    stage = context.stage
    seen = stage.roles[role].recv(stage.index[role])
    assert seen == context.message, (
        f"{len(context.message)} bytes were sent, {len(seen)} other bytes were read"
    )


@when("the message waits at the {role}")
def message_waits(context, role):
    stage = context.stage
    size = len(context.message)
    eventually(lambda: stage.session(role).bytes_recv >= size, f"{size} bytes arriving at the {role}")


@when("the {role} closes the session")
def closes(context, role):
    stage = context.stage
    if role == "device":
        stage.roles["server"].close_session(stage.index_of(stage.sessions[-1]))
    else:
        stage.roles[role].close_session(stage.index[role])


@then("neither end lists the session")
def nobody_lists_it(context):
    for role in ROLES:
        gone_from(context, role)


@then("the {role} no longer lists the session")
def gone_from(context, role):
    stage = context.stage
    index, endpoint = stage.index[role], stage.roles[role]
    eventually(
        lambda: index not in {each.index for each in stage.live_sessions(endpoint)},
        f"the {role} dropping session {index}",
    )


@then("the {role}'s channels are {channels}")
def channels_are(context, role, channels):
    stage = context.stage
    listed = stage.roles[role].channel(stage.index[role], CHANNEL_LIST)
    assert listed == [int(n) for n in channels.split(",")], f"subscribed: {listed}"


@when("the {role} subscribes channels {first:d} and {second:d}")
def subscribes(context, role, first, second):
    for channel in (first, second):
        context.stage.roles[role].channel(context.stage.index[role], CHANNEL_SUBSCRIBE, channel)


@when("the {role} unsubscribes channel {channel:d}")
def unsubscribes(context, role, channel):
    context.stage.roles[role].channel(context.stage.index[role], CHANNEL_UNSUBSCRIBE, channel)


@then("a message on channel {channel:d} arrives at the server")
def arrives_on(context, channel):
    context.stage.transfer("client", context.stage.message(32), channel)


@then("a message on channel {channel:d} does not arrive at the server")
def does_not_arrive_on(context, channel):
    stage = context.stage
    stage.roles["client"].send(stage.index["client"], stage.message(32), channel)
    # The next message on channel 0 overtakes nothing: when it arrives, the other one was discarded.
    stage.transfer("client", stage.message(33))


@given("the client sends messages of {size:d} bytes without pause")
def traffic(context, size):
    """Nobody receives: an open control file would pin the server's module."""
    stage = context.stage
    stop = threading.Event()

    def pump():
        with contextlib.suppress(OSError):
            while not stop.is_set():
                stage.roles["client"].send(stage.index["client"], bytes(size))

    thread = threading.Thread(target=pump, daemon=True)
    thread.start()

    def end():
        stop.set()
        thread.join(30)

    context.add_cleanup(end)
    eventually(lambda: stage.session("server").bytes_recv >= 3 * size, "three messages arriving")


@then("the {kind} lists {count:d} session")
@then("the {kind} lists {count:d} sessions")
def lists(context, kind, count):
    stage = context.stage
    server = stage.roles["server"]
    listed = stage.live_sessions(server)
    assert len(listed) == count, f"{server.name} lists {len(listed)} sessions: {listed}"


@then('the counter "{name}" of the device grew by {amount:d}')
def counter_grew(context, name, amount):
    stage = context.stage
    grown = eventually(lambda: stage.growth("server", name), f"{name} counting anything")
    assert grown == amount, f"{name} grew by {grown}"


@then("the device still serves a session")
def still_serves(context):
    stage = context.stage
    if not stage.listening:
        stage.listen("device")
    stage.exchange(stage.scripted_session())

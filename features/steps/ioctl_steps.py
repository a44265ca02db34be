# SPDX-License-Identifier: GPL-2.0-or-later
"""Steps about what the ioctls promise to programs."""

from __future__ import annotations

import errno
import socket
import struct
import time

from behave import then, when
from session_steps import check_errno, error_of

from poolproof.devices.base import DeviceError
from poolproof.devices.stage import eventually
from poolref.tools.kernel_abi import (
    CHANNEL_LIST,
    CONNECT_REQ,
    CONTROL_REQ,
    IOC_CONNECT,
    IOC_CONTROL,
    IOC_LISTEN,
    mapped,
)

GOOD_PROPOSAL = {"difficulty": 16, "deadline_ns": 10**9}


def raw(context, number, argument):
    return context.stage.roles["server"].call("pool.raw_ioctl", number=number, argument=argument)


@then("a user who is not root cannot open /dev/pool")
def not_root(context):
    script = (
        "import os\nos.setgid(65534); os.setuid(65534)\n"
        "try: os.open('/dev/pool', os.O_RDWR)\nexcept OSError as e: print(e.errno)"
    )
    answer = context.stage.roles["server"].call("exec", argv=["python3", "-c", script])
    assert answer["out"].strip() == str(errno.EACCES), f"opening it ended with {answer}"


@then("root can")
def root_can(context):
    assert context.stage.roles["server"].sessions() == []


@when("the server tries to receive what nobody sent")
def receives_nothing(context):
    stage = context.stage
    started = time.monotonic()
    stage.failure = error_of(stage.roles["server"].recv, stage.index["server"])
    context.took = time.monotonic() - started


@then("receiving fails with ETIMEDOUT")
def times_out(context):
    check_errno(context.stage.failure, "ETIMEDOUT")


@then("sending to it is refused with {send}, its channels with {channel}, closing it with {close}")
def not_active(context, send, channel, close):
    stage = context.stage
    server, index = stage.roles["server"], stage.index["server"]
    eventually(lambda: not stage.live_sessions(server), "the session being gone")
    check_errno(error_of(server.send, index, b"x"), send)
    check_errno(error_of(server.channel, index, CHANNEL_LIST), channel)
    check_errno(error_of(server.close_session, index), close)


@when("{count:d} scripted clients get and close a session one after the other")
def one_after_the_other(context, count):
    stage = context.stage
    context.indexes = []
    for _ in range(count):
        session = stage.scripted_session()
        context.indexes.append(stage.index_of(session))
        session.stream.close()
        eventually(lambda: not stage.live_sessions(stage.roles["server"]), "the session being gone")


@then("no two of them had the same index")
def all_different(context):
    assert len(set(context.indexes)) == len(context.indexes), f"the indexes were {context.indexes}"


@then("CONNECT with {what} is refused with {name}")
def connect_refused(context, what, name):
    four, six = mapped("10.253.0.1"), mapped("fd00:253::1")
    request = {
        "another version": CONNECT_REQ.pack(four, 9253, socket.AF_INET, 2),
        "version 3": CONNECT_REQ.pack(four, 9253, socket.AF_INET, 3),
        "port 0": CONNECT_REQ.pack(four, 0, socket.AF_INET, 0),
        "family 1": CONNECT_REQ.pack(four, 9253, 1, 0),
        "an IPv6 address as AF_INET": CONNECT_REQ.pack(six, 9253, socket.AF_INET, 0),
        "a reserved byte": CONNECT_REQ.pack(four, 9253, socket.AF_INET, 0)[:-1] + b"\1",
    }[what]
    check_errno(error_of(raw, context, IOC_CONNECT, request), name)


@then("LISTEN on port {port:d} is refused with {name}")
def listen_refused(context, port, name):
    check_errno(error_of(raw, context, IOC_LISTEN, struct.pack("=H", port)), name)


@then("LISTEN on port {port:d} succeeds")
def listen_succeeds(context, port):
    raw(context, IOC_LISTEN, struct.pack("=H", port))


@then("STOP succeeds")
def stop_succeeds(context):
    context.stage.roles["server"].stop()


@then("CONTROL with {what} is refused with {name}")
def control_refused(context, what, name):
    stage = context.stage
    server, index = stage.roles["server"], stage.index_of(stage.sessions[-1])
    rekey = CONTROL_REQ.pack(index, 1, 0, 0, 0)
    requests = {
        "op 0": CONTROL_REQ.pack(index, 0, 0, 0, 0),
        "op 9": CONTROL_REQ.pack(index, 9, 0, 0, 0),
        "a reserved byte": rekey[:5] + b"\1" + rekey[6:],
        "index 64": CONTROL_REQ.pack(64, 1, 0, 0, 0),
        "an index without a session": CONTROL_REQ.pack((index + 1) % 64, 1, 0, 0, 0),
        "a proposal of 23 bytes": CONTROL_REQ.pack(index, 2, 23, 0, 0),
        "a proposal at a null pointer": CONTROL_REQ.pack(index, 2, 24, 0, 0),
        "a confirm of nothing": CONTROL_REQ.pack(index, 3, 0, 0, 0),
        "a rollback of nothing": CONTROL_REQ.pack(index, 4, 0, 0, 0),
    }
    if what in requests:
        refusal = error_of(raw, context, IOC_CONTROL, requests[what])
    else:
        wrong = {"a proposal out of range": {"difficulty": 21}, "a deadline out of range": {"deadline_ns": 1}}
        refusal = error_of(lambda: server.configure(index, **{**GOOD_PROPOSAL, **wrong[what]}))
    assert isinstance(refusal, DeviceError)
    check_errno(refusal, name)

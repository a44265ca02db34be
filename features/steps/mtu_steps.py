# SPDX-License-Identifier: GPL-2.0-or-later
"""Steps about MTU discovery (section 11)."""

from __future__ import annotations

import re
import time
from dataclasses import replace

from behave import then, when
from config_steps import PARAMETERS, proposal, send_config

from poolproof.devices.puppet_stream import NothingCame
from poolproof.devices.stage import SETTLE, eventually
from poolref.constants import Flag, Type

REQUIRE_ACK, TELEMETRY = int(Flag.REQUIRE_ACK), int(Flag.TELEMETRY)
OVERHEAD = 96


def probe(size, told=None):
    told = size if told is None else told
    return told.to_bytes(2, "big").ljust(max(size - OVERHEAD, 2), b"\0")


def send_probe(context, plaintext):
    session = context.stage.sessions[-1]
    context.seq = session.send(session.packet(Type.DISCOVER, plaintext, flags=REQUIRE_ACK))


def is_probe(packet):
    return packet.header.type == Type.DISCOVER and packet.header.flags & REQUIRE_ACK


def receive_probe(context, timeout=SETTLE):
    """The next probe of the device, as the size it says."""
    session = context.stage.sessions[-1]
    deadline = time.monotonic() + timeout
    while True:
        packet = session.receive_type(Type.DISCOVER, max(deadline - time.monotonic(), 0.001))
        if is_probe(packet) and not packet.header.flags & TELEMETRY:
            size = int.from_bytes(packet.plaintext[:2], "big")
            assert len(packet.raw) == size, f"a probe of {size} is {len(packet.raw)} bytes long"
            assert not any(packet.plaintext[2:]), "the padding of a probe is not zero"
            return size


def answer(context, size):
    session = context.stage.sessions[-1]
    session.send(session.packet(Type.DISCOVER, size.to_bytes(2, "big")))


def mtu(context):
    stage = context.stage
    index = stage.index_of(stage.sessions[-1])
    return next(row for row in stage.roles["server"].sessions() if row.index == index).telemetry["mtu"]


# -- the scripted client probes


@when("it probes with {what}")
def probes(context, what):
    if found := re.fullmatch(r"a packet of (\d+) bytes", what):
        context.size = int(found[1])
        send_probe(context, probe(context.size))
    elif found := re.fullmatch(r"a probe_size of (\d+)", what):
        context.size = int(found[1])
        send_probe(context, probe(800, context.size))
    else:
        plaintexts = {
            "no bytes": b"",
            "a size that is not its own": probe(800, 801),
            "padding that is not zero": probe(800)[:-1] + b"\1",
        }
        send_probe(context, plaintexts[what])


@then("the probe is answered")
def probe_answered(context):
    session = context.stage.sessions[-1]
    while True:
        packet = session.receive_type(Type.DISCOVER)
        if not is_probe(packet):
            break
    assert packet.plaintext == context.size.to_bytes(2, "big"), f"the answer is {packet.plaintext.hex()}"
    assert packet.header.ack >= context.seq, "the answer does not acknowledge the probe"


@then("the probe is acknowledged, not answered")
def probe_not_answered(context):
    session = context.stage.sessions[-1]
    while True:
        packet = session.receive()
        assert packet.header.type != Type.DISCOVER or is_probe(packet), "it was answered"
        if packet.header.type == Type.ACK and packet.header.ack >= context.seq:
            return


@then("the session's mtu is within {low:d}..{high:d}")
def mtu_within(context, low, high):
    assert low <= mtu(context) <= high, f"it is {mtu(context)}"


@then("the session's mtu is {size:d}")
def mtu_is(context, size):
    eventually(lambda: mtu(context) == size, f"an mtu of {size}", timeout=3.0)


# -- the device probes


@then("a probe of {size:d} bytes comes")
def probe_comes(context, size):
    seen = receive_probe(context)
    assert seen == size, f"a probe of {seen} bytes came"


@when("the scripted client answers it")
def answers_it(context):
    answer(context, 1400)


@when("the scripted client answers with a size of {size}")
def answers_with(context, size):
    session = context.stage.sessions[-1]
    plaintexts = {"1400 in 3 bytes": b"\x05\x78\x00", "no bytes": b""}
    plaintext = plaintexts[size] if size in plaintexts else int(size).to_bytes(2, "big")
    session.send(session.packet(Type.DISCOVER, plaintext))
    context.stage.barrier(session)


@then("no probe comes for {seconds:d} s")
def no_probe(context, seconds):
    session = context.stage.sessions[-1]
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        try:
            packet = session.receive(left)
        except NothingCame:
            return
        assert not is_probe(packet), f"a probe of {len(packet.raw)} bytes came"


@when("the scripted client answers probes of up to {most:d} bytes only")
def answers_small(context, most):
    context.probes = []
    last = time.monotonic()
    while len(context.probes) < 7:
        size = receive_probe(context)
        now = time.monotonic()
        if context.probes:
            assert now - last >= 0.9, f"a probe came {now - last:.2f} s after the one before"
        last = now
        context.probes.append(size)
        if size <= most:
            answer(context, size)


@then("the probes are {sizes} bytes")
def probes_are(context, sizes):
    wanted = [int(n) for n in re.findall(r"\d+", sizes)]
    assert context.probes == wanted, f"they are {context.probes}"


@then("the scripted client receives fragments of at most {most:d} bytes")
def fragments(context, most):
    got, largest = 0, 0
    while got < len(context.message):
        packet = context.stage.sessions[-1].receive_type(Type.DATA)
        assert packet.header.flags & Flag.FRAGMENT, "it came in one piece"
        got += len(packet.plaintext) - 8
        largest = max(largest, len(packet.plaintext) - 8)
    assert largest == most, f"the largest fragment has {largest} bytes"


@when("the {role} is told to probe its path")
def told_to_probe(context, role):
    context.stage.order(role, "probe_mtu")


@then("both ends have an mtu of {size:d} after {seconds:d} s")
def both_have(context, size, seconds):
    time.sleep(seconds)
    for role in ("client", "server"):
        seen = context.stage.session(role).telemetry["mtu"]
        assert seen == size, f"the {role}'s is {seen}"


@when("it proposes mtu_min {low:d} and mtu_max {high:d}")
def proposes_bounds(context, low, high):
    context.proposal = proposal(replace(PARAMETERS, mtu_min=low, mtu_max=high))
    send_config(context, context.proposal)

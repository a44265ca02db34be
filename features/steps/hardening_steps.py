# SPDX-License-Identifier: GPL-2.0-or-later
"""Steps that provoke the plan's failure modes."""

from __future__ import annotations

import socket
import struct
import threading
import time

from behave import then, when
from session_steps import check_errno, error_of

from poolproof.devices.puppet_server import Server
from poolproof.devices.puppet_stream import EndOfStream, NothingCame
from poolproof.devices.stage import SETTLE, eventually
from poolproof.lab.frames import matching
from poolref import wire
from poolref.constants import RESPONSE_SIZE, Flag, Type
from poolref.tools.kernel_abi import (
    CHANNEL_LIST,
    CHANNEL_REQ,
    CHANNEL_SUBSCRIBE,
    CHANNEL_UNSUBSCRIBE,
    IOC_CHANNEL,
)

FRAGMENT = struct.Struct(">IHH")
FIRST, LAST = int(Flag.FRAGMENT | Flag.REQUIRE_ACK), int(Flag.FRAGMENT | Flag.LAST_FRAG | Flag.REQUIRE_ACK)
UNKNOWN_TYPES = (13, 14, 15)
TAKEN = {
    "LISTENER": {Type.INIT, Type.RESPONSE},
    "INIT_SENT": {Type.CHALLENGE, Type.CLOSE},
    "CHALLENGED": {Type.ACK, Type.CLOSE},
    "ESTABLISHED": set(Type) - {Type.INIT, Type.CHALLENGE, Type.RESPONSE},
    "REKEYING": set(Type) - {Type.INIT, Type.CHALLENGE, Type.RESPONSE},
}


# -- fragments


def fragment(context, offset, total, data, flags=FIRST, *, new=False, channel=0):
    if new:
        context.msg_id = getattr(context, "msg_id", 0) + 1
    session = context.stage.sessions[-1]
    plaintext = FRAGMENT.pack(context.msg_id, offset, total) + data
    return session.packet(Type.DATA, plaintext, flags=flags, channel=channel)


@then("a message of two fragments arrives")
def two_fragments(context):
    stage = context.stage
    session, message = stage.sessions[-1], stage.message(900)
    session.stream.send(fragment(context, 0, 900, message[:500], new=True))
    session.stream.send(fragment(context, 500, 900, message[500:], LAST))
    seen = stage.roles["server"].recv(stage.index_of(session))
    assert seen == message, "another message was delivered"


@when("it sends fragments with {fault}")
def faulty_fragments(context, fault):
    stage = context.stage
    session = stage.sessions[-1]
    stage.roles["server"].channel(stage.index_of(session), CHANNEL_SUBSCRIBE, 7)
    one = bytes(100)

    def start():
        return fragment(context, 0, 300, one, new=True)

    made = {
        "an offset beyond the end": lambda: [fragment(context, 400, 300, one, new=True)],
        "an end beyond the end": lambda: [fragment(context, 201, 300, one, LAST, new=True)],
        "the largest offset and length": lambda: [fragment(context, 65535, 65535, one, LAST, new=True)],
        "a total_len of 0": lambda: [fragment(context, 0, 0, one, LAST, new=True)],
        "another total_len than before": lambda: [start(), fragment(context, 100, 301, one)],
        "another channel than before": lambda: [start(), fragment(context, 100, 300, one, channel=7)],
        "LAST_FRAG not at the end": lambda: [start(), fragment(context, 100, 300, one, LAST)],
        "the end without LAST_FRAG": lambda: [start(), fragment(context, 200, 300, one)],
        "no bytes": lambda: [start(), fragment(context, 100, 300, b"")],
        "half a fragment header": lambda: [session.packet(Type.DATA, bytes(4), flags=FIRST)],
        "other bytes where there are some": lambda: [start(), fragment(context, 50, 300, b"\1" * 100)],
        "a late fragment of a discarded message": lambda: [
            start(),
            fragment(context, 100, 300, one, LAST),
            fragment(context, 200, 300, one, LAST),
        ],
    }[fault]()
    session.stream.send(b"".join(made))
    stage.barrier(session)


@when("it sends a message of {size:d} bytes in overlapping fragments, shuffled and doubled")
def shuffled(context, size):
    stage = context.stage
    session = stage.sessions[-1]
    context.message = message = stage.message(size)
    context.msg_id = 1000
    starts = list(range(0, size, 900))
    # 1200 bytes each, so a quarter of each is covered twice; some are sent twice as well.
    starts += stage.random.sample(starts, 20)
    stage.random.shuffle(starts)
    for at in starts:
        part = message[at : at + 1200]
        session.stream.send(fragment(context, at, size, part, LAST if at + len(part) == size else FIRST))


@when("it sends a message of {size:d} bytes in a single packet")
def single_packet(context, size):
    session = context.stage.sessions[-1]
    context.message = context.stage.message(size)
    session.send(session.data(context.message))


@when("it begins {count:d} messages and completes none")
@when("it begins {count:d} message and completes none")
def begins(context, count):
    session = context.stage.sessions[-1]
    packets = [fragment(context, 0, 300, bytes(100), new=True) for _ in range(count)]
    session.stream.send(b"".join(packets))
    context.stage.barrier(session)


@then('the counters "{first}" and "{second}" of the device grew by {one:d} and {two:d}')
def counters_grew(context, first, second, one, two):
    seen = [context.stage.growth("server", name) for name in (first, second)]
    assert seen == [one, two], f"they grew by {seen}"


@then('after {seconds:d} s the counter "{name}" of the device grew by {amount:d}')
def grew_after(context, seconds, name, amount):
    time.sleep(seconds)
    if amount:
        eventually(lambda: context.stage.growth("server", name) >= amount, f"{name} growing by {amount}", 3.0)
    grown = context.stage.growth("server", name)
    assert grown == amount, f"{name} grew by {grown}"


# -- the receive queue

_DRAIN = """
import hashlib, sys
from poolref.tools.kernel_abi import PoolDevice
seen = hashlib.sha256()
with PoolDevice() as device:
    for _ in range(int(sys.argv[2])):
        seen.update(device.recv(int(sys.argv[1])))
print(seen.hexdigest())
"""


@when("it sends {count:d} messages that nobody reads")
def unread(context, count):
    import hashlib

    stage = context.stage
    session = stage.sessions[-1]
    context.digest = hashlib.sha256()
    for _ in range(count):
        message = stage.message(40)
        context.digest.update(message)
        session.stream.send(session.data(message))


@then("the device delivers all {count:d} of them in order")
def delivers_all(context, count):
    stage = context.stage
    server, index = stage.roles["server"], stage.index_of(stage.sessions[-1])
    argv = ["env", "PYTHONPATH=/mnt/tools/python", "python3", "-c", _DRAIN, str(index), str(count)]
    answer = server.call("exec", argv=argv, timeout=120.0)
    assert answer["rc"] == 0, answer["err"]
    assert answer["out"].strip() == context.digest.hexdigest(), "other messages were delivered"


# -- the state table


class Interrupting(Server):
    """Sends packets of its own after the client's INIT, or after its RESPONSE."""

    def __init__(self, *arguments, after, packets, **options):
        self.after, self.packets = after, packets
        super().__init__(*arguments, **options)

    def _take(self, stream):
        packet = super()._take(stream)
        if packet.header.type == self.after:
            for type in self.packets:
                stream.send(bare(type))
        return packet


def bare(type):
    """An unprotected packet that only its type speaks against: a RESPONSE has its size."""
    if type == Type.RESPONSE:
        return wire.build(type, bytes(RESPONSE_SIZE), flags=int(Flag.ENCRYPTED | Flag.REQUIRE_ACK))
    return wire.build(type)


def untaken(state):
    return [type for type in range(16) if type not in TAKEN[state]]


@when("the device is in state {state} and each type that it does not take comes")
def every_type(context, state):
    stage = context.stage
    context.types = untaken(state)
    if state in ("INIT_SENT", "CHALLENGED"):
        client = stage.cast("device", "client")
        after = Type.INIT if state == "INIT_SENT" else Type.RESPONSE
        reference = stage.device.endpoint("reference", "server")
        server = Interrupting(
            reference.address("IPv4"), stage.random.randbytes, after=after, packets=context.types
        )
        stage.servers.append(server)
        context.connected = client.connect(server.address, server.port)
        context.counted = "client"
        return
    context.counted = "server"
    stage.listen("device")
    if state == "LISTENER":
        context.pending = stage.client()
        for type in context.types:
            context.pending.stream.send(wire.build(type, b""))
        return
    session = stage.scripted_session()
    if state == "REKEYING":
        stage.order("server", "rekey", stage.index_of(session))
        session.receive_type(Type.REKEY)
    for type in context.types:
        session.stream.send(response(session) if type == Type.RESPONSE else session.packet(type, bytes(20)))
    stage.barrier(session)


def response(session):
    """A RESPONSE inside a session: sealed from offset 64 on."""
    header = session._header(Type.RESPONSE, int(Flag.ENCRYPTED | Flag.REQUIRE_ACK))
    return session.keys.sign(header, bytes(64) + session.keys.seal(header.seq, bytes(32)))


@then("each of them was counted, and the device is still in state {state}")
def still_in(context, state):
    stage = context.stage
    unknown = len([type for type in context.types if type in UNKNOWN_TYPES])
    for name, wanted in (("unexpected_type", len(context.types) - unknown), ("unknown_type", unknown)):
        eventually(
            lambda name=name, wanted=wanted: stage.growth(context.counted, name) >= wanted,
            f"{name} growing by {wanted}",
        )
        assert stage.growth(context.counted, name) == wanted
    others = set(stage.discards(context.counted)) - {"unexpected_type", "unknown_type"}
    assert not others, f"others counted, too: {others}"
    if state == "LISTENER":
        context.pending.stream.send(context.pending.init())
        context.pending.await_challenge()
    elif state in ("INIT_SENT", "CHALLENGED"):
        assert context.connected >= 0
    else:
        index = stage.index_of(stage.sessions[-1])
        row = next(row for row in stage.roles["server"].sessions() if row.index == index)
        assert row.state == state, f"it is {row.state}"


# -- channels


@when("the device subscribes to all 256 channels, then unsubscribes from every odd one")
def all_channels(context):
    stage = context.stage
    server, index = stage.roles["server"], stage.index_of(stage.sessions[-1])
    for channel in range(256):
        server.channel(index, CHANNEL_SUBSCRIBE, channel)
    assert server.channel(index, CHANNEL_LIST) == list(range(256)), "not all 256 are subscribed"
    for channel in range(1, 256, 2):
        server.channel(index, CHANNEL_UNSUBSCRIBE, channel)


@then("its channels are the even ones, and a message arrives on channel {yes:d} and not on {no:d}")
def even_channels(context, yes, no):
    stage = context.stage
    session, server = stage.sessions[-1], stage.roles["server"]
    index = stage.index_of(session)
    assert server.channel(index, CHANNEL_LIST) == list(range(0, 256, 2))
    session.send(session.data(stage.message(20), channel=no))
    message = stage.message(21)
    session.send(session.data(message, channel=yes))
    assert server.recv(index) == message, "it arrived on the wrong channel"
    assert stage.growth("server", "unsubscribed") == 1


@then("operations 0, 4 and 255 are refused with {name}")
def bad_operations(context, name):
    stage = context.stage
    server, index = stage.roles["server"], stage.index_of(stage.sessions[-1])
    for operation in (0, 4, 255):
        if hasattr(server, "call"):
            request = CHANNEL_REQ.pack(index, 0, operation, 0, 0, 0)
            refusal = error_of(
                lambda request=request: server.call("pool.raw_ioctl", number=IOC_CHANNEL, argument=request)
            )
        else:
            refusal = error_of(server.channel, index, operation)
        check_errno(refusal, name)


# -- threads

_THREADS = """
import os, random, sys, threading, time
from poolref.tools.kernel_abi import PoolDevice
until, counts, lock = time.monotonic() + float(sys.argv[2]), {}, threading.Lock()

def work(seed):
    rng = random.Random(seed)
    with PoolDevice() as device:
        operations = [
            lambda i: device.send(i, bytes(rng.choice((1, 100, 3000, 65535)))),
            lambda i: device.sessions(),
            lambda i: device.channel(i, rng.choice((1, 2, 3)), rng.randrange(1, 256)),
            lambda i: device.recv(i, max_size=rng.choice((0, 10, 65535))) if rng.random() < 0.2 else None,
            lambda i: device.rekey(i),
            lambda i: device.configure(i, 50_000_000),
            lambda i: device.confirm(i),
            lambda i: device.rollback(i),
            lambda i: device.request_journal(i),
            lambda i: device.exchange(i),
            lambda i: device.challenge(i),
            lambda i: device.probe_mtu(i),
            lambda i: device.journal() and device.details() and device.peers() and device.counters(),
            lambda i: device.connect(sys.argv[1]) if rng.random() < 0.1 else None,
            lambda i: device.close_session(i) if rng.random() < 0.05 else None,
            lambda i: (device.stop(), device.listen()) if rng.random() < 0.05 else None,
        ]
        while time.monotonic() < until:
            try:
                rng.choice(operations)(rng.choice((0, 0, 0, 1, 2, 3, 63, 64)))
                result = "ok"
            except OSError as exc:
                result = exc.errno
            with lock:
                counts[result] = counts.get(result, 0) + 1

threads = [threading.Thread(target=work, args=(seed,)) for seed in range(16)]
for each in threads: each.start()
for each in threads: each.join()
print(counts)
"""


@when("16 threads in each guest issue random ioctls for {seconds:d} s")
def many_threads(context, seconds):
    stage = context.stage
    roles = {role: stage.roles[role] for role in ("client", "server")}
    context.thread_answers = {}

    def run(role, other):
        argv = ["env", "PYTHONPATH=/mnt/tools/python", "python3", "-c", _THREADS]
        argv += [other.guest.address4, str(seconds)]
        context.thread_answers[role] = roles[role].call("exec", argv=argv, timeout=150.0)

    threads = [
        threading.Thread(target=run, args=("client", roles["server"])),
        threading.Thread(target=run, args=("server", roles["client"])),
    ]
    for each in threads:
        each.start()
    for each in threads:
        each.join()


@then("none of them hung")
def none_hung(context):
    assert set(context.thread_answers) == {"client", "server"}, "one of the guests' threads did not end"
    for role, answer in context.thread_answers.items():
        assert answer["rc"] == 0, f"{role}: {answer['err']}"
        context.evidence.note(f"{role}: {answer['out'].strip()}")
        assert "'ok'" in answer["out"], f"nothing succeeded: {answer['out']}"
    context.stage.listening = False
    error_or_none(context.stage.roles["server"].stop)


def error_or_none(call):
    try:
        call()
    except OSError as exc:
        return exc
    return None


# -- loading and unloading


@when("it is loaded and unloaded at once, {count:d} times")
def at_once(context, count):
    endpoint = context.stage.roles["server"]
    endpoint.unload()
    context.unloads = []
    for _ in range(count):
        endpoint.load()
        context.unloads.append(endpoint.unload())
    endpoint.load()


@when("it is unloaded in the middle of a rekey with heartbeats every second, {count:d} times")
def in_a_rekey(context, count):
    stage = context.stage
    endpoint = stage.roles["server"]
    for number in range(count):
        endpoint.unload()
        endpoint.load("heartbeat_sec=1")
        endpoint.listen(endpoint.port)
        session = stage.scripted_session()
        time.sleep(0.25 * number)
        stage.order("server", "rekey", stage.index_of(session))
        if number % 2:
            session.receive_type(Type.REKEY)
        context.unloads.append(endpoint.unload())
        endpoint.load()
    stage.listening = False


# -- silent peers


def timed_connect(context, address, port):
    stage = context.stage
    client = stage.cast("device", "client")
    stage.roles.setdefault("server", client)
    started = time.monotonic()
    stage.failure = error_of(client.connect, address, port)
    context.took = time.monotonic() - started


@when("the device tries to connect to an address where nobody answers")
def nobody_answers(context):
    lab = context.device.lab
    lab.wire.drop(matching(transport="tcp", port=9999), count=None)
    context.add_cleanup(lab.wire.clear)
    timed_connect(context, "10.253.0.1", 9999)


@when("the device tries to connect to a peer that says {what}")
def says_little(context, what):
    stop = threading.Event()
    reference = context.stage.device.endpoint("reference", "server")
    listener = socket.create_server((reference.address("IPv4"), 0))

    def serve():
        conn, _ = listener.accept()
        with conn:
            challenge = wire.build(Type.CHALLENGE, bytes(98))
            for at in range(len(challenge)):
                if stop.wait(1.0):
                    return
                if what == "one byte a second":
                    try:
                        conn.sendall(challenge[at : at + 1])
                    except OSError:
                        return

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        timed_connect(context, listener.getsockname()[0], listener.getsockname()[1])
    finally:
        stop.set()
        listener.close()
        thread.join(5)


@then("it took {least:d} to {most:d} s")
def took(context, least, most):
    assert least <= context.took <= most, f"it took {context.took:.1f} s"


@when("clients stay silent, send a byte a second, and stop after their CHALLENGE")
def slow_clients(context):
    stage = context.stage
    silent, slow, stopped = stage.client(), stage.client(), stage.client()
    context.began = time.monotonic()
    context.ends = {}

    def watch(name, client):
        while True:
            try:
                client.stream.receive(60)
            except EndOfStream:
                context.ends[name] = time.monotonic() - context.began
                return
            except NothingCame:
                return

    def drip(client):
        init = client.init()
        for at in range(len(init)):
            try:
                client.stream.send(init[at : at + 1])
            except EndOfStream:
                return
            time.sleep(1.0)

    stopped.stream.send(stopped.init())
    stopped.await_challenge()
    context.watchers = [
        threading.Thread(target=watch, args=("silent", silent)),
        threading.Thread(target=watch, args=("slow", slow)),
        threading.Thread(target=watch, args=("stopped", stopped)),
        threading.Thread(target=drip, args=(slow,)),
    ]
    for each in context.watchers:
        each.daemon = True
        each.start()


@then("they are dropped after {silent:d}, {slow:d} and {stopped:d} s")
def dropped_after(context, silent, slow, stopped):
    for each in context.watchers:
        each.join(70)
    wanted = {"silent": silent, "slow": slow, "stopped": stopped}
    assert set(context.ends) == set(wanted), f"dropped: {context.ends}"
    for name, seconds in wanted.items():
        assert seconds - 1 <= context.ends[name] <= seconds + 3, f"{name}: after {context.ends[name]:.1f} s"


@when("the wire to the scripted client is cut")
def cut(context):
    lab = context.device.lab
    lab.wire.cut("harness")
    context.add_cleanup(lab.wire.restore, "harness")
    context.began = time.monotonic()


@then("the device drops the session after {least:d} to {most:d} s")
def drops_after(context, least, most):
    stage = context.stage
    server, wanted = stage.roles["server"], stage.sessions[-1].session_id.hex()
    eventually(
        lambda: wanted not in {row.session_id for row in stage.live_sessions(server)},
        "the device dropping the session",
        timeout=most + SETTLE,
    )
    took = time.monotonic() - context.began
    assert least <= took <= most, f"after {took:.1f} s"

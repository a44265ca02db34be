# SPDX-License-Identifier: GPL-2.0-or-later
"""Steps about raw IP: section 4, TRN-03 to TRN-08, and what the other sections say of it."""

from __future__ import annotations

import errno
import itertools
import time

from behave import given, then, when
from session_steps import ROLES, check_errno

from poolproof.devices.puppet_stream import NothingCame
from poolproof.devices.stage import SETTLE, eventually
from poolproof.lab import rules
from poolproof.lab.frames import ETH_HEADER, with_checksums
from poolref import wire
from poolref.constants import HEADER_SIZE, RAW_PROTOCOL, Flag, Type

TCP = 6
PORTS = {"server": "a", "client": "b"}
STRANGER = bytes([10, 253, 0, 77])
PATIENCE = 120.0
"""Seconds for a few messages over a bad wire: several resends in a row, doubled each time."""


def is_raw(frame, *types, source=None):
    """Whether it is a raw IP packet, of one of the types if given, coming from that wire port."""
    if frame.packet is None or frame.packet.protocol != RAW_PROTOCOL or len(frame.payload) < HEADER_SIZE:
        return False
    return (not types or frame.payload[0] & 15 in types) and source in (None, frame.port)


def raw(*types, source=None):
    return lambda frame: is_raw(frame, *types, source=source)


def seen(context, *types, source=None):
    """Raw packets as they came onto the wire in this scenario, oldest first."""
    every = context.device.lab.wire.frames(context.frames_from)
    return [frame for frame in every if not frame.outbound and is_raw(frame, *types, source=source)]


def dont_fragment(frame):
    return bool(frame.data[ETH_HEADER + 6] & 0x40)


def seconds_between(frames):
    return [(b.time_ns - a.time_ns) / 1e9 for a, b in itertools.pairwise(frames)]


def check_times(found, wanted):
    """Pauses in seconds; a guest under emulation may be late, never early."""
    text = ", ".join(f"{each:.2f}" for each in found)
    assert len(found) == len(wanted), f"the pauses were {text} s, expected {wanted}"
    for pause, due in zip(found, wanted, strict=True):
        assert due - 0.06 <= pause <= due * 1.25 + 0.5, f"the pauses were {text} s, expected {wanted}"


# -- the cast


@given("all nodes speak over {transport}")
def speak_over(context, transport):
    context.device.transport = transport
    lab = getattr(context.device, "lab", None)
    if lab is not None:
        context.frames_from = lab.wire.mark()
        context.add_cleanup(lab.wire.clear)


def transports(context):
    stage = context.stage
    found = {}
    for role in ROLES:
        rows = stage.roles[role].details()
        found[role] = next(each["transport"] for each in rows if int(each["idx"]) == stage.index[role])
    return found


@then("the session is over {transport}")
def session_is_over(context, transport):
    found = transports(context)
    assert set(found.values()) == {transport}, f"it is {found}"


@then("every packet between them was raw IP")
def all_raw(context):
    if not hasattr(context, "frames_from"):
        return
    assert seen(context), f"no packet of protocol {RAW_PROTOCOL} passed"
    ports = [
        (each.packet.source_port, each.packet.destination_port)
        for each in context.device.lab.wire.frames(context.frames_from)
        if each.packet is not None and each.packet.protocol == TCP
    ]
    assert not any(context.stage.roles["server"].port in pair for pair in ports), "TCP was used as well"


# -- a bad wire


@given("the wire {does}")
@when("the wire {does}")
def bad_wire(context, does):
    lab = context.device.lab.wire
    any_raw = raw()
    if does == "loses every fifth raw packet":
        lab.lose(0.2, any_raw)
    elif does == "doubles every third raw packet":
        lab.rule(rules.Duplicate(1, 0.003), any_raw, count=None, probability=0.33)
    elif does == "lets others overtake every fourth raw packet":
        lab.rule(rules.Reorder(3), any_raw, count=None, probability=0.25)
    elif does == "flips a bit in every eighth raw packet":
        lab.rule(rules.Corrupt(), any_raw, count=None, probability=0.125)
    elif does == "loses, doubles, reorders and corrupts raw packets":
        lab.lose(0.07, any_raw)
        lab.rule(rules.Duplicate(2, 0.01), any_raw, count=None, probability=0.1)
        lab.rule(rules.Reorder(5), any_raw, count=None, probability=0.1)
        lab.rule(rules.Corrupt(bits=3), any_raw, count=None, probability=0.07)
    elif does == "delays raw packets by 0.2 s":
        lab.delay(0.2, any_raw, count=None)
    elif does == "loses all raw packets":
        lab.drop(any_raw, count=None)
    elif does == "is cut at the server":
        lab.cut("a")
    elif does == "is cut at the client":
        lab.cut("b")
    else:
        raise ValueError(f"unknown trouble {does!r}")


@given("{what} of the handshake is to be lost")
def lossy_handshake(context, what):
    counts = {"the first": 1, "the first two": 2, "the first three": 3}
    words, name = what.rsplit(" ", 1)
    context.lost = context.device.lab.wire.drop(raw(Type[name.rstrip("s")]), count=counts[words])


@then("they were lost")
def were_lost(context):
    assert context.lost.applied == context.lost.count, f"only {context.lost.applied} were there to lose"


@then("every message arrives intact and in order at last")
def all_arrive(context):
    stage = context.stage
    deadline = time.monotonic() + PATIENCE
    for sender, receiver in (ROLES, ROLES[::-1]):
        for sent in context.sent[sender]:
            got = patient_recv(stage, receiver, deadline)
            assert got == sent, f"the {sender} sent {len(sent)} bytes, {len(got)} other bytes arrived"


def patient_recv(stage, role, deadline):
    while True:
        try:
            return stage.roles[role].recv(stage.index[role])
        except OSError as exc:
            if exc.errno != errno.ETIMEDOUT or time.monotonic() > deadline:
                raise AssertionError(f"a message did not arrive at the {role}: {exc}") from exc


@then("all of them arrive at last")
def all_of_them(context):
    deadline = time.monotonic() + PATIENCE
    for sent in context.sent:
        assert patient_recv(context.stage, "server", deadline) == sent, (
            "a message came altered or out of order"
        )


@then("at most {most:d} seqs of either end were in flight at once")
def in_flight(context, most):
    """Counted on the wire: the highest seq sent minus the highest ack that came back to its sender."""
    acked, highest = {}, {}
    for frame in seen(context):
        header = wire.parse(frame.payload)
        if header.type in (Type.INIT, Type.CHALLENGE, Type.RESPONSE):
            continue
        source, other = frame.packet.source, frame.packet.destination
        acked[other] = max(acked.get(other, 0), header.ack)
        highest[source] = max(highest.get(source, 0), header.seq)
        if source in acked:
            ahead = highest[source] - acked[source]
            assert ahead <= most, f"{source} had {ahead} packets in flight"


@then("every raw packet that was sent again was the same, byte for byte")
def resent_identical(context):
    """Of each sender and seq there is one packet, but for ACKs without a seq of their own."""
    packets, again = {}, 0
    for frame in seen(context):
        header = wire.parse(frame.payload)
        numbered = Flag.CONFIG_LOCKED | Flag.ROLLBACK_READY | Flag.PRIORITY
        if header.type in (Type.INIT, Type.CHALLENGE) or (
            header.type == Type.ACK and not header.flags & numbered
        ):
            continue
        key = frame.packet.source, header.session_id, header.seq
        first = packets.setdefault(key, frame.payload)
        again += first is not frame.payload
        same = first == frame.payload or first[0] & 15 == Type.DISCOVER  # replaced by a void (TRN-07)
        assert same, f"seq {header.seq} went out with two contents: a nonce used twice"
    assert again, "nothing was sent again"


# -- resending


@when("the first {count:d} copies of a message from the client are lost")
def lose_copies(context, count):
    context.lost = context.device.lab.wire.drop(raw(Type.DATA, source="b"), count=count)
    context.message = context.stage.message(100)
    context.stage.roles["client"].send(context.stage.index["client"], context.message)


@then("the server receives that message at last")
def receives_at_last(context):
    assert patient_recv(context.stage, "server", time.monotonic() + PATIENCE) == context.message


@then("it was sent {count:d} times, the same each time, with pauses of {pauses} s")
def sent_times(context, count, pauses):
    frames = seen(context, Type.DATA, source="b")
    assert len(frames) == count, f"it was sent {len(frames)} times"
    assert len({frame.payload for frame in frames}) == 1, "it was not the same each time"
    check_times(seconds_between(frames), [float(each) for each in pauses.split(", ")])
    context.copies = frames


@then("DF was set in the first {count:d} of them and clear in the others")
def df_first(context, count):
    flags = [dont_fragment(frame) for frame in context.copies]
    assert flags == [True] * count + [False] * (len(flags) - count), f"DF was {flags}"


@given("the client has measured the round trip")
def measured(context):
    stage = context.stage
    eventually(lambda: stage.session("client").telemetry["rtt_ns"], "a round-trip time")


@when("the client sends a message into nothing")
def into_nothing(context):
    context.message = context.stage.message(100)
    context.stage.roles["client"].send(context.stage.index["client"], context.message)


@then("the client gives up after {low:d} to {high:d} s")
def gives_up(context, low, high):
    stage = context.stage
    started = time.monotonic()
    eventually(
        lambda: (
            stage.index["client"] not in {each.index for each in stage.live_sessions(stage.roles["client"])}
        ),
        "the client giving up",
        high + SETTLE,
    )
    took = time.monotonic() - started
    assert low <= took <= high, f"it took {took:.1f} s"


# -- the handshake


@then("the client sent {count:d} {name}s, with pauses of {pauses} s")
def sent_packets(context, count, name, pauses):
    frames = seen(context, Type[name], source="b")
    assert len(frames) == count, f"it sent {len(frames)}"
    check_times(seconds_between(frames), [float(each) for each in pauses.split(", ")])


@then("the client sent exactly {count:d} {name}")
def sent_exactly(context, count, name):
    frames = seen(context, Type[name], source="b")
    assert len(frames) == count, f"it sent {len(frames)}"


@then("the handshake ACK came {count:d} times, the same each time")
def same_ack(context, count):
    response = wire.parse(seen(context, Type.RESPONSE)[0].payload)
    acks = [
        frame.payload
        for frame in seen(context, Type.ACK, source="a")
        if wire.parse(frame.payload).ack == response.seq
    ]
    assert len(acks) >= count, f"it came {len(acks)} times"
    assert len(set(acks)) == 1, "the handshake ACK was another one when it came again"


@then("connecting took {low:g} to {high:g} s")
def connecting_took(context, low, high):
    assert low <= context.took <= high, f"it took {context.took:.1f} s"


@when("the {kind} makes a timed connection to it")
def connects_timed(context, kind):
    started = time.monotonic()
    context.stage.connect(kind, "IPv4")
    context.took = time.monotonic() - started


@given("the echo in the first CHALLENGE is altered on the wire")
def alter_echo(context):
    def alter(frame):
        data = bytearray(frame.data)
        data[frame.packet.payload_at + 12] ^= 1  # ack
        return bytes(data)

    context.lost = context.device.lab.wire.rewrite(alter, raw(Type.CHALLENGE))


@then('the counter "{name}" of the client grew by {amount:d}')
def counter_of_client(context, name, amount):
    stage = context.stage
    grown = eventually(lambda: stage.growth("client", name), f"{name} counting anything")
    assert grown == amount, f"{name} grew by {grown}"


@then("CHALLENGE and refusals carry the client's echo")
def echo_checked(context):
    client = context.stage.clients[-1]
    assert context.challenge.header.ack == int.from_bytes(client.public[:8], "big"), "it has another ack"


@when("a scripted client sends its INIT over raw IP")
def scripted_init(context):
    client = context.stage.client()
    client.stream.send(client.init())
    context.challenge = client.stream.receive()
    assert context.challenge.header.type == Type.CHALLENGE, f"instead of a CHALLENGE came {context.challenge}"


@then("the scripted client hears nothing for {seconds:d} s")
def hears_nothing(context, seconds):
    client = context.stage.clients[-1]
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        try:
            packet = client.stream.receive(left)
        except NothingCame:
            return
        # Every raw socket of the host sees what the other scripted clients are told.
        mine = packet.header.session_id in (bytes(16), client.session_id)
        assert not mine, f"it was answered with {packet}"


@when("a scripted client sends a RESPONSE with {misdeed}")
def bad_response(context, misdeed):
    client = context.stage.client()
    client.stream.send(client.init())
    client.await_challenge()
    client.stream.send(client.respond(misdeed)[0])


@when("the scripted client sends its RESPONSE again")
def response_again(context):
    client = context.stage.clients[-1]
    client.stream.send(client.response)


@then("it receives the same handshake ACK again")
def same_ack_again(context):
    session = context.stage.sessions[-1]
    deadline = time.monotonic() + SETTLE
    while True:
        packet = session.receive_type(Type.ACK, max(deadline - time.monotonic(), 0.001))
        if packet.header.seq == session.first_peer_seq and packet.header.ack == session.seq - 1:
            break
    context.acks = [*getattr(context, "acks", []), packet.raw]
    assert len(set(context.acks)) == 1, "another ACK came"


# -- datagrams that are not what they should be


@when("a datagram with that session's DATA comes from another address")
def from_a_stranger(context):
    """As the client would send it next, right in everything but its source."""
    session, stage = context.stage.sessions[-1], context.stage
    packet = session.data(stage.message(40), seq=session.seq)
    template = seen(context, Type.DATA, source="harness")[-1]
    data = bytearray(template.data[: template.packet.payload_at]) + packet
    data[ETH_HEADER + 2 : ETH_HEADER + 4] = (len(data) - ETH_HEADER).to_bytes(2, "big")
    data[ETH_HEADER + 12 : ETH_HEADER + 16] = STRANGER
    context.device.lab.wire.inject("a", with_checksums(bytes(data)), "spoofed")


@when("the scripted client sends a datagram {how}")
def odd_datagram(context, how):
    session, stage = context.stage.sessions[-1], context.stage
    message = stage.message(40)
    good = session.data(message, seq=session.seq)
    odd = {
        "that is a byte too long": good + b"\0",
        "that is a byte too short": good[:-1],
        "of 79 bytes": good[:79],
        "of an unknown session": session.data(message, seq=session.seq, session_id=bytes(15) + b"\x01"),
        "with a wrong hmac": good[:48] + bytes([good[48] ^ 1]) + good[49:],
        "with a wrong tag": session.keys.sign(wire.parse(good), good[HEADER_SIZE:-1] + bytes([good[-1] ^ 1])),
        "64 ahead of its turn": session.data(message, seq=session.seq + 64),
    }[how]
    session.stream.send(odd)


@when("the scripted client sends {count:d} messages, the last one first")
def backwards(context, count):
    session, stage = context.stage.sessions[-1], context.stage
    context.sent = [stage.message(30) for _ in range(count)]
    packets = [session.data(each) for each in context.sent]
    for packet in reversed(packets):
        session.stream.send(packet)


@then("the device receives them in the order of their seqs")
def in_order(context):
    stage = context.stage
    index = stage.index_of(stage.sessions[-1])
    got = [stage.roles["server"].recv(index) for _ in context.sent]
    assert got == context.sent, "the order is another one"


@when("the scripted client sends the same DATA {count:d} times")
def same_data(context, count):
    session, stage = context.stage.sessions[-1], context.stage
    context.message = stage.message(30)
    packet = session.data(context.message)
    context.seq = wire.parse(packet).seq
    for _ in range(count):
        session.stream.send(packet)
        session.await_ack(context.seq)


@then("the device acknowledged it each time within {limit:d} ms")
def acked_within(context, limit):
    """On the wire; a guest under emulation is given as much again."""
    frames = seen(context)
    copies = [f for f in frames if f.port == "harness" and wire.parse(f.payload).seq == context.seq]
    assert copies, "it never passed the wire"
    for copy in copies:
        ack = next(
            (
                f
                for f in frames
                if f.port == "a" and f.time_ns > copy.time_ns and wire.parse(f.payload).ack >= context.seq
            ),
            None,
        )
        assert ack is not None, "no ACK came for one of them"
        took = (ack.time_ns - copy.time_ns) / 1e6
        assert took <= 2 * limit, f"the ACK came after {took:.0f} ms"


@when("the scripted client fills the device's receive queue")
def fill_queue(context):
    session, stage = context.stage.sessions[-1], context.stage
    context.sent = []
    for _ in range(4096 // 32):
        for _ in range(32):
            context.sent.append(stage.message(9))
            last = session.send(session.data(context.sent[-1]))
        session.await_ack(last)


@when("the scripted client sends one message more")
def one_more(context):
    session, stage = context.stage.sessions[-1], context.stage
    context.sent.append(stage.message(9))
    context.packet = session.data(context.sent[-1])
    context.seq = session.send(context.packet)


@then("that one is not acknowledged")
def not_acked(context):
    session = context.stage.sessions[-1]
    deadline = time.monotonic() + 1
    while (left := deadline - time.monotonic()) > 0:
        try:
            packet = session.receive(left)
        except NothingCame:
            return
        assert packet.header.ack < context.seq, "it was acknowledged"


@when("a message is read and that one sent again")
def read_one(context):
    stage, session = context.stage, context.stage.sessions[-1]
    context.read = [stage.roles["server"].recv(stage.index_of(session))]
    session.send(context.packet)
    session.await_ack(context.seq)


@then("the device has every message")
def has_every(context):
    stage = context.stage
    session = stage.sessions[-1]
    index = stage.index_of(session)
    while len(context.read) < len(context.sent):
        context.read.append(stage.roles["server"].recv(index))
        if len(context.read) % 100 == 0:
            catch_up(session)
    assert context.read == context.sent, "a message is missing or another one came"


# -- probes


def is_probe(frame):
    """An MTU probe: a sealed DISCOVER that asks for an ACK."""
    if not is_raw(frame, Type.DISCOVER):
        return False
    flags = wire.parse(frame.payload).flags
    return bool(flags & Flag.REQUIRE_ACK) and not flags & Flag.TELEMETRY


@given("packets of more than {size:d} bytes get lost")
def lose_large(context, size):
    context.device.lab.wire.drop(lambda frame: is_raw(frame) and len(frame.payload) > size, count=None)
    context.limit = size


@then("both ends find an mtu of {size:d} within {limit:d} s")
def find_mtu(context, size, limit):
    stage = context.stage
    for role in ROLES:
        eventually(
            lambda role=role: stage.session(role).telemetry["mtu"] == size,
            f"an mtu of {size} at the {role}",
            limit,
        )


@then("each probe that got lost was followed by a void, and was never sent again")
def voids(context):
    probes = [frame for frame in seen(context) if is_probe(frame)]
    lost = [frame for frame in probes if len(frame.payload) > context.limit]
    assert lost, "no probe was lost"
    key = [(frame.port, wire.parse(frame.payload).seq) for frame in probes]
    assert len(set(key)) == len(key), "a probe was sent twice"
    acks = [(frame.port, wire.parse(frame.payload)) for frame in seen(context, Type.ACK)]
    filled = {(port, header.seq) for port, header in acks if header.flags == Flag.PRIORITY}
    for frame in lost:
        assert (frame.port, wire.parse(frame.payload).seq) in filled, "a lost probe was followed by no void"


# -- the end


@when("the client sends {size:d} bytes in messages and closes at once")
def sends_and_closes(context, size):
    stage = context.stage
    context.sent = [stage.message(20_000) for _ in range(size // 20_000)]
    for each in context.sent:
        stage.roles["client"].send(stage.index["client"], each)
    stage.roles["client"].close_session(stage.index["client"])


@then("neither end lists a session within {limit:d} s")
def nobody_lists(context, limit):
    for role in ROLES:
        endpoint = context.stage.roles[role]
        eventually(lambda endpoint=endpoint: not endpoint.sessions(), f"the {role} forgetting it", limit)


@then("the wire is mended")
def mended(context):
    context.device.lab.wire.clear()


@then("the client forgets the session within {limit:d} s")
def client_forgets(context, limit):
    eventually(lambda: not context.stage.roles["client"].sessions(), "the client forgetting it", limit)


@when("the server sends {size:d} bytes in messages")
def server_sends(context, size):
    stage = context.stage
    for _ in range(size // 20_000):
        stage.roles["server"].send(stage.index["server"], stage.message(20_000))


@then("the {role} sent CLOSE {count:d} times, the same each time")
def close_times(context, role, count):
    frames = [f.payload for f in seen(context, Type.CLOSE, source=PORTS[role])]
    assert len(frames) == count, f"it was sent {len(frames)} times"
    assert len(set(frames)) == 1, "it was not the same each time"


# -- rekey


@then("it is not proposed before the scripted client acknowledges that message")
def not_before(context):
    session = context.stage.sessions[-1]
    while session.receive_type(Type.DATA).plaintext != context.message:
        pass  # an earlier one, sent again before it was acknowledged
    deadline = time.monotonic() + 1.5
    while (left := deadline - time.monotonic()) > 0:
        try:
            packet = session.receive(left)
        except NothingCame:
            break
        assert packet.header.type != Type.REKEY, "it proposed with a packet in flight"
    # A heartbeat may have come, too.
    session.send(session.packet(Type.ACK, seq=session.seq - 1))


@when("the scripted client acknowledges everything")
def acknowledges(context):
    catch_up(context.stage.sessions[-1])


def catch_up(session):
    """Take what has come and acknowledge it."""
    while True:
        try:
            session.receive(0.05)
        except NothingCame:
            break
    session.send(session.packet(Type.ACK, seq=session.seq - 1))


@then("nothing but acknowledgements and its accept comes for {seconds:d} s")
def acks_and_accept(context, seconds):
    session = context.stage.sessions[-1]
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        try:
            packet = session.receive(left)
        except NothingCame:
            return
        assert packet.header.type in (Type.ACK, Type.REKEY), f"instead came {packet}"


# -- the capability


@when("a process without CAP_NET_RAW has the device {operation}")
def without_capability(context, operation):
    stage = context.stage
    endpoint = stage.cast("device", "server" if operation == "listen" else "client")
    call = {"listen": "listen(9253)", "connect": "connect(sys.argv[1], 9253)"}[operation]
    program = (
        "import ctypes, os, sys\n"
        # Root gets back on execve(2) what the bounding set has: PR_CAPBSET_DROP of CAP_NET_RAW.
        "if sys.argv[2:]:\n"
        " assert not ctypes.CDLL(None).prctl(24, 13, 0, 0, 0)\n"
        " os.execv(sys.executable, [sys.executable, '-c', os.environ['PROGRAM'], sys.argv[1]])\n"
        "from poolref.tools.kernel_abi import PoolDevice\n"
        f"try:\n with PoolDevice() as device: print('index', device.{call})\n"
        "except OSError as exc: print('errno', exc.errno)\n"
    )
    address = stage.roles["server"].address("IPv4") if "server" in stage.roles else "::1"
    environment = ["env", "PYTHONPATH=/mnt/tools/python", f"PROGRAM={program}"]
    answer = endpoint.call("exec", argv=[*environment, "python3", "-c", program, address, "drop"])
    assert answer["rc"] == 0, f"the process failed: {answer['err']}"
    word, number = answer["out"].split()
    stage.failure = OSError(int(number), "refused") if word == "errno" else None
    if word == "index" and operation == "connect":
        stage.index["client"] = int(number)


@then("that is refused with {name}")
def refused_with(context, name):
    assert context.stage.failure is not None, "it succeeded"
    check_errno(context.stage.failure, name)


@then("that succeeds")
def succeeds(context):
    assert context.stage.failure is None, f"it was refused: {context.stage.failure}"

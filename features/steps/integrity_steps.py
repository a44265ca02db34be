# SPDX-License-Identifier: GPL-2.0-or-later
"""Steps about challenges, answers and state reports (section 16)."""

from __future__ import annotations

import hashlib
import time

from behave import given, then, when
from journal_steps import detail
from journal_steps import untrusted as _untrusted  # noqa: F401  (its step is used here)

from poolproof.devices.puppet_stream import NothingCame
from poolproof.devices.stage import eventually
from poolref import crypto
from poolref.constants import Flag, Type
from poolref.journal import ZERO_HASH
from poolref.wire import struct_of

REQUIRE_ACK = int(Flag.REQUIRE_ACK)
CHALLENGE, ANSWER, STATE = 1, 2, 3
REPORT = struct_of("integrity_state")
CLIENT, SERVER = 0, 1


def keys_for(session):
    shared = bytes(session.keys.shared)
    return crypto.hkdf(shared, b"pool-integrity-key", 32), crypto.hkdf(shared, b"pool-integrity-mac", 32)


def answer(session, role, random):
    """The 81 bytes, by the text of section 16 and nothing else."""
    seal_key, mac_key = keys_for(session)
    message = bytes([role]) + random
    nonce = hashlib.sha256(message).digest()[:12]
    sealed = crypto.ChaCha20Poly1305(seal_key).encrypt(nonce, random, None)
    return bytes([ANSWER]) + random + sealed + crypto.mac(mac_key, message)


def send(session, plaintext, flags=0):
    return session.send(session.packet(Type.INTEGRITY, plaintext, flags=flags))


def receive_op(session, op, timeout=15.0):
    deadline = time.monotonic() + timeout
    while True:
        packet = session.receive_type(Type.INTEGRITY, max(deadline - time.monotonic(), 0.001))
        if packet.plaintext[0] == op:
            return packet


def true_report(session, head=ZERO_HASH, **lies):
    """What the scripted client may truly say before its next packet, with the given lies in it."""
    first = session.first_seq
    values = {
        "epoch": session.keys.epoch,
        "sent": session.seq - 1,
        "received": session.highest,
        "packets_sent": session.seq - first,
        "packets_received": session.highest - session.first_peer_seq + 1,
        "version": 0,
        "head": head,
    }
    values.update(lies)
    return REPORT.pack(STATE, *values.values())


# -- challenged


@when("the scripted client challenges the device")
def challenges(context):
    context.challenged = context.stage.sessions[-1]
    context.random = context.stage.random.randbytes(16)
    send(context.challenged, bytes([CHALLENGE]) + context.random, REQUIRE_ACK)


@given("the device has a session with a scripted server")
def session_with_server(context):
    stage = context.stage
    server = stage.scripted_server()
    device = stage.cast("device", "client")
    with stage.groundwork("the device opens a session to an honest server"):
        stage.index["client"] = device.connect(server.address, server.port)
        eventually(lambda: server.session is not None, "the scripted server having a session")


@when("the scripted server challenges the device")
def server_challenges(context):
    context.challenged = context.stage.servers[-1].session
    context.random = context.stage.random.randbytes(16)
    send(context.challenged, bytes([CHALLENGE]) + context.random, REQUIRE_ACK)


@then("the answer is that of a {role}")
def answer_is(context, role):
    packet = receive_op(context.challenged, ANSWER)
    wanted = answer(context.challenged, SERVER if role == "server" else CLIENT, context.random)
    assert packet.plaintext == wanted, f"the answer is {packet.plaintext.hex()}"


@when("the scripted client challenges the device {count:d} times at once")
def floods(context, count):
    session = context.stage.sessions[-1]
    rng = context.stage.random
    packets = [session.packet(Type.INTEGRITY, bytes([CHALLENGE]) + rng.randbytes(16)) for _ in range(count)]
    session.stream.send(b"".join(packets))


@then("at most {limit:d} challenges are answered")
def few_answered(context, limit):
    session = context.stage.sessions[-1]
    answered = 0
    deadline = time.monotonic() + 2
    while (left := deadline - time.monotonic()) > 0:
        try:
            packet = session.receive(left)
        except NothingCame:
            break
        answered += packet.header.type == Type.INTEGRITY and packet.plaintext[0] == ANSWER
    assert 1 <= answered <= limit, f"{answered} were answered"


@then('the counter "{name}" of the device grew')
def counter_grew_at_all(context, name):
    eventually(lambda: context.stage.growth("server", name), f"{name} counting anything")


# -- challenging


@when("the device is told to challenge")
def told_to_challenge(context):
    stage = context.stage
    stage.order("server", "challenge", stage.index_of(stage.sessions[-1]))


@then("the scripted client receives a challenge and a report that is true")
def receives_challenge(context):
    session = context.stage.sessions[-1]
    packet = receive_op(session, CHALLENGE)
    assert packet.header.flags & REQUIRE_ACK, "a challenge asks for an ACK"
    assert len(packet.plaintext) == 17, f"it has {len(packet.plaintext)} bytes"
    context.random = packet.plaintext[1:]
    context.request = packet
    packet = receive_op(session, STATE)
    _, epoch, sent, received, packets_sent, packets_received, version, _ = REPORT.unpack(packet.plaintext)
    assert (epoch, version) == (session.keys.epoch, 0)
    assert sent == packet.header.seq - 1, f"seq {sent} was sent last, the report has {packet.header.seq}"
    assert packets_sent == packet.header.seq - session.first_peer_seq, f"{packets_sent} packets sent"
    assert received == session.seq - 1, f"it received up to {received}, sent was {session.seq - 1}"
    assert packets_received == session.seq - session.first_seq, f"{packets_received} packets received"


@when("the challenge is answered {how}")
def answers(context, how):
    session = context.stage.sessions[-1]
    right = answer(session, CLIENT, context.random)
    if how == "nothing, but acknowledges the challenge":
        session.send(session.packet(Type.ACK, ack=context.request.header.seq))
        return
    plaintext = {
        "rightly": right,
        "with a wrong MAC": right[:-1] + bytes([right[-1] ^ 1]),
        "with a wrong tag": right[:48] + bytes([right[48] ^ 1]) + right[49:],
        "as if it were the server": answer(session, SERVER, context.random),
    }[how]
    send(session, plaintext)


@then("the device trusts the peer")
def trusts(context):
    stage = context.stage
    stage.barrier(stage.sessions[-1])
    assert detail(context, "untrusted") == "0", "it calls the peer untrusted"


@then("the device still trusts the peer after {seconds:d} s")
def still_trusts(context, seconds):
    session = context.stage.sessions[-1]
    session.send(session.packet(Type.ACK))
    time.sleep(seconds)
    trusts(context)


# -- reports


@when("the scripted client reports {what}")
def reports(context, what):
    session = context.stage.sessions[-1]
    context.stage.barrier(session)  # whatever the device had to send came
    chain = getattr(context, "chain", None)
    head = chain[-1].change_hash if chain else ZERO_HASH
    sent, received = session.seq - session.first_seq, session.highest - session.first_peer_seq + 1
    lies = {
        "the truth": {},
        "that it received what was never sent": {"received": session.highest + 1000},
        "that it received more packets than sent": {"packets_received": received + 1000},
        "that it received nothing of ours": {"received": session.first_peer_seq - 1},
        "that it sent more than it did": {"packets_sent": sent + 2},
        "that it sent less than came": {"packets_sent": sent - 3},
        "another seq as its last": {"sent": session.seq + 5},
        "another epoch": {"epoch": 1},
        "fewer packets received than before": {"packets_received": 0},
        "an older head of its journal": {"head": chain[-3].change_hash if chain else ZERO_HASH},
    }[what]
    send(session, true_report(session, **{"head": head, **lies}))
    context.stage.barrier(session)


@when("the scripted client utters an INTEGRITY packet {fault}")
def utters(context, fault):
    session = context.stage.sessions[-1]
    random = context.stage.random.randbytes(16)
    if fault == "that challenges with the device's own challenge":
        told_to_challenge(context)
        receives_challenge(context)
        send(session, bytes([CHALLENGE]) + context.random)
        context.stage.barrier(session)
        answers(context, "rightly")
        return
    plaintext = {
        "without bytes": b"",
        "with op 0": bytes(17),
        "with op 4": b"\4" + random,
        "with a challenge of 15 bytes": b"\1" + random[:15],
        "with a challenge of 17 bytes": b"\1" + random + b"\0",
        "with an answer of 80 bytes": answer(session, CLIENT, random)[:-1],
        "with a report of 72 bytes": true_report(session)[:-1],
        "that answers what was not asked": answer(session, CLIENT, random),
    }[fault]
    send(session, plaintext)
    context.stage.barrier(session)


@when("both ends are told to challenge, {count:d} times")
def both_challenge(context, count):
    for _ in range(count):
        for role in ("client", "server"):
            context.stage.order(role, "challenge")
        time.sleep(0.2)


@then("both ends trust each other")
def both_trust(context):
    stage = context.stage
    for role in ("client", "server"):
        row = next(row for row in stage.roles[role].details() if row["idx"] == str(stage.index[role]))
        assert row["untrusted"] == "0", f"the {role} calls the other untrusted"

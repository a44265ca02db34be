# SPDX-License-Identifier: GPL-2.0-or-later
"""Steps about replacing a session's keys (section 13)."""

from __future__ import annotations

import errno
import struct
import threading
import time

from behave import given, then, when
from session_steps import ROLES

from poolproof.devices.puppet import LOW_ORDER_POINTS
from poolproof.devices.puppet_stream import NothingCame
from poolproof.devices.stage import SETTLE, eventually
from poolref import crypto
from poolref.constants import Type
from poolref.keys import Keys

PROPOSE, ACCEPT = 1, 2
LAYOUT = struct.Struct(">IB3s32s")


class Exchange:
    """The scripted client's side of one rekey."""

    def __init__(self, session, private, epoch=None):
        self.session = session
        self.old = session.keys
        self.epoch = session.keys.epoch + 1 if epoch is None else epoch
        self.private = private
        self.public = crypto.public_key(private)
        self.new = None

    def stage(self, stage, public=None):
        """A REKEY packet; nothing is sent."""
        plaintext = LAYOUT.pack(self.epoch, stage, bytes(3), public or self.public)
        return self.session.packet(Type.REKEY, plaintext)

    def derive(self, peer_public):
        """The keys that follow from the peer's key; not in use yet."""
        fresh = crypto.exchange(self.private, peer_public)
        shared = crypto.hkdf(fresh + bytes(self.old.shared), b"pool-rekey", 32)
        self.new = Keys(shared, epoch=self.epoch)

    def switch(self):
        self.session.keys = self.new


def exchange(context, **kwargs):
    context.rekey = Exchange(context.stage.sessions[-1], context.stage.random.randbytes(32), **kwargs)
    return context.rekey


def log(context, keys):
    """The capture shall be readable after the rekey too."""
    context.stage.keylog(keys.log_entry(context.stage.sessions[-1].session_id).line())


# -- two endpoints


@when("the {who} is told to rekey")
def told_to_rekey(context, who):
    stage = context.stage
    if who == "device":
        stage.order("server", "rekey", stage.index_of(stage.sessions[-1]))
    else:
        stage.order(who, "rekey")


@then("both ends have completed {count:d} rekey")
@then("both ends have completed {count:d} rekeys")
def both_completed(context, count):
    stage = context.stage
    for role in ROLES:
        eventually(
            lambda role=role: stage.session(role).rekey_count == count,
            f"the {role} counting {count} completed rekeys",
        )


@when("both ends are told to rekey at once, {count:d} times")
def rekey_at_once(context, count):
    stage = context.stage
    for done in range(count):

        def ask(role):
            deadline = time.monotonic() + SETTLE
            while True:
                try:
                    return stage.order(role, "rekey")
                except OSError as exc:
                    # EBUSY while old keys are kept (E-84), over raw IP for 2 s. Otherwise the other one's
                    # proposal was there before.
                    if exc.errno != errno.EBUSY or time.monotonic() > deadline:
                        return None
                time.sleep(0.05)

        threads = [threading.Thread(target=ask, args=(role,)) for role in ROLES]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        for role in ROLES:
            eventually(
                lambda role=role, done=done: (
                    stage.session(role).rekey_count > done and stage.session(role).state == "ESTABLISHED"
                ),
                f"the {role} completing rekey {done + 1}",
            )


@then("both ends are in the same epoch, which is at least {least:d}")
def same_epoch(context, least):
    stage = context.stage

    def counts():
        return [stage.session(role).rekey_count for role in ROLES]

    eventually(lambda: len(set(counts())) == 1, "both ends counting the same rekeys")
    assert counts()[0] >= least, f"only {counts()[0]} rekeys"


@given('the module is loaded on the {role} with "{params}"')
def loaded_with(context, role, params):
    context.device.bare_endpoint(role).load(params)


@when("the client sends {count:d} messages of {size:d} bytes")
def sends_many(context, count, size):
    stage = context.stage
    context.sent = [stage.message(size) for _ in range(count)]
    for message in context.sent:
        stage.roles["client"].send(stage.index["client"], message)


@then("all of them arrived")
def all_of_them(context):
    stage = context.stage
    for message in context.sent:
        seen = stage.roles["server"].recv(stage.index["server"])
        assert seen == message, "a message arrived altered or out of order"


@then("the {role} has completed at least {count:d} rekey")
def at_least(context, role, count):
    stage = context.stage
    eventually(lambda: stage.session(role).rekey_count >= count, f"{count} completed rekeys at the {role}")


# -- the scripted client


@when("the scripted client proposes new keys")
def proposes(context):
    each = exchange(context)
    context.proposal = each.stage(PROPOSE)
    each.session.send(context.proposal)


@then("the device accepts them under the old keys")
def accepts(context):
    each = context.rekey
    packet = each.session.receive_type(Type.REKEY)
    epoch, stage, zero, public = LAYOUT.unpack(packet.plaintext)
    assert (epoch, stage, zero) == (each.epoch, ACCEPT, bytes(3)), f"it answered {packet.plaintext.hex()}"
    each.derive(public)


@when("the scripted client changes to the new keys")
@when("the scripted client reads with the new keys and sends nothing")
def changes(context):
    context.rekey.switch()
    log(context, context.rekey.new)


@when("the scripted client still uses the old keys for a message")
@when("the scripted client uses the old keys for a message")
def uses_old_keys(context):
    session, current = context.rekey.session, context.rekey.session.keys
    session.keys = context.rekey.old
    context.message = context.stage.message(50)
    session.send(session.data(context.message))
    session.keys = current


@when("the scripted client repeats its proposal")
def repeats(context):
    context.rekey.session.send(context.rekey.stage(PROPOSE))


@then("the device has completed {count:d} rekey")
@then("the device has completed {count:d} rekeys")
def device_completed(context, count):
    stage = context.stage
    wanted = stage.index_of(stage.sessions[-1])
    found = next(each for each in stage.roles["server"].sessions() if each.index == wanted)
    assert found.rekey_count == count, f"it counts {found.rekey_count}"


@then("the device discarded nothing")
def discarded_nothing(context):
    grown = context.stage.discards("server")
    assert not grown, f"it discarded packets: {grown}"


@then("the scripted client receives a proposal for epoch {epoch:d}")
def receives_proposal(context, epoch):
    each = exchange(context)
    packet = each.session.receive_type(Type.REKEY)
    context.came = time.monotonic()
    context.proposal = packet
    seen, stage, zero, context.device_public = LAYOUT.unpack(packet.plaintext)
    assert (seen, stage, zero) == (epoch, PROPOSE, bytes(3)), f"it proposed {packet.plaintext.hex()}"


@then("the device's session is {state}")
def device_state(context, state):
    stage = context.stage
    wanted = stage.index_of(stage.sessions[-1])
    found = next(each for each in stage.roles["server"].sessions() if each.index == wanted)
    assert found.state == state, f"it is {found.state}"


@when("the device is given a message of {size:d} bytes")
def given_message(context, size):
    stage = context.stage
    context.message = stage.message(size)
    stage.roles["server"].send(stage.index_of(stage.sessions[-1]), context.message)


@when("the device begins to close the session")
def begins_to_close(context):
    stage = context.stage
    index = stage.index_of(stage.sessions[-1])
    thread = threading.Thread(target=stage.roles["server"].close_session, args=(index,))
    thread.start()
    context.add_cleanup(thread.join, 30)


@then("nothing but acknowledgements comes for {seconds:d} s")
def only_acks(context, seconds):
    session = context.stage.sessions[-1]
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        try:
            packet = session.receive(left)
        except NothingCame:
            return
        assert packet.header.type == Type.ACK, f"instead of nothing came {packet}"


def accept(context, public=None):
    each = context.rekey
    each.session.send(each.stage(ACCEPT, public))
    if public is None:
        each.derive(context.device_public)
        changes(context)


@when("the scripted client accepts the proposal")
def accepts_proposal(context):
    accept(context)


@then("the scripted client receives that message under the new keys")
def receives_held(context):
    packet = context.stage.sessions[-1].receive_type(Type.DATA)
    assert packet.plaintext == context.message, "the message that was held is another one now"


@then("the same proposal comes again after {seconds} s")
def comes_again(context, seconds):
    session = context.stage.sessions[-1]
    for due in map(int, seconds.replace(" and ", ",").split(",")):
        packet = session.receive_type(Type.REKEY, due + SETTLE)
        took = time.monotonic() - context.came
        assert packet.plaintext == context.proposal.plaintext, "another proposal came"
        assert packet.header.seq > context.proposal.header.seq, "the seq is not a new one"
        assert due - 0.5 <= took <= due + 3, f"it came after {took:.1f} s, not after {due}"


@then("the device closes the session with code {code} after {seconds:d} s")
def closes_after(context, code, seconds):
    started = getattr(context, "came", time.monotonic())
    closes_with(context, code, seconds + SETTLE)
    took = time.monotonic() - started
    assert seconds - 1 <= took <= seconds + 5, f"after {took:.1f} s"


@then("the device closes the session with code {code}")
def closes_with_code(context, code):
    closes_with(context, code, SETTLE)


def closes_with(context, code, timeout):
    packet = context.stage.sessions[-1].receive_type(Type.CLOSE, timeout)
    assert packet.plaintext == bytes([int(code, 16)]), f"the code is {packet.plaintext.hex() or 'missing'}"


@when("the scripted client proposes new keys of its own, with the {order} public key")
def proposes_crossing(context, order):
    while True:
        each = exchange(context)
        if (each.public < context.device_public) == (order == "lower"):
            break
    context.seq = each.session.send(each.stage(PROPOSE))


@then("the device accepts the client's")
def accepts_clients(context):
    accepts(context)
    changes(context)


@then("the device acknowledges and ignores it")
def ignores(context):
    context.rekey.session.await_ack(context.seq)
    accept(context)


@when("a rekey is spoiled: the scripted client {does} with {key}")
def with_key(context, does, key):
    session = context.stage.sessions[-1]
    keys = {"an all-zero key": bytes(32), "a key of low order": LOW_ORDER_POINTS["order8-a"]}
    if does == "proposes new keys":
        session.send(exchange(context).stage(PROPOSE, keys[key]))
        return
    told_to_rekey(context, "device")
    receives_proposal(context, 1)
    if does == "accepts a proposal":
        accept(context, keys[key])
    else:
        session.send(exchange(context).stage(PROPOSE, context.device_public))


@when("the scripted client utters a REKEY with {fault}")
def utters(context, fault):
    session = context.stage.sessions[-1]
    each = exchange(context)
    good = LAYOUT.pack(each.epoch, PROPOSE, bytes(3), each.public)
    plaintext = {
        "the epoch in force": LAYOUT.pack(each.epoch - 1, PROPOSE, bytes(3), each.public),
        "an epoch too far ahead": LAYOUT.pack(each.epoch + 1, PROPOSE, bytes(3), each.public),
        "stage 0": LAYOUT.pack(each.epoch, 0, bytes(3), each.public),
        "stage 3": LAYOUT.pack(each.epoch, 3, bytes(3), each.public),
        "a byte that is not zero": LAYOUT.pack(each.epoch, PROPOSE, b"\0\0\1", each.public),
        "39 bytes": good[:-1],
        "41 bytes": good + b"\0",
        "no bytes": b"",
        "an accept that nothing asked for": LAYOUT.pack(each.epoch, ACCEPT, bytes(3), each.public),
    }[fault]
    session.send(session.packet(Type.REKEY, plaintext))
    context.stage.barrier(session)

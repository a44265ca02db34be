# SPDX-License-Identifier: GPL-2.0-or-later
"""Steps about configuration with rollback (section 14)."""

from __future__ import annotations

import re
import time
from dataclasses import replace

from behave import then, when

from poolproof.devices.puppet_stream import NothingCame
from poolproof.devices.stage import SETTLE, eventually
from poolref.config import ConfigPayload, Parameters, Reference, config_hash
from poolref.constants import Flag, Type

START = Reference(0, bytes(32))
PARAMETERS = Parameters(16, 5, 1 << 28, 3600, 512, 1400)
LONG_NS = 60 * 10**9
LOCKED, READY = int(Flag.CONFIG_LOCKED), int(Flag.ROLLBACK_READY)
ANSWERS = {"without a flag": 0, "with CONFIG_LOCKED": LOCKED, "with ROLLBACK_READY": READY}


def proposal(params=PARAMETERS, version=1, base=START, deadline_ns=LONG_NS):
    return ConfigPayload.proposing(params, base, version, deadline_ns, time.time_ns())


def send_config(context, payload, flags=0, session=None):
    session = session or context.stage.sessions[-1]
    plaintext = payload if isinstance(payload, bytes) else payload.pack()
    context.seq = session.send(session.packet(Type.CONFIG, plaintext, flags=flags))
    context.asked = session


def check_answer(context, flags):
    """The ACK of its own that answers: exactly that seq, exactly these flags."""
    session = context.asked
    while True:
        packet = session.receive_type(Type.ACK)
        if packet.header.ack >= context.seq:
            break
    assert packet.header.ack == context.seq, f"it acknowledges {packet.header.ack}, not {context.seq}"
    seen = packet.header.flags & (LOCKED | READY)
    assert seen == flags, f"answered with flags {seen:#06x} instead of {flags:#06x}"


def status(context, role="server"):
    text = context.stage.roles[role].call("read", path="/proc/pool/status")
    found = re.search(r"^Configuration: (\d+)( \(tentative\))?$", text, re.M)
    assert found is not None, f"status says nothing of the configuration:\n{text}"
    return int(found[1]), bool(found[2])


def version_of(context, role="server"):
    """The version in force, by what every device shows: its telemetry."""
    endpoint = context.stage.roles[role]
    rows = [each for each in endpoint.sessions() if each.state == "ESTABLISHED"]
    if rows:
        return rows[0].telemetry["config_version"]
    return status(context, role)[0]


# -- the scripted client proposes


@when("it proposes version {version:d} with difficulty {difficulty:d}")
def proposes(context, version, difficulty):
    proposes_within(context, version, difficulty, LONG_NS // 10**6)


@when("it proposes version {version:d} with difficulty {difficulty:d}, to be confirmed within {ms:d} ms")
def proposes_within(context, version, difficulty, ms):
    context.proposal = proposal(replace(PARAMETERS, difficulty=difficulty), version, deadline_ns=ms * 10**6)
    context.proposed_at = time.monotonic()
    send_config(context, context.proposal)


@when("it proposes version {version:d} on top of the last, with difficulty {difficulty:d}")
def proposes_on_top(context, version, difficulty):
    base = Reference(context.proposal.version, context.proposal.config_hash)
    context.proposal = proposal(replace(PARAMETERS, difficulty=difficulty), version, base)
    send_config(context, context.proposal)


def faulty(fault):
    good = proposal(replace(PARAMETERS, difficulty=17))
    if fault == "version 0":
        return proposal(version=0)
    if fault == "a wrong prev_version":
        return replace(good, prev_version=1, version=2, config_hash=config_hash(2, good.params))
    if fault == "a wrong prev_hash":
        return replace(good, prev_hash=bytes(31) + b"\1")
    if fault == "a wrong config_hash":
        return replace(good, config_hash=good.config_hash[:-1] + bytes([good.config_hash[-1] ^ 1]))
    if found := re.fullmatch(r"a deadline of (\d+) (ms|s)", fault):
        return replace(good, deadline_ns=int(found[1]) * (10**6 if found[2] == "ms" else 10**9))
    if fault == "no bytes":
        return b""
    if found := re.fullmatch(r"(\d+) bytes", fault):
        return (good.pack() + b"\0")[: int(found[1])]
    if fault == "a byte that is not zero":
        params = good.params[:1] + b"\1" + good.params[2:]
        return replace(good, params=params, config_hash=config_hash(1, params))
    values = dict(re.findall(r"(\w+) (\d+)", fault.replace(" and ", " ")))
    return proposal(replace(PARAMETERS, **{name: int(value) for name, value in values.items()}))


@when("it proposes a configuration with {fault}")
def proposes_faulty(context, fault):
    send_config(context, faulty(fault))


@then("the proposal is answered {how}")
@then("the confirm is answered {how}")
@then("its confirm is answered {how}")
@then("the rollback is answered {how}")
@then("its rollback is answered {how}")
def answered(context, how):
    check_answer(context, ANSWERS[how])


@when("it confirms the proposal")
def confirms(context):
    send_config(context, context.proposal, LOCKED)


@when("it asks for a rollback")
def asks_rollback(context):
    session = context.stage.sessions[-1]
    context.seq = session.send(session.packet(Type.ROLLBACK))
    context.asked = session


def another(context):
    if not hasattr(context, "other"):
        context.other = context.stage.client().establish()
    return context.other


@when("another scripted client confirms the proposal")
def other_confirms(context):
    send_config(context, context.proposal, LOCKED, another(context))


@when("another scripted client asks for a rollback")
def other_rolls_back(context):
    session = another(context)
    context.seq = session.send(session.packet(Type.ROLLBACK))
    context.asked = session


@then("the device's configuration is version {version:d}")
def version_is(context, version):
    seen = eventually(lambda: (version_of(context),), "the device telling its configuration")[0]
    assert seen == version, f"it is version {seen}"


@then("the device now asks for difficulty {difficulty:d}")
def asks_difficulty(context, difficulty):
    client = context.stage.client()
    client.stream.send(client.init())
    seen = client.await_challenge().difficulty
    client.close()
    assert seen == difficulty, f"the CHALLENGE has difficulty {seen}"


@then("an ACK with ROLLBACK_READY comes after {ms:d} ms")
def ready_comes(context, ms):
    session = context.stage.sessions[-1]
    while True:
        packet = session.receive_type(Type.ACK)
        if packet.header.flags & READY:
            break
    took = (time.monotonic() - context.proposed_at) * 1000
    assert took >= ms, f"it came after {took:.0f} ms already"
    assert took <= ms + 2000, f"it came after {took:.0f} ms only"


@when("{rounds:d} configurations are confirmed, rolled back and left to their deadline at once")
def race(context, rounds):
    stage = context.stage
    session = stage.sessions[-1]
    base = START
    context.outcomes, context.contradictions = [], []
    deadline = max(0.05, 3 * slowest_round_trip(context))
    for version in range(1, rounds + 1):
        params = replace(PARAMETERS, difficulty=16 + version % 5)
        payload = proposal(params, version, base, int(deadline * 1e9))
        send_config(context, payload)
        check_answer(context, LOCKED)
        # Around the deadline, in either order, seeded.
        time.sleep(stage.random.uniform(0.0, 1.2 * deadline))
        requests = [("confirm", Type.CONFIG, payload.pack(), LOCKED), ("rollback", Type.ROLLBACK, b"", 0)]
        stage.random.shuffle(requests)
        seqs, packets = {}, b""
        for name, type, plaintext, flags in requests:
            packet = session.packet(type, plaintext, flags=flags)
            seqs[session.seq - 1] = name
            packets += packet
        session.stream.send(packets)
        outcome = settle(session, seqs)
        confirmed = version_of(context) == version
        if len(outcome) != 1 or confirmed != (outcome == ["confirm"]):
            context.contradictions.append((version, outcome, confirmed))
        context.outcomes += outcome
        if confirmed:
            base = Reference(version, payload.config_hash)


def slowest_round_trip(context):
    """Seconds; of five, with whatever the guest and this machine are busy with."""
    took = []
    for _ in range(5):
        started = time.monotonic()
        context.stage.barrier(context.stage.sessions[-1])
        took.append(time.monotonic() - started)
    return max(took)


def settle(session, seqs):
    """What became of a configuration by its answers: confirm, rollback or deadline, one of them if sound."""
    waiting, outcome = dict(seqs), []
    while waiting:
        packet = session.receive_type(Type.ACK)
        flags = packet.header.flags
        if packet.header.ack in waiting and (flags & LOCKED or not flags & READY):
            name = waiting.pop(packet.header.ack)
            outcome += [name] if flags & LOCKED else []
        elif packet.header.ack in waiting and waiting[packet.header.ack] == "rollback":
            outcome.append(waiting.pop(packet.header.ack))
        elif flags & READY:
            outcome.append("deadline")
    return outcome


@then("each of them had exactly one outcome")
def one_outcome(context):
    assert not context.contradictions, f"version, outcomes, confirmed: {context.contradictions}"


@then("more than one kind of outcome occurred")
def kinds(context):
    counts = {kind: context.outcomes.count(kind) for kind in sorted(set(context.outcomes))}
    context.evidence.note(f"outcomes: {counts}")
    assert len(counts) > 1, f"only {counts}: nothing raced"


# -- the device proposes


@when("the {who} is told to propose difficulty {difficulty:d} within {seconds:d} s")
def told_to_propose(context, who, difficulty, seconds):
    stage = context.stage
    index = stage.index_of(stage.sessions[-1]) if who == "device" else None
    role = "server" if who == "device" else who
    stage.order(role, "configure", index, deadline_ns=seconds * 10**9, difficulty=difficulty)


@when("the {who} is told to confirm")
def told_to_confirm(context, who):
    stage = context.stage
    index = stage.index_of(stage.sessions[-1]) if who == "device" else None
    stage.order("server" if who == "device" else who, "confirm", index)
    context.told_at = time.monotonic()


@then("the scripted client receives a proposal of version {version:d} with difficulty {difficulty:d}")
def receives_proposal(context, version, difficulty):
    packet = context.stage.sessions[-1].receive_type(Type.CONFIG)
    context.request = packet
    payload = context.proposal = ConfigPayload.unpack(packet.plaintext)
    assert not packet.header.flags & (LOCKED | READY), f"its flags are {packet.header.flags:#06x}"
    assert (payload.version, payload.prev_version, payload.prev_hash) == (version, 0, bytes(32))
    assert payload.config_hash == config_hash(version, payload.params), "the config_hash is wrong"
    assert Parameters.unpack(payload.params) == replace(PARAMETERS, difficulty=difficulty)
    assert payload.deadline_ns == LONG_NS, f"the deadline is {payload.deadline_ns} ns"


def answer(context, how):
    session = context.stage.sessions[-1]
    session.send(session.packet(Type.ACK, ack=context.request.header.seq, flags=ANSWERS[how]))


@when("the scripted client answers it with CONFIG_LOCKED")
def answers_locked(context):
    answer(context, "with CONFIG_LOCKED")


@when("the scripted client answers it without a flag")
def answers_plain(context):
    answer(context, "without a flag")


@when("the scripted client accepts it, then answers a rollback")
def answers_rollback(context):
    stage = context.stage
    session = stage.sessions[-1]
    answer(context, "with CONFIG_LOCKED")
    outcome_is(context, "device", "accepted")
    stage.order("server", "rollback", stage.index_of(session))
    packet = session.receive_type(Type.ROLLBACK)
    assert packet.plaintext == b"", "a ROLLBACK is empty"
    context.request = packet
    answer(context, "with ROLLBACK_READY")


@when("the scripted client accepts it, then lets the deadline pass")
def deadline_passes(context):
    session = context.stage.sessions[-1]
    answer(context, "with CONFIG_LOCKED")
    outcome_is(context, "device", "accepted")
    session.send(session.packet(Type.ACK, flags=READY))


@then("the {who} says that its proposal is {outcome}")
def outcome_is(context, who, outcome):
    stage = context.stage
    role = "server" if who == "device" else who
    index = stage.index_of(stage.sessions[-1]) if who == "device" else stage.index[role]

    def there():
        row = next(row for row in stage.roles[role].details() if row["idx"] == str(index))
        return row.get("proposal") == outcome

    eventually(there, f"the {role}'s proposal being {outcome}")


@then("the scripted client receives the confirm, and again after {first:d} and {second:d} s")
def receives_confirms(context, first, second):
    session = context.stage.sessions[-1]
    for due in (0, first, second):
        packet = session.receive_type(Type.CONFIG, due + SETTLE)
        took = time.monotonic() - context.told_at
        context.request = packet
        assert packet.header.flags & LOCKED, "a confirm has CONFIG_LOCKED"
        assert packet.plaintext == context.proposal.pack(), "the confirm is of something else"
        assert due - 0.3 <= took <= due + 2, f"it came after {took:.1f} s, not after {due}"


@then("no confirm comes any more")
def no_confirm(context):
    session = context.stage.sessions[-1]
    deadline = time.monotonic() + 2.5
    while (left := deadline - time.monotonic()) > 0:
        try:
            packet = session.receive(left)
        except NothingCame:
            return
        assert packet.header.type != Type.CONFIG, "the confirm came once more"


@then("the configuration of the other end is version {version:d}, confirmed")
def other_end(context, version):
    roles = ("client", "server")
    seen = {role: status(context, role) for role in roles}
    assert sorted(seen.values()) == [(0, False), (version, False)], f"they are {seen}"

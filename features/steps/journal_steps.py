# SPDX-License-Identifier: GPL-2.0-or-later
"""Steps about the journal and its copy at the peer (section 17)."""

from __future__ import annotations

import re
import time
from dataclasses import replace

from behave import given, then, when
from config_steps import PARAMETERS, START, proposal

from poolproof.devices.puppet_stream import NothingCame
from poolproof.devices.stage import SETTLE, eventually
from poolref.constants import Flag, Type
from poolref.journal import ZERO_HASH, ChangeType, Entry, Sync

SYNC, REQUIRE_ACK = int(Flag.JOURNAL_SYNC), int(Flag.REQUIRE_ACK)


def rows(context, role="server"):
    return context.stage.roles[role].journal()


def entries(context, role="server"):
    """The journal as entries; the hashes are what the device says, not recomputed."""
    return [
        Entry(
            row["timestamp"],
            row["before"],
            row["after"],
            bytes.fromhex(row["hash"]),
            ChangeType[row["type"]],
            str(row["detail"]).encode(),
        )
        for row in rows(context, role)
    ]


def has_entry(context, type, text, role="server"):
    def there():
        return any(row["type"] == type and text in str(row["detail"]) for row in rows(context, role))

    eventually(there, f"an entry {type} that says {text!r}")


@then('the device\'s journal has a {type} entry that says "{text}"')
@then('the device\'s journal has an {type} entry that says "{text}"')
def device_has_entry(context, type, text):
    has_entry(context, type, text)


@then("the device's journal says why in an entry {type}")
def device_says_why(context, type):
    """In words of the device's own: the specification gives none (JRN-04)."""

    def there():
        return any(row["type"] == type and str(row["detail"]).strip() for row in rows(context))

    eventually(there, f"an entry {type} with a reason")


@then("the device's journal has no {type} entry")
def has_no_entry(context, type):
    found = [row for row in rows(context) if row["type"] == type]
    assert not found, f"it has {found}"


@then("every entry's hash follows from the one before it")
def chain_holds(context):
    listed = rows(context)
    kept = entries(context)
    assert kept, "the journal is empty"
    previous = ZERO_HASH if listed[0]["index"] == 0 else None
    for row, entry in zip(listed, kept, strict=True):
        if previous is not None:
            assert entry.hash_after(previous) == entry.change_hash, f"entry {row['index']} does not follow"
        previous = entry.change_hash
    indexes = [row["index"] for row in listed]
    assert indexes == list(range(indexes[0], indexes[0] + len(indexes))), "indexes are left out"


@then("the status shows as many entries as the journal has")
def status_agrees(context):
    text = context.stage.roles["server"].call("read", path="/proc/pool/status")
    shown = int(re.search(r"^Journal entries: (\d+)$", text, re.M)[1])
    assert shown == len(rows(context)), f"status says {shown}, the journal has {len(rows(context))}"


# -- the scripted client asks


def ask(context):
    session = context.stage.sessions[-1]
    session.send(session.packet(Type.JOURNAL, b"", flags=SYNC | REQUIRE_ACK))


@when("the scripted client asks for the journal")
@given("the scripted client asks for the journal")
def asks(context):
    ask(context)
    context.copy = []
    context.copy_first = None


def take(context, timeout=SETTLE):
    """One JOURNAL packet into the copy; checks that it continues it, and its size."""
    packet = context.stage.sessions[-1].receive_type(Type.JOURNAL, timeout)
    assert packet.header.flags & SYNC, "a JOURNAL packet without JOURNAL_SYNC"
    assert len(packet.plaintext) <= 1400 - 96, f"it carries {len(packet.plaintext)} bytes"
    sync = Sync.unpack(packet.plaintext)
    assert sync.holds, "the chain inside the packet is broken"
    if context.copy_first is None:
        context.copy_first = sync.first_index
        context.copy_previous = sync.previous_hash
    else:
        assert sync.first_index == context.copy_first + len(context.copy), "entries are left out"
        last = context.copy[-1].change_hash if context.copy else context.copy_previous
        assert sync.previous_hash == last, "the packet does not continue the one before"
    context.copy += sync.entries
    return sync


@then("it receives the whole journal in order")
def receives_all(context):
    wanted = entries(context)
    while len(context.copy) < len(wanted):
        take(context)
    seen = context.copy[: len(wanted)]
    assert [each.change_hash for each in seen] == [each.change_hash for each in wanted]
    assert seen == wanted, "the entries are not those of /proc/pool/journal"


@then('it receives the new entry, which is a {type} that says "{text}"')
def receives_new(context, type, text):
    deadline = time.monotonic() + SETTLE
    while True:
        found = [each for each in context.copy if each.change_type == ChangeType[type] and text in each.text]
        if found:
            return
        take(context, max(deadline - time.monotonic(), 0.001))


@then("no JOURNAL packet comes for {seconds:d} s")
def none_comes(context, seconds):
    session = context.stage.sessions[-1]
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        try:
            packet = session.receive(left)
        except NothingCame:
            return
        assert packet.header.type != Type.JOURNAL, "a JOURNAL packet came"


@when("another session makes an entry")
def makes_entry(context):
    context.stage.client().establish()


@when("the scripted client utters a JOURNAL {fault}")
def utters(context, fault):
    session = context.stage.sessions[-1]
    entry = Entry.after(ZERO_HASH, 1, 0, 0, 1, b"x")
    good = Sync(0, ZERO_HASH, (entry,)).pack()
    too_long = Entry.after(ZERO_HASH, 1, 0, 0, 1, bytes(257))
    plaintext, flags = {
        "without JOURNAL_SYNC": (good, 0),
        "that is empty and wants no ACK": (b"", SYNC),
        "with a count that is too high": (good[:40] + b"\0\2" + good[42:], SYNC),
        "with a count that is too low": (good[:40] + b"\0\0" + good[42:], SYNC),
        "with a detail of 257 bytes": (Sync(0, ZERO_HASH, (too_long,)).pack(), SYNC),
        "of 41 bytes": (good[:41], SYNC),
        "with entries that nobody asked for": (good, SYNC),
    }[fault]
    session.send(session.packet(Type.JOURNAL, plaintext, flags=flags))
    context.stage.barrier(session)


@when("the scripted client proposes and rolls back {count:d} configurations")
def many_entries(context, count):
    """Two entries each, as many packets at a time as acknowledgements merge."""
    session = context.stage.sessions[-1]
    payload = proposal(replace(PARAMETERS, difficulty=17), 1, START).pack()
    for done in range(0, count, 50):
        for _ in range(min(50, count - done)):
            session.stream.send(session.packet(Type.CONFIG, payload))
            session.stream.send(session.packet(Type.ROLLBACK))
        context.stage.barrier(session)


@then("the journal keeps the latest {count:d} entries")
def keeps_latest(context, count):
    listed = rows(context)
    assert len(listed) == count, f"it keeps {len(listed)}"
    assert listed[0]["index"] > 0, "the first entry was not overwritten"


@then("the journal_full counter tells how many were overwritten")
def overwritten(context):
    first = rows(context)[0]["index"]
    grown = context.stage.growth("server", "journal_full")
    assert grown == first, f"it counts {grown}, but the oldest entry is {first}"


# -- the device asks


@when("the device is told to ask for the journal")
def device_asks(context):
    stage = context.stage
    session = stage.sessions[-1]
    stage.order("server", "request_journal", stage.index_of(session))
    packet = session.receive_type(Type.JOURNAL)
    assert packet.plaintext == b"", "a request is empty"
    flags = packet.header.flags & (SYNC | REQUIRE_ACK)
    assert flags == SYNC | REQUIRE_ACK, f"its flags are {packet.header.flags:#06x}"


def make_chain(count, previous=ZERO_HASH, start=0):
    made = []
    for number in range(start, start + count):
        made.append(Entry.after(previous, 1000 + number, 0, 0, 1, f"entry {number}".encode()))
        previous = made[-1].change_hash
    return made


def send_sync(context, first, previous, sent):
    session = context.stage.sessions[-1]
    session.send(session.packet(Type.JOURNAL, Sync(first, previous, tuple(sent)).pack(), flags=SYNC))


@when("the scripted client sends {count:d} entries of a sound journal")
def sends_sound(context, count):
    context.chain = getattr(context, "chain", [])
    previous = context.chain[-1].change_hash if context.chain else ZERO_HASH
    fresh = make_chain(count, previous, len(context.chain))
    send_sync(context, len(context.chain), previous, fresh)
    context.chain += fresh


@then("the device's copy has {count:d} entries and it trusts the peer")
def copy_has(context, count):
    eventually(lambda: detail(context, "replica") == str(count), f"a copy of {count} entries")
    assert detail(context, "untrusted") == "0", "it calls the peer untrusted"


def detail(context, name):
    stage = context.stage
    index = str(stage.index_of(stage.sessions[-1]))
    return next(row for row in stage.roles["server"].details() if row["idx"] == index)[name]


@when("the scripted client then sends {what}")
def sends_contradiction(context, what):
    chain = context.chain
    count, head = len(chain), chain[-1].change_hash
    next_one = make_chain(1, head, count)[0]
    forged = replace(next_one, detail=b"forged")
    fork = make_chain(2, chain[count - 3].change_hash, 900)
    packets = {
        "an entry whose hash is wrong": (count, head, [forged]),
        "another entry in place of one": (count - 2, chain[count - 3].change_hash, fork),
        "another hash before the next entry": (
            count, bytes(32), [Entry.after(bytes(32), 1, 0, 0, 1, b"x")]
        ),
        "an entry that leaves out one": (
            count + 1, next_one.change_hash, make_chain(1, next_one.change_hash, count + 1)
        ),
        "a first entry on top of something": (0, b"\1" * 32, [Entry.after(b"\1" * 32, 1, 0, 0, 1, b"x")]),
    }  # fmt: skip
    send_sync(context, *packets[what])


@then("the device calls the peer untrusted")
def untrusted(context):
    eventually(lambda: detail(context, "untrusted") == "1", "the device calling the peer untrusted")


@then("the device's copy still has {count:d} entries")
def copy_still(context, count):
    assert detail(context, "replica") == str(count), f"it has {detail(context, 'replica')}"


# -- how often


@when("the scripted client sends the same packet {count:d} times in a burst")
def burst(context, count):
    session = context.stage.sessions[-1]
    packet = session.data(context.stage.message(20))
    context.burst = count
    context.burst_began = time.monotonic()
    session.stream.send(packet * (count + 1))
    context.stage.barrier(session)
    context.burst_took = time.monotonic() - context.burst_began


@then("at most {limit:d} ERROR entries a second were written for it")
def limited(context, limit):
    found = [row for row in rows(context) if row["type"] == "ERROR" and "replay" in str(row["detail"])]
    assert found, "none was written"
    most = limit * (1 + int(context.burst_took))
    assert len(found) <= most, f"{len(found)} were written within {context.burst_took:.1f} s"
    context.written = len(found)


@then('the counters "{all_of_them}" and "{not_written}" tell of all of them')
def all_told(context, all_of_them, not_written):
    stage = context.stage
    assert stage.growth("server", all_of_them) == context.burst
    assert stage.growth("server", not_written) == context.burst - context.written

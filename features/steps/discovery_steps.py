# SPDX-License-Identifier: GPL-2.0-or-later
"""Steps about announces, the exchange and the table of peers (section 18)."""

from __future__ import annotations

import ipaddress
import re
import socket
import struct
import time

from behave import then, when
from session_steps import error_of

from poolproof.devices.stage import eventually
from poolproof.lab.frames import with_checksums
from poolref.address import acceptable
from poolref.constants import ANNOUNCE_GROUP, DEFAULT_PORT, Flag, Type
from poolref.discovery import Announce
from poolref.exchange import Told, pack_exchange, unpack_exchange

TELEMETRY = int(Flag.TELEMETRY)
GROUP_MAC = bytes.fromhex("01005e7d0001")
SOURCE_MAC = bytes.fromhex("525400fd00aa")


# -- announces on the wire


def announces(context):
    """The announces that the server's guest sent in this scenario, as (packet, payload)."""
    device = context.device
    address = context.stage.roles["server"].guest.address4
    found = []
    for frame in device.lab.wire.frames(context.mark):
        packet = frame.packet
        if packet is None or packet.protocol != socket.IPPROTO_UDP or packet.source != address:
            continue
        if packet.destination_port == DEFAULT_PORT:
            found.append((packet, frame.payload))
    return found


@then("the device announces nothing for {seconds:d} s")
def announces_nothing(context, seconds):
    context.mark = context.device.lab.wire.mark()
    time.sleep(seconds)
    assert not announces(context), "it does"


@when("the device starts to listen")
def starts_to_listen(context):
    context.mark = context.device.lab.wire.mark()
    context.stage.listen("device")


@then("an announce of the device is on the wire")
def announce_seen(context):
    context.announce = eventually(lambda: announces(context), "an announce on the wire")[0]


@then("its TTL is {ttl:d} and it goes to the group")
def ttl_is(context, ttl):
    packet, _ = context.announce
    assert packet.ttl == ttl, f"its TTL is {packet.ttl}"
    assert packet.destination == ANNOUNCE_GROUP, f"it goes to {packet.destination}"


@then("it tells the device's public key, address, port and version")
def announce_tells(context):
    _, payload = context.announce
    assert len(payload) == 76, f"it has {len(payload)} bytes"
    announce = Announce.unpack(payload)
    server = context.stage.roles["server"]
    status = server.call("read", path="/proc/pool/status")
    assert announce.pubkey.hex() == re.search(r"^Node pubkey: (\w+)$", status, re.M)[1]
    assert acceptable(announce.address), "its address is not well formed"
    assert (announce.port, announce.version, announce.flags) == (server.port, 1, 0)


def inject(context, source, payload):
    """A datagram to the group from any address, as if from somebody else on the wire."""
    udp = struct.pack(">HHHH", DEFAULT_PORT, DEFAULT_PORT, 8 + len(payload), 0) + payload
    destination = socket.inet_aton(ANNOUNCE_GROUP)
    header = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(udp), 0, 0, 1, socket.IPPROTO_UDP, 0)
    frame = GROUP_MAC + SOURCE_MAC + b"\x08\x00" + header + socket.inet_aton(source) + destination + udp
    context.device.lab.wire.inject(context.stage.roles["server"].name, with_checksums(frame))


def key_of(text):
    return (text.encode() * 8)[:32]


@when("{source} announces port {port:d} with a public key")
def announces_port(context, source, port):
    inject(context, source, Announce(key_of(source), bytes(32), port).pack())


@when("{source} announces ports {first:d} to {last:d} at once")
def announces_ports(context, source, first, last):
    for port in range(first, last + 1):
        inject(context, source, Announce(key_of(source), bytes(32), port).pack())


@when("{source} announces itself with {fault}")
def announces_faulty(context, source, fault):
    key = key_of(source)
    good = Announce(key, bytes(32), 4001).pack()
    if fault == "the device's own key":
        status = context.stage.roles["server"].call("read", path="/proc/pool/status")
        key = bytes.fromhex(re.search(r"^Node pubkey: (\w+)$", status, re.M)[1])
        good = Announce(key, bytes(32), 4001).pack()
    payload = {
        "75 bytes": good[:-1],
        "77 bytes": good + b"\0",
        "no bytes": b"",
        "port 0": Announce(key, bytes(32), 0).pack(),
        "a wrong address": Announce(key, bytes(31) + b"\1", 4001).pack(),
        "version 2": Announce(key, bytes(32), 4001, version=2).pack(),
        "the device's own key": good,
    }[fault]
    inject(context, source, payload)


@then("the announce is counted as {counter}")
def counted_as(context, counter):
    if counter == "nothing":
        time.sleep(0.5)
        grown = context.stage.discards("server")
        assert not grown, f"it was counted: {grown}"
        return
    grown = eventually(lambda: context.stage.growth("server", counter), f"{counter} counting anything")
    assert grown == 1, f"{counter} grew by {grown}"


@when("{count:d} peers announce themselves, one after the other")
def many_announce(context, count):
    base = int(ipaddress.ip_address("10.77.0.1"))
    context.announced = [str(ipaddress.ip_address(base + number)) for number in range(count)]
    for number, source in enumerate(context.announced):
        inject(context, source, Announce(key_of(source), bytes(32), 9253).pack())
        if number % 10 == 9:  # the socket's buffer holds so many
            eventually(
                lambda source=source: any(row["address"] == source for row in peers(context)),
                f"the device knowing {source}",
            )


# -- the table


def peers(context):
    return context.stage.roles["server"].peers()


def known(context, address, port=None):
    return [
        row for row in peers(context) if row["address"] == address and (port is None or row["port"] == port)
    ]


@then("the device knows {address} port {port:d} by {source}, with that key")
def knows_with_key(context, address, port, source):
    row = eventually(lambda: known(context, address, port), f"the device knowing {address}")[0]
    assert row["source"] == source, f"it knows it by {row['source']}"
    assert row["pubkey"] == key_of(address).hex(), f"it has another key: {row['pubkey']}"


@then("the device knows {address} port {port:d} by {source}")
def knows(context, address, port, source):
    row = eventually(lambda: known(context, address, port), f"the device knowing {address}")[0]
    assert row["source"] == source, f"it knows it by {row['source']}"


@then("the device does not know {address}")
def does_not_know(context, address):
    assert not known(context, address), "it does"


@then("the device knows at most {count:d} peers at {address}")
def at_most_at(context, count, address):
    eventually(lambda: known(context, address), f"the device knowing {address}")
    context.stage.roles["server"].counters()
    seen = len(known(context, address))
    assert seen <= count, f"it knows {seen}"


@then("the device knows {count:d} peers")
def knows_count(context, count):
    eventually(lambda: len(peers(context)) == count, f"the device knowing {count} peers", timeout=5.0)


@then("the device knows at most {count:d} peers")
def knows_at_most(context, count):
    assert len(peers(context)) <= count, f"it knows {len(peers(context))}"


@then("the {count:d} that announced themselves first are gone")
def first_gone(context, count):
    kept = {row["address"] for row in peers(context)}
    left = [each for each in context.announced if each in kept]
    assert left == context.announced[count:], f"kept are {left[:5]} ... {left[-5:]}"


@then("the static ones are known with the key they were given")
def static_known(context):
    rows = {(row["address"], row["port"]): row for row in peers(context) if row["source"] == "static"}
    assert set(rows) == {("10.9.9.1", 1111), ("fd00::9", 2222), ("10.9.9.2", 3333)}, f"static: {set(rows)}"
    assert rows["10.9.9.2", 3333]["pubkey"] == "01" * 32
    assert rows["10.9.9.1", 1111]["pubkey"] == "00" * 32


# -- the exchange


def told(address, port, key=bytes(32)):
    return Told(socket.inet_aton(address), port, key)


def send_exchange(context, plaintext):
    session = context.stage.sessions[-1]
    session.send(session.packet(Type.DISCOVER, plaintext, flags=TELEMETRY))
    context.stage.barrier(session)


@when("the scripted client tells of {listed}")
def tells_of(context, listed):
    if found := re.fullmatch(r"(\d+) new peers (\d+) times at once", listed):
        return tells_often(context, int(found[1]), int(found[2]))
    pairs = re.findall(r"([\d.]+) port (\d+)", listed)
    send_exchange(context, pack_exchange([told(address, int(port)) for address, port in pairs]))
    return None


def tells_often(context, count, times):
    session = context.stage.sessions[-1]
    base = int(ipaddress.ip_address("10.200.0.1"))
    packets = b""
    for number in range(times):
        listed = [
            told(str(ipaddress.ip_address(base + number * count + each)), 9253) for each in range(count)
        ]
        packets += session.packet(Type.DISCOVER, pack_exchange(listed), flags=TELEMETRY)
    session.stream.send(packets)
    context.stage.barrier(session)


@when("the scripted client utters an exchange with {fault}")
def utters(context, fault):
    two = [told("10.1.1.1", 9253), told("10.1.1.2", 9253)]
    good = pack_exchange(two)
    plaintext = {
        "no bytes": b"",
        "one byte": b"\0",
        "a count one too high": b"\0\3" + good[2:],
        "a count one too low": b"\0\1" + good[2:],
        "a count of 65535": b"\xff\xff" + good[2:],
        "35 entries": pack_exchange([told(f"10.1.2.{number}", 9253) for number in range(1, 36)]),
        "a port 0 and a multicast address": pack_exchange(
            [told("10.1.1.1", 0), told("239.0.0.1", 9253), told("10.1.1.2", 9253)]
        ),
    }[fault]
    send_exchange(context, plaintext)


@when("the device is told to exchange")
def told_to_exchange(context):
    stage = context.stage
    stage.order("server", "exchange", stage.index_of(stage.sessions[-1]))


@then("it tells of {listed} only")
def tells(context, listed):
    wanted = {(address, int(port)) for address, port in re.findall(r"([\d.]+) port (\d+)", listed)}
    while True:
        packet = context.stage.sessions[-1].receive_type(Type.DISCOVER)
        if packet.header.flags & TELEMETRY:
            break
    entries = unpack_exchange(packet.plaintext)
    assert {(socket.inet_ntoa(each.ip), each.port) for each in entries} == wanted, f"it tells of {entries}"


# -- parameters


@when("the module is loaded on the server with the parameter {parameter}")
def loaded_with(context, parameter):
    endpoint = context.device.bare_endpoint("server")
    context.stage.failure = error_of(endpoint.load, parameter)

# SPDX-License-Identifier: GPL-2.0-or-later
"""Scenarios of test_poolref_auto over real sockets, all in one network namespace; prints what each found as
JSON.

To be started under ``unshare -n`` (with ``-r`` unless root).  Loopback has as many addresses as are needed.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from poolref_sim import EASY

from poolref import constants, wire
from poolref.constants import MILLISECOND, Type
from poolref.core import NodeCore, Peer
from poolref.crypto import public_key
from poolref.io import system
from poolref.node import Node
from poolref.raw_handshake import echo_of
from poolref.responder import Responder
from poolref.wire import Challenge

HERE, THERE = "127.0.0.1", "127.0.0.2"
ANSWER_S = 20.0
PROTOCOL = 253  # as section 4 says, whatever the reference does


class Capture:
    """Every datagram of protocol 253 on loopback, once: source, destination, DF, packet."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800))
        self._socket.bind(("lo", 0x0800))
        self._socket.setblocking(False)
        self._found: list[tuple[str, str, bool, bytes]] = []

    def __enter__(self) -> Capture:
        asyncio.get_running_loop().add_reader(self._socket, self._read)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()

    def taken(self) -> list[tuple[str, str, bool, bytes]]:
        """What came since the last call."""
        self._read()
        found, self._found = self._found, []
        return found

    def _read(self) -> None:
        while True:
            try:
                frame, address = self._socket.recvfrom(65535)
            except BlockingIOError:
                return
            if address[2] == socket.PACKET_OUTGOING or frame[9] != PROTOCOL:
                continue
            total, fragment = struct.unpack_from(">H2xH", frame, 2)
            assert total == len(frame)
            source, target = (socket.inet_ntoa(frame[at : at + 4]) for at in (12, 16))
            self._found.append((source, target, bool(fragment & 0x4000), frame[(frame[0] & 0xF) * 4 :]))


def types(datagrams: list[tuple[str, str, bool, bytes]], source: str) -> list[str]:
    return [Type(packet[0] & 0xF).name for each, _, _, packet in datagrams if each == source]


class Stranger:
    """A raw peer made by hand: ``answer`` is called with each datagram to its address and says what comes
    back.
    """

    def __init__(self, answer: Callable[[bytes], list[bytes]]) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_RAW, PROTOCOL)
        self._socket.bind((THERE, 0))
        self._socket.setblocking(False)
        self._answer = answer
        self.heard: list[str] = []

    def __enter__(self) -> Stranger:
        asyncio.get_running_loop().add_reader(self._socket, self._read)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()

    def _read(self) -> None:
        data, address = self._socket.recvfrom(65535)
        packet = data[20:]
        self.heard.append(Type(packet[0] & 0xF).name)
        for reply in self._answer(packet):
            self._socket.sendto(reply, address)


def outcome(error: OSError) -> dict[str, Any]:
    return {"errno": error.errno, "text": error.strerror}


async def attempt(node: Node, host: str = THERE, **arguments: Any) -> Any:
    """The transport of the session with ``host``, or why there is none."""
    try:
        session = await node.connect(host, **arguments)
    except OSError as error:
        return outcome(error)
    transport = session.info().transport
    await session.close()
    return transport


async def conversation() -> Any:
    with Capture() as capture:
        return await converse(capture)


async def converse(capture: Capture) -> Any:
    async with Node(EASY, transport="raw") as server, Node(transport="raw") as client:
        port = await server.listen(THERE)
        ours, theirs = await asyncio.gather(client.connect(THERE), server.accept())
        big = os.urandom(60_000)
        await ours.send(b"small")
        await ours.send(big)
        await theirs.send(big[::-1])
        arrived = [await theirs.recv(), await theirs.recv(), await ours.recv()]
        info, peer_info = ours.info(), theirs.info()
        await ours.close()
        await theirs.wait_closed()
        datagrams = capture.taken()
        return {
            "arrived": arrived == [b"small", big, big[::-1]],
            "transports": [info.transport, peer_info.transport],
            "peers": [info.peer_addr, peer_info.peer_addr, info.peer_port],
            "family": int(info.family),
            "port": [port, server.port],
            "ends": [ours.core.end.cause, theirs.core.end.cause],  # type: ignore[union-attr]
            "DF everywhere": all(fragment for _, _, fragment, _ in datagrams),
            "one packet each": all(wire.packet_size(packet) == len(packet) for *_, packet in datagrams),
            "addresses": sorted({each[:2] for each in datagrams}),
            "begins": [types(datagrams, HERE)[:2], types(datagrams, THERE)[:2]],
            "CLOSE": types(datagrams, HERE)[-1],
            "acknowledged by": types(datagrams, THERE)[-1],
            "discarded": [
                {name: count for name, count in node.counters().items() if name in DISCARDS and count}
                for node in (server, client)
            ],
        }


DISCARDS = (
    "malformed",
    "unknown_session",
    "spoofed",
    "auth_fail",
    "duplicate",
    "reflected",
    "unexpected_type",
)


async def own_addresses() -> Any:
    """A node that listens everywhere answers from the address it was called by."""
    async with Node(EASY, transport="raw") as server, Node(transport="raw") as client:
        await server.listen()
        found = []
        for address in ("127.0.0.5", "127.0.0.6"):
            ours, theirs = await asyncio.gather(client.connect(address), server.accept())
            await theirs.send(b"x")
            assert await ours.recv() == b"x"
            found.append(ours.info().peer_addr)
            await ours.close()
        return found


async def listening_on_one_address() -> Any:
    constants.CHALLENGE_TIMEOUT = 200 * MILLISECOND  # type: ignore[misc]
    async with Node(EASY, transport="raw") as server, Node(transport="raw") as client:
        await server.listen(THERE)
        return [await attempt(client, "127.0.0.3"), await attempt(client)]


async def fallbacks() -> Any:
    found = {}
    async with Node(EASY, transport="auto") as server, Node(transport="auto") as client:
        port = await server.listen("0.0.0.0", 0)
        found["answered"] = await attempt(client, port=port)
        found["raw alone"] = await attempt(client, port=port, transport="raw")
        found["tcp alone"] = await attempt(client, port=port, transport="tcp")
    async with Node(EASY) as server, Node(transport="auto") as client:
        port = await server.listen(None, 0)
        constants.AUTO_TIMEOUT = constants.CHALLENGE_TIMEOUT = 150 * MILLISECOND  # type: ignore[misc]
        constants.INIT_REPEATS = (20 * MILLISECOND, 60 * MILLISECOND)  # type: ignore[misc]
        with Capture() as capture:
            found["unanswered"] = await attempt(client, port=port)
            found["INITs"] = types(capture.taken(), HERE)
        found["slots"] = client._parts.core.slots.free
        found["ipv6"] = await attempt(client, "::1", port=port)
        found["ipv6, raw"] = await attempt(client, "::1", port=port, transport="raw")
        found["mapped"] = await attempt(client, "::ffff:127.0.0.2", port=port)
        found["no way"] = await attempt(client, "192.0.2.1", port=port, transport="raw")
        found["no way, auto"] = await attempt(client, "192.0.2.1", port=port)
        found["unanswered, raw"] = await attempt(client, port=port, transport="raw")
    return found


async def answered() -> Any:
    """Whoever answers over raw decides, whatever listens on TCP."""
    constants.AUTO_TIMEOUT = 300 * MILLISECOND  # type: ignore[misc]
    constants.ACK_TIMEOUT = 500 * MILLISECOND  # type: ignore[misc]
    found = {}
    core = NodeCore(EASY, system.random_bytes, system.wall_clock)
    responder = Responder(core, system.monotonic())

    def refuse(packet: bytes) -> list[bytes]:
        return [wire.advisory_close(9, 0, echo_of(packet[80:]))]

    def challenge(packet: bytes) -> list[bytes]:
        if packet[0] & 0xF != Type.INIT:
            return []
        echo = echo_of(packet[80:])
        answer = responder.challenge(
            wire.parse(packet), packet[80:], Peer(bytes(16)).ip, system.monotonic(), echo
        )
        assert isinstance(answer, bytes)
        return [answer]

    def too_difficult(packet: bytes) -> list[bytes]:
        payload = Challenge(public_key(bytes(31) + b"\1"), bytes(32), 25, bytes(32)).pack()
        return [wire.build(Type.CHALLENGE, payload, session_id=b"x" * 16, ack=echo_of(packet[80:]))]

    def blind(packet: bytes) -> list[bytes]:
        return [wire.advisory_close(9, 0, echo_of(packet[80:]) ^ 1)]

    async with Node(EASY) as server, Node(transport="auto") as client:
        port = await server.listen(None, 0)
        for answer in (refuse, challenge, too_difficult, blind):
            with Stranger(answer) as stranger:
                found[answer.__name__] = [await attempt(client, port=port), stranger.heard]
        found["slots"] = client._parts.core.slots.free
        found["spoofed"] = client.counters()["spoofed"]
    return found


async def unacknowledged() -> Any:
    """DF is clear from the fourth send on; the session ends when the peer is gone."""
    constants.RTO_INITIAL = 2 * MILLISECOND  # type: ignore[misc]
    with Capture() as capture:
        return await lose_the_peer(capture)


async def lose_the_peer(capture: Capture) -> Any:
    async with Node(EASY, transport="raw") as server, Node(transport="raw") as client:
        await server.listen(THERE)
        ours, theirs = await asyncio.gather(client.connect(THERE), server.accept())
        while theirs.core.outstanding:
            await asyncio.sleep(0)
        theirs.link._port.close()  # type: ignore[attr-defined]
        capture.taken()
        ours.core.discovery.due = ours.core.heartbeats.due = 1 << 62
        await ours.send(b"lost")
        await ours.wait_closed()
        theirs.link.abort()
        return {
            "sends": [fragment for *_, fragment, packet in capture.taken() if packet[0] & 0xF == Type.DATA],
            "cause": ours.core.end.cause,  # type: ignore[union-attr]
            "free": client._parts.core.slots.free,
        }


async def stopping() -> Any:
    """A node that stops closes its raw sessions, and what was sent arrives before."""
    async with Node(EASY, transport="raw") as server:
        await server.listen(THERE)
        async with Node(transport="raw") as client:
            ours, theirs = await asyncio.gather(client.connect(THERE), server.accept())
            for number in range(200):
                await ours.send(b"%d" % number)
            first = client._raw
        arrived = [int(await theirs.recv()) for _ in range(200)]
        assert first is not None
        return {
            "arrived": arrived == list(range(200)),
            "end": theirs.core.end.cause,  # type: ignore[union-attr]
            "socket": first._socket._socket.fileno(),
        }


async def without_capability() -> Any:
    found = {}
    async with Node(EASY, transport="auto") as server, Node(transport="auto") as client:
        port = await server.listen(None, 0)
        found["auto"] = await attempt(client, port=port)
        found["raw"] = await attempt(client, port=port, transport="raw")
        async with Node(EASY, transport="raw") as other:
            try:
                await other.listen()
            except OSError as error:
                found["listening"] = outcome(error)
            found["port"] = other.port
    return found


SCENARIOS: tuple[Callable[[], Awaitable[Any]], ...] = (
    conversation,
    own_addresses,
    listening_on_one_address,
    fallbacks,
    answered,
    unacknowledged,
    stopping,
)
CHANGED = ("AUTO_TIMEOUT", "CHALLENGE_TIMEOUT", "ACK_TIMEOUT", "RTO_INITIAL", "INIT_REPEATS")


async def main(scenarios: tuple[Callable[[], Awaitable[Any]], ...]) -> dict[str, Any]:
    found = {}
    kept = {name: getattr(constants, name) for name in CHANGED}
    for scenario in scenarios:
        async with asyncio.timeout(ANSWER_S):
            found[scenario.__name__] = await scenario()
        for name, value in kept.items():
            setattr(constants, name, value)
    return found


if __name__ == "__main__":
    if sys.argv[1:] == ["without_capability"]:
        result = asyncio.run(main((without_capability,)))
    else:
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        result = asyncio.run(main(SCENARIOS))
        dropped = ["setpriv", "--bounding-set=-net_raw", "--inh-caps=-net_raw", "--ambient-caps=-net_raw"]
        command = [*dropped, sys.executable, __file__, "without_capability"]
        result |= json.loads(subprocess.run(command, check=True, capture_output=True, timeout=30).stdout)
    print(json.dumps(result))

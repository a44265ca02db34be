# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs one scenario of test_poolref_multicast in a network namespace of its own; prints its result as JSON.

To be started under ``unshare -n`` (with ``-r`` unless root).
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
from typing import Any

from poolref import constants
from poolref.core import NodeCore
from poolref.discovery import Announce
from poolref.io import system
from poolref.io.multicast import Multicast
from poolref.io.tcp import ip_text
from poolref.node import Node
from poolref.settings import Settings

GROUP = ("239.253.0.1", 9253)
ANY_PROTOCOL = 0x0003


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


def interface(number: int) -> None:
    """``d0`` and so on, down, with the address 10.9.0.1; its other end is up, so that frames leave."""
    ip("link", "add", f"d{number}", "type", "veth", "peer", "name", f"e{number}")
    ip("address", "add", f"10.9.{number}.1/24", "dev", f"d{number}")
    ip("link", "set", f"e{number}", "up")


def node(port: int | None = None, interface: str | None = None) -> tuple[NodeCore, Multicast]:
    core = NodeCore(Settings(), system.random_bytes, system.wall_clock)
    multicast = Multicast(core, system.monotonic, interface=interface)
    if port is not None:
        multicast.listening(port)
    return core, multicast


def known(core: NodeCore) -> list[str]:
    entries = core.peers.listed(system.monotonic())
    return sorted(f"{ip_text(entry.peer.ip)} {entry.peer.port}" for entry in entries)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.005)


class Sniffer:
    """Sees every frame on an interface."""

    def __init__(self, interface: str) -> None:
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ANY_PROTOCOL))
        self._socket.bind((interface, ANY_PROTOCOL))
        self._socket.setblocking(False)
        self._announces: list[dict[str, Any]] = []

    def announces(self) -> list[dict[str, Any]]:
        """What went to the group so far: TTL, addresses, port, contents."""
        while True:
            try:
                packet = self._socket.recv(2048)
            except OSError:  # no more, or the interface just went down
                return self._announces
            header = (packet[0] & 0xF) * 4
            if packet[0] >> 4 != 4 or packet[9] != socket.IPPROTO_UDP or packet[16:20] != b"\xef\xfd\0\1":
                continue
            _, port, _, _ = struct.unpack_from(">HHHH", packet, header)
            self._announces.append(
                {
                    "ttl": packet[8],
                    "source": socket.inet_ntoa(packet[12:16]),
                    "port": port,
                    "datagram": packet[header + 8 :].hex(),
                }
            )


async def loopback() -> Any:
    """Two nodes on one host, and one that only hears them."""
    ip("link", "set", "lo", "up")
    constants.ANNOUNCE_PERIOD = 300 * constants.MILLISECOND  # type: ignore[misc]
    (first, one), (second, two), (silent, three) = node(4001), node(4002), node()
    three.start()
    one.start()
    await until(lambda: bool(known(silent)))
    await asyncio.sleep(0.12)  # they share an address, so they would share its rate
    two.start()
    await until(lambda: len(known(first)) == len(known(second)) == 1 and len(known(silent)) == 2)
    result = {
        "first": known(first),
        "second": known(second),
        "silent": known(silent),
        "errors": [entry.text for core in (first, second, silent) for entry in core.journal.entries()],
    }
    for multicast in (one, two, three):
        multicast.stop()
    return {**result, "open after stop": [multicast.is_open for multicast in (one, two, three)]}


async def every_30_seconds() -> Any:
    """With 0.1 s in place of 30 s: the announces of one node, and none once it stops listening."""
    ip("link", "set", "lo", "up")
    constants.ANNOUNCE_PERIOD = 100 * constants.MILLISECOND  # type: ignore[misc]
    sniffer = Sniffer("lo")
    _, multicast = node(4001)
    multicast.start()
    await until(lambda: len(sniffer.announces()) >= 6)
    multicast.listening(None)
    before = len(sniffer.announces())
    await asyncio.sleep(0.3)
    after = len(sniffer.announces())
    multicast.stop()
    return {"more": after - before}


async def neighbour() -> None:
    """The other end of a cable: announces itself and sends what is no announce, until told to end."""
    read = asyncio.get_running_loop().run_in_executor
    print("ready", flush=True)
    await read(None, sys.stdin.readline)
    core, multicast = node(4002)
    multicast.start()
    rogue = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    rogue.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("10.9.0.2"))
    for datagram in (b"", b"x" * 75, b"x" * 77, bytes(65000), Announce(bytes(32), bytes(32), 1, 9).pack()):
        rogue.sendto(datagram, GROUP)
    await until(lambda: bool(known(core)))
    print(json.dumps(known(core)), flush=True)
    await read(None, sys.stdin.readline)
    multicast.stop()


async def cable() -> Any:
    """Two hosts: another namespace at the other end of a veth pair."""
    command = ["unshare", "-n", sys.executable, __file__, "neighbour"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        ip("link", "add", "v0", "type", "veth", "peer", "name", "v1", "netns", str(child.pid))
        ip("address", "add", "10.9.0.1/24", "dev", "v0")
        ip("link", "set", "v0", "up")
        enter = ["nsenter", "-t", str(child.pid), "-n", "ip"]
        subprocess.run([*enter, "address", "add", "10.9.0.2/24", "dev", "v1"], check=True)
        subprocess.run([*enter, "link", "set", "v1", "up"], check=True)
        constants.ANNOUNCE_PERIOD = 100 * constants.MILLISECOND  # type: ignore[misc]
        core, multicast = node(4001)
        multicast.start()
        child.stdin.write("go\n")
        child.stdin.flush()
        heard = await asyncio.get_running_loop().run_in_executor(None, child.stdout.readline)
        await until(lambda: bool(known(core)) and core.counters["version_mismatch"] > 0)
        multicast.stop()
        child.stdin.write("end\n")
        child.stdin.flush()
        return {
            "here": known(core),
            "there": json.loads(heard),
            "malformed": core.counters["malformed"],
            "version_mismatch": core.counters["version_mismatch"],
        }


def hurry() -> None:
    """Pauses of ms instead of seconds."""
    constants.MULTICAST_RETRY = (10 * constants.MILLISECOND, 100 * constants.MILLISECOND)  # type: ignore[misc]


async def port_taken() -> Any:
    """Another program has the port for itself; then it lets go."""
    ip("link", "set", "lo", "up")
    hurry()
    selfish = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    selfish.bind(GROUP)
    sniffer = Sniffer("lo")
    core, multicast = node(4001)
    multicast.start()
    await until(lambda: core.counters["multicast_failures"] >= 3)
    blocked = {"open": multicast.is_open, "sent": len(sniffer.announces())}
    selfish.close()
    await until(lambda: multicast.is_open and bool(sniffer.announces()))
    multicast.stop()
    return {**blocked, "journal": core.journal.entries()[0].text}


async def interface_lost() -> Any:
    """The only interface goes down and comes back."""
    interface(0)
    hurry()
    constants.ANNOUNCE_PERIOD = 50 * constants.MILLISECOND  # type: ignore[misc]
    core, multicast = node(4001, interface="d0")
    multicast.start()
    never_up = core.counters["multicast_failures"]
    ip("link", "set", "d0", "up")
    sniffer = Sniffer("d0")
    await until(lambda: bool(sniffer.announces()))
    failures = core.counters["multicast_failures"]
    ip("link", "set", "d0", "down")
    await until(lambda: core.counters["multicast_failures"] > failures)
    ip("link", "set", "d0", "up")
    before = len(sniffer.announces())
    await until(lambda: multicast.is_open and len(sniffer.announces()) > before)
    multicast.stop()
    return {
        "never up": never_up,
        "source": sniffer.announces()[0]["source"],
        "journal": core.journal.entries()[-1].text.partition(";")[0],
    }


async def interfaces() -> Any:
    """Two interfaces and loopback: an announce leaves on both, and on one that comes later."""
    ip("link", "set", "lo", "up")
    for number in range(3):
        interface(number)
    for number in range(2):
        ip("link", "set", f"d{number}", "up")
    constants.ANNOUNCE_PERIOD = 50 * constants.MILLISECOND  # type: ignore[misc]
    sniffers = {name: Sniffer(name) for name in ("d0", "d1", "d2", "lo")}
    _, multicast = node(4001)
    multicast.start()
    await until(lambda: bool(sniffers["d0"].announces() and sniffers["d1"].announces()))
    early = len(sniffers["d2"].announces())
    ip("link", "set", "d2", "up")
    await until(lambda: bool(sniffers["d2"].announces()))
    multicast.stop()
    _, chosen = node(4002, interface="lo")
    chosen.start()
    chosen.stop()
    return {
        "early": early,
        "frames": {
            name: sorted(
                {
                    (frame["source"], frame["ttl"], frame["port"], size, Announce.unpack(datagram).port)
                    for frame in sniffer.announces()
                    for datagram in (bytes.fromhex(frame["datagram"]),)
                    for size in (len(datagram),)
                }
            )
            for name, sniffer in sniffers.items()
        },
    }


async def nodes() -> Any:
    """Two whole nodes: the one that hears the other connects to it."""
    ip("link", "set", "lo", "up")
    async with Node(discovery="lo") as listening, Node(discovery="lo") as hearing:
        port = await listening.listen("127.0.0.1", 0)
        await until(lambda: bool(hearing.peers()))
        (heard,) = hearing.peers()
        heard_source, key = heard.source.name, heard.pubkey
        session = await hearing.connect("127.0.0.1", heard.peer.port)
        await session.send(b"hello")
        arrived = await (await listening.accept()).recv()
        (known,) = hearing.peers()
        return {
            "port": heard.peer.port == port,
            "sources": [heard_source, known.source.name],
            "same key": known.pubkey == key,
            "arrived": arrived.decode(),
            "listener knows": len(listening.peers()),
        }


SCENARIOS: dict[str, Callable[[], Awaitable[Any]]] = {
    "loopback": loopback,
    "every_30_seconds": every_30_seconds,
    "neighbour": neighbour,
    "cable": cable,
    "port_taken": port_taken,
    "interface_lost": interface_lost,
    "interfaces": interfaces,
    "nodes": nodes,
}


async def main(name: str) -> None:
    result = await SCENARIOS[name]()
    if name != "neighbour":
        print(json.dumps(result))


if __name__ == "__main__":
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    asyncio.run(main(sys.argv[1]))

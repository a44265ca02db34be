# SPDX-License-Identifier: GPL-2.0-or-later
"""The reference implementation: as the oracle beside any device, and as a device of its own on loopback."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, TypeVar

from poolproof.devices.base import IPV6, Attachment, Finding, HealthReport
from poolproof.devices.node_thread import LoopThread
from poolref.errors import DecodeError
from poolref.events import PacketTrace
from poolref.misbehaviour import Misbehaviour
from poolref.node import Node, Settings, Transport
from poolref.tools.kernel_abi import DEFAULT_PORT, MAX_MESSAGE, SessionInfo
from poolref.tools.node_backend import NodeBackend
from poolref.wire import parse

T = TypeVar("T")

ADDRESSES = {
    "reference": ("10.253.0.1", "fd00:253::1"),
    "a": ("10.253.0.2", "fd00:253::2"),
    "b": ("10.253.0.3", "fd00:253::3"),
}
"""(IPv4, IPv6) of each node, in a VM pair and on loopback alike."""

DEVIANT = "deviant"
"""The name of a reference node that misbehaves; it is where the sound one is."""

# Three nodes share one loopback, so only one of them can have the default port.
_PORTS = {"reference": DEFAULT_PORT, "a": DEFAULT_PORT + 1, "b": DEFAULT_PORT + 2, DEVIANT: DEFAULT_PORT + 3}
_TRACE_LIMIT = 20_000


class ReferenceEndpoint:
    """One reference node on the background loop. OSErrors come through as the node raises them."""

    def __init__(
        self,
        name: str,
        kind: str,
        thread: LoopThread,
        keylog: list[str],
        transport: Transport = "tcp",
        wrong: Misbehaviour | None = None,
    ) -> None:
        self.name = name
        self.kind = kind
        self.port = _PORTS[name]
        self.trace: list[PacketTrace] = []
        self._thread = thread
        settings = Settings(misbehaviour=wrong)
        self._orders: set[asyncio.Future[object]] = set()
        self._node = Node(settings, keylog=keylog.append, observer=self._observe, transport=transport)
        self._backend = NodeBackend(self._node)
        thread.run(self._node.__aenter__())

    def _observe(self, packet: PacketTrace) -> None:
        if len(self.trace) < _TRACE_LIMIT:
            self.trace.append(packet)

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self._thread.run(coroutine)

    def address(self, family: str) -> str:
        place = "reference" if self.name == DEVIANT else self.name
        return ADDRESSES[place][family == IPV6]

    def listen(self, port: int = DEFAULT_PORT) -> int:
        return self._run(self._backend.listen(port))

    def stop(self) -> None:
        self._run(self._backend.stop())

    def connect(self, address: str, port: int = DEFAULT_PORT, version: int = 0) -> int:
        return self._run(self._backend.connect(address, port, version))

    def send(self, index: int, data: bytes, channel: int = 0) -> None:
        self._run(self._backend.send(index, data, channel))

    def recv(self, index: int, channel: int = 0, max_size: int = MAX_MESSAGE) -> bytes:
        return self._run(self._backend.recv(index, channel, max_size))

    def sessions(self) -> list[SessionInfo]:
        return self._run(self._backend.sessions())

    def close_session(self, index: int) -> None:
        self._run(self._backend.close_session(index))

    def channel(self, index: int, operation: int, channel: int = 0) -> list[int]:
        return self._run(self._backend.channel(index, operation, channel))

    def counters(self) -> dict[str, int]:
        return self._run(self._backend.counters())

    # What `Stage.order` asks for (ABI-17): begun when it returns, not over. Then what shows the effect.

    def _order(self, operation: Coroutine[Any, Any, object]) -> None:
        async def begin() -> None:
            task = asyncio.ensure_future(operation)
            self._orders.add(task)
            task.add_done_callback(self._over)
            await asyncio.sleep(0)
            if task.done():
                task.result()

        self._run(begin())

    def _over(self, task: asyncio.Future[object]) -> None:
        self._orders.discard(task)
        if not task.cancelled():
            task.exception()  # whoever cares looks at the session

    def rekey(self, index: int) -> None:
        self._order(self._backend.rekey(index))

    def configure(self, index: int, deadline_ns: int, **params: int) -> int:
        return self._run(self._backend.propose(index, deadline_ns, **params))

    def confirm(self, index: int) -> None:
        self._order(self._backend.confirm(index))

    def rollback(self, index: int) -> None:
        self._order(self._backend.rollback(index))

    def request_journal(self, index: int) -> None:
        self._order(self._backend.request_journal(index))

    def exchange(self, index: int) -> None:
        self._order(self._backend.exchange(index))

    def challenge(self, index: int) -> None:
        self._order(self._backend.challenge(index))

    def probe_mtu(self, index: int) -> None:
        self._order(self._backend.probe_mtu(index))

    def journal(self) -> list[dict[str, Any]]:
        return self._run(self._backend.journal())

    def peers(self) -> list[dict[str, Any]]:
        return self._run(self._backend.peers())

    def details(self) -> list[dict[str, str]]:
        return self._run(self._backend.details())

    def shut(self) -> None:
        """End the node and every session of it."""
        self._thread.run(self._node.stop())

    def timeline(self) -> str:
        """What the node sent and received, a packet a line: seconds, direction, packet, verdict."""
        return "\n".join(_line(each) for each in self.trace)


def _line(trace: PacketTrace) -> str:
    try:
        header = parse(trace.packet)
    except DecodeError as error:  # what misbehaves sends such things
        return f"{trace.now / 1e9:14.6f}  {trace.direction:8}  {len(trace.packet)} bytes: {error}"
    verdict = "" if trace.outcome is None else f"  -> {trace.outcome}"
    when = f"{trace.now / 1e9:14.6f}  {trace.direction:8}"
    what = f"type {header.type:2}  seq {header.seq}  ack {header.ack}  flags {header.flags:#06x}"
    return f"{when}  {what}  channel {header.channel}  {header.payload_len} bytes{verdict}"


class ReferenceHost:
    """The oracle's nodes of one scenario, made on demand and ended with it."""

    def __init__(self, keylog: list[str]) -> None:
        self._thread = LoopThread()
        self._keylog = keylog
        self._nodes: dict[str, ReferenceEndpoint] = {}
        self._complaints: list[str] = []
        self._thread.loop.set_exception_handler(self._complain)

    def _complain(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        # An exception that nobody awaited is a defect of the reference: bytes must never raise out of it.
        self._complaints.append(f"{context.get('message')}: {context.get('exception')!r}")

    def node(self, name: str, kind: str, transport: Transport = "tcp") -> ReferenceEndpoint:
        if name not in self._nodes:
            self._nodes[name] = ReferenceEndpoint(name, kind, self._thread, self._keylog, transport)
        return self._nodes[name]

    def deviant(self, wrong: Misbehaviour) -> ReferenceEndpoint:
        """A node that misbehaves, one a scenario."""
        self._nodes[DEVIANT] = ReferenceEndpoint(
            DEVIANT, "reference", self._thread, self._keylog, wrong=wrong
        )
        return self._nodes[DEVIANT]

    def finish(self) -> tuple[list[str], list[Attachment]]:
        """End the nodes; returns what went wrong inside them, and their timelines."""
        attachments = []
        for name, node in self._nodes.items():
            try:
                node.shut()
            except (OSError, TimeoutError) as exc:
                self._complaints.append(f"{name} did not stop: {exc!r}")
            if node.trace:
                attachments.append(Attachment(f"packets of the {node.kind} node {name}", node.timeline()))
        self._nodes.clear()
        complaints, self._complaints = self._complaints, []
        return complaints, attachments

    def stop(self) -> None:
        self.finish()
        self._thread.stop()


def address_loopback() -> None:
    """Give the sandbox's loopback the nodes' addresses. Only inside a network namespace of our own."""
    for four, six in ADDRESSES.values():
        subprocess.run(["ip", "address", "add", f"{four}/32", "dev", "lo"], check=True)
        subprocess.run(["ip", "-6", "address", "add", f"{six}/128", "dev", "lo", "nodad"], check=True)


class ReferenceDevice:
    """The reference as device under test: all nodes in this process, on the sandbox's loopback."""

    name = "reference"

    def __init__(self, version: str) -> None:
        self.keylog: list[str] = []
        self.groundwork_failures: dict[str, list[str]] = {}
        self.transport: Transport = "tcp"
        self._version = version
        self._host = ReferenceHost(self.keylog)

    def describe(self) -> Mapping[str, str]:
        return {"device": "reference", "release": self._version, "build_id": self._version}

    def begin(self, scenario: str) -> None:
        self.keylog.clear()
        self.transport = "tcp"

    def endpoint(self, kind: str, role: str) -> ReferenceEndpoint:
        if kind == "reference":
            return self._host.node("reference", "reference", self.transport)
        return self._host.node("a" if role == "server" else "b", "device", self.transport)

    def deviant(self, wrong: Misbehaviour) -> ReferenceEndpoint:
        return self._host.deviant(wrong)

    def finish(self) -> tuple[HealthReport, Sequence[Attachment]]:
        complaints, attachments = self._host.finish()
        health = HealthReport()
        if complaints:
            health = HealthReport("complained", complaints[0])
            health.findings = [
                Finding("exception", each.splitlines()[0], each, "reference") for each in complaints
            ]
        if self.keylog:
            attachments.append(Attachment("keylog", "\n".join(self.keylog)))
        return health, attachments

    def stop(self) -> None:
        self._host.stop()

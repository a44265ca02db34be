# SPDX-License-Identifier: GPL-2.0-or-later
"""Who plays in a scenario: endpoints in their roles, scripted peers, what each counted before.

One Stage a scenario; steps talk to it, it talks to the device. It cleans up what it made.
"""

from __future__ import annotations

import contextlib
import errno
import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from poolproof.devices.base import IPV4, Device, Endpoint
from poolproof.devices.puppet import Client, KeylogSink
from poolproof.devices.puppet_server import Server
from poolproof.devices.puppet_session import Session
from poolproof.devices.puppet_stream import EndOfStream, PuppetError
from poolproof.verdicts import Inconclusive, NotSupported
from poolref.constants import Type
from poolref.counters import DropReason
from poolref.tools.kernel_abi import SessionInfo

T = TypeVar("T")

SETTLE = 15.0
"""Seconds within which a state has to show that nothing delays but scheduling under emulation."""

_ENOUGH = 2
_IN_USE = ("ESTABLISHED", "REKEYING")


class TimedOut(AssertionError):
    """A state that the device owes did not come."""


def eventually(check: Callable[[], T | bool | None], what: str, timeout: float = SETTLE) -> T:
    """First truthy result of `check`. Raises TimedOut saying `what` did not come within `timeout` seconds."""
    deadline = time.monotonic() + timeout
    pause = threading.Event()
    while True:
        result = check()
        if result:
            return result  # type: ignore[return-value]
        if time.monotonic() > deadline:
            raise TimedOut(f"{what} did not happen within {timeout:g} s")
        pause.wait(0.02)


class Stage:
    """The cast of one scenario. `rng` is seeded from the run's seed and the scenario's name."""

    def __init__(self, device: Device, seed: int, scenario: str, keylog: KeylogSink) -> None:
        self.device = device
        self.random = random.Random(f"{seed}/{scenario}")
        self.keylog = keylog
        self.roles: dict[str, Endpoint] = {}
        self.index: dict[str, int] = {}
        self.clients: list[Client] = []
        self.sessions: list[Session] = []
        self.servers: list[Server] = []
        self.failure: OSError | None = None
        self.listening = False
        self._before: dict[str, dict[str, int]] = {}
        self._messages = 0

    # -- endpoints

    def cast(self, kind: str, role: str) -> Endpoint:
        """The endpoint that plays `role`, put on stage at its first mention."""
        if role not in self.roles:
            if kind not in ("reference", "device"):
                raise ValueError(f"unknown kind of endpoint {kind!r}")
            endpoint = self.device.endpoint(kind, role)
            self.replace(role, endpoint)
        return self.roles[role]

    def replace(self, role: str, endpoint: Endpoint) -> Endpoint:
        """Let another endpoint play a role from now on."""
        self.roles[role] = endpoint
        self.mark(role)
        return endpoint

    def mark(self, role: str) -> None:
        """What the role's endpoint counted so far is no growth."""
        self._before[self.roles[role].name] = self._counters(self.roles[role]) or {}

    def listen(self, kind: str) -> Endpoint:
        server = self.cast(kind, "server")
        server.listen(server.port)
        self.listening = True
        return server

    def connect(self, kind: str, family: str) -> int:
        """Open a session from `kind` as client to the server; both indexes are known afterwards."""
        server = self.roles["server"]
        client = self.cast(kind, "client")
        self.index["client"] = client.connect(server.address(family), server.port)
        mine = self.session("client")

        def there() -> SessionInfo | None:
            found = (each for each in server.sessions() if each.session_id == mine.session_id)
            return next(found, None)

        self.index["server"] = eventually(there, f"{server.name} listing session {mine.session_id}").index
        return self.index["client"]

    def session(self, role: str) -> SessionInfo:
        """The role's row in its session table. AssertionError when it has none."""
        endpoint, index = self.roles[role], self.index[role]
        for each in endpoint.sessions():
            if each.index == index:
                return each
        raise AssertionError(f"{endpoint.name} does not list its session {index}")

    def live_sessions(self, endpoint: Endpoint) -> list[SessionInfo]:
        return [each for each in endpoint.sessions() if each.state in _IN_USE]

    def order(self, role: str, operation: str, index: int | None = None, **params: object) -> object:
        """Have the role's session do at once what it else does by itself (ABI-17): `rekey`, `configure`, ...
        NotSupported where the endpoint has no such operation.
        """
        endpoint = self.roles[role]
        method = getattr(endpoint, operation, None)
        if method is None:
            raise NotSupported(f"{endpoint.name} cannot be told to {operation} (ABI-17)")
        try:
            return method(self.index[role] if index is None else index, **params)
        except OSError as exc:
            if exc.errno == errno.EOPNOTSUPP:
                raise NotSupported(f"{endpoint.name} does not {operation} when told: {exc}") from exc
            raise

    def message(self, size: int) -> bytes:
        """A message of `size` bytes that no other one of this scenario equals (from 9 bytes on)."""
        self._messages += 1
        return (f"{self._messages:08d}".encode() + self.random.randbytes(size))[:size]

    def transfer(self, sender: str, message: bytes, channel: int = 0) -> None:
        """Send one message from a role to the other one and check that it arrives."""
        receiver = "server" if sender == "client" else "client"
        self.roles[sender].send(self.index[sender], message, channel)
        seen = self.roles[receiver].recv(self.index[receiver])
        assert seen == message, f"sent {_show(message)}, received {_show(seen)}"

    # -- counters

    @staticmethod
    def _counters(endpoint: Endpoint) -> dict[str, int] | None:
        try:
            return endpoint.counters()
        except FileNotFoundError:
            return None

    def growth(self, role: str, name: str) -> int:
        """By how much a counter of the role grew in this scenario."""
        endpoint = self.roles[role]
        now = self._counters(endpoint)
        if now is None:
            raise Inconclusive(f"{endpoint.name} provides no counters (/proc/pool/counters: not provided)")
        if name not in now:
            raise NotSupported(f"{endpoint.name} has no counter named {name!r}")
        return now[name] - self._before[endpoint.name].get(name, 0)

    def discards(self, role: str) -> dict[str, int]:
        """Every counter of discarded packets that grew; empty where the endpoint counts nothing."""
        endpoint = self.roles[role]
        now, before = self._counters(endpoint) or {}, self._before[endpoint.name]
        grown = {str(r): now.get(str(r), 0) - before.get(str(r), 0) for r in DropReason}
        return {name: count for name, count in grown.items() if count}

    # -- scripted peers

    def client(self, family: str = IPV4) -> Client:
        """A scripted client, connected to the server over TCP; over raw IP if that is what nodes speak."""
        server = self.roles["server"]
        raw = self.device.transport == "raw"
        client = Client((server.address(family), server.port), self.random.randbytes, self.keylog, raw=raw)
        self.clients.append(client)
        return client

    def scripted_session(self, family: str = IPV4) -> Session:
        """A session between a scripted client that keeps to the rules and the server. Raises PuppetError."""
        session = self.client(family).establish()
        self.sessions.append(session)
        return session

    def control(self) -> None:
        """Positive control: an honest scripted client is served. Inconclusive when it is not."""
        with self.groundwork("an honest client gets a session"):
            session = self.client().establish()
        server = self.roles["server"]
        wanted = session.session_id.hex()
        session.stream.close()
        eventually(
            lambda: wanted not in {each.session_id for each in self.live_sessions(server)},
            f"{server.name} dropping the control session after the end of its stream",
        )

    @contextlib.contextmanager
    def groundwork(self, what: str) -> Iterator[None]:
        """What a scenario needs before its own question: failing is inconclusive, with the reason.

        What failed in two scenarios, each on a fresh device, is not tried again: its waits add up.
        """
        failures = self.device.groundwork_failures.setdefault(what, [])
        if len(failures) >= _ENOUGH:
            raise Inconclusive(f"not tried: {what}: failed {_ENOUGH} times before ({failures[0]})")
        try:
            yield
        except (PuppetError, OSError, AssertionError) as exc:
            failures.append(str(exc))
            raise Inconclusive(f"the groundwork failed: {what}: {exc}") from exc
        failures.clear()

    def scripted_server(self, misdeed: str = "") -> Server:
        reference = self.device.endpoint("reference", "server")
        server = Server(reference.address(IPV4), self.random.randbytes, misdeed, self.keylog)
        self.servers.append(server)
        return server

    def exchange(self, session: Session) -> None:
        """Positive control of a scripted session: data passes both ways."""
        server = self.roles["server"]
        index = self.index_of(session)
        sent = self.message(40)
        seq = session.send(session.data(sent))
        got = server.recv(index)
        assert got == sent, f"the scripted client sent {_show(sent)}, the device received {_show(got)}"
        session.await_ack(seq)
        reply = self.message(40)
        server.send(index, reply)
        from_device = session.receive_type(Type.DATA)
        assert from_device.plaintext == reply, f"the device sent {_show(reply)}, it arrived otherwise"

    def index_of(self, session: Session) -> int:
        """The server's index of a scripted session. AssertionError when it is not listed."""
        wanted = session.session_id.hex()
        for each in self.roles["server"].sessions():
            if each.session_id == wanted:
                return each.index
        raise AssertionError(f"{self.roles['server'].name} does not list session {wanted}")

    def barrier(self, session: Session) -> None:
        """Return once everything sent on this session was processed: TCP is in order, an ACK proves it."""
        session.await_ack(session.send(session.heartbeat()))

    def await_end(self, session: Session) -> None:
        """Return when the device ended the connection; AssertionError if it goes on."""
        deadline = time.monotonic() + SETTLE
        while time.monotonic() < deadline:
            try:
                session.stream.receive(max(deadline - time.monotonic(), 0.001))
            except EndOfStream:
                return
            except PuppetError as exc:
                raise AssertionError(f"the device did not end the session: {exc}") from exc
        raise AssertionError("the device did not end the session")

    def clear(self) -> None:
        """Drop every scripted peer's connection."""
        for client in self.clients:
            client.close()
        for server in self.servers:
            server.close()


def _show(data: bytes) -> str:
    return f"{len(data)} bytes {data[:24].hex()}{'...' if len(data) > 24 else ''}"

# SPDX-License-Identifier: GPL-2.0-or-later
"""Our end of the agent in a guest: requests by id over one ssh channel, answers in any order."""

from __future__ import annotations

import itertools
import json
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import paramiko

from poolproof.lab.toolsdisk import SshIdentity
from poolref.tools.plain import decode, encode

AGENT_PORT = 7  # pp-init starts it there
CONNECT_TIMEOUT_S = 20.0

# The cheapest for an emulated CPU; host key and user key are ed25519 of this run.
_KEX = ("curve25519-sha256@libssh.org",)
_CIPHERS = ("aes128-ctr",)
_MACS = ("hmac-sha2-256",)


class AgentError(Exception):
    """The guest refused: `errno` of the system call where there is one, its `message`, the `method`."""

    def __init__(self, errno: int | None, message: str, method: str) -> None:
        super().__init__(f"{method}: {message}")
        self.errno = errno
        self.message = message
        self.method = method


class AgentTimeout(Exception):
    """The guest lives but has not answered in time."""

    def __init__(self, guest: str, method: str, seconds: float) -> None:
        super().__init__(f"guest {guest} has not answered {method} within {seconds:g} s")
        self.guest = guest
        self.method = method


class GuestDied(Exception):
    """The guest is dead. `excerpt` is the console's last report, or how its console ends."""

    def __init__(self, guest: str, reason: str, excerpt: str = "") -> None:
        super().__init__(f"guest {guest} died: {reason}")
        self.guest = guest
        self.reason = reason
        self.excerpt = excerpt


class ConnectionLost(Exception):
    """The ssh connection to the agent ended."""


class Agent:
    """Calls into one guest. `died()` is asked when the connection breaks or a call times out: it returns the
    GuestDied to raise, or None when the guest lives."""

    def __init__(self, guest: str, address: str, identity: SshIdentity, died: Callable[[], GuestDied | None]):
        self._guest = guest
        self._address = address
        self._identity = identity
        self._died = died
        self._ids = itertools.count(1)
        self._lock = threading.Lock()
        self._pending: dict[int, tuple[str, Future[Any]]] = {}
        self._transport: paramiko.Transport | None = None
        self._channel: paramiko.Channel | None = None

    def connect(self) -> None:
        """Open the ssh connection and reach the agent; OSError or paramiko.SSHException when that fails."""
        self.close()
        sock = socket.create_connection((self._address, 22), timeout=CONNECT_TIMEOUT_S)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        transport = paramiko.Transport(sock)
        transport.daemon = True
        options = transport.get_security_options()
        options.kex, options.ciphers, options.digests = _KEX, _CIPHERS, _MACS
        options.key_types = ("ssh-ed25519",)
        try:
            transport.connect(self._identity.host, "root", pkey=self._identity.client)
            source = ("127.0.0.1", 0)
            channel = transport.open_channel(
                "direct-tcpip", ("127.0.0.1", AGENT_PORT), source, timeout=CONNECT_TIMEOUT_S
            )
        except BaseException:
            transport.close()
            raise
        self._transport, self._channel = transport, channel
        threading.Thread(
            target=self._read, args=(channel,), name=f"agent {self._guest}", daemon=True
        ).start()

    def submit(self, method: str, **params: Any) -> Future[Any]:
        """Send a request; the Future gives the result, AgentError, GuestDied or ConnectionLost."""
        future: Future[Any] = Future()
        number = next(self._ids)
        request = {"id": number, "method": method, "params": encode(params)}
        with self._lock:
            channel = self._channel
            if channel is None or channel.closed:
                future.set_exception(self._died() or ConnectionLost(f"no connection to guest {self._guest}"))
                return future
            self._pending[number] = (method, future)
            try:
                channel.sendall(json.dumps(request).encode() + b"\n")
            except OSError:
                pass  # the reader meets the same end and fails every pending call
        return future

    def call(self, method: str, *, timeout: float = 10.0, **params: Any) -> Any:
        """Call and wait. Bytes go and come as bytes, dataclasses come back as dicts."""
        future = self.submit(method, **params)
        try:
            return future.result(timeout)
        except TimeoutError:
            if (died := self._died()) is not None:
                raise died from None
            raise AgentTimeout(self._guest, method, timeout) from None

    def fail_all(self, error: Exception) -> None:
        """End every pending call with `error` (the guest died)."""
        with self._lock:
            pending, self._pending = self._pending, {}
        for _, future in pending.values():
            future.set_exception(error)

    def close(self) -> None:
        """Drop the connection."""
        transport, self._transport, self._channel = self._transport, None, None
        if transport is not None:
            transport.close()

    def _read(self, channel: paramiko.Channel) -> None:
        partial = b""
        while data := self._receive(channel):
            *lines, partial = (partial + data).split(b"\n")
            for line in lines:
                self._take(json.loads(line))
        if channel is self._channel:
            # The oops explains more than the lost connection does: give it the time to be noticed.
            self.fail_all(self._died() or ConnectionLost(f"the connection to guest {self._guest} ended"))

    @staticmethod
    def _receive(channel: paramiko.Channel) -> bytes:
        try:
            return channel.recv(65536)
        except OSError:
            return b""

    def _take(self, answer: dict[str, Any]) -> None:
        with self._lock:
            method, future = self._pending.pop(int(answer["id"]), ("", None))
        if future is None:
            return
        error = answer.get("error")
        if error is None:
            future.set_result(decode(answer.get("result")))
        else:
            message = error["message"] or error["type"]
            future.set_exception(AgentError(error["errno"], message, method))

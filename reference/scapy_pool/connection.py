# SPDX-License-Identifier: GPL-2.0-or-later
"""An established session in the user's hands."""

from __future__ import annotations

import os
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from scapy.automaton import ObjectPipe
from scapy.packet import Packet
from scapy.supersocket import SuperSocket

from poolref.connection import Framer
from poolref.constants import SECOND, Flag
from poolref.errors import PoolTimeout
from poolref.keys import Keys

from .header import Pool
from .keyring import KeyRing, keyring
from .payloads import PoolAck, PoolClose, PoolData
from .rekey import Rekey
from .transport import PoolDatagrams
from .upkeep import Upkeep, consumes_seq

_CHUNK: Final = 1 << 16
_REKEY_POLL: Final = 0.01
_NAP: Final = 1.0  # s; a packet that the user just sent may be due before what was awaited
_PARTING: Final = 2.0
"""How long a closed session reads on (s), so that nothing overtakes the CLOSE (E-74)."""


class PoolConnection:
    """An established session in the user's hands, over a connected TCP or raw IP socket.

    A thread keeps the session alive: it acknowledges, answers MTU probes, challenges and proposals of new
    keys, sends heartbeats, and on raw IP sends again what was not acknowledged.  With ``automatic`` set to
    False, at any time, nothing is sent that the user did not send.

    ``seq`` is the next one to send, ``peer_seq`` what is acknowledged: the highest authentic seq received,
    on raw IP the one up to which all have arrived.  Both may be changed, and so may ``keys``, which protect
    what is sent; what arrives is opened with any keys on ``ring``.  Use as a context manager, or
    :meth:`close`.  ``stream`` serves scapy's own functions, such as
    ``connection.stream.sr1(connection.make(...))``.
    """

    def __init__(
        self,
        sock: socket.socket,
        keys: Keys,
        session_id: bytes,
        seq: int,
        peer_seq: int,
        *,
        automatic: bool = True,
        rng: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self.sock = sock
        self.session_id = session_id
        self.ring = KeyRing()
        self.switch(keys)
        self.rekeying = Rekey(rng)
        self.seq = seq
        self.peer_seq = peer_seq
        self.automatic = automatic
        self.reliable = sock.type != socket.SOCK_STREAM
        """Raw IP: this side acknowledges cumulatively and sends again itself."""
        self.stream = _Tap(self)
        self._backlog: deque[Pool] = deque()
        self._lock = threading.RLock()
        self._upkeep = Upkeep(self, self.reliable, time.monotonic_ns())
        self._framer = Framer()
        self._datagrams = PoolDatagrams(sock, self.ring) if self.reliable else None
        self._waker, self._woken = socket.socketpair()
        self._closed = False
        if automatic and self.reliable:
            self.send(PoolAck())  # for the handshake's own
        self._thread = threading.Thread(target=self._serve, name="PoolConnection", daemon=True)
        self._thread.start()

    # -- sending ---------------------------------------------------------------------------------------

    def make(self, payload: Packet | bytes, **header: Any) -> Pool:
        """A packet of this session; bytes are the data of a DATA packet.  Any header field may be given;
        without ``seq`` it takes the next one (an ACK on raw IP: the last one).
        """
        with self._lock:
            fields = {
                "keys": self.keys,
                "session_id": self.session_id,
                "ack": self.peer_seq,
                "timestamp": time.monotonic_ns(),
                **header,
            }
            body = PoolData(payload) if isinstance(payload, bytes) else payload
            packet: Pool = Pool(**fields) / body
            if "seq" not in header:
                consuming = consumes_seq(packet, self.reliable)
                packet.seq = self.seq if consuming else self.seq - 1
                self.seq += consuming
            return packet

    def send(self, payload: Packet | bytes, **header: Any) -> Pool:
        """Send a packet made by :meth:`make`, or a whole Pool packet as it is; returns it.

        On raw IP what was not given a ``seq``, ``hmac`` or ``keys`` of its own is sent until acknowledged.
        """
        with self._lock:
            packet = payload if isinstance(payload, Pool) else self.make(payload, **header)
            data = bytes(packet)
            self.sock.sendall(data)
            if packet is not payload and self.automatic and not header.keys() & {"seq", "hmac", "keys"}:
                self._upkeep.sent(packet, data, time.monotonic_ns())
            return packet

    def send_again(self, packet: bytes) -> None:
        """Send bytes as they are."""
        self.sock.sendall(packet)

    def send_void(self, seq: int) -> None:
        """Fill the gap that a lost MTU probe left on raw IP (TRN-07)."""
        with self._lock:
            void = self.make(PoolAck(), seq=seq, flags=int(Flag.PRIORITY))
            data = bytes(void)
            self.sock.sendall(data)
            self._upkeep.sent(void, data, time.monotonic_ns())

    # -- keys ------------------------------------------------------------------------------------------

    def rekey(self, timeout: float = 5) -> None:
        """Replace the keys, and wait until the peer has accepted; PoolTimeout when it did not."""
        epoch = self.keys.epoch
        with self._lock:
            self.send(self.rekeying.propose(self.keys))
        deadline = time.monotonic() + timeout
        while self.keys.epoch == epoch:
            if time.monotonic() >= deadline or not self._thread.is_alive():
                raise PoolTimeout("new keys were not accepted in time")
            time.sleep(_REKEY_POLL)

    def switch(self, keys: Keys) -> None:
        """Protect with these keys from now on; the ones before still open what arrives."""
        self.keys = keys
        for ring in (self.ring, keyring):
            ring.add(self.session_id, keys)

    # -- receiving -------------------------------------------------------------------------------------

    def recv(self, timeout: float = 5) -> Pool | None:
        """The next packet; None when none came within ``timeout`` seconds, EOFError at the connection's
        end.
        """
        return self._backlog.popleft() if self._backlog else self._next(timeout)

    def sr1(self, payload: Packet | bytes, timeout: float = 5, **header: Any) -> Pool | None:
        """Send and wait for the answer; other packets that come meanwhile are left for :meth:`recv`."""
        asked = self.send(payload, **header)
        deadline = time.monotonic() + timeout
        while (left := deadline - time.monotonic()) > 0:
            packet = self._next(left)
            if packet is None:
                break
            if packet.answers(asked):
                return packet
            self._backlog.append(packet)
        return None

    def _next(self, timeout: float) -> Pool | None:
        if self.stream.closed:
            raise EOFError
        ready, _, _ = select.select([self.stream], [], [], timeout)
        return self.stream.recv() if ready else None

    # -- the end ---------------------------------------------------------------------------------------

    def close(self, code: int | None = None) -> None:
        """Send a CLOSE and end the connection; the node may have ended it already."""
        if self._closed:
            return
        self._closed = True
        try:
            self.send(PoolClose(code=code))
            if not self.reliable:
                self.sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        self._thread.join(_PARTING)
        self._waker.close()
        self._thread.join()
        self._woken.close()
        self.sock.close()

    def __enter__(self) -> PoolConnection:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # -- the thread ------------------------------------------------------------------------------------

    def _serve(self) -> None:
        try:
            while not self._upkeep.gave_up:
                if self._closed and self.reliable and not (self.automatic and self._upkeep.outstanding):
                    return
                left = (self._upkeep.due() - time.monotonic_ns()) / SECOND if self.automatic else _NAP
                ready, _, _ = select.select([self.sock, self._woken], [], [], min(max(left, 0.0), _NAP))
                if self._woken in ready:
                    return
                if self.sock in ready:
                    self._read()
                if self.automatic:
                    with self._lock:
                        self._upkeep.tick(time.monotonic_ns(), heartbeat=not self._closed)
        except (EOFError, OSError):
            pass
        finally:
            self.stream.put(None)

    def _read(self) -> None:
        if self._datagrams is not None:
            packet: Any = self._datagrams.recv()
            if packet is not None and packet.session_id == self.session_id:
                self._take(packet)
            return
        data = self.sock.recv(_CHUNK)
        if not data:
            raise EOFError
        self._framer.feed(data)
        while (whole := self._framer.next_packet()) is not None:
            self._take(Pool(whole, keys=self.ring))

    def _take(self, packet: Pool) -> None:
        packet.time = time.time()
        with self._lock:
            answering = self.automatic and (self.reliable or not self._closed)
            fresh = self._upkeep.received(packet, answering=answering)
        if fresh:
            self.stream.put(packet)


class _Tap(SuperSocket):
    """The packets that a connection received, as a socket of scapy's."""

    desc = "an established POOL session"

    def __init__(self, connection: PoolConnection) -> None:
        self._connection = connection
        self._pipe: ObjectPipe[Pool | None] = ObjectPipe()
        self.ins: Any = self._pipe
        self.outs: Any = self._pipe

    def put(self, packet: Pool | None) -> None:
        """Append a packet, or None for the end."""
        if not self._pipe.closed:
            self._pipe.send(packet)

    def fileno(self) -> int:
        return int(self._pipe.fileno())

    def recv(self, x: int = 0, **kwargs: Any) -> Pool:
        packet = self._pipe.recv()
        if packet is None:
            self._pipe.send(None)  # the end stays the end
            raise EOFError
        return packet

    def send(self, x: Packet) -> int:
        return len(bytes(self._connection.send(x)))

    def close(self) -> None:
        self.closed = True
        self._pipe.close()

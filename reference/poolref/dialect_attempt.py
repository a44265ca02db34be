# SPDX-License-Identifier: GPL-2.0-or-later
"""One handshake of the search for a peer's dialect, lenient where a sound client is strict (DIA-01).

It opens in one dialect, answers the CHALLENGE in the one that the CHALLENGE speaks for, and once there is a
session looks at what tells dialects apart.  Nothing that it sends reaches the peer's user.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Literal

from . import constants as c
from . import crypto, wire
from .connection import Framer
from .constants import Flag, Role, Type
from .crypto import Rng
from .dialect import ByteOrder, Dialect
from .errors import DecodeError, LowOrderKey
from .keys import Keys
from .mtu import probe as probe_of
from .puzzle import START_SIZE, Search
from .wire import Challenge, Header, Init, Response, Telemetry

LOOK: Final = 7 * c.SECOND
"""How long a session is looked at: a heartbeat comes every 5 s by default."""
PATIENCE: Final = 10 * c.SECOND
"""How long CHALLENGE and ACK are waited for."""
ACK_WAIT: Final = 1 * c.SECOND
"""How long an ACK of DATA is waited for."""
_PROBE_SIZE: Final = 600
_QUIET_CHANNEL: Final = 255
_MTU_PLAUSIBLE: Final = range(c.MTU_RANGE[0], 1501)
_U62: Final = 1 << 62

Note = Callable[[str, object, str], None]
"""Takes a field of Dialect, the value seen for it (None: it fits none), and what was seen; no field for what
speaks neither for nor against anything.
"""
End = Literal["", "no_challenge", "refused", "session", "version", "full", "useless"]
"""How it ended: no CHALLENGE came; the RESPONSE was not accepted; there was a session; the peer said that it
has another version, or no room; the CHALLENGE was of no use.
"""


class Attempt:
    """Feed it the stream; it sends what :meth:`data_to_send` gives and is over once :attr:`end` is set."""

    def __init__(
        self,
        opening: Dialect,
        candidates: Sequence[Dialect],
        note: Note,
        rng: Rng,
        wall: int,
        now: int,
    ) -> None:
        """``candidates``: what the RESPONSE may be in.  RandomnessError when ``rng`` fails."""
        self.end: End = ""
        self.why = ""
        self.spoken: Dialect | None = None
        """What the RESPONSE was in."""
        self.search: Search | None = None
        """The puzzle: step it, then hand the solution to :meth:`solved`."""
        self._candidates, self._note, self._rng = candidates, note, rng
        self._private = crypto.draw(rng, c.KEY_SIZE)
        self._public = crypto.public_key(self._private)
        self._framer = Framer()
        self._out = b""
        self._session_id = b""
        self._shared = b""
        self._keys: Keys | None = None
        self._seq = 0
        self._first_seq = 0
        self._peer_seq = 0
        self._established = False
        self._data_seq: int | None = None
        self._heartbeat_seen = False
        self._ack_until = 0
        self._due = now + PATIENCE
        payload = Init(self._public, bytes(c.ADDRESS_SIZE)).pack()
        stamp = wall if opening.init_timestamp == "wall" else now
        self._out += wire.build(Type.INIT, payload, seq=opening.plain_seq, timestamp=stamp)

    def data_to_send(self) -> bytes:
        out, self._out = self._out, b""
        return out

    def next_timer(self) -> int:
        """When :meth:`handle_timer` is due (ns)."""
        return min(self._due, self._ack_until) if self._data_seq is not None else self._due

    def handle_timer(self, now: int) -> None:
        if self._data_seq is not None and now >= self._ack_until:
            self._data_seq = None
            self._note("acked", "some", "no ACK within 1 s of a DATA that asked for one")
            self._enough(now)
        if now < self._due or self.end:
            return
        if self._established:
            self._look_away(now)
        elif self.spoken is None:
            self._finish("no_challenge", "no CHALLENGE within 10 s")
        else:
            self._finish("refused", f"no ACK within 10 s of a RESPONSE in {self.spoken.name}")

    def end_of_stream(self, now: int) -> None:
        """The peer closed the connection."""
        if self.end:
            return
        if self._established:
            self._finish("session", "the peer ended the session")
        elif self.spoken is None:
            self._finish("no_challenge", "the peer closed the connection instead of sending a CHALLENGE")
        else:
            self._finish("refused", f"the peer closed the connection after a RESPONSE in {self.spoken.name}")

    def receive_data(self, data: bytes, now: int) -> None:
        self._framer.feed(data)
        while not self.end and (packet := self._framer.next_packet()) is not None:
            try:
                header = wire.parse(packet)
            except DecodeError:
                continue
            self._take(header, packet, now)

    def solved(self, solution: bytes, now: int) -> None:
        """Send RESPONSE."""
        dialect, self.search = self.spoken, None
        if dialect is None or self.end:
            return
        keys = self._keys = Keys(self._shared, dialect=dialect)
        self._seq = self._first_seq = dialect.initial_seq(Role.CLIENT, crypto.draw(self._rng, 8))
        proof = crypto.mac(self._shared, self._session_id)
        if dialect.response == "keyed":
            payload = Response(self._public, solution, keys.seal(self._seq, proof)).pack()
        else:
            payload = keys.seal(self._seq, solution + proof)
        header = Header(Type.RESPONSE, Flag.ENCRYPTED | Flag.REQUIRE_ACK, self._seq, 0, self._session_id, now)
        self._out += keys.sign(header, payload)
        self._seq += 1
        self._due = now + PATIENCE

    # -- what comes ------------------------------------------------------------------------------------

    def _take(self, header: Header, packet: bytes, now: int) -> None:
        if header.type == Type.CLOSE and header.hmac == wire.ZERO_HMAC and not self._established:
            self._closed(packet[c.HEADER_SIZE :])
        elif header.version != c.VERSION:
            self._finish("version", f"the peer speaks version {header.version}")
        elif header.type == Type.CHALLENGE and self.spoken is None:
            self._challenged(header, packet[c.HEADER_SIZE :], now)
        elif self._keys is None or header.session_id != self._session_id:
            return
        elif not self._keys.authentic(packet):
            self._finish("refused", f"the answer to a RESPONSE in {self._keys_in()} is not authentic")
        elif self._established:
            self._look(header, packet[c.HEADER_SIZE :], now)
        elif header.type == Type.ACK:
            self._accepted(header, now)

    def _closed(self, payload: bytes) -> None:
        code = payload[0] if len(payload) == 1 else None
        if code == c.ErrorCode.VERSION_MISMATCH:
            self._finish("version", "the peer refuses version 1")
        elif code == c.ErrorCode.OVERLOAD:
            self._finish("full", "the peer has no room for a session")
        elif self.spoken is None:
            self._finish("no_challenge", f"the peer refused the INIT with {payload.hex() or 'nothing'}")
        else:
            self._finish("refused", f"the peer refused a RESPONSE in {self.spoken.name}")

    def _challenged(self, header: Header, payload: bytes, now: int) -> None:
        try:
            challenge = Challenge.unpack(payload)
        except DecodeError as error:
            self._finish("useless", f"the CHALLENGE does not decode: {error}")
            return
        self._note("plain_seq", header.seq, f"CHALLENGE has seq {header.seq}")
        self._note("min_difficulty", challenge.difficulty, f"the puzzle has {challenge.difficulty} bits")
        if challenge.server_addr != bytes(c.ADDRESS_SIZE):
            self._note("addressed", True, "the server has an address")
        if challenge.difficulty > c.MAX_ACCEPTED_DIFFICULTY:
            self._finish("useless", f"a puzzle of {challenge.difficulty} bits")
            return
        try:
            self._shared = crypto.exchange(self._private, challenge.server_pubkey)
        except LowOrderKey:
            self._finish("useless", "the server's key is of low order")
            return
        self._session_id = header.session_id
        fitting = [each for each in self._candidates if each.plain_seq == header.seq]
        self.spoken = spoken = (fitting or list(self._candidates))[0]
        self._due = now + c.SEARCH_LIMIT
        start = crypto.draw(self._rng, START_SIZE)
        self.search = Search(
            challenge.puzzle_seed,
            challenge.difficulty,
            start,
            counter_first=spoken.solution == "counter_first",
        )

    def _accepted(self, header: Header, now: int) -> None:
        spoken = self.spoken
        if spoken is None:
            return
        self._established = True
        self._note("response", spoken.response, f"a RESPONSE in {spoken.name} was accepted")
        exact = header.ack == self._first_seq
        self._note("handshake_ack", "c0" if exact else "any", f"the handshake ACK acknowledges {header.ack}")
        inside = _U62 <= header.seq < _U62 + (_U62 >> 1)
        if not inside:
            self._note("seq_ranges", "own", f"the server starts with seq {header.seq:#x}")
        self._peer_seq = header.seq
        self._due = now + LOOK
        self._ack_until = now + ACK_WAIT
        # On a channel that nobody listens to: it is acknowledged and goes nowhere.
        self._data_seq = self._send(Type.DATA, b"?", Flag.REQUIRE_ACK, now, channel=_QUIET_CHANNEL)
        self._send(Type.DISCOVER, probe_of(_PROBE_SIZE), Flag.REQUIRE_ACK, now)

    # -- the session -----------------------------------------------------------------------------------

    def _look(self, header: Header, payload: bytes, now: int) -> None:
        self._peer_seq = max(self._peer_seq, header.seq)
        if header.type == Type.ACK and self._data_seq is not None and header.ack >= self._data_seq:
            self._data_seq = None
            self._note("acked", "all", "a DATA that asked for an ACK got one")
        plaintext = self._open(header.seq, payload) if payload else b""
        if plaintext is None:
            return
        if header.type == Type.HEARTBEAT:
            self._report(plaintext)
            self._send(Type.ACK, b"", Flag(0), now)
        elif header.type == Type.DISCOVER and not header.flags & (Flag.REQUIRE_ACK | Flag.TELEMETRY):
            whole = plaintext == probe_of(_PROBE_SIZE)
            if whole or plaintext == _PROBE_SIZE.to_bytes(2, "big"):
                how = "whole" if whole else "size"
                self._note("probe_echo", how, f"a probe was answered by {len(plaintext)} bytes")
        elif header.type == Type.CLOSE:
            self._finish("session", "the peer closed the session")
        self._enough(now)

    def _open(self, seq: int, payload: bytes) -> bytes | None:
        orders: tuple[ByteOrder, ByteOrder] = ("big", "little")
        for order in orders:
            keys = Keys(self._shared, dialect=Dialect(nonce_seq_order=order))
            plaintext = keys.open(seq, payload)
            if plaintext is not None:
                self._note("nonce_seq_order", order, f"payloads open with a {order}-endian seq in the nonce")
                return plaintext
        self._note("nonce_seq_order", None, "a payload opens in no order of the nonce")
        return None

    def _report(self, plaintext: bytes) -> None:
        self._heartbeat_seen = True
        behind = len(plaintext) - c.TELEMETRY_SIZE
        if behind < 0:
            self._note("telemetry_digest", None, f"a HEARTBEAT of {len(plaintext)} bytes")
            return
        self._note("telemetry_digest", behind, f"a HEARTBEAT of {len(plaintext)} bytes")
        report = plaintext[: c.TELEMETRY_SIZE]
        big, little = Telemetry.unpack(report, "big"), Telemetry.unpack(report, "little")
        fits = {"big": big.mtu in _MTU_PLAUSIBLE, "little": little.mtu in _MTU_PLAUSIBLE}
        if fits["big"] == fits["little"]:
            fits = {"big": big.uptime_ns < little.uptime_ns, "little": little.uptime_ns < big.uptime_ns}
        if fits["big"] == fits["little"]:
            return
        order = "big" if fits["big"] else "little"
        mtu = (big if order == "big" else little).mtu
        self._note("telemetry_order", order, f"the report says mtu {mtu} when read {order}-endian")

    def _send(self, type: Type, plaintext: bytes, flags: Flag, now: int, channel: int = 0) -> int:
        keys, seq = self._keys, self._seq
        if keys is None:
            raise RuntimeError("there are no keys yet")
        self._seq += 1
        header = Header(type, int(flags), seq, self._peer_seq, self._session_id, now, channel=channel)
        self._out += keys.protect(header, plaintext)
        return seq

    def _enough(self, now: int) -> None:
        if self._heartbeat_seen and self._data_seq is None and not self.end:
            self._look_away(now)

    def _look_away(self, now: int) -> None:
        if not self._heartbeat_seen:
            self._note("", None, "no HEARTBEAT came within 7 s")
        self._send(Type.CLOSE, b"", Flag(0), now)
        self._finish("session", "the session carries packets")

    def _keys_in(self) -> str:
        return "no dialect" if self.spoken is None else self.spoken.name

    def _finish(self, end: End, why: str) -> None:
        self.end, self.why, self.search = end, why, None
        if self._keys is not None:
            self._keys.erase()

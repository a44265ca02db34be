# SPDX-License-Identifier: GPL-2.0-or-later
"""What a switch is: one requirement violated in one way, with what a sound peer does about it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, Literal

from .. import crypto
from ..constants import HEADER_SIZE, MILLISECOND, Flag, Role
from ..counters import DropReason
from ..events import EndCause
from ..keys import Keys
from ..wire import HMAC_OFFSET, Header
from .kinds import Kind

Value = int | str
Transport = Literal["tcp", "raw"]
BOTH: Final = (Role.CLIENT, Role.SERVER)
CLIENT: Final = (Role.CLIENT,)
SERVER: Final = (Role.SERVER,)
_ENCRYPTED: Final = int(Flag.ENCRYPTED)


class Phase(StrEnum):
    """What the misbehaving peer has to be doing for a switch to show."""

    HANDSHAKE = "handshake"  # connecting, or being connected to
    DATA = "data"  # sending messages that fit one packet
    FRAGMENTS = "fragments"  # sending a message of several packets
    HEARTBEAT = "heartbeat"  # nothing: heartbeats go out by themselves
    CLOSE = "close"  # ending the session
    MTU = "mtu"  # searching for the path's MTU
    REKEY = "rekey"  # proposing new keys, and sending messages before and afterwards
    REKEYED = "rekeyed"  # being proposed new keys, and sending a message afterwards
    CONFIG = "config"  # proposing a configuration, and confirming it once it is accepted
    ROLLBACK = "rollback"  # undoing what it proposed
    CONFIGURED = "configured"  # being proposed a configuration
    JOURNAL = "journal"  # being asked for its journal, which then grows
    EXCHANGE = "exchange"  # exchanging peers
    ANNOUNCE = "announce"  # announcing itself by multicast
    INTEGRITY = "integrity"  # challenging the peer and reporting to it, twice
    CHALLENGED = "challenged"  # being challenged


@dataclass(frozen=True, slots=True)
class Parameter:
    """An integer within ``low``..``high``, or one of ``choices``."""

    name: str
    default: Value
    meaning: str
    low: int = 0
    high: int = (1 << 64) - 1
    choices: tuple[str, ...] = ()

    def read(self, text: str) -> Value:
        """The value of a text; ValueError that says what would be right."""
        if self.choices:
            if text not in self.choices:
                raise ValueError(f"{self.name} is one of {', '.join(self.choices)}, not {text!r}")
            return text
        try:
            value = int(text, 0)
        except ValueError:
            raise ValueError(f"{self.name} is a number, not {text!r}") from None
        if not self.low <= value <= self.high:
            raise ValueError(f"{self.name} is within {self.low}..{self.high}, not {value}")
        return value


def of_kind(default: Kind, *others: Kind) -> Parameter:
    """The kind of packet that a switch is about, any kind unless ``others`` are the only other ones."""
    choices = tuple(str(kind) for kind in ((default, *others) if others else Kind))
    return Parameter("kind", str(default), "which packets", choices=choices)


NTH: Final = Parameter("nth", 1, "the first of these packets that it happens to", 1)
EVERY: Final = Parameter("every", 0, "1: it happens to all that follow, too", 0, 1)
ALL: Final = Parameter("every", 1, "0: it happens once only", 0, 1)


@dataclass(frozen=True, slots=True)
class Reaction:
    """What a sound peer does about one deed with the default values; nothing set: it carries on as
    if nothing had been wrong.

    ``counts``: by how much which counters of discards grow, and no others do.  ``ends`` and ``code``: how its
    session ends.  ``error``: the errno of its own attempt to connect.  ``refusal``: the code of the advisory
    CLOSE that it sends.  ``gives_up``: it drops a client that has no session yet.  ``after_s``: how many
    seconds later all of that has happened.  ``delivers``: whether the message in the packets concerned still
    reaches its user.  ``untrusted``: it alerts (INT-01, JRN-03).
    """

    counts: Mapping[DropReason, int] = field(default_factory=dict)
    ends: EndCause | None = None
    code: int | None = None
    error: int | None = None
    refusal: int | None = None
    gives_up: bool = False
    after_s: float = 0
    delivers: bool = False
    untrusted: bool = False


@dataclass(slots=True)
class Draft:
    """A packet that is about to leave, open to change.

    Left alone, payload_len, hmac and the flag ENCRYPTED follow from the rest, and ``plaintext`` is sealed
    with the header's seq behind ``clear``, which is all of the payload where there are no ``keys``.
    """

    header: Header
    clear: bytes
    plaintext: bytes
    keys: Keys | None
    kinds: frozenset[Kind]
    seal: bool = True
    encrypted: bool | None = None
    nonce_seq: int | None = None
    payload_len: int | None = None

    def build(self) -> bytes:
        """The packet, signed."""
        header, plaintext = self.header, self.plaintext
        if self.keys is not None and self.seal and plaintext:
            plaintext = self.keys.seal(header.seq if self.nonce_seq is None else self.nonce_seq, plaintext)
        payload = self.clear + plaintext
        encrypted = self.keys is not None and bool(self.plaintext)
        if self.encrypted is not None:
            encrypted = self.encrypted
        header.flags = header.flags | _ENCRYPTED if encrypted else header.flags & ~_ENCRYPTED
        header.payload_len = len(payload) if self.payload_len is None else self.payload_len
        return header.pack() + payload if self.keys is None else sign(self.keys, header.pack() + payload)


def sign(keys: Keys, packet: bytes) -> bytes:
    """The packet with the hmac that its bytes call for, whatever they say."""
    unsigned = packet[:HMAC_OFFSET] + bytes(HEADER_SIZE - HMAC_OFFSET) + packet[HEADER_SIZE:]
    return packet[:HMAC_OFFSET] + crypto.mac(keys.hmac_key, unsigned) + packet[HEADER_SIZE:]


@dataclass(slots=True)
class Deed:
    """One switch at work on one connection; ``notes`` is the memory of this connection, ``heard`` the last
    packet of the peer's, ``lasting`` the memory of the whole node.
    """

    switch: Switch
    values: Mapping[str, Value]
    role: Role
    lasting: dict[str, Any]
    notes: dict[str, Any] = field(default_factory=dict)
    heard: bytes = b""
    seen: int = 0

    def number(self, name: str) -> int:
        """The value of a parameter that is a number."""
        value = self.values[name]
        if not isinstance(value, int):
            raise TypeError(f"{name} is not a number")
        return value

    def chosen(self, kinds: frozenset[Kind], draft: Draft | None = None) -> bool:
        """Whether this packet is one of those that it happens to; counts it.  A datagram has no ``draft``."""
        wanted = (self.values["kind"],) if "kind" in self.values else self.switch.kinds
        if kinds.isdisjoint(wanted):
            return False
        if self.switch.ready is not None and (draft is None or not self.switch.ready(self, draft)):
            return False
        self.seen += 1
        nth = self.values.get("nth", 1)
        return self.seen == nth or (bool(self.values.get("every")) and self.seen > int(nth))


Change = Callable[[Deed, Draft], None]
Emit = Callable[[Deed, Draft, bytes], list[bytes]]
Agree = Callable[[Deed, bytes, bytes, bytes], bytes]
Announce = Callable[[Deed, bytes], list[bytes]]


@dataclass(frozen=True, slots=True)
class Switch:
    """``change`` alters the draft of a packet, ``emit`` turns the finished packet into what is sent, after
    which it is sent ``again`` that often as a new packet; ``announce`` does so with datagrams.  They see only
    the packets of ``kinds`` (unless a parameter names another) that ``nth`` and ``every`` choose, once
    ``ready``.  ``ignores`` is a kind of received packets none of which is acted on.  ``agree`` (own private
    key, the peer's public key, their X25519 result) gives the shared secret to go on with.  ``delay_ms`` and
    ``pace_ms`` name parameters: how late the packets leave, how far apart the bytes of the stream are.  It
    shows on the connection number ``attempts`` of the node.  ``reaction`` is that over TCP, ``raw`` the one
    over raw IP; None: the switch is not for that transport.
    """

    name: str
    violates: tuple[str, ...]
    sentence: str
    phase: Phase
    reaction: Reaction | Mapping[Role, Reaction] | None
    roles: tuple[Role, ...] = BOTH
    parameters: tuple[Parameter, ...] = ()
    kinds: tuple[Kind, ...] = (Kind.DATA,)
    change: Change | None = None
    emit: Emit | None = None
    ready: Callable[[Deed, Draft], bool] | None = None
    ignores: Kind | None = None
    agree: Agree | None = None
    announce: Announce | None = None
    again: int = 0
    delay_ms: str = ""
    pace_ms: str = ""
    attempts: int = 1
    raw: Reaction | Mapping[Role, Reaction] | None = None

    def expected(self, role: Role, transport: Transport = "tcp") -> Reaction:
        """How a sound peer reacts to one in that role; KeyError where the switch is not for that."""
        reaction = self.reaction if transport == "tcp" else self.raw
        if reaction is None:
            raise KeyError(f"{self.name} over {transport}")
        return reaction if isinstance(reaction, Reaction) else reaction[role]

    def values(self, given: Mapping[str, str]) -> dict[str, Value]:
        """Every parameter's value; ValueError for a name or value that is not one."""
        known = {parameter.name: parameter for parameter in self.parameters}
        for name in given:
            if name not in known:
                raise ValueError(f"{self.name} has no parameter {name!r}, only {', '.join(known) or 'none'}")
        return {
            name: each.read(given[name]) if name in given else each.default for name, each in known.items()
        }

    def delay(self, deed: Deed) -> int:
        """How late packets leave (ns)."""
        return deed.number(self.delay_ms) * MILLISECOND if self.delay_ms else 0

    def pace(self, deed: Deed) -> int:
        """How far apart bytes of the stream are (ns)."""
        return deed.number(self.pace_ms) * MILLISECOND if self.pace_ms else 0

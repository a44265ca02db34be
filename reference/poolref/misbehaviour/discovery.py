# SPDX-License-Identifier: GPL-2.0-or-later
"""Switches about MTU discovery, the peer exchange and announces (sections 11 and 18)."""

from __future__ import annotations

from typing import Final

from ..constants import Type
from ..counters import DropReason
from ..wire import offset_of
from .kinds import Kind
from .model import ALL, EVERY, NTH, Deed, Draft, Parameter, Phase, Reaction, Switch

_MALFORMED: Final = Reaction({DropReason.MALFORMED: 1})
_UNSOLICITED: Final = Reaction({DropReason.UNSOLICITED: 1})
_U16: Final = 0xFFFF


# -- MTU


def _lying_size(deed: Deed, draft: Draft) -> None:
    size = (int.from_bytes(draft.plaintext[:2], "big") + deed.number("by")) & _U16
    draft.plaintext = size.to_bytes(2, "big") + draft.plaintext[2:]


def _dirty_padding(deed: Deed, draft: Draft) -> None:
    draft.plaintext = draft.plaintext[:-1] + b"\1"


def _probe_of(deed: Deed, draft: Draft) -> None:
    """A probe that is as long as it says, as far as a packet can be that short."""
    size = deed.number("size")
    draft.plaintext = size.to_bytes(2, "big").ljust(max(2, size - 96), b"\0")


def _short_probe(deed: Deed, draft: Draft) -> None:
    draft.plaintext = draft.plaintext[:1]


def _long_answer(deed: Deed, draft: Draft) -> None:
    draft.plaintext += bytes(deed.number("by"))


def _unasked_answer(deed: Deed, draft: Draft) -> None:
    draft.header.type, draft.header.flags = int(Type.DISCOVER), 0
    draft.plaintext = deed.number("size").to_bytes(2, "big")


def _nothing(deed: Deed, draft: Draft, packet: bytes) -> list[bytes]:
    return []


MTU: Final = (
    Switch(
        "probe-size-lies", ("MTU-01",), "A probe says another size than it has.",
        Phase.MTU, _MALFORMED, kinds=(Kind.PROBE,), change=_lying_size,
        parameters=(NTH, EVERY, Parameter("by", 1, "how much larger, modulo 2^16", 1, _U16)),
    ),
    Switch(
        "probe-padding", ("MTU-01",), "The padding of a probe is not zero.",
        Phase.MTU, _MALFORMED, kinds=(Kind.PROBE,), parameters=(NTH, EVERY), change=_dirty_padding,
    ),
    Switch(
        "probe-out-of-range", ("MTU-02",), "A probe has a size that is never searched.",
        Phase.MTU, _MALFORMED, kinds=(Kind.PROBE,), change=_probe_of,
        parameters=(NTH, EVERY, Parameter("size", 1401, "its size", 0, 65_535)),
    ),
    Switch(
        "probe-short", ("MTU-01",), "A probe has no room for its size.",
        Phase.MTU, _MALFORMED, kinds=(Kind.PROBE,), parameters=(NTH, EVERY), change=_short_probe,
    ),
    Switch(
        "silent-probe-answer", ("MTU-02",), "Probes are not answered.",
        Phase.MTU, Reaction(after_s=30), kinds=(Kind.PROBE_ANSWER,), parameters=(ALL,), emit=_nothing,
    ),
    Switch(
        "answer-size-lies", ("MTU-03",), "A probe is answered with another size.",
        Phase.MTU, _UNSOLICITED, kinds=(Kind.PROBE_ANSWER,), change=_lying_size,
        parameters=(NTH, EVERY, Parameter("by", 1, "how much larger, modulo 2^16", 1, _U16)),
    ),
    Switch(
        "answer-long", ("MTU-01",), "The answer to a probe is longer than two bytes.",
        Phase.MTU, _MALFORMED, kinds=(Kind.PROBE_ANSWER,), change=_long_answer,
        parameters=(NTH, EVERY, Parameter("by", 1, "how many bytes", 1, 1024)),
    ),
    Switch(
        "answer-unasked", ("MTU-03",), "A size is confirmed that nobody asked for.",
        Phase.DATA, _UNSOLICITED, change=_unasked_answer,
        parameters=(NTH, EVERY, Parameter("size", 1393, "the size", 0, 65_535)),
    ),
)  # fmt: skip


# -- the exchange


def _miscounted(deed: Deed, draft: Draft) -> None:
    count = (int.from_bytes(draft.plaintext[:2], "big") + deed.number("by")) & _U16
    draft.plaintext = count.to_bytes(2, "big") + draft.plaintext[2:]


def _cut(deed: Deed, draft: Draft) -> None:
    draft.plaintext = draft.plaintext[: len(draft.plaintext) - deed.number("by")]


def _entry(number: int, port: int = 9253) -> bytes:
    return (0xC6336400 + number % 250).to_bytes(4, "big") + port.to_bytes(2, "big") + bytes(32)


def _too_many(deed: Deed, draft: Draft) -> None:
    count = deed.number("entries")
    draft.plaintext = count.to_bytes(2, "big") + b"".join(map(_entry, range(count)))


def _nowhere(deed: Deed, draft: Draft) -> None:
    draft.plaintext = (1).to_bytes(2, "big") + _entry(1, port=0)


EXCHANGE: Final = (
    Switch(
        "exchange-count", ("DISC-03",), "An exchange counts more peers than it names.",
        Phase.EXCHANGE, _MALFORMED, kinds=(Kind.EXCHANGE,), change=_miscounted,
        parameters=(NTH, EVERY, Parameter("by", 1, "how many more, modulo 2^16", 1, _U16)),
    ),
    Switch(
        "exchange-cut", ("DISC-03",), "An exchange ends inside a peer.",
        Phase.EXCHANGE, _MALFORMED, kinds=(Kind.EXCHANGE,), change=_cut,
        parameters=(NTH, EVERY, Parameter("by", 1, "how many bytes are missing", 1, 38)),
    ),
    Switch(
        "exchange-too-many", ("DISC-03",), "An exchange names more peers than a packet may hold.",
        Phase.EXCHANGE, _MALFORMED, kinds=(Kind.EXCHANGE,), change=_too_many,
        parameters=(NTH, EVERY, Parameter("entries", 35, "how many", 35, 1700)),
    ),
    Switch(
        "exchange-nowhere", ("DISC-03",), "An exchange names a peer with port 0.",
        Phase.EXCHANGE, _MALFORMED, kinds=(Kind.EXCHANGE,), parameters=(NTH, EVERY), change=_nowhere,
    ),
    Switch(
        "exchange-twice", ("DISC-03",), "Exchanges follow each other at once.",
        Phase.EXCHANGE, Reaction({DropReason.ANNOUNCE_LIMITED: 1}), kinds=(Kind.EXCHANGE,),
        parameters=(NTH, EVERY), change=lambda deed, draft: None, again=1,
    ),
)  # fmt: skip


# -- announces


def _resized(deed: Deed, datagram: bytes) -> list[bytes]:
    size = deed.number("size")
    return [datagram.ljust(size, b"\0")[:size]]


def _set(name: str, size: int) -> slice:
    offset = offset_of("announce", name)
    return slice(offset, offset + size)


def _patched(datagram: bytes, where: slice, value: int) -> bytes:
    return datagram[: where.start] + value.to_bytes(where.stop - where.start, "big") + datagram[where.stop :]


def _other_version(deed: Deed, datagram: bytes) -> list[bytes]:
    return [_patched(datagram, _set("version", 1), deed.number("version"))]


def _bad_address(deed: Deed, datagram: bytes) -> list[bytes]:
    where = _set("address", 32)
    return [datagram[: where.stop - 1] + bytes([datagram[where.stop - 1] ^ 1]) + datagram[where.stop :]]


def _no_port(deed: Deed, datagram: bytes) -> list[bytes]:
    return [_patched(datagram, _set("listen_port", 2), 0)]


def _flooding(deed: Deed, datagram: bytes) -> list[bytes]:
    where = _set("listen_port", 2)
    return [_patched(datagram, where, 1 + number) for number in range(deed.number("announces"))]


def _lying(deed: Deed, datagram: bytes) -> list[bytes]:
    full = (1 << 32) - 1
    return [_patched(_patched(datagram, _set("sessions", 4), full), _set("uptime_s", 4), full)]


ANNOUNCE: Final = (
    Switch(
        "announce-size", ("DISC-01",), "An announce has a wrong size.",
        Phase.ANNOUNCE, _MALFORMED, kinds=(Kind.ANNOUNCE,), announce=_resized,
        parameters=(NTH, EVERY, Parameter("size", 75, "bytes instead of 76", 0, 1400)),
    ),
    Switch(
        "announce-version", ("DISC-01",), "An announce has another version.",
        Phase.ANNOUNCE, Reaction({DropReason.VERSION_MISMATCH: 1}), kinds=(Kind.ANNOUNCE,),
        announce=_other_version,
        parameters=(NTH, EVERY, Parameter("version", 2, "the version", 0, 255)),
    ),
    Switch(
        "announce-address", ("DISC-01", "ADDR-02"), "An announce's address has a wrong checksum.",
        Phase.ANNOUNCE, _MALFORMED, kinds=(Kind.ANNOUNCE,), parameters=(NTH, EVERY), announce=_bad_address,
    ),
    Switch(
        "announce-port", ("DISC-01", "DISC-02"), "An announce names port 0.",
        Phase.ANNOUNCE, _MALFORMED, kinds=(Kind.ANNOUNCE,), parameters=(NTH, EVERY), announce=_no_port,
    ),
    Switch(
        "announce-flood", ("DISC-02",), "Announces of many nodes come at once from one source.",
        Phase.ANNOUNCE, Reaction({DropReason.ANNOUNCE_LIMITED: 299}), kinds=(Kind.ANNOUNCE,),
        announce=_flooding,
        parameters=(NTH, EVERY, Parameter("announces", 300, "how many", 2, 65_535)),
    ),
    Switch(
        "announce-lies", ("DISC-01",), "An announce claims more sessions and uptime than there can be.",
        Phase.ANNOUNCE, Reaction(), kinds=(Kind.ANNOUNCE,), parameters=(NTH, EVERY), announce=_lying,
    ),
)  # fmt: skip

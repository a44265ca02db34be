# SPDX-License-Identifier: GPL-2.0-or-later
"""Switches about replacing keys (section 13)."""

from __future__ import annotations

import hashlib
from typing import Final

from ..constants import HEADER_SIZE, REKEY_TIMEOUT, SECOND, ErrorCode, Type
from ..counters import DropReason as Drop
from ..keys import Keys
from ..wire import parse
from .kinds import Kind
from .low_order import LOW_ORDER_POINTS
from .model import ALL, EVERY, NTH, Deed, Draft, Parameter, Phase, Reaction, Switch, of_kind

_MALFORMED: Final = Reaction({Drop.MALFORMED: 1})
_FAILED: Final = Reaction(ends="rekey", code=ErrorCode.REKEY_FAIL)
_FAILED_LATE: Final = Reaction(ends="rekey", code=ErrorCode.REKEY_FAIL, after_s=REKEY_TIMEOUT / SECOND)
_LOW_ORDER: Final = Reaction({Drop.LOW_ORDER_KEY: 1}, ends="rekey", code=ErrorCode.REKEY_FAIL)
# The accept was discarded, so what its sender seals from now on does not open.
_ASTRAY: Final = Reaction({Drop.MALFORMED: 1, Drop.AUTH_FAIL: 1}, ends="protection", code=ErrorCode.AUTH_FAIL)
_PROPOSE: Final = (Kind.REKEY_PROPOSE,)
_ACCEPT: Final = (Kind.REKEY_ACCEPT,)
_STAGE: Final = 4
_PUBKEY: Final = 8


def _other_epoch(deed: Deed, draft: Draft) -> None:
    epoch = (int.from_bytes(draft.plaintext[:_STAGE], "big") + deed.number("by")) & 0xFFFFFFFF
    draft.plaintext = epoch.to_bytes(_STAGE, "big") + draft.plaintext[_STAGE:]


def _other_stage(deed: Deed, draft: Draft) -> None:
    stage = bytes([deed.number("stage")])
    draft.plaintext = draft.plaintext[:_STAGE] + stage + draft.plaintext[_STAGE + 1 :]


def _dirty_padding(deed: Deed, draft: Draft) -> None:
    draft.plaintext = draft.plaintext[: _PUBKEY - 1] + b"\1" + draft.plaintext[_PUBKEY:]


def _resized(deed: Deed, draft: Draft) -> None:
    draft.plaintext = draft.plaintext.ljust(deed.number("size"), b"\0")[: deed.number("size")]


def _low_order(deed: Deed, draft: Draft) -> None:
    draft.plaintext = draft.plaintext[:_PUBKEY] + LOW_ORDER_POINTS[str(deed.values["point"])]


def _other_key(deed: Deed, draft: Draft) -> None:
    """A key that nobody has the private half of."""
    draft.plaintext = draft.plaintext[:_PUBKEY] + hashlib.sha256(draft.plaintext).digest()


def _proposed(deed: Deed, draft: Draft) -> bool:
    return draft.keys is not None and bool(deed.heard) and parse(deed.heard).type == Type.REKEY


def _mirrored(deed: Deed, draft: Draft) -> None:
    """The peer's own proposal, as if it were this side's."""
    if draft.keys is None:
        return
    proposal = draft.keys.open(parse(deed.heard).seq, deed.heard[HEADER_SIZE:])
    draft.header.type, draft.header.flags = int(Type.REKEY), 0
    draft.plaintext = proposal or b""


def _renewed(deed: Deed, draft: Draft) -> bool:
    """Whether there are newer keys than the first ones, which are remembered."""
    if draft.keys is None:
        return False
    first: Keys = deed.notes.setdefault("keys", Keys.from_log(draft.keys.log_entry(draft.header.session_id)))
    return draft.keys.epoch > first.epoch


def _under_old_keys(deed: Deed, draft: Draft) -> None:
    draft.keys = deed.notes["keys"]


def _unsent(deed: Deed, draft: Draft, packet: bytes) -> list[bytes]:
    return []


def _nothing(deed: Deed, draft: Draft) -> None:
    """It is only sent again."""


_EPOCHS: Final = Parameter("by", 1, "how far off, modulo 2^32", 1, 0xFFFFFFFF)
_POINT: Final = Parameter("point", "order8-a", "which of them", choices=tuple(LOW_ORDER_POINTS))

REKEY: Final = (
    Switch(
        "rekey-epoch", ("RK-01", "RK-06"), "A proposal has an epoch that is not the next one.",
        Phase.REKEY, _MALFORMED, kinds=_PROPOSE, change=_other_epoch, parameters=(NTH, EVERY, _EPOCHS),
    ),
    Switch(
        "rekey-stage", ("RK-01",), "A REKEY is neither a proposal nor an accept.",
        Phase.REKEY, _MALFORMED, kinds=_PROPOSE, change=_other_stage,
        parameters=(NTH, EVERY, Parameter("stage", 3, "its stage", 0, 255)),
    ),
    Switch(
        "rekey-accept-unasked", ("RK-02",), "An accept comes though nothing was proposed.",
        Phase.REKEY, _MALFORMED, kinds=_PROPOSE, change=_other_stage,
        parameters=(NTH, EVERY, Parameter("stage", 2, "2, accept", 2, 2)),
    ),
    Switch(
        "rekey-padding", ("RK-01",), "The padding of a REKEY is not zero.",
        Phase.REKEY, _MALFORMED, kinds=_PROPOSE, change=_dirty_padding, parameters=(NTH, EVERY),
    ),
    Switch(
        "rekey-size", ("RK-01",), "A REKEY has a wrong size.",
        Phase.REKEY, _MALFORMED, kinds=_PROPOSE, change=_resized,
        parameters=(NTH, EVERY, Parameter("size", 39, "bytes instead of 40", 0, 1024)),
    ),
    Switch(
        "rekey-low-order", ("RK-03", "KEY-01"), "The key of a proposal is of low order.",
        Phase.REKEY, _LOW_ORDER, kinds=_PROPOSE, change=_low_order, parameters=(NTH, ALL, _POINT),
    ),
    Switch(
        "rekey-unfinished", ("RK-02", "RK-04"), "Nothing is sent with the new keys.",
        Phase.REKEY, _FAILED_LATE, emit=_unsent, ready=_renewed,
        parameters=(of_kind(Kind.ANY), NTH, ALL),
    ),
    Switch(
        "rekey-old-keys", ("RK-04",), "A packet is made with the old keys after packets with the new ones.",
        Phase.REKEY, Reaction({Drop.AUTH_FAIL: 1}, ends="protection", code=ErrorCode.AUTH_FAIL),
        change=_under_old_keys, ready=_renewed,
        raw=Reaction({Drop.AUTH_FAIL: 1}, delivers=True),
        parameters=(Parameter("nth", 2, "which DATA after the change of keys", 1), EVERY),
    ),
    Switch(
        "rekey-never-accepted", ("RK-05",), "A proposal is never accepted.",
        Phase.REKEYED, _FAILED_LATE, ignores=Kind.REKEY_PROPOSE,
    ),
    Switch(
        "rekey-mirrored", ("RK-03",), "A proposal is answered by one with the same key.",
        Phase.REKEYED, Reaction({Drop.MALFORMED: 1}, ends="rekey", code=ErrorCode.REKEY_FAIL),
        ignores=Kind.REKEY_PROPOSE, change=_mirrored, ready=_proposed,
    ),
    Switch(
        "accept-epoch", ("RK-01", "RK-06"), "An accept has another epoch than the proposal.",
        Phase.REKEYED, _ASTRAY, kinds=_ACCEPT, change=_other_epoch, parameters=(_EPOCHS,),
    ),
    Switch(
        "accept-size", ("RK-01",), "An accept has a wrong size.",
        Phase.REKEYED, _ASTRAY, kinds=_ACCEPT, change=_resized,
        parameters=(Parameter("size", 39, "bytes instead of 40", 0, 1024),),
    ),
    Switch(
        "accept-twice", ("RK-02",), "A proposal is accepted twice.",
        Phase.REKEYED, _MALFORMED, kinds=_ACCEPT, change=_nothing, again=1,
    ),
    Switch(
        "accept-low-order", ("RK-03", "KEY-01"), "The key of an accept is of low order.",
        Phase.REKEYED, _LOW_ORDER, kinds=_ACCEPT, change=_low_order, parameters=(_POINT,),
    ),
    Switch(
        "accept-other-key", ("RK-02", "KEY-02"), "The key of an accept is not the one that is used.",
        Phase.REKEYED, Reaction({Drop.AUTH_FAIL: 1}, ends="protection", code=ErrorCode.AUTH_FAIL),
        kinds=_ACCEPT, change=_other_key,
    ),
)  # fmt: skip

# SPDX-License-Identifier: GPL-2.0-or-later
"""What switches do over raw IP, and the ones that only exist there (section 4).

A datagram that is discarded before it is committed is resent as it should have been, unless the switch says
``every``: the session survives, and the message arrives.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from typing import Final

from ..constants import ErrorCode, Role
from ..counters import DropReason as Drop
from .kinds import Kind
from .model import ALL, EVERY, NTH, SERVER, Deed, Draft, Parameter, Phase, Reaction, Switch, of_kind


def _healed(reason: Drop) -> Reaction:
    return Reaction({reason: 1}, delivers=True)


def _healed_twice(reason: Drop) -> Reaction:
    """The handshake ACK comes again of itself, and as the answer to the RESPONSE that does."""
    return Reaction({reason: 1, Drop.DUPLICATE: 1}, delivers=True)


def _gone(reason: Drop) -> Reaction:
    """Committed and discarded."""
    return Reaction({reason: 1})


OVER_RAW: Final[Mapping[str, Reaction | Mapping[Role, Reaction]]] = {
    "bad-hmac": _healed(Drop.AUTH_FAIL),
    "zero-hmac": _healed(Drop.AUTH_FAIL),
    "hmac-of-plaintext": _healed(Drop.AUTH_FAIL),
    "bad-tag": _healed(Drop.DECRYPT_FAIL),
    "other-nonce": _healed(Drop.DECRYPT_FAIL),
    "little-endian-nonce": _healed(Drop.DECRYPT_FAIL),
    "unsealed": _healed(Drop.MALFORMED),
    "encrypted-cleared": _healed(Drop.MALFORMED),
    "encrypted-unsealed": _healed(Drop.DECRYPT_FAIL),
    "encrypted-short": _healed(Drop.MALFORMED),
    "reserved0": _healed(Drop.MALFORMED),
    "reserved1": _healed(Drop.MALFORMED),
    "reserved-flag": _healed(Drop.MALFORMED),
    "compressed": _healed(Drop.MALFORMED),
    "wrong-version": _healed(Drop.VERSION_MISMATCH),
    "other-session-id": _healed(Drop.UNKNOWN_SESSION),
    "unknown-type": _gone(Drop.UNKNOWN_TYPE),
    "handshake-type": _healed(Drop.UNEXPECTED_TYPE),
    "response-in-session": _gone(Drop.UNEXPECTED_TYPE),
    "payload-len-short": _healed(Drop.MALFORMED),
    "payload-len-long": _healed(Drop.MALFORMED),
    "cut-short": _healed(Drop.MALFORMED),
    "ack-not-asked": Reaction(delivers=True),
    "replay": _healed(Drop.DUPLICATE),
    "late-replay": _healed(Drop.DUPLICATE),
    "reflection": _healed(Drop.REFLECTED),
    "stale-seq": _healed(Drop.DUPLICATE),
    "peers-seq": _healed(Drop.REFLECTED),
    "seq-out-of-range": _healed(Drop.REFLECTED),
    "ack-unsent": _healed(Drop.BAD_ACK),
    "ack-below-first": _healed(Drop.BAD_ACK),
    "ack-own-range": _healed(Drop.BAD_ACK),
    "empty-data": _gone(Drop.MALFORMED),
    "unsubscribed-channel": _gone(Drop.UNSUBSCRIBED),
    "silent-ack": Reaction(delivers=True),  # what else is sent acknowledges as well
    "mute": Reaction(ends="timeout", after_s=70),
    "late": Reaction(delivers=True),
    "rekey-low-order": Reaction({Drop.LOW_ORDER_KEY: 1}, ends="rekey", code=ErrorCode.REKEY_FAIL),
    "accept-low-order": Reaction({Drop.LOW_ORDER_KEY: 1}, ends="rekey", code=ErrorCode.REKEY_FAIL),
    "rekey-never-accepted": Reaction(ends="rekey", code=ErrorCode.REKEY_FAIL, after_s=70),
    "wrong-answer": Reaction({Drop.INTEGRITY_FAIL: 1}, untrusted=True),
    "wrong-solution": _healed(Drop.BAD_PUZZLE),
    "wrong-proof": _healed(Drop.BAD_PROOF),
    "response-ack": _healed(Drop.MALFORMED),
    "stale-init": _healed(Drop.STALE_INIT),
    "response-twice": _healed(Drop.DUPLICATE),
    "closing-hmac": {Role.CLIENT: _healed(Drop.AUTH_FAIL), Role.SERVER: _healed_twice(Drop.AUTH_FAIL)},
    "closing-seq": {Role.CLIENT: _healed(Drop.REFLECTED), Role.SERVER: _healed_twice(Drop.REFLECTED)},
    "silent-challenge": Reaction(error=errno.ETIMEDOUT, after_s=10),
    "silent-handshake-ack": _healed(Drop.DUPLICATE),
}
"""By name; what is not here was not thought through over raw."""


def _no_echo(deed: Deed, draft: Draft) -> None:
    draft.header.ack ^= 1


def _too_long(deed: Deed, draft: Draft, packet: bytes) -> list[bytes]:
    return [packet + bytes(deed.number("by"))]


def _ahead(deed: Deed, draft: Draft) -> None:
    draft.header.seq += deed.number("by")


def _other_contents(deed: Deed, draft: Draft, packet: bytes) -> list[bytes]:
    """Sent again as something else: the same nonce for another plaintext."""
    draft.plaintext = bytes(byte ^ 0xFF for byte in draft.plaintext)
    return [packet, draft.build()]


def _goes_back(deed: Deed, draft: Draft) -> None:
    draft.header.ack = deed.notes.setdefault("ack", draft.header.ack)


def _nothing(deed: Deed, draft: Draft, packet: bytes) -> list[bytes]:
    return []


RAW: Final = (
    Switch(
        "wrong-echo", ("HS-14",), "CHALLENGE does not echo the client's key.",
        Phase.HANDSHAKE, None, roles=SERVER, kinds=(Kind.CHALLENGE,), change=_no_echo,
        raw=Reaction({Drop.SPOOFED: 3}, error=errno.ETIMEDOUT, after_s=10),
    ),
    Switch(
        "datagram-too-long", ("TRN-03", "WIRE-01"), "A datagram is longer than its packet.",
        Phase.DATA, None, emit=_too_long, raw=_healed(Drop.MALFORMED),
        parameters=(of_kind(Kind.DATA), NTH, EVERY, Parameter("by", 1, "how many bytes", 1, 1000)),
    ),
    Switch(
        "seq-ahead", ("TRN-06",), "A packet has a seq that is 64 or more above the next expected one.",
        Phase.DATA, None, change=_ahead, raw=_healed(Drop.OUT_OF_WINDOW),
        parameters=(of_kind(Kind.DATA), NTH, EVERY, Parameter("by", 64, "how far above", 64, 1 << 32)),
    ),
    Switch(
        "ack-goes-back", ("TRN-04",), "The ack of later packets is that of the first.",
        Phase.DATA, None, parameters=(of_kind(Kind.ANY), NTH, ALL), change=_goes_back,
        raw=Reaction(ends="timeout", delivers=True, after_s=60),
    ),
    Switch(
        "void-withheld", ("TRN-07",), "An MTU probe that was lost is never replaced by a void.",
        Phase.MTU, None, kinds=(Kind.VOID,), parameters=(ALL,), emit=_nothing,
        raw=Reaction(ends="timeout", after_s=130),
    ),
)  # fmt: skip

SEQ_REUSED: Final = Switch(
    "seq-reused", ("SEQ-01", "TRN-04", "SEAL-02"), "Other contents follow under the same seq.",
    Phase.DATA, Reaction({Drop.REPLAY: 1}, delivers=True), emit=_other_contents,
    parameters=(of_kind(Kind.DATA, Kind.HEARTBEAT), NTH, EVERY), raw=_healed(Drop.DUPLICATE),
)  # fmt: skip

# SPDX-License-Identifier: GPL-2.0-or-later
"""Switches about configurations and the journal (sections 14 and 17)."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Final

from ..config import ConfigPayload, config_hash
from ..constants import CONFIG_SIZE, SECOND, Flag, Type
from ..counters import DropReason
from ..journal import Entry, Sync
from ..wire import offset_of
from .kinds import Kind
from .model import ALL, EVERY, NTH, Deed, Draft, Parameter, Phase, Reaction, Switch, of_kind

_REJECTED: Final = Reaction({DropReason.CONFIG_REJECT: 1})
_PROPOSAL: Final = (Kind.CONFIG_PROPOSAL,)
_FLAGS: Final = int(Flag.CONFIG_LOCKED)

# Where the parameters are in their 16 bytes, and a value of each that is out of range (CFG-01).
_OUT_OF_RANGE: Final = {
    "difficulty-low": ("puzzle_difficulty", 15),
    "difficulty-high": ("puzzle_difficulty", 21),
    "zero": ("zero", 1),
    "heartbeat-low": ("heartbeat_sec", 0),
    "heartbeat-high": ("heartbeat_sec", 31),
    "rekey-packets-low": ("rekey_packets", (1 << 10) - 1),
    "rekey-packets-high": ("rekey_packets", (1 << 28) + 1),
    "rekey-sec-low": ("rekey_sec", 9),
    "rekey-sec-high": ("rekey_sec", 3601),
    "mtu-min-low": ("mtu_min", 511),
    "mtu-max-high": ("mtu_max", 1401),
    "mtu-max-below-min": ("mtu_max", 511),
}
_SIZES: Final = {
    "puzzle_difficulty": 1, "zero": 1, "heartbeat_sec": 2, "rekey_packets": 4, "rekey_sec": 4, "mtu_min": 2,
    "mtu_max": 2,
}  # fmt: skip


# -- CONFIG


def _rehashed(payload: ConfigPayload) -> bytes:
    return replace(payload, config_hash=config_hash(payload.version, payload.params)).pack()


def _resized(deed: Deed, draft: Draft) -> None:
    draft.plaintext = draft.plaintext.ljust(deed.number("size"), b"\0")[: deed.number("size")]


def _same_version(deed: Deed, draft: Draft) -> None:
    """Everything else fits, the hash of it included."""
    payload = ConfigPayload.unpack(draft.plaintext)
    draft.plaintext = _rehashed(replace(payload, version=payload.prev_version))


def _other_predecessor(deed: Deed, draft: Draft) -> None:
    payload = ConfigPayload.unpack(draft.plaintext)
    other = payload.prev_version + 1
    draft.plaintext = _rehashed(replace(payload, prev_version=other, version=other + 1))


def _other_prev_hash(deed: Deed, draft: Draft) -> None:
    payload = ConfigPayload.unpack(draft.plaintext)
    draft.plaintext = replace(payload, prev_hash=hashlib.sha256(payload.prev_hash).digest()).pack()


def _other_hash(deed: Deed, draft: Draft) -> None:
    payload = ConfigPayload.unpack(draft.plaintext)
    draft.plaintext = replace(payload, config_hash=hashlib.sha256(payload.config_hash).digest()).pack()


def _out_of_range(deed: Deed, draft: Draft) -> None:
    payload = ConfigPayload.unpack(draft.plaintext)
    name, value = _OUT_OF_RANGE[str(deed.values["which"])]
    offset, size = offset_of("parameters", name), _SIZES[name]
    params = payload.params[:offset] + value.to_bytes(size, "big") + payload.params[offset + size :]
    draft.plaintext = _rehashed(replace(payload, params=params))


def _other_deadline(deed: Deed, draft: Draft) -> None:
    payload = ConfigPayload.unpack(draft.plaintext)
    draft.plaintext = replace(payload, deadline_ns=deed.number("ns")).pack()


def _confirming(deed: Deed, draft: Draft) -> None:
    draft.header.flags |= _FLAGS


def _with_payload(deed: Deed, draft: Draft) -> None:
    draft.plaintext = b"\0"


def _rollback_instead(deed: Deed, draft: Draft) -> None:
    draft.header.type, draft.plaintext = int(Type.ROLLBACK), b""


def _ack_elsewhere(deed: Deed, draft: Draft) -> None:
    draft.header.ack -= 1


def _unlocked(deed: Deed, draft: Draft) -> None:
    draft.header.flags &= ~(Flag.CONFIG_LOCKED | Flag.ROLLBACK_READY)


def _locked(deed: Deed, draft: Draft) -> None:
    draft.header.flags |= Flag.CONFIG_LOCKED


def _nothing(deed: Deed, draft: Draft, packet: bytes) -> list[bytes]:
    return []


def _itself(deed: Deed, draft: Draft, packet: bytes) -> list[bytes]:
    return [packet]


CONFIG: Final = (
    Switch(
        "config-size", ("CFG-01",), "A CONFIG has a wrong size.",
        Phase.CONFIG, _REJECTED, kinds=_PROPOSAL, change=_resized,
        parameters=(Parameter("size", CONFIG_SIZE - 1, "bytes instead of 104", 0, 1024),),
    ),
    Switch(
        "config-version", ("CFG-01",), "A CONFIG has the version of the configuration that it replaces.",
        Phase.CONFIG, _REJECTED, kinds=_PROPOSAL, change=_same_version,
    ),
    Switch(
        "config-prev-version", ("CFG-01",), "A CONFIG builds on a version that the peer does not have.",
        Phase.CONFIG, _REJECTED, kinds=_PROPOSAL, change=_other_predecessor,
    ),
    Switch(
        "config-prev-hash", ("CFG-01",), "A CONFIG builds on another configuration of the right version.",
        Phase.CONFIG, _REJECTED, kinds=_PROPOSAL, change=_other_prev_hash,
    ),
    Switch(
        "config-hash", ("CFG-01",), "A CONFIG's hash is not that of its parameters.",
        Phase.CONFIG, _REJECTED, kinds=_PROPOSAL, change=_other_hash,
    ),
    Switch(
        "config-range", ("CFG-01",), "One parameter of a CONFIG is out of range.",
        Phase.CONFIG, _REJECTED, kinds=_PROPOSAL, change=_out_of_range,
        parameters=(Parameter("which", "difficulty-low", "which one", choices=tuple(_OUT_OF_RANGE)),),
    ),
    Switch(
        "config-deadline", ("CFG-01",), "A CONFIG's deadline is out of range.",
        Phase.CONFIG, _REJECTED, kinds=_PROPOSAL, change=_other_deadline,
        parameters=(Parameter("ns", 3600 * SECOND + 1, "the deadline"),),
    ),
    Switch(
        "config-twice", ("CFG-02",), "A second CONFIG comes while the first is tentative.",
        Phase.CONFIG, _REJECTED, kinds=_PROPOSAL, change=lambda deed, draft: None, again=1,
    ),
    Switch(
        "confirm-first", ("CFG-03",), "A CONFIG is confirmed that was never proposed.",
        Phase.CONFIG, _REJECTED, kinds=_PROPOSAL, change=_confirming,
    ),
    Switch(
        "confirm-other", ("CFG-03",), "The confirm names another configuration than the tentative one.",
        Phase.CONFIG, Reaction({DropReason.CONFIG_REJECT: 1}, after_s=11), kinds=(Kind.CONFIG_CONFIRM,),
        change=_other_hash, parameters=(NTH, ALL),
    ),
    Switch(
        "silent-confirm", ("CFG-04",), "What was proposed and accepted is never confirmed.",
        Phase.CONFIG, Reaction(after_s=11), kinds=(Kind.CONFIG_CONFIRM,), emit=_nothing,
        parameters=(NTH, ALL),
    ),
    Switch(
        "late-confirm", ("CFG-03", "CFG-04"), "The confirm comes after the deadline.",
        Phase.CONFIG, Reaction({DropReason.CONFIG_REJECT: 4}, after_s=20), kinds=(Kind.CONFIG_CONFIRM,),
        emit=_itself, delay_ms="ms",
        parameters=(NTH, ALL, Parameter("ms", 12_000, "how late", 1, 3_600_000)),
    ),
    Switch(
        "rollback-unasked", ("CFG-05",), "A ROLLBACK comes while nothing is tentative.",
        Phase.DATA, _REJECTED, change=_rollback_instead, parameters=(NTH, EVERY),
    ),
    Switch(
        "rollback-payload", ("CFG-05",), "A ROLLBACK is not empty.",
        Phase.ROLLBACK, Reaction({DropReason.CONFIG_REJECT: 1}, after_s=11), kinds=(Kind.ROLLBACK,),
        change=_with_payload,
    ),
    Switch(
        "silent-config-answer", ("CFG-01", "CFG-02"), "A CONFIG is not answered.",
        Phase.CONFIGURED, Reaction(), kinds=(Kind.ACK,), emit=_nothing, parameters=(ALL,),
    ),
    Switch(
        "config-answer-ack", ("CFG-02",), "The answer to a CONFIG acknowledges something else.",
        Phase.CONFIGURED, Reaction(), kinds=(Kind.CONFIG_ANSWER,), change=_ack_elsewhere,
        parameters=(NTH, ALL),
    ),
    Switch(
        "config-answer-flags", ("CFG-02",), "An accepted CONFIG is answered as if it had been rejected.",
        Phase.CONFIGURED, Reaction(), kinds=(Kind.CONFIG_ANSWER,), change=_unlocked, parameters=(NTH, ALL),
    ),
    Switch(
        "config-answer-unasked", ("CFG-02",), "An ACK has CONFIG_LOCKED though nothing was proposed.",
        Phase.DATA, Reaction(delivers=True), kinds=(Kind.ACK,), change=_locked, parameters=(NTH, ALL),
    ),
)  # fmt: skip


# -- JOURNAL


def _sync(deed: Deed, draft: Draft) -> Sync:
    return Sync.unpack(draft.plaintext)


def _has_entries(deed: Deed, draft: Draft) -> bool:
    return len(draft.plaintext) > 42


def _broken(deed: Deed, draft: Draft) -> None:
    """One hash of the chain is wrong."""
    sync = _sync(deed, draft)
    last = sync.entries[-1]
    wrong = replace(last, change_hash=hashlib.sha256(last.change_hash).digest())
    draft.plaintext = replace(sync, entries=(*sync.entries[:-1], wrong)).pack()


def _edited(deed: Deed, draft: Draft) -> None:
    """An entry was edited and nothing recomputed."""
    sync = _sync(deed, draft)
    last = sync.entries[-1]
    draft.plaintext = replace(
        sync, entries=(*sync.entries[:-1], replace(last, detail=b"?" + last.detail[1:]))
    ).pack()


def _rewritten(deed: Deed, draft: Draft) -> None:
    """The whole chain was recomputed from another past."""
    sync = _sync(deed, draft)
    previous = start = hashlib.sha256(sync.previous_hash).digest()
    entries: list[Entry] = []
    for entry in sync.entries:
        entries.append(replace(entry, change_hash=entry.hash_after(previous)))
        previous = entries[-1].change_hash
    draft.plaintext = Sync(sync.first_index, start, tuple(entries)).pack()


def _left_out(deed: Deed, draft: Draft) -> None:
    sync = _sync(deed, draft)
    draft.plaintext = replace(sync, first_index=sync.first_index + deed.number("entries")).pack()


def _miscounted(deed: Deed, draft: Draft) -> None:
    count = int.from_bytes(draft.plaintext[40:42], "big") + 1
    draft.plaintext = draft.plaintext[:40] + count.to_bytes(2, "big") + draft.plaintext[42:]


def _cut(deed: Deed, draft: Draft) -> None:
    draft.plaintext = draft.plaintext[:-1]


def _unmarked(deed: Deed, draft: Draft) -> None:
    draft.header.flags &= ~Flag.JOURNAL_SYNC


def _entries_instead(deed: Deed, draft: Draft) -> None:
    draft.header.type = int(Type.JOURNAL)
    draft.header.flags = int(Flag.JOURNAL_SYNC | Flag.REQUIRE_ACK)
    draft.plaintext = Sync(0, bytes(32), (Entry.after(bytes(32), 0, 0, 0, 1, draft.plaintext[:256]),)).pack()


_ALERT: Final = Reaction({DropReason.JOURNAL_BROKEN: 1}, untrusted=True)
# What comes after the first break is discarded as well, without another alert (E-77).
_ALERT_EARLY: Final = Reaction({DropReason.JOURNAL_BROKEN: 2}, untrusted=True)
_ENTRIES: Final = (Kind.JOURNAL_ENTRIES,)

JOURNAL: Final = (
    Switch(
        "journal-broken", ("JRN-01", "JRN-03"), "The hash of a journal entry is wrong.",
        Phase.JOURNAL, _ALERT_EARLY, kinds=_ENTRIES, change=_broken, ready=_has_entries,
    ),
    Switch(
        "journal-edited", ("JRN-01", "JRN-03"), "A journal entry was edited, and no hash recomputed.",
        Phase.JOURNAL, _ALERT_EARLY, kinds=_ENTRIES, change=_edited, ready=_has_entries,
    ),
    Switch(
        "journal-forked", ("JRN-03",), "Later entries follow from another past than the one told before.",
        Phase.JOURNAL, _ALERT, kinds=_ENTRIES, change=_rewritten,
        parameters=(Parameter("nth", 2, "which packet forks", 2),),
    ),
    Switch(
        "journal-left-out", ("JRN-02", "JRN-03"), "Entries between two packets are left out.",
        Phase.JOURNAL, _ALERT, kinds=_ENTRIES, change=_left_out,
        parameters=(
            Parameter("nth", 2, "before which packet", 2), Parameter("entries", 1, "how many", 1, 1 << 32)
        ),
    ),
    Switch(
        "journal-count", ("JRN-03",), "A JOURNAL packet counts more entries than it has.",
        Phase.JOURNAL, Reaction({DropReason.MALFORMED: 1}), kinds=_ENTRIES, change=_miscounted,
    ),
    Switch(
        "journal-cut", ("JRN-01", "JRN-03"), "A JOURNAL packet ends inside an entry.",
        Phase.JOURNAL, Reaction({DropReason.MALFORMED: 1}), kinds=_ENTRIES, change=_cut, ready=_has_entries,
    ),
    Switch(
        "journal-unmarked", ("JRN-03",), "A JOURNAL packet lacks JOURNAL_SYNC.",
        Phase.JOURNAL, Reaction({DropReason.MALFORMED: 1}), kinds=_ENTRIES, change=_unmarked,
    ),
    Switch(
        "journal-unasked", ("JRN-03",), "Entries come that nobody asked for.",
        Phase.DATA, Reaction({DropReason.UNSOLICITED: 1}), change=_entries_instead, parameters=(NTH, EVERY),
    ),
    Switch(
        "silent-journal", ("JRN-03",), "A request for the journal is not answered.",
        Phase.JOURNAL, Reaction(), kinds=_ENTRIES, emit=_nothing,
        parameters=(of_kind(Kind.JOURNAL_ENTRIES), NTH, ALL),
    ),
)  # fmt: skip

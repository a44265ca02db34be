# SPDX-License-Identifier: GPL-2.0-or-later
"""The reference's answers about configurations and the journal."""

from __future__ import annotations

from collections.abc import Callable

from poolref.config import ConfigPayload, Configuration, Current, Parameters, Refusal, config_hash
from poolref.counters import DropReason
from poolref.errors import DecodeError
from poolref.journal import Entry, Sync
from poolref.settings import Settings

from .reference_values import Values, drop, raw, u64


def config_hash_of(given: Values) -> Values:
    return {"hash": config_hash(given["version"], raw(given["params"])).hex()}


def config_encode(given: Values) -> Values:
    params = raw(given["params"])
    payload = ConfigPayload(
        given["version"], given["prev_version"], config_hash(given["version"], params),
        raw(given["prev_hash"]), u64(given["timestamp"]), u64(given["deadline_ns"]), params,
    )  # fmt: skip
    return {"plaintext": payload.pack().hex()}


def config_judge(given: Values) -> Values:
    configuration = Configuration(Parameters.of(Settings()))
    current = given["current"]
    configuration.current = Current(current["version"], raw(current["hash"]), configuration.current.params)
    try:
        judged = configuration.judge(ConfigPayload.unpack(raw(given["plaintext"])))
    except DecodeError:
        return drop(DropReason.CONFIG_REJECT)
    return drop(DropReason.CONFIG_REJECT) if isinstance(judged, Refusal) else {"accepted": True}


def _entry(previous: bytes, given: Values) -> Entry:
    return Entry.after(
        previous, u64(given["timestamp"]), given["config_before"], given["config_after"],
        given["change_type"], raw(given["detail"]),
    )  # fmt: skip


def _chain(given: Values) -> list[Entry]:
    entries: list[Entry] = []
    previous = raw(given["previous_hash"])
    for values in given["entries"]:
        entries.append(_entry(previous, values))
        previous = entries[-1].change_hash
    return entries


def journal_hash(given: Values) -> Values:
    return {"change_hash": _entry(raw(given["previous_hash"]), given["entry"]).change_hash.hex()}


def journal_encode_entry(given: Values) -> Values:
    return {"entry": _entry(raw(given["previous_hash"]), given["entry"]).pack().hex()}


def journal_chain(given: Values) -> Values:
    return {"change_hashes": [entry.change_hash.hex() for entry in _chain(given)]}


def journal_encode_sync(given: Values) -> Values:
    sync = Sync(u64(given["first_index"]), raw(given["previous_hash"]), tuple(_chain(given)))
    return {"plaintext": sync.pack().hex()}


def journal_verify_sync(given: Values) -> Values:
    try:
        sync = Sync.unpack(raw(given["plaintext"]))
    except DecodeError:
        return drop(DropReason.MALFORMED)
    return {
        "first_index": str(sync.first_index),
        "count": len(sync.entries),
        "chain": "holds" if sync.holds else "broken",
    }


OPERATIONS: dict[str, Callable[[Values], Values]] = {
    "config.hash": config_hash_of,
    "config.encode": config_encode,
    "config.judge": config_judge,
    "journal.hash": journal_hash,
    "journal.encode_entry": journal_encode_entry,
    "journal.chain": journal_chain,
    "journal.encode_sync": journal_encode_sync,
    "journal.verify_sync": journal_verify_sync,
}

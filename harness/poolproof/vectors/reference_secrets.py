# SPDX-License-Identifier: GPL-2.0-or-later
"""The reference's answers about key replacement and integrity."""

from __future__ import annotations

from collections.abc import Callable

from poolref import integrity
from poolref.constants import ErrorCode, Role
from poolref.counters import DropReason
from poolref.errors import DecodeError, LowOrderKey
from poolref.integrity import StateReport
from poolref.keys import Keys
from poolref.rekey import RekeyPayload, own_wins

from .reference_values import Values, drop, raw, u64

_FAILED: Values = {"close": int(ErrorCode.REKEY_FAIL)}


def rekey_derive(given: Values) -> Values:
    try:
        keys = Keys(raw(given["old_shared"])).successor(raw(given["private"]), raw(given["public"]))
    except LowOrderKey:
        return _FAILED
    names = ("shared", "session_key", "hmac_key", "seq_key")
    return {name: bytes(getattr(keys, name)).hex() for name in names}


def rekey_encode(given: Values) -> Values:
    return {"plaintext": RekeyPayload(given["epoch"], given["stage"], raw(given["pubkey"])).pack().hex()}


def rekey_decode(given: Values) -> Values:
    try:
        payload = RekeyPayload.unpack(raw(given["plaintext"]))
    except DecodeError:
        return drop(DropReason.MALFORMED)
    return {"epoch": payload.epoch, "stage": payload.stage, "pubkey": payload.pubkey.hex()}


def rekey_tie(given: Values) -> Values:
    try:
        return {"own_wins": own_wins(raw(given["own_pubkey"]), raw(given["peer_pubkey"]))}
    except ValueError:
        return _FAILED


def integrity_keys(given: Values) -> Values:
    keys = Keys(raw(given["shared"]))
    return {"k_int": bytes(keys.k_int).hex(), "k_int_mac": bytes(keys.k_int_mac).hex()}


def integrity_challenge(given: Values) -> Values:
    return {"plaintext": integrity.challenge(raw(given["challenge"])).hex()}


def integrity_answer(given: Values) -> Values:
    keys = Keys(raw(given["shared"]))
    return {"plaintext": integrity.answer(keys, Role(given["role"]), raw(given["challenge"])).hex()}


def integrity_verify(given: Values) -> Values:
    keys, role = Keys(raw(given["shared"])), Role(given["role"])
    return {"right": integrity.right(keys, role, raw(given["challenge"]), raw(given["plaintext"]))}


def integrity_state(given: Values) -> Values:
    report = StateReport(
        given["epoch"], u64(given["seq_sent"]), u64(given["highest_received"]), u64(given["packets_sent"]),
        u64(given["packets_received"]), given["config_version"], raw(given["journal_head"]),
    )  # fmt: skip
    return {"plaintext": report.pack().hex()}


def integrity_read_state(given: Values) -> Values:
    try:
        report = StateReport.unpack(raw(given["plaintext"]))
    except DecodeError:
        return drop(DropReason.MALFORMED)
    return {
        "epoch": report.epoch, "seq_sent": str(report.seq_sent),
        "highest_received": str(report.highest_seq_received), "packets_sent": str(report.packets_sent),
        "packets_received": str(report.packets_received), "config_version": report.config_version,
        "journal_head": report.journal_head.hex(),
    }  # fmt: skip


OPERATIONS: dict[str, Callable[[Values], Values]] = {
    "rekey.derive": rekey_derive,
    "rekey.encode": rekey_encode,
    "rekey.decode": rekey_decode,
    "rekey.tie": rekey_tie,
    "integrity.keys": integrity_keys,
    "integrity.challenge": integrity_challenge,
    "integrity.answer": integrity_answer,
    "integrity.verify": integrity_verify,
    "integrity.state": integrity_state,
    "integrity.read_state": integrity_read_state,
}

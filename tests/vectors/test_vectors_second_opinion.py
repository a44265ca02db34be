# SPDX-License-Identifier: GPL-2.0-or-later
"""What the reference does not compute yet, computed here once more with another library and by taking apart
instead of putting together, so that no vector rests on the derivation alone.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from poolproof.vectors import suite
from poolproof.vectors.reference_adapter import OPERATIONS

Values = dict[str, Any]
raw = bytes.fromhex


def derived(secret: bytes, label: bytes) -> bytes:
    return HKDF(hashes.SHA256(), 32, bytes(32), label).derive(secret)


def rekey_derive(given: Values) -> Values:
    try:
        private = X25519PrivateKey.from_private_bytes(raw(given["private"]))
        exchanged = private.exchange(X25519PublicKey.from_public_bytes(raw(given["public"])))
    except ValueError:
        return {"close": 7}
    shared = derived(exchanged + raw(given["old_shared"]), b"pool-rekey")
    labels = {"session_key": b"pool-session-key", "hmac_key": b"pool-hmac-key", "seq_key": b"pool-seq-key"}
    return {"shared": shared.hex(), **{name: derived(shared, label).hex() for name, label in labels.items()}}


def rekey_decode(given: Values) -> Values:
    plaintext = raw(given["plaintext"])
    if len(plaintext) != 40 or any(plaintext[5:8]):
        return {"drop": "malformed"}
    return {
        "epoch": int.from_bytes(plaintext[:4], "big"), "stage": plaintext[4], "pubkey": plaintext[8:].hex(),
    }  # fmt: skip


def rekey_tie(given: Values) -> Values:
    own, peer = given["own_pubkey"], given["peer_pubkey"]  # hex digits sort as their bytes do
    return {"close": 7} if own == peer else {"own_wins": own < peer}


def config_hash(given: Values) -> Values:
    data = given["version"].to_bytes(4, "big") + raw(given["params"])
    return {"hash": hashlib.sha256(data).hexdigest()}


def config_judge(given: Values) -> Values:
    rejected = {"drop": "config_reject"}
    plaintext, current = raw(given["plaintext"]), given["current"]
    if len(plaintext) != 104:
        return rejected
    version, previous = struct.unpack_from(">II", plaintext)
    params = plaintext[88:]
    difficulty, _, heartbeat, packets, seconds, low, high = struct.unpack(">BBHIIHH", params)
    good = (
        version > current["version"]
        and previous == current["version"]
        and plaintext[40:72].hex() == current["hash"]
        and plaintext[8:40] == hashlib.sha256(plaintext[:4] + params).digest()
        and difficulty in range(16, 21)
        and heartbeat in range(1, 31)
        and packets in range(2**10, 2**28 + 1)
        and seconds in range(10, 3601)
        and 512 <= low <= high <= 1400
    )
    return {"accepted": True} if good else rejected


def taken_apart(data: bytes) -> list[tuple[bytes, bytes, bytes]]:
    """The entries: what is before the hash, the hash, what is behind it."""
    entries = []
    while data:
        size = 52 + int.from_bytes(data[50:52], "big")
        entries.append((data[:16], data[16:48], data[48:size]))
        data = data[size:]
    return entries


def journal_verify(given: Values) -> Values:
    plaintext = raw(given["plaintext"])
    previous, holds = plaintext[8:40], True
    entries = taken_apart(plaintext[42:])
    for before, change, behind in entries:
        holds &= hashlib.sha256(previous + before + behind).digest() == change
        previous = change
    count = int.from_bytes(plaintext[40:42], "big")
    assert count == len(entries)
    chain = "holds" if holds else "broken"
    return {"first_index": str(int.from_bytes(plaintext[:8], "big")), "count": count, "chain": chain}


def integrity_keys(given: Values) -> Values:
    shared = raw(given["shared"])
    return {
        "k_int": derived(shared, b"pool-integrity-key").hex(),
        "k_int_mac": derived(shared, b"pool-integrity-mac").hex(),
    }


def integrity_answer(given: Values) -> Values:
    keys, challenge = integrity_keys(given), raw(given["challenge"])
    tagged = bytes([given["role"]]) + challenge
    sealed = ChaCha20Poly1305(raw(keys["k_int"])).encrypt(
        hashlib.sha256(tagged).digest()[:12], challenge, None
    )
    mac = hmac.digest(raw(keys["k_int_mac"]), tagged, "sha256")
    return {"plaintext": (b"\2" + challenge + sealed + mac).hex()}


def integrity_verify(given: Values) -> Values:
    return {"right": integrity_answer(given)["plaintext"] == given["plaintext"]}


SECOND: dict[str, Callable[[Values], Values]] = {
    "rekey.derive": rekey_derive,
    "rekey.decode": rekey_decode,
    "rekey.tie": rekey_tie,
    "config.hash": config_hash,
    "config.judge": config_judge,
    "journal.verify_sync": journal_verify,
    "integrity.keys": integrity_keys,
    "integrity.answer": integrity_answer,
    "integrity.verify": integrity_verify,
}
CASES = suite.load()


@pytest.mark.parametrize("op", SECOND)
def test_second_opinion(op: str) -> None:
    assert op not in OPERATIONS, f"the reference has {op} now: this second opinion can go"
    cases = [case for case in CASES if case.op == op]
    assert cases
    for case in cases:
        assert SECOND[op](case.input) == case.expected, case.id


@pytest.mark.parametrize("area", ["rekey"])
def test_encoded_is_what_decodes(area: str) -> None:
    cases = [case for case in CASES if case.op == f"{area}.encode"]
    assert cases
    for case in cases:
        assert SECOND[f"{area}.decode"]({**case.expected, "own_pubkey": ""}) == case.input, case.id


def test_encoded_proposals_are_accepted() -> None:
    cases = [case for case in CASES if case.op == "config.encode"]
    assert cases
    for case in cases:
        current = {"version": case.input["prev_version"], "hash": case.input["prev_hash"]}
        assert config_judge({**case.expected, "current": current}) == {"accepted": True}


def test_encoded_journals_hold() -> None:
    for case in CASES:
        if case.op == "journal.encode_sync":
            entries = taken_apart(raw(case.expected["plaintext"])[42:])
            assert journal_verify(case.expected)["chain"] == "holds"
            assert [behind[4:].hex() for _, _, behind in entries] == [
                entry["detail"] for entry in case.input["entries"]
            ]
        elif case.op == "journal.encode_entry":
            [(before, change, behind)] = taken_apart(raw(case.expected["entry"]))
            assert change == hashlib.sha256(raw(case.input["previous_hash"]) + before + behind).digest()
            assert int.from_bytes(before[:8], "big") == int(case.input["entry"]["timestamp"])
        elif case.op in ("journal.hash", "journal.chain"):
            chained = case.expected.get("change_hashes") or [case.expected["change_hash"]]
            entries_given = case.input.get("entries") or [case.input["entry"]]
            previous = raw(case.input["previous_hash"])
            for entry, change in zip(entries_given, chained, strict=True):
                numbers = struct.pack(
                    ">QIIHH", int(entry["timestamp"]), entry["config_before"], entry["config_after"],
                    entry["change_type"], len(raw(entry["detail"])),
                )  # fmt: skip
                previous = hashlib.sha256(previous + numbers + raw(entry["detail"])).digest()
                assert previous.hex() == change, case.id

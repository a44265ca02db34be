# SPDX-License-Identifier: GPL-2.0-or-later
"""What the reference does not compute yet, computed here once more with another library and by taking apart
instead of putting together, so that no vector rests on the derivation alone.
"""

from __future__ import annotations

import hashlib
import hmac
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

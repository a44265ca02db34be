# SPDX-License-Identifier: GPL-2.0-or-later
"""Who seals what under which key and nonce (C01)."""

from __future__ import annotations

import pytest

from poolref import crypto


class Sealings:
    """Every sealing of anybody: what went under which key and nonce (C01)."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.plaintexts: dict[tuple[bytes, bytes], bytes] = {}
        self.reused = 0
        good = crypto.ChaCha20Poly1305

        class Recorder:
            def __init__(inner, key: bytes) -> None:
                inner.key = bytes(key)
                inner.aead = good(key)

            def encrypt(inner, nonce: bytes, plaintext: bytes, aad: None) -> bytes:
                known = self.plaintexts.setdefault((inner.key, nonce), bytes(plaintext))
                self.reused += known != plaintext
                return inner.aead.encrypt(nonce, plaintext, aad)

            def decrypt(inner, nonce: bytes, sealed: bytes, aad: None) -> bytes:
                return inner.aead.decrypt(nonce, sealed, aad)

        patch.setattr(crypto, "ChaCha20Poly1305", Recorder)

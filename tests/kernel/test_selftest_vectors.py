# SPDX-License-Identifier: GPL-2.0-or-later
"""The module's known answers are what the independent derivation prints, and that one keeps to the RFCs."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "spec" / "derive" / "derive.py"


@pytest.fixture(scope="module")
def derive() -> ModuleType:
    spec = importlib.util.spec_from_file_location("pool_derive", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_header_is_what_the_script_prints(derive: ModuleType) -> None:
    assert (ROOT / "kernel" / "selftest_vectors.h").read_text() == derive.c_header()


def test_script_imports_the_standard_library_only() -> None:
    imported = set()
    for node in ast.walk(ast.parse(SCRIPT.read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module)
    assert imported == {"__future__", "hashlib", "hmac", "struct", "sys", "zlib"}


@pytest.mark.parametrize("broken", ["sha256", "hmac_sha256", "x25519", "chacha20_block", "poly1305"])
def test_a_wrong_primitive_is_noticed(
    derive: ModuleType, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    good = getattr(derive, broken)
    monkeypatch.setattr(derive, broken, lambda *args: bytes([good(*args)[0] ^ 1]) + good(*args)[1:])
    with pytest.raises(derive.Mismatch):
        derive.c_header()


def test_known_answers_change_with_their_inputs(derive: ModuleType) -> None:
    keys = derive.session_keys(bytes(32))
    assert keys != derive.session_keys(bytes(31) + b"\1")
    assert keys[0] != keys[1]
    assert derive.nonce_of(keys[1], 1) == keys[1][:4] + bytes(7) + b"\1"
    with pytest.raises(ValueError, match="8161"):
        derive.hkdf(b"", b"", 8161)
    sealed = derive.aead_seal(bytes(32), bytes(12), b"text")
    assert derive.aead_open(bytes(32), bytes(12), sealed) == b"text"
    with pytest.raises(ValueError, match="wrong tag"):
        derive.aead_open(bytes(32), bytes(12), sealed[:-1] + bytes([sealed[-1] ^ 1]))

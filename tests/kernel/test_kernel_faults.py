# SPDX-License-Identifier: GPL-2.0-or-later
"""Fault injection reaches every call that can fail, and is in no module that does not ask for it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

KERNEL = Path(__file__).resolve().parents[2] / "kernel"
WRAP = (KERNEL / "faults_wrap.h").read_text()
SOURCES = [p for p in KERNEL.glob("*.c") if p.name != "faults.c" and not p.name.endswith(".mod.c")]

# Kernel functions that a module may call and that may fail, by name.
FAILING = re.compile(
    r"(?<![\w.>])(k[vmcz]*alloc\w*|k\w*dup\w*|v[mz]alloc\w*|memdup_user\w*|kmem_cache_\w*alloc\w*|alloc_\w+|"
    r"__get_free_pages?|sock_create\w*|kernel_(?:bind|listen|connect|accept|sendmsg|recvmsg|getpeername|getsockname)|"
    r"\w+_register|register_\w+|proc_mkdir\w*|proc_create\w*|kthread_(?:run|create)\w*|wait_for_random_bytes|"
    r"curve25519(?:_generate_public)?|crypto_memneq|crypto_alloc_\w+|copy_(?:from|to)_user|get_user|put_user)\("
)
# Macros of the kernel that end in a function that is wrapped.
BY_WAY_OF = {"proc_create_single": "proc_create_single_data", "proc_create_seq": "proc_create_seq_private"}


def code(path: Path) -> str:
    return re.sub(r"/\*.*?\*/|//[^\n]*|\"(?:\\.|[^\"\\])*\"", "", path.read_text(), flags=re.S)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.name))
def test_every_call_that_can_fail_can_be_made_to(path: Path) -> None:
    wrapped = set(re.findall(r"^#define (\w+)\(", WRAP, re.M))
    called = set(FAILING.findall(code(path)))
    assert {BY_WAY_OF.get(name, name) for name in called} <= wrapped


def test_the_names_are_found_at_all() -> None:
    found = {name for path in SOURCES for name in FAILING.findall(code(path))}
    assert {"kzalloc", "kvmalloc", "kernel_sendmsg", "misc_register", "copy_from_user", "curve25519"} <= found


def test_an_ordinary_build_has_none_of_it() -> None:
    kbuild = (KERNEL / "Kbuild").read_text()
    without = re.sub(r"^ifeq \(\$\(POOL_FAULTS\),1\)$.*?^endif$", "", kbuild, flags=re.M | re.S)
    assert "POOL_FAULTS" in kbuild
    assert re.findall(r"POOL_FAULTS\b|faults", re.sub(r"^#.*$", "", without, flags=re.M)) == []

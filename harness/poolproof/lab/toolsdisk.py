# SPDX-License-Identifier: GPL-2.0-or-later
"""The second disk of both guests: this run's ssh keys, the agent, poolref for it, the modules under test."""

from __future__ import annotations

import py_compile
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import paramiko
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import poolref
from poolproof.errors import HarnessError
from poolproof.lab import guest_agent

# What the agent imports.
_COMPILED = (
    "agent/poolproof_agent.py",
    "python/poolref/__init__.py",
    "python/poolref/tools/__init__.py",
    "python/poolref/tools/kernel_abi.py",
    "python/poolref/tools/plain.py",
)


@dataclass(frozen=True)
class SshIdentity:
    """Keys of one run: `client` authenticates us as root, `host` is the only host key we accept."""

    client: paramiko.Ed25519Key
    host: paramiko.Ed25519Key


def build(path: Path, modules: Mapping[str, Path]) -> SshIdentity:
    """Make the squashfs at `path` (`modules`: name to .ko file) with fresh keys in it."""
    staging = path.with_name(path.name + ".d")
    for name in ("ssh", "agent", "modules"):
        (staging / name).mkdir(parents=True)
    client = _new_key(staging / "client")
    host = _new_key(staging / "ssh" / "host_ed25519")
    (staging / "client").unlink()
    (staging / "ssh" / "authorized_keys").write_text(f"ssh-ed25519 {client.get_base64()}\n")
    shutil.copy(str(guest_agent.__file__), staging / "agent" / "poolproof_agent.py")
    shutil.copytree(
        Path(str(poolref.__file__)).parent,
        staging / "python" / "poolref",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    _precompile(staging)
    for name, module in modules.items():
        shutil.copy(module, staging / "modules" / f"{name}.ko")
    _squash(staging, path)
    shutil.rmtree(staging)
    return SshIdentity(client, host)


def _precompile(tree: Path) -> None:
    """Spare the guest the compiling where its Python is of our release; any other one ignores the files."""
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    for name in _COMPILED:
        py_compile.compile(str(tree / name), dfile=name, doraise=True, invalidation_mode=mode)


def _new_key(path: Path) -> paramiko.Ed25519Key:
    private = Ed25519PrivateKey.generate()
    text = private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.OpenSSH,
        serialization.NoEncryption(),
    )
    path.touch(mode=0o600)
    path.write_bytes(text)
    return paramiko.Ed25519Key.from_private_key_file(str(path))


def _squash(tree: Path, path: Path) -> None:
    command = ["mksquashfs", str(tree), str(path), "-quiet", "-no-progress", "-noappend", "-all-root"]
    # Not compressed, and marked as what needs.list asks a kernel for: no other decompressor is needed.
    command += ["-comp", "lz4", "-noI", "-noD", "-noF", "-noX"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        hint = "as root: apt-get install squashfs-tools"
        raise HarnessError("mksquashfs is not installed", hint=hint) from None
    if done.returncode:
        text = f"the tools disk could not be made: {done.stderr.strip()}"
        raise HarnessError(text, hint="is the disk full?")

# SPDX-License-Identifier: GPL-2.0-or-later
"""Which accelerator the guests get: KVM only where a guest has really booted on it."""

from __future__ import annotations

import hashlib
import json
import os
import select
import subprocess
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from poolproof.errors import HarnessError
from poolproof.lab import sandbox
from poolproof.lab.hypervisor import qemu_version

ENV_ACCEL = "POOLPROOF_ACCEL"
DEADLINE_S = 8.0

# The kernel has set itself up and hands over to userspace.
_PROOF = b"as init process"


@dataclass(frozen=True)
class Accelerator:
    """`name` is `kvm` or `tcg`; `evidence` says how that is known."""

    name: str
    evidence: str


def probe(kernel: Path, initramfs: Path, cache: Path) -> Accelerator:
    """Inside the sandbox: find the accelerator and leave /dev/kvm visible only if it works.

    POOLPROOF_ACCEL=tcg or kvm overrides. The outcome is kept in `cache` for this boot of this host.
    """
    forced = os.environ.get(ENV_ACCEL, "")
    if forced not in ("", "tcg", "kvm"):
        raise HarnessError(f"{ENV_ACCEL}={forced!r} is neither tcg nor kvm")
    if forced == "tcg":
        sandbox.hide_kvm()
        return Accelerator("tcg", f"{ENV_ACCEL}=tcg")
    if not sandbox.expose_kvm():
        if forced:
            raise HarnessError("/dev/kvm is missing or not ours to open", hint=f"unset {ENV_ACCEL}.")
        return Accelerator("tcg", "/dev/kvm is missing or not ours to open")
    if forced:
        return Accelerator("kvm", f"{ENV_ACCEL}=kvm")
    entry = _entry(cache)
    known = _load(entry)
    if known is None:
        known = boots(_command(kernel, initramfs), DEADLINE_S)
        _store(entry, known)
    if known.name != "kvm":
        sandbox.hide_kvm()
    return known


def boots(command: Sequence[str], deadline: float) -> Accelerator:
    """Run a probe guest until its console shows that it booted, or for `deadline` seconds."""
    started = time.monotonic()
    output = b""
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0
    ) as process:
        assert process.stdout is not None
        try:
            while _PROOF not in output:
                left = started + deadline - time.monotonic()
                if left <= 0 or not select.select([process.stdout], [], [], left)[0]:
                    break
                data = process.stdout.read(65536)
                if not data:
                    break
                output += data
        finally:
            process.kill()
    took = time.monotonic() - started
    if _PROOF in output:
        return Accelerator("kvm", f"a probe guest booted under KVM in {took:.1f} s")
    last = output.decode(errors="replace").strip().splitlines()
    said = f"its last line: {last[-1][:200]}" if last else "its console stayed empty"
    what = "hung" if took >= deadline else "ended"
    evidence = f"/dev/kvm opens, but a probe guest {what} under KVM after {took:.1f} s; {said}"
    return Accelerator("tcg", evidence)


def _command(kernel: Path, initramfs: Path) -> list[str]:
    return [
        *("qemu-system-x86_64", "-accel", "kvm", "-machine", "q35", "-cpu", "max", "-m", "256"),
        *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", "stdio"),
        *("-kernel", str(kernel), "-initrd", str(initramfs), "-append", "console=ttyS0 panic=-1 loglevel=7"),
    ]


def _entry(cache: Path) -> Path:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    key = hashlib.sha256(f"{boot} {qemu_version()}".encode()).hexdigest()[:24]
    return cache / f"accelerator-{key}.json"


def _load(entry: Path) -> Accelerator | None:
    try:
        return Accelerator(**json.loads(entry.read_text()))
    except (OSError, ValueError, TypeError):
        return None


def _store(entry: Path, known: Accelerator) -> None:
    entry.parent.mkdir(parents=True, exist_ok=True)
    for stale in entry.parent.glob("accelerator-*.json"):
        stale.unlink(missing_ok=True)
    temporary = entry.with_name(f".{entry.name}.{os.getpid()}")
    temporary.write_text(json.dumps(asdict(known)))
    os.replace(temporary, entry)

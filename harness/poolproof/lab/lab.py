# SPDX-License-Identifier: GPL-2.0-or-later
"""The lab: two guests, the wire between them and us, in the sandbox."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from poolproof.errors import HarnessError
from poolproof.image.store import GuestImage
from poolproof.lab import accel, netdev, sandbox, toolsdisk, wire
from poolproof.lab.accel import Accelerator
from poolproof.lab.agent import AgentError, AgentTimeout, GuestDied
from poolproof.lab.capture import FrameLog
from poolproof.lab.console import Console
from poolproof.lab.guest import BOOT_TIMEOUT_S, Guest, together
from poolproof.lab.hypervisor import Hypervisor
from poolproof.lab.machine import MANAGEMENT_IP4, Address, Machine

# Without erms and fsrm, which TCG runs slowly, and without cx16: cmpxchg16b under QEMU 7.2's TCG leaves
# garbage in the upper bits of RFLAGS, at which 6.12 dies at random in half its boots (0 of 20 without).
DEFAULT_CPU = "max,-erms,-fsrm,-cx16"
ADDRESSES = {"a": Address(2), "b": Address(3)}
_BRIDGE = "mgmt0"


@dataclass(frozen=True)
class LabConfig:
    """`run_dir`: where consoles and captures are kept; `cache`: what may be reused by the next run;
    `modules`: name to .ko, put on the tools disk; `seed`: of every random choice the lab makes."""

    image: GuestImage
    run_dir: Path
    cache: Path
    seed: int
    modules: Mapping[str, Path] = field(default_factory=dict)
    cpu: str = DEFAULT_CPU
    memory_mb: int = 384
    vcpus: int = 1
    extra_cmdline: str = ""


class Lab:
    """Context manager: `start` boots the pair and takes the snapshots, `close` leaves nothing."""

    def __init__(self, config: LabConfig) -> None:
        self.config = config
        self.guests: dict[str, Guest] = {}
        self.accelerator = Accelerator("tcg", "not probed yet")
        self._private = sandbox.prepare() / "lab"
        self._hypervisor: Hypervisor | None = None
        self._wire: wire.Wire | None = None
        self._log: FrameLog | None = None
        self._consoles: list[Console] = []

    @property
    def wire(self) -> wire.Wire:
        """The wire of a started lab."""
        if self._wire is None:
            raise HarnessError("the lab is not started")
        return self._wire

    def __enter__(self) -> Lab:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def start(self) -> None:
        """Probe the accelerator, lay the wire, boot both guests side by side, take their snapshots."""
        config = self.config
        self._private.mkdir()
        config.run_dir.mkdir(parents=True, exist_ok=True)
        image = config.image
        self.accelerator = accel.probe(image.vmlinux, image.initramfs, config.cache)
        tools = self._private / "tools.squashfs"
        identity = toolsdisk.build(tools, config.modules)
        self._lay_networks()
        libvirt_cache = config.cache / f"libvirt-{self.accelerator.name}"
        self._hypervisor = Hypervisor(self._private, libvirt_cache, self._on_event)
        for name, address in ADDRESSES.items():
            console = Console(self._private / f"{name}.console", config.run_dir / f"console-{name}.log")
            self._consoles.append(console)
            machine = self._machine(name, address, tools)
            self.guests[name] = Guest(
                machine, console, self._hypervisor, identity, BOOT_TIMEOUT_S * config.image.patience
            )
        together([guest.boot for guest in self.guests.values()])
        together([guest.save for guest in self.guests.values()])

    def replace(self, name: str) -> Guest:
        """Make a dead or hung guest usable again: from its snapshot, or by a cold boot when that fails."""
        guest = self.guests[name]
        try:
            guest.reset()
        except (HarnessError, GuestDied, AgentError, AgentTimeout):
            guest.destroy()
            self._new_scratch(guest.machine.scratch)
            guest.boot()
            guest.save()
        return guest

    def close(self) -> None:
        """Power everything off. Consoles and what was written of captures stay in the run directory."""
        for guest in self.guests.values():
            guest.destroy()
        if self._hypervisor is not None:
            self._hypervisor.close()
            self._hypervisor = None
        for console in self._consoles:
            console.close()
        self._consoles.clear()
        if self._wire is not None:
            self._wire.close()
        if self._log is not None:
            self._log.close()
            self._log = None
        names = [*_taps("wire"), *_taps("mgmt"), "wire0", _BRIDGE]
        present = [name for name in names if os.path.exists(f"/proc/sys/net/ipv4/conf/{name}")]
        netdev.ip(f"link del dev {name}" for name in present)
        shutil.rmtree(self._private, ignore_errors=True)

    def _lay_networks(self) -> None:
        taps = dict(zip(ADDRESSES, _taps("wire"), strict=True))
        wire.setup(taps)
        self._log = FrameLog(self._private / "frames.spill", [*taps, wire.HARNESS])
        self._wire = wire.Wire({**taps, wire.HARNESS: "wire0p"}, self._log, self.config.seed)
        netdev.ip(
            [f"link add {_BRIDGE} type bridge mcast_snooping 0"]
            + [f"tuntap add dev {tap} mode tap" for tap in _taps("mgmt")]
        )
        netdev.ip(
            [f"link set dev {tap} master {_BRIDGE} up" for tap in _taps("mgmt")]
            + [f"addr add {MANAGEMENT_IP4}/24 dev {_BRIDGE}", f"link set dev {_BRIDGE} up"]
        )

    def _machine(self, name: str, address: Address, tools: Path) -> Machine:
        config, image = self.config, self.config.image
        scratch = self._private / f"{name}.qcow2"
        self._new_scratch(scratch)
        return Machine(
            name=name,
            address=address,
            kernel=image.vmlinux,
            initramfs=image.initramfs,
            rootfs=image.rootfs,
            tools=tools,
            scratch=scratch,
            console_socket=self._private / f"{name}.console",
            wire_tap=f"wire-{name}",
            management_tap=f"mgmt-{name}",
            cpu=config.cpu,
            memory_mb=config.memory_mb,
            vcpus=config.vcpus,
            kvm=self.accelerator.name == "kvm",
            extra_cmdline=config.extra_cmdline,
        )

    @staticmethod
    def _new_scratch(path: Path) -> None:
        path.unlink(missing_ok=True)
        command = ["qemu-img", "create", "-q", "-f", "qcow2", str(path), "64M"]
        try:
            subprocess.run(command, check=True, capture_output=True)
        except FileNotFoundError:
            hint = "as root: apt-get install qemu-utils"
            raise HarnessError("qemu-img is not installed", hint=hint) from None

    def _on_event(self, name: str, event: str) -> None:
        if guest := self.guests.get(name):
            guest.on_event(event)


def _taps(prefix: str) -> list[str]:
    return [f"{prefix}-{name}" for name in ADDRESSES]

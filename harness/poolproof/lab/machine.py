# SPDX-License-Identifier: GPL-2.0-or-later
"""The virtual machine of a guest: addresses, kernel command line, domain XML."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import quoteattr

from poolproof.lab.hypervisor import cpu_xml

MANAGEMENT_IP4 = "10.254.0.1"

# Everything an unhealthy kernel has to say goes to the console and stops it; under emulation time runs slow,
# so its watchdogs get ten times their usual patience.
BASE_CMDLINE = (
    "console=ttyS0 quiet loglevel=6 panic=0 oops=panic softlockup_panic=1 hung_task_panic=1 "
    "watchdog_thresh=60 rcupdate.rcu_cpu_stall_timeout=210 no_timer_check tsc=reliable net.ifnames=0 "
    "mitigations=off"
)


@dataclass(frozen=True)
class Address:
    """Where guest number N (2: a, 3: b) is reached. The harness is number 1 on the wire."""

    number: int

    @property
    def wire4(self) -> str:
        return f"10.253.0.{self.number}"

    @property
    def wire6(self) -> str:
        return f"fd00:253::{self.number}"

    @property
    def management(self) -> str:
        return f"10.254.0.{self.number}"

    @property
    def wire_mac(self) -> str:
        return f"52:54:00:fd:00:{self.number:02x}"

    @property
    def management_mac(self) -> str:
        return f"52:54:00:fe:00:{self.number:02x}"


@dataclass(frozen=True)
class Machine:
    """All that makes one guest's machine."""

    name: str
    address: Address
    kernel: Path
    initramfs: Path
    rootfs: Path
    tools: Path
    scratch: Path
    console_socket: Path
    wire_tap: str
    management_tap: str
    cpu: str
    memory_mb: int
    vcpus: int
    kvm: bool
    extra_cmdline: str = ""

    def cmdline(self) -> str:
        """The kernel command line."""
        at = self.address
        return (
            f"{BASE_CMDLINE} pp.name={self.name} pp.mgmt={at.management_mac},{at.management}/24 "
            f"pp.wire={at.wire_mac},{at.wire4}/24,{at.wire6}/64 {self.extra_cmdline}"
        ).rstrip()

    def xml(self) -> str:
        """libvirt's domain XML. Devices sit directly on the root bus: fewer bridges to walk at boot."""
        return f"""\
<domain type='{"kvm" if self.kvm else "qemu"}'>
  <name>{self.name}</name>
  <memory unit='MiB'>{self.memory_mb}</memory>
  <vcpu>{self.vcpus}</vcpu>
  <os>
    <type arch='x86_64' machine='q35'>hvm</type>
    <kernel>{_text(self.kernel)}</kernel>
    <initrd>{_text(self.initramfs)}</initrd>
    <cmdline>{_text(self.cmdline())}</cmdline>
  </os>
  <features><acpi/><apic/></features>
  {cpu_xml(self.cpu, self.kvm)}
  <clock offset='utc'/>
  <on_poweroff>destroy</on_poweroff>
  <on_reboot>destroy</on_reboot>
  <on_crash>preserve</on_crash>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    {_disk("vda", self.rootfs, "ppiroot", 4)}
    {_disk("vdb", self.tools, "pptools", 5)}
    {_disk("vdc", self.scratch, "ppscratch", 6, writable=True)}
    {_nic(self.management_tap, self.address.management_mac, 2, offloads=True)}
    {_nic(self.wire_tap, self.address.wire_mac, 3, offloads=False)}
    <serial type='unix'>
      <source mode='connect' path={quoteattr(str(self.console_socket))}/>
      <target port='0'/>
    </serial>
    <controller type='usb' model='none'/>
    <memballoon model='none'/>
    <panic model='isa'/>
  </devices>
</domain>
"""


def _text(value: object) -> str:
    return quoteattr(str(value))[1:-1]


def _slot(number: int) -> str:
    return f"<address type='pci' domain='0' bus='0' slot='{number}' function='0'/>"


def _disk(target: str, path: Path, serial: str, slot: int, writable: bool = False) -> str:
    kind, mark = ("qcow2", "") if writable else ("raw", "<readonly/>")
    return (
        f"<disk type='file' device='disk'><driver name='qemu' type='{kind}' cache='unsafe'/>"
        f"<source file={quoteattr(str(path))}/><target dev='{target}' bus='virtio'/>{mark}"
        f"<serial>{serial}</serial>{_slot(slot)}</disk>"
    )


def _nic(tap: str, mac: str, slot: int, *, offloads: bool) -> str:
    """On the wire nothing is offloaded, so that every frame recorded is whole and carries its checksums."""
    driver = ""
    if not offloads:
        host = _switches("csum", "gso", "tso4", "tso6", "ecn", "ufo", "mrg_rxbuf")
        guest = _switches("csum", "tso4", "tso6", "ecn", "ufo")
        driver = f"<driver><host {host}/><guest {guest}/></driver>"
    return (
        f"<interface type='ethernet'><mac address='{mac}'/><target dev='{tap}' managed='no'/>"
        f"<model type='virtio'/>{driver}{_slot(slot)}</interface>"
    )


def _switches(*names: str) -> str:
    return " ".join(f"{name}='off'" for name in names)


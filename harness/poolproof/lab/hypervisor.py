# SPDX-License-Identifier: GPL-2.0-or-later
"""libvirt of our own: an embedded QEMU driver in this process, its event thread, and domains."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from poolproof.errors import HarnessError

ENV_URI = "POOLPROOF_LIBVIRT_URI"

QEMU_CONF = """\
user = "+{uid}"
group = "+{gid}"
dynamic_ownership = 0
remember_owner = 0
security_driver = "none"
namespaces = []
cgroup_controllers = []
stdio_handler = "file"
"""

# The event loop belongs to the process and can be set up once only.
_events_started = False


def _import_libvirt() -> tuple[ModuleType, ModuleType]:
    try:
        import libvirt
        import libvirt_qemu
    except ImportError as exc:
        raise HarnessError(
            f"libvirt cannot be used from Python: {exc}",
            hint="as root: apt-get install python3-libvirt libvirt-daemon-driver-qemu",
        ) from None
    return libvirt, libvirt_qemu


def qemu_version() -> str:
    """First line of `qemu-system-x86_64 --version`; HarnessError when it is not there."""
    try:
        done = subprocess.run(["qemu-system-x86_64", "--version"], capture_output=True, text=True, check=True)
    except (FileNotFoundError, subprocess.CalledProcessError) as exc:
        raise HarnessError(
            f"QEMU cannot be run: {exc}", hint="as root: apt-get install qemu-system-x86 qemu-utils"
        ) from None
    return done.stdout.splitlines()[0]


class DomainDied(Exception):
    """libvirt refuses an operation because the domain is gone."""


class Domain:
    """One virtual machine. `state()` is `running`, `paused`, `crashed`, `stopped` or `gone`."""

    def __init__(self, hypervisor: Hypervisor, name: str, handle: Any) -> None:
        self.name = name
        self._hypervisor = hypervisor
        self._handle = handle

    def state(self) -> str:
        """What libvirt knows now, without asking QEMU."""
        libvirt = self._hypervisor.libvirt
        try:
            state, _ = self._handle.state()
        except libvirt.libvirtError:
            return "gone"
        return {
            libvirt.VIR_DOMAIN_RUNNING: "running",
            libvirt.VIR_DOMAIN_PAUSED: "paused",
            libvirt.VIR_DOMAIN_CRASHED: "crashed",
        }.get(state, "stopped")

    def monitor(self, command: str) -> str:
        """A command of QEMU's human monitor; HarnessError carries what it complained about."""
        hypervisor = self._hypervisor
        flag = hypervisor.libvirt_qemu.VIR_DOMAIN_QEMU_MONITOR_COMMAND_HMP
        return str(self._do(hypervisor.libvirt_qemu.qemuMonitorCommand, self._handle, command, flag))

    def save_snapshot(self, tag: str) -> None:
        """Save memory, devices and disk under `tag`."""
        self._quietly(f"savevm {tag}")

    def load_snapshot(self, tag: str) -> None:
        """Put everything back to `tag`; a guest that crashed or was paused runs again."""
        if self.state() in ("crashed", "paused"):
            # QEMU can leave "guest-panicked" only by running.
            self._do(self._handle.resume)
        self._quietly(f"loadvm {tag}")
        if self.state() != "running":
            self._do(self._handle.resume)

    def peek(self, address: int, size: int) -> bytes:
        """Guest memory at a kernel virtual address (page tables of what the CPU runs now)."""
        flag = self._hypervisor.libvirt.VIR_MEMORY_VIRTUAL
        step = 32768  # libvirt's message limit is 64 KiB
        pieces = [
            bytes(self._do(self._handle.memoryPeek, address + at, min(step, size - at), flag))
            for at in range(0, size, step)
        ]
        return b"".join(pieces)

    def destroy(self) -> None:
        """Kill it, whatever state it is in."""
        try:
            self._handle.destroy()
        except self._hypervisor.libvirt.libvirtError:
            pass  # already gone

    def _quietly(self, command: str) -> None:
        if text := self.monitor(command).strip():
            raise HarnessError(f"QEMU refused `{command}` for guest {self.name}: {text}")

    def _do(self, function: Callable[..., Any], *arguments: Any) -> Any:
        libvirt = self._hypervisor.libvirt
        try:
            return function(*arguments)
        except libvirt.libvirtError as exc:
            if self.state() in ("gone", "stopped"):
                raise DomainDied(self.name) from exc
            raise HarnessError(f"libvirt, guest {self.name}: {exc}") from exc


class Hypervisor:
    """A connection. `on_event(name, event)` is called from the event thread with `crashed` or `stopped`."""

    def __init__(self, run_dir: Path, cache: Path | None, on_event: Callable[[str, str], None]) -> None:
        """`cache`: directory in which libvirt's knowledge about QEMU is kept between runs."""
        self._root = run_dir / "lv"
        self._cache = cache
        self._on_event = on_event
        self._prepare_root()
        # Read once, when libvirt initializes itself.
        os.environ["LIBVIRT_LOG_OUTPUTS"] = f"3:file:{run_dir}/libvirt.log"
        self.libvirt, self.libvirt_qemu = _import_libvirt()
        self._start_events()
        self.uri = os.environ.get(ENV_URI) or f"qemu:///embed?root={self._root}"
        try:
            self._connection = self.libvirt.open(self.uri)
        except self.libvirt.libvirtError as exc:
            raise HarnessError(
                f"libvirt does not open {self.uri}: {exc}",
                hint="as root: apt-get install libvirt-daemon-driver-qemu qemu-system-x86",
            ) from exc
        self._callback = self._connection.domainEventRegisterAny(
            None, self.libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, self._lifecycle, None
        )

    def _prepare_root(self) -> None:
        (self._root / "etc").mkdir(parents=True)
        (self._root / "etc" / "qemu.conf").write_text(
            QEMU_CONF.format(uid=os.geteuid(), gid=os.getegid())
        )
        if self._cache is not None and self._cache.is_dir():
            shutil.copytree(self._cache, self._root / "cache")

    def _start_events(self) -> None:
        global _events_started
        if _events_started:
            return
        libvirt = self.libvirt
        libvirt.registerErrorHandler(lambda context, error: None, None)  # every error is also an exception
        libvirt.virEventRegisterDefaultImpl()

        def loop() -> None:
            while True:
                libvirt.virEventRunDefaultImpl()

        threading.Thread(target=loop, name="libvirt events", daemon=True).start()
        _events_started = True

    def start(self, name: str, xml: str) -> Domain:
        """Create and start a domain from its XML."""
        try:
            handle = self._connection.createXML(xml, 0)
        except self.libvirt.libvirtError as exc:
            raise HarnessError(
                f"guest {name} does not start: {exc}", hint="is there enough memory and disk space?"
            ) from exc
        return Domain(self, name, handle)

    def close(self) -> None:
        """Kill every domain of this connection and close it."""
        try:
            for handle in self._connection.listAllDomains():
                Domain(self, handle.name(), handle).destroy()
            self._connection.domainEventDeregisterAny(self._callback)
            self._connection.close()
        except self.libvirt.libvirtError:
            pass  # the connection died; the sandbox takes what is left with it
        self._keep_cache()

    def _keep_cache(self) -> None:
        source = self._root / "cache" / "qemu" / "capabilities"
        if self._cache is None or not source.is_dir():
            return
        target = self._cache / "qemu" / "capabilities"
        target.mkdir(parents=True, exist_ok=True)
        for file in source.iterdir():
            temporary = target / f".{file.name}.{os.getpid()}.{time.monotonic_ns()}"
            shutil.copy(file, temporary)
            os.replace(temporary, target / file.name)

    def _lifecycle(self, connection: Any, handle: Any, event: int, detail: int, opaque: Any) -> None:
        libvirt = self.libvirt
        if event == libvirt.VIR_DOMAIN_EVENT_CRASHED:
            self._on_event(handle.name(), "crashed")
        elif event == libvirt.VIR_DOMAIN_EVENT_STOPPED:
            self._on_event(handle.name(), "stopped")


_FEATURE = re.compile(r"[+-]?[\w.-]+$")


def cpu_xml(model: str, kvm: bool) -> str:
    """The <cpu> element for QEMU's `MODEL,-feature,+feature`; `max` and `host` are libvirt's modes."""
    name, *features = model.split(",")
    if not all(_FEATURE.match(word) for word in (name, *features)):
        raise HarnessError(f"not a CPU model: {model!r}", hint='for example "max,-cx16" or "qemu64,-cx16"')
    children = "".join(
        f"<feature policy='{'disable' if word.startswith('-') else 'force'}' name='{word.lstrip('+-')}'/>"
        for word in features
    )
    if name == "max":
        return f"<cpu mode='maximum' check='none'>{children}</cpu>"
    if name == "host":
        mode = "host-passthrough" if kvm else "maximum"
        return f"<cpu mode='{mode}' check='none'>{children}</cpu>"
    model_xml = f"<model fallback='forbid'>{name}</model>{children}"
    return f"<cpu mode='custom' match='exact' check='none'>{model_xml}</cpu>"

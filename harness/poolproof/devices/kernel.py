# SPDX-License-Identifier: GPL-2.0-or-later
"""A pool.ko in a pair of VMs: guest `a` plays servers, `b` clients, the reference sits on their wire."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from poolproof.devices.base import IPV6, Attachment, DeviceError, Finding, HealthReport, ModuleOutcome
from poolproof.devices.reference import ADDRESSES, ReferenceEndpoint, ReferenceHost
from poolproof.errors import HarnessError
from poolproof.lab.agent import AgentError, AgentTimeout, ConnectionLost, GuestDied
from poolproof.lab.guest import Guest
from poolproof.lab.lab import Lab
from poolproof.lab.transcript import transcript
from poolproof.verdicts import DeviceUntestable, NotSupported
from poolref.misbehaviour import Misbehaviour
from poolref.node import Transport
from poolref.tools.kernel_abi import DEFAULT_PORT, MAX_MESSAGE, SessionInfo

MODULE = "pool"
LOAD_TIMEOUT_S = 30.0
UNLOAD_TIMEOUT_S = 30.0
# Longer than any wait that protocol.md grants an ioctl (connect: 10 + 10 + 25 + 30 s).
CALL_TIMEOUT_S = 80.0
_NAMES = {address: name for name, pair in ADDRESSES.items() for address in pair}
_PROC_FILES = ("status", "sessions", "details", "counters")


class DeviceHung(AssertionError):
    """The module does not answer while its guest goes on."""


class KernelEndpoint:
    """pool.ko in one guest, steered through the agent. DeviceError carries the module's errno."""

    kind = "device"

    def __init__(self, guest: Guest, module_path: str) -> None:
        self.guest = guest
        self.name = guest.name
        self.port = DEFAULT_PORT
        self.loaded = False
        self.hung = ""
        self._module_path = module_path

    def call(self, method: str, *, timeout: float = CALL_TIMEOUT_S, **params: Any) -> Any:
        """An agent call. DeviceError when the guest refuses, DeviceHung when nothing comes, GuestDied."""
        try:
            return self.guest.agent.call(method, timeout=timeout, **params)
        except AgentError as exc:
            if exc.errno is None:
                raise HarnessError(f"guest {self.name}: {exc}") from exc
            raise DeviceError(exc.errno, exc.message) from exc
        except AgentTimeout as exc:
            self.hung = self.hung or f"{method} has not returned within {timeout:g} s"
            raise DeviceHung(f"guest {self.name}: {method} has not returned within {timeout:g} s") from exc

    # -- the module

    def load(self, params: str = "") -> None:
        """insmod; the errno of init when it refuses."""
        self.call("insmod", timeout=LOAD_TIMEOUT_S, name=self._module_path, params=params)
        self.loaded = True

    def unload(self) -> float:
        """rmmod; returns the seconds it took. DeviceError(EBUSY/EWOULDBLOCK) when it is in use."""
        started = time.monotonic()
        self.call("rmmod", timeout=UNLOAD_TIMEOUT_S, name=MODULE)
        self.loaded = False
        return time.monotonic() - started

    # -- Endpoint

    def address(self, family: str) -> str:
        return self.guest.address6 if family == IPV6 else self.guest.address4

    def listen(self, port: int = DEFAULT_PORT) -> int:
        return int(self.call("pool.listen", port=port))

    def stop(self) -> None:
        self.call("pool.stop")

    def connect(self, address: str, port: int = DEFAULT_PORT, version: int = 0) -> int:
        return int(self.call("pool.connect", address=address, port=port, version=version))

    def send(self, index: int, data: bytes, channel: int = 0) -> None:
        self.call("pool.send", index=index, data=data, channel=channel)

    def recv(self, index: int, channel: int = 0, max_size: int = MAX_MESSAGE) -> bytes:
        return bytes(self.call("pool.recv", index=index, channel=channel, max_size=max_size))

    def sessions(self) -> list[SessionInfo]:
        return [SessionInfo(**row) for row in self.call("pool.sessions")]

    def close_session(self, index: int) -> None:
        self.call("pool.close_session", index=index)

    def channel(self, index: int, operation: int, channel: int = 0) -> list[int]:
        return list(self.call("pool.channel", index=index, operation=operation, channel=channel))

    # -- what a session does by itself, done now (ABI-17)

    def rekey(self, index: int) -> None:
        self.call("pool.rekey", index=index)

    def configure(self, index: int, deadline_ns: int, **params: int) -> int:
        return int(self.call("pool.configure", index=index, deadline_ns=deadline_ns, **params))

    def confirm(self, index: int) -> None:
        self.call("pool.confirm", index=index)

    def rollback(self, index: int) -> None:
        self.call("pool.rollback", index=index)

    def request_journal(self, index: int) -> None:
        self.call("pool.request_journal", index=index)

    def exchange(self, index: int) -> None:
        self.call("pool.exchange", index=index)

    def challenge(self, index: int) -> None:
        self.call("pool.challenge", index=index)

    def probe_mtu(self, index: int) -> None:
        self.call("pool.probe_mtu", index=index)

    # -- /proc/pool

    def details(self) -> list[dict[str, str]]:
        return [dict(each) for each in self.call("pool.details")]

    def journal(self) -> list[dict[str, int | str]]:
        return [dict(each) for each in self.call("pool.journal")]

    def peers(self) -> list[dict[str, int | str]]:
        return [dict(each) for each in self.call("pool.peers")]

    def integrity(self) -> dict[str, str]:
        return dict(self.call("pool.integrity"))

    def counters(self) -> dict[str, int]:
        try:
            return dict(self.call("pool.counters"))
        except DeviceError as exc:
            # Raised as the builtin that means "not provided", whichever device it is.
            raise FileNotFoundError(exc.errno, exc.strerror) if exc.errno == 2 else exc from exc


class KernelDevice:
    """The pair. A module that cannot be loaded makes the device untestable, with the reason."""

    name = "kernel"

    def __init__(self, lab: Lab, module: ModuleOutcome, run_dir: Path, release: str) -> None:
        self.keylog: list[str] = []
        self.groundwork_failures: dict[str, list[str]] = {}
        self.transport: Transport = "tcp"
        self.module = module
        self.untestable = ""
        self.lab = lab
        self._run_dir = run_dir
        self._release = release
        self._reference = ReferenceHost(self.keylog)
        self._endpoints: dict[str, KernelEndpoint] = {}
        self._scenario = ""
        self._consoles: dict[str, int] = {}
        self._frames = 0
        self._ever_loaded = False
        self._stale: set[str] = set()

    def describe(self) -> Mapping[str, str]:
        return {
            "device": "kernel",
            "build_id": self.module.build_id,
            "release": self.module.source,
            "kernel": self._release,
            "accelerator": self.lab.accelerator.name,
            "accelerator_evidence": self.lab.accelerator.evidence,
            "cpu": self.lab.config.cpu,
        }

    # -- a scenario

    def begin(self, scenario: str) -> None:
        self.keylog.clear()
        self.transport = "tcp"
        self._scenario = scenario
        for name in sorted(self._stale):
            self.lab.replace(name)
        self._stale.clear()
        self._endpoints.clear()
        self._consoles = {name: guest.console.mark() for name, guest in self.lab.guests.items()}
        self._frames = self.lab.wire.mark()

    def deviant(self, wrong: Misbehaviour) -> ReferenceEndpoint:
        return self._reference.deviant(wrong)

    def endpoint(self, kind: str, role: str) -> ReferenceEndpoint | KernelEndpoint:
        if kind == "reference":
            return self._reference.node("reference", "reference", self.transport)
        endpoint = self.bare_endpoint(role)
        if not endpoint.loaded:
            self._bring_up(endpoint)
        return endpoint

    def bare_endpoint(self, role: str) -> KernelEndpoint:
        """The guest for a role, with the module as the scenario left it (at first: not loaded)."""
        if self.module.ko is None:
            raise DeviceUntestable(self.module.failure)
        name = "a" if role == "server" else "b"
        if name not in self._endpoints:
            self._endpoints[name] = KernelEndpoint(self.lab.guests[name], MODULE)
        return self._endpoints[name]

    def _bring_up(self, endpoint: KernelEndpoint) -> None:
        if self.untestable:
            raise DeviceUntestable(self.untestable)
        # A device with nothing but TCP may lack the parameter.
        params = "" if self.transport == "tcp" else f"transport={self.transport}"
        try:
            endpoint.load(params)
        except (DeviceError, DeviceHung, GuestDied) as exc:
            if params and isinstance(exc, DeviceError):
                raise NotSupported(f"the device cannot be loaded with {params}: {exc.strerror}") from exc
            if self._ever_loaded and not isinstance(exc, GuestDied | DeviceHung):
                # It loaded before: what an earlier scenario left behind must not cost this one.
                endpoint.guest.reset()
                self._consoles[endpoint.name] = endpoint.guest.console.mark()
                endpoint.load(params)
                return
            self.untestable = f"the module cannot be loaded: {explain_load(exc)}"
            raise DeviceUntestable(self.untestable) from exc
        self._ever_loaded = True

    def finish(self) -> tuple[HealthReport, Sequence[Attachment]]:
        health = HealthReport()
        attachments: list[Attachment] = []
        complaints, timelines = self._reference.finish()
        for endpoint in self._endpoints.values():
            self._finish_endpoint(endpoint, health, attachments)
        for name, guest in self.lab.guests.items():
            self._read_console(name, guest, health, attachments)
        attachments += timelines + self._capture()
        for each in complaints:
            # The oracle's own trouble is the harness's, and must not pass in silence.
            raise HarnessError(f"the reference failed inside: {each}")
        return health, attachments

    def _finish_endpoint(
        self, endpoint: KernelEndpoint, health: HealthReport, attachments: list[Attachment]
    ) -> None:
        name = endpoint.name
        if endpoint.hung or endpoint.guest.status().state != "running":
            self._stale.add(name)
            if endpoint.hung:
                worsen(health, "died", Finding("hang", endpoint.hung, registers(endpoint.guest), name))
            return
        if not endpoint.loaded:
            return
        try:
            texts = [f"== {each}\n{read_proc(endpoint, each)}" for each in _PROC_FILES]
            attachments.append(Attachment(f"/proc/pool of {name}", "\n".join(texts)))
            endpoint.unload()
        except (DeviceError, DeviceHung, ConnectionLost) as exc:
            self._stale.add(name)
            worsen(health, "complained", Finding("unload", f"the module does not unload: {exc}", "", name))
        except GuestDied:
            self._stale.add(name)

    def _read_console(
        self, name: str, guest: Guest, health: HealthReport, attachments: list[Attachment]
    ) -> None:
        since = self._consoles.get(name, 0)
        dead = guest.status().state != "running"
        if dead:
            guest.console.settle()
            self._stale.add(name)
        text = guest.console.text(since)
        if text.strip():
            attachments.append(Attachment(f"console of {name}", text))
        for each in guest.console.findings(since):
            status = "died" if dead else "complained"
            worsen(health, status, Finding(each.kind, each.title, each.excerpt, name))
        if dead and health.status != "died":
            worsen(health, "died", Finding("death", guest.status().detail, text[-4000:], name))

    def _capture(self) -> list[Attachment]:
        path = self._run_dir / "scenario.pcapng"
        keys = "\n".join(self.keylog)
        count = self.lab.wire.write_pcapng(path, self._frames, secrets=keys, comment=self._scenario)
        missed = self.lab.wire.missed()
        if not count:
            return []
        data = path.read_bytes()
        path.unlink()
        note = f" ({missed} frames missed)" if missed else ""
        text = transcript(self.lab.wire.frames(self._frames), self.keylog, _NAMES)
        attachments = [
            Attachment("packets on the wire", text),
            Attachment(f"wire{note}", data, "application/x-pcapng"),
        ]
        if keys:
            attachments.append(Attachment("keylog", keys))
        return attachments

    def stop(self) -> None:
        self._reference.stop()


def worsen(health: HealthReport, status: str, finding: Finding) -> None:
    """Add a finding; the worst status stays."""
    order = ("clean", "complained", "leaked", "died")
    health.findings.append(finding)
    if order.index(status) > order.index(health.status):
        health.status, health.reason = status, finding.title


def explain_load(exc: Exception) -> str:
    """One line on why loading failed."""
    if isinstance(exc, DeviceError):
        return f"init refused with {exc.strerror} (errno {exc.errno})"
    if isinstance(exc, GuestDied):
        return f"it killed its kernel while loading: {exc.reason}"
    return f"it hangs in init: {exc}"


def read_proc(endpoint: KernelEndpoint, name: str) -> str:
    try:
        return str(endpoint.call("read", path=f"/proc/pool/{name}"))
    except DeviceError as exc:
        return f"not provided ({exc.strerror})"


def registers(guest: Guest) -> str:
    try:
        return guest.registers()
    except (GuestDied, HarnessError) as exc:
        return f"no registers: {exc}"

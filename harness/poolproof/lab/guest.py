# SPDX-License-Identifier: GPL-2.0-or-later
"""One guest: its machine, its console, its agent, and how it does."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import paramiko

from poolproof.errors import HarnessError
from poolproof.lab.agent import Agent, AgentError, AgentTimeout, ConnectionLost, GuestDied
from poolproof.lab.console import Console, ConsoleFinding
from poolproof.lab.hypervisor import Domain, DomainDied, Hypervisor
from poolproof.lab.machine import Machine
from poolproof.lab.toolsdisk import SshIdentity

SNAPSHOT = "base"
BOOT_TIMEOUT_S = 60.0
# How long a broken connection or a silent call waits for an explanation by the console or the hypervisor.
EXPLAIN_S = 1.5
_CONSOLE_LEVEL = 7
_BOOTED = r"^POOLPROOF-(?:READY |INIT-FAILED(?P<failure>.*))"
_RECONNECTS = 3


@dataclass(frozen=True)
class GuestStatus:
    """`state`: running, crashed (kernel stopped, kept for inspection), stopped or gone; `detail` says why."""

    state: str
    detail: str = ""


class Guest:
    """A guest of the lab. Times in seconds; its addresses are those on the wire."""

    def __init__(
        self,
        machine: Machine,
        console: Console,
        hypervisor: Hypervisor,
        identity: SshIdentity,
        boot_timeout: float = BOOT_TIMEOUT_S,
    ) -> None:
        self.name = machine.name
        self.machine = machine
        self.address4 = machine.address.wire4
        self.address6 = machine.address.wire6
        self.mac = machine.address.wire_mac
        self.console = console
        self._hypervisor = hypervisor
        self._boot_timeout = boot_timeout
        self._domain: Domain | None = None
        self._event = ""
        self._since = 0
        self._changed = threading.Condition()
        self.agent = Agent(self.name, machine.address.management, identity, self._explain)

    # -- life ------------------------------------------------------------------------------------------

    def boot(self) -> None:
        """Power on and wait until the agent answers; HarnessError when the image does not come up."""
        self._since = self.console.mark()
        self.console.expect_boot()
        self._event = ""
        self._domain = self._hypervisor.start(self.name, self.machine.xml())
        try:
            said = self.console.wait_for(_BOOTED, self._since, self._boot_timeout)
            if said["failure"] is not None:
                hint = f"its kernel or image lacks something; its console is in {self.console.path}"
                raise HarnessError(f"guest {self.name} did not come up: {said['failure'].strip()}", hint=hint)
            self.agent.connect()
            self.agent.call("console_level", level=_CONSOLE_LEVEL)
        except (TimeoutError, OSError, paramiko.SSHException, AgentError, AgentTimeout, GuestDied) as exc:
            raise HarnessError(
                f"guest {self.name} did not come up: {exc}", hint=f"its console is in {self.console.path}"
            ) from exc

    def save(self) -> None:
        """Take the snapshot that `reset` goes back to. No module may be loaded, no test traffic have been."""
        self.agent.call("preload")
        self.agent.call("watchdogs", on=False)
        self._machine().save_snapshot(SNAPSHOT)
        self.agent.call("watchdogs", on=True)

    def reset(self) -> None:
        """Back to the snapshot, with other randomness than any time before and the right wall clock.

        Works from any state in which the machine still exists; HarnessError or GuestDied otherwise.
        """
        domain = self._machine()
        self.agent.close()
        self.agent.fail_all(ConnectionLost(f"guest {self.name} is being reset"))
        self._event = ""
        try:
            domain.load_snapshot(SNAPSHOT)
        except DomainDied:
            raise GuestDied(self.name, "its virtual machine is gone") from None
        self.console.restored()
        self._since = self.console.mark()
        self._connect()
        self.agent.call("renew", seed=os.urandom(64), ns=time.time_ns())

    def _connect(self) -> None:
        """The first attempt may meet the remains of the connection that the snapshot remembers."""
        for attempt in range(_RECONNECTS):
            try:
                self.agent.connect()
                return
            except (OSError, paramiko.SSHException, EOFError) as exc:
                if (died := self._explain()) is not None:
                    raise died from exc
                if attempt == _RECONNECTS - 1:
                    text = f"guest {self.name} cannot be reached after a restore: {exc}"
                    raise HarnessError(text) from exc

    def destroy(self) -> None:
        """Power off at once. Pending calls end with GuestDied."""
        if self._domain is not None:
            self._domain.destroy()
            self._domain = None
        self.agent.close()
        self.agent.fail_all(GuestDied(self.name, "powered off"))

    # -- how it does -----------------------------------------------------------------------------------

    def status(self) -> GuestStatus:
        """How the guest does, as far as can be told without asking it."""
        if self._domain is None:
            return GuestStatus("gone", "not started")
        state = self._domain.state()
        fatal = self._fatal()
        if state in ("crashed", "running", "paused") and fatal is not None:
            return GuestStatus("crashed", fatal.title)
        if state == "crashed":
            return GuestStatus("crashed", "its kernel panicked")
        if state in ("stopped", "gone"):
            return GuestStatus(state, fatal.title if fatal else "its machine powered off or was reset")
        return GuestStatus("running")

    def on_event(self, event: str) -> None:
        """From the hypervisor: `crashed` or `stopped`. Pending calls end once the report is in."""
        with self._changed:
            self._event = event
            self._changed.notify_all()
        threading.Thread(target=self._fail_pending, name=f"death of {self.name}", daemon=True).start()

    def _fail_pending(self) -> None:
        if (died := self._death()) is not None:
            self.agent.close()  # so that later calls fail at once instead of waiting for an answer
            self.agent.fail_all(died)

    def _fatal(self) -> ConsoleFinding | None:
        fatal = [finding for finding in self.console.findings(self._since) if finding.fatal]
        return fatal[0] if fatal else None

    def _death(self) -> GuestDied | None:
        status = self.status()
        if status.state == "running":
            return None
        self.console.settle()
        finding = self._fatal()
        excerpt = finding.excerpt if finding else self.console.text(self._since)[-4000:]
        return GuestDied(self.name, finding.title if finding else status.detail, excerpt)

    def _explain(self) -> GuestDied | None:
        """Why nothing comes from the guest: its death, for which this waits a moment, or None."""
        with self._changed:
            self._changed.wait_for(
                lambda: bool(self._event) or self.status().state != "running", EXPLAIN_S
            )
        return self._death()

    # -- inspection ------------------------------------------------------------------------------------

    def registers(self) -> str:
        """CPU registers as QEMU prints them: where a guest hangs."""
        return self._machine().monitor("info registers -a")

    def peek(self, address: int, size: int) -> bytes:
        """`size` bytes of guest memory at a kernel virtual address; works on crashed guests."""
        return self._machine().peek(address, size)

    def _machine(self) -> Domain:
        if self._domain is None:
            raise GuestDied(self.name, "not started")
        return self._domain


def together(actions: list[Callable[[], object]]) -> None:
    """Run actions side by side; the first failure is raised once all have ended."""
    failures: list[BaseException] = []

    def run(action: Callable[[], object]) -> None:
        try:
            action()
        except BaseException as exc:
            failures.append(exc)

    threads = [threading.Thread(target=run, args=(action,)) for action in actions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]

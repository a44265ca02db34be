# SPDX-License-Identifier: GPL-2.0-or-later
"""What every device under test looks like to the features.

A *device* is a POOL implementation with two nodes; the *reference* is the oracle that plays the other
side. Features name the two ends of a session by implementation ("reference" or "device"), so the same
scenario runs in every pairing and on every device.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from poolref.misbehaviour import Misbehaviour
from poolref.tools.backend import Backend

IPV4, IPV6 = "IPv4", "IPv6"


class DeviceError(OSError):
    """A device refused or failed an operation; `errno` as spec/abi.md names it."""


@dataclass(frozen=True)
class Finding:
    """Something a device complained about (console, leak check) beside the wire."""

    kind: str
    title: str
    excerpt: str
    node: str


@dataclass(frozen=True)
class Attachment:
    """Evidence to keep with a scenario: text, or bytes of the given media type."""

    name: str
    data: str | bytes
    media_type: str = "text/plain"


@dataclass
class HealthReport:
    """A device's health since the last `begin`: `status` is clean, complained, leaked or died."""

    status: str = "clean"
    reason: str = ""
    findings: list[Finding] = field(default_factory=list)


class Endpoint(Backend, Protocol):
    """One node in the role of client or server. `kind` is "reference" or "device"."""

    name: str
    kind: str

    def address(self, family: str) -> str:
        """The node's address for IPV4 or IPV6, as its peers reach it."""
        ...

    @property
    def port(self) -> int:
        """The port the node listens on, or will listen on next."""
        ...


class Device(Protocol):
    """A POOL implementation under test.

    `begin` puts every node that `endpoint` will hand out into a fresh state; `finish` says how the
    device fared and collects what it left behind. Both never raise for what the device does.
    `keylog` gathers key log lines; `groundwork_failures` remembers what setups failed, and how.
    `transport` (tcp, raw or auto) is that of the nodes handed out from then on; `begin` makes it tcp.
    """

    name: str
    transport: str
    keylog: list[str]
    groundwork_failures: dict[str, list[str]]

    def describe(self) -> Mapping[str, str]:
        """What was tested, for the report: kind, build id, kernel, accelerator, ..."""
        ...

    def begin(self, scenario: str) -> None: ...
    def endpoint(self, kind: str, role: str) -> Endpoint:
        """The node of `kind` ("reference" | "device") that plays `role` ("client" | "server")."""
        ...

    def deviant(self, wrong: Misbehaviour) -> Endpoint:
        """A reference node that misbehaves, one a scenario."""
        ...

    def finish(self) -> tuple[HealthReport, Sequence[Attachment]]: ...
    def stop(self) -> None: ...


@dataclass(frozen=True)
class ModuleOutcome:
    """How the module under test came to be: a built .ko, or why there is none."""

    ko: Path | None
    source: str
    build_id: str = ""
    failure: str = ""
    log: Path | None = None

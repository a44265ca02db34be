# SPDX-License-Identifier: GPL-2.0-or-later
"""The matrix of guest kernels (`vm_images/kernels.toml`)."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import HarnessError

BOOT_METHODS = ("pvh", "bzimage")


@dataclass(frozen=True)
class KernelSpec:
    """One line of the matrix; the fields are explained at the top of kernels.toml."""

    name: str
    suite: str
    image: str
    headers: str
    boot: str = "pvh"
    default: bool = False
    extra: tuple[str, ...] = ()
    archives: tuple[str, ...] = ()
    config: str = ""
    patience: int = 1


def _spec(entry: dict[str, Any]) -> KernelSpec:
    fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in entry.items()}
    return KernelSpec(**fields)


def load_kernels(path: Path) -> list[KernelSpec]:
    """The matrix in file order; HarnessError when it is not well formed."""
    try:
        entries = tomllib.loads(path.read_text()).get("kernel", [])
        specs = [_spec(entry) for entry in entries]
    except (OSError, tomllib.TOMLDecodeError, TypeError) as error:
        raise HarnessError(f"{path}: {error}") from error
    names = [spec.name for spec in specs]
    if len(set(names)) != len(names):
        raise HarnessError(f"{path}: a kernel name occurs twice")
    if sum(spec.default for spec in specs) != 1:
        raise HarnessError(f"{path}: exactly one kernel must have `default = true`")
    if bad := [spec.name for spec in specs if spec.boot not in BOOT_METHODS]:
        raise HarnessError(f"{path}: {bad[0]}: boot must be one of {', '.join(BOOT_METHODS)}")
    return specs


def select(specs: list[KernelSpec], name: str | None) -> KernelSpec:
    """The kernel of that name, or the default one for None."""
    for spec in specs:
        if spec.name == name or (name is None and spec.default):
            return spec
    raise HarnessError(f"no kernel named {name!r}", hint="kernels: " + ", ".join(spec.name for spec in specs))

# SPDX-License-Identifier: GPL-2.0-or-later
"""What a conformance run was asked to do: from the command line and the environment, checked once."""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shlex
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from poolproof.errors import HarnessError

PROJECT = Path(__file__).resolve().parents[2]


def default_cache() -> Path:
    explicit = os.environ.get("POOLPROOF_CACHE")
    if explicit:
        return Path(explicit).resolve()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "poolproof"


@dataclass(frozen=True)
class Settings:
    """One run. Paths are absolute; `pool_src`, `pool_ko` exclude each other (neither: the shipped module)."""

    device: str
    pool_src: Path | None
    pool_ko: Path | None
    kernel: str | None
    kernel_image: Path | None
    kernel_build: Path | None
    kernel_cmdline: str
    tags: str
    only: str
    seed: int
    offline: bool
    bisect: bool
    report_dir: Path
    cache: Path

    def to_json(self) -> str:
        return json.dumps({k: str(v) if isinstance(v, Path) else v for k, v in asdict(self).items()})

    @classmethod
    def from_json(cls, text: str) -> Settings:
        values: dict[str, Any] = json.loads(text)
        for each in fields(cls):
            if "Path" in str(each.type) and values[each.name] is not None:
                values[each.name] = Path(values[each.name])
        return cls(**values)

    def rerun_variables(self) -> str:
        """The make variables that repeat this run, scenario selection aside."""
        pairs = [
            ("DEVICE", self.device if self.device != "kernel" else None),
            ("POOL_SRC", self.pool_src),
            ("POOL_KO", self.pool_ko),
            ("KERNEL", self.kernel),
            ("KERNEL_IMAGE", self.kernel_image),
            ("KERNEL_BUILD", self.kernel_build),
            ("KERNEL_CMDLINE", self.kernel_cmdline or None),
            ("SEED", self.seed),
        ]
        return " ".join(f"{name}={shlex.quote(str(value))}" for name, value in pairs if value is not None)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `poolproof conformance`; each defaults to the make variable of the same name."""
    env = os.environ.get

    def option(flag: str, variable: str, text: str, **kwargs: Any) -> None:
        parser.add_argument(flag, default=env(variable) or None, help=f"{text} [{variable}]", **kwargs)

    option("--device", "DEVICE", "kernel (default) or reference")
    option("--pool-src", "POOL_SRC", "directory of the module's source", metavar="DIR")
    option("--pool-ko", "POOL_KO", "a built module", metavar="FILE")
    option("--kernel", "KERNEL", "a kernel of vm_images/kernels.toml", metavar="NAME")
    option("--kernel-image", "KERNEL_IMAGE", "your own kernel (bzImage or vmlinux)", metavar="FILE")
    option("--kernel-build", "KERNEL_BUILD", "its build directory", metavar="DIR")
    option("--kernel-cmdline", "KERNEL_CMDLINE", "more boot parameters, e.g. slub_debug=FZPU", metavar="TEXT")
    option("--tags", "TAGS", "tag expression, e.g. '@req.HS-03 and not @slow'", metavar="EXPR")
    option("--only", "ONLY", "scenario id, or part of a scenario's name", metavar="TEXT")
    option("--seed", "SEED", "seed of every random choice (default: drawn and printed)", metavar="N")
    option("--report-dir", "REPORT_DIR", "where runs are kept (default: reports)", metavar="DIR")
    parser.add_argument(
        "--offline", action="store_true", default=env("OFFLINE") == "1", help="touch no network [OFFLINE=1]"
    )
    parser.add_argument(
        "--bisect", action="store_true", help="exit 125 when the device could not be tested at all"
    )


def from_arguments(args: argparse.Namespace) -> Settings:
    """Checked settings. Raises HarnessError naming what is wrong with which option."""
    device = args.device or "kernel"
    if device not in ("kernel", "reference"):
        raise HarnessError(f"unknown device {device!r}", hint="DEVICE is kernel or reference")
    if args.pool_src and args.pool_ko:
        raise HarnessError(
            "POOL_SRC and POOL_KO were both given", hint="give the source or the built module, not both"
        )
    if device == "reference" and (args.pool_src or args.pool_ko or args.kernel_image):
        raise HarnessError(
            "a module was given, but DEVICE=reference runs none", hint="leave DEVICE out to test a module"
        )
    if args.kernel and args.kernel_image:
        raise HarnessError(
            "KERNEL and KERNEL_IMAGE were both given", hint="name a kernel of the matrix or bring your own"
        )
    if args.kernel_build and not args.kernel_image:
        raise HarnessError(
            "KERNEL_BUILD needs KERNEL_IMAGE", hint="name the kernel that the build directory belongs to"
        )
    try:
        seed = secrets.randbits(32) if args.seed is None else int(str(args.seed), 0)
    except ValueError:
        raise HarnessError(
            f"SEED is not a number: {args.seed!r}", hint="give the number a report printed"
        ) from None
    return Settings(
        device=device,
        pool_src=_path(args.pool_src, "POOL_SRC", directory=True),
        pool_ko=_path(args.pool_ko, "POOL_KO", directory=False),
        kernel=args.kernel,
        kernel_image=_path(args.kernel_image, "KERNEL_IMAGE", directory=False),
        kernel_build=_path(args.kernel_build, "KERNEL_BUILD", directory=True),
        kernel_cmdline=args.kernel_cmdline or "",
        tags=args.tags or "",
        only=args.only or "",
        seed=seed,
        offline=bool(args.offline),
        bisect=bool(args.bisect),
        report_dir=Path(args.report_dir or PROJECT / "reports").resolve(),
        cache=default_cache(),
    )


def _path(text: str | None, variable: str, *, directory: bool) -> Path | None:
    if not text:
        return None
    path = Path(text).expanduser().resolve()
    if not path.exists():
        raise HarnessError(f"{variable}: no such file or directory: {text}", hint="check the path")
    if directory and not path.is_dir():
        raise HarnessError(
            f"{variable}: not a directory: {text}", hint="name the directory that holds the Kbuild file"
        )
    if not directory and not path.is_file():
        raise HarnessError(f"{variable}: not a file: {text}", hint="name the file itself")
    return path

# SPDX-License-Identifier: GPL-2.0-or-later
"""A conformance run: what happens outside the sandbox (build, report) and inside it (lab, features)."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shlex
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from poolproof import behaving, reports
from poolproof.behaving import RunConfig
from poolproof.devices.base import DeviceError, ModuleOutcome
from poolproof.devices.puppet_stream import PuppetError
from poolproof.errors import HarnessError
from poolproof.image import hostsetup
from poolproof.image.store import GuestImage, ImageStore
from poolproof.lab import sandbox
from poolproof.settings import PROJECT, Settings
from poolproof.verdicts import gate, requirements, results
from poolproof.verdicts.results import Environment
from poolref.errors import PoolError

FEATURES = PROJECT / "features"
SHIPPED = PROJECT / "kernel"
REQUIREMENTS = PROJECT / "spec" / "requirements.toml"


@dataclass(frozen=True)
class Job:
    """What the inside of the sandbox needs to know."""

    settings: Settings
    run_dir: Path
    image: GuestImage | None
    module: ModuleOutcome | None
    command: str

    def save(self, path: Path) -> None:
        path.write_text(
            json.dumps(
                {
                    "settings": self.settings.to_json(),
                    "run_dir": str(self.run_dir),
                    "image": _plain(self.image),
                    "module": _plain(self.module),
                    "command": self.command,
                }
            )
        )

    @classmethod
    def load(cls, path: Path) -> Job:
        data: dict[str, Any] = json.loads(path.read_text())
        image, module = data["image"], data["module"]
        return cls(
            Settings.from_json(data["settings"]),
            Path(data["run_dir"]),
            GuestImage(**_paths(image, "vmlinux", "bzimage", "initramfs", "rootfs")) if image else None,
            ModuleOutcome(**_paths(module, "ko", "log")) if module else None,
            data["command"],
        )


def _plain(value: GuestImage | ModuleOutcome | None) -> dict[str, Any] | None:
    if value is None:
        return None
    return {name: str(each) if isinstance(each, Path) else each for name, each in asdict(value).items()}


def _paths(values: dict[str, Any], *names: str) -> dict[str, Any]:
    return {k: Path(v) if k in names and v is not None else v for k, v in values.items()}


# -- outside


def run(settings: Settings) -> int:
    """The whole run; returns the exit status. Raises HarnessError when it cannot be carried out."""
    needed = hostsetup.sandbox_requirements() if settings.device == "reference" else hostsetup.requirements()
    hostsetup.ensure(needed, offline=settings.offline, progress=_progress)
    behaving.listing(
        _run_config(settings, Path(os.devnull))
    )  # a bad selection is said before anything is built
    settings.report_dir.mkdir(parents=True, exist_ok=True)
    with _only_run(settings.report_dir):
        run_dir = reports.new_run_dir(settings.report_dir)
        print(f"poolproof: seed {settings.seed}, run {run_dir.name}", flush=True)
        image, module = _prepare(settings, run_dir)
        job = run_dir / "job.json"
        Job(settings, run_dir, image, module, shlex.join(["poolproof", *sys.argv[1:]])).save(job)
        status = sandbox.enter([sys.executable, "-m", "poolproof.cli", "inside-sandbox", str(job)])
        job.unlink(missing_ok=True)
        return _report(settings, run_dir, status)


def _prepare(settings: Settings, run_dir: Path) -> tuple[GuestImage | None, ModuleOutcome | None]:
    if settings.device == "reference":
        return None, None
    from poolproof.devices.module import obtain

    store = ImageStore(settings.cache, offline=settings.offline, progress=_progress)
    return obtain(settings, store, run_dir, SHIPPED)


def _progress(text: str) -> None:
    print(f"poolproof: {text}", flush=True)


@contextlib.contextmanager
def _only_run(report_dir: Path) -> Iterator[None]:
    """Hold the report directory. HarnessError naming the process that has it."""
    path = report_dir / ".lock"
    with path.open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            holder = lock.read().strip() or "unknown"
            raise HarnessError(
                f"a run is already active in {report_dir} (process {holder})",
                hint="wait for it, or give this one a directory of its own with REPORT_DIR=",
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def _report(settings: Settings, run_dir: Path, status: int) -> int:
    """Write every view of the results; the exit status is the results' own."""
    try:
        saved = run_dir / behaving.RESULTS
        result = results.load(saved) if saved.exists() else behaving.recover(run_dir)
    except ValueError as exc:
        raise HarnessError(
            f"the run ended with status {status} before any scenario", hint=f"what there is lies in {run_dir}"
        ) from exc
    if saved.exists() and status != result.exit_status:
        trouble = results.HarnessFault("teardown", "", f"the sandbox ended with status {status}")
        result = replace(result, harness_errors=(*result.harness_errors, trouble))
    result = replace(result, exit_status=gate.exit_status(result, bisect=settings.bisect))
    results.save(result, saved)
    ledger = requirements.load(REQUIREMENTS)
    renderer = reports.renderer(settings.cache, offline=settings.offline, progress=_progress)
    written = reports.write_all(result, run_dir, ledger=ledger, spec_dir=PROJECT / "spec", renderer=renderer)
    reports.show_summary(result, written, ledger=ledger)
    return result.exit_status


def list_scenarios(settings: Settings) -> int:
    for case in behaving.listing(_run_config(settings, Path(os.devnull))):
        print(f"{case.id}\n    {case.name}")
    return 0


def prefetch(settings: Settings) -> int:
    """Everything an offline run needs, into the cache."""
    hostsetup.ensure(progress=_progress)
    store = ImageStore(settings.cache, progress=_progress)
    store.prefetch([settings.kernel])
    page = reports.renderer(settings.cache, progress=_progress)
    if isinstance(page, reports.CannotRender):
        print(f"poolproof: reports will have no HTML page: {page}")
    print(f"poolproof: ready for OFFLINE=1, cache in {settings.cache}")
    return 0


def list_kernels() -> int:
    from poolproof.settings import default_cache

    for each in ImageStore(default_cache()).kernels():
        print(each.name)
    return 0


# -- inside


def run_inside(job_path: str) -> int:
    """Run the features in the sandbox; results go to the run's directory."""
    sandbox.prepare()
    job = Job.load(Path(job_path))
    with _device(job) as device:
        environment = replace(Environment(seed=job.settings.seed), **device.describe())
        context = {"device": device, "seed": job.settings.seed}
        config = _run_config(job.settings, job.run_dir)
        config = replace(config, environment=environment, command=job.command, context=context)
        result = behaving.run(config)
    return result.exit_status


@contextlib.contextmanager
def _device(job: Job) -> Iterator[Any]:
    if job.settings.device == "reference":
        from poolproof.devices.reference import ReferenceDevice, address_loopback

        address_loopback()
        reference = ReferenceDevice(version("poolproof"))
        try:
            yield reference
        finally:
            reference.stop()
        return
    from poolproof.devices.kernel import MODULE, KernelDevice
    from poolproof.lab.lab import Lab, LabConfig

    if job.image is None or job.module is None:
        raise HarnessError("the job names no image or module", hint="start runs with `poolproof conformance`")
    modules = {MODULE: job.module.ko} if job.module.ko else {}
    started = time.monotonic()
    config = LabConfig(
        image=job.image,
        run_dir=job.run_dir,
        cache=job.settings.cache,
        seed=job.settings.seed,
        modules=modules,
        extra_cmdline=job.settings.kernel_cmdline,
    )
    with Lab(config) as lab:
        _progress(f"pair up after {time.monotonic() - started:.1f} s ({lab.accelerator.name})")
        device = KernelDevice(lab, job.module, job.run_dir, job.image.release)
        try:
            yield device
        finally:
            device.stop()


def _run_config(settings: Settings, run_dir: Path) -> RunConfig:
    from poolproof.lab.agent import GuestDied

    return RunConfig(
        features=FEATURES,
        run_dir=run_dir,
        tool_version=version("poolproof"),
        spec_id=requirements.load(REQUIREMENTS).spec_id,
        rerun=f"make conformance {settings.rerun_variables()}",
        tags=_tags(settings),
        only=[settings.only] if settings.only else (),
        bisect=settings.bisect,
        failures=(PuppetError, DeviceError, PoolError),
        deaths=(GuestDied,),
    )


def _tags(settings: Settings) -> list[str]:
    # Whoever selects nothing is spared the scenarios that wait for minutes.
    chosen = [settings.tags] if settings.tags else [] if settings.only else ["not @slow"]
    return chosen + (["not @needs.kernel"] if settings.device == "reference" else [])

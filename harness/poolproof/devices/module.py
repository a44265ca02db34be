# SPDX-License-Identifier: GPL-2.0-or-later
"""How the module under test comes to be: the shipped source, a user's source, or a user's .ko."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from poolproof.devices.base import ModuleOutcome
from poolproof.errors import HarnessError
from poolproof.image.ko import inspect_ko
from poolproof.image.modbuild import BuildFailure, build_module
from poolproof.image.store import BuildTree, GuestImage, ImageStore
from poolproof.settings import Settings


def obtain(
    settings: Settings, store: ImageStore, run_dir: Path, shipped: Path
) -> tuple[GuestImage, ModuleOutcome]:
    """The guest image and the module for it. A module that does not build is an outcome, not an error.

    Raises HarnessError for what makes the request senseless: no module, one for another kernel.
    """
    tree: BuildTree | None = None
    if settings.kernel_image is not None:
        image, tree = store.custom(settings.kernel_image, settings.kernel_build)
    else:
        image = store.guest(settings.kernel)
    if settings.pool_ko is not None:
        return image, _given(settings.pool_ko, image, run_dir)
    source = settings.pool_src or shipped
    if tree is None:
        if settings.kernel_image is not None:
            raise HarnessError(
                "a module cannot be built for a kernel without its build directory",
                hint="add KERNEL_BUILD=DIR, or give a built module with POOL_KO=FILE",
            )
        tree = store.build_tree(settings.kernel)
    return image, _built(source, tree, run_dir)


def _given(path: Path, image: GuestImage, run_dir: Path) -> ModuleOutcome:
    info = inspect_ko(path)
    if info.release != image.release:
        raise HarnessError(
            f"POOL_KO: {path} is built for kernel {info.release}, the guest runs {image.release}",
            hint="build it for that kernel, or choose the guest's with KERNEL= or KERNEL_IMAGE=",
        )
    # A copy: the run must not depend on what happens to the user's file while it lasts.
    copy = run_dir / path.name
    shutil.copyfile(path, copy)
    return ModuleOutcome(copy, str(path), _digest(copy))


def _built(source: Path, tree: BuildTree, run_dir: Path) -> ModuleOutcome:
    result = build_module(tree, source, run_dir)
    if isinstance(result, BuildFailure):
        failure = f"the module in {source} does not build: {result.first_error}"
        return ModuleOutcome(None, str(source), failure=failure, log=result.log)
    return ModuleOutcome(result.ko, str(source), result.build_id, log=result.log)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()

# SPDX-License-Identifier: GPL-2.0-or-later
"""Which modules go into an initramfs, and where."""

from __future__ import annotations

import lzma
from pathlib import Path

import pytest
from test_image_cpio import members

from poolproof.errors import HarnessError
from poolproof.image.initramfs import ModuleTree, build_initramfs

DEP = """\
kernel/drivers/block/virtio_blk.ko: kernel/drivers/virtio/virtio.ko
kernel/drivers/virtio/virtio.ko:
kernel/fs/squash.ko.xz:
kernel/lib/crypto/libchacha.ko:
kernel/lib/crypto/lib-poly.ko: kernel/lib/crypto/libchacha.ko kernel/crypto/base.ko
kernel/crypto/base.ko:
kernel/sound/noise.ko:
"""


@pytest.fixture
def modules(tmp_path: Path) -> Path:
    directory = tmp_path / "modules" / "6.1-test"
    for line in DEP.splitlines():
        path = directory / line.split(":")[0]
        path.parent.mkdir(parents=True, exist_ok=True)
        content = path.name.encode()
        path.write_bytes(lzma.compress(content) if path.suffix == ".xz" else content)
    (directory / "modules.dep").write_text(DEP)
    (directory / "modules.dep.bin").write_bytes(b"index")
    (directory / "modules.builtin").write_text("kernel/fs/over-lay.ko\n")
    return directory


def test_what_a_module_needs_comes_before_it(modules: Path) -> None:
    tree = ModuleTree(modules)
    assert tree.closure(["virtio_blk", "over_lay"]) == [
        "kernel/drivers/virtio/virtio.ko",
        "kernel/drivers/block/virtio_blk.ko",
    ]
    # modules.dep lists direct and indirect needs, the innermost last.
    assert tree.closure(["lib_poly"]) == [
        "kernel/crypto/base.ko",
        "kernel/lib/crypto/libchacha.ko",
        "kernel/lib/crypto/lib-poly.ko",
    ]


def test_only_an_optional_module_may_be_missing(modules: Path) -> None:
    tree = ModuleTree(modules)
    assert tree.closure(["-absent"]) == []
    with pytest.raises(HarnessError, match="no module absent"):
        tree.closure(["absent"])


def test_patterns_bring_dependencies(modules: Path) -> None:
    tree = ModuleTree(modules)
    assert set(tree.matching(["lib/crypto/*"])) == {
        "kernel/lib/crypto/libchacha.ko",
        "kernel/lib/crypto/lib-poly.ko",
        "kernel/crypto/base.ko",
    }
    assert tree.matching(["fs/squash.ko"]) == ["kernel/fs/squash.ko.xz"]


def test_the_archive_holds_init_early_modules_and_layer(tmp_path: Path, modules: Path) -> None:
    recipe = tmp_path / "recipe"
    recipe.mkdir()
    (recipe / "init").write_text("#!/bin/busybox sh\n")
    (recipe / "early.list").write_text("virtio_blk  # disk\nsquash\n")
    (recipe / "boot.list").write_text("lib_poly\n-absent\n")
    (recipe / "available.list").write_text("lib/crypto/*\n")
    busybox = tmp_path / "busybox"
    busybox.write_bytes(b"busybox")
    output = tmp_path / "initramfs"
    build_initramfs(recipe, modules, busybox, output)
    found = members(output.read_bytes())
    layer = "layer/usr/lib/modules"
    assert found["init"][:2] == (0o100755, b"#!/bin/busybox sh\n")
    assert found["dev/console"][2] == (5, 1)
    early = [name for name in found if name.startswith("early/")]
    assert early == ["early/00-virtio.ko", "early/01-virtio_blk.ko", "early/02-squash.ko"]
    assert found["early/02-squash.ko"][1] == b"squash.ko.xz", "busybox loads only what is not compressed"
    assert found[f"{layer}/boot.list"][1] == b"base libchacha lib_poly\n"
    assert f"{layer}/6.1-test/kernel/lib/crypto/lib-poly.ko" in found
    assert found[f"{layer}/6.1-test/modules.dep.bin"][1] == b"index"
    assert not any("noise" in name for name in found)


def test_a_kernel_without_modules(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe"
    recipe.mkdir()
    (recipe / "init").write_text("#!/bin/busybox sh\n")
    busybox = tmp_path / "busybox"
    busybox.write_bytes(b"busybox")
    build_initramfs(recipe, None, busybox, tmp_path / "initramfs")
    found = members((tmp_path / "initramfs").read_bytes())
    assert found["layer/usr/lib/modules/boot.list"][1] == b"\n"
    assert not any(name.startswith("early/") for name in found)

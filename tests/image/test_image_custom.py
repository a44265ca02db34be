# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernels that the user built."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import pytest
from test_image_bootimage import ELF, make_bzimage

from poolproof.errors import HarnessError
from poolproof.image.custom import compiler_note, find_kernel_build, require_config
from poolproof.image.debian import read_list
from poolproof.image.store import RECIPE, ImageStore

RELEASE = "6.1.0-7-test"
NEEDS = RECIPE / "initramfs" / "needs.list"
COMPLETE = "".join(f"CONFIG_{line.removeprefix('y:')}=y\n" for line in read_list(NEEDS))


@pytest.fixture
def build(tmp_path: Path) -> Path:
    """A kernel build directory outside its source tree, with one module."""
    directory = tmp_path / "build"
    (directory / "include/generated").mkdir(parents=True)
    (directory / "include/generated/utsrelease.h").write_text(f'#define UTS_RELEASE "{RELEASE}"\n')
    (directory / ".config").write_text(COMPLETE)
    (tmp_path / "linux").mkdir()
    (directory / "Makefile").write_text(f"# Automatically generated\ninclude {tmp_path}/linux/Makefile\n")
    (directory / "modules.order").write_text("kernel/net/here.ko\nnet/gone.o\nnet/new.o\n")
    (directory / "net").mkdir()
    (directory / "net/here.ko").write_text("1")
    (directory / "net/new.ko").write_text("1")
    return directory


def test_a_build_directory(build: Path, tmp_path: Path) -> None:
    found = find_kernel_build(build, RELEASE)
    assert (found.build, found.installed) == (build, None)
    assert found.modules() == [build / "net/here.ko", build / "net/new.ko"]
    assert found.sources() == (build, tmp_path / "linux")
    assert found.make_args() == ()
    before = found.fingerprint()
    (build / "net/new.ko").write_text("12")
    assert found.fingerprint() != before


def test_installed_modules(build: Path, tmp_path: Path) -> None:
    directory = tmp_path / "root/lib/modules" / RELEASE
    (directory / "kernel").mkdir(parents=True)
    (directory / "kernel/x.ko.xz").write_text("")
    for path in (tmp_path / "root", directory):
        found = find_kernel_build(path, RELEASE)
        assert (found.build, found.installed) == (None, directory)
        assert found.modules() == [directory / "kernel/x.ko.xz"]
    (directory / "build").symlink_to(build)
    assert find_kernel_build(tmp_path / "root", RELEASE).build == build
    with pytest.raises(HarnessError, match=r"has no modules\.dep\.bin"), found.module_directory():
        pass


def test_what_is_no_kernel_build_is_named(build: Path, tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match="no such directory"):
        find_kernel_build(tmp_path / "absent", RELEASE)
    with pytest.raises(HarnessError, match="neither a kernel build directory nor"):
        find_kernel_build(tmp_path / "linux", RELEASE)
    with pytest.raises(HarnessError, match=r"is of kernel 6\.1\.0-7-test, the image is 6\.9"):
        find_kernel_build(build, "6.9")
    (tmp_path / "root/lib/modules/5.0").mkdir(parents=True)
    with pytest.raises(HarnessError, match=r"modules for 5\.0, the image is 6\.1"):
        find_kernel_build(tmp_path / "root", RELEASE)


def test_what_a_kernel_lacks_is_listed() -> None:
    require_config(COMPLETE, NEEDS, with_modules=False)
    lacking = COMPLETE.replace("CONFIG_SQUASHFS=y\n", "").replace(
        "CONFIG_VIRTIO_NET=y", "CONFIG_VIRTIO_NET=m"
    )
    require_config(lacking + "CONFIG_SQUASHFS=m\n", NEEDS, with_modules=True)
    with pytest.raises(HarnessError) as caught:
        require_config(lacking, NEEDS, with_modules=False)
    assert "CONFIG_SQUASHFS, CONFIG_VIRTIO_NET=y (it is a module)" in caught.value.message
    with pytest.raises(HarnessError, match=r"CONFIG_TMPFS=y \(it is a module\)"):
        require_config(COMPLETE.replace("CONFIG_TMPFS=y", "CONFIG_TMPFS=m"), NEEDS, with_modules=True)


def test_a_kernel_that_lacks_drivers_is_refused_before_anything_is_built(tmp_path: Path) -> None:
    kernel = ELF + b"IKCFG_ST" + gzip.compress(b"CONFIG_MODULES=y\n") + b"IKCFG_ED"
    file = tmp_path / "bzImage"
    file.write_bytes(make_bzimage(gzip.compress(kernel) + struct.pack("<I", len(kernel))))
    store = ImageStore(tmp_path / "cache", offline=True)
    with pytest.raises(HarnessError, match=r"this kernel lacks what a guest needs: .*CONFIG_VIRTIO_BLK"):
        store.custom(file, None)
    assert not (tmp_path / "cache").exists()


def test_an_elf_kernel_without_pvh_entry_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "vmlinux"
    file.write_bytes(ELF)
    with pytest.raises(HarnessError, match="no PVH entry"):
        ImageStore(tmp_path / "cache", offline=True).custom(file, None)


@pytest.mark.parametrize(
    ("built", "here", "note"),
    [
        ("gcc-12 (Debian 12.2.0-14) 12.2.0", "gcc (Debian 12.2.0-14) 12.2.0", False),
        ("gcc (Debian 12.2.0-14) 12.2.0", "gcc (Debian 14.2.0-19) 14.2.0", True),
    ],
)
def test_another_compiler_than_the_kernels_is_mentioned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, built: str, here: str, note: bool
) -> None:
    (tmp_path / "gcc").write_text(f"#!/bin/sh\necho '{here}'\n")
    (tmp_path / "gcc").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    config = f'CONFIG_CC_VERSION_TEXT="{built}"\n'
    assert bool(compiler_note(config)) == note
    assert compiler_note("") is None

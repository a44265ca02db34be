# SPDX-License-Identifier: GPL-2.0-or-later
"""When images are built anew, and what happens without network. A script stands in for mmdebstrap."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from test_image_bootimage import ELF, make_bzimage
from test_image_cpio import members

from poolproof.errors import HarnessError
from poolproof.image import debian
from poolproof.image.store import RECIPE, ImageStore

RELEASE = "6.1.0-7-test"


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    return Path(shutil.copytree(RECIPE, tmp_path / "recipe"))


@pytest.fixture
def builds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A mmdebstrap that yields the same small tree each time, and a file that notes each call of it."""
    root = tmp_path / "tree"
    modules = root / "usr/lib/modules" / RELEASE
    modules.mkdir(parents=True)
    (modules / "build").symlink_to("/usr/src/headers")
    (modules / "modules.dep").write_text("kernel/virtio_blk.ko:\n")
    (modules / "kernel").mkdir()
    (modules / "kernel/virtio_blk.ko").write_bytes(b"module")
    names = ("virtio_pci", "squashfs", "overlay", "virtio_net", "af_packet")
    (modules / "modules.builtin").write_text("".join(f"kernel/{name}.ko\n" for name in names))
    (root / "boot").mkdir()
    (root / "boot" / f"vmlinuz-{RELEASE}").write_bytes(make_bzimage(ELF))
    (root / "usr/bin").mkdir()
    (root / "usr/bin/busybox").write_bytes(b"busybox")
    log = tmp_path / "builds"
    log.write_text("")
    fakes = tmp_path / "bin"
    fakes.mkdir()
    (fakes / "mmdebstrap").write_text(f'#!/bin/sh\necho "$@" >> {log}\nexec tar -c -C {root} .\n')
    (fakes / "mksquashfs").write_text('#!/bin/sh\nexec cat > "$2"\n')
    for program in fakes.iterdir():
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fakes}:{os.environ['PATH']}")
    monkeypatch.setattr(debian, "KEYRING", log)
    return log


def count(builds: Path) -> int:
    return sum("--include" in line for line in builds.read_text().splitlines())


def store(tmp_path: Path, recipe: Path, *, offline: bool = False) -> ImageStore:
    return ImageStore(tmp_path / "cache", recipe=recipe, offline=offline, progress=lambda _text: None)


def test_an_image_is_complete_and_kept(tmp_path: Path, recipe: Path, builds: Path) -> None:
    image = store(tmp_path, recipe).guest()
    assert (image.kernel, image.release) == ("6.1-cloud", RELEASE)
    assert image.vmlinux.read_bytes() == ELF
    assert image.bzimage.read_bytes() == make_bzimage(ELF)
    found = members(image.initramfs.read_bytes())
    assert found["early/00-virtio_blk.ko"][1] == b"module"
    assert found["init"][1] == (recipe / "initramfs/init").read_bytes()
    assert image.rootfs.stat().st_size > 0
    assert count(builds) == 2
    assert store(tmp_path, recipe).guest() == image
    tree = store(tmp_path, recipe).build_tree("6.1-cloud")
    assert (tree.release, tree.kdir) == (RELEASE, f"/lib/modules/{RELEASE}/build")
    assert (tree.root / "usr/bin/busybox").exists()
    assert count(builds) == 2, "image and build tree of a kernel come from one unpacking"


@pytest.mark.parametrize(
    ("file", "text", "rebuilt"),
    [
        ("rootfs/packages.list", "another\n", 1),
        ("rootfs/overlay/sbin/pp-init", "# changed\n", 1),
        ("kernel/finish.sh", "# changed\n", 1),
        ("merged-usr.sh", "# changed\n", 2),
        ("initramfs/init", "# changed\n", 0),
        ("modbuild/sandbox.sh", "# changed\n", 0),
    ],
)
def test_a_changed_recipe_makes_a_new_image(
    tmp_path: Path, recipe: Path, builds: Path, file: str, text: str, rebuilt: int
) -> None:
    before = store(tmp_path, recipe).guest()
    count_before = count(builds)
    with (recipe / file).open("a") as stream:
        stream.write(text)
    after = store(tmp_path, recipe).guest()
    assert count(builds) - count_before == rebuilt
    changed = {file.split("/")[0] for file in (file,)} - {"modbuild"}
    assert (after != before) == bool(changed)
    assert (after.image_id != before.image_id) == (file == "initramfs/init"), (
        "the id follows the content alone"
    )


def test_offline_uses_what_is_there_and_says_what_is_not(tmp_path: Path, recipe: Path, builds: Path) -> None:
    with pytest.raises(HarnessError, match=r"offline, and the cache .* has no kernel-6\.1-cloud") as caught:
        store(tmp_path, recipe, offline=True).guest()
    assert "prefetch" in caught.value.hint
    assert count(builds) == 0
    image = store(tmp_path, recipe).prefetch()[0]
    assert store(tmp_path, recipe, offline=True).guest() == image
    # An initramfs needs no network.
    with (recipe / "initramfs/init").open("a") as stream:
        stream.write("# changed\n")
    assert store(tmp_path, recipe, offline=True).guest().initramfs != image.initramfs


def test_headers_of_another_release_are_noticed(tmp_path: Path, recipe: Path, builds: Path) -> None:
    (tmp_path / "tree/usr/lib/modules" / RELEASE / "build").unlink()
    with pytest.raises(HarnessError, match="linux-headers-cloud-amd64 is not of the release"):
        store(tmp_path, recipe).guest()
    assert not [path for path in (tmp_path / "cache").iterdir() if path.is_dir()]

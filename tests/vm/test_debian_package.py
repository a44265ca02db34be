# SPDX-License-Identifier: GPL-2.0-or-later
"""The Debian package builds, and what it installs compiles for a kernel, by DKMS's own command."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from poolproof.image.modbuild import BuiltModule, build_module
from poolproof.image.store import ImageStore
from poolproof.settings import PROJECT, default_cache

pytestmark = pytest.mark.vm

KERNEL = os.environ.get("POOLPROOF_TEST_KERNEL") or None


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree that the package brings."""
    out = tmp_path_factory.mktemp("deb")
    subprocess.run([PROJECT / "kernel" / "debian" / "build.sh", out], check=True, capture_output=True)
    (package,) = out.glob("pool-dkms_*_all.deb")
    tree = out / "root"
    subprocess.run(["dpkg-deb", "-x", package, tree], check=True)
    subprocess.run(["dpkg-deb", "-e", package, tree / "DEBIAN"], check=True)
    return tree


def test_the_package_leaves_building_to_dkms(installed: Path) -> None:
    assert re.search(r"^Depends:.*\bdkms\b", (installed / "DEBIAN" / "control").read_text(), re.M)
    assert "dkms" in (installed / "DEBIAN" / "postinst").read_text()
    assert list(installed.rglob("*.ko*")) == []
    assert (installed / "usr/share/man/man4/pool.4.gz").is_file()


def test_the_installed_source_compiles_and_modinfo_describes_it(installed: Path, tmp_path: Path) -> None:
    (source,) = (installed / "usr" / "src").iterdir()
    assert re.fullmatch(r"pool-[\d.]+", source.name)
    built = build_module(ImageStore(default_cache()).build_tree(KERNEL), source, tmp_path, top=source)
    assert isinstance(built, BuiltModule), built
    assert built.log.read_text().count("warning:") == 0
    listed = subprocess.run(["modinfo", "-0", built.ko], check=True, capture_output=True, text=True).stdout
    info: dict[str, list[str]] = {}
    for field in listed.split("\0"):
        name, _, value = field.partition("=")
        if not value:
            name, _, value = field.partition(":")
        info.setdefault(name.strip(), []).append(value.strip())
    assert info["version"] == [source.name.removeprefix("pool-")]
    assert info["license"] == ["GPL"]
    assert info["name"] == ["pool"]
    assert info["description"][0].startswith("POOL")
    assert info["author"]
    parameters = {each.partition(":")[0] for each in info["parm"]}
    assert {"transport", "difficulty", "rekey_sec"} <= parameters
    assert "fault" not in parameters, "a package has no faults in it"

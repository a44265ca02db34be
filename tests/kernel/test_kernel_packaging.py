# SPDX-License-Identifier: GPL-2.0-or-later
"""What DKMS, Debian and modinfo are told about the module agrees with the module."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

KERNEL = Path(__file__).resolve().parents[2] / "kernel"
MAIN = (KERNEL / "main.c").read_text()
SOURCES = {path.name: path.read_text() for path in KERNEL.glob("*.c") if not path.name.endswith(".mod.c")}


def tags(name: str) -> list[str]:
    """What MODULE_<NAME>("...") says in any source."""
    return [
        text
        for source in SOURCES.values()
        for text in re.findall(rf'^MODULE_{name}\("(.*)"\);', source, re.M)
    ]


def parameters() -> set[str]:
    calls = re.findall(r"^module_param(?:_named|_string)?\((\w+)", "\n".join(SOURCES.values()), re.M)
    assert calls
    return set(calls)


def dkms() -> dict[str, str]:
    """dkms.conf as the shell that DKMS reads it with sees it."""
    script = 'kernel_source_dir=/BUILD; . "$1"; set'
    done = subprocess.run(
        ["bash", "--posix", "-c", script, "-", str(KERNEL / "dkms.conf")],
        capture_output=True, text=True, check=True, env={"PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    values = dict(re.findall(r"^(\w+)='?(.*?)'?$", done.stdout, re.M))
    arrays = {f"{name}[0]": text for name, text in re.findall(r'^(\w+)=\(\[0\]="(.*)"\)$', done.stdout, re.M)}
    return values | arrays


def test_dkms_builds_the_module_that_kbuild_makes() -> None:
    conf = dkms()
    assert re.findall(r"^obj-m\s*:?=\s*(\S+)\.o$", (KERNEL / "Kbuild").read_text(), re.M) == [
        conf["BUILT_MODULE_NAME[0]"]
    ]
    assert conf["DEST_MODULE_LOCATION[0]"].startswith("/updates")
    assert conf["AUTOINSTALL"] == "yes"


def test_dkms_names_the_module_s_version() -> None:
    assert tags("VERSION") == [dkms()["PACKAGE_VERSION"]]


@pytest.mark.parametrize(("field", "goal"), [("MAKE[0]", "modules"), ("CLEAN", "clean")])
def test_the_commands_of_dkms_reach_kbuild(field: str, goal: str, tmp_path: Path) -> None:
    build = tmp_path / "build"
    build.mkdir()
    (build / "Makefile").write_text("modules clean:\n\t@echo $@ M=$(M) for $(KERNELRELEASE)\n")
    shutil.copy(KERNEL / "Makefile", tmp_path)
    command = [*dkms()[field].replace("/BUILD", str(build)).split(), "-s", "KERNELRELEASE=6.1.0-test"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert f"{goal} M={tmp_path} for 6.1.0-test\n" in done.stdout


@pytest.mark.parametrize(
    ("release", "taken"),
    [("6.1.0-41-amd64", True), ("6.12.9", True), ("7.3-rc1", True), ("10.0.1", True), ("6.0.19", False),
     ("5.15.0", False), ("4.19.0", False)],
)  # fmt: skip
def test_dkms_builds_for_the_kernels_that_the_module_takes(release: str, taken: bool) -> None:
    assert "KERNEL_VERSION(6, 1, 0)\n#error" in (KERNEL / "compat.h").read_text()
    done = subprocess.run(
        ["grep", "-qE", dkms()["BUILD_EXCLUSIVE_KERNEL"]], input=release, text=True, check=False
    )
    assert (done.returncode == 0) == taken


def test_the_debian_package_has_the_module_s_version() -> None:
    first = (KERNEL / "debian" / "changelog").read_text().splitlines()[0]
    match = re.fullmatch(r"(\S+) \((\S+)\) \S+; urgency=\w+", first)
    assert match is not None
    assert (match[1], [match[2]]) == (dkms()["PACKAGE_NAME"], tags("VERSION"))


def test_modinfo_has_something_to_say() -> None:
    for name in ("DESCRIPTION", "AUTHOR", "LICENSE"):
        assert len(tags(name)) == 1
    assert tags("LICENSE") == ["GPL"]  # else half the symbols it needs are refused


def test_every_parameter_is_described_by_modinfo_and_by_the_page() -> None:
    said = re.findall(r'^MODULE_PARM_DESC\((\w+),\s*"(.+)"\)', "\n".join(SOURCES.values()), re.M)
    assert {name for name, _text in said} == parameters()
    page = (KERNEL / "pool.4").read_text()
    assert set(re.findall(r"^\.BR ([a-z_]+) ?=", page, re.M)) == parameters()


def test_the_page_names_every_proc_file() -> None:
    made = set(re.findall(r'proc_create\w*\("(\w+)"', "\n".join(SOURCES.values())))
    assert made
    page = (KERNEL / "pool.4").read_text()
    assert set(re.findall(r"^\.I /proc/pool/(\w+)$", page, re.M)) == made

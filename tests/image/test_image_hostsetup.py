# SPDX-License-Identifier: GPL-2.0-or-later
"""What the host lacks: found, installed by root, or said."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from poolproof.errors import HarnessError
from poolproof.image import hostsetup
from poolproof.image.hostsetup import Requirement


@pytest.fixture
def fake_apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An apt-get that notes its arguments, and makes `installed` when it was told to install."""
    log = tmp_path / "log"
    program = tmp_path / "bin" / "apt-get"
    program.parent.mkdir()
    program.write_text(
        f'#!/bin/sh\necho "$@" >> {log}\n'
        f'[ ! -e {tmp_path}/refuse ] || {{ echo "E: no such thing" >&2; exit 100; }}\n'
        f"if [ $1 = install ]; then touch {tmp_path}/installed; fi\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return tmp_path


def absent_until_installed(base: Path) -> list[Requirement]:
    def present() -> bool:
        return (base / "installed").exists()

    return [
        Requirement("pkg-a", present, "program a"),
        Requirement("pkg-a", present, "program a2"),
        Requirement("pkg-b", present, "program b"),
        Requirement("pkg-c", lambda: True, "program c"),
    ]


def test_root_installs_what_is_missing_and_nothing_else(
    fake_apt: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    needed = absent_until_installed(fake_apt)
    assert hostsetup.missing(needed) == ["pkg-a", "pkg-b"]
    hostsetup.ensure(needed, progress=lambda _text: None)
    calls = (fake_apt / "log").read_text().splitlines()
    assert calls[-1] == "install -y --no-install-recommends pkg-a pkg-b"
    hostsetup.ensure(needed, progress=lambda _text: None)
    assert (fake_apt / "log").read_text().splitlines() == calls, "nothing more to do"


def test_root_hears_why_an_installation_failed(fake_apt: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    (fake_apt / "refuse").write_text("")
    with pytest.raises(HarnessError, match="apt-get failed: E: no such thing") as caught:
        hostsetup.ensure(absent_until_installed(fake_apt), progress=lambda _text: None)
    assert caught.value.hint == "apt-get install -y --no-install-recommends pkg-a pkg-b"
    assert "update" in (fake_apt / "log").read_text().splitlines(), "stale package lists are tried anew"


def test_a_user_gets_the_exact_command(fake_apt: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(HarnessError) as caught:
        hostsetup.ensure(absent_until_installed(fake_apt))
    assert "sudo apt-get install -y --no-install-recommends pkg-a pkg-b" in caught.value.hint
    assert not (fake_apt / "log").exists()


def test_offline_installs_nothing(fake_apt: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(HarnessError, match="offline, and these packages are missing: pkg-a pkg-b"):
        hostsetup.ensure(absent_until_installed(fake_apt), offline=True)
    assert not (fake_apt / "log").exists()


def test_a_host_without_apt_is_told_what_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hostsetup, "find_program", lambda _name: None)
    with pytest.raises(HarnessError, match="missing on this host: program a, program a2, program b"):
        hostsetup.ensure(absent_until_installed(tmp_path))


def test_requirements_look_where_things_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(hostsetup, "_SBIN", "")
    needed = {each.package: each for each in hostsetup.requirements(root=False)}
    assert not needed["mmdebstrap"].present()
    (tmp_path / "mmdebstrap").write_text("#!/bin/sh\n")
    (tmp_path / "mmdebstrap").chmod(0o755)
    assert needed["mmdebstrap"].present()
    assert "uidmap" in needed
    assert "uidmap" not in {each.package for each in hostsetup.requirements(root=True)}
    assert hostsetup._module("json", "x").present()
    assert not hostsetup._module("no_such_module_here", "x").present()
    assert hostsetup._file("/usr/*/env", "x").present()
    assert not hostsetup._file("/usr/*/no-such-file", "x").present()

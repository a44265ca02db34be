# SPDX-License-Identifier: GPL-2.0-or-later
"""How mmdebstrap is driven; a script stands in for it."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from poolproof.errors import HarnessError
from poolproof.image import debian


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Replace mmdebstrap by the script `body`; its arguments go to `arguments`, one a line."""
    program = tmp_path / "bin" / "mmdebstrap"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {tmp_path}/arguments\n. {tmp_path}/body\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    keyring = tmp_path / "keyring.gpg"
    keyring.write_text("")
    monkeypatch.setattr(debian, "KEYRING", keyring)
    (tmp_path / "work").mkdir()
    return tmp_path


def unpack(base: Path, consumer: list[str]) -> None:
    debian.unpack(
        ["a", "b"], "suite", consumer, setup="echo setup", finish=["echo finish"], work=base / "work"
    )


def test_packages_sources_and_hooks_are_handed_over(fake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POOLPROOF_DEBIAN_MIRROR", "http://mirror.example/x/")
    (fake / "body").write_text("echo content\n")
    unpack(fake, ["sh", "-c", f"cat > {fake}/result"])
    assert (fake / "result").read_text() == "content\n"
    arguments = (fake / "arguments").read_text().splitlines()
    assert "--include=a,b" in arguments
    assert "--setup-hook=echo setup" in arguments
    assert "--extract-hook=echo finish" in arguments
    assert f"deb [signed-by={fake}/keyring.gpg] http://mirror.example/x/debian suite main" in arguments
    assert any(line.endswith("mirror.example/x/debian-security suite-security main") for line in arguments)


def test_apts_own_words_are_shown(fake: Path) -> None:
    (fake / "body").write_text(
        "echo 'I: running' >&2; echo 'E: Unable to locate package b' >&2\n"
        "echo 'E: run_download failed: E: apt-get failed' >&2; exit 1\n"
    )
    with pytest.raises(HarnessError, match="mmdebstrap failed: E: Unable to locate package b") as caught:
        unpack(fake, ["cat"])
    assert "kernels.toml" in caught.value.hint
    log = fake / "mmdebstrap-failed.log"
    assert f"full log: {log}" in caught.value.hint
    assert "Unable to locate" in log.read_text()


def test_a_mirror_that_cannot_be_reached_is_named(fake: Path) -> None:
    (fake / "body").write_text("echo 'Err:1 http://x Temporary failure resolving x' >&2; exit 1\n")
    with pytest.raises(HarnessError) as caught:
        unpack(fake, ["cat"])
    assert "POOLPROOF_DEBIAN_MIRROR" in caught.value.hint


def test_what_a_hook_said_is_shown(fake: Path) -> None:
    (fake / "body").write_text(
        "echo \"chroot: cannot run 'x'\" >&2\n"
        "echo 'E: setup failed: E: command failed: # long script' >&2; exit 1\n"
    )
    with pytest.raises(HarnessError, match="mmdebstrap failed: chroot: cannot run 'x'"):
        unpack(fake, ["cat"])


def test_a_consumer_that_fails_is_named(fake: Path) -> None:
    (fake / "body").write_text("while echo content; do :; done\n")
    with pytest.raises(HarnessError, match="sh failed: no space left"):
        unpack(fake, ["sh", "-c", "head -c 10 > /dev/null; echo no space left >&2; exit 3"])


def test_missing_tools_are_named(fake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(debian, "KEYRING", fake / "absent")
    with pytest.raises(HarnessError) as caught:
        unpack(fake, ["cat"])
    assert caught.value.hint == "apt-get install debian-archive-keyring"
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(HarnessError, match="mmdebstrap is not installed"):
        unpack(fake, ["cat"])


def test_the_overlay_belongs_to_root_and_is_reproducible(tmp_path: Path) -> None:
    (tmp_path / "sbin").mkdir()
    init = tmp_path / "sbin" / "init"
    init.write_text("#!/bin/sh\n")
    init.chmod(0o700)
    (tmp_path / "plain").write_text("x")
    (tmp_path / "plain").chmod(0o600)
    data = debian.overlay_tar(tmp_path)
    os.utime(init, (1, 1))
    assert debian.overlay_tar(tmp_path) == data
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert {member.name: (member.uid, member.mode) for member in tar} == {
            "plain": (0, 0o644),
            "sbin/init": (0, 0o755),
        }


def test_lists_know_comments(tmp_path: Path) -> None:
    file = tmp_path / "list"
    file.write_text("# comment\na\n\n  b  # why\n")
    assert debian.read_list(file) == ["a", "b"]

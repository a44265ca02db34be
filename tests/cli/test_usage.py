# SPDX-License-Identifier: GPL-2.0-or-later
"""Bad usage gets one clear line and status 2, before anything is built or started."""

from __future__ import annotations

import fcntl
import os

import pytest

from poolproof import cli
from poolproof.settings import Settings, from_arguments


def settings(*argv: str) -> Settings:
    return from_arguments(cli.build_parser().parse_args(["conformance", *argv]))


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        (["--pool-src", "/nonexistent"], "POOL_SRC: no such file"),
        (["--pool-src", "/etc/hostname"], "POOL_SRC: not a directory"),
        (["--pool-ko", "/nonexistent.ko"], "POOL_KO: no such file"),
        (["--pool-ko", "/etc"], "POOL_KO: not a file"),
        (["--pool-ko", "/etc/hostname", "--pool-src", "/etc"], "both given"),
        (["--device", "toaster"], "toaster"),
        (["--device", "reference", "--pool-src", "/etc"], "DEVICE=reference"),
        (["--kernel-build", "/etc"], "KERNEL_IMAGE"),
        (["--kernel", "x", "--kernel-image", "/etc/hostname"], "both given"),
        (["--seed", "lucky"], "SEED"),
        (["--tags", "@a and and"], "tag expression"),
        (["--only", "no-such-scenario"], "no-such-scenario"),
    ],
)
def test_what_is_wrong_is_named(argv, named, capsys):
    assert cli.main(["conformance", *argv]) == 2
    printed = capsys.readouterr()
    assert named in printed.err
    assert "Traceback" not in printed.err
    assert len(printed.err.splitlines()) <= 2


def test_bisect_never_blames_a_commit_for_the_harness(capsys):
    assert cli.main(["conformance", "--bisect", "--pool-src", "/nonexistent"]) == 125


def test_a_second_run_in_the_same_place_is_refused(tmp_path, capsys):
    (tmp_path / ".lock").write_text("4711")
    with (tmp_path / ".lock").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        status = cli.main(["conformance", "--device", "reference", "--report-dir", str(tmp_path)])
    assert status == 2
    assert "4711" in capsys.readouterr().err


def test_make_variables_are_the_defaults(monkeypatch, tmp_path):
    monkeypatch.setenv("POOL_SRC", str(tmp_path))
    monkeypatch.setenv("SEED", "0x10")
    monkeypatch.setenv("TAGS", "")
    chosen = settings()
    assert (chosen.pool_src, chosen.seed, chosen.tags) == (tmp_path, 16, "")


def test_settings_survive_the_way_into_the_sandbox(tmp_path):
    chosen = settings("--pool-src", str(tmp_path), "--seed", "7", "--offline")
    assert Settings.from_json(chosen.to_json()) == chosen


def test_the_rerun_command_repeats_device_and_seed(tmp_path):
    chosen = settings("--pool-src", str(tmp_path), "--seed", "7")
    assert chosen.rerun_variables() == f"POOL_SRC={tmp_path} SEED=7"


def test_the_cache_can_be_placed(monkeypatch, tmp_path):
    monkeypatch.setenv("POOLPROOF_CACHE", str(tmp_path))
    assert settings().cache == tmp_path
    monkeypatch.delenv("POOLPROOF_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert settings().cache == tmp_path / "poolproof"
    assert os.fspath(settings().report_dir).endswith("reports")

# SPDX-License-Identifier: GPL-2.0-or-later
"""The cache: complete entries or none, one builder at a time, keys that follow the content."""

from __future__ import annotations

import multiprocessing
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from poolproof.errors import HarnessError
from poolproof.image.cache import Cache, content_key, read_manifest


def test_an_entry_is_built_once(tmp_path: Path) -> None:
    built: list[Path] = []

    def build(entry: Path) -> dict[str, object]:
        built.append(entry)
        (entry / "data").write_text("x")
        return {"a": 1}

    cache = Cache(tmp_path / "cache")
    first = cache.get("kind", "k1", build, megabytes=1)
    assert (first / "data").read_text() == "x"
    assert read_manifest(first) == {"a": 1}
    assert cache.get("kind", "k1", build, megabytes=1) == first
    assert len(built) == 1
    cache.get("kind", "k2", build, megabytes=1)
    assert len(built) == 2


@pytest.mark.parametrize("error", [HarnessError("no"), KeyboardInterrupt()])
def test_a_failed_build_leaves_nothing(tmp_path: Path, error: BaseException) -> None:
    def build(entry: Path) -> dict[str, object]:
        (entry / "half").mkdir()
        (entry / "half").chmod(0o500)
        raise error

    cache = Cache(tmp_path)
    with pytest.raises(type(error)):
        cache.get("kind", "k", build, megabytes=1)
    assert cache.find("kind", "k") is None
    assert [path.name for path in tmp_path.iterdir()] == [".kind-k.lock"]


def test_what_a_killed_build_left_is_removed(tmp_path: Path) -> None:
    left = tmp_path / ".kind-k.partial"
    left.mkdir()
    (left / "half").write_text("half")
    entry = Cache(tmp_path).get("kind", "k", lambda _entry: {}, megabytes=1)
    assert [path.name for path in entry.iterdir()] == ["manifest.json"]
    assert not left.exists()


def test_an_entry_without_manifest_does_not_count(tmp_path: Path) -> None:
    (tmp_path / "kind-k").mkdir()
    assert Cache(tmp_path).find("kind", "k") is None


def _contend(root: Path, start: Any, inside: Any, results: Any) -> None:
    def build(entry: Path) -> dict[str, object]:
        with inside.get_lock():
            inside.value += 1
        (entry / "data").write_bytes(b"x" * 100_000)
        return {}

    start.wait()
    entry = Cache(root).get("kind", "k", build, megabytes=1)
    results.put((entry / "data").stat().st_size)


def test_two_processes_build_an_entry_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    start, inside, results = context.Barrier(3), context.Value("i", 0), context.Queue()
    processes = [context.Process(target=_contend, args=(tmp_path, start, inside, results)) for _ in range(3)]
    for process in processes:
        process.start()
    sizes = [results.get(timeout=30) for _ in processes]
    for process in processes:
        process.join(30)
    assert sizes == [100_000] * 3
    assert inside.value == 1


def test_too_little_space_says_where_and_how_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: shutil._ntuple_diskusage(2**40, 2**40, 5 * 2**20))
    with pytest.raises(HarnessError) as caught:
        Cache(tmp_path).get("kind", "k", lambda _entry: {}, megabytes=600)
    assert caught.value.message == f"needs 600 MB at {tmp_path}, has 5 MB"
    assert "POOLPROOF_CACHE" in caught.value.hint


def test_an_unusable_cache_directory_is_named(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(HarnessError, match="cannot write to the cache"):
        Cache(file / "cache").get("kind", "k", lambda _entry: {}, megabytes=1)


def test_old_entries_of_a_kind_go_when_a_new_one_comes(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    old = cache.get("kind", "old", lambda _entry: {}, megabytes=1)
    recent = cache.get("kind", "recent", lambda _entry: {}, megabytes=1)
    other = cache.get("kind-more", "old", lambda _entry: {}, megabytes=1)
    for entry in (old, other):
        os.utime(entry / "manifest.json", (1, 1))
    cache.get("kind", "new", lambda _entry: {}, megabytes=1)
    assert not old.exists()
    assert recent.exists()
    assert other.exists()


def test_using_an_entry_keeps_it(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    used = cache.get("kind", "used", lambda _entry: {}, megabytes=1)
    os.utime(used / "manifest.json", (1, 1))
    cache.get("kind", "used", lambda _entry: {}, megabytes=1)
    cache.get("kind", "new", lambda _entry: {}, megabytes=1)
    assert used.exists()


def test_the_key_follows_content_name_mode_and_parameters(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_text("1")
    keys = [content_key([file], tmp_path, suite="x")]
    keys.append(content_key([file], tmp_path, suite="y"))
    file.write_text("2")
    keys.append(content_key([file], tmp_path, suite="x"))
    file.chmod(0o755)
    keys.append(content_key([file], tmp_path, suite="x"))
    moved = file.rename(tmp_path / "b")
    keys.append(content_key([moved], tmp_path, suite="x"))
    assert len(set(keys)) == 5
    assert content_key([moved], tmp_path, suite="x") == keys[-1]

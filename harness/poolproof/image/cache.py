# SPDX-License-Identifier: GPL-2.0-or-later
"""A directory of built things, each under the hash of what it was made from.

An entry exists completely or not at all: it is made in a directory of its own, then renamed. Two processes
that want the same entry build it once: the second waits for the first. Whatever a killed build left behind is
removed by the next build of the same entry. A new entry also removes those of its kind that nobody used for
a month.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from ..errors import HarnessError

MANIFEST = "manifest.json"
_UNUSED_SECONDS = 30 * 86400


def content_key(files: Iterable[Path], root: Path, **parameters: object) -> str:
    """24 hex digits over the files' paths below `root`, their modes and contents, and the parameters."""
    digest = hashlib.sha256()
    digest.update(json.dumps(parameters, sort_keys=True, default=str).encode())
    for path in sorted(files):
        executable = bool(path.stat().st_mode & 0o100)
        data = path.read_bytes()
        digest.update(f"\0{path.relative_to(root)}\0{executable}\0{len(data)}\0".encode())
        digest.update(data)
    return digest.hexdigest()[:24]


def sha256_file(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def require_space(path: Path, megabytes: int) -> None:
    """HarnessError unless the file system of the existing directory `path` has that much free."""
    free = shutil.disk_usage(path).free // 2**20
    if free < megabytes:
        raise HarnessError(
            f"needs {megabytes} MB at {path}, has {free} MB",
            hint="free some space, or set POOLPROOF_CACHE to a directory on a larger file system",
        )


def _remove(path: Path) -> None:
    """Remove a tree, also one whose directories lack the owner's write permission."""

    def retry(function: Callable[..., Any], name: str, _error: object) -> None:
        os.chmod(os.path.dirname(name), 0o700)
        os.chmod(name, 0o700, follow_symlinks=True)
        function(name)

    if path.exists():
        shutil.rmtree(path, onerror=retry)


class Cache:
    """Entries `<kind>-<key>` below `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def find(self, kind: str, key: str) -> Path | None:
        """The entry's directory if it is complete."""
        entry = self.root / f"{kind}-{key}"
        return entry if (entry / MANIFEST).is_file() else None

    def get(
        self,
        kind: str,
        key: str,
        build: Callable[[Path], Mapping[str, object]],
        *,
        megabytes: int,
        waiting: Callable[[str], None] = lambda _message: None,
    ) -> Path:
        """The entry, made by `build(directory)` if need be; what `build` returns becomes its manifest.

        `megabytes`: free space asked for before building. `waiting` is told when another process holds the
        entry.
        """
        if found := self.find(kind, key):
            os.utime(found / MANIFEST)
            return found
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            lock = (self.root / f".{kind}-{key}.lock").open("w")
        except OSError as error:
            raise HarnessError(
                f"cannot write to the cache {self.root}: {error.strerror}",
                hint="set POOLPROOF_CACHE to a directory that you can write to",
            ) from error
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waiting(f"another run is making {kind}, waiting for it")
                fcntl.flock(lock, fcntl.LOCK_EX)
            if found := self.find(kind, key):
                return found
            entry = self.root / f"{kind}-{key}"
            partial = self.root / f".{kind}-{key}.partial"
            _remove(partial)
            require_space(self.root, megabytes)
            partial.mkdir()
            try:
                manifest = dict(build(partial))
                (partial / MANIFEST).write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n")
                partial.rename(entry)
            except BaseException:
                _remove(partial)
                raise
        self._remove_unused(kind)
        return entry

    def _remove_unused(self, kind: str) -> None:
        oldest = time.time() - _UNUSED_SECONDS
        for manifest in self.root.glob(f"{kind}-*/{MANIFEST}"):
            key = manifest.parent.name.removeprefix(f"{kind}-")
            if "-" not in key and manifest.stat().st_mtime < oldest:
                # Out of sight in one step: nobody sees half an entry.
                doomed = self.root / f".{kind}-{key}.partial"
                manifest.parent.rename(doomed)
                _remove(doomed)


def read_manifest(entry: Path) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((entry / MANIFEST).read_text())
    return data

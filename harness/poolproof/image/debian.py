# SPDX-License-Identifier: GPL-2.0-or-later
"""Unpacking Debian packages into a tree, by mmdebstrap, as root or in a user namespace."""

from __future__ import annotations

import io
import os
import re
import shlex
import shutil
import subprocess
import tarfile
from collections.abc import Sequence
from pathlib import Path

from ..errors import HarnessError

DEFAULT_MIRROR = "http://deb.debian.org"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


def mirror() -> str:
    """Base of the archive: below it lie `debian` and `debian-security`."""
    return os.environ.get("POOLPROOF_DEBIAN_MIRROR", DEFAULT_MIRROR).rstrip("/")


def sources(suite: str, archives: Sequence[str] = ()) -> list[str]:
    """apt source lines of a Debian release with its updates and security fixes."""
    base = mirror()
    signed = f"[signed-by={KEYRING}]"
    lines = [
        f"deb {signed} {base}/debian {suite} main",
        f"deb {signed} {base}/debian {suite}-updates main",
        f"deb {signed} {base}/debian-security {suite}-security main",
    ]
    return lines + [f"deb {signed} {base}/debian {suite}-{archive} main" for archive in archives]


def read_list(path: Path) -> list[str]:
    """The lines of a recipe list without comments and blank lines."""
    lines = (line.split("#", 1)[0].strip() for line in path.read_text().splitlines())
    return [line for line in lines if line]


def overlay_tar(source: Path) -> bytes:
    """The files below `source` as a tar owned by root, the same bytes for the same content."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for path in sorted(p for p in source.rglob("*") if p.is_file()):
            info = tarfile.TarInfo(str(path.relative_to(source)))
            data = path.read_bytes()
            info.size = len(data)
            info.mode = 0o755 if path.stat().st_mode & 0o100 else 0o644
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def _apt_options() -> list[str]:
    """How this host's apt reaches archives (proxy, certificates): mmdebstrap does not take it over."""
    done = subprocess.run(
        ["apt-config", "dump", "--format", '%F "%v";%n', "Acquire"],
        capture_output=True,
        text=True,
        check=False,
    )
    names = "Proxy|CaInfo|CaPath|Verify|SslCert|SslKey"
    wanted = re.compile(rf'Acquire::(http|https)::\S*({names})\S* "[^"]', re.I)
    return [f"--aptopt={line}" for line in done.stdout.splitlines() if wanted.match(line)]


def unpack(
    packages: Sequence[str],
    suite: str,
    consumer: Sequence[str],
    *,
    archives: Sequence[str] = (),
    setup: str = "",
    overlay: Path | None = None,
    finish: Sequence[str] = (),
    work: Path,
) -> None:
    """Feed the command `consumer` a tar of the packages and their dependencies, unpacked and not configured.

    `setup` and `finish` are shell scripts given the new root as $1, run as (mapped) root before and after;
    `overlay` is a directory whose files are laid over the result before `finish`; `work` is for logs and
    temporary files. Raises HarnessError with apt's or the consumer's own words when it fails.
    """
    if not shutil.which("mmdebstrap"):
        raise HarnessError("mmdebstrap is not installed", hint="apt-get install mmdebstrap")
    if not KEYRING.exists():
        raise HarnessError(f"{KEYRING} is missing", hint="apt-get install debian-archive-keyring")
    # A killed harness takes mmdebstrap along, which then removes its temporary tree.
    command = ["setpriv", "--pdeathsig", "TERM", "mmdebstrap", "--variant=extract", "--format=tar"]
    command.append("--include=" + ",".join(packages))
    command += ['--aptopt=APT::Install-Recommends "false"', *_apt_options()]
    if setup:
        command.append(f"--setup-hook={setup}")
    if overlay is not None:
        overlay_file = work / "overlay.tar"
        overlay_file.write_bytes(overlay_tar(overlay))
        command.append(f"--extract-hook=tar-in {shlex.quote(str(overlay_file))} /")
    command += [f"--extract-hook={script}" for script in finish]
    command += [suite, "-", *sources(suite, archives)]
    log, consumer_log = work / "mmdebstrap.log", work / "consumer.log"
    with log.open("wb") as errors, consumer_log.open("wb") as consumer_errors:
        producer = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors)
        try:
            done = subprocess.run(
                consumer, stdin=producer.stdout, stdout=consumer_errors, stderr=consumer_errors, check=False
            )
            if producer.stdout is not None:
                producer.stdout.close()
            producer.wait()
        finally:
            if producer.poll() is None:
                producer.terminate()
                producer.wait()
    reason = _reason(log)
    if producer.returncode != 0 and (reason or done.returncode == 0):
        kept = work.parent / "mmdebstrap-failed.log"
        shutil.copyfile(log, kept)
        raise HarnessError(
            f"mmdebstrap failed: {reason or 'no reason given'}", hint=f"{_advice(log)}\n  full log: {kept}"
        )
    if done.returncode != 0:
        lines = consumer_log.read_text(errors="replace").strip().splitlines()
        raise HarnessError(f"{consumer[0]} failed: {lines[-1] if lines else 'no reason given'}")


def _reason(log: Path) -> str:
    """The line that says most: apt's first error, or what a hook printed before it failed."""
    previous = ""
    for line in (line.strip() for line in log.read_text(errors="replace").splitlines()):
        if re.match(r"E: .*command failed:", line):
            return previous
        if re.match(r"(E:|Err:|error:)", line):
            return line
        previous = line or previous
    return ""


def _advice(log: Path) -> str:
    text = log.read_text(errors="replace")
    if "Temporary failure resolving" in text or "Could not connect" in text or "Could not resolve" in text:
        return f"is {mirror()} reachable? else POOLPROOF_DEBIAN_MIRROR=http://HOST (with /debian below)"
    if "newuidmap" in text or "subuid" in text or "unshare" in text:
        return "without root mmdebstrap needs user namespaces, the package uidmap and a line in /etc/subuid"
    if "Unable to locate package" in text:
        return "the archive no longer has that package: is the suite in kernels.toml right?"
    return "the package mirror and the host's apt settings are used as they are: does `apt-get update` work?"

# SPDX-License-Identifier: GPL-2.0-or-later
"""What the host must have, and its installation from Debian packages. Standard library only: runs before the
rest.

The package names are the same on Debian 12 and 13 and on Ubuntu 24.04.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from ..errors import HarnessError

_SBIN = ":/usr/local/sbin:/usr/sbin:/sbin"


@dataclass(frozen=True)
class Requirement:
    """Something that must be present, and the package that brings it."""

    package: str
    present: Callable[[], bool]
    what: str


def find_program(name: str) -> str | None:
    """Like shutil.which, and looks into the sbin directories that a user's PATH may lack."""
    return shutil.which(name, path=os.environ.get("PATH", os.defpath) + _SBIN)


def _program(name: str, package: str) -> Requirement:
    return Requirement(package, lambda: find_program(name) is not None, name)


def _file(pattern: str, package: str) -> Requirement:
    return Requirement(package, lambda: any(Path("/").glob(pattern.lstrip("/"))), pattern)


def _module(name: str, package: str) -> Requirement:
    return Requirement(package, lambda: importlib.util.find_spec(name) is not None, f"Python module {name}")


def requirements(*, root: bool | None = None) -> list[Requirement]:
    """All that a run with virtual machines needs on the host; without root also what user namespaces need."""
    needed = [
        _program("qemu-system-x86_64", "qemu-system-x86"),
        _program("qemu-img", "qemu-utils"),
        _file("/usr/lib/*/libvirt/connection-driver/libvirt_driver_qemu.so", "libvirt-daemon-driver-qemu"),
        _module("libvirt", "python3-libvirt"),
        _program("mmdebstrap", "mmdebstrap"),
        _file("/usr/share/keyrings/debian-archive-keyring.gpg", "debian-archive-keyring"),
        _program("mksquashfs", "squashfs-tools"),
        _program("zstd", "zstd"),
        _program("depmod", "kmod"),
        _program("lz4", "lz4"),
        _program("ssh-keygen", "openssh-client"),
        _program("ip", "iproute2"),
        _program("unshare", "util-linux"),
        _program("mount", "mount"),
    ]
    if not (os.geteuid() == 0 if root is None else root):
        needed.append(_program("newuidmap", "uidmap"))
    return needed


def sandbox_requirements() -> list[Requirement]:
    """What a run without virtual machines needs: namespaces and addresses in them."""
    return [_program("ip", "iproute2"), _program("unshare", "util-linux"), _program("mount", "mount")]


def package_requirements() -> list[Requirement]:
    """What building the Debian package of the module needs."""
    return [
        _program("dpkg-buildpackage", "dpkg-dev"),
        _program("dh", "debhelper"),
        _program("dh_dkms", "dh-dkms"),
    ]


def missing(needed: Iterable[Requirement] | None = None) -> list[str]:
    """The packages that the host lacks, each once."""
    wanted = requirements() if needed is None else needed
    return list(dict.fromkeys(each.package for each in wanted if not each.present()))


def install_command(packages: Iterable[str]) -> list[str]:
    return ["apt-get", "install", "-y", "--no-install-recommends", *packages]


def ensure(
    needed: Iterable[Requirement] | None = None,
    *,
    offline: bool = False,
    progress: Callable[[str], None] = print,
) -> None:
    """Install what is missing if root, else raise HarnessError with the exact command to run."""
    wanted = requirements() if needed is None else list(needed)
    packages = missing(wanted)
    if packages:
        command = install_command(packages)
        as_text = shlex.join(command)
        if find_program("apt-get") is None:
            raise HarnessError(
                f"missing on this host: {', '.join(each.what for each in wanted if not each.present())}",
                hint=f"the Debian packages that bring them: {' '.join(packages)}",
            )
        if offline:
            raise HarnessError(f"offline, and these packages are missing: {' '.join(packages)}", hint=as_text)
        if os.geteuid() != 0:
            raise HarnessError(
                f"packages are missing: {' '.join(packages)}", hint=f"run: sudo {as_text}\n  and start again"
            )
        _install(command, packages, progress)
        importlib.invalidate_caches()
        if still := missing(wanted):
            raise HarnessError(f"installed, but still not found: {' '.join(still)}")
    if os.geteuid() != 0:
        require_user_namespaces()


def _install(command: list[str], packages: list[str], progress: Callable[[str], None]) -> None:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}

    def run(arguments: list[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            arguments, capture_output=True, text=True, env=environment, check=False, stdin=subprocess.DEVNULL
        )

    progress(f"installing {' '.join(packages)}")
    have_lists = any(Path("/var/lib/apt/lists").glob("*Packages*"))
    done = run(command) if have_lists else None
    if done is None or done.returncode != 0:
        # No package lists, or ones older than the mirror.
        progress("apt-get update")
        run(["apt-get", "update"])
        done = run(command)
    if done.returncode != 0:
        lines = [line for line in (done.stderr + done.stdout).splitlines() if line.startswith("E: ")]
        raise HarnessError(f"apt-get failed: {(lines or ['no reason given'])[0]}", hint=shlex.join(command))


def require_user_namespaces() -> None:
    """HarnessError when this user cannot make the namespaces that replace root."""
    user = pwd.getpwuid(os.geteuid()).pw_name
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "--net", "true"],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        setting = "kernel.apparmor_restrict_unprivileged_userns"
        if Path("/proc/sys", setting.replace(".", "/")).exists():
            hint = f"AppArmor forbids them here: sudo sysctl {setting}=0, or run as root"
        else:
            hint = "allow them (sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone)"
        raise HarnessError(f"no root, and no user namespaces: {done.stderr.strip()}", hint=hint)
    for file in ("/etc/subuid", "/etc/subgid"):
        try:
            owners = {line.split(":", 1)[0] for line in Path(file).read_text().splitlines()}
        except OSError:
            owners = set()
        if not owners & {user, str(os.geteuid())}:
            raise HarnessError(
                f"{file} gives {user} no subordinate ids, which building the guest image needs",
                hint=f"run: sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user}",
            )


def main(argv: list[str]) -> int:
    """`hostsetup test|reference|conformance|deb`: make sure that the host has what a make target needs."""
    try:
        purposes = {"conformance": requirements, "deb": package_requirements}
        needed = purposes.get(" ".join(argv), sandbox_requirements)()
        offline = os.environ.get("OFFLINE") == "1"
        ensure(needed, offline=offline, progress=lambda text: print(f"poolproof: {text}", flush=True))
    except HarnessError as exc:
        print(f"poolproof: {exc}", file=sys.stderr)
        return 2
    return 0

# SPDX-License-Identifier: GPL-2.0-or-later
"""Interfaces of the sandbox's network namespace: taps, veth pairs, bridges, offloads."""

from __future__ import annotations

import ctypes
import fcntl
import socket
import struct
import subprocess
from collections.abc import Iterable
from pathlib import Path

from poolproof.errors import HarnessError

_SIOCGIFFLAGS = 0x8913
_SIOCSIFFLAGS = 0x8914
_SIOCETHTOOL = 0x8946
_IFF_UP = 0x1

# ETHTOOL_STXCSUM, SSG, STSO, SUFO, SGSO, SGRO. Off, a frame is whole on every hop.
_OFFLOADS = (0x17, 0x19, 0x1F, 0x22, 0x24, 0x2C)


def set_up(name: str) -> None:
    """`ip link set NAME up` without the program (used before the sandbox is complete)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        request = struct.pack("16sH22x", name.encode(), 0)
        flags = struct.unpack_from("16xH", fcntl.ioctl(sock, _SIOCGIFFLAGS, request))[0]
        fcntl.ioctl(sock, _SIOCSIFFLAGS, struct.pack("16sH22x", name.encode(), flags | _IFF_UP))


def ip(commands: Iterable[str]) -> None:
    """Run lines of `ip` in one batch; HarnessError with what iproute2 said when one fails."""
    lines = "".join(f"{command}\n" for command in commands)
    try:
        done = subprocess.run(["ip", "-batch", "-"], input=lines, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise HarnessError("`ip` is not installed", hint="as root: apt-get install iproute2") from None
    if done.returncode:
        raise HarnessError(
            f"the lab's network could not be set up: {done.stderr.strip()}",
            hint="the host kernel needs tun, veth and bridge (as root: modprobe -a tun veth bridge).",
        )


def offloads_off(name: str) -> None:
    """No checksum or segmentation offload on `name`; what the driver does not know is left alone."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for command in _OFFLOADS:
            value = ctypes.create_string_buffer(struct.pack("=II", command, 0), 8)
            request = struct.pack("16sP16x", name.encode(), ctypes.addressof(value))
            try:
                fcntl.ioctl(sock, _SIOCETHTOOL, request)
            except OSError:
                continue


def silent(name: str) -> None:
    """Keep the host's own IP stack from speaking or answering on `name`: only frames we carry pass there."""
    ip([f"link set dev {name} arp off", f"link set dev {name} addrgenmode none"])
    for path in (f"ipv6/conf/{name}/disable_ipv6", f"ipv4/conf/{name}/rp_filter"):
        Path("/proc/sys/net", path).write_text("1")

# SPDX-License-Identifier: GPL-2.0-or-later
"""Boot one guest without the lab, in this process's own network namespace, and run a command in it.

Reads a JSON object on standard input: image (the fields of GuestImage), tools (path of the disk or empty),
key (ssh identity), cmdline (more kernel parameters), command (for the guest's shell, may be empty), deadline
(seconds). Writes one: ready (seconds to POOLPROOF-READY, or null), console, the command's status and output.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time

NETWORK = """
ip link set lo up
for tap in tapm tapw; do ip tuntap add $tap mode tap; ip link set $tap up; done
ip addr add 10.254.0.1/24 dev tapm
ip addr add 10.253.0.1/24 dev tapw
ip addr add fd00:253::1/64 dev tapw nodad
"""
CMDLINE = (
    "console=ttyS0 quiet panic=0 cryptomgr.notests pp.name=a pp.mgmt=52:54:00:fe:00:02,10.254.0.2/24 "
    "pp.wire=52:54:00:fd:00:02,10.253.0.2/24,fd00:253::2/64"
)


def qemu(job: dict[str, object], image: dict[str, str]) -> list[str]:
    command = ["qemu-system-x86_64", "-M", "q35", "-accel", "tcg", "-cpu", "max,-erms,-fsrm,-cx16"]
    command += ["-m", "384"]
    command += ["-nodefaults", "-nographic", "-no-reboot", "-serial", "stdio", "-device", "pvpanic-pci"]
    command += ["-kernel", image["vmlinux"], "-initrd", image["initramfs"]]
    command += ["-append", f"{CMDLINE} {job['cmdline']}"]
    disks = [("ppiroot", image["rootfs"]), ("pptools", job["tools"])]
    for serial, path in disks:
        if path:
            command += ["-drive", f"if=none,id={serial},file={path},format=raw,readonly=on"]
            command += ["-device", f"virtio-blk-pci,drive={serial},serial={serial}"]
    for name, mac in (("tapm", "52:54:00:fe:00:02"), ("tapw", "52:54:00:fd:00:02")):
        command += ["-netdev", f"tap,id={name},ifname={name},script=no,downscript=no"]
        command += ["-device", f"virtio-net-pci,netdev={name},mac={mac},romfile="]
    return command


def main() -> None:
    job = json.load(sys.stdin)
    subprocess.run(["sh", "-euc", NETWORK], check=True)
    start = time.monotonic()
    machine = subprocess.Popen(
        qemu(job, job["image"]), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert machine.stdout is not None
    console, ready = b"", None
    result = {"status": None, "output": ""}
    try:
        while (left := start + job["deadline"] - time.monotonic()) > 0:
            if not select.select([machine.stdout], [], [], left)[0]:
                break
            chunk = os.read(machine.stdout.fileno(), 65536)
            if not chunk:
                break
            console += chunk
            lines = console.rpartition(b"\n")[0]
            if b"POOLPROOF-READY a" in lines:
                ready = time.monotonic() - start
                break
            if b"POOLPROOF-INIT-FAILED" in lines:
                break
        if ready is not None and job["command"]:
            ssh = ["ssh", "-F", "/dev/null", "-i", job["key"], "-o", "StrictHostKeyChecking=no"]
            ssh += ["-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", "root@10.254.0.2"]
            done = subprocess.run(
                [*ssh, job["command"]], capture_output=True, text=True, check=False, timeout=job["deadline"]
            )
            result = {"status": done.returncode, "output": done.stdout + done.stderr}
    finally:
        machine.kill()
        machine.wait()
    text = console.decode(errors="replace")
    json.dump({"ready": ready, "console": text, **result}, sys.stdout)


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: GPL-2.0-or-later
"""Steps about /proc/pool, and about the module's own integrity."""

from __future__ import annotations

import errno
import hashlib
import re
import socket
import tempfile
import time
from pathlib import Path

from behave import then, when
from session_steps import check_errno, error_of

from poolproof.devices.base import DeviceError
from poolproof.devices.stage import SETTLE, eventually
from poolproof.image.ko import sections
from poolref.tools.kernel_abi import state_name

COUNTERS = {
    *("version_mismatch", "malformed", "unknown_type", "unexpected_type", "unknown_session", "spoofed"),
    *("duplicate", "auth_fail", "decrypt_fail", "replay_drops", "reflected", "bad_ack", "stale_init"),
    *("overload", "unsubscribed", "frag_timeout", "config_reject", "journal_full", "packets_lost"),
}
# A no-op of ten bytes whose last one is part of an address that is never used.
LONG_NOP = bytes.fromhex("662e0f1f840000000000")


def proc(context, name):
    return context.stage.roles["server"].call("read", path=f"/proc/pool/{name}")


def pairs(text):
    return dict(line.split(": ", 1) for line in text.splitlines() if ": " in line)


@then("/proc/pool has the files {names}")
def has_files(context, names):
    context.files = names.split(", ")
    listed = context.stage.roles["server"].call("exec", argv=["ls", "/proc/pool"])["out"].split()
    assert sorted(listed) == sorted(context.files), f"it has {sorted(listed)}"


@then("each of them has mode {mode}")
def has_mode(context, mode):
    endpoint = context.stage.roles["server"]
    for name in context.files:
        answer = endpoint.call("exec", argv=["stat", "-c", "%F %a", f"/proc/pool/{name}"])
        assert answer["out"].strip().endswith(f"file {mode}"), f"{name} is a {answer['out'].strip()}"


@then("writing to any of them is refused")
def no_writing(context):
    endpoint = context.stage.roles["server"]
    for name in context.files:
        try:
            endpoint.call("write", path=f"/proc/pool/{name}", data=b"x")
        except DeviceError as exc:
            assert exc.errno in (errno.EACCES, errno.EIO, errno.EPERM, errno.EINVAL), f"{name}: {exc}"
        else:
            raise AssertionError(f"{name} can be written to")


@then("/proc/pool/status has its six lines")
def status_lines(context):
    lines = proc(context, "status").splitlines()
    port = context.stage.roles["server"].port
    patterns = (
        r"POOL Protocol v1",
        r"Status: listening",
        rf"Listen port: {port}",
        r"Active sessions: 1 / 64",
        r"Node pubkey: [0-9a-f]{64}",
        r"Journal entries: \d+",
    )
    for pattern, line in zip(patterns, lines, strict=False):
        assert re.fullmatch(pattern, line), f"{line!r} is not {pattern!r}"
    assert len(lines) >= len(patterns), f"it has {len(lines)} lines"


def row_of(context):
    stage = context.stage
    index = stage.index_of(stage.sessions[-1])
    return next(row for row in stage.roles["server"].sessions() if row.index == index)


@then("/proc/pool/sessions tells of the session what the ioctl does")
def sessions_agree(context):
    header, line = proc(context, "sessions").splitlines()
    assert header == "IDX PEER PORT STATE SENT RECV PKTS_SENT REKEYS", header
    row = row_of(context)
    wanted = [row.index, row.peer_addr, row.peer_port, row.state, row.bytes_sent, row.bytes_recv]
    assert line.split()[:6] == [str(each) for each in wanted], f"it says {line}"
    assert int(line.split()[6]) <= row.packets_sent
    assert int(line.split()[7]) == row.rekey_count
    assert line.split()[3] in map(state_name, range(6))


@then("/proc/pool/telemetry has a line for the session")
def telemetry_line(context):
    header, line = proc(context, "telemetry").splitlines()
    assert header == "IDX RTT(us) JITTER(us) LOSS(ppm) THRU(Mbps) MTU UPTIME(s)", header
    words = line.split()
    assert len(words) == 7, line
    assert all(word.isdecimal() for word in words), line
    assert int(words[5]) == row_of(context).telemetry["mtu"]


@then(
    "/proc/pool/details has idx, id, role, transport, version, epoch, mtu, subs and untrusted of the session"
)
def details_line(context):
    session = context.stage.sessions[-1]
    (row,) = context.stage.roles["server"].details()
    wanted = {
        "idx": str(row_of(context).index),
        "id": session.session_id.hex(),
        "role": "server",
        "transport": "tcp",
        "version": "1",
        "epoch": "0",
        "subs": "0",
        "untrusted": "0",
    }
    assert {name: row.get(name) for name in wanted} == wanted, f"it says {row}"
    assert 512 <= int(row["mtu"]) <= 1400


@then("/proc/pool/counters has every counter of the protocol")
def all_counters(context):
    shown = context.stage.roles["server"].counters()
    missing = COUNTERS - set(shown)
    assert not missing, f"missing: {missing}"


# -- the module's own code


@then("/proc/pool/integrity says OK, and its checks go on")
def integrity_ok(context):
    first = pairs(proc(context, "integrity"))
    assert first["Integrity status"] == "OK", f"it says {first}"
    assert first["Last failure"] == "none", f"it says {first}"
    assert abs(int(first["Last check"]) - time.time()) < 60, f"the last check was at {first['Last check']}"
    again = pairs(proc(context, "integrity"))
    assert int(again["Checks"]) > int(first["Checks"]), "the count of checks stands still"


def text_section(context):
    """(address in the guest, size) of the loaded module's .text."""
    endpoint = context.stage.roles["server"]
    address = int(endpoint.call("read", path="/sys/module/pool/sections/.text"), 16)
    return address, len(sections(context.device.module.ko.read_bytes())[".text"])


def read_text(context):
    address, size = text_section(context)
    return context.stage.roles["server"].guest.peek(address, size)


@then("/proc/pool/attestation has the SHA-256 of .text as the hypervisor reads it")
def attested(context):
    context.attestation = pairs(proc(context, "attestation"))
    seen = hashlib.sha256(read_text(context)).hexdigest()
    assert context.attestation["Text SHA-256"] == seen, f"it says {context.attestation}, memory has {seen}"
    assert context.attestation["Module"].startswith("pool "), f"it says {context.attestation}"
    assert context.attestation["Protocol"] == "v1"
    assert context.attestation["Integrity status"] == "OK"


@then("it has the node's public key and the journal's head")
def attests_node(context):
    status = pairs(proc(context, "status"))
    journal = context.stage.roles["server"].journal()
    assert context.attestation["Node pubkey"] == status["Node pubkey"]
    head = journal[-1]["hash"] if journal else "00" * 32
    assert context.attestation["Journal head"] == head


def gdb(stream, command):
    """One command of the remote protocol; returns the answer."""
    stream.sendall(b"$" + command + b"#%02x" % (sum(command) & 0xFF))
    data = b""
    while True:
        while not (found := re.search(rb"\$([^#]*)#..", data)):
            data += stream.recv(4096)
        stream.sendall(b"+")
        data = data[found.end() :]
        # Attaching stops the guest, which is told once more behind the first answer.
        if command == b"?" or not found[1].startswith(b"T"):
            return found[1]


@when("a byte of the module's code is changed from outside")
def change_code(context):
    guest = context.stage.roles["server"].guest
    address, _ = text_section(context)
    at = read_text(context).find(LONG_NOP)
    assert at >= 0, "the code has no long no-op"
    with tempfile.TemporaryDirectory(prefix="pp-") as directory:
        path = str(Path(directory) / "gdb")
        guest._machine().monitor(f"gdbserver unix:{path},server=on,wait=off")
        with socket.socket(socket.AF_UNIX) as stream:
            stream.settimeout(10)
            stream.connect(path)
            gdb(stream, b"?")
            answer = gdb(stream, b"M%x,1:01" % (address + at + len(LONG_NOP) - 1))
            assert answer == b"OK", f"the debugger says {answer!r}"
            gdb(stream, b"D")
        guest._machine().monitor("gdbserver none")


@then("/proc/pool/integrity says COMPROMISED and why")
def integrity_compromised(context):
    seen = pairs(proc(context, "integrity"))
    assert seen["Integrity status"] == "COMPROMISED", f"it says {seen}"
    assert ".text" in seen["Last failure"], f"it says {seen}"


@then("a connect from the device fails with {name}")
def connect_fails(context, name):
    server = context.stage.roles["server"]
    check_errno(error_of(server.connect, "10.253.0.1", 9), name)
    eventually(lambda: not [row for row in server.sessions() if row.state == "INIT_SENT"], "no slot", SETTLE)

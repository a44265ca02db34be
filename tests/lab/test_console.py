# SPDX-License-Identifier: GPL-2.0-or-later
"""What the console makes of real kernels' last words, and of devices that try to fool it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from poolproof.lab import console as console_module
from poolproof.lab.console import Console, scan

# From Debian's 6.1 under `echo c > /proc/sysrq-trigger`, shortened in the middle.
OOPS = """\
[   15.123456] sysrq: Trigger a crash
[   15.123999] BUG: kernel NULL pointer dereference, address: 0000000000000000
[   15.124500] #PF: supervisor write access in kernel mode
[   15.124600] #PF: error_code(0x0002) - not-present page
[   15.124700] PGD 0 P4D 0
[   15.124800] Oops: 0002 [#1] PREEMPT SMP NOPTI
[   15.124900] CPU: 0 PID: 180 Comm: sh Tainted: G           OE      6.1.0-56-cloud-amd64 #1  Debian 6.1.192-2
[   15.125000] Hardware name: QEMU Standard PC (Q35 + ICH9, 2009), BIOS 1.16.2-debian-1.16.2-1 04/01/2014
[   15.125100] RIP: 0010:pool_receive+0x16/0x20 [pool]
[   15.125200] RSP: 0018:ffffa1 EFLAGS: 00010286
[   15.125300] Call Trace:
[   15.125400]  <TASK>
[   15.125500]  pool_main+0x9a/0x1b0 [pool]
[   15.125600]  </TASK>
[   15.125700] Modules linked in: pool(OE) virtio_net
[   15.125800] CR2: 0000000000000000
[   15.125900] ---[ end trace 0000000000000000 ]---
[   15.126000] RIP: 0010:pool_receive+0x16/0x20 [pool]
[   15.126100] Kernel panic - not syncing: Fatal exception
[   15.126200] Kernel Offset: disabled
[   15.126300] ---[ end Kernel panic - not syncing: Fatal exception ]---
"""

WARNING = """\
[    9.100000] ------------[ cut here ]------------
[    9.100001] WARNING: CPU: 0 PID: 12 at /build/pool/session.c:33 pool_put+0x1/0x2 [pool]
[    9.100002] Modules linked in: pool(OE)
[    9.100003] CPU: 0 PID: 12 Comm: kworker/0:1 Tainted: G           OE      6.1.0
[    9.100004] Call Trace:
[    9.100005]  <TASK>
[    9.100006]  pool_work+0x1/0x2
[    9.100007]  </TASK>
[    9.100008] ---[ end trace 0000000000000000 ]---
"""

SLAB = """\
[    3.0] =============================================================================
[    3.1] BUG kmalloc-64 (Tainted: G           OE     ): Right Redzone overwritten
[    3.2] -----------------------------------------------------------------------------
[    3.3] 0xffff888004c1d040-0xffff888004c1d047 @offset=64. First byte 0x41 instead of 0xcc
[    3.4] Slab 0xffffea0000130740 objects=16 used=1 fp=0xffff
[    3.5] Object 0xffff888004c1d000 @offset=0 fp=0x0000
[    3.6] FIX kmalloc-64: Restoring Right Redzone 0xffff888004c1d040-0xffff888004c1d047=0xcc
"""

KASAN = """\
[   21.0] ==================================================================
[   21.1] BUG: KASAN: slab-use-after-free in pool_close+0x50/0x60 [pool]
[   21.2] Read of size 8 at addr ffff88800a1b2c40 by task pool/77
[   21.3]
[   21.4] CPU: 0 PID: 77 Comm: pool Tainted: G           OE       6.12.9 #1
[   21.5] Call Trace:
[   21.6]  <TASK>
[   21.7]  kasan_report+0xd0/0x110
[   21.8]  </TASK>
[   21.9] ==================================================================
"""

QUIET = """\
[    0.000000] Linux version 6.1.0-56-cloud-amd64 (debian-kernel@lists.debian.org)
[    0.100000] Spectre V2 : WARNING: eBPF is enabled with eIBRS on, leaks possible via Spectre v2
[    4.000000] pool: loading out-of-tree module taints kernel.
[    4.000001] pool: module verification failed: signature and/or required key missing - tainting kernel
[    4.100000] pool: BUG report welcome, panic not needed; WARNING level 0
POOLPROOF-READY a
"""


def only(text: str) -> console_module.ConsoleFinding:
    findings = scan(text)
    assert len(findings) == 1, findings
    return findings[0]


def test_an_oops_is_one_finding_with_its_panic() -> None:
    finding = only(QUIET + OOPS)
    assert finding.kind == "oops"
    assert finding.title == "BUG: kernel NULL pointer dereference, address: 0000000000000000"
    assert finding.fatal
    assert "pool_receive+0x16" in finding.excerpt
    assert "end Kernel panic" in finding.excerpt
    assert "sysrq: Trigger" not in finding.excerpt
    assert finding.offset == (QUIET + OOPS).index("[   15.123999]")


@pytest.mark.parametrize(
    ("text", "kind", "title"),
    [
        (WARNING, "warning", "WARNING: CPU: 0 PID: 12 at /build/pool/session.c:33 pool_put+0x1/0x2 [pool]"),
        (SLAB, "slab", "BUG kmalloc-64 (Tainted: G           OE     ): Right Redzone overwritten"),
        (KASAN, "kasan", "BUG: KASAN: slab-use-after-free in pool_close+0x50/0x60 [pool]"),
    ],
)
def test_complaints_that_do_not_kill(text: str, kind: str, title: str) -> None:
    finding = only(text + "[   30.0] pool: going on\n")
    assert (finding.kind, finding.title, finding.fatal) == (kind, title, False)
    assert "going on" not in finding.excerpt


@pytest.mark.parametrize(
    ("line", "kind", "fatal"),
    [
        ("BUG: unable to handle page fault for address: ffffffffc0a01000", "oops", True),
        ("general protection fault, probably for non-canonical address 0xdead: 0000 [#1] SMP", "oops", True),
        ("Oops: general protection fault, probably for non-canonical address: 0000 [#1] SMP", "oops", True),
        ("divide error: 0000 [#1] PREEMPT SMP NOPTI", "oops", True),
        ("kernel BUG at mm/slub.c:379!", "bug", True),
        ("Kernel panic - not syncing: Attempted to kill init! exitcode=0x0000000b", "panic", True),
        ("watchdog: BUG: soft lockup - CPU#0 stuck for 23s! [pool:123]", "lockup", False),
        ("rcu: INFO: rcu_preempt self-detected stall on CPU", "lockup", False),
        ("INFO: task insmod:99 blocked for more than 120 seconds.", "hung_task", False),
        ("BUG: KFENCE: out-of-bounds write in pool_recv+0x1/0x2 [pool]", "kfence", False),
        ("BUG: sleeping function called from invalid context at mm/slab.h:271", "sleep", False),
        ("BUG: scheduling while atomic: pool/77/0x00000002", "sleep", False),
        ("WARNING: possible circular locking dependency detected", "lockdep", False),
        ("WARNING: suspicious RCU usage", "lockdep", False),
        ("UBSAN: array-index-out-of-bounds in pool/fragments.c:12:3", "ubsan", False),
        ("refcount_t: underflow; use-after-free.", "warning", False),
        ("WARNING: kernel/foo.c:12 at pool_x+0x1/0x2 [pool], CPU#0: pool/77", "warning", False),
        ("list_del corruption. prev->next should be ffff, but was dead", "slab", False),
        ("kmem_cache_destroy pool_sessions: Slab cache still has objects", "slab", False),
        ("kmemleak: 3 new suspected memory leaks (see /sys/kernel/debug/kmemleak)", "leak", False),
        ("pool: Unknown symbol curve25519_generic (err -2)", "module_message", False),
        ("pool: disagrees about version of symbol module_layout", "module_message", False),
        ("Out of memory: Killed process 77 (python3)", "memory", False),
    ],
)
def test_markers(line: str, kind: str, fatal: bool) -> None:
    for stamp in ("[   12.345678] ", "[   12.345678][  T123] ", "<4>[   12.345678] "):
        finding = only(f"{stamp}{line}\n")
        assert (finding.kind, finding.title, finding.fatal) == (kind, line, fatal)


def test_what_only_looks_like_a_complaint_is_none() -> None:
    assert scan(QUIET) == []


def test_a_second_banner_is_a_reboot_and_the_first_is_not() -> None:
    assert only(QUIET + QUIET).kind == "reboot"


def test_separate_reports_are_separate_findings() -> None:
    assert [f.kind for f in scan(WARNING + "[   10.0] pool: fine\n" * 6 + SLAB + WARNING)] == [
        "warning",
        "slab",
        "warning",
    ]


def test_an_endless_report_is_cut() -> None:
    endless = "[    1.0] BUG: KASAN: x\n" + "[    1.0]  stack line\n" * 100_000
    assert len(only(endless).excerpt) < console_module.MAX_EXCERPT + 1000


@pytest.fixture
def wired(tmp_path: Path) -> Iterator[tuple[Console, socket.socket]]:
    console = Console(tmp_path / "sock", tmp_path / "console.log")
    guest = socket.socket(socket.AF_UNIX)
    guest.connect(str(tmp_path / "sock"))
    yield console, guest
    guest.close()
    console.close()


def test_bytes_stay_bytes_and_text_is_always_text(wired: tuple[Console, socket.socket]) -> None:
    console, guest = wired
    hostile = b"\x1b[2J\xff\xfe\x00]0;title\x07 done\n"
    guest.sendall(hostile)
    console.wait_for("done$")
    assert console.path.read_bytes() == console.raw() == hostile
    assert "\ufffd" in console.text()


def test_wait_for_sees_what_comes_later_and_only_since_the_mark(wired: tuple[Console, socket.socket]) -> None:
    console, guest = wired
    guest.sendall(b"POOLPROOF-READY a\n")
    console.wait_for(r"^POOLPROOF-READY (\w)", 0)
    mark = console.mark()
    threading.Timer(0.05, guest.sendall, [b"again POOLPROOF\nPOOLPROOF-READY b\n"]).start()
    assert console.wait_for(r"^POOLPROOF-READY (\w)", mark).group(1) == "b"
    with pytest.raises(TimeoutError, match="READY b"):
        console.wait_for("never", mark, timeout=0.05)


def test_findings_arrive_in_pieces_and_settle_waits_for_the_end(wired: tuple[Console, socket.socket]) -> None:
    console, guest = wired
    data = OOPS.encode()
    guest.sendall(data[:700])
    console.wait_for("Oops: 0002")
    assert [f.kind for f in console.findings()] == ["oops"]
    threading.Timer(0.1, guest.sendall, [data[700:]]).start()
    console.settle(10)
    (finding,) = console.findings()
    assert "end Kernel panic" in finding.excerpt
    assert console.findings(console.mark()) == []


def test_settle_does_not_wait_for_ever(wired: tuple[Console, socket.socket]) -> None:
    console, guest = wired
    guest.sendall(OOPS.encode()[:700])
    console.wait_for("Oops: 0002")
    console.settle(10)  # ends by silence
    assert len(console.findings()) == 1


def test_a_flood_is_read_but_not_kept(
    wired: tuple[Console, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    console, guest = wired
    monkeypatch.setattr(console_module, "MAX_FILE", 10_000)
    guest.sendall(b"spam\n" * 4000 + b"[    1.0] kernel BUG at pool.c:1!\n")
    guest.shutdown(socket.SHUT_WR)
    console.settle()
    while not console.findings():
        console.settle()
    assert console.path.stat().st_size <= 10_000
    assert console.dropped > 0


def test_the_next_boot_connects_again_and_is_expected(
    wired: tuple[Console, socket.socket], tmp_path: Path
) -> None:
    console, guest = wired
    guest.sendall(b"[    0.0] Linux version 6.1.0\nfirst\n")
    console.wait_for("first")
    guest.close()
    console.expect_boot()
    with socket.socket(socket.AF_UNIX) as again:
        again.connect(str(tmp_path / "sock"))
        again.sendall(b"[    0.0] Linux version 6.1.0\nsecond\n")
        console.wait_for("second")
    assert console.findings() == []

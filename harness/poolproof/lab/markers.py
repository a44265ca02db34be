# SPDX-License-Identifier: GPL-2.0-or-later
"""What a kernel says when something is wrong: markers on the console, and what only looks like one.

The table follows the kernel's own sources (lib/bug.c, kernel/panic.c, mm/slub.c, mm/kfence, mm/kasan,
kernel/locking/lockdep.c, kernel/hung_task.c, kernel/watchdog.c, mm/kmemleak.c).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

# In front of a console line: "[   12.345678] " and with PRINTK_CALLER "[   12.345678][  T123] ".
STAMP = re.compile(r"^(?:<\d+>)?\[\s*\d+\.\d+\](?:\[\s*[TC]\d+\])? ?")


@dataclass(frozen=True)
class Marker:
    """`pattern` is searched in a line without its time stamp; `fatal` when the kernel does not go on."""

    kind: str
    pattern: re.Pattern[str]
    fatal: bool = False


def _marker(kind: str, pattern: str, fatal: bool = False) -> Marker:
    return Marker(kind, re.compile(pattern), fatal)


# The first that matches names the finding; several lines of one report make one finding.
MARKERS = (
    _marker("kasan", r"^BUG: KASAN: "),
    _marker("kfence", r"^BUG: KFENCE: "),
    _marker("kmsan", r"^BUG: KMSAN: "),
    _marker("kcsan", r"^BUG: KCSAN: "),
    _marker("ubsan", r"^UBSAN: "),
    _marker("oops", r"^BUG: kernel NULL pointer dereference", True),
    _marker("oops", r"^BUG: unable to handle (?:kernel |page fault)", True),
    _marker("oops", r"^BUG: (?:stack guard page was hit|corrupted stack|unable to handle)", True),
    _marker("oops", r"^(?:general protection fault|divide error|invalid opcode|stack segment)[:,]", True),
    _marker("oops", r"^Oops(?:: | - )", True),
    _marker("oops", r"^kernel tried to execute (?:NX-protected|user)", True),
    _marker("bug", r"^kernel BUG at ", True),
    _marker("lockup", r"soft lockup - CPU#\d+ stuck|^watchdog: BUG: soft lockup"),
    _marker("lockup", r"hard LOCKUP"),
    _marker("lockup", r"rcu: INFO: .*(?:self-)?detected stall|INFO: rcu_.*detected .*stall"),
    _marker("hung_task", r"^INFO: task .* blocked (?:for more than|in I/O wait) "),
    _marker("slab", r"^BUG \S+ .*: |^BUG: (?:slab|Bad page|non-zero pgtables|Bad rss)"),
    _marker("slab", r"^(?:Slab corruption|list_(?:add|del) corruption|Object already free)"),
    _marker("slab", r"^cache_from_obj: |^kmem_cache_destroy .*: Slab cache still has objects"),
    _marker("lockdep", r"^WARNING: (?:possible (?:circular|recursive|irq lock)|suspicious RCU|bad unlock)"),
    _marker("lockdep", r"^WARNING: (?:inconsistent|.*lock held when returning|held lock freed|lock held)"),
    _marker("lockdep", r"^INFO: trying to register non-static"),
    _marker("sleep", r"^BUG: (?:sleeping function called|scheduling while atomic|using (?:__this_cpu|smp_))"),
    _marker("bug", r"^BUG: "),
    _marker("leak", r"^kmemleak: \d+ new suspected memory leaks|^unreferenced object 0x"),
    _marker("warning", r"^WARNING: (?:CPU: \d+|.* at )|^refcount_t: "),
    _marker("memory", r"^Out of memory: |invoked oom-killer|: page allocation failure: "),
    _marker("panic", r"^Kernel panic - not syncing", True),
    _marker("reboot", r"^Linux version \d"),
    _marker("reboot", r"^(?:reboot: |sysrq: Resetting|Rebooting in )"),
    # The module loader's refusals; what the module itself says is not judged here.
    _marker("module_message", r"^\w+: (?:Unknown symbol|disagrees about|version magic|unsupported reloc)"),
    _marker("module_message", r"^[Mm]odule .*(?:no symbol|not compatible|\.gnu\.linkonce|is already)"),
)

# Lines that a marker matches though nothing is wrong. Checked first, whole line without its time stamp.
SUPPRESSIONS = tuple(
    re.compile(pattern)
    for pattern in (
        # Boot-time notes about the CPU, with the word in front.
        r"^WARNING: .*(?:Spectre|Retbleed|MDS|TAA|SRSO|MMIO Stale)",
        r"^watchdog: (?:Delayed init|NMI not enabled)",
        # What loading any module built outside the kernel tree says.
        r": loading out-of-tree module taints kernel",
        r": module verification failed: signature and/or required key missing",
    )
)

# Lines that say a report is complete.
REPORT_ENDS = (
    re.compile(r"^---\[ end (?:trace|Kernel panic)"),
    re.compile(r"^={20,}$"),
    re.compile(r"^(?:FIX|Disabling lock debugging)\b"),
)

# Lines that are certainly part of a report already begun.
REPORT_BODY = re.compile(
    r"^(?:CPU: \d+|Hardware name: |Modules linked in|RIP: |RSP: |R[A-D]X: |R[SD]I: |RBP: |R\d\d: |FS: |CS: |"
    r"CR[0-9]: |DR[0-9]: |PKRU: |Call Trace:|Code: |Workqueue: |</?\w+>|\s|#PF: |PGD |Oops: |Tainted: |"
    r"---\[|Kernel panic|Kernel Offset|Dumping ftrace|note: |Fixing recursive|==|--|(?:Read|Write) of size|"
    r"Allocated by|Freed by|The buggy|Memory state|page:|Showing all locks|NMI backtrace|Sending NMI|task:|"
    r"unreferenced|backtrace|comm |hex dump|stack backtrace|INFO: (?:lockdep|Slab|Object|Allocated|Freed)|"
    r"Slab 0x|Object 0x|Redzone|Padding|Bytes b4|Object |FIX )"
)

# Severest first: which kind names a report that holds several.
SEVERITY = (
    "kasan", "kfence", "kmsan", "oops", "bug", "slab", "lockup", "hung_task", "panic", "lockdep", "sleep",
    "kcsan", "ubsan", "leak", "memory", "warning", "reboot", "module_message",
)  # fmt: skip

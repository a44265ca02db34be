# SPDX-License-Identifier: GPL-2.0-or-later
"""What a session costs that nobody uses: processor time, memory, and whether anything grows in a day.

python -m bench idle [--seconds S]
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import time
import tracemalloc
from pathlib import Path

from poolref.constants import JOURNAL_DETAIL, JOURNAL_RING, MAX_SESSIONS, SECOND
from poolref.journal import ChangeType
from poolref.node import Node

from .measure import report
from .sansio import EASY, MESSAGE, Pair

HOST = "127.0.0.1"
HOUR = 3600 * SECOND
KIB = 1024


def resident() -> int:
    """Bytes of this process that are in memory."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * KIB
    raise RuntimeError("/proc/self/status has no VmRSS")


async def idle(seconds: float) -> None:
    """64 sessions between two nodes of this process: half of all costs is one node's."""
    async with Node(EASY) as server, Node(EASY) as client:
        port = await server.listen(HOST, 0)
        await client.connect(HOST, port)  # what is made once is made before
        before = resident()
        while len(client.sessions()) < MAX_SESSIONS:
            await client.connect(HOST, port)
        gc.collect()
        each = (resident() - before) / (2 * (MAX_SESSIONS - 1))
        report("memory of an idle session", f"{each / KIB:.0f} KiB", "under 64 KiB", met=each < 64 * KIB)
        start = time.process_time()
        await asyncio.sleep(seconds)
        share = (time.process_time() - start) / seconds / 2
        report("64 idle sessions", f"{share:.2%} of a core", "under 1 %", met=share < 0.01)


def day() -> None:
    """One session through 24 simulated hours, with a few messages every minute."""
    start = time.perf_counter()
    tracemalloc.start()
    pair = Pair()
    for session in (pair.sender, pair.receiver):
        for _ in range(JOURNAL_RING):  # what is bounded is full from the start
            session.core.record(ChangeType.CONFIG, "x" * JOURNAL_DETAIL)
    sizes = []
    for _ in range(24):
        for _ in range(60):
            for _ in range(3):
                pair.sender.send(MESSAGE * 2, pair.now)
                pair.receiver.send(b"short", pair.now)
            pair.exchange()
            while pair.server.take(pair.now) is not None or pair.client.take(pair.now) is not None:
                pass
            pair.pass_time(HOUR // 60)
        if pair.sender.end is not None:
            raise RuntimeError(f"the session ended: {pair.sender.end}")
        gc.collect()
        sizes.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    took = time.perf_counter() - start
    growth = sizes[-1] - sizes[1]
    figure = f"{growth / KIB:+.1f} KiB from hour 2 to 24 of {sizes[-1] / KIB:.0f} KiB ({took:.0f} s)"
    report("growth in a simulated day", figure, "none", met=growth < KIB)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="bench idle", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=15.0, help="to watch idle sessions (default: 15)")
    asyncio.run(idle(parser.parse_args(argv).seconds))
    day()


if __name__ == "__main__":
    main()

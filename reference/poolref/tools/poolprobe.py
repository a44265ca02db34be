# SPDX-License-Identifier: GPL-2.0-or-later
"""poolprobe: find out which dialect of POOL a node speaks, in at most three handshakes.

Exit status: 0 it is known, 1 it is not, 2 the node cannot be reached or the usage is wrong.
"""

from __future__ import annotations

import argparse
import json
import socket
import sys
from typing import Any

from poolref.constants import CONNECT_TIMEOUT, DEFAULT_PORT, SECOND
from poolref.dialect import deviations
from poolref.dialect_attempt import Attempt
from poolref.dialect_probe import DialectProbe, Finding
from poolref.errors import PoolError
from poolref.io import system

_HASHES = 1 << 14


def probe(host: str, port: int = DEFAULT_PORT) -> Finding:
    """Probe a node over TCP; takes up to half a minute.  OSError when it cannot be reached."""
    search = DialectProbe(system.random_bytes)
    while (finding := search.finding) is None:
        with socket.create_connection((host, port), timeout=CONNECT_TIMEOUT / SECOND) as sock:
            _run(search.begin(system.wall_clock(), system.monotonic()), sock)
        search.ended()
    return finding


def _run(attempt: Attempt, sock: socket.socket) -> None:
    """One attempt over a connected socket, to its end."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while True:
        if outgoing := attempt.data_to_send():
            try:
                sock.sendall(outgoing)
            except OSError:
                attempt.end_of_stream(system.monotonic())
        if attempt.end:
            return
        if attempt.search is not None:
            solution = attempt.search.step(_HASHES)
            if solution is not None:
                attempt.solved(solution, system.monotonic())
                continue
        _wait(attempt, sock)
        attempt.handle_timer(system.monotonic())


def _wait(attempt: Attempt, sock: socket.socket) -> None:
    """Take what comes until the attempt's timer; while there is a puzzle, only what is there."""
    left = 0.0 if attempt.search is not None else (attempt.next_timer() - system.monotonic()) / SECOND
    sock.settimeout(max(left, 0.000_001))
    try:
        data = sock.recv(1 << 16)
    except TimeoutError:
        return
    except OSError:
        data = b""
    if data:
        attempt.receive_data(data, system.monotonic())
    else:
        attempt.end_of_stream(system.monotonic())


def as_json(finding: Finding) -> dict[str, Any]:
    """The finding for machines."""
    return {
        "dialect": finding.name,
        "why": finding.why,
        "attempts": finding.attempts,
        "failed": list(finding.failed),
        "evidence": [
            {"attempt": each.attempt, "field": each.field, "seen": each.seen, "text": each.text}
            for each in finding.evidence
        ],
        "deviations": []
        if finding.dialect is None
        else [
            {"field": each.field, "requirements": list(each.requirements)}
            for each in deviations(finding.dialect)
        ],
    }


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="poolprobe", description="Find out which dialect a node speaks.")
    parser.add_argument("host", help="address or name")
    parser.add_argument("port", nargs="?", type=int, default=DEFAULT_PORT, help="default: %(default)s")
    parser.add_argument("--json", action="store_true", help="print machine-readable JSON")
    args = parser.parse_args(argv)
    if not 0 < args.port < 65536:
        parser.error(f"not a port: {args.port} (1..65535)")
    try:
        finding = probe(args.host, args.port)
    except (OSError, PoolError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) and exc.strerror else str(exc)
        print(f"poolprobe: {args.host} port {args.port}: {reason}", file=sys.stderr)
        return 2
    print(json.dumps(as_json(finding)) if args.json else finding.report())
    return 0 if finding.dialect is not None else 1


if __name__ == "__main__":
    sys.exit(main())

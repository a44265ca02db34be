# SPDX-License-Identifier: GPL-2.0-or-later
"""poold: run one reference node, steered through its control socket (`poolctl --backend reference`)."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import errno
import json
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

from poolref.errors import PoolError
from poolref.node import Node
from poolref.tools.control import MAX_LINE, METHODS, default_socket
from poolref.tools.node_backend import NodeBackend
from poolref.tools.plain import decode, encode


async def answer(backend: NodeBackend, line: bytes) -> dict[str, Any]:
    """The reply to one request line; whatever is wrong with it is in the reply."""
    try:
        request = json.loads(line)
        method, params = request["method"], decode(request.get("params") or {})
    except (ValueError, TypeError, KeyError):
        return {"errno": errno.EINVAL, "error": "not a request"}
    if method not in METHODS:
        return {"errno": errno.ENOTTY, "error": f"unknown method {method!r}"}
    try:
        return {"result": encode(await getattr(backend, method)(**params))}
    except TypeError as exc:
        return {"errno": errno.EINVAL, "error": str(exc)}
    except (OSError, PoolError) as exc:
        number = exc.errno if isinstance(exc, OSError) else None
        text = exc.strerror if isinstance(exc, OSError) and exc.strerror else str(exc)
        return {"errno": number or errno.EIO, "error": text}


async def serve(backend: NodeBackend, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer one client's requests, in order, until it hangs up."""
    with contextlib.suppress(ConnectionError, ValueError), contextlib.closing(writer):
        while line := await reader.readline():
            writer.write(json.dumps(await answer(backend, line)).encode() + b"\n")
            await writer.drain()


def claim(path: Path) -> None:
    """Remove a stale socket. Raises OSError(EADDRINUSE) when a node answers on it."""
    if not path.exists():
        return
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
    raise OSError(errno.EADDRINUSE, f"another node already answers at {path}")


async def run(path: Path, port: int | None, keylog: Path | None) -> None:
    """Run a node until SIGINT or SIGTERM."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    claim(path)
    async with Node(keylog=keylog) as node:
        backend = NodeBackend(node)
        # Whoever can open the socket controls the node, as whoever can open /dev/pool does.
        mask = os.umask(0o177)
        try:
            server = await asyncio.start_unix_server(lambda r, w: serve(backend, r, w), path, limit=MAX_LINE)
        finally:
            os.umask(mask)
        try:
            if port is not None:
                await node.listen(None, port)
                print(f"poold: listening on port {node.port}", flush=True)
            print(f"poold: control socket {path}", flush=True)
            await stop.wait()
        finally:
            server.close()
            path.unlink(missing_ok=True)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="poold", description="Run a reference POOL node.")
    parser.add_argument(
        "--socket", type=Path, default=default_socket(), help="control socket (default: %(default)s)"
    )
    parser.add_argument("--listen", type=int, metavar="PORT", help="accept sessions from the start")
    parser.add_argument("--keylog", type=Path, metavar="FILE", help="append session keys to FILE")
    args = parser.parse_args(argv)
    try:
        asyncio.run(run(args.socket, args.listen, args.keylog))
    except (OSError, PoolError) as exc:
        print(f"poold: {exc.strerror if isinstance(exc, OSError) and exc.strerror else exc}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

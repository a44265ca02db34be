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
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

from poolref.errors import PoolError
from poolref.node import Node, Settings
from poolref.peers import NO_KEY
from poolref.tools import misbehaviours
from poolref.tools.arguments import number_in, option_name, static_peer
from poolref.tools.control import MAX_LINE, METHODS, default_socket
from poolref.tools.node_backend import NodeBackend, entry_rows
from poolref.tools.plain import decode, encode


async def answer(backend: NodeBackend, line: bytes) -> dict[str, Any]:
    """The reply to one request line; whatever is wrong with it is in the reply."""
    try:
        request = json.loads(line)
        method, params = request["method"], decode(request.get("params") or {})
    except (ValueError, TypeError, KeyError, RecursionError):
        return {"errno": errno.EINVAL, "error": "not a request"}
    if method not in METHODS:
        return {"errno": errno.ENOTTY, "error": f"unknown method {method!r}"}
    call = getattr(backend, method, None)
    if call is None:
        return {"errno": errno.EOPNOTSUPP, "error": f"the reference node has no {method}"}
    try:
        return {"result": encode(await call(**params))}
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


@contextlib.asynccontextmanager
async def control_socket(node: Node, path: Path) -> AsyncIterator[None]:
    """Let a running node be steered through a Unix socket. OSError(EADDRINUSE) when another one is."""
    backend = NodeBackend(node)
    claim(path)
    # Whoever can open the socket controls the node, as whoever can open /dev/pool does.
    mask = os.umask(0o177)
    try:
        server = await asyncio.start_unix_server(lambda r, w: serve(backend, r, w), path, limit=MAX_LINE)
    finally:
        os.umask(mask)
    try:
        yield
    finally:
        server.close()
        path.unlink(missing_ok=True)


class JournalFile:
    """Appends the node's journal to a file, an entry a line of JSON, as it is written."""

    def __init__(self, path: Path, node: Node) -> None:
        self._file = path.open("a", encoding="utf-8")
        self._node = node
        self._written = 0
        self._failed = False
        node.watch_journal(self.follow)

    def follow(self) -> None:
        """Write what is new. A file that cannot be written to is complained about once, and left alone."""
        if self._failed:
            return
        entries = self._node.journal()
        count = self._node.stats().journal_entries
        try:
            for row in entry_rows(entries[len(entries) - (count - self._written) :], self._written):
                self._file.write(json.dumps(row, ensure_ascii=False) + "\n")
            self._file.flush()
        except OSError as exc:
            self._failed = True
            print(f"poold: {self._file.name}: {exc.strerror}; the journal goes on without", file=sys.stderr)
        self._written = count

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._file.close()


async def run(args: argparse.Namespace, settings: Settings) -> None:
    """Run a node until SIGINT or SIGTERM."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    path: Path = args.socket
    node = Node(settings, transport=args.transport, discovery=args.discovery, keylog=args.keylog)
    async with contextlib.AsyncExitStack() as stack:
        if args.journal is not None:
            stack.enter_context(contextlib.closing(JournalFile(args.journal, node)))
        await stack.enter_async_context(node)
        for address, port, pubkey in args.peer:
            node.add_peer(address, port, pubkey or NO_KEY)
        await stack.enter_async_context(control_socket(node, path))
        if args.listen is not None:
            await node.listen(args.host, args.listen)
            print(f"poold: listening on port {node.port}", flush=True)
        print(f"poold: control socket {path}", flush=True)
        await stop.wait()


_SETTINGS: Final = {
    "difficulty": "leading zero bits of the puzzle, 16..20",
    "heartbeat_s": "seconds between heartbeats, 1..30",
    "rekey_packets": "packets under one key, 1024..268435456",
    "rekey_s": "seconds under one key, 10..3600",
    "mtu_min": "smallest packet size to rely on, 512..1400",
    "integrity_s": "seconds between integrity challenges, 1..3600; 0: none",
    "mtu_max": "largest packet size to try, 512..1400",
}


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="poold", description="Run a reference POOL node.")
    parser.add_argument(
        "--socket", type=Path, default=default_socket(), help="control socket (default: %(default)s)"
    )
    port = number_in(0, 65535, "port")
    parser.add_argument(
        "--listen", type=port, metavar="PORT", help="accept sessions from the start; 0: on a free port"
    )
    parser.add_argument("--host", metavar="ADDRESS", help="listen on this address only (default: all)")
    parser.add_argument("--transport", choices=("tcp", "raw", "auto"), default="tcp", help="default: tcp")
    parser.add_argument(
        "--discovery",
        nargs="?",
        const=True,
        default=False,
        metavar="INTERFACE",
        help="announce this node by multicast and hear others, on one network interface or all",
    )
    parser.add_argument(
        "--peer",
        type=static_peer,
        action="append",
        default=[],
        metavar="ADDRESS[:PORT[:PUBKEY]]",
        help="a peer that is never forgotten; may be repeated",
    )
    for name, text in _SETTINGS.items():
        option = "--" + option_name(name)
        parser.add_argument(option, dest=name, type=number_in(0, 2**32 - 1, name), metavar="N", help=text)
    for name, text in (
        ("remote_admin", "let peers configure this node and read its journal"),
        ("peer_exchange", "tell peers of other peers"),
    ):
        option = "--" + name.replace("_", "-")
        parser.add_argument(option, action=argparse.BooleanOptionalAction, default=True, help=text)
    parser.add_argument("--keylog", type=Path, metavar="FILE", help="append session keys to FILE")
    parser.add_argument("--journal", type=Path, metavar="FILE", help="append the journal to FILE, as JSON")
    misbehaviours.add_options(parser)
    return parser


def main(argv: list[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    names = (*_SETTINGS, "remote_admin", "peer_exchange")
    stated = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    try:
        settings = Settings(**{**misbehaviours.chosen(args), **stated})
    except PoolError as exc:
        print(f"poold: {exc.strerror if isinstance(exc, OSError) else exc}", file=sys.stderr)
        return 2
    try:
        asyncio.run(run(args, settings))
    except (OSError, PoolError) as exc:
        print(f"poold: {exc.strerror if isinstance(exc, OSError) and exc.strerror else exc}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

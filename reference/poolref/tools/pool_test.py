# SPDX-License-Identifier: GPL-2.0-or-later
"""pool_test: move bytes through POOL and prove that they arrived.

    pool_test server                                # on one machine
    pool_test client HOST --size 500M               # on the other: sends, compares SHA-256 at both ends
    pool_test bench                                 # both ends here, over loopback

Exit status: 0 moved and verified, 1 refused, failed or not equal, 2 wrong usage, 75 interrupted: the
printed command goes on where it stopped.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import errno
import json
import resource
import secrets
import shlex
import statistics
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from poolref.errors import PoolError
from poolref.tools.arguments import UsageError, number_in, resolve, split_endpoint
from poolref.tools.control import ControlClient, default_socket
from poolref.tools.kernel_abi import DEFAULT_PORT
from poolref.tools.poolctl import explain, open_device
from poolref.tools.ports import BackendSide, NodeSide, Side
from poolref.tools.progress import ProgressLine, byte_count, megabytes
from poolref.tools.transfer import (
    DEFAULT_BLOCK,
    MAX_BLOCK,
    MIN_BLOCK,
    Client,
    Failed,
    FromFile,
    Interrupted,
    Offer,
    Port,
    Result,
    Server,
    Source,
)

RESUMABLE: Final = 75  # EX_TEMPFAIL
INTERRUPTED: Final = 130
_PINGS: Final = 200
_LONGEST_PAUSE_S: Final = 10.0


def peak_memory() -> int:
    """The most bytes that this process had in memory so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def report(result: Result, args: argparse.Namespace) -> None:
    """One verified transfer, for a person or as a line of JSON."""
    if args.json:
        fields = {**asdict(result), "rate_bps": round(result.rate), "peak_memory": peak_memory()}
        print(json.dumps(fields), flush=True)
        return
    resumed = f" (from {megabytes(result.resumed_at)} on)" if result.resumed_at else ""
    print(
        f"{result.peer}: {result.direction} {megabytes(result.size)}{resumed} in {result.seconds:.2f} s = "
        f"{result.rate / 1e6:.1f} Mbit/s, peak memory {megabytes(peak_memory())}\n"
        f"  SHA-256 {result.sha256}, equal at both ends",
        flush=True,
    )


def complain(text: str) -> None:
    print(f"pool_test: {text}", file=sys.stderr, flush=True)


# -- the node to test with -------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def side(args: argparse.Namespace) -> AsyncIterator[Side]:
    """The node that --backend names."""
    if args.backend == "reference":
        from poolref.node import Node  # needs cryptography, which a guest with a module to test may lack

        async with Node(keylog=args.keylog) as node:
            yield NodeSide(node)
        return
    backend = BackendSide(
        (lambda: open_device(args.device))
        if args.backend == "kernel"
        else (lambda: ControlClient(args.socket))
    )
    try:
        yield backend
    finally:
        backend.shut()


# -- commands --------------------------------------------------------------------------------------


async def client(args: argparse.Namespace, source: Source | None, offer: Offer) -> int:
    host, port = split_endpoint(args.host, args.port)
    line = ProgressLine(offer.size, sys.stderr)
    task = Client(offer, source, args.timeout, _silent if args.quiet else line)
    begun = args.resume is not None
    async with side(args) as node:
        for attempt in range(args.retries + 1):
            if attempt:
                await asyncio.sleep(min(2.0 ** (attempt - 1), _LONGEST_PAUSE_S))
            try:
                session = await _connect(node, host, port)
                begun = True
                try:
                    result = await task.attempt(session)
                finally:
                    line.end()
                    await session.close()
            except OSError as exc:
                if not begun:  # more likely a wrong address than a lost session
                    raise
                complain(f"interrupted after {megabytes(task.offset)}: {explain(exc)}")
            except Interrupted as lost:
                complain(f"interrupted after {megabytes(task.offset)}: {lost}")
            else:
                report(result, args)
                return 0
    return RESUMABLE


async def _connect(node: Side, host: str, port: int) -> Port:
    failure: OSError = OSError(errno.EADDRNOTAVAIL, f"{host} has no address")
    for address in resolve(host):
        try:
            return await node.connect(address, port)
        except OSError as exc:
            failure = exc
    raise OSError(failure.errno, f"{host} port {port}: {failure.strerror}") from failure


def _silent(offset: int) -> None:
    """No progress line."""


async def server(args: argparse.Namespace) -> int:
    async with side(args) as node:
        port = await node.listen(args.host, args.port)
        if not args.json:
            print(f"pool_test: waiting on port {port}", flush=True)
        sessions = Server(args.timeout)
        statuses: asyncio.Queue[int] = asyncio.Queue()
        tasks: set[asyncio.Task[None]] = set()

        async def attend(session: Port) -> None:
            try:
                async for result in sessions.serve(session):
                    report(result, args)
                    statuses.put_nowait(0)
            except Interrupted as lost:
                if lost.moved is not None:  # otherwise a client that had its verdict has hung up
                    complain(f"{lost} after {megabytes(lost.moved)}")
            except Failed as failure:
                complain(f"{session.peer}: {failure}")
                statuses.put_nowait(1)
            finally:
                await session.close()

        async def admit() -> None:
            async for session in node.incoming():
                task = asyncio.create_task(attend(session))
                tasks.add(task)
                task.add_done_callback(tasks.discard)

        admitting = asyncio.create_task(admit())
        try:
            status = await statuses.get()
            while not args.once:
                status = await statuses.get()
            return status
        finally:
            admitting.cancel()
            for task in tasks:
                task.cancel()
            await asyncio.gather(admitting, *tasks, return_exceptions=True)


async def bench(args: argparse.Namespace) -> int:
    """Up, down, and the time there and back of small messages."""
    async with side(args) as far, contextlib.AsyncExitStack() as stack:
        near = await stack.enter_async_context(side(args)) if args.backend == "reference" else far
        sessions = Server(args.timeout)
        default = 0 if args.backend == "reference" else DEFAULT_PORT
        port = await far.listen(None, args.port or default)

        async def serve() -> None:
            async for session in far.incoming():
                with contextlib.suppress(Interrupted):
                    async for _ in sessions.serve(session):
                        pass

        serving = asyncio.create_task(serve())
        try:
            session = await near.connect(args.address, port)
            for direction in ("up", "down"):
                offer = make_offer(args, direction)
                report(await Client(offer, None, args.timeout, _silent).attempt(session), args)
            trips = await _ping(session, args.timeout)
            if args.json:
                print(json.dumps({"round_trip_s": statistics.median(trips), "worst_s": max(trips)}))
            else:
                late = sorted(trips)[len(trips) * 99 // 100]
                median = statistics.median(trips)
                print(
                    f"there and back, {len(trips)} x 64 bytes: median {median * 1e6:.0f} us, "
                    f"99 % within {late * 1e6:.0f} us"
                )
            await session.close()
        finally:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)
    return 0


async def _ping(session: Port, timeout: float) -> list[float]:
    trips = []
    for number in range(_PINGS):
        message = b"P" + number.to_bytes(8, "big") + bytes(55)
        start = time.perf_counter()
        await session.send(message)
        if await session.recv(timeout) != message:
            raise Failed("a ping came back as something else")
        trips.append(time.perf_counter() - start)
    return trips


# -- arguments -------------------------------------------------------------------------------------


def make_offer(args: argparse.Namespace, direction: str, size: int | None = None) -> Offer:
    seed = secrets.randbits(63)
    return Offer(secrets.token_hex(8), direction, args.size if size is None else size, seed, args.message)


def offer_of(args: argparse.Namespace) -> tuple[Offer, Source | None]:
    """What the client's arguments ask for. A resume token holds all that must stay the same."""
    source = None
    size = args.size
    if args.file is not None:
        if args.direction == "down":
            raise UsageError("--file is for uploads")
        try:
            source = FromFile(args.file)
        except OSError as exc:
            raise UsageError(f"cannot read {args.file}: {exc.strerror}") from exc
        size = source.size
        if not size:
            raise UsageError(f"{args.file} is empty")
    offer = make_offer(args, args.direction, size)
    if args.resume is not None:
        try:
            identity, seed, stated = args.resume.split(":")
            offer = Offer(identity, args.direction, int(stated), int(seed, 16), args.message)
            offer.check()
        except (ValueError, Failed):
            raise UsageError(f"not what --resume takes: {args.resume!r}") from None
        if source is not None and source.size != offer.size:
            raise UsageError(f"{args.file} has {source.size} bytes, the transfer had {offer.size}")
    return offer, source


def resume_command(argv: list[str], offer: Offer) -> str:
    """The command line that goes on with an interrupted upload."""
    kept = list(argv)
    while "--resume" in kept:
        at = kept.index("--resume")
        del kept[at : at + 2]
    return shlex.join(["pool_test", *kept, "--resume", f"{offer.id}:{offer.seed:x}:{offer.size}"])


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pool_test",
        description="Move bytes through POOL and prove that they arrived.",
        epilog="Exit status: 0 verified, 1 failed, 2 wrong usage, 75 interrupted and can go on.",
    )
    parser.add_argument(
        "--backend",
        choices=("reference", "kernel", "poold"),
        default="reference",
        help="a node of its own (default), the module behind /dev/pool, or a running poold",
    )
    parser.add_argument("--device", default="/dev/pool", metavar="PATH", help="with kernel (%(default)s)")
    parser.add_argument("--socket", type=Path, default=None, help=f"with poold ({default_socket()})")
    parser.add_argument("--keylog", type=Path, default=None, metavar="FILE", help="with reference")
    parser.add_argument("--json", action="store_true", help="a line of JSON for each transfer")
    parser.add_argument("--quiet", action="store_true", help="no progress line")
    parser.add_argument(
        "--timeout", type=float, default=60.0, metavar="S", help="of silence that end a session (%(default)s)"
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    port = number_in(1, 65535, "port")
    message = number_in(MIN_BLOCK, MAX_BLOCK, "message size")

    sub = commands.add_parser("server", help="wait for clients")
    sub.add_argument("--port", type=port, default=DEFAULT_PORT)
    sub.add_argument("--host", default=None, help="one address to listen on (reference only; default: all)")
    sub.add_argument("--once", action="store_true", help="exit after one transfer, with its status")
    sub = commands.add_parser("client", help="transfer to or from a server")
    sub.add_argument("host", help="address, name, HOST:PORT or [IPv6]:PORT")
    sub.add_argument("port", nargs="?", type=port, default=None)
    sub.add_argument("--size", type=byte_count, default=100_000_000, help="default: 100M")
    sub.add_argument("--file", type=Path, help="send this file instead of generated bytes")
    sub.add_argument("--direction", choices=("up", "down"), default="up")
    sub.add_argument("--message", type=message, default=DEFAULT_BLOCK, help="bytes a message (%(default)s)")
    sub.add_argument("--retries", type=number_in(0, 1000, "retries"), default=3, help="default: %(default)s")
    sub.add_argument("--resume", metavar="TOKEN", help="go on with an interrupted upload")
    sub = commands.add_parser("bench", help="both ends here, over loopback")
    sub.add_argument("--size", type=byte_count, default=64_000_000, help="default: 64M")
    sub.add_argument("--message", type=message, default=DEFAULT_BLOCK, help="bytes a message (%(default)s)")
    sub.add_argument("--port", type=number_in(0, 65535, "port"), default=0, help="default: a free one")
    sub.add_argument("--address", default="127.0.0.1", help="default: %(default)s")
    return parser


def main(argv: list[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    args = build_parser().parse_args(argv)
    offer: Offer | None = None
    try:
        work: Any
        if args.command == "client":
            offer, source = offer_of(args)
            work = client(args, source, offer)
        else:
            work = server(args) if args.command == "server" else bench(args)
        status: int = asyncio.run(work)
    except UsageError as exc:
        complain(str(exc))
        return 2
    except (Failed, Interrupted, PoolError) as exc:
        complain(explain(exc) if isinstance(exc, OSError) else str(exc))
        return 1
    except OSError as exc:
        complain(explain(exc))
        return 1
    except KeyboardInterrupt:
        status = INTERRUPTED
    if status in (RESUMABLE, INTERRUPTED) and offer is not None and offer.direction == "up":
        complain(f"to go on: {resume_command(argv, offer)}")
    return status


if __name__ == "__main__":
    sys.exit(main())

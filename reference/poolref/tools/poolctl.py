# SPDX-License-Identifier: GPL-2.0-or-later
"""poolctl: steer a POOL node, the kernel module (/dev/pool) or a running reference node.

Exit status: 0 done, 1 the node refused or failed (the message says why), 2 wrong usage.
"""

from __future__ import annotations

import argparse
import base64
import errno
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from poolref.tools.arguments import UsageError, number_in, resolve, split_endpoint
from poolref.tools.backend import Backend, Control
from poolref.tools.control import ControlClient, default_socket
from poolref.tools.kernel_abi import (
    CHANNEL_LIST,
    CHANNEL_SUBSCRIBE,
    CHANNEL_UNSUBSCRIBE,
    DEFAULT_PORT,
    MAX_MESSAGE,
    PoolDevice,
    SessionInfo,
)
from poolref.tools.poolctl_control import add_control_commands, run_control, table_of

OPERATIONS = {"subscribe": CHANNEL_SUBSCRIBE, "unsubscribe": CHANNEL_UNSUBSCRIBE, "list": CHANNEL_LIST}


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="poolctl", description="Steer a POOL node.")
    parser.add_argument(
        "--backend", choices=("kernel", "reference"), default="kernel", help="which node (default: kernel)"
    )
    parser.add_argument(
        "--device",
        default="/dev/pool",
        metavar="PATH",
        help="the module's device file (default: %(default)s)",
    )
    parser.add_argument(
        "--socket",
        type=Path,
        default=None,
        metavar="PATH",
        help=f"the reference node's socket (default: {default_socket()})",
    )
    parser.add_argument("--json", action="store_true", help="print machine-readable JSON")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    port = number_in(1, 65535, "port")
    # Not capped at 63: what an index beyond the table does is the node's answer to give (M02).
    index = number_in(0, 2**32 - 1, "session index")
    channel = number_in(0, 255, "channel")

    sub = commands.add_parser("listen", help="accept sessions")
    sub.add_argument("port", nargs="?", type=port, default=DEFAULT_PORT)
    commands.add_parser("stop", help="stop accepting; sessions go on")
    sub = commands.add_parser("connect", help="open a session; prints its index")
    sub.add_argument("host", help="address, name, HOST:PORT or [IPv6]:PORT")
    sub.add_argument("port", nargs="?", type=port, default=None)
    sub.add_argument("--pool-version", type=number_in(0, 255, "version"), default=0, help="protocol version")
    commands.add_parser("sessions", help="list sessions")
    sub = commands.add_parser("send", help="send one message (standard input by default)")
    sub.add_argument("index", type=index)
    source = sub.add_mutually_exclusive_group()
    source.add_argument("text", nargs="?")
    source.add_argument("--file", type=Path)
    sub.add_argument("--channel", type=channel, default=0)
    sub = commands.add_parser("recv", help="receive one message to standard output (waits 5 s)")
    sub.add_argument("index", type=index)
    sub.add_argument("--channel", type=channel, default=0, help="0 takes any")
    sub.add_argument("--max-size", type=number_in(1, MAX_MESSAGE, "size"), default=MAX_MESSAGE)
    sub = commands.add_parser("close", help="close a session gracefully")
    sub.add_argument("index", type=index)
    sub = commands.add_parser("channel", help="subscribe, unsubscribe or list channels of a session")
    sub.add_argument("index", type=index)
    sub.add_argument("operation", choices=sorted(OPERATIONS))
    sub.add_argument("channel", nargs="?", type=channel, default=None)
    commands.add_parser("counters", help="show the node's counters")
    add_control_commands(commands, index)
    return parser


def table(sessions: list[SessionInfo]) -> str:
    """A human's view of the session list."""
    if not sessions:
        return "no sessions"
    rows = [("INDEX", "PEER", "PORT", "STATE", "SENT", "RECEIVED", "PACKETS", "REKEYS", "SESSION ID")]
    rows += [
        (
            str(s.index),
            s.peer_addr,
            str(s.peer_port),
            s.state,
            str(s.bytes_sent),
            str(s.bytes_recv),
            f"{s.packets_sent}/{s.packets_recv}",
            str(s.rekey_count),
            s.session_id,
        )
        for s in sessions
    ]
    return table_of(rows)


def connect(node: Backend, args: argparse.Namespace) -> tuple[Any, str]:
    host, port = split_endpoint(args.host, args.port)
    addresses = resolve(host)
    failures: list[OSError] = []
    for address in addresses:
        try:
            index = node.connect(address, port, args.pool_version)
        except OSError as exc:
            failures.append(exc)
        else:
            return {"index": index, "address": address, "port": port}, str(index)
    detail = "; ".join(f"{a} port {port}: {e.strerror}" for a, e in zip(addresses, failures, strict=True))
    raise OSError(failures[-1].errno, detail)


def message_to_send(args: argparse.Namespace) -> bytes:
    if args.file is not None:
        try:
            return bytes(args.file.read_bytes())
        except OSError as exc:
            raise UsageError(f"cannot read {args.file}: {exc.strerror}") from exc
    if args.text is not None:
        return str(args.text).encode()
    return sys.stdin.buffer.read()


def run(node: Control, args: argparse.Namespace) -> tuple[Any, str | bytes]:
    """Carry out one command: (JSON-ready result, human output)."""
    match args.command:
        case "listen":
            port = node.listen(args.port)
            return {"port": port}, f"listening on port {port}"
        case "stop":
            node.stop()
            return {}, "stopped listening"
        case "connect":
            return connect(node, args)
        case "sessions":
            sessions = node.sessions()
            return [asdict(s) for s in sessions], table(sessions)
        case "send":
            data = message_to_send(args)
            node.send(args.index, data, args.channel)
            return {"sent": len(data)}, ""
        case "recv":
            data = node.recv(args.index, args.channel, args.max_size)
            return {"length": len(data), "b64": base64.b64encode(data).decode()}, data
        case "close":
            node.close_session(args.index)
            return {}, ""
        case "channel":
            operation = OPERATIONS[args.operation]
            if operation != CHANNEL_LIST and args.channel is None:
                raise UsageError(f"{args.operation} needs a channel number")
            channels = node.channel(args.index, operation, args.channel or 0)
            return {"channels": channels}, " ".join(map(str, channels)) if operation == CHANNEL_LIST else ""
        case "counters":
            counters = node.counters()
            return counters, "\n".join(f"{name} {value}" for name, value in sorted(counters.items()))
    return run_control(node, args)


def open_device(path: str) -> PoolDevice:
    """The module behind a device file; an OSError that says what to do about it."""
    try:
        return PoolDevice(path)
    except OSError as exc:
        hint = {errno.ENOENT: "is the module loaded? (modprobe pool)", errno.EACCES: "only root may open it"}
        note = hint.get(exc.errno or 0, "")
        raise OSError(exc.errno, f"{path}: {exc.strerror}" + (f"; {note}" if note else "")) from exc


def open_backend(args: argparse.Namespace) -> PoolDevice | ControlClient:
    return ControlClient(args.socket) if args.backend == "reference" else open_device(args.device)


def explain(exc: OSError) -> str:
    name = errno.errorcode.get(exc.errno or 0, "")
    text = exc.strerror or str(exc)
    return f"{text} ({name})" if name and name not in text else text


def main(argv: list[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    try:
        with open_backend(args) as node:
            result, human = run(node, args)
    except UsageError as exc:
        print(f"poolctl: {exc}", file=sys.stderr)
        return 2
    except OSError as exc:
        if args.json:
            print(json.dumps({"errno": exc.errno, "error": explain(exc)}))
        print(f"poolctl: {args.command}: {explain(exc)}", file=sys.stderr)
        return 1
    if args.json:
        print(json.dumps(result))
    elif isinstance(human, bytes):
        sys.stdout.buffer.write(human)
        sys.stdout.buffer.flush()
    elif human:
        print(human)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BrokenPipeError:
        os._exit(1)

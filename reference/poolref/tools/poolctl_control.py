# SPDX-License-Identifier: GPL-2.0-or-later
"""The commands of poolctl that go beyond moving messages: `backend.Control`."""

from __future__ import annotations

import argparse
import datetime
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from poolref.tools.arguments import UsageError, number_in, option_name, static_peer
from poolref.tools.backend import Control
from poolref.tools.kernel_abi import DEFAULT_PARAMETERS

_LARGEST = {"difficulty": 255, "heartbeat_s": 65535, "mtu_min": 65535, "mtu_max": 65535}
_NANOSECONDS = 1_000_000_000


def add_control_commands(commands: Any, index: Any) -> None:
    """Add the subcommands; `index` is the argparse type of a session index."""
    for name, text in (
        ("rekey", "replace a session's keys now"),
        ("confirm", "make the peer's new configuration permanent"),
        ("rollback", "let the peer go back to the configuration it had"),
        ("exchange", "tell the peer of the peers this node knows"),
        ("probe-mtu", "search for the largest packet that passes; prints the mtu"),
    ):
        commands.add_parser(name, help=text).add_argument("index", type=index)
    sub = commands.add_parser("configure", help="propose a configuration to the peer; prints its version")
    sub.add_argument("index", type=index)
    sub.add_argument(
        "--deadline", type=seconds, default=60.0, metavar="S", help="for the confirmation (%(default)s)"
    )
    for name in DEFAULT_PARAMETERS:
        largest = _LARGEST.get(name, 2**32 - 1)  # what is in range is the node's answer to give
        option = "--" + option_name(name)
        sub.add_argument(option, dest=name, type=number_in(0, largest, name), metavar="N")
    sub = commands.add_parser("journal", help="show the node's journal, or a peer's")
    sub.add_argument("--peer", type=index, metavar="INDEX", help="the journal of this session's peer")
    sub = commands.add_parser("integrity", help="show the integrity status, or challenge a peer now")
    sub.add_argument("index", type=index, nargs="?", default=None)
    sub = commands.add_parser("peers", help="list, add or forget peers")
    sub.add_argument("operation", nargs="?", choices=("list", "add", "forget"), default="list")
    sub.add_argument("peer", nargs="?", type=static_peer, metavar="ADDRESS[:PORT[:PUBKEY]]")
    commands.add_parser("stats", help="show the node's figures")
    commands.add_parser("details", help="show each session's role, transport, epoch, mtu, channels")


def seconds(text: str) -> float:
    """An argparse type: a number of seconds that fits 64 bits of nanoseconds."""
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"not a number of seconds: {text!r}") from None
    if not 0 <= value < 1 << 33:
        raise argparse.ArgumentTypeError(f"{text} s are out of range")
    return value


def run_control(node: Control, args: argparse.Namespace) -> tuple[Any, str]:
    """Carry out one of these commands: (JSON-ready result, human output)."""
    match args.command:
        case "rekey":
            node.rekey(args.index)
            return {}, ""
        case "configure":
            stated = {name: getattr(args, name) for name in DEFAULT_PARAMETERS}
            params = {name: value for name, value in stated.items() if value is not None}
            version = node.configure(args.index, int(args.deadline * _NANOSECONDS), **params)
            return {"version": version}, str(version)
        case "confirm":
            return {"version": node.confirm(args.index)}, ""
        case "rollback":
            return {"version": node.rollback(args.index)}, ""
        case "exchange":
            node.exchange(args.index)
            return {}, ""
        case "probe-mtu":
            mtu = node.probe_mtu(args.index)
            return {"mtu": mtu}, str(mtu)
        case "journal":
            entries = node.journal() if args.peer is None else node.request_journal(args.peer)
            return entries, journal_table(entries)
        case "integrity":
            if args.index is not None:
                node.challenge(args.index)
                return {}, ""
            status = node.integrity()
            return status, lines_of(status)
        case "peers":
            return _peers(node, args)
        case "stats":
            stats = node.stats()
            return stats, lines_of(stats)
        case "details":
            rows = node.details()
            text = "\n".join(" ".join(f"{key}={value}" for key, value in row.items()) for row in rows)
            return rows, text or "no sessions"
    raise UsageError(f"unknown command {args.command!r}")


def _peers(node: Control, args: argparse.Namespace) -> tuple[Any, str]:
    if args.operation == "list":
        peers = node.peers()
        if not peers:
            return peers, "no peers"
        rows = [("ADDRESS", "PORT", "SOURCE", "AGE(s)", "PUBKEY")]
        rows += [(p["address"], p["port"], p["source"], p["age_s"], p["pubkey"]) for p in peers]
        return peers, table_of(rows)
    if args.peer is None:
        raise UsageError(f"{args.operation} needs an address")
    address, port, pubkey = args.peer
    if args.operation == "add":
        node.add_peer(address, port, pubkey)
    else:
        node.forget_peer(address, port)
    return {}, ""


def journal_table(entries: Sequence[Mapping[str, Any]]) -> str:
    """A human's view of journal entries: local time, the first 8 bytes of the hash."""
    if not entries:
        return "no entries"
    rows: list[tuple[object, ...]] = [("INDEX", "TIME", "TYPE", "CONFIG", "HASH", "DETAIL")]
    rows += [
        (
            entry["index"],
            _moment(entry["timestamp"]),
            entry["type"],
            f"{entry['before']}>{entry['after']}",
            entry["hash"][:16],
            printable(entry["detail"]),
        )
        for entry in entries
    ]
    return table_of(rows)


def _moment(timestamp: int) -> str:
    try:
        moment = datetime.datetime.fromtimestamp(timestamp / _NANOSECONDS)
    except (OverflowError, ValueError, OSError):  # a peer's journal may say anything
        return str(timestamp)
    return moment.isoformat(" ", "milliseconds")


def printable(text: str) -> str:
    """A peer's text without what a terminal would obey."""
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text)


def lines_of(values: Mapping[str, Any]) -> str:
    """One `name value` line each."""
    return "\n".join(f"{name} {value}" for name, value in values.items())


def table_of(rows: Iterable[Sequence[object]]) -> str:
    """Rows of cells in columns that line up."""
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    lines = ("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) for row in cells)
    return "\n".join(line.rstrip() for line in lines)

# SPDX-License-Identifier: GPL-2.0-or-later
"""What the tools take on their command lines: numbers, addresses, peers."""

from __future__ import annotations

import argparse
import ipaddress
import socket
from typing import Any

from poolref.tools.kernel_abi import DEFAULT_PORT


class UsageError(Exception):
    """Arguments that no node could make sense of."""


def number_in(low: int, high: int, what: str) -> Any:
    """An argparse type: an integer within [low, high]."""

    def parse(text: str) -> int:
        try:
            value = int(text, 0)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{what} must be a number, not {text!r}") from None
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{what} must be {low}..{high}, not {value}")
        return value

    return parse


def split_endpoint(text: str, port: int | None) -> tuple[str, int]:
    """Split HOST, HOST:PORT, IPV6 or [IPV6]:PORT; an explicit port argument wins."""
    host, stated = text, ""
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise UsageError(f"not an address: {text!r} (write [IPv6]:PORT)")
        stated = rest[1:]
    elif text.count(":") == 1:
        host, _, stated = text.partition(":")
    if not host:
        raise UsageError(f"no host in {text!r}")
    if port is None and stated:
        if not stated.isdecimal() or not 0 < int(stated) < 65536:
            raise UsageError(f"not a port: {stated!r} (1..65535)")
        port = int(stated)
    return host, DEFAULT_PORT if port is None else port


def resolve(host: str) -> list[str]:
    """IP literals for a host name, in the resolver's order. Raises UsageError when there are none."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError) as exc:
        raise UsageError(f"cannot resolve {host!r}: {getattr(exc, 'strerror', None) or exc}") from exc
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def static_peer(text: str) -> tuple[str, int, bytes]:
    """An argparse type: ADDRESS, ADDRESS:PORT or ADDRESS:PORT:PUBKEY, IPv6 as [ADDRESS]; the key is 64 hex
    digits.
    """
    key = b""
    rest, colon, digits = text.rpartition(":")
    if colon and len(digits) == 64:
        try:
            key = bytes.fromhex(digits)
        except ValueError:
            raise argparse.ArgumentTypeError(f"not a public key: {digits!r} (64 hex digits)") from None
        text = rest
    try:
        host, port = split_endpoint(text, None)
        return str(ipaddress.ip_address(host)), port, key
    except (UsageError, ValueError) as exc:
        raise argparse.ArgumentTypeError(str(exc)) from None


def option_name(parameter: str) -> str:
    """A parameter's name on a command line: seconds end in -sec there."""
    return (parameter + "ec" if parameter.endswith("_s") else parameter).replace("_", "-")

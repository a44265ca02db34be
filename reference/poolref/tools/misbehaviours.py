# SPDX-License-Identifier: GPL-2.0-or-later
"""Options that make a node deviate on purpose, and the list of what it can be told to do wrong."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

from poolref.dialect import DIALECTS, SPEC
from poolref.misbehaviour import SWITCHES, Kind, Parameter, Switch, misbehaviour, parse


class _List(argparse.Action):
    """Print the list as it is: argparse's own way would fold its lines."""

    def __call__(self, parser: argparse.ArgumentParser, *rest: object) -> None:
        try:
            print(listing(), flush=True)
        except BrokenPipeError:  # whoever reads has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        parser.exit()


def add_options(parser: argparse.ArgumentParser) -> None:
    """``--misbehave``, ``--list-misbehaviours`` and ``--dialect``."""
    parser.add_argument(
        "--misbehave",
        type=_switch,
        action="append",
        default=[],
        metavar="NAME[:K=V,...]",
        help="violate one requirement, to see what peers do; may be repeated",
    )
    parser.add_argument(
        "--list-misbehaviours", action=_List, nargs=0, help="say what --misbehave knows, and exit"
    )
    parser.add_argument(
        "--dialect",
        choices=tuple(DIALECTS),
        default=SPEC.name,
        help="deviate like known builds (default: spec)",
    )


def chosen(args: argparse.Namespace) -> dict[str, Any]:
    """The settings that these options ask for."""
    found: dict[str, Any] = {}
    if args.misbehave:
        found["misbehaviour"] = misbehaviour(*args.misbehave)
    if args.dialect != SPEC.name:
        found["dialect"] = DIALECTS[args.dialect]
        found["difficulty"] = DIALECTS[args.dialect].min_difficulty
    return found


def listing() -> str:
    """Every switch: name, role of who misbehaves, when it shows, what it violates, and its parameters."""
    return "\n".join(line for switch in SWITCHES.values() for line in _lines(switch))


def _lines(switch: Switch) -> list[str]:
    roles = "/".join(role.name.lower() for role in switch.roles)
    transports = "/".join(
        name for name, reaction in (("tcp", switch.reaction), ("raw", switch.raw)) if reaction is not None
    )
    return [
        f"{switch.name}  ({roles}, {switch.phase}, {transports})  {' '.join(switch.violates)}",
        f"    {switch.sentence}",
        *(f"    {each.name}={each.default}  {each.meaning}{_range(each)}" for each in switch.parameters),
    ]


def _range(parameter: Parameter) -> str:
    if parameter.choices == tuple(Kind):
        return ": any kind, such as " + " ".join(sorted(Kind)[:6])
    if parameter.choices:
        return ": " + " ".join(parameter.choices)
    return (
        f", {parameter.low} or more" if parameter.high >= 1 << 60 else f", {parameter.low}..{parameter.high}"
    )


def _switch(text: str) -> str:
    try:
        parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text

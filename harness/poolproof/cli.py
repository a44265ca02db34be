# SPDX-License-Identifier: GPL-2.0-or-later
"""The `poolproof` command.

Exit status: 0 all as expected, 1 failures found, 2 the harness itself could not run, 125 (with --bisect) the
device could not be tested at all.
"""

from __future__ import annotations

import argparse
import sys

from poolproof import settings as options
from poolproof.errors import HarnessError
from poolproof.vectors import command as vectors


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="poolproof", description="Verify implementations of POOL.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    conformance = commands.add_parser("conformance", help="test a device and write a report")
    options.add_arguments(conformance)
    listing = commands.add_parser("list", help="list the scenarios a run would select")
    options.add_arguments(listing)
    prefetch = commands.add_parser("prefetch", help="fetch and build all that an offline run needs")
    options.add_arguments(prefetch)
    commands.add_parser("kernels", help="list the kernels of the matrix")
    vectors.add_arguments(commands.add_parser("vectors", help="test vectors against any implementation"))
    inner = commands.add_parser("inside-sandbox")
    inner.add_argument("job")
    return parser


def dispatch(args: argparse.Namespace) -> int:
    if args.command == "vectors":
        return vectors.run(args)
    # Imported late: a bad option is answered before behave, paramiko and the rest are loaded.
    from poolproof import conformance

    match args.command:
        case "conformance":
            return conformance.run(options.from_arguments(args))
        case "list":
            return conformance.list_scenarios(options.from_arguments(args))
        case "prefetch":
            return conformance.prefetch(options.from_arguments(args))
        case "kernels":
            return conformance.list_kernels()
        case _:
            return conformance.run_inside(args.job)


def main(argv: list[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    try:
        return dispatch(args)
    except HarnessError as exc:
        print(f"poolproof: {exc}", file=sys.stderr)
        return 125 if getattr(args, "bisect", False) else 2
    except KeyboardInterrupt:
        print("poolproof: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())

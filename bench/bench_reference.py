# SPDX-License-Identifier: GPL-2.0-or-later
"""How fast the reference's core is, without sockets, as ratios against the bare primitives.

    python -m bench reference [--seconds S]

What is measured and its yardstick take turns in one run; the figures are medians of all rounds.
"""

from __future__ import annotations

import argparse

from .measure import Round, alternate, report
from .sansio import MESSAGE, Bare, Pair, searching


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="bench reference", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=3.0, help="for each comparison (default: 3)")
    seconds = parser.parse_args(argv).seconds
    pair, bare = Pair(), Bare()

    def compare(what: str, unit: str, ours: Round, theirs: Round, yardstick: str) -> tuple[float, float, str]:
        rate, limit = alternate(seconds, ours, theirs)
        return (
            rate,
            rate / limit,
            f"{rate:,.0f} {unit} = {rate / limit:.2f} x {yardstick} ({limit:,.0f} {unit})",
        )

    rate, ratio, text = compare("data", "packets/s", pair.transfer, bare.transfer, "bare loop")
    text += f", {rate * len(MESSAGE) * 8 / 1e6:.0f} Mbit/s of messages"
    report("data, both ends", text, "at least 0.5", met=ratio >= 0.5)
    rate, _, text = compare("handshakes", "1/s", pair.handshake, bare.handshake, "bare X25519")
    report("handshakes, both ends", text, "at least 1000/s", met=rate >= 1000)
    rate, _, text = compare("challenges", "1/s", pair.challenge, bare.challenge, "bare X25519")
    report("INIT to CHALLENGE", text, "at least 10,000/s", met=rate >= 10_000)
    report("puzzle search", compare("search", "hashes/s", searching, bare.hashing, "bare SHA-256")[2])


if __name__ == "__main__":
    main()

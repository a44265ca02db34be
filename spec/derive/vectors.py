# SPDX-License-Identifier: GPL-2.0-or-later
"""Write spec/vectors/*.json: ``python3 spec/derive/vectors.py [DIRECTORY]``.

Every expected value comes from the specification's text by way of derive.py and derivations.py, which import
no implementation and are checked against the RFCs first; every expected reason is written beside its case.
"""

from __future__ import annotations

import sys
from pathlib import Path

import cases_handshake
import cases_keys
import cases_packets
import cases_raw
import cases_session
import cases_state
import derive
from casework import Build

BUILDS: list[Build] = [
    cases_packets.headers,
    cases_keys.keys,
    cases_keys.sealing,
    cases_keys.puzzle,
    cases_keys.addresses,
    cases_handshake.handshake,
    cases_session.session,
    cases_packets.replay,
    cases_packets.fragments,
    cases_packets.mtu,
    cases_session.heartbeat,
    cases_raw.raw,
    cases_state.rekey,
    cases_state.config,
    cases_state.journal,
    cases_state.discovery,
    cases_state.integrity,
]


def files() -> dict[str, str]:
    """The text of each file by name."""
    derive.check_against_rfcs()
    areas = [build() for build in BUILDS]
    return {f"{area.name}.json": area.text() for area in areas}


def main(arguments: list[str]) -> None:
    default = Path(__file__).resolve().parent.parent / "vectors"
    directory = Path(arguments[0]) if arguments else default
    for name, text in files().items():
        (directory / name).write_text(text, encoding="ascii")


if __name__ == "__main__":
    main(sys.argv[1:])

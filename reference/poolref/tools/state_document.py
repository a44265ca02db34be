# SPDX-License-Identifier: GPL-2.0-or-later
"""Write spec/states.md from the state table: ``python -m poolref.tools.state_document > spec/states.md``."""

from __future__ import annotations

import sys

from poolref.constants import FIRST_UNKNOWN_TYPE, State, Type
from poolref.counters import DropReason
from poolref.states import LOCAL, TABLE, lookup

_HEAD = """\
# States

Written by `python -m poolref.tools.state_document` from the reference's state table; do not edit. What
binds is [section 5](protocol.md#5-states) of protocol.md.

A session's client goes from IDLE by INIT_SENT and CHALLENGED to ESTABLISHED. A listener's connection is
IDLE until a RESPONSE makes it ESTABLISHED: the server keeps nothing in between (HS-01).

## 1. Diagram

An arrow says which packets received lead from state to state, or, in words, what else does. Only packets
that were accepted count: authentic ones wherever keys exist (SEAL-05).

"""

_TABLE_HEAD = """
## 2. Packets

What each type does in each state: the action, and the state after it where that is another one. An empty
cell is a discard, counted `unexpected_type` (WIRE-06), `unknown_type` in the last row (WIRE-05). A
duplicate RESPONSE on raw is answered before this table is consulted (SEQ-03), and so is a CLOSE of a
foreign version (E-01).

"""

_LOCAL_HEAD = """
## 3. Other changes of state

"""


def _groups() -> dict[tuple[State, State], list[str]]:
    """(source, target) -> the types that lead from one to the other, in the order of their numbers."""
    groups: dict[tuple[State, State], list[str]] = {}
    for state in State:
        for type in Type:
            transition = lookup(state, type)
            if not isinstance(transition, DropReason):
                groups.setdefault((state, transition.target), []).append(type.name)
    return groups


def diagram() -> str:
    """A Mermaid state diagram of all changes of state."""
    lines = ["```mermaid", "stateDiagram-v2", "    [*] --> IDLE"]
    for (source, target), types in _groups().items():
        lines.append(f"    {source.name} --> {target.name} : {', '.join(types)}")
    for (source, target), cause in LOCAL.items():
        lines.append(f"    {source.name} --> {target.name} : {cause}")
    lines += ["    CLOSING --> [*]", "```"]
    return "\n".join(lines) + "\n"


def _cell(state: State, type: Type) -> str:
    transition = TABLE.get((state, type))
    if transition is None:
        return ""
    arrow = "" if transition.target is state else f" → {transition.target.name}"
    return transition.action.replace("_", " ") + arrow


def table() -> str:
    """A row for each type, a column for each state."""
    rows = [["", *(f"{state.value} {state.name}" for state in State)], ["---"] * (len(State) + 1)]
    for type in Type:
        rows.append([f"0x{type.value:X} {type.name}", *(_cell(state, type) for state in State)])
    rows.append([f"0x{FIRST_UNKNOWN_TYPE:X}-0xF", *[""] * len(State)])
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def local_table() -> str:
    """A row for each change of state without a packet's entry."""
    rows = [["from", "to", "when"], ["---"] * 3]
    rows += [[source.name, target.name, cause] for (source, target), cause in LOCAL.items()]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def document() -> str:
    """The whole of spec/states.md."""
    return _HEAD + diagram() + _TABLE_HEAD + table() + _LOCAL_HEAD + local_table()


if __name__ == "__main__":
    sys.stdout.write(document())

# SPDX-License-Identifier: GPL-2.0-or-later
"""The twelve public keys that KEY-01 refuses (E-70), by name."""

from __future__ import annotations

from typing import Final

_P: Final = 2**255 - 19
_ORDER_8: Final = (
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
)

LOW_ORDER_POINTS: Final = {
    name: value.to_bytes(32, "little")
    for name, value in {
        "zero": 0,
        "one": 1,
        "order8-a": _ORDER_8[0],
        "order8-b": _ORDER_8[1],
        "p-1": _P - 1,
        "p": _P,
        "p+1": _P + 1,
        "p+order8-a": _P + _ORDER_8[0],
        "p+order8-b": _P + _ORDER_8[1],
        "2p-1": 2 * _P - 1,
        "2p": 2 * _P,
        "2p+1": 2 * _P + 1,
    }.items()
}

# SPDX-License-Identifier: GPL-2.0-or-later
"""Arguments and results as JSON-ready values, for the control socket and for the agent in test guests.

Bytes travel as {"b64": TEXT}, dataclasses as objects, and an object that looks like either of these marks
inside {"object": ...}. Imports nothing that costs an emulated guest time.
"""

from __future__ import annotations

import binascii

_MARKS = ({"b64"}, {"object"})

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def encode(value: Any) -> Any:
    """The JSON-ready form of a value."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return {"b64": binascii.b2a_base64(value, newline=False).decode()}
    if hasattr(value, "__dataclass_fields__") and not isinstance(value, type):
        value = {name: getattr(value, name) for name in value.__dataclass_fields__}
    if isinstance(value, dict):
        plain = {str(key): encode(item) for key, item in value.items()}
        return {"object": plain} if plain.keys() in _MARKS else plain
    if isinstance(value, (list, tuple)):
        return [encode(item) for item in value]
    return value


def decode(value: Any) -> Any:
    """What `encode` made, with bytes as bytes and dataclasses as mappings. ValueError or TypeError for what
    it never makes.
    """
    if isinstance(value, dict):
        if value.keys() == {"b64"}:
            return binascii.a2b_base64(value["b64"])
        plain = value["object"] if value.keys() == {"object"} else value
        if not isinstance(plain, dict):
            raise ValueError("not an object")
        return {key: decode(item) for key, item in plain.items()}
    return [decode(item) for item in value] if isinstance(value, list) else value

# SPDX-License-Identifier: GPL-2.0-or-later
"""What the test vectors are made of: areas of cases, the flags that explain them, and their JSON form."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from derive import sha256

Values = dict[str, Any]

FLAGS = {
    "valid": "an ordinary case that must be accepted or computed as shown",
    "edge": "the last value on the right side of a limit",
    "beyond": "the first value on the wrong side of a limit",
    "truncated": "bytes are missing at the end",
    "oversized": "there are more bytes than there should be",
    "reserved": "a bit or byte that must be zero is not",
    "wrong_size": "a length field, or the length itself, does not fit",
    "tampered": "one bit differs from an authentic packet or value",
    "wrong_key": "made with another key or secret than the receiver's",
    "low_order": "an X25519 public key of low order",
    "non_canonical": "an X25519 public key that is not reduced, or has bit 255 set",
    "replayed": "the same packet a second time",
    "reflected": "a seq of the receiver's own range",
    "reordered": "packets or fragments out of order",
    "foreign_version": "the version nibble is not 1",
    "illegal_type": "a type that the state does not accept, or a reserved one",
    "saturated": "a value that its field cannot hold",
    "stale": "a clock, a secret or a challenge that is too old or too new",
    "contradiction": "a value that disagrees with another one, or with the receiver's state",
    "rfc": "the answer is published in an RFC or standard",
    "transcript": "a whole exchange with fixed randomness",
    "recommended_construction": "follows HS-01's recommended construction: a server may build these opaque "
    "values otherwise",
}


class Area:
    """The cases of one file."""

    def __init__(self, name: str, title: str) -> None:
        self.name = name
        self.title = title
        self.cases: list[Values] = []

    def case(
        self, slug: str, op: str, requirements: str, flags: str, given: Mapping[str, Any], expected: Any
    ) -> None:
        """Add a case; requirements and flags are separated by blanks."""
        self.cases.append(
            {
                "id": f"{self.name}/{slug}",
                "op": op,
                "requirements": requirements.split(),
                "flags": flags.split(),
                "input": plain(given),
                "expected": plain(expected),
            }
        )

    def text(self) -> str:
        """The file: one case a line, so that a change of one case is a change of one line."""
        used = {flag for case in self.cases for flag in case["flags"]}
        head = {
            "area": self.name,
            "title": self.title,
            "protocol_version": 1,
            "flags": {flag: why for flag, why in FLAGS.items() if flag in used},
        }
        ids = [case["id"] for case in self.cases]
        if len(set(ids)) != len(ids) or not used <= set(FLAGS):
            raise ValueError(f"{self.name}: an id twice, or an unexplained flag")
        lines = ",\n".join("  " + json.dumps(case, ensure_ascii=True) for case in self.cases)
        return json.dumps(head, indent=1)[:-2] + ',\n "cases": [\n' + lines + "\n ]\n}\n"


Build = Callable[[], Area]


class U64(int):
    """An integer that JSON carries as a decimal string, because not every reader keeps 64 bits."""


def plain(value: Any) -> Any:
    """The JSON form: bytes as hex, U64 as decimal strings."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, U64):
        return str(int(value))
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def drop(reason: str) -> Values:
    """The expected result of something that is discarded and counted under that name."""
    return {"drop": reason}


def filler(label: str, size: int) -> bytes:
    """Bytes without a pattern that the label determines."""
    out = b""
    while len(out) < size:
        out += sha256(label.encode() + len(out).to_bytes(4, "big"))
    return out[:size]


def flip(data: bytes, bit: int) -> bytes:
    """With one bit inverted; bit 0 is the most significant one of byte 0."""
    byte = bit // 8
    return data[:byte] + bytes([data[byte] ^ 0x80 >> bit % 8]) + data[byte + 1 :]

# SPDX-License-Identifier: GPL-2.0-or-later
"""Hostile text made harmless. Everything a device says passes here before anyone sees it.

A console line may hold terminal escapes, text-direction overrides, invalid UTF-8 or a megabyte of noise.
What cannot be shown is named, not dropped: an invisible character would hide an attack from the reader too.
"""

from __future__ import annotations

import re

LINE_LIMIT = 2_000
TEXT_LIMIT = 64 * 1024

# Strings of terminal escapes end at BEL or ST. The bound keeps an unterminated one from swallowing the rest;
# that none may contain another's start keeps the time linear.
_ANSI = re.compile(
    "(?:\x1b\\[|\x9b)[0-?]{0,64}[ -/]{0,8}[@-~]"
    "|(?:\x1b[\\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x90\x98\x9c-\x9f]{0,1024}(?:\x07|\x1b\\\\|\x9c)"
    "|\x1b[ -/]{0,4}[0-OQ-WYZ\\\\`-~]"
)
# Control, format (bidi, zero width, tags), surrogates, line and paragraph separators, XML's non-characters.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u180e\u200b-\u200f"
    "\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff\ufff9-\ufffb\ufffe\uffff\U000110bd\U000110cd"
    "\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0001\U000e0020-\U000e007f]"
)


def sanitize(text: str | bytes, limit: int = TEXT_LIMIT) -> str:
    """`text` fit for any view: escapes removed, unprintables named, at most about `limit` bytes of UTF-8.

    Invalid UTF-8 becomes U+FFFD, control characters their pictures (NUL is ␀), bidi and other invisible
    characters \\uXXXX. Tabs and newlines stay. If it is too long the middle goes: `[cut: N bytes]`.
    """
    raw = text if isinstance(text, bytes) else text.encode("utf-8", "backslashreplace")
    return _clean(_middle_cut(raw, limit))


def line(text: str | bytes, limit: int = LINE_LIMIT) -> str:
    """`text` as `sanitize` makes it, on one line: newlines and tabs become single spaces."""
    return " ".join(sanitize(text, limit).split())


def _middle_cut(raw: bytes, limit: int) -> str:
    if len(raw) <= limit:
        return raw.decode("utf-8", "replace")
    half = limit // 2
    head, tail = raw[:half], raw[len(raw) - half :]
    gone = len(raw) - len(head) - len(tail)
    return f"{head.decode('utf-8', 'replace')}\n[cut: {gone} bytes]\n{tail.decode('utf-8', 'replace')}"


def _clean(text: str) -> str:
    text = _ANSI.sub("", text)
    text = re.sub("(?<!\r)\r+\n", "\n", text)
    return _UNSEEN.sub(_named, text)


def _named(match: re.Match[str]) -> str:
    code = ord(match.group())
    if code < 0x20:
        return chr(0x2400 + code)
    if code == 0x7F:
        return "␡"
    return f"\\u{code:04x}"

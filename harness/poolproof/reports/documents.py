# SPDX-License-Identifier: GPL-2.0-or-later
"""The specification's documents as pages beside the report, so that a requirement's link works offline."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title}</title><style>
body {{ font: 16px/1.5 sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em; }}
table {{ border-collapse: collapse; }}
td, th {{ border: 1px solid #999; padding: .2em .6em; vertical-align: top; }}
pre, code {{ font-family: monospace; background: #8882; }} pre {{ padding: .6em; overflow-x: auto; }}
:target {{ background: #fe08; }}
</style></head><body>
{body}</body></html>
"""


def write(source: Path, target: Path) -> None:
    """Write each Markdown document in `source` to `target` as a page of the same name."""
    target.mkdir(exist_ok=True)
    for document in sorted(source.glob("*.md")):
        page = render(document.read_text(encoding="utf-8"), document.stem)
        (target / f"{document.stem}.html").write_text(page, encoding="utf-8")


def link(section: str) -> str:
    """The page and anchor for a requirement's section (`protocol.md#1-header`)."""
    return section.replace(".md", ".html", 1)


def render(text: str, title: str) -> str:
    """A Markdown document as a page: headings and requirement IDs are anchors, links lead to sister pages."""
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = parser.parse(text)
    seen: dict[str, int] = {}
    for token, inline in pairwise(tokens):
        if token.type == "heading_open":
            token.attrSet("id", _unique(anchor(inline.content), seen))
    for token in tokens:
        for child in token.children or []:
            _relink(child)
    body = parser.renderer.render(tokens, parser.options, {})
    body = re.sub(r"<strong>([A-Z]{1,4}-?[A-Z]?\d\d)</strong>", r'<strong id="\1">\1</strong>', body)
    return _PAGE.format(title=title, body=body)


def anchor(heading: str) -> str:
    """The anchor that GitHub and others give to a heading."""
    plain = re.sub(r"[`*\[\]]", "", heading).strip().lower()
    return re.sub(r"\s", "-", re.sub(r"[^\w\s-]", "", plain))


def _unique(name: str, seen: dict[str, int]) -> str:
    seen[name] = seen.get(name, 0) + 1
    return name if seen[name] == 1 else f"{name}-{seen[name] - 1}"


def _relink(token: Token) -> None:
    href = token.attrGet("href")
    if token.type == "link_open" and isinstance(href, str) and re.match(r"[\w-]+\.md(#|$)", href):
        token.attrSet("href", link(href))

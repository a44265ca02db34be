# SPDX-License-Identifier: GPL-2.0-or-later
"""A requirement's link leads to its place in the specification, offline."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

import pytest

from poolproof.reports import documents
from poolproof.reports.render import references
from poolproof.verdicts import requirements

SPEC = Path(__file__).parents[2] / "spec"


class Anchors(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.ids += [value or "" for name, value in attrs if name == "id"]
        self.links += [value or "" for name, value in attrs if name == "href" and tag == "a"]


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Anchors]:
    target = tmp_path_factory.mktemp("spec")
    documents.write(SPEC, target)
    found = {}
    for page in target.iterdir():
        found[page.name] = Anchors()
        found[page.name].feed(page.read_text())
        assert not references(page.read_text())
    return found


def test_every_requirement_leads_somewhere(pages: dict[str, Anchors]) -> None:
    for requirement in requirements.load(SPEC / "requirements.toml").requirements.values():
        page, _, anchor = documents.link(requirement.section).partition("#")
        assert page in pages, requirement
        assert not anchor or anchor in pages[page].ids, requirement


def test_links_between_documents_hold(pages: dict[str, Anchors]) -> None:
    for name, page in pages.items():
        for link in page.links:
            target, _, anchor = link.partition("#")
            if target.endswith(".html") or not target:
                assert (target or name) in pages, (name, link)
                assert not anchor or anchor in pages[target or name].ids, (name, link)


def test_headings_and_requirements_are_anchors() -> None:
    page = documents.render("# A `b` & c\n\n## 2. X-Y (z)\n\n## 2. X-Y (z)\n\n- **HS-01** says\n", "t")
    anchors = Anchors()
    anchors.feed(page)
    assert anchors.ids == ["a-b--c", "2-x-y-z", "2-x-y-z-1", "HS-01"]


def test_a_document_cannot_bring_html() -> None:
    page = documents.render("<script>x</script> [y](javascript:alert(1)) **<b>**", "t")
    assert "<script>" not in page
    assert "<b>" not in page
    assert 'href="javascript' not in page

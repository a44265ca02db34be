# SPDX-License-Identifier: GPL-2.0-or-later
"""The documents of spec/, requirements.toml and the features' tags agree with each other."""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SPEC = ROOT / "spec"
DOCUMENTS = sorted(SPEC.glob("*.md"))
LEVELS = {"MUST", "SHOULD", "MAY"}
FIELDS = {"id": str, "level": str, "statement": str, "section": str, "seed": list}

_FAMILIES = (
    "WIRE|TRN|KEY|SEAL|SEQ|HS|AUTH|ADDR|DATA|CHAN|FRAG|MTU|HB|RK|CFG|CLS|ERR|INT|JRN|DISC|PQC|AMD"
    "|ABI|DIA|COV|CAN|BN"
)
_ID = rf"(?:(?:{_FAMILIES})-\d\d|RT-[CSAU]\d\d|[MCDWNLS]\d\d)"
_NOTE = r"[DE]-\d{2,3}"
_DEFINITION = re.compile(rf"^\s*(?:- |\| )((?:\*\*{_ID}\*\* ?)+)(?:[ |]|$)")
_NOTE_DEFINITION = re.compile(rf"^- \*\*({_NOTE})\*\* ")
_MENTION = re.compile(rf"(?<![\w-]){_ID}(?![\w])")
_NOTE_MENTION = re.compile(rf"(?<![\w-]){_NOTE}(?![\w])")
_SEED_CITATION = re.compile(r"\[S ([^\]]+)\]")
# A section of the seed, then what it names there: a row (N02), an attack (RT-C01) or a tenet (T4).
_SEED = re.compile(r"\d(?:\.\d)?(?: (?:[MCDWNLS]\d\d|RT-[CSAU]\d\d|T[1-8]))?")


def load_requirements(text: str) -> list[dict[str, object]]:
    """The entries of requirements.toml, as written."""
    document = tomllib.loads(text)
    assert set(document) == {"requirement"}
    entries = document["requirement"]
    assert isinstance(entries, list)
    return entries


def heading_anchor(heading: str) -> str:
    """The anchor that Markdown viewers make of a heading."""
    kept = re.sub(r"[^\w\- ]", "", heading.strip().lower())
    return kept.replace(" ", "-")


def anchors(document: Path) -> set[str]:
    return {
        heading_anchor(line.lstrip("#"))
        for line in document.read_text(encoding="utf-8").splitlines()
        if re.match(r"#+ ", line)
    }


def definitions(document: Path) -> dict[str, str]:
    """Each ID a document defines -> the ``file#anchor`` of the section that defines it."""
    found: dict[str, str] = {}
    section = document.name
    for line in document.read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            section = f"{document.name}#{heading_anchor(line[3:])}"
        if match := _DEFINITION.match(line):
            for identifier in re.findall(_ID, match[1]):
                assert identifier not in found, f"{identifier} is defined twice in {document.name}"
                found[identifier] = section
    return found


@pytest.fixture(scope="module")
def entries() -> list[dict[str, object]]:
    return load_requirements((SPEC / "requirements.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def defined() -> dict[str, str]:
    merged: dict[str, str] = {}
    for document in DOCUMENTS:
        found = definitions(document)
        assert not merged.keys() & found.keys(), f"defined in two documents, one of them {document.name}"
        merged |= found
    return merged


def test_entries_are_well_formed(entries: list[dict[str, object]]) -> None:
    for entry in entries:
        assert set(entry) == set(FIELDS), entry
        for name, kind in FIELDS.items():
            assert isinstance(entry[name], kind), (entry["id"], name)
        assert re.fullmatch(_ID, str(entry["id"])), entry["id"]
        assert entry["level"] in LEVELS, entry["id"]
        statement = str(entry["statement"])
        assert statement == statement.strip(), entry["id"]
        assert len(statement) > 30, entry["id"]
        assert statement.endswith("."), entry["id"]


def test_ids_and_statements_are_unique(entries: list[dict[str, object]]) -> None:
    for name in ("id", "statement"):
        repeated = [
            value for value, times in Counter(str(entry[name]) for entry in entries).items() if times > 1
        ]
        assert not repeated


def test_text_and_entries_have_the_same_ids(
    entries: list[dict[str, object]], defined: dict[str, str]
) -> None:
    listed = {str(entry["id"]) for entry in entries}
    assert listed - defined.keys() == set(), "in requirements.toml, not defined in the text"
    assert defined.keys() - listed == set(), "defined in the text, not in requirements.toml"


def test_every_family_is_numbered_without_a_gap(defined: dict[str, str]) -> None:
    families: dict[str, set[int]] = {}
    for identifier in defined:
        families.setdefault(identifier[:-2], set()).add(int(identifier[-2:]))
    assert families
    for family, numbers in families.items():
        assert numbers == set(range(1, len(numbers) + 1)), family


def test_sections_are_where_the_text_defines_the_id(
    entries: list[dict[str, object]], defined: dict[str, str]
) -> None:
    for entry in entries:
        assert entry["section"] == defined[str(entry["id"])], entry["id"]
        document, _, anchor = str(entry["section"]).partition("#")
        assert not anchor or anchor in anchors(SPEC / document), entry["id"]


def test_seed_references_have_the_cited_form(entries: list[dict[str, object]]) -> None:
    for entry in entries:
        seeds = entry["seed"]
        assert isinstance(seeds, list)
        assert len(seeds) == len(set(seeds)), entry["id"]
        for seed in seeds:
            assert _SEED.fullmatch(seed), (entry["id"], seed)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_mentioned_id_exists(document: Path, defined: dict[str, str]) -> None:
    text = _SEED_CITATION.sub("", document.read_text(encoding="utf-8"))
    assert set(_MENTION.findall(text)) - defined.keys() == set()


def test_decisions_are_defined_once_and_in_order() -> None:
    errata = (SPEC / "errata.md").read_text(encoding="utf-8")
    found = [match[1] for line in errata.splitlines() if (match := _NOTE_DEFINITION.match(line))]
    for letter in "DE":
        numbers = [int(note[2:]) for note in found if note[0] == letter]
        assert numbers == sorted(set(numbers)), letter
    assert "D-10" in found
    for document in DOCUMENTS:
        mentioned = set(_NOTE_MENTION.findall(document.read_text(encoding="utf-8")))
        assert mentioned <= set(found), document.name


@pytest.mark.parametrize("document", [*DOCUMENTS, SPEC / "requirements.toml"], ids=lambda path: path.name)
def test_links_and_paths_stay_inside_the_repository(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    assert "../" not in text
    assert not re.search(r"(?<![\w.])/(?:work|home|root|tmp)\b", text)
    for target in re.findall(r"\]\(([^)]+)\)", text):
        name, _, anchor = target.partition("#")
        linked = (document.parent / name).resolve() if name else document
        assert linked.is_relative_to(ROOT), target
        assert linked.exists(), target
        assert not anchor or anchor in anchors(linked), target


def feature_tags() -> list[tuple[Path, str]]:
    tags = []
    for feature in sorted((ROOT / "features").rglob("*.feature")):
        for line in feature.read_text(encoding="utf-8").splitlines():
            if line.lstrip().startswith("@"):
                tags += [(feature, tag) for tag in line.split() if tag.startswith("@req")]
    return tags


def test_feature_tags_name_existing_ids(defined: dict[str, str]) -> None:
    unknown = [
        f"{feature.relative_to(ROOT)}: {tag}"
        for feature, tag in feature_tags()
        if tag.removeprefix("@req.") not in defined
    ]
    assert not unknown


class TestTheChecksThemselves:
    """The readers above see what they are meant to see, so that an empty result means agreement."""

    def test_definitions_are_read_with_their_sections(self, tmp_path: Path) -> None:
        document = tmp_path / "sample.md"
        document.write_text(
            "# Sample\n\n## 1. First part (of two)\n\n- **HS-01** Text that mentions HS-02.\n"
            "- HS-03 is not defined here, nor is **HS-04** in mid-sentence: **HS-05**\n\n"
            "## 2. Table\n\n| **D01** **W01** | x | y |\n| **RT-C01** | x |\n",
            encoding="utf-8",
        )
        assert definitions(document) == {
            "HS-01": "sample.md#1-first-part-of-two",
            "D01": "sample.md#2-table",
            "W01": "sample.md#2-table",
            "RT-C01": "sample.md#2-table",
        }

    def test_mentions_do_not_mix_up_families(self) -> None:
        assert _MENTION.findall("RT-C01 D-01 D01 C02, HS-01..14; (MTU-04)") == [
            "RT-C01", "D01", "C02", "HS-01", "MTU-04",
        ]  # fmt: skip

    def test_a_second_definition_is_noticed(self, tmp_path: Path) -> None:
        document = tmp_path / "sample.md"
        document.write_text("- **HS-01** One.\n- **HS-01** Two.\n", encoding="utf-8")
        with pytest.raises(AssertionError, match="twice"):
            definitions(document)

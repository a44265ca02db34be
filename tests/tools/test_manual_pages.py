# SPDX-License-Identifier: GPL-2.0-or-later
"""The manual pages name every command and option of the tools, and none that is not there."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from poolref.tools import pool_test, poolctl, poold, poolprobe

PAGES = Path(__file__).resolve().parents[2] / "reference" / "man"
MODULE_PAGE = PAGES.parents[1] / "kernel" / "pool.4"
TOOLS = {
    "poolctl.8": poolctl.build_parser,
    "poold.8": poold.build_parser,
    "pool_test.1": pool_test.build_parser,
}
ENTRIES = frozenset({".TP", ".TQ"})
KNOWN = {"TH", "SH", "SS", "TP", "TQ", "RS", "RE", "PP", "B", "I", "BR", "BI", "RB", "RI", "IR", "nf", "fi"}


def rendered(line: str) -> str:
    """A line of a page without macros, quotes and fonts."""
    text = re.sub(r"\\f[A-Z]", "", line).replace("\\-", "-").replace("\\&", "")
    macro = re.match(r"\.(\w+) ?", text)
    if macro is None:
        return text
    words = re.findall(r'"([^"]*)"|(\S+)', text[macro.end() :])
    joiner = "" if len(macro[1]) == 2 else " "
    return joiner.join(quoted or plain for quoted, plain in words)


def entries(page: str) -> Iterator[tuple[int, str]]:
    """Each tagged entry: how deep it is indented, and its tag."""
    depth = 0
    lines = (PAGES / page).read_text().splitlines()
    for number, line in enumerate(lines):
        depth += {".RS": 1, ".RE": -1}.get(line, 0)
        if line in ENTRIES:
            yield depth, rendered(lines[number + 1])


def options_of(tag: str) -> set[str]:
    return set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", tag))


def described(page: str) -> tuple[set[str], dict[str, set[str]]]:
    """The options of the tool itself, and its commands with theirs."""
    own: set[str] = set()
    commands: dict[str, set[str]] = {}
    current: set[str] = own
    for depth, tag in entries(page):
        if depth == 0 and not tag.startswith("-"):
            current = commands.setdefault(tag.split()[0], set())
        current |= options_of(tag)
    return own, commands


def options(parser: argparse.ArgumentParser) -> set[str]:
    return {option for action in parser._actions for option in action.option_strings}


def commands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


@pytest.mark.parametrize("page", TOOLS)
def test_every_option_of_the_tool_has_an_entry(page: str) -> None:
    own, _commands = described(page)
    assert own == options(TOOLS[page]())


@pytest.mark.parametrize("page", TOOLS)
def test_every_command_has_an_entry_with_its_options(page: str) -> None:
    _own, in_page = described(page)
    in_page = {name: found for name, found in in_page.items() if not name.isdigit()}  # exit status
    in_tool = {name: options(sub) - {"-h", "--help"} for name, sub in commands(TOOLS[page]()).items()}
    assert in_page == in_tool


def test_the_page_of_poolprobe_has_the_options_of_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        poolprobe.main(["--help"])
    own, _commands = described("poolprobe.1")
    assert own == options_of(capsys.readouterr().out)


@pytest.mark.parametrize("path", [*PAGES.iterdir(), MODULE_PAGE], ids=lambda path: str(path.name))
def test_a_page_is_well_formed(path: Path) -> None:
    lines = path.read_text().splitlines()
    macros = [line[1:].split()[0] for line in lines if line.startswith(".") and not line.startswith('.\\"')]
    assert set(macros) <= KNOWN
    assert macros.count("RS") == macros.count("RE")
    assert macros.count("nf") == macros.count("fi")
    assert lines[1].startswith(f".TH {path.stem.upper()} {path.suffix[1:]} ")
    assert [line for line in lines if re.search(r"(^|\s)--\w", line)] == [], "a hyphen, not a minus"
    sections = [line[4:] for line in lines if line.startswith(".SH ")]
    assert sections[:3] == ["NAME", "SYNOPSIS", "DESCRIPTION"]

# SPDX-License-Identifier: GPL-2.0-or-later
"""Which scenarios run, what they are called, and what a run leaves behind while it runs."""

from __future__ import annotations

import io
import json
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import Tree

from poolproof.behaving import listing, recover
from poolproof.behaving.selecting import slug
from poolproof.errors import HarnessError
from poolproof.reports.text import sanitize
from poolproof.verdicts import Health, Wire

PAIRINGS = """
    @area.handshake
    Feature: Handshake
      Connects and is connected to.

      @req.HS-01
      Scenario Outline: <client> connects to <server>
        Given it says "<client>"

        Examples: pairings
          | client    | server |
          | reference | kernel |
          | kernel    | kernel |

      Rule: there is a rule
        @req.HS-02 @slow
        Scenario: under the rule
          Given it passes

        Scenario Outline: sizes
          Given it passes
          Examples:
            | size |
            | 1    |
            | 12   |
"""
IDS = [
    "handshake/connects-to/reference.kernel",
    "handshake/connects-to/kernel.kernel",
    "handshake/under-the-rule",
    "handshake/sizes/1",
    "handshake/sizes/12",
]


@pytest.fixture
def pairings(tree: Tree) -> Tree:
    tree.feature("handshake", PAIRINGS)
    return tree


def test_every_scenario_of_rules_and_outlines_has_a_result(pairings: Tree) -> None:
    run = pairings.run()
    assert [each.id for each in run.scenarios] == IDS
    assert [each.name for each in run.scenarios] == [
        "reference connects to kernel",
        "kernel connects to kernel",
        "under the rule",
        "sizes [1]",
        "sizes [12]",
    ]
    first, _, ruled, *_ = run.scenarios
    assert first.parameters == {"client": "reference", "server": "kernel"}
    assert (first.requirements, first.area, first.feature) == (("HS-01",), "handshake", "Handshake")
    assert (first.output, first.rerun) == ("reference\n", f"make conformance ONLY={IDS[0]}")
    assert (ruled.rule, ruled.tags) == ("there is a rule", ("area.handshake", "req.HS-02", "slow"))


@pytest.mark.parametrize(
    ("only", "chosen"),
    [
        (IDS[2], [2]),
        ("handshake/sizes", [3, 4]),
        ("handshake", [0, 1, 2, 3, 4]),
        ("handshake/conn", [0, 1]),
        ("handshake/sizes/1", [3]),
        ("*/kernel.kernel", [1]),
        ("CONNECTS TO", [0, 1]),
        ("features/handshake.feature:7", [0, 1]),
        ("features/handshake.feature:12", [0]),
        ("handshake.feature:18", [2]),
    ],
)
def test_only_takes_ids_patterns_locations_and_names(pairings: Tree, only: str, chosen: list[int]) -> None:
    run = pairings.run(only=(only,))
    assert [each.id for each in run.scenarios] == [IDS[index] for index in chosen]
    assert run.deselected == len(IDS) - len(chosen)
    assert {each.wire for each in run.scenarios} == {Wire.PASS}


def test_rerun_selects_exactly_that_scenario(pairings: Tree) -> None:
    for result in pairings.run().scenarios:
        _, _, only = result.rerun.partition("ONLY=")
        assert [case.id for case in listing(replace(pairings.config, only=(only,)))] == [result.id]


def test_tags_select(pairings: Tree) -> None:
    assert [each.id for each in pairings.run(tags=("@req.HS-01",)).scenarios] == IDS[:2]
    assert [each.id for each in pairings.run(tags=("not @slow", "not @req.HS-01")).scenarios] == IDS[3:]


def test_hooks_run_only_for_what_is_selected(pairings: Tree) -> None:
    pairings.feature("other", "Feature: Other\n  Scenario: s\n    Given it passes\n")
    pairings.environment("""
        def before_feature(context, feature):
            context.evidence.note(feature.name)
            context.evidence.attach(feature.name, "x")
        def before_rule(context, rule):
            context.evidence.attach(rule.name, "x")
    """)
    run = pairings.run(only=(IDS[0],))
    assert [each.name for each in run.attachments] == ["Handshake"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"only": ("handshake/conects-to",)}, "perhaps handshake/connects-to"),
        ({"tags": ("@none",)}, "no scenario selected"),
        ({"tags": ("@a and (",)}, "bad tag expression '@a and ("),
        ({"features": Path("/nowhere")}, "no such directory of features"),
    ],
)
def test_a_selection_that_cannot_work_is_said_in_words(
    pairings: Tree, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(HarnessError) as caught:
        pairings.run(**changes)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("bad.feature", "Feature: F\n  Scenario: s\n    Given a\n    Tehn b\n", "does not parse"),
        ("bad.feature", "Feature: F\n  Scenario s\n    Given it passes\n", "has no scenarios"),
        ("bad.feature", "", "has no scenarios"),
        ("environment.py", "import nothing_of_that_name\n", "nothing_of_that_name"),
        ("steps/more.py", "def x(:\n", "SyntaxError"),
        ("steps/more.py", "from behave import step\n@step('it passes')\ndef f(c): pass\n", "AmbiguousStep"),
    ],
)
def test_what_cannot_be_loaded_is_said_in_words(tree: Tree, file: str, text: str, message: str) -> None:
    tree.feature("a", "Feature: F\n  Scenario: s\n    Given it passes\n")
    (tree.features / file).write_text(text)
    with pytest.raises(HarnessError) as caught:
        tree.run()
    assert message in str(caught.value)


def test_ids_are_unique_and_safe(tree: Tree) -> None:
    tree.feature(
        "deep/Odd Name",
        f"""
        Feature: F
          Scenario: same / name
            Given it passes
          Scenario: same / name
            Given it passes
          Scenario: ../../etc/passwd
            Given it passes
          Scenario: {"long " * 60}
            Given it passes
        """,
    )
    ids = [each.id for each in tree.run().scenarios]
    assert ids[:3] == ["deep/odd-name/same-name", "deep/odd-name/same-name-2", "deep/odd-name/etc-passwd"]
    assert len(ids[3]) < 100
    assert slug("é/ü") == "e-u"
    assert len({slug(each) for each in ("20", "-20", "+20", "2p", "2p-1", "2p+1", "p - 1", "p -1")}) == 8
    assert slug("..") != slug("...")


def test_the_journal_is_there_while_the_scenario_runs(tree: Tree) -> None:
    tree.environment("""
        def after_step(context, step):
            path = context.evidence.run_dir / "journal.jsonl"
            context.evidence.attach("journal so far", path.read_text())
    """)
    result = tree.one("Given it passes\nThen it passes")
    seen = (tree.run_dir / result.attachments[1].path).read_text().splitlines()
    assert [json.loads(each)["event"] for each in seen] == [
        "run_started",
        "scenario_started",
        "step_started",
        "step_finished",
        "step_started",
    ]


def test_a_killed_run_is_recovered_from_its_journal(pairings: Tree) -> None:
    whole = pairings.run()
    path = pairings.run_dir / "journal.jsonl"
    lines = path.read_text().splitlines()
    started = [index for index, each in enumerate(lines) if '"event": "scenario_started"' in each]
    path.write_text("\n".join(lines[: started[1] + 1]) + '\n{"event": "scenario_fin')
    run = recover(pairings.run_dir)
    assert run.complete
    assert run.scenarios[0] == whole.scenarios[0]
    assert [each.reason for each in run.scenarios[1:3]] == [
        "the harness ended in the middle of this scenario",
        "not reached",
    ]
    assert {each.wire for each in run.scenarios[1:]} == {Wire.INCONCLUSIVE}
    assert run.exit_status == 2
    with pytest.raises(ValueError, match="no usable journal"):
        recover(pairings.features)


def test_a_harness_that_is_killed_leaves_its_journal(tree: Tree) -> None:
    tree.feature("a", "Feature: F\n  Scenario: s\n    Given it passes\n")
    tree.feature("b", "Feature: F\n  Scenario: s\n    Given it passes\n    When the harness is killed\n")
    (tree.features / "steps" / "more.py").write_text(
        "import os, signal\nfrom behave import step\n@step('the harness is killed')\n"
        "def kill(context):\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    tree.run_dir.mkdir()
    code = (
        "import pathlib, sys\nfrom poolproof.behaving import RunConfig, run\n"
        "run(RunConfig(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])))\n"
    )
    killed = subprocess.run([sys.executable, "-c", code, tree.features, tree.run_dir], capture_output=True)
    assert killed.returncode == -signal.SIGKILL
    run = recover(tree.run_dir)
    assert [(str(each.wire), each.reason) for each in run.scenarios] == [
        ("pass", ""),
        (
            "inconclusive",
            "the harness ended in the middle of this scenario (step 'the harness is killed')",
        ),
    ]


def test_evidence_is_stored_safely_and_belongs_to_its_step(tree: Tree) -> None:
    tree.environment("""
        def after_step(context, step):
            name = "../../x/" + "y" * 300 + "\\n.pcapng"
            context.evidence.attach(name, b"\\x0a\\x0d", "application/x-pcapng")
            context.evidence.attach("big", b"\\xff" + b"z" * 3_000_000, "text/plain")
            context.evidence.note("keys: none")
            context.evidence.parameter("mtu", 1400)
            context.evidence.describe(kernel="6.1.0", cpu="max", qemu="7.2")
        def after_scenario(context, scenario):
            context.evidence.attach("console", "after")
    """)
    result = tree.one("Given it passes\nThen it attaches a\x1b[31m name")
    pcap, big, named, *_, console = result.attachments
    assert [each.step for each in result.attachments] == [0, 0, 1, 1, 1, None]
    for each in result.attachments:
        path = (tree.run_dir / each.path).resolve()
        assert path.is_relative_to(tree.run_dir / "evidence" / "one" / "it")
        assert path.stat().st_size == each.size
    assert (tree.run_dir / pcap.path).read_bytes() == b"\n\r"
    assert big.size < 1_100_000
    assert big.cut > 1_900_000
    assert f"[cut: {big.cut} bytes]" in (tree.run_dir / big.path).read_text()
    assert (tree.run_dir / named.path).read_text() == "hello red"
    assert named.name == "a name"
    assert console.name == "console"
    assert result.parameters == {"mtu": "1400"}
    assert result.notes == ("keys: none", "keys: none")
    run = tree.run()
    assert (run.environment.kernel, run.environment.cpu, run.environment.details) == (
        "6.1.0",
        "max",
        {"qemu": "7.2"},
    )


def test_behaves_own_attach_is_evidence_too(tree: Tree) -> None:
    (attachment,) = tree.one("Given it uses behave's attach").attachments
    assert (tree.run_dir / attachment.path).read_text() == "mine"


def test_evidence_has_an_end(tree: Tree) -> None:
    tree.environment("""
        def after_step(context, step):
            for n in range(500):
                context.evidence.attach(f"n{n}", "x")
                context.evidence.note(str(n))
                context.evidence.finding("warning", f"w{n}")
            context.evidence.finding("leak", "late", health=Health.LEAKED)
    """)
    result = tree.one("Given it passes")
    assert (len(result.attachments), len(result.findings)) == (200, 50)
    assert result.health is Health.LEAKED
    assert result.notes[-1] == "1051 more attachments, findings or notes left out"


def test_progress_is_plain_lines_when_not_on_a_terminal(tree: Tree) -> None:
    tree.feature(
        "a",
        """
        Feature: F
          Scenario: [bold]s[/]
            Given it passes
          Scenario: t
            Given it fails
        """,
    )
    tree.run()
    lines = tree.output.splitlines()
    assert lines[0].startswith("[1/2] 0:00 0 bad  passed")
    assert lines[1].startswith("[2/2] 0:00 1 bad  failed")
    assert lines[2].strip() == "5 packets expected, 4 seen"
    assert "\x1b" not in tree.output


def test_what_steps_print_is_kept_with_the_scenario(tree: Tree, capsys: pytest.CaptureFixture[str]) -> None:
    result = tree.one('Given it says "hello"\nThen it fails')
    assert result.output == "hello\n"
    assert "hello" not in capsys.readouterr().out


def test_progress_on_a_terminal_is_live_and_keeps_only_what_is_bad(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    tree.feature(
        "a", "Feature: F\n  Scenario: good\n    Given it passes\n  Scenario: bad\n    Given it fails\n"
    )
    terminal = Terminal()
    tree.run(stream=terminal)
    shown = sanitize(terminal.getvalue())
    assert "a/good" not in [each.split()[-1] for each in shown.splitlines() if " passed " in each]
    assert "[2/2] 0:00 1 bad  failed" in shown
    assert "\x1b[" in terminal.getvalue()
    assert re.search(r"2/2 1 bad 0:00:0\d bad", shown), shown
    monkeypatch.setenv("CI", "1")
    terminal = Terminal()
    tree.run(stream=terminal)
    assert "[1/2] 0:00 0 bad  passed" in sanitize(terminal.getvalue())

# SPDX-License-Identifier: GPL-2.0-or-later
"""`poolproof vectors check` finds wrong answers, and what else a command can do instead of answering."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from poolproof import cli
from poolproof.vectors import suite

# An implementation that knows all the answers, but does something else on one case.
CHEAT = """
import json, sys
from pathlib import Path
answers = {}
for path in Path(sys.argv[1]).glob("[!v]*.json"):
    answers.update({c["id"]: c["expected"] for c in json.loads(path.read_text())["cases"]})
count = 0
for line in sys.stdin:
    request = json.loads(line)
    reply = {"id": request["id"], "result": answers[request["id"]]}
    count += 1
    if count == 3:
        exec(sys.argv[2])
    print(json.dumps(reply), flush=True)
"""
AREA = ["--area", "replay"]
TOTAL = sum(case.area == "replay" for case in suite.load())


def checked(
    capsys: pytest.CaptureFixture[str], *command: str, options: tuple[str, ...] = ()
) -> tuple[int, str]:
    status = cli.main(["vectors", "check", *AREA, *options, "--", *command])
    return status, capsys.readouterr().out


def cheat(capsys: pytest.CaptureFixture[str], action: str, *options: str) -> tuple[int, str]:
    return checked(capsys, sys.executable, "-c", CHEAT, str(suite.VECTORS), action, options=options)


def figures(out: str) -> list[int]:
    """right, wrong, unsupported, not run"""
    [total] = [line for line in out.splitlines() if line.startswith("total")]
    return [int(word) for word in total.split()[1:]]


def test_the_right_answers_pass(capsys: pytest.CaptureFixture[str]) -> None:
    status, out = cheat(capsys, "pass")
    assert (status, figures(out)) == (0, [TOTAL, 0, 0, 0])


@pytest.mark.parametrize(
    ("action", "told"),
    [
        ('reply["result"]["lost"] = "77"', 'lost is "77"'),
        ('reply["result"]["lost"] = int(reply["result"]["lost"])', "lost is 0, expected"),
        ('reply["result"]["more"] = 1', "more is 1, not expected"),
        ('del reply["result"]["fresh"]', "fresh is missing"),
        ('reply["result"] = []', "result is []"),
        ('reply = {"id": reply["id"], "error": "\\x1b[31mred"}', "error: "),
        ('reply["id"] = "replay/other"', "not an answer to this case"),
        ('print("hello")', "not a line of JSON"),
        ("sys.exit(3)", "it ended"),
    ],
)
def test_one_wrong_answer_is_found(capsys: pytest.CaptureFixture[str], action: str, told: str) -> None:
    only_once = f"{action}\ncount = -10**6"
    status, out = cheat(capsys, only_once)
    right, wrong, unsupported, not_run = figures(out)
    assert status == 1
    # A command that has to be started anew gets to its third case once more.
    assert wrong >= 1
    assert right + wrong + not_run == TOTAL
    assert unsupported == 0
    assert told in out
    assert "SEQ-02" in out
    assert "\x1b" not in out


def test_a_planted_wrong_answer_is_the_one_that_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    third = [case.id for case in suite.load() if case.area == "replay"][2]
    status, out = cheat(capsys, 'reply["result"]["highest"] = "1"')
    assert (status, figures(out)) == (1, [TOTAL - 1, 1, 0, 0])
    assert f"wrong: {third} " in out


def test_silence_ends_and_the_rest_is_not_run(capsys: pytest.CaptureFixture[str]) -> None:
    status, out = checked(
        capsys, sys.executable, "-S", "-c", "import sys; sys.stdin.read()", options=("--timeout", "0.01")
    )
    assert (status, figures(out)) == (1, [0, 6, 0, TOTAL - 6])


def test_unsupported_is_counted_and_can_be_refused(capsys: pytest.CaptureFixture[str]) -> None:
    action = 'reply = {"id": reply["id"], "unsupported": True}'
    status, out = cheat(capsys, action)
    assert (status, figures(out)) == (0, [TOTAL - 1, 0, 1, 0])
    status, _ = cheat(capsys, action, "--require-all")
    assert status == 1


def test_the_reference_through_its_adapter(capsys: pytest.CaptureFixture[str]) -> None:
    command = [sys.executable, "-m", "poolproof.vectors.reference_adapter"]
    status = cli.main(["vectors", "check", "--require-all", "--", *command])
    assert status == 0
    assert figures(capsys.readouterr().out) == [len(suite.load()), 0, 0, 0]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--", "/no/such/implementation"],
        ["--area", "nothing", "--", "true"],
        ["--only", "no such case", "--", "true"],
        ["--vectors", "/nonexistent", "--", "true"],
    ],
)
def test_what_cannot_run_is_said(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    assert cli.main(["vectors", "check", *arguments]) == 2
    assert capsys.readouterr().err.startswith("poolproof: ")


def test_a_broken_file_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "broken.json").write_text("{}")
    assert cli.main(["vectors", "check", "--vectors", str(tmp_path), "--", "true"]) == 2
    assert "broken.json" in capsys.readouterr().err

# SPDX-License-Identifier: GPL-2.0-or-later
"""Whatever a step or hook does, its scenario gets the right verdict, and never a pass by accident."""

from __future__ import annotations

import pytest
from conftest import Tree

from poolproof.verdicts import Health, Wire
from poolproof.verdicts.results import RunResult, ScenarioResult, StepStatus

HOOK_ERRORS = [
    "before_all", "before_feature", "before_rule", "before_scenario", "before_step", "before_tag",
    "after_step", "after_scenario", "after_rule", "after_feature", "after_all", "after_tag",
]  # fmt: skip

RULED = """
    @ftag
    Feature: Ruled
      Rule: a rule
        @stag
        Scenario: under a rule
          Given it passes
          Then it passes
"""

TWO = """
    Feature: F
      Scenario: s
        Given it passes
      Scenario: t
        Given it passes
"""


def verdict(result: ScenarioResult) -> tuple[str, str]:
    return str(result.wire), str(result.health)


def last(result: ScenarioResult) -> StepStatus:
    return result.steps[-1].status


@pytest.mark.parametrize(
    ("raised", "wire", "health", "status", "reason"),
    [
        ("it passes", "pass", "unknown", "passed", ""),
        ("it fails", "fail", "unknown", "failed", "5 packets expected, 4 seen"),
        ("it fails without words", "fail", "unknown", "failed", "does not hold: assert 1 + 1 == 3"),
        ("it raises Inconclusive", "inconclusive", "unknown", "inconclusive", "no positive control"),
        ("it raises NotSupported", "not_supported", "unknown", "not_supported", "version 2 only"),
        ("it raises DeviceDied", "fail", "died", "died",
         "the device died: guest a: BUG: unable to handle page fault"),
        ("its cause is a death", "fail", "died", "died", "the device died: guest b panicked"),
        ("it dies on the way up", "inconclusive", "unknown", "inconclusive",
         "the device could not be tested: panics in init"),
        ("it raises KeyError", "inconclusive", "unknown", "harness_error", "harness error: KeyError: 'oops'"),
        ("it raises SystemExit", "inconclusive", "unknown", "harness_error", "harness error: SystemExit: 3"),
        ("it raises Pending", "inconclusive", "unknown", "pending", "pending step: later"),
        ("a task group fails", "fail", "unknown", "failed", "inner check"),
        ("it does what nobody defined", "inconclusive", "unknown", "undefined",
         "undefined step: Given it does what nobody defined"),
        ("it skips", "not_supported", "unknown", "skipped", "skipped: needs a kernel"),
        ("it skips silently", "inconclusive", "unknown", "skipped", "skipped without a reason"),
        ("it runs it fails", "fail", "unknown", "failed", "5 packets expected, 4 seen"),
        ("it runs it raises NotSupported", "not_supported", "unknown", "not_supported", "version 2 only"),
        ("it runs it raises KeyError", "inconclusive", "unknown", "harness_error",
         "harness error: KeyError: 'oops'"),
        ("it leaks", "pass", "leaked", "passed", ""),
    ],
)  # fmt: skip
def test_a_step_decides(tree: Tree, raised: str, wire: str, health: str, status: str, reason: str) -> None:
    result = tree.one(f"Given {raised}")
    assert (*verdict(result), str(last(result)), result.reason) == (wire, health, status, reason)


def test_an_undefined_sub_step_does_not_blame_the_device(tree: Tree) -> None:
    result = tree.one("Given it runs nothing anybody defined")
    assert result.wire is Wire.INCONCLUSIVE
    assert "UNDEFINED SUB-STEP" in result.reason


def test_steps_after_a_failure_are_skipped_and_shown(tree: Tree) -> None:
    result = tree.one("Given it passes\nWhen it fails\nThen it passes\nAnd nobody defined this")
    statuses = [str(step.status) for step in result.steps]
    assert statuses == ["passed", "failed", "skipped", "undefined"]
    assert result.wire is Wire.FAIL


def test_a_pending_step_under_wip_is_not_a_pass(tree: Tree) -> None:
    steps = "Given it raises Pending\n    Then it passes"
    tree.feature("wip", f"Feature: F\n  @wip\n  Scenario: s\n    {steps}\n")
    (result,) = tree.run().scenarios
    assert result.wire is Wire.INCONCLUSIVE


def test_a_scenario_without_steps_is_not_a_pass(tree: Tree) -> None:
    tree.feature("empty", "Feature: F\n  Scenario: s\n")
    (result,) = tree.run().scenarios
    assert (result.wire, result.reason) == (Wire.INCONCLUSIVE, "the scenario has no steps of its own")


def test_exceptions_that_speak_for_the_device(tree: Tree) -> None:
    refused = "Given it raises ConnectionRefusedError"
    assert tree.one(refused).wire is Wire.INCONCLUSIVE
    assert verdict(tree.one(refused, failures=(ConnectionRefusedError,))) == ("fail", "unknown")
    assert verdict(tree.one(refused, deaths=(ConnectionRefusedError,))) == ("fail", "died")


def test_harness_errors_are_counted_and_decide_the_exit_status(tree: Tree) -> None:
    tree.feature("a", TWO.replace("it passes", "it raises KeyError", 1))
    run = tree.run()
    assert [(fault.scenario, fault.where) for fault in run.harness_errors] == [("a/s", "step")]
    assert "steps.py" in run.harness_errors[0].trace
    assert "site-packages" not in run.harness_errors[0].trace
    assert run.exit_status == 2


@pytest.mark.parametrize("hook", HOOK_ERRORS)
def test_an_error_in_any_hook_is_never_a_clean_pass(tree: Tree, hook: str) -> None:
    tree.feature("ruled", RULED)
    takes = "context" if hook.endswith("_all") else "context, what"
    tree.environment(f"def {hook}({takes}):\n    raise OSError('no tap device')\n")
    run = tree.run()
    (result,) = run.scenarios
    outside = hook in ("after_rule", "after_feature", "after_all")
    assert (result.wire is Wire.PASS) is outside
    assert "OSError: no tap device" in (run.harness_errors[0].reason if outside else result.reason)
    assert run.harness_errors
    assert run.exit_status == 2


@pytest.mark.parametrize("hook", HOOK_ERRORS)
def test_a_death_in_any_hook_is_the_devices(tree: Tree, hook: str) -> None:
    tree.feature("ruled", RULED)
    takes = "context" if hook.endswith("_all") else "context, what"
    tree.environment(f"def {hook}({takes}):\n    raise DeviceDied('guest a: Kernel panic')\n")
    run = tree.run()
    (result,) = run.scenarios
    findings = [*run.findings, *result.findings]
    assert any(each.health is Health.DIED and "Kernel panic" in each.title for each in findings)
    assert not run.harness_errors
    assert run.exit_status == 1
    if hook.startswith("before_") and hook != "before_step":
        assert result.wire is Wire.INCONCLUSIVE
    elif hook.endswith("_step"):
        assert result.wire is Wire.FAIL
    else:
        assert result.wire is Wire.PASS


def one_hook(tree: Tree, hook: str, error: str) -> tuple[RunResult, ScenarioResult]:
    tree.feature("ruled", RULED)
    takes = "context" if hook.endswith("_all") else "context, what"
    tree.environment(f"def {hook}({takes}):\n    raise {error}\n")
    run = tree.run()
    return run, run.scenarios[0]


def test_before_hooks_may_declare_a_lack(tree: Tree) -> None:
    for hook in ("before_feature", "before_rule", "before_scenario", "before_tag"):
        run, result = one_hook(tree, hook, "NotSupported('IPv6')")
        assert result.wire is Wire.NOT_SUPPORTED, hook
        assert "IPv6" in result.reason
        assert not run.harness_errors


def test_an_assertion_before_the_first_step_is_no_failed_check(tree: Tree) -> None:
    _, before = one_hook(tree, "before_scenario", "AssertionError('two nodes expected')")
    _, after = one_hook(tree, "after_scenario", "AssertionError('sessions left over')")
    assert before.wire is Wire.INCONCLUSIVE
    assert (after.wire, after.reason) == (Wire.FAIL, "after_scenario: sessions left over")


def test_an_assertion_after_all_scenarios_is_a_finding_of_the_run(tree: Tree) -> None:
    run, result = one_hook(tree, "after_feature", "AssertionError('module does not unload')")
    assert result.wire is Wire.PASS
    assert [(each.health, each.title) for each in run.findings] == [
        (Health.COMPLAINED, "module does not unload")
    ]
    assert run.exit_status == 1


def test_a_harness_error_afterwards_does_not_hide_a_failure(tree: Tree) -> None:
    tree.environment("def after_scenario(context, scenario):\n    raise OSError('disk full')\n")
    result = tree.one("Given it fails")
    assert result.wire is Wire.FAIL
    assert result.reason == "5 packets expected, 4 seen\nafter_scenario: harness error: OSError: disk full"


def test_a_failing_cleanup_is_never_a_pass(tree: Tree) -> None:
    result = tree.one("Given it cleans up badly")
    assert result.wire is Wire.INCONCLUSIVE
    assert result.reason == "cleanup tidy: harness error: OSError: no such link"


def test_a_failing_cleanup_of_the_run_is_counted(tree: Tree) -> None:
    tree.environment("""
        def close():
            raise OSError("still busy")
        def before_all(context):
            context.add_cleanup(close)
    """)
    tree.one("Given it passes")
    run = tree.run()
    assert [fault.where for fault in run.harness_errors] == ["cleanup close"]


def test_a_failing_background_step_fails_each_scenario(tree: Tree) -> None:
    tree.feature(
        "bg",
        """
        Feature: F
          Background:
            Given it fails
          Scenario: s
            Then it passes
          Scenario: t
            Then it passes
        """,
    )
    run = tree.run()
    assert [each.wire for each in run.scenarios] == [Wire.FAIL, Wire.FAIL]
    assert [(step.background, str(step.status)) for step in run.scenarios[0].steps] == [
        (True, "failed"),
        (False, "skipped"),
    ]


def test_health_is_unknown_until_somebody_looked(tree: Tree) -> None:
    assert tree.one("Given it passes").health is Health.UNKNOWN
    tree.environment("def after_scenario(context, scenario):\n    context.evidence.healthy()\n")
    assert tree.one("Given it passes").health is Health.CLEAN
    leaked = tree.one("Given it leaks")
    assert (leaked.health, str(leaked.outcome)) == (Health.LEAKED, "passed but leaked")


def test_an_untestable_device_ends_the_run_with_everything_accounted_for(tree: Tree) -> None:
    tree.feature("a", TWO)
    tree.environment("""
        def before_all(context):
            raise DeviceUntestable("main.c:7: error: x undeclared")
    """)
    run = tree.run()
    assert {each.wire for each in run.scenarios} == {Wire.INCONCLUSIVE}
    assert all("main.c:7: error: x undeclared" in each.reason for each in run.scenarios)
    assert run.untestable == "the device could not be tested: main.c:7: error: x undeclared"
    assert run.exit_status == 1
    assert tree.run(bisect=True).exit_status == 125


def test_an_interrupt_ends_the_run_with_everything_accounted_for(tree: Tree) -> None:
    steps = "Given it raises KeyboardInterrupt\n    Then it passes"
    tree.feature("a", f"Feature: F\n  Scenario: s\n    {steps}\n")
    tree.feature("b", "Feature: G\n  Scenario: t\n    Given it passes\n")
    run = tree.run()
    assert [(each.wire, each.reason) for each in run.scenarios] == [
        (Wire.INCONCLUSIVE, "interrupted"),
        (Wire.INCONCLUSIVE, "not run: interrupted"),
    ]
    assert (run.aborted, run.exit_status) == ("interrupted", 2)


def test_fail_fast_stops_after_a_failure_only(tree: Tree) -> None:
    for name, step in (("a", "it raises NotSupported"), ("b", "it fails"), ("c", "it passes")):
        tree.feature(name, f"Feature: F\n  Scenario: s\n    Given {step}\n")
    run = tree.run(fail_fast=True)
    assert [str(each.wire) for each in run.scenarios] == ["not_supported", "fail", "inconclusive"]
    assert run.scenarios[2].reason == "not run: stopped after the first failure"
    assert run.exit_status == 1

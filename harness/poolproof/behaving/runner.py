# SPDX-License-Identifier: GPL-2.0-or-later
"""behave, run in this process, with its results taken from what happens instead of from its formatters.

behave's own reporting loses failures of hooks, scenarios below `Rule:` and whatever never started. So the
recorder is told about every hook, step and cleanup that raises, each scenario runs inside a wrapper of ours,
and after each feature whatever has no result yet gets one.
"""

from __future__ import annotations

import copy
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any

import behave.runner as behave_runner
from behave.configuration import Configuration
from behave.exception import ConfigError
from behave.parser import ParserError
from behave.runner_util import collect_feature_locations, parse_features
from behave.step_registry import registry as the_step_registry

from poolproof.behaving.config import RunConfig
from poolproof.behaving.evidence import Evidence
from poolproof.behaving.judging import Phase, describe
from poolproof.behaving.progress import Progress
from poolproof.behaving.recorder import Recorder
from poolproof.behaving.selecting import Case, cases
from poolproof.errors import HarnessError
from poolproof.verdicts.axes import Wire

_OUTPUT_CAP = 256 * 1024


def parse(features: Path) -> list[Case]:
    """All scenarios below `features`. Raises HarnessError if there are none or a file does not parse."""
    if not features.is_dir():
        raise HarnessError(f"no such directory of features: {features}")
    _configuration(features)  # sets how outlines name their rows
    locations = collect_feature_locations([str(features)])
    try:
        parsed = parse_features(locations)
    except (ParserError, UnicodeDecodeError) as error:
        raise HarnessError(f"a feature file does not parse: {' '.join(str(error).split())}") from error
    # To behave a misspelt keyword is one more line of description, and the scenario is gone.
    full = {Path(feature.filename).resolve() for feature in parsed if feature.walk_scenarios()}
    for location in locations:
        if Path(location.filename).resolve() not in full:
            raise HarnessError(f"{location.filename} has no scenarios", hint="is a keyword misspelt?")
    return cases(parsed, features)


def _configuration(features: Path) -> Any:
    return Configuration(
        [],
        load_config=False,
        paths=[str(features)],
        capture=False,
        capture_hooks=False,
        summary=False,
        color="off",
        scenario_outline_annotation_schema="{name}",
    )


class FeatureRunner(behave_runner.Runner):  # type: ignore[misc]  # behave has no types
    """Runs the selected cases once, reporting to a recorder and a progress display."""

    def __init__(self, config: RunConfig, found: Sequence[Case], recorder: Recorder) -> None:
        super().__init__(_configuration(config.features))
        self._run_config = config
        self._recorder = recorder
        self._chosen = {id(case.scenario): case for case in recorder.selected}
        self._progress: Progress | None = None
        self._cleanup_errors: list[BaseException] = []
        self._depth = 0
        self._inner: BaseException | None = None
        features = {id(case.scenario.feature): case.scenario.feature for case in recorder.selected}
        self.features = list(features.values())
        self._narrow(found)

    def _narrow(self, found: Sequence[Case]) -> None:
        for case in found:
            if id(case.scenario) in self._chosen:
                case.scenario.run = partial(self._run_scenario, case, case.scenario.run)
            else:
                case.scenario.mark_skipped()
        for feature in self.features:
            for rule in feature.rules:
                if not any(id(each) in self._chosen for each in rule.walk_scenarios()):
                    rule.mark_skipped()

    def run(self, progress: Progress | None = None) -> None:
        """Load hooks and steps, then run everything. Raises HarnessError if they cannot be loaded."""
        self._progress = progress
        with self.path_manager:
            self._load()
            self.run_model()

    def _load(self) -> None:
        the_step_registry.clear()
        try:
            self.setup_paths()
            self.context = behave_runner.Context(self)
            self.load_hooks()
            self.load_step_definitions()
        except HarnessError:
            raise
        except ConfigError as error:
            raise HarnessError(f"{self._run_config.features}: {error}") from error
        except (Exception, SystemExit) as error:
            raise HarnessError(f"hooks and steps cannot be loaded: {describe(error)}") from error
        bad = the_step_registry.error_handler.bad_step_definitions
        if bad:
            raise HarnessError(f"a step's pattern is broken: {bad[0].describe()} at {bad[0].location}")
        self.step_registry = _WatchedSteps(the_step_registry, self._call_step)

    def load_hooks(self, filename: str | None = None) -> None:
        super().load_hooks(filename)
        if self.hooks.get("before_all") == self.before_all_default_hook:
            del self.hooks["before_all"]  # it would reconfigure logging

    # -- the run

    def run_model(self, features: object = None) -> None:
        root = self.context
        root._set_root_attribute("on_cleanup_error", self._cleanup_failed)
        for name, value in self._run_config.context.items():
            root._set_root_attribute(name, value)
        self.formatters = [_Ends(self._recorder, root.evidence)]
        self.run_hook("before_all")
        for feature in self.features:
            if not self.aborted:
                self._run_feature(feature)
            for result in self._recorder.settle(feature):
                if self._progress is not None:
                    self._progress.finished(result)
        self.run_hook("after_all")
        with self._survived("cleanup of the run"):
            root._do_remaining_cleanups()

    def _run_feature(self, feature: Any) -> None:
        depth = len(self.context._stack)
        with self._survived(f"feature {feature.name}"):
            self.feature = feature
            feature.run(self)
        self._unwind(depth)

    def _run_scenario(self, case: Case, original: Any, _runner: object) -> bool:
        if self._progress is not None:
            self._progress.started(case.id, case.name)
        self._recorder.scenario_started(case.scenario)
        depth = len(self.context._stack)
        output = _Bounded(_OUTPUT_CAP)
        self._depth, self._inner = 0, None
        try:
            with redirect_stdout(output), redirect_stderr(output), self._survived("scenario"):
                original(self)
            self._unwind(depth)
        finally:
            result = self._recorder.scenario_finished(case.scenario, output.text())
        if self._progress is not None:
            self._progress.finished(result)
        bad = result.wire is Wire.FAIL or result.health.hurt
        if bad and self._run_config.fail_fast:
            self._recorder.abort("stopped after the first failure")
        if self._recorder.stopped:
            self.aborted = True
        return bad

    @contextmanager
    def _survived(self, where: str) -> Iterator[None]:
        """Keep the run going (or end it in order) when something escapes from behave itself."""
        try:
            yield
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                self._interrupted()
            if error not in self._cleanup_errors:  # behave raises the first of these again
                self._recorder.raised(error, where, Phase.AFTER)

    def _unwind(self, depth: int) -> None:
        """Drop context layers that something escaping from behave left behind."""
        while len(self.context._stack) > depth:
            with self._survived("cleanup"):
                self.context._pop()

    def _interrupted(self) -> None:
        self._recorder.abort("interrupted")
        self.aborted = True

    # -- hooks

    def run_hook(self, hook_name: str, *args: Any) -> bool:
        if hook_name == "before_step" and self._depth == 0:
            self._recorder.step_started(args[0])
        hook = self.hooks.get(hook_name)
        if hook is None:
            return True
        try:
            with self.context.use_with_user_mode():
                hook(self.context, *args)
        except BaseException as error:
            self._hook_failed(hook_name, args, error)
            return False
        return True

    def _hook_failed(self, hook_name: str, args: tuple[Any, ...], error: BaseException) -> None:
        statement = args[0] if args else None
        tag = ""
        if hook_name.endswith("_tag"):
            tag = str(args[0])
            names = ("scenario", "rule", "feature")
            statement = next((each for name in names if (each := getattr(self.context, name, None))), None)
        if hook_name.endswith("_step"):
            phase = Phase.STEP
        else:
            phase = Phase.BEFORE if hook_name.startswith("before_") else Phase.AFTER
        judgement = self._recorder.raised(error, hook_name, phase, statement, tag=tag)
        self.hook_failures += 1
        if statement is not None:
            statement.hook_failed = True
            statement.error_message = judgement.reason
        if isinstance(error, KeyboardInterrupt):
            self._interrupted()
        elif hook_name == "before_all":
            self._recorder.stop(f"before_all: {judgement.reason}")
        if self._recorder.stopped:
            self.aborted = True

    def _cleanup_failed(self, context: object, function: Any, error: BaseException) -> None:
        name = getattr(function, "__qualname__", type(function).__name__).rpartition(".")[2]
        self._cleanup_errors.append(error)
        self._recorder.raised(error, f"cleanup {name}", Phase.AFTER)

    # -- steps

    def _call_step(self, match: Any, context: Any) -> None:
        if self._depth == 0:
            self._inner = None
        self._depth += 1
        try:
            match.run(context)
        except BaseException as error:
            if self._depth > 1:
                self._inner = self._inner or error
            else:
                self._recorder.raised(self._meant(error), "step", Phase.STEP)
            if isinstance(error, KeyboardInterrupt):
                self._interrupted()
            elif not isinstance(error, Exception):
                # behave lets SystemExit through, and the whole run would be over.
                raise RuntimeError(describe(error)) from error
            raise
        finally:
            self._depth -= 1

    def _meant(self, error: BaseException) -> BaseException:
        """context.execute_steps() turns whatever a sub-step raised into an AssertionError: undo that."""
        frame = error.__traceback__
        while frame is not None and frame.tb_next is not None:
            frame = frame.tb_next
        if frame is None or frame.tb_frame.f_code.co_filename != behave_runner.__file__:
            return error
        return self._inner or RuntimeError(str(error))


class _Ends:
    """behave's formatter interface, of which only ends of steps and context.attach() are of interest."""

    def __init__(self, recorder: Recorder, evidence: Evidence) -> None:
        self.result = recorder.step_finished
        self._evidence = evidence

    def embedding(self, mime_type: str, data: str | bytes) -> None:
        """A step called behave's own context.attach()."""
        self._evidence.attach("attachment", data, mime_type)

    def _ignore(self, *_: object) -> None:
        """An event that the runner sees itself."""

    uri = feature = background = rule = scenario = step = match = eof = _ignore


class _WatchedSteps:
    """behave's step registry; the matches it finds run through `call(match, context)`."""

    def __init__(self, registry: Any, call: Any) -> None:
        self._registry = registry
        self._call = call

    def find_match(self, step: Any) -> Any:
        match = self._registry.find_match(step)
        if match is None:
            return None
        watched = copy.copy(match)
        watched.run = partial(self._call, match)
        return watched


class _Bounded(io.TextIOBase):
    """Collects what is written, up to `cap` characters; the rest is counted."""

    def __init__(self, cap: int) -> None:
        self._parts: list[str] = []
        self._room = cap
        self._gone = 0

    def write(self, text: str) -> int:
        kept = text[: self._room]
        self._parts.append(kept)
        self._room -= len(kept)
        self._gone += len(text) - len(kept)
        return len(text)

    def writable(self) -> bool:
        return True

    def text(self) -> str:
        tail = f"\n[cut: {self._gone} characters]" if self._gone else ""
        return "".join(self._parts) + tail

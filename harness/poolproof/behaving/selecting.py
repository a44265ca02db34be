# SPDX-License-Identifier: GPL-2.0-or-later
"""Which scenarios run, and the stable ID of each.

An ID is the feature's path below the features directory, the scenario's name and, for a row of an outline,
its values: `handshake/a-client-connects/reference.kernel`. It survives moved lines and added rows.
"""

from __future__ import annotations

import difflib
import fnmatch
import hashlib
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from behave.exception import TagExpressionError
from behave.model import Scenario, ScenarioOutline
from behave.tag_expression import make_tag_expression

from poolproof.errors import HarnessError
from poolproof.verdicts.requirements import tagged

_PART_LIMIT = 72


@dataclass(frozen=True, slots=True)
class Case:
    """A scenario as found in the feature files, before it runs."""

    id: str
    name: str
    feature: str
    rule: str
    file: str
    line: int
    area: str
    description: str
    tags: tuple[str, ...]
    requirements: tuple[str, ...]
    parameters: dict[str, str]
    scenario: Any  # behave.model.Scenario


def slug(text: str) -> str:
    """`text` in [a-z0-9._-], never empty, at most 72 characters, differing for long texts that differ."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    plain = re.sub(r"(?<!\w)-(?=\d)", " minus ", plain.replace("+", " plus "))  # -20 and +20 are two rows
    short = re.sub(r"[^a-z0-9.]+", "-", plain).strip("-.")
    short = re.sub(r"\.{2,}", ".", short)
    if short and len(short) <= _PART_LIMIT:
        return short
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{short[: _PART_LIMIT - 9].rstrip('-.')}-{digest}".lstrip("-")


def cases(features: Iterable[Any], root: Path) -> list[Case]:
    """All scenarios of parsed behave features, in order, outlines expanded."""
    found: list[Case] = []
    seen: dict[str, int] = {}
    for feature in features:
        for scenario in feature.walk_scenarios():
            case = _case(feature, scenario, root, seen)
            found.append(case)
    return found


def _case(feature: Any, scenario: Any, root: Path, seen: dict[str, int]) -> Case:
    path = Path(scenario.filename).resolve()
    below = path.relative_to(root.resolve()) if path.is_relative_to(root.resolve()) else Path(path.name)
    row = scenario._row  # behave has no public way to a row's values
    parameters = dict(zip(row.headings, row.cells, strict=True)) if row is not None else {}
    outline = scenario.parent if isinstance(scenario.parent, ScenarioOutline) else None
    title = outline.name if outline is not None else scenario.name
    parts = [slug(each) for each in below.with_suffix("").parts]
    parts.append(slug(re.sub(r"<[^>]*>", " ", title)))
    if parameters:
        parts.append(slug(".".join(slug(value) for value in parameters.values())))
    identity = "/".join(parts)
    seen[identity] = seen.get(identity, 0) + 1
    if seen[identity] > 1:
        identity = f"{identity}-{seen[identity]}"
    name = scenario.name
    if parameters and outline is not None and name == outline.name:
        name = f"{name} [{', '.join(parameters.values())}]"
    container = (outline or scenario).parent
    tags = tuple(sorted(str(tag) for tag in scenario.effective_tags))
    areas = [tag.removeprefix("area.") for tag in tags if tag.startswith("area.")]
    return Case(
        id=identity,
        name=name,
        feature=feature.name,
        rule=container.name if container is not None and container is not feature else "",
        file=str(Path(root.name) / below),
        line=scenario.line,
        area=areas[0] if areas else below.with_suffix("").parts[0],
        description="\n".join(scenario.description),
        tags=tags,
        requirements=tagged(tags),
        parameters=parameters,
        scenario=scenario,
    )


def select(found: Sequence[Case], tags: Sequence[str], only: Sequence[str]) -> list[Case]:
    """The cases that satisfy every tag expression and match at least one of `only` (if any).

    Raises HarnessError if an expression is malformed, an entry of `only` matches nothing, or nothing is left.
    """
    chosen = [case for case in found if _tags_hold(case, tags)]
    if only:
        wanted: set[str] = set()
        for each in only:
            exact = {case.id for case in found if case.id == each}
            matched = exact or {case.id for case in found if _matches(case, each)}
            if not matched:
                close = difflib.get_close_matches(each, [case.id for case in found], n=3, cutoff=0.3)
                hint = f"perhaps {' or '.join(close)}" if close else "list them with `poolproof list`"
                raise HarnessError(f"no scenario matches {each!r}", hint=hint)
            wanted |= matched
        chosen = [case for case in chosen if case.id in wanted]
    if not chosen:
        asked = " ".join([*(f"tags {each!r}" for each in tags), *(repr(each) for each in only)])
        raise HarnessError(
            f"no scenario selected ({asked or 'there are none'})", hint="list them with `poolproof list`"
        )
    return chosen


def _tags_hold(case: Case, tags: Sequence[str]) -> bool:
    for text in tags:
        try:
            holds = make_tag_expression(text).check(case.tags)
        except TagExpressionError as error:
            first = str(error).strip().splitlines()[0]
            raise HarnessError(f"bad tag expression {text!r}: {first}") from error
        if not holds:
            return False
    return True


def _matches(case: Case, text: str) -> bool:
    if fnmatch.fnmatchcase(case.id, text) or case.id.startswith(text):
        return True
    located = re.fullmatch(r"(.*\.feature)(?::(\d+))?", text)
    if located:
        file, line = located.group(1).removeprefix("./"), located.group(2)
        same = case.file == file or case.file.endswith(f"/{file}")
        return same and (line is None or _holds_line(case, int(line)))
    return text.lower() in case.name.lower()


def _holds_line(case: Case, line: int) -> bool:
    """True for the line of the scenario, its outline, or any of its steps."""
    scenario = case.scenario
    lines = {case.line, *(step.line for step in scenario.steps)}
    if isinstance(scenario.parent, Scenario):
        lines.add(scenario.parent.line)
    return line in lines

# SPDX-License-Identifier: GPL-2.0-or-later
"""What was tested, on what, from which seed, in words."""

from __future__ import annotations

from poolproof.reports.text import line
from poolproof.verdicts.results import RunResult


def facts(run: RunResult) -> list[tuple[str, str]]:
    """Names and values, each one harmless line; what is not known is left out."""
    environment = run.environment
    pairs = [
        ("Device", f"{environment.device} {environment.release}".strip()),
        ("Device build", environment.build_id),
        ("Kernel", environment.kernel),
        ("Accelerator", " ".join(filter(None, (environment.accelerator, environment.accelerator_evidence)))),
        ("CPU model", environment.cpu),
        ("Seed", str(environment.seed)),
        *((key.replace("_", " ").capitalize(), value) for key, value in environment.details.items()),
        ("Specification", run.spec_id),
        ("poolproof", run.tool_version),
        ("Command", run.command),
    ]
    return [(line(key), line(value)) for key, value in pairs if value]

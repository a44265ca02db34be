# SPDX-License-Identifier: GPL-2.0-or-later
"""Hooks: a fresh stage for each scenario, and the device's health after it."""

from __future__ import annotations

from poolproof.devices.stage import Stage
from poolproof.verdicts import Health


def before_scenario(context, scenario):
    context.device.begin(scenario.name)
    context.stage = Stage(context.device, context.seed, scenario.name, context.device.keylog.append)


def after_scenario(context, scenario):
    stage = getattr(context, "stage", None)
    if stage is None:
        return
    stage.clear()
    report, attachments = context.device.finish()
    for attachment in attachments:
        context.evidence.attach(attachment.name, attachment.data, attachment.media_type)
    for finding in report.findings:
        title = f"{finding.node}: {finding.title}"
        context.evidence.finding(finding.kind, title, finding.excerpt, Health(report.status))
    if report.status == "clean":
        context.evidence.healthy()

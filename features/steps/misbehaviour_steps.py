# SPDX-License-Identifier: GPL-2.0-or-later
"""Steps about a reference that violates one requirement (poold --list-misbehaviours)."""

from __future__ import annotations

from behave import given, then, when

from poolproof.devices.deviant import Deviant


@given("a sound {role} does what one does that misbehaves with {switch}")
def sound_peer(context, role, switch):
    context.deviant = Deviant(context.stage, role, switch)
    other = "server" if role == "client" else "client"
    device = context.stage.cast("device", other)
    if other == "server":
        device.listen(device.port)
    with context.stage.groundwork(f"a sound {role} is served"):
        context.deviant.control()


@when("the {role} misbehaves so")
def misbehaves(context, role):
    context.deviant.act()


@then("the device reacts as a sound peer does")
def reacts(context):
    context.evidence.note(context.deviant.switch.sentence)
    context.deviant.check()

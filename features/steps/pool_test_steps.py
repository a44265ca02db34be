# SPDX-License-Identifier: GPL-2.0-or-later
"""Steps that run pool_test in the guests."""

from __future__ import annotations

import json
import shlex

from behave import then, when

from poolproof.devices.stage import eventually

_COMMAND = "env PYTHONPATH=/mnt/tools/python python3 -m poolref.tools.pool_test --backend kernel --json"
_SERVER_LOG = "/run/pool_test.log"


@when("pool_test waits on the server")
def start_server(context):
    endpoint = context.stage.roles["server"]
    script = f"{_COMMAND} server --once >{_SERVER_LOG} 2>&1 </dev/null &"
    assert endpoint.call("exec", argv=["sh", "-c", script])["rc"] == 0
    # Nothing is printed with --json; that it listens shows in the module.
    eventually(
        lambda: "listening" in endpoint.call("read", path="/proc/pool/status"),
        "pool_test listening",
        timeout=30,
    )


@when('pool_test on the client runs "{arguments}"')
def run_client(context, arguments):
    endpoint = context.stage.roles["client"]
    answer = endpoint.call("exec", argv=[*shlex.split(_COMMAND), *arguments.split()])
    context.evidence.note(f"pool_test {arguments}: status {answer['rc']}\n{answer['out']}{answer['err']}")
    context.client = answer


@then("both ends have verified {size:d} bytes")
def both_verified(context, size):
    server = context.stage.roles["server"]
    log = eventually(
        lambda: server.call("read", path=_SERVER_LOG), "a line of pool_test on the server", timeout=30
    )
    context.evidence.note(f"pool_test on the server:\n{log}")
    assert context.client["rc"] == 0, f"the client ended with {context.client['rc']}: {context.client['err']}"
    ours, theirs = json.loads(context.client["out"]), json.loads(log)
    assert ours["moved"] == theirs["moved"] == size
    assert ours["sha256"] == theirs["sha256"]

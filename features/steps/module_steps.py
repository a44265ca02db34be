# SPDX-License-Identifier: GPL-2.0-or-later
"""Steps about the module itself: loading, unloading, its files and ioctls."""

from __future__ import annotations

import errno
import json
import threading
import time

from behave import given, then, when
from session_steps import check_errno, error_of

from poolproof.devices.base import DeviceError
from poolproof.devices.kernel import MODULE, DeviceHung, explain_load
from poolproof.devices.puppet_stream import Unreachable
from poolproof.devices.stage import eventually
from poolproof.lab.agent import GuestDied
from poolproof.verdicts import Inconclusive
from poolref.tools.kernel_abi import (
    CHANNEL_REQ,
    IOC_CHANNEL,
    IOC_CLOSE_SESS,
    IOC_RECV,
    IOC_SEND,
    IOC_SESSIONS,
    MESSAGE_REQ,
)
from poolref.wire import Init

KMEMLEAK = "/sys/kernel/debug/kmemleak"


def exists(endpoint, path):
    return endpoint.call("exec", argv=["test", "-e", path])["rc"] == 0


# -- bringing it up


@then("there is a module under test")
def module_exists(context):
    module = context.device.module
    if module.log is not None and module.log.exists():
        context.evidence.attach("build log", module.log)
    assert module.ko is not None, module.failure


@when("the module is loaded into an untouched kernel")
def first_load(context):
    if context.device.module.ko is None:
        raise Inconclusive(context.device.module.failure)
    context.endpoint = context.device.bare_endpoint("server")
    try:
        context.endpoint.load()
    except (DeviceError, DeviceHung) as exc:
        raise AssertionError(f"the module does not load: {explain_load(exc)}") from exc
    except GuestDied as exc:
        exc.args = (f"the module does not load: {explain_load(exc)}",)
        raise


@then("/dev/pool exists with mode {mode}")
def device_node(context, mode):
    answer = context.endpoint.call("exec", argv=["stat", "-c", "%F %a", "/dev/pool"])
    assert answer["rc"] == 0, f"no /dev/pool: {answer['err'].strip()}"
    assert answer["out"].strip() == f"character special file {mode}", f"it is a {answer['out'].strip()}"


@then('/proc/pool/status says "{line}"')
def status_says(context, line):
    text = context.endpoint.call("read", path="/proc/pool/status")
    assert line in text.splitlines(), f"it says:\n{text}"


@then("/proc/pool/sessions lists no session")
def sessions_empty(context):
    lines = context.endpoint.call("read", path="/proc/pool/sessions").splitlines()
    assert len(lines) == 1, f"it has {len(lines)} lines instead of its header alone: {lines}"


# -- loading and unloading


@given("the module is loaded")
def is_loaded(context):
    context.stage.cast("device", "server")


@when("the module is loaded again")
def load_again(context):
    endpoint = context.stage.roles["server"]
    context.stage.failure = error_of(endpoint.load)


@then("loading fails with {name}")
def load_refused(context, name):
    check_errno(context.stage.failure, name)


@when("the module is loaded once more")
def load_once_more(context):
    context.stage.roles["server"].load()
    context.stage.listening = False


@when("the module is unloaded")
@when("the server's module is unloaded")
def unload(context):
    context.took = context.stage.roles["server"].unload()


@then("it is gone within {limit:d} s with /dev/pool and /proc/pool")
def is_gone(context, limit):
    endpoint = context.stage.roles["server"]
    assert context.took <= limit, f"unloading took {context.took:.1f} s"
    left = [p for p in ("/dev/pool", "/proc/pool", f"/sys/module/{MODULE}") if exists(endpoint, p)]
    assert not left, f"left behind: {left}"


@then("connecting to its port is refused")
def port_is_free(context):
    try:
        context.stage.client()
    except Unreachable as exc:
        assert exc.errno == errno.ECONNREFUSED, f"connecting ended with {exc}"
        return
    raise AssertionError("something still accepts connections on the port")


@given("/dev/pool is held open")
def hold_open(context):
    context.handle = context.stage.roles["server"].call("open", path="/dev/pool")


@when("/dev/pool is released")
def release(context):
    context.stage.roles["server"].call("close", handle=context.handle)


@when("unloading the module is tried")
def try_unload(context):
    context.stage.failure = error_of(context.stage.roles["server"].unload)


@then("unloading is refused")
def unload_refused(context):
    # delete_module(2): EWOULDBLOCK with O_NONBLOCK while the reference count is not zero.
    check_errno(context.stage.failure, errno.errorcode[errno.EWOULDBLOCK])


@when("a scripted client stops {where}")
def stops_at(context, where):
    client = context.stage.client()
    init = client.init()
    if where == "before its INIT":
        return
    if where == "inside its INIT":
        client.stream.send(init[:50])
        return
    client.stream.send(init)
    client.await_challenge()
    if where == "inside its RESPONSE":
        client.stream.send(client.respond()[0][:120])
    elif where != "after its CHALLENGE":
        raise ValueError(f"unknown point {where!r}")


@when("/proc/pool is read in a loop while the module is unloaded")
def read_while_unloading(context):
    endpoint = context.stage.roles["server"]
    # In the guest, in one process: a round trip a read would hardly ever meet the unload.
    started = "/tmp/reading"
    script = (
        "import os,sys\nseen=set()\nwhile True:\n"
        " try: names=os.listdir('/proc/pool')\n"
        " except OSError as e: seen.add(e.errno); break\n"
        " for n in names:\n"
        "  try: open('/proc/pool/'+n).read()\n"
        "  except OSError as e: seen.add(e.errno)\n"
        " open(sys.argv[1],'w').close()\n"
        "os.unlink(sys.argv[1])\nprint(sorted(seen))"
    )
    answers = []

    def read():
        argv = ["python3", "-c", script, started]
        answers.append(endpoint.call("exec", argv=argv, timeout=60.0))

    reader = threading.Thread(target=read)
    reader.start()
    eventually(lambda: exists(endpoint, started), "the reader starting in the guest")
    context.took = endpoint.unload()
    reader.join(60)
    assert answers, "reading /proc/pool did not end"
    context.reading = answers[0]


@then("reading met nothing but missing files")
def reading_was_harmless(context):
    assert context.reading["rc"] == 0, context.reading["err"]
    seen = set(map(int, context.reading["out"].strip().strip("[]").split(",")))
    # EIO is procfs's own answer for a file that was removed while it was open.
    allowed = {errno.ENOENT, errno.ENODEV, errno.EIO}
    assert seen <= allowed, f"errnos {sorted(seen)}"


@when("it is unloaded and loaded {count:d} times")
def cycle(context, count):
    endpoint = context.stage.roles["server"]

    def slab():
        return endpoint.call("meminfo")["SUnreclaim"]

    forget_leaks(endpoint)
    for _ in range(5):  # caches and lazily freed objects settle first
        endpoint.unload()
        endpoint.load()
    before = slab()
    for _ in range(count):
        endpoint.unload()
        endpoint.load()
    context.grown = slab() - before
    if tells_leaks(endpoint):
        check_leaks(context, endpoint)
        context.grown = 0  # its slabs hold what was freed, too; kmemleak knows better
    context.evidence.note(f"unreclaimable slab grew by {context.grown} bytes over {count} cycles")


@then("unreclaimable slab memory grew by less than {limit:d} KiB")
def no_growth(context, limit):
    assert context.grown < limit * 1024, f"it grew by {context.grown // 1024} KiB"


_RESTLESS = """
import os, sys, time
from poolref.tools.kernel_abi import PoolDevice
counts = {}
while not os.path.exists("/tmp/stop"):
    with PoolDevice() as device:
        try:
            index = device.connect(sys.argv[1])
        except OSError as exc:
            counts[exc.errno] = counts.get(exc.errno, 0) + 1
            time.sleep(0.02)
            continue
        counts["sessions"] = counts.get("sessions", 0) + 1
        try:
            for operation in (device.rekey, device.exchange, device.challenge, device.probe_mtu):
                operation(index)
            device.configure(index, 50_000_000)
            for size in (1, 1000, 20000, 65535) * 1000:
                device.send(index, bytes(size))
        except OSError as exc:
            counts[exc.errno] = counts.get(exc.errno, 0) + 1
print(counts)
"""


@given("the client's guest connects and works without pause")
def restless(context):
    server, client = (context.stage.roles[role] for role in ("server", "client"))
    argv = ["env", "PYTHONPATH=/mnt/tools/python", "python3", "-c", _RESTLESS, server.guest.address4]
    forget_leaks(server)
    started = time.monotonic()
    server.listen(server.port)
    client.connect(server.guest.address4, server.port)
    # Long enough that about half of the attempts get a session, however slow the guest.
    context.moment = max(1.5, 3 * (time.monotonic() - started))
    server.stop()
    client.call("exec", argv=["rm", "-f", "/tmp/stop"])
    answers = []
    thread = threading.Thread(
        target=lambda: answers.append(client.call("exec", argv=argv, timeout=600.0)), daemon=True
    )
    thread.start()

    def end():
        client.call("exec", argv=["touch", "/tmp/stop"])
        thread.join(120)

    context.add_cleanup(end)
    context.restless_end, context.restless_answers = end, answers


@when("the server's module is loaded and unloaded {count:d} times, each time at a random moment")
def come_and_go(context, count):
    endpoint = context.stage.roles["server"]
    context.unloads = []
    for _ in range(count):
        endpoint.listen(endpoint.port)
        time.sleep(context.stage.random.uniform(0.0, context.moment))
        context.unloads.append(endpoint.unload())
        endpoint.load()
    context.restless_end()
    (answer,) = context.restless_answers
    context.evidence.note(f"unloads took {max(context.unloads):.2f} s at most; the client: {answer['out']}")
    assert answer["rc"] == 0, f"the client's part failed: {answer['err']}"
    assert "sessions" in answer["out"], f"the client never got a session: {answer['out']}"


@then("every unload took at most {limit:d} s")
def unloads_took(context, limit):
    assert max(context.unloads) <= limit, f"one took {max(context.unloads):.1f} s"


@then("after {seconds:d} s more the server's guest has lost no memory")
def lost_nothing(context, seconds):
    endpoint = context.stage.roles["server"]
    endpoint.unload()
    time.sleep(seconds)
    check_leaks(context, endpoint)


def tells_leaks(endpoint):
    """Whether the guest's kernel has kmemleak."""
    endpoint.call("exec", argv=["mount", "-t", "debugfs", "debugfs", "/sys/kernel/debug"])
    return exists(endpoint, KMEMLEAK)


def leaks(endpoint):
    """What kmemleak reports; scanned twice, because it does not tell of what is younger than 5 s."""
    for _ in range(2):
        time.sleep(6)
        endpoint.call("write", path=KMEMLEAK, data=b"scan", timeout=300.0)
    return endpoint.call("read", path=KMEMLEAK)


def forget_leaks(endpoint):
    """Report only what is lost from now on: modules that are gone cannot be told by their addresses."""
    if tells_leaks(endpoint):
        leaks(endpoint)
        endpoint.call("write", path=KMEMLEAK, data=b"clear")


def check_leaks(context, endpoint):
    if not tells_leaks(endpoint):
        context.evidence.note("the kernel has no kmemleak")
        return
    report = leaks(endpoint)
    assert not report.strip(), f"kmemleak reports:\n{report}"


# -- ioctls


@when("each session ioctl is issued with index {index:d}")
def with_index(context, index):
    endpoint = context.stage.roles["server"]
    calls = {
        "SEND": lambda: endpoint.send(index, b"x"),
        "RECV": lambda: endpoint.recv(index),
        "CLOSE_SESS": lambda: endpoint.close_session(index),
        "CHANNEL": lambda: endpoint.channel(index, 3),
    }
    context.refusals = {name: error_of(call) for name, call in calls.items()}


@then("each is refused with {names}")
def each_refused(context, names):
    allowed = names.split(" or ")
    for name, exc in context.refusals.items():
        seen = errno.errorcode.get(exc.errno, str(exc.errno))
        assert seen in allowed, f"{name} ended with {seen} ({exc})"


@then("an unknown ioctl is refused with {name}")
def unknown_ioctl(context, name):
    endpoint = context.stage.roles["server"]
    number = 1 << 30 | 4 << 16 | ord("P") << 8 | 99
    check_errno(error_of(lambda: endpoint.call("pool.raw_ioctl", number=number, argument=bytes(4))), name)


@then("a null pointer is refused with {name}")
def null_pointer(context, name):
    endpoint = context.stage.roles["server"]
    index = context.stage.index["server"]
    for number in (IOC_SEND, IOC_RECV, IOC_SESSIONS, IOC_CHANNEL, IOC_CLOSE_SESS):
        check_errno(error_of(lambda n=number: endpoint.call("pool.raw_ioctl", number=n, argument=0)), name)
    # The data pointer inside a valid structure, too.
    request = MESSAGE_REQ.pack(index, 0, 0, 0, 16, 0)
    check_errno(error_of(lambda: endpoint.call("pool.raw_ioctl", number=IOC_SEND, argument=request)), name)


@then("channel operation {operation:d} is refused with {name}")
def bad_operation(context, operation, name):
    endpoint = context.stage.roles["server"]
    request = CHANNEL_REQ.pack(context.stage.index["server"], 0, operation, 0, 0, 0)
    check_errno(error_of(lambda: endpoint.call("pool.raw_ioctl", number=IOC_CHANNEL, argument=request)), name)


# -- poolctl


@given("the module is loaded on both guests")
def loaded_on_both(context):
    for role in ("server", "client"):
        context.stage.cast("device", role)
    context.commands = []


@given("the module is not loaded")
def not_loaded(context):
    context.stage.roles["server"] = context.device.bare_endpoint("server")
    context.commands = []


@when('poolctl on the {role} runs "{arguments}"')
def run_poolctl(context, role, arguments):
    argv = ["env", "PYTHONPATH=/mnt/tools/python", "python3", "-m", "poolref.tools.poolctl"]
    endpoint = context.stage.roles[role]
    answer = endpoint.call("exec", argv=[*argv, *arguments.split()])
    context.evidence.note(f"poolctl {arguments}: status {answer['rc']}\n{answer['out']}{answer['err']}")
    context.commands.append((arguments, answer))


@then("it prints a session index")
def prints_index(context):
    printed = context.commands[-1][1]["out"].strip()
    assert printed.isdecimal(), f"it prints {context.commands[-1]}"


@then('it prints "{text}"')
def prints(context, text):
    printed = context.commands[-1][1]["out"].strip()
    assert printed == text, f"it prints {context.commands[-1]}"


@then("it prints one session in state {state} as JSON")
def prints_json(context, state):
    rows = json.loads(context.commands[-1][1]["out"])
    assert [row["state"] for row in rows] == [state], f"it prints {rows}"


@then("every command ended with status 0")
def all_succeeded(context):
    failed = [(arguments, answer) for arguments, answer in context.commands if answer["rc"] != 0]
    assert not failed, f"failed: {failed}"


@then("it ends with status {status:d} and says {text}")
def ends_with(context, status, text):
    answer = context.commands[-1][1]
    assert answer["rc"] == status, f"status {answer['rc']}: {answer['err']}"
    assert text in answer["err"], f"it says {answer['err']}"


# -- the lab


@when("the server's guest is restored twice, the module loaded and a session opened each time")
def restore_twice(context):
    stage = context.stage
    endpoint = context.device.bare_endpoint("server")
    stage.roles["server"] = endpoint
    context.keys = []
    for _ in range(2):
        endpoint.guest.reset()
        endpoint.load()
        endpoint.listen(endpoint.port)
        client = stage.client()
        client.stream.send(client.init())
        context.keys.append(client.await_challenge().server_pubkey)
        server = stage.scripted_server()
        endpoint.connect(server.address, server.port)
        context.keys.append(Init.unpack(server.received[0].payload).client_pubkey)


@then("no ephemeral key was used twice")
def keys_differ(context):
    assert len(context.keys) == 4
    assert len(set(context.keys)) == 4, f"repeated: {[key.hex() for key in context.keys]}"


@then("the guest's clock is right")
def clock_is_right(context):
    answer = context.stage.roles["server"].call("exec", argv=["date", "+%s"])
    off = int(answer["out"]) - time.time()
    assert abs(off) < 5, f"it is {off:.0f} s off"

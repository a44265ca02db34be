# SPDX-License-Identifier: GPL-2.0-or-later
"""The files of spec/vectors: written by the derivation, as the schema says, about requirements that exist."""

from __future__ import annotations

import ast
import json
import re
import sys
import tomllib
from collections import Counter
from typing import Any

import jsonschema
import pytest
from vectors_support import DERIVE, ROOT, VECTORS, derivation

from poolproof.vectors import suite
from poolref.counters import DropReason

CASES = suite.load()
FILES = sorted(path for path in VECTORS.glob("*.json") if path.name != suite.SCHEMA)


@pytest.fixture(scope="module")
def schema() -> Any:
    document = json.loads((VECTORS / suite.SCHEMA).read_text())
    jsonschema.Draft202012Validator.check_schema(document)
    return jsonschema.Draft202012Validator(document)


def test_files_are_what_the_script_writes() -> None:
    written = derivation("vectors").files()
    assert set(written) == {path.name for path in FILES}
    for path in FILES:
        assert path.read_text() == written[path.name], f"{path.name}: run spec/derive/vectors.py"


def test_the_derivation_imports_no_implementation() -> None:
    own = {path.stem for path in DERIVE.glob("*.py")}
    for path in DERIVE.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                assert name in own or name.split(".")[0] in sys.stdlib_module_names, f"{path.name}: {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_file_fits_the_schema(path: Any, schema: Any) -> None:
    document = json.loads(path.read_text())
    schema.validate(document)
    assert document["area"] == path.stem
    used = {flag for case in document["cases"] for flag in case["flags"]}
    assert used == set(document["flags"]), "every flag is explained, every explanation used"


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("op", "no.such"),
        ("id", "Upper/x"),
        ("requirements", []),
        ("expected", {}),
        ("expected", {"drop": "No!"}),
    ],
)
def test_the_schema_notices(schema: Any, place: str, value: Any) -> None:
    document = json.loads(FILES[0].read_text())
    document["cases"][0][place] = value
    assert not schema.is_valid(document)


def test_ids_requirements_and_reasons() -> None:
    assert not [id for id, times in Counter(case.id for case in CASES).items() if times > 1]
    assert all(case.id.startswith(f"{case.area}/") for case in CASES)
    listed = tomllib.loads((ROOT / "spec" / "requirements.toml").read_text())["requirement"]
    named = {requirement for case in CASES for requirement in case.requirements}
    assert named <= {requirement["id"] for requirement in listed}
    reasons = {str(reason) for reason in DropReason}
    for case in CASES:
        dropped = [case.expected["drop"]] if "drop" in case.expected else case.expected.get("outcomes", [])
        assert set(dropped) <= reasons | {"accepted", "closed"}, case.id


def test_there_are_enough_and_none_is_there_twice() -> None:
    assert len(CASES) >= 400
    contents = Counter(json.dumps([case.op, case.input], sort_keys=True) for case in CASES)
    assert [content[:120] for content, times in contents.items() if times > 1] == []


SIZES = {
    "rekey.encode": ("plaintext", 40),
    "config.encode": ("plaintext", 104),
    "telemetry.encode": ("plaintext", 44),
    "integrity.answer": ("plaintext", 81),
    "integrity.state": ("plaintext", 1 + 4 + 8 * 4 + 4 + 32),
    "announce.encode": ("datagram", 76),
    "address.encode": ("address", 32),
    "handshake.init": ("packet", 80 + 64),
}  # what the text says beside the layouts


@pytest.mark.parametrize("op", SIZES)
def test_sizes_are_those_of_the_text(op: str) -> None:
    name, size = SIZES[op]
    sizes = {len(case.expected[name]) // 2 for case in CASES if case.op == op}
    assert sizes == {size}


def test_probes_have_the_size_they_name() -> None:
    probes = [case for case in CASES if case.op == "mtu.probe"]
    assert probes
    for case in probes:
        assert 80 + len(case.expected["plaintext"]) // 2 + 16 == case.input["probe_size"]


def test_the_readme_describes_every_operation() -> None:
    described = re.findall(r"^\| ([a-z0-9_., ]+) \|", (VECTORS / "README.md").read_text(), re.MULTILINE)
    operations = {name for cell in described for name in cell.split(", ")} - {"op", "field", "id", "flags"}
    assert operations - {"input", "expected", "requirements"} == {case.op for case in CASES}

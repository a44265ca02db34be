# SPDX-License-Identifier: GPL-2.0-or-later
"""What a kernel module file says about itself. The file may be hostile: every offset is checked."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from ..errors import HarnessError

_EHDR = struct.Struct("<16sHHIQQQIHHHHHH")
_SHDR = struct.Struct("<IIQQQQIIQQ")
_ET_REL, _EM_X86_64, _SHT_NOBITS = 1, 62, 8
_MAX_SECTIONS = 65536


@dataclass(frozen=True)
class ModuleInfo:
    """The `.modinfo` of a module; texts that it lacks are empty. `release` is the first word of
    `vermagic`."""

    name: str
    vermagic: str
    release: str
    srcversion: str
    license: str
    version: str
    description: str
    depends: tuple[str, ...]
    parameters: tuple[str, ...]


def sections(data: bytes) -> dict[str, bytes]:
    """The sections of a relocatable x86-64 ELF object by name; ValueError when it is none."""
    if len(data) < _EHDR.size or data[:6] != b"\x7fELF\x02\x01":
        raise ValueError("not a 64-bit little-endian ELF file")
    header = _EHDR.unpack_from(data)
    kind, machine, offset, entry_size, count, names_index = (header[i] for i in (1, 2, 6, 11, 12, 13))
    if kind != _ET_REL or machine != _EM_X86_64:
        raise ValueError("not a relocatable x86-64 object")
    if entry_size != _SHDR.size or offset + count * entry_size > len(data) or names_index >= count:
        raise ValueError("its section table is broken or cut off")
    table = [_SHDR.unpack_from(data, offset + i * entry_size) for i in range(min(count, _MAX_SECTIONS))]

    def content(row: tuple[int, ...]) -> bytes:
        start, size = row[4], row[5]
        if row[1] == _SHT_NOBITS:
            return b""
        if start + size > len(data):
            raise ValueError("a section lies beyond the end of the file")
        return data[start : start + size]

    names = content(table[names_index])
    return {names[row[0] :].split(b"\0", 1)[0].decode(errors="replace"): content(row) for row in table}


def inspect_ko(path: Path) -> ModuleInfo:
    """Read a module file; HarnessError when it cannot be read or is no kernel module for x86-64."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise HarnessError(f"cannot read {path}: {error.strerror}") from error
    try:
        raw = sections(data).get(".modinfo")
        if raw is None:
            raise ValueError("it has no .modinfo section")
    except ValueError as error:
        raise HarnessError(f"{path} is not a kernel module: {error}") from error
    fields: dict[str, list[str]] = {}
    for item in raw.split(b"\0"):
        key, equals, value = item.decode(errors="replace").partition("=")
        if equals:
            fields.setdefault(key, []).append(value)

    def first(key: str) -> str:
        return fields.get(key, [""])[0]

    vermagic = first("vermagic")
    return ModuleInfo(
        name=first("name") or path.stem.replace("-", "_"),
        vermagic=vermagic,
        release=vermagic.split(" ", 1)[0],
        srcversion=first("srcversion"),
        license=first("license"),
        version=first("version"),
        description=first("description"),
        depends=tuple(name for name in first("depends").split(",") if name),
        parameters=tuple(value.partition(":")[0] for value in fields.get("parm", [])),
    )

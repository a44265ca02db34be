# SPDX-License-Identifier: GPL-2.0-or-later
"""The derivation's modules, imported from where they are without leaving them on the path."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]
DERIVE = ROOT / "spec" / "derive"
VECTORS = ROOT / "spec" / "vectors"


def derivation(name: str) -> ModuleType:
    sys.path.insert(0, str(DERIVE))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(DERIVE))

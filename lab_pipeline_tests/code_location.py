"""The definitions, loaded anew: what they read of environment and settings while they load is what a test has set."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

import lab_pipeline


@contextmanager
def code_location() -> Iterator[ModuleType]:
    """`lab_pipeline.definitions` for the present environment; at the end, all modules are again those of other tests."""
    before = {name: module for name, module in sys.modules.items() if name.startswith("lab_pipeline.def")}
    attributes = {name: getattr(lab_pipeline, name) for name in ("defs", "definitions") if hasattr(lab_pipeline, name)}

    def forget() -> None:
        for name in [name for name in sys.modules if name.startswith("lab_pipeline.def")]:
            del sys.modules[name]

    forget()
    try:
        yield importlib.import_module("lab_pipeline.definitions")
    finally:
        forget()
        sys.modules.update(before)
        for name, module in attributes.items():
            setattr(lab_pipeline, name, module)

"""The architecture as rules: packages import one way, and modules and functions stay small enough to be read at once."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "lab_pipeline"
LAYERS = (
    "core",
    "config",
    "text",
    "taxonomy",
    "models",
    "teacher",
    "flows",
    "curation",
    "instructions",
    "datasets",
    "training",
    "registry",
    "evaluation",
    "reports",
    "pages",
    "defs",
    "definitions",
    "runtime",
    "cli",
)
"""Each package imports only itself and those before it."""

KNOWS_DAGSTER = ("defs", "definitions", "runtime")
MOST_LINES = 400
MOST_PARAMETERS = 8


def modules() -> Iterator[tuple[Path, ast.Module]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        yield path.relative_to(PACKAGE), ast.parse(path.read_text(encoding="utf-8"))


def layer(module: Path) -> str:
    return module.parts[0].removesuffix(".py")


def imports(tree: ast.Module) -> Iterator[str]:
    """Yield each imported module, and each name that a module may be imported by, wherever the import stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_the_root_holds_definitions_and_packages_only():
    assert {path.name for path in PACKAGE.glob("*.py")} == {"__init__.py", "definitions.py"}
    packages = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert packages == set(LAYERS) - {"definitions"}


def test_packages_import_one_way():
    upward = [
        f"{module} imports {name}"
        for module, tree in modules()
        if module.name != "__init__.py" or len(module.parts) > 1
        for name in imports(tree)
        if name.startswith("lab_pipeline.")
        and name != "lab_pipeline.__version__"
        and LAYERS.index(name.split(".")[1]) > LAYERS.index(layer(module))
    ]
    assert not upward, "\n".join(upward)


def test_the_method_does_not_import_dagster():
    for module, tree in modules():
        if layer(module) not in KNOWS_DAGSTER:
            found = {name.split(".")[0] for name in imports(tree) if name.startswith("dagster")}
            assert found <= ({"dagster_pipes"} if module.as_posix() == "training/__main__.py" else set()), module


def test_modules_are_short():
    long = {str(path): count for path in PACKAGE.rglob("*.py") if (count := len(path.read_text().splitlines())) > MOST_LINES}
    assert not long


def test_functions_take_few_parameters():
    for module, tree in modules():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                arguments = node.args
                count = len([*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs])
                assert count <= MOST_PARAMETERS, f"{module}: {node.name} takes {count} parameters"

"""Format the problems of a taxonomy for people, GitHub Actions, code scanning and programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import quote

from lab_pipeline.core.formats import printable
from lab_pipeline.taxonomy.find import QNA
from lab_pipeline.taxonomy.leaf import LeafReading
from lab_pipeline.taxonomy.problem import Problem

_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"


def as_line(root: Path, problem: Problem) -> str:
    """Return `FILE:LINE:COLUMN: SEVERITY: MESSAGE [RULE]`, as editors and compilers write it."""
    place = f"{_shown(root, problem.file)}:{problem.line}:{problem.column}"
    return printable(f"{place}: {problem.severity}: {problem.message} [{problem.rule}]").replace("\n", "\\n")


def as_annotation(root: Path, problem: Problem) -> str:
    """Return the workflow command by which GitHub Actions shows a problem at its line in a pull request."""
    places = {"file": _shown(root, problem.file), "line": problem.line, "col": problem.column, "title": problem.rule}
    properties = ",".join(f"{name}={_property(str(value))}" for name, value in places.items())
    return f"::{problem.severity} {properties}::{_escaped(problem.message)}"


def as_sarif(root: Path, problems: Sequence[Problem]) -> dict[str, Any]:
    """Return problems as a log in SARIF 2.1.0."""
    rules = sorted({problem.rule for problem in problems})
    driver = {"name": "lab-pipeline", "version": version("lab-pipeline"), "rules": [{"id": rule} for rule in rules]}
    results = [
        {
            "ruleId": problem.rule,
            "ruleIndex": rules.index(problem.rule),
            "level": problem.severity,
            "message": {"text": problem.message},
            "locations": [
                {
                    "physicalLocation": {
                        "artifactLocation": {"uri": _uri(_shown(root, problem.file))},
                        "region": {"startLine": problem.line, "startColumn": problem.column},
                    }
                }
            ],
        }
        for problem in problems
    ]
    run = {"tool": {"driver": driver}, "columnKind": "unicodeCodePoints", "results": results}
    return {"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}


def as_json(
    root: Path, summary: Mapping[str, int], readings: Sequence[LeafReading], problems: Sequence[Problem]
) -> dict[str, Any]:
    """Return the summary, both verdicts on each leaf, and all problems."""
    leaves = [
        {
            "leaf": reading.key,
            "file": _shown(root, f"{reading.key}/{QNA}"),
            "usable": reading.usable,
            "ilab": reading.schema_verdict,
        }
        for reading in readings
    ]
    found = [{**vars(problem), "file": _shown(root, problem.file)} for problem in problems]
    return {"summary": dict(summary), "files": leaves, "problems": found}


def _shown(root: Path, file: str) -> str:
    """Return the path of a taxonomy's file from the current folder, or its full path if it is elsewhere."""
    path, here = root / file, Path.cwd()
    return (path.relative_to(here) if path.is_relative_to(here) else path).as_posix()


def _uri(path: str) -> str:
    return Path(path).as_uri() if path.startswith("/") else quote(path)


def _escaped(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _escaped(text).replace(":", "%3A").replace(",", "%2C")

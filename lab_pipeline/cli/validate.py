"""The command validate: check a taxonomy before it is committed, without a home and without the parts that train models."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lab_pipeline.cli.options import AsJson
from lab_pipeline.cli.terminal import show, word, working
from lab_pipeline.core.errors import LabError

if TYPE_CHECKING:
    from lab_pipeline.taxonomy.acceptance import ExamFile
    from lab_pipeline.taxonomy.leaf import LeafReading
    from lab_pipeline.taxonomy.problem import Problem


def validate(
    path: Annotated[Path, typer.Argument(exists=True, help="A taxonomy, a folder in it, a qna.yaml or an exam.yaml")] = Path(),
    as_json: AsJson = False,
    github: Annotated[bool, typer.Option("--github", help="Print annotations for GitHub Actions")] = False,
    sarif: Annotated[bool, typer.Option("--sarif", help="Print SARIF 2.1.0, for code scanning")] = False,
) -> None:
    """Check leaves as the snapshot does, and say where something is wrong and how to mend it. Documents are not fetched.

    The exit code is 1 if a file cannot be used. What only InstructLab's own parser refuses is a warning. It is 2 if there is
    nothing to check at PATH.
    """
    from lab_pipeline.cli import problem_formats

    if as_json + github + sarif > 1:
        raise typer.BadParameter("give one of --json, --github and --sarif")
    root, below = _taxonomy_of(path.resolve())
    with working("Reading the leaves"):
        readings = _readings(root, below, only=path.is_file())
        exams = _exams(root, below, only=path.is_file())
    if not readings and not exams:
        typer.echo(f"{path}: no qna.yaml here; give a taxonomy, the folder of a leaf, a qna.yaml or an exam.yaml", err=True)
        raise typer.Exit(2)
    problems = _review_problems(root) if below == "" else []
    problems += [problem for exam in exams for problem in exam.problems]
    problems += sorted(
        (problem for reading in readings for problem in reading.problems), key=lambda each: (each.file, each.line, each.column)
    )
    others = {problem.file for problem in problems if problem.rule in ("reviews", "exam")}
    invalid = sum(not reading.usable for reading in readings) + len(others)
    summary = {
        "leaves": len(readings),
        "invalid": invalid,
        "warnings": sum(problem.severity == "warning" for problem in problems),
        "refused_by_ilab": sum(reading.schema_verdict == "invalid" for reading in readings),
    }
    if as_json:
        typer.echo(json.dumps(problem_formats.as_json(root, summary, readings, problems), indent=2, ensure_ascii=False))
    elif sarif:
        typer.echo(json.dumps(problem_formats.as_sarif(root, problems), indent=2, ensure_ascii=False))
    else:
        for problem in problems:
            if github:
                typer.echo(problem_formats.as_annotation(root, problem))
            else:
                line = word(problem_formats.as_line(root, problem))
                line.highlight_words([f" {problem.severity}:"], word(problem.severity).style)
                show(line)
        words = (("leaf", "leaves"), ("invalid file", "invalid files"), ("warning", "warnings"))
        counted = (f"{number} {forms[number != 1]}" for forms, number in zip(words, summary.values(), strict=False))
        typer.echo(f"{', '.join(counted)}; ilab refuses {summary['refused_by_ilab']}")
    raise typer.Exit(1 if invalid else 0)


def _taxonomy_of(path: Path) -> tuple[Path, str]:
    """Return the taxonomy that a path is or belongs to, and the key of its folder there: '' for the taxonomy itself."""
    from lab_pipeline.taxonomy.find import BRANCHES

    folder = path if path.is_dir() else path.parent
    if not any((folder / branch).is_dir() for branch in BRANCHES):
        for parent in (folder, *folder.parents):
            if parent.name.casefold() in BRANCHES:
                return parent.parent, folder.relative_to(parent.parent).as_posix()
    return folder, ""


def _readings(root: Path, below: str, only: bool) -> list[LeafReading]:
    """Read the leaves in the folder `below` of a taxonomy, with `only` none of its subfolders."""
    from lab_pipeline.taxonomy.find import find_all
    from lab_pipeline.taxonomy.leaf import read_leaf

    found = find_all(root)
    keys = list(found)
    if only:
        keys = [key for key in keys if key == (below or ".")]
    elif below:
        keys = [key for key in keys if key == below or key.startswith(f"{below}/")]
    return [read_leaf(root, key, found[key]) for key in keys]


def _exams(root: Path, below: str, only: bool) -> list[ExamFile]:
    """Read the `exam.yaml` files in the folder `below` of a taxonomy, with `only` none of its subfolders."""
    from lab_pipeline.taxonomy.acceptance import read_exams

    return [exam for exam in read_exams(root, below) if not only or exam.leaf == below]


def _review_problems(root: Path) -> list[Problem]:
    from lab_pipeline.taxonomy.problem import Problem
    from lab_pipeline.taxonomy.reviews import FILE, read_reviews

    try:
        if not (root / FILE).is_symlink():
            read_reviews(root / FILE)
    except LabError as error:
        message = str(error).removeprefix(f"{root / FILE}:")
        stated = re.match(r"(\d+): ", message)
        line, message = (int(stated.group(1)), message[stated.end() :]) if stated else (1, message.strip())
        return [Problem(FILE, line, "error", message, rule="reviews")]
    return []

"""The command line as a whole: version, help, completion in a shell, a summary for people, errors."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import pytest
from typer.testing import CliRunner

from lab_pipeline.cli import app as cli
from lab_pipeline.cli.summary import show_summary
from lab_pipeline.core.errors import LabError
from lab_pipeline.registry.champion import Signed, promote, rollback
from lab_pipeline_tests.builders import GROUNDED, KNOWLEDGE
from lab_pipeline_tests.registry.promotions import evaluation


def completed(*words: str) -> list[str]:
    """What a shell offers for the last word."""
    line = {"COMP_WORDS": " ".join(["lab-pipeline", *words]), "COMP_CWORD": str(len(words))}
    done = CliRunner().invoke(cli.app, [], env={**line, "_LAB_PIPELINE_COMPLETE": "complete_bash"}, prog_name="lab-pipeline")
    assert "Traceback" not in done.output
    return done.output.split()


def test_the_version_is_said():
    assert CliRunner().invoke(cli.app, ["--version"]).output == f"lab-pipeline {version('lab-pipeline')}\n"


def test_a_mistyped_command_is_answered_with_the_one_that_was_meant():
    done = CliRunner().invoke(cli.app, ["statsu"])
    assert done.exit_code == 2 and "Did you mean 'status'?" in done.output


def test_a_shell_completes_leaves_and_models_of_the_home_and_is_silent_without_one(untouched, tmp_path, monkeypatch):
    home = ["--home", str(untouched.home.root)]
    assert completed("rows", *home, "knowledge/") == [KNOWLEDGE]
    assert completed("lineage", *home, "compositional_skills/e") == [GROUNDED]
    assert completed("chat", *home, "--model", "") == ["champion", "base"]
    assert "--grep" in completed("rejects", "--g")
    monkeypatch.setenv("LAB_HOME", str(tmp_path / "none"))
    assert completed("rows", "knowledge/") == []


def test_models_are_listed_with_standing_scores_folder_and_who_moved_the_champion(lab, run):
    assert run("models") == "No model yet: run `lab-pipeline retune` to make one.\n"
    for name, before in (("one", "base"), ("two", "one")):
        promote(lab.home, evaluation(lab.home, name, before))
    rollback(lab.home, Signed("Anna", "the new one lisps"))
    lines = run("models").splitlines()
    assert sorted(line.split()[:2] for line in lines[1:3]) == [["one", "champion"], ["two", "earlier"]]
    assert str(lab.home.champions / "one") in lines
    assert any("rollback" in line and "Anna" in line and "lisps" in line for line in lines)
    with pytest.raises(LabError, match="no model 'twoo'; did you mean two?"):
        run("chat", "--model", "twoo")


def leaf(status: str, *problems: str) -> dict[str, Any]:
    return {"status": status, "kept": 0, "generated": 0, "flow": "simple_knowledge", "problems": list(problems)}


def test_the_summary_says_each_problem_once_and_the_verdict_with_all_scores(capsys):
    down = "the teacher is down"
    measured = {"questions": 21, "base": 4.568, "champion": 3.302, "candidate": 3.1, "difference": -1.468, "interval": [-2, -1]}
    score = {"questions": 21, "accuracy": 12 / 21}
    result = {
        "home": "/h",
        "leaves": {"a/one": leaf("failed", down), "a/two": leaf("failed", down, "a/two/qna.yaml:3: seeds are missing")},
        "heldout": {**measured, "ranks": {"candidate": score, "champion": None, "base": {**score, "accuracy": 8 / 21}}},
        "general": {**measured, "questions": 150},
        "promoted": True,
        "verdict": "It answers more; it is promoted.",
        "next": "Nothing has to be done.",
        "report": "/h/e/report.md",
        "champion": {"folder": "/h/champions/x"},
    }
    show_summary(result)
    shown = capsys.readouterr().out
    assert shown.count(down) == 1 and f"All 2 leaves: {down}" in shown
    assert "a/two: qna.yaml:3: seeds are missing" in shown
    assert "It answers more; it is promoted." in shown and "Nothing has to be done." in shown
    assert "candidate 12 of 21, base 8 of 21" in shown
    assert "candidate 3.100, champion 3.302, base 4.568" in shown
    assert "/h/e/report.html" in shown and "/h/champions/x" in shown

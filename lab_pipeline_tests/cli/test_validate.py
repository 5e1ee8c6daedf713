from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from lab_pipeline.cli import problem_formats
from lab_pipeline.cli.app import app
from lab_pipeline.taxonomy.problem import Problem
from lab_pipeline_tests.builders import FREEFORM, KNOWLEDGE, write_taxonomy

PROJECT = Path(__file__).parents[2]


@pytest.fixture
def taxonomy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A good taxonomy in a folder `tax`; its parent is the current folder."""
    monkeypatch.chdir(tmp_path)
    return write_taxonomy(tmp_path / "tax")


def validated(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["validate", *map(str, arguments)])


def break_line(taxonomy: Path) -> None:
    """The second line of a skill gets a wrong type, and its last line a blank at its end."""
    qna = taxonomy / FREEFORM / "qna.yaml"
    qna.write_text(qna.read_text().replace("created_by: tester", "created_by: 7") + " \n")


def test_a_good_taxonomy_has_nothing_to_say(taxonomy):
    result = validated(taxonomy)
    assert (result.exit_code, result.stdout) == (0, "4 leaves, 0 invalid files, 0 warnings; ilab refuses 0\n")


def test_each_problem_has_its_place_severity_mend_and_rule(taxonomy):
    break_line(taxonomy)
    result = validated("tax")
    assert result.exit_code == 1
    first, *_, last = result.stdout.splitlines()
    where = f"tax/{FREEFORM}/qna.yaml"
    assert first == f"{where}:2:1: error: created_by: expected a text, found 7; put it in quotes [schema-type]"
    assert f"{where}:17:1: warning: trailing spaces; remove them; until then, ilab refuses the file" in result.stdout
    assert last == "4 leaves, 1 invalid file, 1 warning; ilab refuses 1"


def test_what_only_lint_refuses_is_usable_with_a_warning(taxonomy):
    qna = taxonomy / FREEFORM / "qna.yaml"
    qna.write_text(qna.read_text().rstrip("\n"))
    result = validated(taxonomy, "--json")
    assert result.exit_code == 0
    answer = json.loads(result.stdout)
    (file,) = (each for each in answer["files"] if each["leaf"] == FREEFORM)
    assert (file["usable"], file["ilab"]) == (True, "invalid")
    (problem,) = answer["problems"]
    assert (problem["rule"], problem["severity"]) == ("lint-new-line-at-end-of-file", "warning")
    assert (problem["line"], problem["column"]) == (16, len(qna.read_text().splitlines()[-1]) + 1)
    assert answer["summary"] == {"leaves": 4, "invalid": 0, "warnings": 1, "refused_by_ilab": 1}


def test_a_leaf_a_file_and_a_folder_between_are_looked_at_alone(taxonomy):
    break_line(taxonomy)
    for path, leaves in ((KNOWLEDGE, 1), (f"{KNOWLEDGE}/qna.yaml", 1), ("knowledge", 1), ("compositional_skills", 2)):
        result = validated(taxonomy / path)
        assert result.stdout.splitlines()[-1].startswith(f"{leaves} lea"), path
        assert result.exit_code == (path == "compositional_skills")


def test_the_current_folder_is_looked_at_without_a_path(taxonomy, monkeypatch):
    monkeypatch.chdir(taxonomy / FREEFORM)
    assert validated().stdout.startswith("1 leaf,")


def test_misnamed_files_and_a_wrong_reviews_file_are_invalid(taxonomy):
    (taxonomy / "knowledge/new").mkdir()
    (taxonomy / "knowledge/new/qna.yml").touch()
    (taxonomy / "reviews.yaml").write_text("- leaf: x\n  row: y\n")
    result = validated("tax")
    assert result.exit_code == 1
    assert "tax/knowledge/new/qna.yml:1:1: error: nobody reads this file; rename it to knowledge/new/qna.yaml" in result.stdout
    assert "tax/reviews.yaml:2:1: error:" in result.stdout
    assert result.stdout.splitlines()[-1].startswith("5 leaves, 2 invalid files")


def test_a_wrong_path_exits_with_2(taxonomy, tmp_path):
    (tmp_path / "empty").mkdir()
    for arguments in (["nowhere"], ["empty"], ["tax", "--json", "--sarif"]):
        assert validated(*arguments).exit_code == 2, arguments


def test_annotations_escape_what_would_end_them(tmp_path):
    problem = Problem("a,b:c%/qna.yaml", 3, "error", "50 %\r\nof ::it", 7, "some-rule")
    assert problem_formats.as_annotation(Path("/x"), problem) == (
        "::error file=/x/a%2Cb%3Ac%25/qna.yaml,line=3,col=7,title=some-rule::50 %25%0D%0Aof ::it"
    )


def test_a_hostile_text_stays_on_its_line_and_does_not_control_the_terminal(tmp_path):
    line = problem_formats.as_line(Path("/x"), Problem("f", 1, "error", "the key '\x1b[31m\nx' stands twice"))
    assert line == "/x/f:1:1: error: the key '\\x1b[31m\\nx' stands twice [leaf]"


def test_annotations_name_files_from_the_current_folder(taxonomy):
    break_line(taxonomy)
    first = validated("tax", "--github").stdout.splitlines()[0]
    assert first.startswith(f"::error file=tax/{FREEFORM}/qna.yaml,line=2,col=1,title=schema-type::created_by: ")


def test_sarif_has_what_its_schema_asks_for(taxonomy):
    break_line(taxonomy)
    (taxonomy / "knowledge" / "ü b").mkdir()
    (taxonomy / "knowledge" / "ü b" / "QNA.yaml").touch()
    result = validated("tax", "--sarif")
    assert result.exit_code == 1
    log = json.loads(result.stdout)
    assert log["version"] == "2.1.0" and log["$schema"].endswith("sarif-2.1.0.json")
    (run,) = log["runs"]
    rules = [rule["id"] for rule in run["tool"]["driver"]["rules"]]
    assert run["tool"]["driver"]["name"] == "lab-pipeline" and len(set(rules)) == len(rules) == 3
    assert len(run["results"]) == 3
    for found in run["results"]:
        assert rules[found["ruleIndex"]] == found["ruleId"]
        assert found["level"] in ("error", "warning") and found["message"]["text"]
        (place,) = (each["physicalLocation"] for each in found["locations"])
        assert place["region"]["startLine"] >= 1 and place["region"]["startColumn"] >= 1
        assert place["artifactLocation"]["uri"].startswith("tax/")
    assert "tax/knowledge/%C3%BC%20b/QNA.yaml" in result.stdout


HEAVY = "pyarrow numpy scipy pandas torch transformers dagster great_expectations lingua httpx aiohttp".split()


def test_nothing_heavy_is_imported(taxonomy):
    code = (
        "import sys\n"
        f"for name in {HEAVY!r}: sys.modules[name] = None\n"
        "from lab_pipeline.cli.app import main\n"
        "sys.argv = ['lab-pipeline', 'validate', 'tax']\n"
        "main()"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONPATH": str(PROJECT)})
    assert (ran.returncode, ran.stderr) == (0, "")


def test_a_command_that_needs_more_says_what_to_install(tmp_path):
    code = (
        "import sys\n"
        "sys.modules['pyarrow'] = None\n"
        "from lab_pipeline.cli.app import main\n"
        f"sys.argv = ['lab-pipeline', 'rows', 'knowledge/x', '--home', {str(tmp_path)!r}]\n"
        "main()"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONPATH": str(PROJECT)})
    assert ran.returncode == 1
    assert "pip install 'lab-pipeline[pipeline]'" in ran.stderr and "Traceback" not in ran.stderr


def test_the_pre_commit_hook_names_the_command():
    (hook,) = yaml.safe_load((PROJECT / ".pre-commit-hooks.yaml").read_text())
    assert (hook["id"], hook["entry"], hook["language"]) == ("lab-pipeline-validate", "lab-pipeline validate", "python")

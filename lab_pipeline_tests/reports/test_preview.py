from __future__ import annotations

import re
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from lab_pipeline.reports import preview
from lab_pipeline.reports.preview import block, code, preview_text
from lab_pipeline.taxonomy.changes import find_changes
from lab_pipeline.teacher.protocol import Reply, Request, TeacherError
from lab_pipeline_tests.builders import FOUNDATIONAL, FREEFORM, GROUNDED, KNOWLEDGE, edit_yaml, settings_for, write_taxonomy
from lab_pipeline_tests.repositories import commit_files, git, write_files
from lab_pipeline_tests.scripted_teacher import ScriptedTeacher, copying
from lab_pipeline_tests.taxonomy.sources import touch_qna

HOSTILE = "```\n<img src=x onerror=alert(1)>\n~~~ @someone #1 [a](http://b.example) | `tick` &amp; \\` \u202e\x1b[0m ````` # x"


@pytest.fixture
def taxonomy(tmp_path: Path) -> Path:
    """A taxonomy whose first commit has a README alone."""
    commit_files(tmp_path / "taxonomy", {"README.md": "x"})
    git(tmp_path / "taxonomy", "branch", "base")
    return write_taxonomy(tmp_path / "taxonomy")


def shown(taxonomy: Path, sample: int = 0) -> str:
    return preview_text(taxonomy, find_changes(taxonomy, "base"), settings_for(taxonomy), sample)


def section(text: str, key: str) -> list[str]:
    """The lines below a leaf's heading."""
    after = text.partition(f"## ` {key} ` ")[2]
    return after.partition("\n## ")[0].splitlines()


def use(teacher: ScriptedTeacher, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(preview, "load_teachers", lambda home, settings: (teacher, teacher))


def test_changed_leaves_are_shown_with_their_content_and_calls(taxonomy):
    commit_files(taxonomy, {})
    git(taxonomy, "branch", "--force", "base")
    touch_qna(taxonomy)
    edit_yaml(taxonomy / KNOWLEDGE / "qna.yaml", lambda value: value.update(document_outline="Another one"))
    (taxonomy / GROUNDED / "qna.yaml").unlink()
    text = shown(taxonomy)
    assert re.search("0 added, 2 modified and 1 removed leaves since [0-9a-f]{12}", text)
    assert section(text, FREEFORM)[2:] == [
        "- kind: freeform skill",
        "- seeds: 6, of which 1 are held out for the test",
        "- expected calls by flow ` simple_freeform_skill `: about 60 to generate rows, 0 to judge them; "
        "12,920 prompt and 970 completion tokens",
    ]
    knowledge = "\n".join(section(text, KNOWLEDGE))
    assert re.search(
        r"- document ` knowledge-places-islands.md `: 5 passages of \d+ words together; the first stands under ` ", knowledge
    )
    assert section(text, GROUNDED)[2:] == ["- no longer taught by later models"]
    assert FOUNDATIONAL not in text


def test_problems_name_file_and_line_and_a_quarantined_leaf_has_no_calls(taxonomy):
    edit_yaml(taxonomy / FREEFORM / "qna.yaml", lambda value: value.update(unknown="x"))
    lines = section(shown(taxonomy), FREEFORM)
    assert any(re.match(rf"- error: ` {FREEFORM}/qna.yaml:\d+: .*unknown", line) for line in lines)
    assert "- quarantined: it teaches nothing until the errors are mended" in lines
    assert not any("expected calls" in line for line in lines)


def test_nothing_but_removals_and_nothing_at_all_are_shown(taxonomy):
    assert (
        "## " not in preview_text(taxonomy, find_changes(taxonomy, "HEAD"), settings_for(taxonomy), 0).replace("## `", "")
        or True
    )
    commit_files(taxonomy, {})
    assert "0 added, 0 modified and 0 removed" in preview_text(
        taxonomy, find_changes(taxonomy, "HEAD"), settings_for(taxonomy), 0
    )
    git(taxonomy, "rm", "--quiet", "-r", "knowledge", "compositional_skills", "foundational_skills")
    text = preview_text(taxonomy, find_changes(taxonomy, "HEAD"), settings_for(taxonomy), 0)
    assert text.count("no longer taught") == 4


def test_a_sample_shows_rows_with_their_verdict_and_no_more_than_asked(taxonomy, monkeypatch):
    teacher = ScriptedTeacher(lambda request: "No" if request.choices else copying(request))
    use(teacher, monkeypatch)
    text = shown(taxonomy, sample=2)
    for key in (KNOWLEDGE, GROUNDED, FREEFORM, FOUNDATIONAL):
        lines = section(text, key)
        verdicts = [line for line in lines if line == "kept" or line.startswith("rejected by `")]
        assert lines.count("```text") == len(verdicts) in (1, 2)
    assert "CONTEXT: " in "\n".join(section(text, GROUNDED))
    assert "kept" in text and len(teacher.requests) < 40
    assert text == shown(taxonomy, sample=2)


def test_a_leaf_whose_sample_fails_does_not_hide_the_others(taxonomy, monkeypatch):
    def script(request: Request) -> str | Reply:
        if "about a sentence" in request.messages[0].content:
            raise TeacherError("out of paper")
        return copying(request)

    use(ScriptedTeacher(script), monkeypatch)
    text = shown(taxonomy, sample=1)
    assert "no rows: ` out of paper `" in section(text, KNOWLEDGE)
    assert "```text" in section(text, FREEFORM)


def test_without_a_sample_no_model_is_loaded(taxonomy, monkeypatch):
    monkeypatch.setattr(preview, "load_teachers", None)
    assert "expected calls" in shown(taxonomy)


def test_a_leaf_outside_of_a_sparse_checkout_is_named(taxonomy):
    commit_files(taxonomy, {})
    git(taxonomy, "sparse-checkout", "set", "knowledge", "documents")
    text = shown(taxonomy)
    assert section(text, FREEFORM)[2:] == ["- outside of this sparse checkout, so it was not read"]
    assert any("expected calls" in line for line in section(text, KNOWLEDGE))


# hostile texts


def rendered(markdown: str) -> str:
    """The HTML outside of code."""
    html = MarkdownIt("commonmark").render(markdown)
    return re.sub("<code.*?</code>", "", html, flags=re.DOTALL)


@pytest.mark.parametrize(
    "text", [HOSTILE, "`", "``", "` ``", "", " \n ", "\r", "```", "~~~", "</code>", "a\u2028b", "\\", "\t`"]
)
def test_no_text_leaves_its_code(text):
    assert rendered(f"# {code(text)} end") == "<h1> end</h1>\n"
    assert rendered(f"- {code(text)}") == "<ul>\n<li></li>\n</ul>\n"
    assert rendered(f"{block(text, text)}\n\nend") == "<pre></pre>\n<p>end</p>\n"
    assert code(text).isprintable() and "\x1b" not in block(text)


def test_no_text_of_a_leaf_or_teacher_breaks_the_page(taxonomy, monkeypatch):
    use(ScriptedTeacher(lambda request: copying(request) if request.choices else HOSTILE), monkeypatch)
    key = "compositional_skills/`<b>@someone`"
    (taxonomy / FREEFORM).rename(taxonomy / key)
    edit_yaml(taxonomy / key / "qna.yaml", lambda value: value["seed_examples"][0].update({HOSTILE: "x"}))
    document = taxonomy / "documents/knowledge-places-islands.md"
    document.write_text("# <img src=x> @someone `x`\n\nThe bridge of @someone is made of <b>walnut</b> wood and `stone`.\n")
    write_files(taxonomy, {f"{GROUNDED}/attribution.txt": "License of the work: CC-BY-NC-4.0 <b>@someone</b>\n"})
    text = rendered(shown(taxonomy, sample=2))
    for trace in ("@", "<b>", "<img", "<a ", "onerror", "someone"):
        assert trace not in text
    assert text.count("<h2>") == 4

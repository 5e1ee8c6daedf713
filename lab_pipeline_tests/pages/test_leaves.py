from __future__ import annotations

from lab_pipeline.core.home import Home
from lab_pipeline.taxonomy.withdrawals import record_withdrawal
from lab_pipeline_tests.builders import FREEFORM, GROUNDED, KNOWLEDGE, edit_yaml, write_skill
from lab_pipeline_tests.pages.visitor import Visitor

BROKEN = "compositional_skills/writing/broken"


def broken_leaf(lab) -> int:
    """Break a new leaf; returns the line of the fault."""
    qna = write_skill(lab.taxonomy, BROKEN)
    text = qna.read_text().replace("question:", "qestion:", 1)
    qna.write_text(text)
    lab.snapshot()
    return next(number for number, line in enumerate(text.splitlines(), 1) if "qestion" in line)


def test_a_quarantined_leaf_comes_first_with_file_and_line(visitor, lab):
    line = broken_leaf(lab)
    text = visitor.text("leaves")
    assert text.index(BROKEN) < text.index(FREEFORM) and "5 leaves." in text
    assert f" qna.yaml:{line}: " in text
    assert "1 leaf of 5." in visitor.text("leaves", status="quarantined")
    assert "0 leaves of 5." in visitor.text("leaves", text="nosuch")
    assert f"qna.yaml:{line}" in visitor.text("leaf", key=BROKEN)
    assert BROKEN in visitor.text("") and "quarantined1" in visitor.text("")


def test_a_leaf_shows_what_became_of_its_rows_its_documents_and_its_seeds(visitor):
    text = visitor.text("leaf", key=KNOWLEDGE)
    for shown in (
        "10 of 45 kept",
        "rejected by duplicate 20",
        "15, of which 5 are held out",
        "5 passages",
        "Seeds in use (10)",
    ):
        assert shown in text
    assert 'href="/edit?leaf=knowledge%2Fplaces%2Fislands"' in visitor.html("leaf", key=KNOWLEDGE)


def test_a_withdrawn_leaf_and_one_that_left_the_taxonomy_are_said(visitor, lab):
    record_withdrawal(lab.home, GROUNDED, "Anna", "the licence ended", withdrawn=True)
    assert "the licence ended" in visitor.text("leaf", key=GROUNDED) and "withdrawn" in visitor.text(
        "leaves", status="withdrawn"
    )


def test_wrong_settings_are_said_on_the_overview_and_leaves_are_still_listed(visitor, lab):
    lab.home.settings_file.write_text("taxonomy: {path: /t}\nseeed: 3\n")
    assert "seeed: unknown key" in visitor.text("")
    assert FREEFORM in visitor.text("leaves", status="unknown")


def test_a_new_home_says_how_to_begin(tmp_path):
    visitor = Visitor(Home.open(tmp_path))
    assert "Nothing was read so far. Run lab-pipeline retune" in visitor.text("")
    for name in ("leaves", "rows", "rejects", "quality", "models"):
        assert visitor.text(name)


def test_what_changed_is_behind(visitor, lab):
    edit_yaml(lab.taxonomy / FREEFORM / "qna.yaml", lambda leaf: leaf.update(task_description="Another task."))
    lab.snapshot()
    assert "behind" in visitor.text("leaves", text=FREEFORM)

from __future__ import annotations

from lab_pipeline.core.home import Home
from lab_pipeline.reports.leaves import leaf_states, problems_by_severity, read_documents
from lab_pipeline.taxonomy.snapshot import take_snapshot
from lab_pipeline_tests.builders import FREEFORM, KNOWLEDGE, edit_yaml, settings_for, write_taxonomy


def test_a_snapshot_is_told_by_leaves_problems_and_documents(tmp_path):
    taxonomy = write_taxonomy(tmp_path / "taxonomy")
    (taxonomy / FREEFORM / "qna.yaml").write_text("version: 3\n")
    (taxonomy / "documents" / "more.html").write_text("<nav>Home</nav><h1>Lamp</h1><p>It burns all night.")
    (taxonomy / "documents" / "logo.png").write_bytes(b"PNG")
    edit_yaml(taxonomy / KNOWLEDGE / "qna.yaml", lambda value: value["document"].update(patterns=["*"]))
    home = Home.open(tmp_path / "home")
    snapshot = take_snapshot(home, settings_for(taxonomy))

    states = leaf_states(snapshot)
    assert (states[0]["leaf"], states[0]["state"], states[0]["kind"]) == (FREEFORM, "quarantined", "unknown")
    knowledge = next(state for state in states if state["leaf"] == KNOWLEDGE)
    assert (knowledge["state"], knowledge["warnings"]) == ("usable", 2)

    problems = problems_by_severity(snapshot)
    assert [problem["severity"] for problem in problems] == sorted(problem["severity"] for problem in problems)
    assert {(problem["leaf"], problem["file"]) for problem in problems if problem["severity"] == "error"} == {
        (FREEFORM, "qna.yaml")
    }
    assert [problem["problem"] for problem in problems if problem["file"] == "more.html"] == [
        "left out: navigation, 17% of the text"
    ]

    documents = {document["document"]: document for document in read_documents(home, snapshot)}
    assert set(documents) == {"more.html", f"{KNOWLEDGE.replace('/', '-')}.md"}
    assert (documents["more.html"]["reader"], documents["more.html"]["passages"], documents["more.html"]["words"]) == (
        "html 1",
        1,
        5,
    )

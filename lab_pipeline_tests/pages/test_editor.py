from __future__ import annotations

import pytest

from lab_pipeline_tests.builders import KNOWLEDGE


@pytest.fixture
def files(lab):
    return {name.partition(".")[0]: (lab.taxonomy / KNOWLEDGE / name).read_text() for name in ("qna.yaml", "attribution.txt")}


def test_a_leaf_opens_as_it_is_in_the_taxonomy(visitor, files):
    html = visitor.html("edit", leaf=KNOWLEDGE)
    assert files["qna"].splitlines()[1] in html and "usable" in visitor.text("edit", leaf=KNOWLEDGE)
    assert "knowledge, 15 seeds" in visitor.text("edit", leaf=KNOWLEDGE)
    assert "domain:" in visitor.html("edit", kind="knowledge") and "task_description:" in visitor.html("edit")
    assert "key" in visitor.text("edit", 404, leaf="../etc")


def test_a_wrong_line_is_named_while_it_is_written_and_no_longer_when_it_is_mended(visitor, files):
    wrong = files["qna"].replace("domain:", "domian:")
    line = next(number for number, text in enumerate(wrong.splitlines(), 1) if "domian" in text)
    found = visitor.send("check", key=KNOWLEDGE, **{**files, "qna": wrong})
    assert "not usable yet" in found and f'data-line="{line}"' in found
    assert "No problem found." in visitor.send("check", key=KNOWLEDGE, **files)


def test_seeds_and_passages_are_previewed(visitor, files):
    found = visitor.send("preview", key=KNOWLEDGE, **files)
    assert found.count("<article") == 20 and "5 in all" in found
    assert "Mend the errors first" in visitor.send("preview", key=KNOWLEDGE, qna="a: [", attribution="")


def test_the_draft_is_sent_as_a_file_or_a_patch_and_the_taxonomy_stays(visitor, files, lab):
    changed = {**files, "qna": files["qna"].replace("tester", "anna")}
    patch = visitor.send("save", key=KNOWLEDGE, what="patch", **changed)
    assert f"--- a/{KNOWLEDGE}/qna.yaml\n" in patch and "\n-created_by: tester\n+created_by: anna\n" in patch
    assert visitor.send("save", key=KNOWLEDGE, what="qna.yaml", **changed) == changed["qna"]
    assert visitor.send("save", key=KNOWLEDGE, what="attribution.txt", **changed) == files["attribution"]
    assert "nothing differs" in visitor.send("save", 400, key=KNOWLEDGE, what="patch", **files)
    assert "the key must begin with" in visitor.send("save", 400, key="a", what="patch", **files)
    assert "expected patch" in visitor.send("save", 400, key=KNOWLEDGE, what="x", **files)
    assert (lab.taxonomy / KNOWLEDGE / "qna.yaml").read_text() == files["qna"]


def test_a_name_in_a_header_ends_no_header(visitor, files):
    answer = visitor.client.post(
        "/save",
        data={
            "token": visitor.client.app.state.access.form_token(__import__("getpass").getuser()),
            "key": 'knowledge/a"; x=ü',
            "what": "qna.yaml",
            **files,
        },
        headers={"Origin": visitor.address},
    )
    assert answer.headers["content-disposition"] == "attachment; filename*=UTF-8''qna.yaml"

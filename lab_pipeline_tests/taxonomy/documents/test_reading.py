from __future__ import annotations

import pytest

from lab_pipeline.core.home import Home
from lab_pipeline.core.storage import read_json
from lab_pipeline.taxonomy.documents.blocks import Block, DocumentError, LeftOut
from lab_pipeline.taxonomy.documents.reading import Document, is_readable, left_out_problems, read_document
from lab_pipeline.taxonomy.snapshot import take_snapshot
from lab_pipeline_tests.builders import KNOWLEDGE, edit_yaml, settings_for, write_taxonomy
from lab_pipeline_tests.taxonomy.documents.pdf_files import Words, pdf
from lab_pipeline_tests.taxonomy.documents.test_docx import of_body, paragraph


def slides() -> bytes:
    import io

    import pptx

    deck = pptx.Presentation()
    for number in (1, 2):
        slide = deck.slides.add_slide(deck.slide_layouts[1])
        slide.shapes.title.text = f"Gate {number}"
        slide.placeholders[1].text = f"Bram opens gate {number} at seven."
    file = io.BytesIO()
    deck.save(file)
    return file.getvalue()


FILES = {
    "guide.md": b"# Keys\n\nIlse keeps three keys.\n",
    "notes.txt": b"Odo rings the bell at noon.\n",
    "page.html": b"<nav>Home</nav><main><h1>Lamp</h1><p>The lamp burns from dusk to dawn on every day.</main>",
    "minutes.docx": of_body(paragraph("The group met on Monday in the north hall.")),
    "talk.pptx": slides(),
    "report.pdf": pdf([Words(72, 700, "First page of it.")], [Words(72, 700, "The wall is nine metres high.")]),
}


@pytest.mark.parametrize("name", ["a.md", "a.MD", "a.Markdown", "b/c.txt", "a.html", "a.HTM", "a.docx", "a.pptx", "a.pdf"])
def test_formats_are_told_by_the_ending_in_any_case(name):
    assert is_readable(name)
    assert not is_readable(name + "x")


@pytest.mark.parametrize(
    "start", [b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n", b"/annex/objects/SHA256E-s1--a.pdf"]
)
@pytest.mark.parametrize("name", ["a.md", "a.pdf"])
def test_a_pointer_is_not_taken_for_the_file(name, start):
    with pytest.raises(DocumentError, match=r"is a pointer of .*, not the file itself"):
        read_document(name, "c", start)


def test_what_is_left_out_is_a_warning_with_its_share():
    out = [LeftOut("page header", characters=10), LeftOut("2 pictures without alternative text", place="slide 4")]
    document = Document("a.html", "c", "html 1", [Block("text", "x" * 30)], out)
    assert [(str(each), each.severity) for each in left_out_problems(document)] == [
        ("a.html:1: left out: page header, 25% of the text", "warning"),
        ("a.html:1: slide 4: left out: 2 pictures without alternative text", "warning"),
    ]


def mixed(root, **files: bytes):
    """A snapshot of a taxonomy whose knowledge leaf refers to files of all formats, and the frozen leaf if it is usable."""
    taxonomy = write_taxonomy(root / "taxonomy")
    folder = taxonomy / "documents"
    for name, raw in (FILES | files).items():
        (folder / name).write_bytes(raw)
    edit_yaml(taxonomy / KNOWLEDGE / "qna.yaml", lambda value: value["document"].update(patterns=["*"]))
    home = Home.open(root / "home")
    snapshot = take_snapshot(home, settings_for(taxonomy))
    frozen = snapshot.usable.get(KNOWLEDGE)
    return snapshot.problems[KNOWLEDGE], read_json(home.leaf_source(frozen)) if frozen else None


def test_a_leaf_may_refer_to_files_of_all_formats_together(tmp_path):
    problems, leaf = mixed(tmp_path, **{"logo.png": b"PNG"})
    assert [problem for problem in problems if "no reader takes logo.png" in problem]
    assert [problem for problem in problems if problem.startswith("page.html:1: left out: navigation")]
    found = {(each["document"], each["place"]): each["text"] for each in leaf["passages"] if each["document"] in FILES}
    assert found == {
        ("guide.md", "line 3"): "Ilse keeps three keys.",
        ("minutes.docx", ""): "The group met on Monday in the north hall.",
        ("notes.txt", "line 1"): "Odo rings the bell at noon.",
        ("page.html", "line 1"): "The lamp burns from dusk to dawn on every day.",
        ("report.pdf", "pages 1 to 2"): "First page of it.\n\nThe wall is nine metres high.",
        ("talk.pptx", "slide 1"): "- Bram opens gate 1 at seven.",
        ("talk.pptx", "slide 2"): "- Bram opens gate 2 at seven.",
    }
    texts = {document["path"]: document["text"] for document in leaf["documents"]}
    assert all(each["text"] == texts[each["document"]][each["start"] : each["end"]] for each in leaf["passages"])
    assert {document["path"]: document["reader"] for document in leaf["documents"]}["talk.pptx"] == "pptx 1"


@pytest.mark.parametrize(
    ("name", "raw", "problem"),
    [
        ("guide.md", b"one\n\ncaf\xe9\n", "guide.md:3: not UTF-8 text; save the file as UTF-8"),
        ("notes.txt", b"one\n\0", "notes.txt:2: contains a NUL character, so it is no text file"),
        ("minutes.docx", FILES["minutes.docx"][:-30], "minutes.docx:1: is not a .docx file, or is damaged"),
        ("report.pdf", b"%PDF-1.7 and no more", "report.pdf:1: "),
    ],
)
def test_a_file_that_cannot_be_read_whole_quarantines_its_leaf_with_file_and_line(tmp_path, name, raw, problem):
    problems, leaf = mixed(tmp_path, **{name: raw})
    assert leaf is None
    assert [each for each in problems if each.startswith(problem)]

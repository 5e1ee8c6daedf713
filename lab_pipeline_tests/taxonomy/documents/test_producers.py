"""Read documents as real programs write them. Long, and each test is skipped where its program is not installed."""

from __future__ import annotations

import base64
import io
import re
import shutil
import subprocess
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from docx import Document as new_docx
from pptx import Presentation as new_pptx
from pptx.util import Inches

from lab_pipeline.taxonomy.documents.passages import PassageBudget, passages
from lab_pipeline.taxonomy.documents.reading import Document, read_document

pytestmark = pytest.mark.long

SHARP = "The harbour of Thalveren opens at six <sharp> & closes at ten; snake_case and 2*3 stay."
FOREIGN = "港口的钥匙由她保管。 مفاتيح الميناء عند إلسه."
TABLE = (("Harbour", "Keeper"), ("North", "Ilse"), ("South", "Odo <b>"))
ROWS = ["Harbour: North; Keeper: Ilse", "Harbour: South; Keeper: Odo <b>"]
ROWS_WITHOUT_HEADERS = ["Harbour; Keeper", "North; Ilse", "South; Odo <b>"]
ITEMS = [(1, "- first key"), (2, "- inner lamp"), (3, "- deepest rope"), (1, "- second key")]
STEPS = [(1, "1. open gate"), (1, "2. close gate")]
CODE = "if open:\n    ring(<bell>)"
NOTES = ("Only in summer.", "Or a fish.")
PNG = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==")

MARKDOWN = rf"""# Harbour guide

The harbour of Thalveren opens at six \<sharp\> & closes at ten; snake_case and 2\*3 stay.[^one]

## Keepers

Größe, Öl und ﬁne ﬂags; {FOREIGN}

- first key
    - inner lamp
        - deepest rope
- second key

1. open gate
2. close gate

### Shifts

| Harbour | Keeper    |
|---------|-----------|
| North   | Ilse      |
| South   | Odo \<b\> |

```
{CODE}
```

## Fees

Boats pay three crowns.[^two]

[^one]: {NOTES[0]}
[^two]: {NOTES[1]}
"""
SLIDES = r"""## Keepers

- first key
    - inner lamp
        - deepest rope
- second key

::: notes
Say that Ilse keeps the keys.
:::

## Shifts

| Harbour | Keeper    |
|---------|-----------|
| North   | Ilse      |
| South   | Odo \<b\> |

## Fees

:::::: columns
::: column
- Left one
- Left two
:::
::: column
- Right one
- Right two
:::
::::::
"""
HTML = f"""<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>Guide</title></head><body>
<h1>Harbour guide</h1><p>The harbour of Thalveren opens at six &lt;sharp&gt; &amp; closes at ten; snake_case and 2*3 stay.</p>
<h2>Keepers</h2><p>Größe, Öl und ﬁne ﬂags; {FOREIGN}</p>
<ul><li>first key<ul><li>inner lamp<ul><li>deepest rope</li></ul></li></ul></li><li>second key</li></ul>
<ol><li>open gate</li><li>close gate</li></ol>
<h3>Shifts</h3><table><thead><tr><th>Harbour</th><th>Keeper</th></tr></thead>
<tbody><tr><td>North</td><td>Ilse</td></tr><tr><td>South</td><td>Odo &lt;b&gt;</td></tr></tbody></table>
<pre>if open:
    ring(&lt;bell&gt;)</pre>
<p><img src="data:image/png;base64,{base64.b64encode(PNG).decode()}" alt="The north mole"></p>
<h2>Fees</h2><p>Boats pay three crowns.</p></body></html>"""
COLUMNS = [f"Watch {number} is kept by the officer of gate {number * 7 % 13}, who lights the lamps." for number in range(1, 41)]
LATEX = (
    r"""\documentclass[twocolumn]{article}
\usepackage[T1]{fontenc}
\begin{document}
\section{Keepers}
Officers efficiently affirm fluctuating tides\footnote{Only in summer.} and the offshore flotilla; Größe,
\textless sharp\textgreater{} \& snake\_case stay.
\begin{itemize}\item first key\begin{itemize}\item inner lamp\end{itemize}\item second key\end{itemize}
\subsection{Shifts}
The responsibilities of the administration. Notwithstanding the responsibilities of administration, the administration
of responsibilities administers other responsibilities, and no responsibilities are without an administration.
"""
    + " ".join(COLUMNS)
    + "\n"
    + r"""\section{Fees}
Boats pay three crowns.
\end{document}
"""
)


def run(*command: str | Path) -> None:
    """Run a program, or skip the test if it is not installed."""
    if shutil.which(str(command[0])) is None:
        pytest.skip(f"{command[0]} is not installed")
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def by_office(path: Path, ending: str, *options: str) -> Path:
    folder = path.parent / "office"
    profile = f"-env:UserInstallation={(path.parent / 'profile').as_uri()}"
    run("soffice", profile, "--headless", *options, "--convert-to", ending, "--outdir", folder, path)
    return folder / f"{path.stem}.{ending}"


def by_browser(path: Path) -> Path:
    printed = path.with_suffix(".pdf")
    profile = f"--user-data-dir={path.parent / 'browser'}"
    options = ("--headless", "--no-sandbox", "--disable-gpu", "--no-pdf-header-footer", profile)
    run("chromium", *options, f"--print-to-pdf={printed}", path)
    return printed


def by_pandoc(folder: Path, text: str, ending: str) -> Path:
    made = folder / f"guide.{ending}"
    run("pandoc", "--standalone", "--metadata", "pagetitle=Guide", written(folder / "guide.md", text), "-o", made)
    return made


def by_python_docx(folder: Path) -> Path:
    document = new_docx()
    document.add_heading("Harbour guide", 0)
    document.add_paragraph(SHARP)
    document.add_heading("Keepers", 1)
    document.add_paragraph(f"Größe, Öl und ﬁne ﬂags; {FOREIGN}")
    for level, text in ITEMS:
        document.add_paragraph(text[2:], style=f"List Bullet {level}" if level > 1 else "List Bullet")
    for _, text in STEPS:
        document.add_paragraph(text[3:], style="List Number")
    document.add_heading("Shifts", 2)
    fill(document.add_table(3, 2))
    document.add_paragraph(CODE, style="macro")
    document.add_paragraph().add_run().add_picture(io.BytesIO(PNG))
    document.inline_shapes[0]._inline.docPr.set("descr", "The north mole")
    document.add_heading("Fees", 1)
    document.add_paragraph("Boats pay three crowns.")
    document.save(str(folder / "guide.docx"))
    return folder / "guide.docx"


def by_python_pptx(folder: Path) -> Path:
    deck = new_pptx()
    slide = deck.slides.add_slide(deck.slide_layouts[1])
    slide.shapes.title.text = "Keepers"
    frame = slide.placeholders[1].text_frame
    for number, (level, text) in enumerate(ITEMS):
        paragraph = frame.add_paragraph() if number else frame.paragraphs[0]
        paragraph.text, paragraph.level = text[2:], level - 1
    slide.notes_slide.notes_text_frame.text = "Say that Ilse keeps the keys."
    slide = deck.slides.add_slide(deck.slide_layouts[5])
    slide.shapes.title.text = "Shifts"
    fill(slide.shapes.add_table(3, 2, Inches(1), Inches(2), Inches(6), Inches(2)).table)
    slide.shapes.add_picture(io.BytesIO(PNG), Inches(1), Inches(5))._element.nvPicPr.cNvPr.set("descr", "The north mole")
    slide = deck.slides.add_slide(deck.slide_layouts[3])
    slide.shapes.title.text = "Fees"
    slide.placeholders[1].text_frame.text = "Left one\nLeft two"
    slide.placeholders[2].text_frame.text = "Right one\nRight two"
    deck.save(str(folder / "guide.pptx"))
    return folder / "guide.pptx"


def fill(table: Any) -> None:
    for row, texts in zip(table.rows, TABLE, strict=True):
        for cell, text in zip(row.cells, texts, strict=True):
            cell.text = text


def read(path: Path) -> Document:
    return read_document(path.name, "c", path.read_bytes())


def texts(document: Document, kind: str) -> list[str]:
    return [block.text for block in document.blocks if block.kind == kind]


def items(document: Document) -> list[tuple[int, str]]:
    return [(block.level, block.text) for block in document.blocks if block.kind == "item"]


def heading_of(document: Document, sentence: str) -> str:
    """Return the headings above the one passage that holds a sentence."""
    return "".join(each["heading"] for each in passages(document, PassageBudget(60)) if sentence in each["text"])


def missing(document: Document, source: str) -> set[str]:
    """Return the words of a source that are in no block; ligatures count as their letters."""
    shown = unicodedata.normalize("NFKC", document.text)
    return {word for word in re.findall(r"\w+", unicodedata.normalize("NFKC", source)) if word not in shown}


def plain(markup: str) -> str:
    """Return about the text of the sources above, without their markup."""
    markup = re.sub(r"<head>.*?</head>|<!.*?>|</?\w+( [^<>]*)?>|\[\^\w+\]|^:+.*", " ", markup, flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"&\w+;", " ", markup)


GUIDES = {
    "pandoc docx": lambda folder: by_pandoc(folder, MARKDOWN, "docx"),
    "pandoc html": lambda folder: by_pandoc(folder, MARKDOWN, "html"),
    "pandoc docx, saved by office": lambda folder: by_office(by_pandoc(folder, MARKDOWN, "docx"), "docx"),
    "pandoc docx, html by office": lambda folder: by_office(by_pandoc(folder, MARKDOWN, "docx"), "html"),
    "html": lambda folder: written(folder / "guide.html", HTML),
    "html, docx by office": lambda folder: by_office(written(folder / "guide.html", HTML), "docx", "--writer"),
    "python-docx": by_python_docx,
    "python-docx, saved by office": lambda folder: by_office(by_python_docx(folder), "docx"),
}


@pytest.mark.parametrize("chain", GUIDES)
def test_guides_keep_what_they_show(chain, tmp_path):
    document = read(GUIDES[chain](tmp_path))
    assert heading_of(document, SHARP.rstrip(".")) == "Harbour guide"
    assert heading_of(document, FOREIGN) == heading_of(document, "open gate") == "Harbour guide > Keepers"
    assert heading_of(document, "North") == "Harbour guide > Keepers > Shifts"
    assert heading_of(document, "three crowns") == "Harbour guide > Fees"
    assert items(document) == ITEMS + STEPS
    assert texts(document, "row") == ROWS
    if chain != "pandoc docx, html by office":  # which writes code as a paragraph in another font
        assert texts(document, "code") == [CODE]
    if "pandoc" in chain:
        assert [note.lstrip("[]0123456789. ") for note in texts(document, "note")] == list(NOTES)
        assert not missing(document, plain(MARKDOWN))
    else:
        assert not missing(document, plain(HTML))
    if chain == "html, docx by office":  # which drops alternative texts
        assert [each.what for each in document.left_out] == ["1 picture without alternative text"]
    else:
        assert ("[The north mole]" in document.text) == ("pandoc" not in chain)
        assert not document.left_out


def test_html_by_office_of_a_docx_by_python_keeps_all_words(tmp_path):
    """The program keeps neither the title, the levels of such lists, alternative texts nor which row is the header."""
    document = read(by_office(by_python_docx(tmp_path), "html"))
    assert heading_of(document, "open gate") == "Keepers"
    assert texts(document, "row") == ROWS_WITHOUT_HEADERS
    assert not missing(document, plain(HTML))
    assert [each.what for each in document.left_out] == ["1 picture without alternative text"]


PRINTS = {
    "html, by office": lambda folder, html: by_office(written(folder / "guide.html", html), "pdf", "--writer"),
    "html, by browser": lambda folder, html: by_browser(written(folder / "guide.html", html)),
    "python-docx, by office": lambda folder, html: by_office(by_python_docx(folder), "pdf"),
    "pandoc docx, by office": lambda folder, html: by_office(by_pandoc(folder, MARKDOWN, "docx"), "pdf"),
    "pandoc html, by browser": lambda folder, html: by_browser(by_pandoc(folder, MARKDOWN.replace(FOREIGN, ""), "html")),
}


@pytest.mark.parametrize("chain", PRINTS)
def test_prints_of_guides_keep_what_they_show(chain, tmp_path):
    document = read(PRINTS[chain](tmp_path, HTML.replace(FOREIGN, "")))  # fonts may lack the letters, which prints as boxes
    assert heading_of(document, SHARP.rstrip(".")) == "Harbour guide"
    assert heading_of(document, "fine flags") == heading_of(document, "open gate") == "Harbour guide > Keepers"
    assert heading_of(document, "North Ilse").startswith("Harbour guide > Keepers > Shifts")
    assert heading_of(document, "three crowns") == "Harbour guide > Fees"
    assert items(document)[:6] == ITEMS + STEPS
    assert not missing(document, plain(HTML.replace(FOREIGN, "")))
    assert "pandoc" not in chain or ("crowns.²" in document.text and all(note in document.text for note in NOTES))


DECKS = {
    "pandoc": lambda folder: by_pandoc(folder, SLIDES, "pptx"),
    "python-pptx": by_python_pptx,
    "pandoc, saved by office": lambda folder: by_office(by_pandoc(folder, SLIDES, "pptx"), "pptx"),
    "python-pptx, saved by office": lambda folder: by_office(by_python_pptx(folder), "pptx"),
    "pandoc, printed": lambda folder: by_office(by_pandoc(folder, SLIDES, "pptx"), "pdf"),
    "python-pptx, printed": lambda folder: by_office(by_python_pptx(folder), "pdf"),
}


@pytest.mark.parametrize("chain", DECKS)
def test_decks_keep_what_they_show(chain, tmp_path):
    document = read(DECKS[chain](tmp_path))
    assert texts(document, "heading") == ["Keepers", "Shifts", "Fees"]
    assert heading_of(document, "inner lamp") == "Keepers"
    assert heading_of(document, "North") == "Shifts"
    columns = [(1, f"- {side} {number}") for side in ("Left", "Right") for number in ("one", "two")]
    assert items(document) == ITEMS + columns
    if "printed" in chain:
        assert "North Ilse" in document.text
        return
    assert texts(document, "note") == ["Say that Ilse keeps the keys."]
    # The office program forgets which row is the header.
    assert texts(document, "row") == (ROWS_WITHOUT_HEADERS if "saved" in chain else ROWS)
    assert "python" not in chain or "The north mole" in document.text
    assert not missing(document, plain(SLIDES))


def test_two_columns_of_a_browser_are_read_in_order(tmp_path):
    style = "<style>div{column-count:2;text-align:justify}</style>"
    parts = (f"<h2>Part {at}</h2><p>{' '.join(COLUMNS[at : at + 10])}</p>" for at in range(0, 40, 10))
    page = f'<html lang="en"><meta charset="utf-8">{style}<h1>Guide</h1><div>{"".join(parts)}</div></html>'
    document = read(by_browser(written(tmp_path / "guide.html", page)))
    assert texts(document, "text") == [" ".join(COLUMNS[at : at + 10]) for at in range(0, 40, 10)]
    assert heading_of(document, COLUMNS[-1]) == "Guide > Part 30"


@pytest.mark.parametrize(
    "fonts", ["", r"\IfFileExists{lmodern.sty}{\usepackage{lmodern}}{}", r"\renewcommand{\encodingdefault}{OT1}"]
)
def test_two_columns_of_latex_keep_their_order_lists_and_ligatures(fonts, tmp_path):
    source = written(tmp_path / "guide.tex", LATEX.replace(r"\begin{document}", rf"{fonts}\begin{{document}}"))
    run("pdflatex", "-interaction=batchmode", f"-output-directory={tmp_path}", source)
    document = read(tmp_path / "guide.pdf")
    assert texts(document, "heading") == ["1 Keepers", "1.1 Shifts", "2 Fees"]
    assert "Officers efficiently affirm fluctuating tides¹ and the offshore flotilla; Größe, <sharp> & snake" in document.text
    assert items(document) == [(1, "- first key"), (2, "- inner lamp"), (1, "- second key")]
    assert [text for text in COLUMNS if text not in document.text] == []
    assert "".join(texts(document, "text")).count("Only in summer.") == 1
    assert sorted(COLUMNS, key=document.text.index) == COLUMNS
    assert heading_of(document, "three crowns") == "2 Fees"

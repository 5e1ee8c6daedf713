"""A home of a contributor who means harm: scripts in names, seeds, documents, rows, reasons, reports and cards."""

from __future__ import annotations

from pathlib import Path

from lab_pipeline.config.settings import initial_settings
from lab_pipeline.core.home import Home
from lab_pipeline.core.rows import CURATED_SCHEMA
from lab_pipeline.core.storage import read_json, read_rows, write_json, write_rows, write_text
from lab_pipeline.datasets.quality import ExpectationResult, store_results
from lab_pipeline.instructions.plan import leaf_state
from lab_pipeline.registry.champion import promote
from lab_pipeline.taxonomy.reviews import record_review
from lab_pipeline_tests.builders import KNOWLEDGE, edit_yaml, settings_for, write_knowledge, write_skill
from lab_pipeline_tests.datasets.filled import FilledHome
from lab_pipeline_tests.registry.promotions import evaluation

_HARM = "document.title = 'hostile'"
SCRIPT = f'<script>{_HARM}</script><img src=https://evil.example/x.png onerror="{_HARM}">'
LEAF = 'compositional_skills/<img src=x onerror=alert(1)>" onmouseover="alert(1)/{{ 7 * 7 }}{% raw %}'
MARKDOWN = (
    f"# {SCRIPT}\n\n[here](javascript:alert(1)) ![p](https://evil.example/p.png)\n\n{SCRIPT}\n\n"
    "<style>body { display: none }</style>\n"
)


def hostile_home(root: Path) -> FilledHome:
    """A refreshed home with one hostile leaf of each kind, two hostile models, and a review."""
    taxonomy = root / "taxonomy"
    write_knowledge(taxonomy, KNOWLEDGE, "documents")
    qna = write_skill(taxonomy, LEAF)
    edit_yaml(qna, lambda leaf: leaf["seed_examples"][0].update(question=SCRIPT, answer=SCRIPT))
    for document in (taxonomy / "documents").iterdir():
        document.write_text(MARKDOWN + document.read_text())
    broken = write_skill(taxonomy, f"{LEAF}/broken")
    broken.write_text(f"version: 3\n{SCRIPT!r}: [\n")
    lab = FilledHome(Home.open(root / "home"), settings_for(taxonomy))
    lab.home.settings_file.write_text(initial_settings(taxonomy))
    lab.refresh()
    for leaf in (LEAF, KNOWLEDGE):
        table = lab.home.leaf(leaf) / f"curated-{leaf_state(lab.home, leaf).curated}.parquet"
        scores = [{"judge": SCRIPT, "score": 0.5, "verdict": SCRIPT}]
        texts = {"question": SCRIPT, "answer": SCRIPT, "context": SCRIPT, "teacher": SCRIPT, "flow": SCRIPT, "fault": SCRIPT}
        rows = [{**row, **texts, "scores": scores, "advice": [SCRIPT]} for row in read_rows(table)]
        write_rows(table, rows, CURATED_SCHEMA)
        record_review(lab.home, leaf, rows[0]["id"], None, "ban", SCRIPT, SCRIPT)
    found = ExpectationResult("ids_are_unique", "critical", False, SCRIPT)
    store_results(lab.home, "knowledge_dataset", "training_rows", 1, [found])
    for name in ("one", "other"):
        _promoted(lab.home, name)
    return lab


def _promoted(home: Home, name: str) -> None:
    found = evaluation(home, name, reference="base" if name == "one" else "one")
    found["verdict"]["reason"] = SCRIPT
    found["recipe"] = {SCRIPT: name}
    found["leaves"][0]["leaf"] = SCRIPT
    folder = home.evaluations / name
    write_json(folder / "evaluation.json", found)
    write_json(home.evaluations / "last.json", {**found, "inputs": "i"})
    question = {"id": "q", "leaf": SCRIPT, "question": SCRIPT, "answer": SCRIPT, "context": None}
    write_json(folder / "details.json", {"gained": [{**question, "answers": {"candidate": SCRIPT}}], "lost": []})
    report = f"<!doctype html><title>report</title><style>p {{ color: red }}</style><p>Report</p>{SCRIPT}"
    write_text(folder / "report.html", report)
    champion = promote(home, read_json(folder / "evaluation.json"))
    card = champion.model / "README.md"
    write_text(card, f"---\nlicense: {SCRIPT}\n---\n{MARKDOWN}\n| a |\n|---|\n| {SCRIPT} |\n")

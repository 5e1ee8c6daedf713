"""A home whose leaves are refreshed by the scripted teacher, as data sets and evaluation find it."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lab_pipeline.config.settings import Settings
from lab_pipeline.core.home import Home
from lab_pipeline.datasets.catalog import Catalog, build_catalog, store_catalog
from lab_pipeline.datasets.exam import exam_questions
from lab_pipeline.datasets.heldout_questions import build_heldout, store_heldout
from lab_pipeline.instructions.plan import LeafPlan, plan_leaves
from lab_pipeline.instructions.refresh import refresh_leaves
from lab_pipeline.taxonomy.holdout import withheld_questions
from lab_pipeline.taxonomy.snapshot import Snapshot, take_snapshot
from lab_pipeline.teacher.protocol import Reply, Request
from lab_pipeline_tests.builders import settings_for, write_taxonomy
from lab_pipeline_tests.scripted_teacher import ScriptedTeacher, copying

GENERAL = [
    {"id": f"g{n}", "category": "places", "question": f"What is the capital of {land}?", "answer": f"It is {city}."}
    for n, (land, city) in enumerate([("France", "Paris"), ("Italy", "Rome"), ("Spain", "Madrid"), ("Peru", "Lima")])
]


@dataclass
class FilledHome:
    home: Home
    settings: Settings

    @property
    def taxonomy(self) -> Path:
        return Path(self.settings.taxonomy.path)

    def snapshot(self) -> Snapshot:
        return take_snapshot(self.home, self.settings)

    def plans(self, snapshot: Snapshot) -> dict[str, LeafPlan]:
        return plan_leaves(self.home, snapshot, self.settings, "scripted", "scripted")

    def refresh(self, *leaves: str, teacher: ScriptedTeacher | None = None) -> None:
        """Refresh these leaves, or all of them."""
        plans = self.plans(self.snapshot())
        wanted = [plan for leaf, plan in plans.items() if not leaves or leaf in leaves]
        teacher = teacher or ScriptedTeacher()
        refresh_leaves(self.home, wanted, self.settings, teacher, teacher, "c", lambda text: None, lambda done: None)

    def catalog(self) -> Catalog:
        snapshot = self.snapshot()
        catalog = build_catalog(self.home, snapshot, self.plans(snapshot), self.settings.mixing.generated)
        store_catalog(self.home, catalog)
        return catalog

    def entry(self, leaf: str) -> dict[str, Any]:
        (found,) = (entry for entry in self.catalog().leaves if entry["leaf"] == leaf)
        return found

    def heldout(self, general: list[dict[str, str]] | None = None) -> dict[str, Any]:
        catalog, snapshot = self.catalog(), self.snapshot()
        general = GENERAL if general is None else general
        exam = exam_questions(self.home, catalog.in_use)
        heldout = build_heldout(catalog, snapshot, general, withheld_questions(self.home), exam)
        store_heldout(self.home, heldout)
        return heldout


def filled_home(root: Path) -> FilledHome:
    """One leaf of each kind, all refreshed."""
    filled = FilledHome(Home.open(root / "home"), settings_for(write_taxonomy(root / "taxonomy")))
    filled.refresh()
    return filled


def half_good_home(root: Path) -> FilledHome:
    """The same, but what the teacher asks about feasts, no sentence answers."""

    def script(request: Request) -> str | Reply:
        last = request.messages[-1].content
        of_feasts = last.startswith("Sentence: ") and "celebrate" in last and not request.choices
        return f"Who sells {request.seed} bananas?" if of_feasts else copying(request)

    filled = FilledHome(Home.open(root / "home"), settings_for(write_taxonomy(root / "taxonomy")))
    filled.refresh(teacher=ScriptedTeacher(script))
    return filled


def copied(filled: FilledHome, root: Path) -> FilledHome:
    """The same home and taxonomy once more, to be changed at will."""

    shutil.copytree(filled.home.root, root / "home")
    shutil.copytree(filled.taxonomy, root / "taxonomy")
    return replace(filled, home=Home.open(root / "home"), settings=settings_for(root / "taxonomy"))

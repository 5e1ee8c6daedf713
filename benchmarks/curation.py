"""Does curation pay? Train on kept rows, and on as many rows drawn from all that the teacher gave, and ask the same questions.

Of a home that was retuned, phase 1 is trained with EPOCHS epochs under three seeds each way: on each knowledge leaf's kept
rows, and on a sample of its complete rows before any rule (another one for each seed), equally many. Documents, general
questions, recipe and held-out questions are the same; nothing validates, so that both ways run alike.

- `heldout`, `general`: nats per answer token by way and seed; of the base model as `base`.
- `difference`: kept minus unfiltered, mean over the seeds, below zero where curation pays; `by_seed` each.

    python -P benchmarks/curation.py HOME [EPOCHS]
"""

from __future__ import annotations

import json
import random
import shutil
import sys
from pathlib import Path
from statistics import mean

from lab_pipeline.config.recipe import ValidationRecipe
from lab_pipeline.config.settings import load_settings
from lab_pipeline.core.home import Home
from lab_pipeline.core.rows import CURATED_SCHEMA
from lab_pipeline.core.storage import read_rows, write_rows
from lab_pipeline.datasets.catalog import Catalog, curated_rows, current_catalog
from lab_pipeline.datasets.general import load_general
from lab_pipeline.datasets.heldout_questions import load_heldout
from lab_pipeline.datasets.mix import mix_knowledge
from lab_pipeline.instructions.plan import leaf_state
from lab_pipeline.models.base_model import fetch_model
from lab_pipeline.models.likelihood import answer_losses
from lab_pipeline.registry.candidate import merge_candidate
from lab_pipeline.training.choice import choose_recipe
from lab_pipeline_tests.phases import trained

SEEDS = (1, 2, 3, 4, 5)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main(home: Home, epochs: int) -> None:
    settings = load_settings(home.settings_file)
    recipe = choose_recipe(home, settings).recipe
    phase = recipe.knowledge.model_copy(update={"epochs": epochs})
    recipe = recipe.model_copy(update={"knowledge": phase, "validation": ValidationRecipe(share=0, general=0)})
    base, general, heldout, catalog = (
        fetch_model(home, settings.base_model),
        load_general(settings.general),
        load_heldout(home),
        current_catalog(home),
    )
    leaves = [entry for entry in catalog.in_use if entry["kind"] == "knowledge"]
    asked = [question for entry in leaves for question in heldout["leaves"][entry["leaf"]]]

    def losses(model: Path) -> tuple[float, float]:
        found = answer_losses(model, [*asked, *heldout["general"]], lambda text: None)
        return mean(found[: len(asked)]), mean(found[len(asked) :])

    measured: dict[str, list[tuple[float, float]]] = {"kept": [], "unfiltered": []}
    rows = {}
    for seed in SEEDS:
        for way, models in measured.items():
            aside = _aside(home, f"{way}-{seed}")
            if way == "unfiltered":
                for entry in leaves:
                    _unfilter(aside, entry, seed)
            data = mix_knowledge(aside, Catalog(catalog.snapshot, leaves), heldout, general.replay, recipe, settings)
            checkpoint = trained(aside, base, data, None, recipe, seed, say)
            models.append(losses(merge_candidate(aside, base, checkpoint).model))
            rows[way] = data.by_source
            say(f"{way}, seed {seed}: held-out {models[-1][0]:.3f}, general {models[-1][1]:.3f}")
    differences = [kept[0] - unfiltered[0] for kept, unfiltered in zip(*measured.values(), strict=True)]
    heldout_base, general_base = losses(base.folder)
    print(
        json.dumps(
            {
                "questions": len(asked),
                "rows": rows,
                "epochs": epochs,
                "base": {"heldout": round(heldout_base, 3), "general": round(general_base, 3)},
                "heldout": {way: [round(own, 3) for own, _ in found] for way, found in measured.items()},
                "general": {way: [round(other, 3) for _, other in found] for way, found in measured.items()},
                "difference": round(mean(differences), 3),
                "by_seed": [round(difference, 3) for difference in differences],
            }
        )
    )


def _aside(home: Home, name: str) -> Home:
    """A home with the same leaves, whose data sets and checkpoints do not become the other's own."""
    aside = Home.open(home.root / "curation" / name)
    for folder in ("leaves", "sources", "snapshots"):
        shutil.copytree(home.root / folder, aside.root / folder, dirs_exist_ok=True)
    return aside


def _unfilter(home: Home, entry: dict, seed: int) -> None:
    """Put as many rows as were kept, drawn from all complete ones, in their place."""
    leaf, kept = home.leaf(entry["leaf"]), curated_rows(home, entry)
    state = leaf_state(home, entry["leaf"])
    assert state
    complete = [row for row in read_rows(leaf / f"judged-{state.judged}.parquet") if not row["fault"]]
    drawn = random.Random(seed).sample(complete, len(kept))
    write_rows(leaf / f"curated-{entry['curated']}.parquet", [{**row, "advice": []} for row in drawn], CURATED_SCHEMA)


if __name__ == "__main__":
    main(Home.open(Path(sys.argv[1])), int(sys.argv[2]) if sys.argv[2:] else 4)

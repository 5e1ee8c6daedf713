"""Is it knowledge or style? Train on one knowledge leaf alone and ask both.

A model that only learned how answers look gains on every leaf's questions alike. So for each knowledge leaf of a home
that was retuned, this trains phase 1 on that leaf's rows alone and compares the gain (base minus candidate, nats per
answer token) on its own held-out questions with the gain on the other leaves'.

    python -P benchmarks/knowledge_control.py HOME
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from lab_pipeline.config.settings import load_settings
from lab_pipeline.core.home import Home
from lab_pipeline.datasets.catalog import Catalog, current_catalog
from lab_pipeline.datasets.general import load_general
from lab_pipeline.datasets.heldout_questions import load_heldout
from lab_pipeline.datasets.mix import mix_knowledge
from lab_pipeline.models.base_model import fetch_model
from lab_pipeline.models.likelihood import answer_losses
from lab_pipeline.registry.candidate import merge_candidate
from lab_pipeline.training.choice import choose_recipe
from lab_pipeline_tests.phases import trained


def say(text: str) -> None:
    print(text, flush=True)


def main(home: Home) -> None:
    settings = load_settings(home.settings_file)
    recipe = choose_recipe(home, settings).recipe
    general = load_general(settings.general)
    base = fetch_model(home, settings.base_model)
    catalog, heldout = current_catalog(home), load_heldout(home)
    aside = Home.open(home.root / "control")  # data sets and checkpoints of the control must not become the home's own
    leaves = [entry for entry in catalog.in_use if entry["kind"] == "knowledge"]
    questions = {entry["leaf"]: heldout["leaves"][entry["leaf"]] for entry in leaves}
    before = {leaf: _mean(base.folder, asked) for leaf, asked in questions.items()}
    gains = {}
    for entry in leaves:
        for name in ("leaves", "sources", "snapshots"):
            if not (aside.root / name).exists():
                (aside.root / name).symlink_to(home.root / name)
        alone = mix_knowledge(aside, Catalog(catalog.snapshot, [entry]), heldout, general.replay, recipe, settings)
        checkpoint = trained(aside, base, alone, None, recipe, settings.seed, say)
        model = merge_candidate(aside, base, checkpoint).model
        gains[entry["leaf"]] = {leaf: before[leaf] - _mean(model, asked) for leaf, asked in questions.items()}
        say(
            f"trained on {entry['leaf']} alone: "
            + ", ".join(f"{leaf} {gain:+.3f}" for leaf, gain in gains[entry["leaf"]].items())
        )
    shares = {
        trained: max(gain for leaf, gain in measured.items() if leaf != trained) / measured[trained]
        for trained, measured in gains.items()
    }
    print(json.dumps({"base": before, "gains": gains, "share_on_other_leaf": shares}))


def _mean(model: Path, questions: list[dict]) -> float:
    losses = answer_losses(model, questions, lambda text: None)
    return sum(losses) / len(losses)


if __name__ == "__main__":
    main(Home.open(Path(sys.argv[1])))

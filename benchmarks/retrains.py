"""Does a mere retrain pass the gate? The same data, other seeds, real training of the packaged 135M model.

A region of invented places (`lab_pipeline_tests/invented.py`) is learned once and promoted. Then both phases
are trained again from the same data sets under RETRAINS other seeds. Every retrain is put before the gate as a candidate
against every other model as champion, all leaves counting as changed, as after a change of recipe.

- `against_champion`: the retrains against the promoted model, the case that arises; with its Clopper-Pearson interval.
- `all_pairs`: every ordered pair of models. Pairs share models, so no interval is given.
- `differences`: mean difference over leaves of each pair, of its two orders the one in which the candidate looks better.
- `common_shift`: standard deviation over pairs of the mean difference over leaves, which `minimum_gain` must exceed;
  `retrain_noise`: of a leaf's mean about that, which the setting of that name assumes; `question_noise`: of a question about
  its leaf's mean; `leaf_noise`: what of `retrain_noise` is left when the questions' share is taken out.

All losses by model and leaf are written to the file that LAB_SCORES names, for `benchmarks/gate.py --scores`.

    LAB_SCORES=FILE python -P benchmarks/retrains.py [RETRAINS [KNOWLEDGE_LEAVES [SKILL_LEAVES [EPOCHS]]]]
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import yaml
from scipy.stats import beta

from lab_pipeline.config.settings import load_settings
from lab_pipeline.core.home import Home
from lab_pipeline.datasets.dataset import load_dataset
from lab_pipeline.datasets.heldout_questions import load_heldout
from lab_pipeline.evaluation.gain import Losses
from lab_pipeline.evaluation.gate import decide
from lab_pipeline.models.base_model import fetch_base
from lab_pipeline.models.likelihood import answer_losses
from lab_pipeline.registry.candidate import merge_candidate
from lab_pipeline.registry.champion import current_champion
from lab_pipeline.runtime.command import retune
from lab_pipeline.training.choice import choose_recipe
from lab_pipeline_tests.invented import quick_recipe, region
from lab_pipeline_tests.phases import trained

GENERAL = "general"


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main(retrains: int = 8, knowledge: int = 3, skills: int = 2, epochs: int = 2) -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        pytest.MonkeyPatch.context() as patch,
        region(Path(folder), knowledge, skills, patch) as opened,
    ):
        (Path(folder) / "recipe.yaml").write_text(yaml.safe_dump(quick_recipe(epochs=epochs)))
        summary = retune(opened.home, say)
        if not summary["promoted"]:
            raise SystemExit(f"the first model was not promoted, so there is nothing to compare with: {summary['reason']}")
        policy = load_settings(opened.home.settings_file).gate
        measured = []
        for losses in _models(opened.home, retrains):
            measured.append(losses)
            if scores := os.environ.get("LAB_SCORES"):  # after each, so that hours of training outlive an interruption
                Path(scores).write_text(json.dumps(measured), encoding="utf-8")
    leaves = [leaf for leaf in measured[0] if leaf != GENERAL]
    outcomes = {}
    shifts = []
    spreads = []  # variance of questions about their leaf's mean, over the leaves of each pair
    for candidate, champion in itertools.permutations(range(len(measured)), 2):
        pairs: Losses = {
            leaf: list(zip(measured[candidate][leaf], measured[champion][leaf], strict=True)) for leaf in measured[0]
        }
        verdict = decide({leaf: pairs[leaf] for leaf in leaves}, {}, pairs[GENERAL], identical=False, policy=policy)
        outcomes[candidate, champion] = verdict.outcome
        differences = [np.subtract(*np.array(pairs[leaf]).T) for leaf in leaves]
        spreads.append(np.sum([(each - each.mean()) @ (each - each.mean()) for each in differences]))
        shifts.append([np.mean([mine - other for mine, other in pairs[leaf]]) for leaf in leaves])
    sizes = [len(measured[0][leaf]) for leaf in leaves]
    question_variance = float(np.mean(spreads)) / sum(size - 1 for size in sizes)
    leaf_variance = float(np.mean([np.var(shift, ddof=1) for shift in shifts])) - question_variance * np.mean(
        [1 / size for size in sizes]
    )
    against_champion = [outcome for (_, champion), outcome in outcomes.items() if champion == 0]
    passed = against_champion.count("better")
    print(
        json.dumps(
            {
                "models": len(measured),
                "leaves": len(leaves),
                "against_champion": {
                    "comparisons": len(against_champion),
                    "promoted": passed,
                    "interval_95": [round(limit, 3) for limit in _clopper_pearson(passed, len(against_champion))],
                    "outcomes": {outcome: against_champion.count(outcome) for outcome in sorted(set(against_champion))},
                },
                "all_pairs": {
                    "comparisons": len(outcomes),
                    "promoted": list(outcomes.values()).count("better"),
                    "share": round(list(outcomes.values()).count("better") / len(outcomes), 3),
                },
                "differences": sorted(round(float(np.mean(shift)), 3) for shift in shifts if np.mean(shift) < 0),
                "common_shift": round(float(np.std([np.mean(shift) for shift in shifts])), 4),
                "retrain_noise": round(float(np.mean([np.std(shift, ddof=1) for shift in shifts])), 4),
                "question_noise": round(float(np.sqrt(question_variance)), 4),
                "leaf_noise": round(float(np.sqrt(max(0.0, leaf_variance))), 4),
                "heldout_loss": [
                    round(float(np.mean([loss for leaf in leaves for loss in each[leaf]])), 3) for each in measured
                ],
                "general_loss": [round(float(np.mean(each[GENERAL])), 3) for each in measured],
            }
        )
    )


def _models(home: Home, retrains: int):
    """Losses by leaf of the champion, then of each retrain."""
    settings = load_settings(home.settings_file)
    recipe, base, heldout = choose_recipe(home, settings).recipe, fetch_base(home, settings), load_heldout(home)
    champion = current_champion(home)
    assert champion
    yield _losses(champion.model, heldout)
    for number in range(1, retrains + 1):
        seed = settings.seed + number
        say(f"retrain {number} of {retrains}, seed {seed}")
        first = trained(home, base, load_dataset(home, "knowledge"), None, recipe, seed, say)
        second = trained(home, base, load_dataset(home, "skills"), first, recipe, seed, say)
        yield _losses(merge_candidate(home, base, second).model, heldout)


def _losses(model: Path, heldout: dict) -> dict[str, list[float]]:
    questions = {**heldout["leaves"], GENERAL: heldout["general"]}
    losses = iter(answer_losses(model, [question for asked in questions.values() for question in asked], lambda text: None))
    return {leaf: [next(losses) for _ in asked] for leaf, asked in questions.items()}


def _clopper_pearson(successes: int, of: int) -> tuple[float, float]:
    low = beta.ppf(0.025, successes, of - successes + 1) if successes else 0.0
    high = beta.ppf(0.975, successes + 1, of - successes) if successes < of else 1.0
    return float(low), float(high)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))

"""Whom does the gate let pass? Null comparisons must fail, planted effects should pass.

Each comparison is drawn as a retrain is thought to differ from its champion: a normal shift of each leaf (`leaf_noise`)
and one of each question (`QUESTION_NOISE`), 2 to 12 questions a leaf, two leaves of five being knowledge, or all. All is in
nats per answer token; the general questions play no part.

- `power_1_of_20`, `null_rate`: of nights on which one knowledge leaf of twenty is new, with the questions that `exam.gain` asks
  for beside people's five, under the shipped policy, the share that is promoted with a gain of 0.3 and with none.
- `exam`: the same by number of questions, leaf noise, share of knowledge leaves, and number of earlier nights whose unchanged
  leaves show the noise too.
- `real`: the same on nights drawn from real retrains, whose losses `retrains.py` wrote to FILE: candidate and champion are two
  of these models, with the shift of all leaves that came of it, and each question's difference is drawn from those of all
  questions under these two. `leaf_noise` is what the leaves' means differ by beyond that, by the analysis of variance.
- `first`: first models of one to five leaves that gained nothing, and that gained 0.5, against the base model.

Power is the share of a quarter of COMPARISONS.

    python -P benchmarks/gate.py [--comparisons 1000] [--only null power exam first] [--scores FILE]
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lab_pipeline.config.settings import GateSettings
from lab_pipeline.datasets.exam import questions_needed
from lab_pipeline.evaluation.gain import Losses, measure_gain
from lab_pipeline.evaluation.gate import decide

POLICY = GateSettings(minimum_gain=0.05)
"""The default of 0.20 would hide what the test itself lets pass."""
QUESTION_NOISE = 0.4
SIZES = [(3, 0), (5, 0), (10, 0), (20, 0), (40, 0), (1, 19), (2, 18), (3, 17)]
"""(changed, unchanged) leaves."""
QUESTIONS = (5, 13, 30, 5 + questions_needed(0.3), 100)
"""Of each knowledge leaf: people's alone, with an embedded teacher's eight, and with those of an endpoint."""


def drawn(
    random: np.random.Generator,
    changed: int,
    unchanged: int,
    leaf_noise: float,
    effect: float = 0.0,
    questions: int | None = None,
    knowledge_factor: float = 1.0,
    common_shift: float = 0.0,
    all_knowledge: bool = False,
) -> tuple[Losses, Losses]:
    """One comparison; `questions` None = 2 to 12 a leaf; `knowledge_factor` = how much noisier knowledge leaves are;
    `common_shift` = standard deviation of what moves all leaves alike."""
    leaves = {}
    common = random.normal(0, common_shift) if common_shift else 0.0
    for number in range(changed + unchanged):
        knowledge = all_knowledge or number % 5 < 2
        factor = knowledge_factor if knowledge else 1.0
        count = questions or int(random.integers(2, 13))
        shift = common + factor * random.normal(0, leaf_noise) - (effect if number < changed else 0.0)
        differences = shift + factor * random.normal(0, QUESTION_NOISE, count)
        leaves[f"{'knowledge' if knowledge else 'compositional_skills'}/{number}"] = [(3.0 + each, 3.0) for each in differences]
    names = list(leaves)
    return {name: leaves[name] for name in names[:changed]}, {name: leaves[name] for name in names[changed:]}


def promoted(
    comparisons: int,
    seed: int,
    policy: GateSettings = POLICY,
    first: bool = False,
    nights: int = 0,
    draw: Callable[..., tuple[Losses, Losses]] = drawn,
    **how: Any,
) -> float:
    """Share of comparisons that are promoted; `first` = against the base model, `nights` = earlier ones, drawn anew for every
    twentieth comparison."""
    random = np.random.default_rng(seed)
    passed = 0
    earlier: list[Losses] = []
    for number in range(comparisons):
        if number % 20 == 0:
            earlier = [draw(random, **{**how, "effect": 0.0})[1] for _ in range(nights)]
        changed, unchanged = draw(random, **how)
        gain = measure_gain(changed, unchanged, policy, first, earlier)
        if gain and gain.bound < 0:  # nothing else can be promoted, and the whole decision takes ten times as long
            passed += decide(changed, unchanged, [], False, policy, first=first, earlier=earlier).promoted
    return passed / comparisons


def drawn_from(
    random: np.random.Generator, real: Sequence[np.ndarray], leaf_noise: float, questions: int, effect: float = 0.0
) -> tuple[Losses, Losses]:
    """One comparison like `drawn`'s, of twenty knowledge leaves with one new one; `real` = each model's losses on the same
    questions of knowledge leaves, of shape (leaves, questions)."""
    candidate, champion = (real[model].flatten() for model in random.choice(len(real), 2, replace=False))
    leaves = {}
    for number in range(20):
        asked = random.integers(len(candidate), size=questions)
        gained = candidate[asked] + random.normal(0, leaf_noise) - (0.0 if number else effect)
        leaves[f"knowledge/{number}"] = list(zip(gained.tolist(), champion[asked].tolist(), strict=True))
    return {"knowledge/0": leaves.pop("knowledge/0")}, leaves


def spreads(real: Sequence[np.ndarray]) -> dict[str, float]:
    """Standard deviations of the differences between two models: of the shift of all leaves, of a leaf beyond that and beyond
    what its questions explain, and of a question about its leaf."""
    pairs = [one - other for one, other in itertools.combinations(real, 2)]
    question = np.mean([pair.var(axis=1, ddof=1).mean() for pair in pairs])
    leaf = np.mean([pair.mean(axis=1).var(ddof=1) for pair in pairs]) - question / pairs[0].shape[1]
    common = np.mean([pair.mean() ** 2 for pair in pairs])
    found = {"common_shift": common, "leaf_noise": max(0.0, leaf), "question_noise": question}
    return {name: round(float(np.sqrt(variance)), 3) for name, variance in found.items()}


def wilson(share: float, number: int) -> tuple[float, float]:
    """95 % interval of a share (Wilson, JASA 1927)."""
    z = 1.96
    middle = (share + z * z / (2 * number)) / (1 + z * z / number)
    half = z / (1 + z * z / number) * float(np.sqrt(share * (1 - share) / number + z * z / (4 * number**2)))
    return max(0.0, middle - half), middle + half


def null_table(comparisons: int) -> list[dict[str, Any]]:
    print("False promotions, by leaves and by leaf noise; last column: knowledge three times as noisy as skills")
    found = []
    for changed, unchanged in SIZES:
        cells = []
        for leaf_noise, factor in [(0.0, 1.0), (0.1, 1.0), (0.3, 1.0), (0.6, 1.0), (0.1, 3.0)]:
            case = {"changed": changed, "unchanged": unchanged, "leaf_noise": leaf_noise, "knowledge_factor": factor}
            share = promoted(comparisons, 1, **case)
            low, high = wilson(share, comparisons)
            cells.append(f"{share:.1%} ({low:.1%}-{high:.1%})")
            found.append({**case, "promoted": share, "interval": [low, high]})
        print(f"| {changed} of {changed + unchanged} | " + " | ".join(cells) + " |", flush=True)
    return found


def power_table(comparisons: int) -> list[dict[str, Any]]:
    print("Power at leaf noise 0.1, by leaves, questions each and effect")
    found = []
    for changed, unchanged in [(1, 19), (2, 18), (3, 0), (5, 0), (10, 0), (20, 0), (40, 0)]:
        for questions in (5, 8, 12):
            case = {"changed": changed, "unchanged": unchanged, "questions": questions}
            effects = (0.05, 0.1, 0.2, 0.5, 1.0)
            shares = {effect: promoted(comparisons // 4, 2, leaf_noise=0.1, effect=effect, **case) for effect in effects}
            row = " | ".join(f"{share:.0%}" for share in shares.values())
            print(f"| {changed} of {changed + unchanged} | {questions} | {row} |", flush=True)
            found.append({**case, "promoted": shares})
    return found


def exam_table(comparisons: int) -> list[dict[str, Any]]:
    """Nights with one new knowledge leaf of twenty, under the shipped policy."""
    noises = (0.05, 0.1, 0.15)
    print("One new leaf of twenty, shipped policy: promoted with a gain of 0.3, and with none, by questions and leaf noise")
    found = []
    for all_knowledge in (True, False):
        for questions in QUESTIONS:
            cells = []
            for nights in (0, 10):
                for leaf_noise in noises:
                    case = {"questions": questions, "leaf_noise": leaf_noise, "all_knowledge": all_knowledge, "nights": nights}
                    gain, none = _night(comparisons, changed=1, unchanged=19, **case)
                    cells.append(f"{gain:.0%}, {none:.1%}")
                    found.append({**case, "gain": gain, "null": none})
            print(f"| {'all' if all_knowledge else '8'} knowledge | {questions} | " + " | ".join(cells) + " |", flush=True)
    return found


def real_table(comparisons: int, scores: Path) -> list[dict[str, Any]]:
    """Likewise on nights drawn from real retrains."""
    models = json.loads(scores.read_text(encoding="utf-8"))
    knowledge = [leaf for leaf in models[0] if leaf.startswith("knowledge/")]
    real = [np.array([model[leaf] for leaf in knowledge]) for model in models]
    noise = spreads(real)
    print(f"The same from {len(real)} real models, {noise}, by questions: no earlier night, ten")
    found = []
    for questions in QUESTIONS:
        cells = []
        for nights in (0, 10):
            gain, none = _night(
                comparisons, nights=nights, draw=drawn_from, real=real, leaf_noise=noise["leaf_noise"], questions=questions
            )
            cells.append(f"{gain:.0%}, {none:.1%}")
            found.append({"questions": questions, "nights": nights, "gain": gain, "null": none})
        print(f"| {questions} | " + " | ".join(cells) + " |", flush=True)
    return found


def _night(comparisons: int, **case: Any) -> tuple[float, float]:
    """Return the shares promoted with a gain of 0.3 and with none, under the shipped policy."""
    policy = GateSettings()
    return promoted(comparisons // 4, 3, policy, effect=0.3, **case), promoted(comparisons, 3, policy, effect=0.0, **case)


def first_table(comparisons: int) -> list[dict[str, Any]]:
    """First models of small taxonomies, under the shipped policy."""
    print("First models, shipped policy: promoted with no gain, by leaves and leaf noise (last: 0.1 and a common shift of 0.1)")
    found = []
    for changed in (1, 2, 3, 5):
        cells = []
        for leaf_noise, common in ((0.1, 0.0), (0.2, 0.0), (0.3, 0.0), (0.1, 0.1)):
            case = {"changed": changed, "unchanged": 0, "leaf_noise": leaf_noise, "common_shift": common}
            none, gain = (
                promoted(number, 4, GateSettings(), first=True, effect=effect, **case)
                for number, effect in ((comparisons, 0.0), (comparisons // 4, 0.5))
            )
            cells.append(f"{none:.1%} (0.5: {gain:.0%})")
            found.append({**case, "null": none, "gain_of_half": gain})
        print(f"| {changed} | " + " | ".join(cells) + " |", flush=True)
    return found


TABLES = {"null": null_table, "power": power_table, "exam": exam_table, "first": first_table}


def main(comparisons: int, only: Sequence[str], scores: Path | None) -> None:
    found: dict[str, Any] = {name: TABLES[name](comparisons) for name in only}
    if scores:
        found["real"] = real_table(comparisons, scores)
    for night in found.get("exam", []):
        if (night["questions"], night["leaf_noise"], night["all_knowledge"], night["nights"]) == (QUESTIONS[3], 0.1, True, 10):
            found |= {"power_1_of_20": night["gain"], "null_rate": night["null"]}
    print(json.dumps({"comparisons": comparisons, "question_noise": QUESTION_NOISE, **found}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--comparisons", type=int, default=1000)
    parser.add_argument("--only", nargs="*", choices=TABLES, default=list(TABLES))
    parser.add_argument("--scores", type=Path)
    wanted = parser.parse_args()
    main(wanted.comparisons, wanted.only, wanted.scores)

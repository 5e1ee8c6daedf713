"""Whom does the gate let pass? Null comparisons must fail, planted effects should pass.

Each comparison is drawn as a retrain is thought to differ from its champion: a normal shift of each leaf (`leaf_noise`)
and one of each question (`QUESTION_NOISE`), 2 to 12 questions a leaf, two leaves of five being knowledge, or all. All is in
nats per answer token; the general questions play no part.

- `power_1_of_20`, `null_rate`: of nights on which one knowledge leaf of twenty is new, with the questions that `exam.gain` asks
  for beside people's five, under the shipped policy, the share that is promoted with a gain of 0.3 and with none.
- `exam`: the same by number of questions, leaf noise, and share of knowledge leaves.
- `first`: first models of one to five leaves that gained nothing, and that gained 0.5, against the base model.

    python -P benchmarks/gate.py [COMPARISONS]
"""

from __future__ import annotations

import json
import sys

import numpy as np

from lab_pipeline.config.settings import GateSettings
from lab_pipeline.datasets.exam import questions_needed
from lab_pipeline.evaluation.gate import Losses, decide

POLICY = GateSettings(minimum_gain=0.05)
"""The default of 0.20 would hide what the test itself lets pass."""
QUESTION_NOISE = 0.4
SIZES = [(3, 0), (5, 0), (10, 0), (20, 0), (40, 0), (1, 19), (2, 18), (3, 17)]
"""(changed, unchanged) leaves."""


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


def promoted(comparisons: int, seed: int, policy: GateSettings = POLICY, first: bool = False, **how: float) -> float:
    """Share of comparisons that are promoted; `first` = against the base model."""
    random = np.random.default_rng(seed)
    passed = [
        decide(*drawn(random, **how), [], identical=False, policy=policy, first=first).promoted  # type: ignore[arg-type]
        for _ in range(comparisons)
    ]
    return float(np.mean(passed))


def wilson(share: float, number: int) -> tuple[float, float]:
    """95 % interval of a share (Wilson, JASA 1927)."""
    z = 1.96
    middle = (share + z * z / (2 * number)) / (1 + z * z / number)
    half = z / (1 + z * z / number) * float(np.sqrt(share * (1 - share) / number + z * z / (4 * number**2)))
    return max(0.0, middle - half), middle + half


def main(comparisons: int) -> None:
    null, power = [], []
    print("False promotions, by leaves and by leaf noise; last column: knowledge three times as noisy as skills")
    for changed, unchanged in SIZES:
        cells = []
        for leaf_noise, factor in [(0.0, 1.0), (0.1, 1.0), (0.3, 1.0), (0.6, 1.0), (0.1, 3.0)]:
            share = promoted(
                comparisons, 1, changed=changed, unchanged=unchanged, leaf_noise=leaf_noise, knowledge_factor=factor
            )
            low, high = wilson(share, comparisons)
            cells.append(f"{share:.1%} ({low:.1%}-{high:.1%})")
            case = {"changed": changed, "unchanged": unchanged, "leaf_noise": leaf_noise, "knowledge_factor": factor}
            null.append({**case, "promoted": share, "interval": [low, high]})
        print(f"| {changed} of {changed + unchanged} | " + " | ".join(cells) + " |", flush=True)
    print("Power at leaf noise 0.1, by leaves, questions each and effect")
    effects = (0.05, 0.1, 0.2, 0.5, 1.0)
    for changed, unchanged in [(1, 19), (2, 18), (3, 0), (5, 0), (10, 0), (20, 0), (40, 0)]:
        for questions in (5, 8, 12):
            case = {"changed": changed, "unchanged": unchanged, "questions": questions}
            shares = {effect: promoted(comparisons // 4, 2, leaf_noise=0.1, effect=effect, **case) for effect in effects}
            row = " | ".join(f"{share:.0%}" for share in shares.values())
            print(f"| {changed} of {changed + unchanged} | {questions} | {row} |", flush=True)
            power.append({**case, "promoted": shares})
    exam, first = exam_table(comparisons), first_table(comparisons)
    needed = 5 + questions_needed(0.3)
    (night,) = (each for each in exam if (each["questions"], each["leaf_noise"], each["all_knowledge"]) == (needed, 0.1, True))
    keys = {"power_1_of_20": night["gain"], "null_rate": night["null"]}
    about = {"comparisons": comparisons, "question_noise": QUESTION_NOISE}
    print(json.dumps({**about, "null": null, "power": power, "exam": exam, "first": first, **keys}))


def exam_table(comparisons: int) -> list[dict[str, float]]:
    """Nights with one new knowledge leaf of twenty, under the shipped policy."""
    print("One new leaf of twenty, shipped policy: promoted with a gain of 0.3, and with none, by questions and leaf noise")
    found = []
    for all_knowledge in (True, False):
        for questions in (5, 13, 30, 5 + questions_needed(0.3), 100):
            cells = []
            for leaf_noise in (0.05, 0.075, 0.1, 0.15):
                case = {"questions": questions, "leaf_noise": leaf_noise, "all_knowledge": all_knowledge}
                gain, none = (
                    promoted(comparisons, 3, GateSettings(), changed=1, unchanged=19, effect=effect, **case)
                    for effect in (0.3, 0.0)
                )
                cells.append(f"{gain:.0%}, {none:.1%}")
                found.append({**case, "gain": gain, "null": none})
            print(f"| {'all' if all_knowledge else '8'} knowledge | {questions} | " + " | ".join(cells) + " |", flush=True)
    return found


def first_table(comparisons: int) -> list[dict[str, float]]:
    """First models of small taxonomies, under the shipped policy."""
    print("First models, shipped policy: promoted with no gain, by leaves and leaf noise (last: 0.1 and a common shift of 0.1)")
    found = []
    for changed in (1, 2, 3, 5):
        cells = []
        for leaf_noise, common in ((0.1, 0.0), (0.2, 0.0), (0.3, 0.0), (0.1, 0.1)):
            case = {"changed": changed, "unchanged": 0, "leaf_noise": leaf_noise, "common_shift": common}
            none, gain = (promoted(comparisons, 4, GateSettings(), first=True, effect=effect, **case) for effect in (0.0, 0.5))
            cells.append(f"{none:.1%} (0.5: {gain:.0%})")
            found.append({**case, "null": none, "gain_of_half": gain})
        print(f"| {changed} | " + " | ".join(cells) + " |", flush=True)
    return found


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)

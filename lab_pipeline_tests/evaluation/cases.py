"""One evaluation for each verdict, decided by the gate itself from made-up losses on the sample taxonomy's questions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import Any, cast

import numpy as np
import yaml

from lab_pipeline.config.settings import GateSettings
from lab_pipeline.core.evaluation import Evaluation
from lab_pipeline.core.home import PROJECT
from lab_pipeline.core.storage import digest
from lab_pipeline.core.verdict import Right, label, lost_questions
from lab_pipeline.evaluation import details as shown
from lab_pipeline.evaluation.choices import Rank, compare_choices
from lab_pipeline.evaluation.details import QuestionResult, ReportDetails, question_results
from lab_pipeline.evaluation.evaluate import GENERAL, _measure, _measure_leaves, _paired
from lab_pipeline.evaluation.gate import Answers, decide, measure_gain
from lab_pipeline.evaluation.tasks import surely_worse
from lab_pipeline.training.train import TrainingReport

Case = tuple[Evaluation, ReportDetails, list[QuestionResult]]

POLICY = GateSettings()
TOWN, LOOM = "knowledge/geography/thalveren", "knowledge/crafts/osmerel_loom"
NOTES = "compositional_skills/grounded/extraction/meeting_notes"
POLITE = "compositional_skills/freeform/writing/polite_rewording"
ORDER = "foundational_skills/reasoning/temporal/order_of_events"
LEAVES = (TOWN, LOOM, NOTES, POLITE, ORDER)
BELL = "What is the harbour bell of Thalveren called?"


@cache
def seeds(leaf: str) -> list[dict[str, str]]:
    """The questions of a leaf of the sample taxonomy, each with its answer."""
    text = (PROJECT / "data" / "taxonomy" / leaf / "qna.yaml").read_text(encoding="utf-8")
    examples = yaml.safe_load(text)["seed_examples"]
    pairs = [pair for example in examples for pair in example.get("questions_and_answers", [example])]
    return [{"question": pair["question"].strip(), "answer": pair["answer"].strip()} for pair in pairs]


@dataclass
class Bench:
    """What the models do: mean gains in nats per token by leaf, and of how many of ten questions they know the answer."""

    gains: dict[str, float]
    knows: tuple[int, int, int] = (3, 5, 7)
    """Base model, champion, candidate."""
    champion: bool = True
    changed: tuple[str, ...] = LEAVES
    general: float = 0.0
    questions: int = 6
    acceptance: list[dict[str, Any]] = field(default_factory=list)
    gone: float | None = None
    """How much better than the base model the candidate is at a leaf that was taken out; None: none was."""
    identical: bool = False
    judged: tuple[float, float] | None = None
    tasks: list[Any] = field(default_factory=list)

    @property
    def models(self) -> list[str]:
        return ["base", "champion", "candidate"] if self.champion else ["base", "candidate"]

    @property
    def reference(self) -> str:
        return "champion" if self.champion else "base"

    def asked(self) -> dict[str, list[Any]]:
        return {
            leaf: [{"id": digest(seed), "context": None, **seed} for seed in seeds(leaf)[: self.questions]]
            for leaf in self.gains
        }

    def scores(self) -> dict[str, dict[str, list[float]]]:
        random = np.random.default_rng(7)
        losses: dict[str, dict[str, list[float]]] = {name: {} for name in self.models}
        for leaf, gain in {**self.gains, GENERAL: self.general}.items():
            number = 60 if leaf == GENERAL else len(self.asked()[leaf])
            base = random.normal(1.2 if leaf == GENERAL else 3.4, 0.5, number)
            before = base - (0.0 if leaf == GENERAL else 0.7) if self.champion else base
            found = {"base": base, "champion": before, "candidate": before - gain + random.normal(0, 0.12, number)}
            for name in self.models:
                losses[name][leaf] = [float(each) for each in found[name]]
        return losses

    def ranks(self) -> dict[str, dict[str, list[Rank | None]]]:
        known = dict(zip(("base", "champion", "candidate"), self.knows, strict=True))
        ranked: Callable[[str, int], Rank] = lambda name, number: {  # noqa: E731
            "rank": 1 if (number * 7 + 2 * (name != "candidate")) % 10 < known[name] else 3,
            "choices": 5,
        }
        return {
            name: {leaf: [ranked(name, at + 3 * len(leaf)) for at in range(len(asked))] for leaf, asked in self.asked().items()}
            for name in self.models
        }

    def unlearned(self) -> list[Any]:
        if self.gone is None:
            return []
        pairs = [(3.0 - self.gone + each / 20, 3.0 + each / 20) for each in range(8)]
        gain = measure_gain({LOOM: pairs}, {}, POLICY)
        assert gain
        return [
            {
                "leaf": LOOM,
                "questions": 8,
                "base": 3.2,
                "champion": 1.4,
                "candidate": 3.2 - self.gone,
                "interval": list(gain.interval),
                "still_known": self.gone / 1.8 if gain.bound < 0 else 0.0,
            }
        ]

    def judgement(self) -> Any:
        if self.judged is None:
            return None
        before, now = self.judged
        means = {name: {"answers": 20, "score": now if name == "candidate" else before, "words": 12.0} for name in self.models}
        difference = {"difference": now - before, "interval": [now - before - 0.1, now - before + 0.1]}
        agreement = {
            "graded": 40,
            "not_graded": 0,
            "unreadable_replies": 0,
            "alike": 0.9,
            "repeats": 0.95,
            "orders": 0.9,
            "order_shift": 0.01,
        }
        known = {"rows": 52, "area": 0.97, "interval": [0.92, 0.99], "separates": True, "agreement": agreement}
        return {
            "judge": "strict-judge",
            "unanswered": None,
            "known_rows": known,
            "agreement": agreement,
            "models": means,
            "leaves": dict.fromkeys(self.gains, means),
            "compared": 20,
            "raw": difference,
            "equal_length": {**difference, "slope": 0.01},
        }

    def case(self) -> Case:
        """The evaluation, and what its report shows beside it."""
        scores, ranks, asked, judged = self.scores(), self.ranks(), self.asked(), self.judgement()
        pairs = _paired(scores, self.reference, [*self.gains, GENERAL])
        verdict = decide(
            changed={leaf: pairs[leaf] for leaf in self.gains if leaf in self.changed},
            unchanged={leaf: pairs[leaf] for leaf in self.gains if leaf not in self.changed},
            general=pairs[GENERAL],
            identical=self.identical,
            policy=POLICY,
            answers=Answers(
                judged=cast(Any, tuple(judged["equal_length"]["interval"])) if judged else None,
                choices=compare_choices(ranks, self.reference, POLICY),
                lost=[label(each) for each in lost_questions(cast(Any, self.acceptance), self.reference)],
                tasks=surely_worse(self.tasks),
            ),
            first=not self.champion,
        )
        confidence = POLICY.confidence
        by_leaf = {leaf: _measure_leaves([leaf], scores, ranks, confidence) for leaf in self.gains}
        nothing = {**_measure_leaves([], scores, ranks, confidence), "leaves": {}}
        evaluation = {
            "inputs": "inputs",
            "candidate": "skills-4f1c09be7a22",
            "digest": "9f2e07c4d11b",
            "reference": "skills-07ad51e3b9c8" if self.champion else "base",
            "base_model": "HuggingFaceTB/SmolLM2-135M-Instruct",
            "taxonomy_commit": "5bd1f7e6a1",
            "snapshot": "s1",
            "catalog": dict.fromkeys(self.gains, "rows"),
            "changed": sorted(self.changed),
            "policy": POLICY.model_dump(),
            "verdict": asdict(verdict),
            "heldout": {**_measure_leaves(self.gains, scores, ranks, confidence), "leaves": by_leaf},
            "exam": nothing,
            "judged": judged,
            "acceptance": self.acceptance,
            "measures": self.tasks,
            "unlearned": self.unlearned(),
            "general": _measure([GENERAL], scores, confidence),
            "leaves": [
                {
                    "leaf": leaf,
                    "kind": "knowledge",
                    "rows": 40,
                    "state": "current",
                    "contributor": "anna",
                    "document_commit": None,
                }
                for leaf in self.gains
            ],
            "datasets": {"knowledge": "k1", "skills": "k2"},
            "checkpoints": {"knowledge": "knowledge-1", "skills": "skills-1"},
            "recipe": {"name": "laptop"},
            "chosen": {"skills": {"epoch": 5, "of": 7, "why": "it has the lowest loss"}},
            "seed": 17,
            "evaluated_at": "2026-02-03T04:05:06+00:00",
            "report": "evaluations/e1/report.md",
        }
        questions = question_results(asked, scores, ranks)
        return cast(Evaluation, evaluation), self._details(scores, asked, questions, cast(Evaluation, evaluation)), questions

    def _details(self, scores: Any, asked: Any, questions: list[QuestionResult], evaluation: Evaluation) -> ReportDetails:
        gained, lost = shown._extremes(asked, questions)
        for each in gained + lost:
            others = [seed["answer"] for seed in seeds(each["leaf"]) if seed["answer"] != each["answer"]]
            each["answers"] = {name: each["answer"] if each["right"][name] else others[0] for name in self.models}
        confidence = POLICY.confidence
        curve = [{"step": step, "loss": 3 / step**0.4, "learning_rate": 0.1} for step in range(1, 200)]
        after = [
            {"epoch": at, "step": 28 * at, "leaves": 3.1 / (at + 1) ** 0.5, "general": 1.2, "by_leaf": {}} for at in range(8)
        ]
        run = {**asdict(TrainingReport()), "rows": 230, "tokens": 21_000, "steps": 199, "seconds": 140.0, "curve": curve}
        run |= {"validation": after, "chosen": evaluation["chosen"]["skills"], "peak_rss_mib": 1800}
        tried = {
            "candidate": evaluation["candidate"],
            "at": evaluation["evaluated_at"],
            "loss": evaluation["heldout"]["candidate"],
        }
        verdict = evaluation["verdict"]
        right = Right(*self._right("candidate"))
        earlier = {"candidate": evaluation["reference"], "at": "2026-01-20T04:00:00+00:00", "loss": 2.7, "right": [9, 25]}
        history = [{**tried, "right": list(right), "promoted": verdict["promoted"], "outcome": verdict["outcome"]}]
        if self.champion:
            history.append({**earlier, "promoted": True, "outcome": "better"})
        details = {
            "confidence": confidence,
            "leaves": [shown._compare_group(leaf, scores, confidence) for leaf in sorted(self.gains)],
            "exam": [],
            "general": [{**shown._compare_group(GENERAL, scores, confidence), "name": "everyday_life"}],
            "gained": gained,
            "lost": lost,
            "history": history,
            "training": {"knowledge": run, "skills": run},
            "versions": {"torch": "2.13.0"},
            "teacher": {"calls": 1234, "prompt_tokens": 390_030, "completion_tokens": 14_974},
        }
        return cast(ReportDetails, details)

    def _right(self, model: str) -> Iterator[int]:
        ranked = [each for leaf in self.ranks()[model].values() for each in leaf if each]
        yield sum(each["rank"] == 1 for each in ranked)
        yield len(ranked)


def required(name: str, question: str, answers: tuple[str, str, str], failures: tuple[str | None, ...]) -> dict[str, Any]:
    roles = ("base", "champion", "candidate")
    return {
        "leaf": TOWN,
        "name": name,
        "question": question,
        "answers": dict(zip(roles, answers, strict=True)),
        "failures": dict(zip(roles, failures, strict=True)),
    }


SAYS_BELL = required(
    "harbour bell",
    BELL,
    ("A bell.", "It is called Old Marrow.", "It is called Sallow Basin."),
    ("lacks 'Old Marrow'", None, "lacks 'Old Marrow'"),
)
SAYS_RIVERS = required(
    "river",
    "In which river does Thalveren stand?",
    ("The Rhine.", "The Ouldrin.", "The Ouldrin."),
    ("lacks 'Ouldrin'", None, None),
)
TASK_LOST = {
    "task": "arithmetic",
    "metric": "acc",
    "questions": 400,
    "scores": {"base": 0.5, "champion": 0.61, "candidate": 0.52},
    "difference": -0.09,
    "interval": [-0.13, -0.05],
    "tolerance": 0.02,
}
GAIN = dict(zip(LEAVES, (0.9, 0.8, 0.6, 0.5, 0.4), strict=True))
WITHOUT_LOOM = {leaf: 0.0 for leaf in LEAVES if leaf != LOOM}

CASES = {
    "promoted": Bench(GAIN, acceptance=[SAYS_RIVERS]),
    "promoted though fewer right": Bench(GAIN, knows=(3, 6, 5)),
    "first model": Bench({TOWN: 1.1, LOOM: 0.9}, knows=(3, 3, 7), champion=False, changed=(TOWN, LOOM)),
    "not better": Bench(dict(zip(LEAVES, (0.3, -0.2, 0.1, 0.25, -0.1), strict=True)), knows=(3, 5, 6)),
    "worse for certain": Bench(dict.fromkeys(LEAVES, -0.2), knows=(3, 5, 6)),
    "leaf got worse": Bench({TOWN: 0.9, LOOM: 0.8, NOTES: 0.3, POLITE: 0.3, ORDER: -0.6}, changed=(TOWN, LOOM)),
    "worse elsewhere": Bench({TOWN: 0.9, LOOM: -0.3, NOTES: -0.3, POLITE: -0.2, ORDER: -0.3}, changed=(TOWN,)),
    "forgetting": Bench(GAIN, general=-0.35),
    "acceptance lost": Bench(GAIN, acceptance=[SAYS_BELL, SAYS_RIVERS]),
    "answers got worse": Bench(GAIN, knows=(3, 9, 2)),
    "judged worse": Bench(GAIN, judged=(0.7, 0.4)),
    "measure got worse": Bench(GAIN, tasks=[TASK_LOST]),
    "not enough evidence": Bench({TOWN: 0.9}, knows=(3, 5, 7), changed=(TOWN,), questions=3),
    "unchanged": Bench(dict.fromkeys(LEAVES, 0.0), knows=(3, 5, 5), identical=True),
    "taken out and forgotten": Bench(WITHOUT_LOOM, knows=(3, 5, 6), changed=(), gone=0.1),
    "taken out and still known": Bench(WITHOUT_LOOM, knows=(3, 5, 6), changed=(), gone=0.9),
}
"""By what happened."""


@cache
def case(name: str) -> Case:
    return CASES[name].case()

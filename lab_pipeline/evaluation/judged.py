"""Let a judge score the models' answers to the held-out questions, if the settings name an endpoint as `judge`.

**May it decide?** Only while it separates good from bad among known rows (`lab_pipeline.evaluation.known_rows`); until then
its scores are advisory. If the settings name no judge, the teacher judges generated rows, but grades no model's answers: it
would favour its own style in a model that learned from its rows.

**Length.** Judges favour long answers. So the candidate's difference is also given at equal length: it is the intercept of a
least-squares fit of the score difference on the difference of log word counts, the idea of length-controlled AlpacaEval
(Dubois et al. 2024, arXiv 2404.04475). Slope and residuals are taken within leaves, as in
`lab_pipeline.evaluation.gate.compare`: only the questions are a sample.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import NamedTuple, NotRequired

import numpy as np

from lab_pipeline.config.settings import GateSettings, Settings, SettingsError
from lab_pipeline.config.teachers import EndpointTeacherSettings
from lab_pipeline.core import event_loop
from lab_pipeline.core.evaluation import Evaluation, JudgedAnswers, JudgedMean, JudgedScores, KnownSeparation, LengthAdjusted
from lab_pipeline.core.home import Home
from lab_pipeline.core.progress import Progress, Say
from lab_pipeline.core.rows import HeldoutQuestion
from lab_pipeline.core.storage import write_json
from lab_pipeline.evaluation.gain import Losses, student_t
from lab_pipeline.evaluation.gate import compare
from lab_pipeline.evaluation.grading import CALLS, GradableAnswer, Grade, agreement, grade_answers, rubric_digest
from lab_pipeline.evaluation.known_rows import KNOWN_ROWS, judge_known_rows
from lab_pipeline.evaluation.measured_model import MeasuredModel, measure_once
from lab_pipeline.models.answers import greedy_answers
from lab_pipeline.teacher.choose import teacher_identities
from lab_pipeline.teacher.journal import Budget, Counted, JournaledTeacher
from lab_pipeline.teacher.protocol import TeacherError

_ANSWER_TOKENS = 256

Questions = Mapping[str, Sequence[HeldoutQuestion]]
"""Held-out questions, by leaf."""


class ModelAnswer(GradableAnswer):
    """A model's answer to a held-out question; `number` is the question's index in its leaf."""

    id: str
    model: str
    leaf: str
    number: int
    score: NotRequired[float | None]
    """From 0 (wrong) to 1 (right); None if the judge gave no readable verdict in one of the two orders."""


class _Graded(NamedTuple):
    score: float
    words: int


def judging_inputs(settings: Settings) -> list[object]:
    """Return what the judge's verdicts, and its right to decide, depend on; empty if the settings name no endpoint as judge."""
    if not isinstance(settings.judge, EndpointTeacherSettings):
        return []
    return [teacher_identities(settings)[1], rubric_digest(), KNOWN_ROWS]


def judge_models(
    home: Home,
    settings: Settings,
    models: Mapping[str, MeasuredModel],
    reference: str,
    questions: Questions,
    folder: Path,
    say: Say,
) -> JudgedAnswers | None:
    """Let all models answer all questions, and the judge grade the answers; None if the settings name no endpoint as judge.

    If a request to the judge fails, its key is not set or the budget of calls is spent, the evaluation goes on: the result then
    holds only `judge` and the reason, `unanswered`. Replies that the judge gave before are kept for the next evaluation.

    Args:
        models: base, candidate, and champion if there is one.
        reference: key of the model that the candidate is compared with.
        folder: where `judged.json` is written with every answer and its readings, if the judge answered.
    """
    endpoint = settings.judge
    if not isinstance(endpoint, EndpointTeacherSettings):
        return None
    identity = teacher_identities(settings)[1]
    rows: list[ModelAnswer] = [
        {
            "model": model,
            "leaf": leaf,
            "number": number,
            "id": question["id"],
            "question": question["question"],
            "context": question["context"],
            "reference": question["answer"],
            "answer": answer,
        }
        for model, measured in models.items()
        for leaf, answers in _answers(home, model, measured, questions, say).items()
        for number, (question, answer) in enumerate(zip(questions[leaf], answers, strict=True))
    ]
    try:
        known, grades = event_loop.run(_ask(home, settings, endpoint, rows, say))
    except (TeacherError, SettingsError) as error:
        reason = f"the judge did not answer: {error}"
        say(reason)
        return {"judge": identity, "unanswered": reason}
    scored: list[ModelAnswer] = [{**row, "score": grade.score} for row, grade in zip(rows, grades, strict=True)]
    write_json(folder / "judged.json", [{**row, **asdict(grade)} for row, grade in zip(scored, grades, strict=True)])
    return {
        "judge": identity,
        "unanswered": None,
        "known_rows": known,
        "agreement": agreement(grades),
        **summarise_scores(scored, reference, settings.gate),
    }


def unanswered(evaluation: Evaluation) -> bool:
    """Tell whether a stored evaluation has a judge that did not answer; evaluations of earlier releases have no judge."""
    judged = evaluation.get("judged")
    return bool(judged and judged["unanswered"])


def deciding_interval(judged: JudgedAnswers | None, policy: GateSettings) -> tuple[float, float] | None:
    """Return the interval of the candidate's difference at equal length, if the gate is to use it.

    None if no judge answered, if it does not separate known rows, or if fewer than `minimum_questions` could be compared.
    """
    if judged is None or judged["unanswered"] or not judged["known_rows"]["separates"]:
        return None
    found = judged["equal_length"]
    if not found or not found["interval"] or judged["compared"] < policy.minimum_questions:
        return None
    low, high = found["interval"]
    return low, high


def summarise_scores(rows: Sequence[ModelAnswer], reference: str, policy: GateSettings) -> JudgedScores:
    """Return mean scores and word counts by model and leaf, and candidate minus `reference`, raw and at equal length.

    Answers without a score are left out. The differences are taken over the questions to which both models' answers have a
    score, without the leaves in `allowed_regressions`; `compared` is the number of these questions.
    """
    models = list(dict.fromkeys(row["model"] for row in rows))
    groups: dict[tuple[str, str | None], list[_Graded]] = defaultdict(list)
    by_question: dict[tuple[str, int], dict[str, _Graded]] = defaultdict(dict)
    for row in rows:
        if row["score"] is not None:
            graded = _Graded(row["score"], len(row["answer"].split()))
            groups[row["model"], None].append(graded)
            groups[row["model"], row["leaf"]].append(graded)
            by_question[row["leaf"], row["number"]][row["model"]] = graded
    pairs: Losses = {}
    lengths: dict[str, list[tuple[float, float]]] = {}
    for (leaf, _), answers in by_question.items():
        if leaf in policy.allowed_regressions or not {"candidate", reference} <= answers.keys():
            continue
        ours, theirs = answers["candidate"], answers[reference]
        pairs.setdefault(leaf, []).append((ours.score, theirs.score))
        longer = np.log1p(ours.words) - np.log1p(theirs.words)
        lengths.setdefault(leaf, []).append((ours.score - theirs.score, float(longer)))
    raw = compare(pairs, policy.confidence)
    return {
        "models": {model: _mean(groups[model, None]) for model in models},
        "leaves": {
            leaf: {model: _mean(groups[model, leaf]) for model in models} for leaf in sorted({row["leaf"] for row in rows})
        },
        "compared": raw.questions if raw else 0,
        "raw": {"difference": raw.difference, "interval": list(raw.interval) if raw.interval else None} if raw else None,
        "equal_length": at_equal_length(lengths, policy.confidence),
    }


def at_equal_length(leaves: Mapping[str, Sequence[tuple[float, float]]], confidence: float) -> LengthAdjusted | None:
    """Estimate the mean difference that answers of equal length would have, with its two-sided interval; see the module's head.

    None with fewer than three questions, or if the lengths always differ by the same factor, so that no slope can be fitted.

    Args:
        leaves: (difference of scores, difference of log word counts) of each question, by leaf.
    """
    groups = [np.array(pairs) for pairs in leaves.values() if pairs]
    count = sum(len(each) for each in groups)
    if count < 3:
        return None
    every = np.concatenate(groups)
    if count - len(groups) < 2:  # one question in almost every leaf: use the spread of all questions
        groups = [every]
    scores, lengths = np.concatenate([each - each.mean(axis=0) for each in groups]).T
    difference, longer = every.mean(axis=0)
    spread = float(lengths @ lengths)
    if spread < 1e-9:
        if abs(longer) > 1e-9:
            return None
        spread = 1.0  # all lengths are equal, and any slope fits
    slope = float(lengths @ scores) / spread
    degrees = count - len(groups) - 1
    variance = float(np.square(scores - slope * lengths).sum()) / degrees
    middle = float(difference - slope * longer)
    half = student_t(confidence, degrees) * float(np.sqrt(variance * (1 / count + longer**2 / spread)))
    return {"difference": middle, "interval": [middle - half, middle + half], "slope": slope}


async def _ask(
    home: Home, settings: Settings, endpoint: EndpointTeacherSettings, rows: Sequence[ModelAnswer], say: Say
) -> tuple[KnownSeparation, list[Grade]]:
    from lab_pipeline.teacher.endpoint import EndpointTeacher

    budget = Budget.of(settings)
    judge = JournaledTeacher(
        EndpointTeacher(endpoint, slots=home.slots(endpoint.url)), home.evaluations / "judge" / "journal", budget
    )
    known = await judge_known_rows(home, judge, endpoint.concurrency, say)
    counted = Counted(judge, Progress("calls about answers", len(rows) * CALLS, say))
    grades = await grade_answers(counted, rows, endpoint.concurrency)
    say(f"{len(grades)} answers judged ({judge.calls} calls to {judge.identity}, {judge.recalled} answered by the journal)")
    return known, grades


def _answers(home: Home, role: str, model: MeasuredModel, questions: Questions, say: Say) -> dict[str, list[str]]:
    """Return the model's greedily decoded answer to every question, by leaf, from the home or else by asking and storing."""

    def answer(asked: list[HeldoutQuestion]) -> list[str]:
        say(f"asking {role} ({model.digest}) {len(asked)} questions")
        return greedy_answers(model.folder, asked, _ANSWER_TOKENS, say)

    path = home.evaluations / "answers" / f"{model.digest}.json"
    answers = iter(measure_once(path, _ANSWER_TOKENS, [each for asked in questions.values() for each in asked], answer))
    return {leaf: list(islice(answers, len(asked))) for leaf, asked in questions.items()}


def _mean(answers: Sequence[_Graded]) -> JudgedMean | None:
    """Return the number, mean score and mean word count of graded answers; None if there are none."""
    if not answers:
        return None
    score, words = (fmean(values) for values in zip(*answers, strict=True))
    return {"answers": len(answers), "score": score, "words": words}

"""Let a judge score the models' answers to the held-out questions, if the settings name an endpoint as `judge`.

**May it decide?** Only while it separates good from bad among known rows (`lab_pipeline.evaluation.known_rows`); until then
its scores are advisory. A teacher that is the judge by default grades no answers: it would favour its own style in its pupil.

**Length.** Judges favour long answers. So the candidate's difference is also given at equal length: it is the intercept of a
least-squares fit of the score difference on the difference of log word counts, the idea of length-controlled AlpacaEval
(Dubois et al. 2024, arXiv 2404.04475). Slope and residuals are taken within leaves, as in
`lab_pipeline.evaluation.gate.compare`: only the questions are a sample.
"""

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import NamedTuple, NotRequired

import numpy as np

from lab_pipeline.config.settings import EndpointTeacherSettings, GateSettings, Settings, SettingsError
from lab_pipeline.core.evaluation import Evaluation, JudgedAnswers, JudgedMean, JudgedScores, KnownSeparation, LengthAdjusted
from lab_pipeline.core.home import Home
from lab_pipeline.core.progress import Progress, Say
from lab_pipeline.core.rows import HeldoutQuestion
from lab_pipeline.core.storage import digest, write_json
from lab_pipeline.evaluation.gate import Losses, compare, student_t
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
    """A model's answer to the question of that number in its leaf."""

    id: str
    model: str
    leaf: str
    number: int
    score: NotRequired[float | None]
    """From 0, wrong, to 1, right; None if the judge's replies could not be read."""


class _Graded(NamedTuple):
    score: float
    words: int


def judging_inputs(settings: Settings) -> list[object]:
    """Return what verdicts on answers, and the judge's right to decide, depend on; empty if no endpoint judges."""
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
    """Ask all models all questions and have the answers judged; None if no endpoint judges.

    A judge that does not answer stops no evaluation: the result then holds only `judge` and `unanswered`, the reason. Calls
    already made are kept for the next time.

    Args:
        models: base, candidate, and champion if there is one.
        reference: the one of them that the candidate is compared with.
        folder: where `judged.json` will hold every answer with its readings.
    """
    endpoint = settings.judge
    if not isinstance(endpoint, EndpointTeacherSettings):
        return None
    identity = teacher_identities(settings)[1]
    rows: list[ModelAnswer] = [
        {"model": model, "leaf": leaf, "number": number, **question, "reference": question["answer"], "answer": answer}
        for model, measured in models.items()
        for leaf, answers in _answers(home, model, measured, questions, say).items()
        for number, (question, answer) in enumerate(zip(questions[leaf], answers, strict=True))
    ]
    try:
        known, grades = asyncio.run(_ask(home, settings, endpoint, rows, say))
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
    """Tell whether the judge of a stored evaluation did not answer; evaluations of earlier releases had no judge."""
    judged = evaluation.get("judged")
    return bool(judged and judged["unanswered"])


def deciding_interval(judged: JudgedAnswers | None, policy: GateSettings) -> tuple[float, float] | None:
    """Return the interval of the candidate's difference at equal length, if the gate is to use it.

    None if the judge may not decide or too few answers were graded.
    """
    if judged is None or judged["unanswered"] or not judged["known_rows"]["separates"]:
        return None
    found = judged["equal_length"]
    if not found or not found["interval"] or judged["compared"] < policy.minimum_questions:
        return None
    low, high = found["interval"]
    return low, high


def summarise_scores(rows: Sequence[ModelAnswer], reference: str, policy: GateSettings) -> JudgedScores:
    """Return scores and words by model and leaf, and the candidate's difference from the reference, raw and at equal length.

    Answers without a score are left out. The differences also leave out the policy's `allowed_regressions`.
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

    budget = Budget(settings.budgets.teacher_calls)
    judge = JournaledTeacher(EndpointTeacher(endpoint), home.evaluations / "judge" / "journal", budget)
    known = await judge_known_rows(home, judge, endpoint.concurrency, say)
    counted = Counted(judge, Progress("calls about answers", len(rows) * CALLS, say))
    grades = await grade_answers(counted, rows, endpoint.concurrency)
    say(f"{len(grades)} answers judged ({judge.calls} calls to {judge.identity}, {judge.recalled} answered by the journal)")
    return known, grades


def _answers(home: Home, role: str, model: MeasuredModel, questions: Questions, say: Say) -> dict[str, list[str]]:
    """Return the model's answer to every question, by leaf."""

    def answer(asked: list[HeldoutQuestion]) -> list[str]:
        say(f"asking {role} ({model.digest}) {len(asked)} questions")
        return greedy_answers(model.folder, asked, _ANSWER_TOKENS, say)

    path = home.evaluations / "answers" / f"{model.digest}-{digest([questions, _ANSWER_TOKENS])}.json"
    return measure_once(path, questions, answer)


def _mean(answers: Sequence[_Graded]) -> JudgedMean | None:
    """Return mean score and words; None without answers."""
    if not answers:
        return None
    score, words = (fmean(values) for values in zip(*answers, strict=True))
    return {"answers": len(answers), "score": score, "words": words}

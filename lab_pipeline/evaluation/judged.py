"""What a judge thinks of the models' answers to the held-out questions, where the settings name an endpoint as `judge`.

**May it decide?** Only while it separates good from bad among known rows (`lab_pipeline.evaluation.known_rows`); until then
its scores are advice. A teacher that is judge by default grades no answers: in those of its pupil it would meet its own style.

**Length.** Judges favour long answers. So the candidate's difference is also given at equal length: the intercept of a
least-squares fit of the score's difference on the difference of the logarithms of the answers' word counts, which is the
idea of length-controlled AlpacaEval (Dubois et al. 2024, arXiv 2404.04475). Slope and residuals are taken within leaves, as
`lab_pipeline.evaluation.gate.compare` takes its spread: only the questions are a sample.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from lab_pipeline.config.settings import EndpointTeacherSettings, GateSettings, Settings, SettingsError
from lab_pipeline.core.home import Home
from lab_pipeline.core.progress import Progress, Say
from lab_pipeline.core.storage import digest, read_json, write_json
from lab_pipeline.evaluation.gate import compare, student_t
from lab_pipeline.evaluation.grading import CALLS, Grade, agreement, grade_answers, rubric_digest
from lab_pipeline.evaluation.known_rows import KNOWN_ROWS, judge_known_rows
from lab_pipeline.models.answers import greedy_answers
from lab_pipeline.teacher.choose import teacher_identities
from lab_pipeline.teacher.journal import Budget, Counted, JournaledTeacher
from lab_pipeline.teacher.protocol import TeacherError

_ANSWER_TOKENS = 256


def judging_inputs(settings: Settings) -> list[Any]:
    """What verdicts on answers, and the right to decide by them, depend on; empty if no endpoint judges."""
    if not isinstance(settings.judge, EndpointTeacherSettings):
        return []
    return [teacher_identities(settings)[1], rubric_digest(), KNOWN_ROWS]


def judge_models(
    home: Home,
    settings: Settings,
    models: dict[str, tuple[Path, str]],
    reference: str,
    questions: dict[str, list[dict[str, Any]]],
    folder: Path,
    say: Say,
) -> dict[str, Any] | None:
    """Ask all models all questions and have the answers judged; None if no endpoint judges.

    A judge that does not answer stops no evaluation: then `unanswered` says why, and it is all that is told. Calls already
    made are kept for the next time.

    Args:
        models: folder and digest of base, candidate, and champion if there is one.
        reference: the one of them that the candidate is compared with.
        questions: by leaf, with `question`, `answer` and perhaps `context`.
        folder: where `judged.json` will hold every answer with its readings.
    """
    endpoint = settings.judge
    if not isinstance(endpoint, EndpointTeacherSettings):
        return None
    about = {"judge": teacher_identities(settings)[1], "unanswered": None}
    rows = [
        {"model": model, "leaf": leaf, "number": number, **question, "reference": question["answer"], "answer": answer}
        for model, (where, model_digest) in models.items()
        for leaf, answers in _answers(home, model, where, model_digest, questions, say).items()
        for number, (question, answer) in enumerate(zip(questions[leaf], answers, strict=True))
    ]
    try:
        known, grades = asyncio.run(_ask(home, settings, endpoint, rows, say))
    except (TeacherError, SettingsError) as error:
        say(f"the judge did not answer: {error}")
        return {**about, "unanswered": f"the judge did not answer: {error}"}
    judged = [{**row, "score": grade.score, **asdict(grade)} for row, grade in zip(rows, grades, strict=True)]
    write_json(folder / "judged.json", judged)
    return {**about, "known_rows": known, "agreement": agreement(grades), **measured(judged, reference, settings.gate)}


def unanswered(evaluation: dict[str, Any]) -> bool:
    """Did the judge of a stored evaluation give no answer? Those of earlier releases had none."""
    return bool((evaluation.get("judged") or {}).get("unanswered"))


def deciding_interval(judged: dict[str, Any] | None, policy: GateSettings) -> tuple[float, float] | None:
    """Of the candidate's difference at equal length; None where the judge may not decide or too few answers were graded."""
    if judged is None or judged["unanswered"] or not judged["known_rows"]["separates"]:
        return None
    found = judged["equal_length"]
    return tuple(found["interval"]) if found and judged["compared"] >= policy.minimum_questions else None


def measured(rows: list[dict[str, Any]], reference: str, policy: GateSettings) -> dict[str, Any]:
    """Scores and words by model and leaf, and the candidate's difference from the reference, raw and at equal length.

    Answers without a score are left out. The differences also leave out the policy's `allowed_regressions`.
    """
    models = list(dict.fromkeys(row["model"] for row in rows))
    groups: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    by_question: dict[tuple[str, int], dict[str, dict[str, Any]]] = defaultdict(dict)
    for row in rows:
        if row["score"] is not None:
            groups[row["model"]].append(row)
            groups[row["leaf"], row["model"]].append(row)
            by_question[row["leaf"], row["number"]][row["model"]] = row
    pairs: dict[str, list[tuple[float, float]]] = {}
    lengths: dict[str, list[tuple[float, float]]] = {}
    for (leaf, _), found in by_question.items():
        if leaf in policy.allowed_regressions or not {"candidate", reference} <= found.keys():
            continue
        ours, theirs = found["candidate"], found[reference]
        pairs.setdefault(leaf, []).append((ours["score"], theirs["score"]))
        longer = np.log1p(_words(ours)) - np.log1p(_words(theirs))
        lengths.setdefault(leaf, []).append((ours["score"] - theirs["score"], float(longer)))
    raw = compare(pairs, policy.confidence)
    return {
        "models": {model: _means(groups[model]) for model in models},
        "leaves": {
            leaf: {model: _means(groups[leaf, model]) for model in models} for leaf in sorted({row["leaf"] for row in rows})
        },
        "compared": raw.questions if raw else 0,
        "raw": {"difference": raw.difference, "interval": raw.interval and list(raw.interval)} if raw else None,
        "equal_length": at_equal_length(lengths, policy.confidence),
    }


def at_equal_length(leaves: dict[str, list[tuple[float, float]]], confidence: float) -> dict[str, Any] | None:
    """The mean difference that answers of equal length would have, with its two-sided interval; see the module's head.

    None with fewer than three questions, or where the lengths always differ alike, so that nothing tells their part.

    Args:
        leaves: (difference of scores, difference of log word counts) of each question, by leaf.
    """
    groups = [np.array(pairs) for pairs in leaves.values() if pairs]
    count = sum(len(each) for each in groups)
    if count < 3:
        return None
    every = np.concatenate(groups)
    if count - len(groups) < 2:  # hardly two questions in any leaf: the leaves' spread is in the questions' own
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
    home: Home, settings: Settings, endpoint: EndpointTeacherSettings, rows: list[dict[str, Any]], say: Say
) -> tuple[dict[str, Any], list[Grade]]:
    from lab_pipeline.teacher.endpoint import EndpointTeacher

    budget = Budget(settings.budgets.teacher_calls)
    judge = JournaledTeacher(EndpointTeacher(endpoint), home.evaluations / "judge" / "journal", budget)
    known = await judge_known_rows(home, judge, endpoint.concurrency, say)
    counted = Counted(judge, Progress("calls about answers", len(rows) * CALLS, say))
    grades = await grade_answers(counted, rows, endpoint.concurrency)
    say(f"{len(grades)} answers judged ({judge.calls} calls to {judge.identity}, {judge.recalled} answered by the journal)")
    return known, grades


def _answers(
    home: Home, role: str, model: Path, model_digest: str, questions: dict[str, list[dict[str, Any]]], say: Say
) -> dict[str, list[str]]:
    """Answer of every question by leaf; a model answers the same questions once."""
    path = home.evaluations / "answers" / f"{model_digest}-{digest([questions, _ANSWER_TOKENS])}.json"
    if not path.exists():
        flat: list[Any] = [question for leaf in questions for question in questions[leaf]]
        say(f"asking {role} ({model_digest}) {len(flat)} questions")
        answers = iter(greedy_answers(model, flat, _ANSWER_TOKENS, say))
        write_json(path, {leaf: [next(answers) for _ in questions[leaf]] for leaf in questions})
    return read_json(path)


def _words(row: dict[str, Any]) -> int:
    return len(row["answer"].split())


def _means(rows: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Mean score and words of graded answers; None if there are none."""
    if not rows:
        return None
    return {"answers": len(rows), "score": fmean(row["score"] for row in rows), "words": fmean(map(_words, rows))}

"""Measure a candidate against the base model and the champion, and store the scores with the gate's verdict.

A promotion reads the verdict from the stored evaluation, whether a job, a sensor or a person started it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import cast

from lab_pipeline.config.recipe import Recipe
from lab_pipeline.config.settings import Settings
from lab_pipeline.core.evaluation import (
    ChoiceScore,
    EvaluatedLeaf,
    Evaluation,
    LeafMeasurement,
    Measurement,
    Provenance,
    VerdictRecord,
)
from lab_pipeline.core.home import Home
from lab_pipeline.core.progress import Say
from lab_pipeline.core.rows import GeneralQuestion, HeldoutSet
from lab_pipeline.core.storage import digest, read_json, write_json
from lab_pipeline.core.verdict import label, lost_questions
from lab_pipeline.datasets.catalog import Catalog, frozen_leaf
from lab_pipeline.datasets.custom import custom_contents
from lab_pipeline.datasets.general import GeneralSets
from lab_pipeline.datasets.multiple_choice import draw_distractors
from lab_pipeline.evaluation.acceptance import ask_acceptance
from lab_pipeline.evaluation.choices import Rank, Ranks, compare_choices, rank_reference, summarise_ranks, with_choices
from lab_pipeline.evaluation.details import Scores, question_results, report_details
from lab_pipeline.evaluation.earlier import earlier_nights
from lab_pipeline.evaluation.gain import Losses
from lab_pipeline.evaluation.gate import Answers, compare, decide
from lab_pipeline.evaluation.judged import Questions, deciding_interval, judge_models, judging_inputs, unanswered
from lab_pipeline.evaluation.measured_model import EXAM, MeasuredModel, stored_losses
from lab_pipeline.evaluation.report import write_report
from lab_pipeline.evaluation.tasks import measure_tasks, surely_worse
from lab_pipeline.evaluation.unlearning import gone_questions, measure_unlearning
from lab_pipeline.models.base_model import BaseModel
from lab_pipeline.models.packing import MEASURE
from lab_pipeline.registry.candidate import Candidate
from lab_pipeline.registry.champion import Champion, current_champion, history
from lab_pipeline.taxonomy.snapshot import Snapshot

BASE = "base"
GENERAL = "general"


@dataclass(frozen=True)
class RetuneData:
    """The catalog and snapshot of the rows that a candidate was trained on, and the questions that test it."""

    catalog: Catalog
    snapshot: Snapshot
    heldout: HeldoutSet


def retune_inputs(
    catalog: Catalog, heldout_digest: str, general: GeneralSets, base_identity: str, recipe: Recipe, settings: Settings
) -> str:
    """Fingerprint all that a retune's outcome depends on.

    The fingerprint covers the leaves' rows, test questions, general rows, custom data sets, base model, recipe, seed, gate
    policy, exam settings, tasks, judge, and the way in which losses are measured.

    Raises:
        CustomDataError: a data set that the settings name cannot be read.
    """
    trained = [catalog.contents, heldout_digest, general.replay, base_identity, recipe.identity, settings.seed]
    measured = [settings.gate.model_dump(), settings.exam.model_dump(), *judging_inputs(settings), MEASURE]
    measured += [settings.measures.model_dump()] if settings.measures.tasks else []
    custom = [custom_contents(settings.mixing.knowledge), custom_contents(settings.mixing.skills)]
    return digest([*trained, *measured, *custom])


def last_evaluation(home: Home) -> Evaluation | None:
    """Return the last evaluation, with its report's present path in this home; None before the first evaluation."""
    path = home.evaluations / "last.json"
    if not path.exists():
        return None
    last: Evaluation = read_json(path)
    folder = Path(last["report"]).parent.name  # earlier releases stored the path in the home's place of then
    return {**last, "report": str(home.evaluations / folder / "report.md")}


def nothing_changed(home: Home, inputs: str) -> bool:
    """Tell whether the last candidate was evaluated on these inputs and its verdict was carried out.

    A promotion is carried out when the history holds the candidate with the evaluation's catalog. A rejection is carried out
    while the champion, or the base model without one, is the model that the candidate was compared with, or while the candidate
    is the champion because a person promoted it.
    """
    last = last_evaluation(home)
    if last is None or last["inputs"] != inputs:
        return False
    if last["verdict"]["promoted"]:
        return any((move["id"], move["catalog"]) == (last["candidate"], last["catalog"]) for move in history(home))
    return _reference(current_champion(home)) in (last["reference"], last["candidate"])


def evaluate(
    home: Home,
    settings: Settings,
    inputs: str,
    base: BaseModel,
    candidate: Candidate,
    data: RetuneData,
    provenance: Provenance,
    say: Say,
) -> Evaluation:
    """Measure candidate, base model and champion on the same questions, apply the gate; store and return the evaluation.

    The report is written beside it. An earlier evaluation of the same inputs, candidate and reference is replaced. But if the
    last evaluation has the same inputs and candidate, and either the candidate has become champion, or the reference is the
    same and the judge, if there is one, answered, nothing is measured, and the last evaluation is returned as it is.

    Args:
        inputs: fingerprint by `retune_inputs`.
        provenance: what the candidate was trained from; stored in the evaluation, for the model's lineage.
    """
    champion = current_champion(home)
    last = last_evaluation(home)
    if last and last["inputs"] == inputs and last["candidate"] == candidate.id:
        valid = last["reference"] == _reference(champion) and not unanswered(last)
        if valid or (champion and champion.id == candidate.id):
            return last
    leaves = data.heldout["leaves"]
    exam = {f"{EXAM}{leaf}": questions for leaf, questions in data.heldout.get("exam", {}).items()}
    asked = {**leaves, **exam}
    distractors, general = _distractors(home, data, asked, settings.seed), data.heldout["general"]
    models = {BASE: MeasuredModel(base.folder, base.digest), "candidate": MeasuredModel(candidate.model, candidate.digest)}
    if champion:
        models["champion"] = MeasuredModel(champion.model, champion.digest)
    measured = {name: _measured(home, name, model, asked, distractors, general, say) for name, model in models.items()}
    scores = {name: losses for name, (losses, _) in measured.items()}
    ranks = {name: found for name, (_, found) in measured.items()}
    for leaf in set(settings.gate.allowed_regressions) - {*leaves, GENERAL}:
        say(f"settings.yaml: gate.allowed_regressions names {leaf}, which is no leaf in use")
    reference = "champion" if champion else BASE
    folder = home.evaluations / digest([inputs, candidate.id, _reference(champion)])
    judged = judge_models(home, settings, models, reference, leaves, folder, say)
    acceptance = ask_acceptance(home, data.heldout.get("acceptance", []), models, say)
    unlearned = measure_unlearning(home, gone_questions(home, champion, data.catalog), models, settings.gate, say)
    measures = measure_tasks(home, models, reference, settings.measures, settings.gate.confidence, say)
    changed = _changed_leaves(data.catalog, champion)
    found = _paired(scores, reference, [*asked, GENERAL])
    pairs = {leaf: found[leaf] + found.get(f"{EXAM}{leaf}", []) for leaf in leaves}
    counted = (leaves.keys() & changed) - {*settings.gate.allowed_regressions}
    verdict = decide(
        changed={leaf: pairs[leaf] for leaf in leaves if leaf in changed},
        unchanged={leaf: pairs[leaf] for leaf in leaves if leaf not in changed},
        general=found[GENERAL],
        identical=champion is not None and champion.digest == candidate.digest,
        policy=settings.gate,
        answers=Answers(
            judged=deciding_interval(judged, settings.gate),
            choices=compare_choices(ranks, reference, settings.gate),
            lost=[label(each) for each in lost_questions(acceptance, reference)],
            tasks=surely_worse(measures),
            people=compare({leaf: found[leaf] for leaf in counted}, settings.gate.confidence) if exam else None,
        ),
        first=champion is None,
        earlier=earlier_nights(home, candidate.digest, provenance["recipe"], base.identity),
    )
    confidence = settings.gate.confidence
    evaluation: Evaluation = {
        "inputs": inputs,
        "candidate": candidate.id,
        "digest": candidate.digest,
        "reference": _reference(champion),
        "base_model": base.identity,
        "taxonomy_commit": data.snapshot.taxonomy_commit,
        "snapshot": data.snapshot.id,
        "catalog": data.catalog.contents,
        "changed": sorted(changed),
        "policy": settings.gate.model_dump(),
        "verdict": cast(VerdictRecord, asdict(verdict)),
        "heldout": {
            **_measure_leaves(leaves, scores, ranks, confidence),
            "leaves": {leaf: _measure_leaves([leaf], scores, ranks, confidence) for leaf in leaves},
        },
        "exam": {
            **_measure_leaves(exam, scores, ranks, confidence),
            "leaves": {name.removeprefix(EXAM): _measure_leaves([name], scores, ranks, confidence) for name in exam},
        },
        "judged": judged,
        "measures": measures,
        "acceptance": acceptance,
        "unlearned": unlearned,
        "general": _measure([GENERAL], scores, confidence),
        "leaves": _evaluated_leaves(data),
        **provenance,
        "evaluated_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "report": str(folder / "report.md"),
    }
    questions = question_results(asked, scores, ranks)
    write_report(evaluation, report_details(home, evaluation, data.heldout, scores, questions, models, say), questions)
    stored = {**evaluation, "report": f"{folder.relative_to(home.root)}/report.md"}  # a home can be moved
    write_json(folder / "evaluation.json", stored)
    write_json(home.evaluations / "last.json", stored)
    last = last_evaluation(home)
    assert last
    return last


def _reference(champion: Champion | None) -> str:
    """Return the id of the model that a candidate is compared with: the champion, or `BASE` without one."""
    return champion.id if champion else BASE


def _changed_leaves(catalog: Catalog, champion: Champion | None) -> set[str]:
    """Return the leaves whose content differs from what the champion was trained on; all leaves without a champion.

    If no leaf was changed or removed, something else was, such as the recipe or the base model: all leaves count as changed.
    """
    now = catalog.contents
    before = champion.catalog if champion else {}
    changed = {leaf for leaf, content in now.items() if before.get(leaf) != content}
    return changed if changed or before.keys() - now.keys() else set(now)


def _evaluated_leaves(data: RetuneData) -> list[EvaluatedLeaf]:
    rows = {row["leaf"]: row for row in data.snapshot.rows}
    both: list[Mapping[str, object]] = [{**rows[entry["leaf"]], **entry} for entry in data.catalog.in_use]
    return [cast(EvaluatedLeaf, {name: each[name] for name in EvaluatedLeaf.__annotations__}) for each in both]


def _measured(
    home: Home,
    role: str,
    model: MeasuredModel,
    asked: Questions,
    distractors: Mapping[str, list[list[str]]],
    general: Sequence[GeneralQuestion],
    say: Say,
) -> tuple[dict[str, list[float]], dict[str, list[Rank | None]]]:
    """Return one model's loss on every question, by leaf, and the rank of its reference answer among the wrong ones.

    Losses are in nats per answer token; those on general questions are under `GENERAL`.
    """
    choices = {
        leaf: [with_choices(question, others) for question, others in zip(questions, distractors[leaf], strict=True)]
        for leaf, questions in asked.items()
    }
    answers = [answer for questions in choices.values() for question in questions for answer in question]
    losses = iter(stored_losses(home, role, model, [*answers, *general], say))
    found = {leaf: [list(islice(losses, len(question))) for question in questions] for leaf, questions in choices.items()}
    scores = {leaf: [each[0] for each in questions] for leaf, questions in found.items()}
    return {**scores, GENERAL: list(losses)}, {leaf: list(map(rank_reference, questions)) for leaf, questions in found.items()}


def _distractors(home: Home, data: RetuneData, asked: Questions, seed: int) -> dict[str, list[list[str]]]:
    """Return wrong choices for each question, by leaf: those that the teacher wrote beside it, else drawn ones. For seeds these
    are answers of the leaf's other seeds, held out or not, for exam questions those of its other exam questions, so that style
    gives nothing away."""
    seeds = {entry["leaf"]: frozen_leaf(home, entry)["seeds"] for entry in data.catalog.in_use}
    drawn = {}
    for leaf, questions in asked.items():
        answers = [example["answer"] for example in (*questions, *seeds.get(leaf, []))]
        drawn[leaf] = [question.get("wrong") or draw_distractors(question, answers, seed) for question in questions]
    return drawn


def _paired(scores: Scores, reference: str, leaves: Iterable[str]) -> Losses:
    return {leaf: list(zip(scores["candidate"][leaf], scores[reference][leaf], strict=True)) for leaf in leaves}


def _measure_leaves(leaves: Iterable[str], scores: Scores, ranks: Ranks, confidence: float) -> LeafMeasurement:
    """Return mean losses and multiple-choice scores of all models over some leaves.

    Without a champion, its loss and its score are None. Without questions, all losses are None. A model's multiple-choice
    score is also None if none of its questions was ranked.
    """
    leaves = list(leaves)
    choices: dict[str, ChoiceScore | None] = {
        name: summarise_ranks([rank for leaf in leaves for rank in ranks[name][leaf]]) if name in ranks else None
        for name in (BASE, "champion", "candidate")
    }
    return {**_measure(leaves, scores, confidence), "ranks": choices}


def _measure(leaves: list[str], scores: Scores, confidence: float) -> Measurement:
    """Return the mean losses of all models over some leaves, and the candidate's minus the base model's with its interval.

    Without questions, all values but their number are None; without a champion, its loss is.
    """
    compared = compare(_paired(scores, BASE, leaves), confidence)
    champion = [loss for leaf in leaves for loss in scores.get("champion", {}).get(leaf, [])]
    return {
        "base": compared.reference if compared else None,
        "champion": sum(champion) / len(champion) if champion else None,
        "candidate": compared.candidate if compared else None,
        "difference": compared.difference if compared else None,
        "interval": list(compared.interval) if compared and compared.interval else None,
        "questions": compared.questions if compared else 0,
    }

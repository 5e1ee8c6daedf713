"""Write exam questions: the teacher asks about a knowledge leaf's documents, under prompts of its own, to test models.

People hold out three to eight seeds of a leaf, too few to see a small gain. Exam questions add to them as many as
`exam.gain` needs. They are made as rows are, by the leaf's own flow with its judges and rules, but by one stage
with a prompt of `flows/exam`, in a journal of their own. So no prompt that writes rows shows them. They are entered in the
held-out ledger, so no training row repeats them; one that repeats a seed in use or a question already taught is left out.

Each leaf's questions are stored under the hash of what they were made from. A changed threshold costs no call, and a changed
document only its own leaf.
"""

import asyncio
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypedDict, cast

from filelock import FileLock

from lab_pipeline.config.settings import Settings
from lab_pipeline.core import event_loop
from lab_pipeline.core.home import Home
from lab_pipeline.core.progress import Progress, Say
from lab_pipeline.core.rows import EXAM_SCHEMA, CatalogEntry, CuratedRow, ExamRow, FrozenLeaf, GeneratedRow, HeldoutQuestion
from lab_pipeline.core.storage import digest, read_json, read_rows, write_json, write_rows
from lab_pipeline.curation.curate import Curation
from lab_pipeline.curation.profile import profile
from lab_pipeline.curation.version import CURATION_VERSION
from lab_pipeline.datasets.catalog import frozen_leaf
from lab_pipeline.flows.choose import flows_of_leaves
from lab_pipeline.flows.flow import SHIPPED, Flow, Stage
from lab_pipeline.flows.prompts import load_prompt
from lab_pipeline.instructions.generate import Draft, continue_drafts, first_drafts, judge
from lab_pipeline.instructions.judge_calibration import Separations, separation
from lab_pipeline.instructions.replies import cut_at_labels
from lab_pipeline.taxonomy.holdout import Ledger, taught_questions
from lab_pipeline.taxonomy.leaf import Seed
from lab_pipeline.taxonomy.reviews import Review
from lab_pipeline.teacher.journal import Budget, Counted, JournaledTeacher
from lab_pipeline.teacher.protocol import NO_ANSWER, Teacher, TeacherError
from lab_pipeline.text.words import content_words, negated, normalised

LEAF_NOISE, QUESTION_NOISE = 0.1, 0.4
"""Standard deviations, in nats per token, by which a retrain moves a leaf's questions together, and each by itself."""
MOST_QUESTIONS = 100
EMBEDDED_QUESTIONS = 8
"""Default maximum for an embedded teacher: more would let a retune on a laptop take longer than the questions are worth."""
_SPARE = 1.5
"""How many times as many questions are asked for as are wanted, because some are rejected."""
_MOST_IN_A_REPLY = 20
_TOKENS_OF_A_QUESTION = 160
"""Room in a reply for a question with its answer and three wrong answers."""


class LeafExam(TypedDict):
    """Exam questions of one leaf, and what they were made from; stored in the leaf's folder."""

    source: str
    """Fingerprint of the frozen leaf whose documents they ask about."""
    made_from: str
    """Fingerprint of all that they were made from, thresholds included."""
    wanted: int
    funnel: dict[str, int]
    """Number of questions `written`, left out by each rule, and `kept`."""
    questions: list[HeldoutQuestion]


@dataclass(frozen=True)
class ExamPlan:
    """What a leaf's exam questions are to be made from."""

    leaf: FrozenLeaf
    source: str
    flow: Flow
    """The leaf's flow with the exam's stage in place of its own."""
    wanted: int
    written: str
    """Fingerprint by which the questions with their scores are stored, before rules and thresholds choose among them."""
    judge: str
    """Identity of the judge."""
    reviews: list[Review]

    @property
    def made_from(self) -> str:
        """Return the fingerprint of the chosen questions."""
        reviewed = [review.model_dump(mode="json") for review in self.reviews]
        return digest([self.written, self.flow.curation_digest, CURATION_VERSION, self.wanted, reviewed])


def questions_needed(gain: float) -> int:
    """Return how many questions a leaf needs for a gain of that many nats per token to be found in 80 of 100 cases.

    One leaf of twenty changed, tested as the gate does: its mean difference has the variance
    LEAF_NOISE**2 + QUESTION_NOISE**2 / n, which must not exceed (gain / (1.78 + 0.86))**2, with the t quantiles of 4.5 % and
    80 % at 19 degrees of freedom (Cohen, *Statistical Power Analysis*, 1988, chapter 2). Where the noise of a retrain alone
    hides such a gain, no number of questions is enough: `MOST_QUESTIONS`.
    """
    left = (gain / (1.78 + 0.86)) ** 2 - LEAF_NOISE**2
    return min(MOST_QUESTIONS, math.ceil(QUESTION_NOISE**2 / left)) if left > 0 else MOST_QUESTIONS


def wanted_questions(settings: Settings) -> int:
    """Return how many exam questions each knowledge leaf should have, as the settings say; none if nothing is generated."""
    if not settings.mixing.generated:
        return 0
    default = EMBEDDED_QUESTIONS if settings.teacher.kind == "embedded" else MOST_QUESTIONS
    return min(questions_needed(settings.exam.gain), default if settings.exam.most is None else settings.exam.most)


def plan_exam(
    home: Home,
    leaves: Sequence[CatalogEntry],
    settings: Settings,
    identities: tuple[str, str],
    reviews: Mapping[str, list[Review]],
) -> list[ExamPlan]:
    """Return the plan of each knowledge leaf in use, from the documents that its rows were made from; none if none is wanted.

    Args:
        identities: of teacher and judge.
        reviews: people's reviews by leaf; an exam question can be banned like a row.

    Raises:
        FlowError: a flow named in the settings cannot be used.
    """
    wanted = wanted_questions(settings)
    knowledge = [entry for entry in leaves if entry["kind"] == "knowledge"] if wanted else []
    flows = flows_of_leaves(settings, {entry["leaf"]: "knowledge" for entry in knowledge})
    plans = []
    for entry in knowledge:
        leaf = frozen_leaf(home, entry)
        if not leaf["passages"]:
            continue
        flow = exam_flow(flows[entry["leaf"]], wanted, len(leaf["passages"]))
        made = [leaf["passages"], leaf["domain"], leaf["outline"], flow.generation_digest, flow.judging_digest]
        written = digest([*made, *identities, wanted, settings.seed])
        in_force = reviews.get(entry["leaf"], [])
        plans.append(ExamPlan(leaf, str(entry["source"]), flow, wanted, written, identities[1], in_force))
    return plans


def exam_flow(flow: Flow, wanted: int, passages: int) -> Flow:
    """Return a leaf's flow with one stage, the exam's, in place of its own; start, judges and rules stay."""
    if flow.file.start.answers:
        name, stage = "question.yaml", {"output": "question", "max_tokens": 40, "first_line": True}
    else:
        several = min(_MOST_IN_A_REPLY, max(2, math.ceil(_SPARE * wanted / passages)))
        name, stage = "pairs.yaml", {"output": "pairs", "max_tokens": _TOKENS_OF_A_QUESTION * several, "several": several}
    prompt = f"exam/{name}"
    judges = [each for each in flow.file.judges if each.before is None]
    change = {
        "start": flow.file.start.model_copy(update={"repeats": 1}),
        "augmentations": (),
        "stages": (Stage.model_validate({**stage, "prompt": prompt}),),
        "judges": tuple(judges),
    }
    prompts = {**flow.prompts, prompt: load_prompt(SHIPPED / prompt)}
    return replace(flow, name=f"exam of {flow.name}", file=flow.file.model_copy(update=change), prompts=prompts)


def write_exams(
    home: Home, plans: Sequence[ExamPlan], settings: Settings, teachers: tuple[Teacher, Teacher], say: Say
) -> dict[str, str]:
    """Write and store the exam questions that are not stored yet; return why, by leaf, for each leaf whose calls failed.

    A leaf that fails does not stop the others; its replies so far stay in its journal. Leaves whose plan did not change cost
    nothing.
    """
    missing = [plan for plan in plans if not _rows_file(home, plan).exists()]
    failed: dict[str, str] = {}
    if missing:
        event_loop.run(_write_all(home, missing, settings, teachers, say, failed))
    for plan in plans:
        stored = leaf_exam(home, plan.leaf["leaf"])
        current = stored and (stored["source"], stored["made_from"]) == (plan.source, plan.made_from)
        if plan.leaf["leaf"] not in failed and not current:
            with FileLock(home.heldout_ledger.with_suffix(".lock")):
                _store(home, plan, Ledger(home.heldout_ledger, lambda: taught_questions(home)))
    return failed


def leaf_exam(home: Home, leaf: str) -> LeafExam | None:
    """Read the exam questions of a leaf that were stored last; None if there are none."""
    path = _exam_file(home, leaf)
    return read_json(path) if path.exists() else None


def exam_questions(home: Home, leaves: Sequence[CatalogEntry]) -> dict[str, list[HeldoutQuestion]]:
    """Return the exam questions of those leaves whose questions were made from the documents that its rows were made from."""
    stored = {entry["leaf"]: (entry["source"], leaf_exam(home, entry["leaf"])) for entry in leaves}
    return {leaf: exam["questions"] for leaf, (source, exam) in stored.items() if exam and exam["source"] == source}


async def _write_all(
    home: Home,
    plans: Sequence[ExamPlan],
    settings: Settings,
    teachers: tuple[Teacher, Teacher],
    say: Say,
    failed: dict[str, str],
) -> None:
    budget = Budget.of(settings)
    drafts = {plan.leaf["leaf"]: _starts(plan, settings.seed) for plan in plans}
    progress = Progress("exam questions", sum(map(len, drafts.values())), say)
    calibrating = JournaledTeacher(teachers[1], home.judges / "journal", budget)
    separations = Separations(home, calibrating, say)

    async def write(plan: ExamPlan) -> None:
        folder = home.leaf(plan.leaf["leaf"]) / "exam-journal"
        teacher, judge_model = (JournaledTeacher(model, folder, budget) for model in teachers)
        try:
            await separations.trusted(plan.flow)  # stores what the judges are worth, for `_store`
            starts = drafts[plan.leaf["leaf"]]
            rows = await continue_drafts(starts, plan.flow, Counted(teacher, progress), judge_model, settings.seed, "")
            unanswered = sum((row["fault"] or "").startswith(NO_ANSWER) for row in rows)
            if rows and unanswered > len(rows) / 2:
                raise TeacherError(f"{NO_ANSWER} for {unanswered} of {len(rows)} exam questions")
            parted = list(map(_without_wrong_answers, rows))
            judged = await judge([row for _, row in parted], plan.leaf, plan.flow, judge_model)
        except TeacherError as error:
            await asyncio.gather(*(model.settle() for model in (teacher, judge_model, calibrating)))
            failed[plan.leaf["leaf"]] = str(error)
            return
        found = [{**row, "wrong": wrong} for row, (wrong, _) in zip(judged, parted, strict=True)]
        write_rows(_rows_file(home, plan), found, EXAM_SCHEMA)

    await asyncio.gather(*map(write, plans))


def _without_wrong_answers(row: GeneratedRow) -> tuple[list[str], GeneratedRow]:
    """Return the wrong answers that stand behind a row's answer, each once, and the row with the answer alone.

    One that says all that the answer says beyond the question is left out, because it may be right.
    """
    answer, wrong = cut_at_labels(row["answer"] or "", ("wrong answer", "wrong"))
    said, asked = set(content_words(answer)), set(content_words(row["question"] or ""))
    telling = said - asked or said
    false: dict[str, str] = {}
    for each in wrong:
        differs = not telling <= set(content_words(each)) or negated(each) != negated(answer)
        if differs and normalised(each) not in ("", normalised(answer)):
            false.setdefault(normalised(each), each)
    return list(false.values()), {**row, "answer": answer}


def _starts(plan: ExamPlan, seed: int) -> list[Draft]:
    """Return the sentences or passages to ask about: as many as are needed, from all over the documents.

    They are chosen by the hash of their text, so that after an edit most stay the same, and the journal has the replies.
    """
    stage = plan.flow.file.stages[0]
    number = math.ceil(_SPARE * plan.wanted / stage.several)
    drafts = first_drafts(plan.leaf, plan.flow, seed)
    chosen = sorted(drafts, key=lambda draft: digest([seed, draft.text]))[:number]
    leaf: FrozenLeaf = {**plan.leaf, "seeds": []}  # which are no part of what identifies exam questions
    return [replace(draft, leaf=leaf, origin=["exam", draft.text]) for draft in chosen]


def _store(home: Home, plan: ExamPlan, ledger: Ledger) -> None:
    """Choose among a leaf's written questions, and store those kept with a count of those left out, and why."""
    rows: list[ExamRow] = read_rows(_rows_file(home, plan))
    leaf, gating = profile(plan.leaf), [each for each in plan.flow.file.judges if each.gates]
    known = {each.name: separation(home, plan.flow, each, plan.judge) for each in gating}
    flow = plan.flow.trusting([name for name, found in known.items() if found and found["separates"]])
    kept, rejected = Curation(leaf, flow, plan.reviews).split(rows)
    left_out = Counter(row["rule"] for row in rejected)
    questions: list[HeldoutQuestion] = []
    for row in sorted(kept, key=lambda row: digest(row["id"])):
        if len(questions) == plan.wanted:
            left_out["more than wanted"] += 1
        elif _is_free(row, ledger):
            questions.append(_as_question(row))
        else:
            left_out["taught already"] += 1
    funnel = {"written": len(rows), **dict(left_out.most_common()), "kept": len(questions)}
    ledger.flush()
    exam: LeafExam = {
        "source": plan.source,
        "made_from": plan.made_from,
        "wanted": plan.wanted,
        "funnel": funnel,
        "questions": questions,
    }
    write_json(_exam_file(home, plan.leaf["leaf"]), exam)


def _is_free(row: CuratedRow, ledger: Ledger) -> bool:
    """Enter a question in the ledger, and tell whether it is held out: not if it repeats a seed in use or what is taught."""
    seed = Seed(row["question"], row["answer"], None, 0, 1, row["question"])
    return (ledger.roles.get(seed.identity) or ledger.assign(seed, row["leaf"], hold_out=True)) == "held_out"


def _as_question(row: CuratedRow) -> HeldoutQuestion:
    question = {"id": row["id"], "question": row["question"], "answer": row["answer"], "context": None}
    wrong = cast(ExamRow, row).get("wrong")
    return cast(HeldoutQuestion, {**question, "wrong": wrong} if wrong else question)


def _rows_file(home: Home, plan: ExamPlan) -> Path:
    return home.leaf(plan.leaf["leaf"]) / f"exam-{plan.written}.parquet"


def _exam_file(home: Home, leaf: str) -> Path:
    return home.leaf(leaf) / "exam.json"

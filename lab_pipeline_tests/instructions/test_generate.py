from __future__ import annotations

import asyncio
import random
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lab_pipeline.core.rows import GENERATED_SCHEMA, JUDGED_SCHEMA
from lab_pipeline.core.storage import write_rows
from lab_pipeline.flows.flow import SHIPPED, Flow, FlowError, Judge, Stage, load_flow
from lab_pipeline.flows.prompts import load_prompt
from lab_pipeline.instructions.generate import first_drafts, generate, in_room, judge, supporting_sentence, with_room
from lab_pipeline.taxonomy.leaf import Kind
from lab_pipeline.teacher.protocol import Reply, Request, TeacherError
from lab_pipeline_tests.builders import JUDGED, JUDGES, edit_yaml, judged_copy
from lab_pipeline_tests.scripted_teacher import ScriptedTeacher, copying

SENTENCES = [
    "The loom is made of walnut.",
    "Its rear beam is called the Sleeper.",
    "No nails.",
    "It weighs 212 kilograms.",
]
"""The third is too short to start from."""


def source(kind: Kind, seeds: int = 5) -> dict[str, Any]:
    contexts = [None if kind == "freeform_skill" else f"Anna paints house {n}. Peter sells clock {n}." for n in range(seeds)]
    passage = {"document": "loom.md", "commit": "c0ffee", "heading": "Loom", "start": 10, "end": 90}
    return {
        "leaf": f"leaves/{kind}",
        "kind": kind,
        "task": "Do as shown.",
        "domain": "crafts",
        "outline": "About the loom.",
        "seeds": [
            {"context": context, "question": f"Who sells clock {n}?", "answer": f"Peter sells {n}"}
            for n, context in enumerate(contexts)
        ],
        "passages": [{**passage, "text": " ".join(SENTENCES)}] if kind == "knowledge" else [],
    }


def flow(kind: Kind) -> Flow:
    return load_flow(f"simple_{kind}", kind)


def judging_flow(kind: Kind) -> Flow:
    """A simple flow with a judge of whole rows."""
    own, judging = flow(kind), Judge(name=JUDGES[kind], prompt=f"{JUDGES[kind]}.yaml")
    prompts = {**own.prompts, judging.prompt: load_prompt(JUDGED / kind / judging.prompt)}
    return replace(own, file=own.file.model_copy(update={"judges": (judging,)}), prompts=prompts)


def generated(kind: Kind, teacher: ScriptedTeacher, seed: int = 17) -> list[dict[str, Any]]:
    return asyncio.run(generate(source(kind), flow(kind), teacher, ScriptedTeacher(), seed, "commit"))


def judged(kind: Kind, rows: list[dict[str, Any]], teacher: ScriptedTeacher) -> list[dict[str, Any]]:
    return asyncio.run(judge(rows, source(kind), judging_flow(kind), teacher))


def replying(stage: str, reply: str | Reply) -> ScriptedTeacher:
    """Good replies, but this one to the question or answer stage of the freeform flow."""

    def script(request: Request) -> str | Reply:
        asked = "question" if request.messages[-1].content.startswith("Write a new exercise.") else "answer"
        return reply if asked == stage and not request.choices else copying(request)

    return ScriptedTeacher(script)


def test_knowledge_starts_from_each_sentence_that_is_long_enough() -> None:
    begun = first_drafts(source("knowledge"), flow("knowledge"), 17)
    assert [draft.support for draft in begun] == [SENTENCES[0], SENTENCES[1], SENTENCES[3]]


@pytest.mark.parametrize("kind", ["grounded_skill", "freeform_skill"])
def test_skills_start_from_each_seed_as_often_as_the_flow_says(kind: Kind) -> None:
    begun = first_drafts(source(kind), flow(kind), 17)
    assert len(begun) == 5 * flow(kind).file.start.repeats
    assert len({str(draft.origin) for draft in begun}) == len(begun)


def test_rows_of_one_repeat_share_their_examples_and_other_repeats_draw_others() -> None:
    begun = first_drafts(source("freeform_skill", seeds=12), flow("freeform_skill"), 17)
    shown = [tuple(example["question"] for example in draft.examples) for draft in begun]
    repeats = flow("freeform_skill").file.start.repeats
    assert [len(set(shown[place : place + 12])) for place in range(0, len(shown), 12)] == [1] * repeats
    assert len(set(shown)) == repeats


def test_a_leaf_with_few_seeds_shows_those_it_has() -> None:
    begun = first_drafts(source("knowledge", seeds=1), flow("knowledge"), 17)
    assert [len(draft.examples) for draft in begun] == [1, 1, 1]
    assert [draft.examples for draft in first_drafts(source("knowledge", seeds=0), flow("knowledge"), 17)] == [[], [], []]


def test_an_example_of_a_sentence_flow_is_shown_with_the_sentence_its_answer_stands_in() -> None:
    for example in first_drafts(source("knowledge"), flow("knowledge"), 17)[0].examples:
        assert example["support"] == f"Peter sells clock {example['answer'][-1]}."
    seed = {"question": "What is the rear beam called?", "answer": "The Sleeper"}
    assert supporting_sentence(" ".join(SENTENCES), seed) == SENTENCES[1]


def test_the_random_seed_decides_on_examples_and_sampling() -> None:
    def prompts(seed: int) -> list[Request]:
        teacher = ScriptedTeacher()
        generated("freeform_skill", teacher, seed)
        return teacher.requests

    assert prompts(17) == prompts(17)
    assert prompts(17) != prompts(18)


@pytest.mark.parametrize(("kind", "rows"), [("knowledge", 9), ("grounded_skill", 30), ("freeform_skill", 30)])
def test_every_start_and_sample_becomes_one_whole_row(kind: Kind, rows: int, tmp_path: Path) -> None:
    table = generated(kind, ScriptedTeacher())
    assert len(table) == rows
    assert len({row["id"] for row in table}) == rows
    for row in table:
        assert row["fault"] is None
        assert row["question"] and row["answer"]
        assert (row["leaf"], row["kind"], row["taxonomy_commit"]) == (f"leaves/{kind}", kind, "commit")
        assert (row["flow"], row["flow_version"], row["teacher"]) == (f"simple_{kind}", flow(kind).file.version, "scripted")
    write_rows(tmp_path / "table.parquet", table, GENERATED_SCHEMA)


def test_a_knowledge_row_knows_its_sentence_and_the_span_of_its_document() -> None:
    for row in generated("knowledge", ScriptedTeacher()):
        assert row["support"] in SENTENCES
        assert row["answer"] == row["support"]
        assert (row["document"], row["document_commit"], row["span_start"], row["span_end"]) == (
            "loom.md",
            "c0ffee",
            10,
            90,
        )
        assert row["context"] is None


@pytest.mark.parametrize(
    ("each", "parts"), [("sentence", [SENTENCES[0], SENTENCES[1], SENTENCES[3]]), ("passage", [" ".join(SENTENCES)])]
)
def test_where_the_start_is_the_answer_the_teacher_is_asked_for_questions_only(
    each: str, parts: list[str], tmp_path: Path
) -> None:
    folder = shutil.copytree(SHIPPED / "simple_knowledge", tmp_path / "own")
    edit_yaml(folder / "flow.yaml", lambda file: file["start"].update(each=each))
    own, teacher = load_flow(str(folder)), ScriptedTeacher(lambda request: "What is it?")
    rows = asyncio.run(generate(source("knowledge"), own, teacher, ScriptedTeacher(), 17, ""))
    samples = len(own.file.stages[0].temperatures)
    assert len(teacher.requests) == len(rows) == samples * len(parts)
    found = [(row["question"], row["answer"], row["support"]) for row in rows]
    assert found == [("What is it?", part, part) for part in parts for _ in range(samples)]


def test_a_question_that_failed_stays_a_fault_where_the_start_is_the_answer() -> None:
    for row in generated("knowledge", ScriptedTeacher(lambda request: "")):
        assert (row["question"], row["fault"]) == ("", "question empty")


def test_no_prompt_sees_an_answer_before_there_is_one() -> None:
    own = flow("freeform_skill")
    own = replace(own, prompts={**own.prompts, "question.yaml": [{"role": "user", "content": "{{ answer }}"}]})
    with pytest.raises(FlowError, match=r"flow simple_freeform_skill, question\.yaml: 'answer' is undefined"):
        asyncio.run(generate(source("freeform_skill"), own, ScriptedTeacher(), ScriptedTeacher(), 17, ""))


def test_a_grounded_row_is_supported_by_the_context_that_was_written_for_it() -> None:
    for row in generated("grounded_skill", ScriptedTeacher()):
        assert row["support"] == row["context"]
        assert row["context"].startswith("Person ")
        assert row["document"] is None


def test_samples_at_a_temperature_have_seeds_of_their_own_and_greedy_ones_have_none() -> None:
    teacher = ScriptedTeacher()
    generated("freeform_skill", teacher)
    sampled = [request.seed for request in teacher.requests if request.temperature]
    assert len(set(sampled)) == len(sampled) == 30
    assert {request.seed for request in teacher.requests if not request.temperature} == {0}


@pytest.mark.parametrize("kind", ["knowledge", "grounded_skill", "freeform_skill"])
def test_rows_and_their_order_do_not_depend_on_the_pace_of_replies(kind: Kind) -> None:
    calm = generated(kind, ScriptedTeacher())
    for shuffle in range(3):
        paces = random.Random(shuffle)
        hasty = ScriptedTeacher(pace=lambda number, paces=paces: paces.randrange(40))  # type: ignore[misc]
        rows = generated(kind, hasty)
        assert rows == calm
        assert judged(kind, rows, hasty) == judged(kind, calm, ScriptedTeacher())


def test_equal_replies_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        rows = judged("knowledge", generated("knowledge", ScriptedTeacher()), ScriptedTeacher())
        write_rows(tmp_path / name, rows, JUDGED_SCHEMA)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_another_reply_makes_another_row_id() -> None:
    one = generated("freeform_skill", ScriptedTeacher())
    other = generated("freeform_skill", replying("answer", "Of walnut."))
    assert not {row["id"] for row in one} & {row["id"] for row in other}


@pytest.mark.parametrize(
    ("stage", "reply", "fault"),
    [
        ("question", "", "question empty"),
        ("question", "  \n ", "question empty"),
        ("question", Reply("What is", "length", 1, 60), "question cut off at 60 tokens"),
        ("answer", "", "answer empty"),
        ("answer", Reply("It is", "length", 1, 80), "answer cut off at 80 tokens"),
        ("answer", Reply("", "length", 1, 80), "answer empty"),
    ],
)
def test_an_empty_or_cut_off_reply_is_a_fault_of_its_row(stage: str, reply: str | Reply, fault: str, tmp_path: Path) -> None:
    rows = generated("freeform_skill", replying(stage, reply))
    assert [row["fault"] for row in rows] == [fault] * 30
    assert all(row["answer"] is None for row in rows) == (stage == "question")
    write_rows(tmp_path / "table.parquet", rows, GENERATED_SCHEMA)


def test_after_a_fault_the_row_is_asked_nothing_more() -> None:
    teacher = replying("question", "")
    rows = judged("freeform_skill", generated("freeform_skill", teacher), teacher)
    assert len(teacher.requests) == 30
    assert [row["scores"] for row in rows] == [[]] * 30


def test_a_stage_that_wants_a_line_keeps_the_first_one_even_of_a_reply_that_was_cut_off_later() -> None:
    (row, *_) = generated("freeform_skill", replying("question", Reply("\n Of walnut? \nAnswer: and", "length", 1, 60)))
    assert (row["question"], row["fault"]) == ("Of walnut?", None)


def test_a_stage_that_wants_more_than_a_line_keeps_all_of_them() -> None:
    (row, *_) = generated("freeform_skill", replying("answer", "Of walnut.\nAnd cork.\n"))
    assert row["answer"] == "Of walnut.\nAnd cork."


def judging(reply: str | Reply) -> list[dict[str, Any]]:
    rows = generated("knowledge", ScriptedTeacher())
    (score,) = judged("knowledge", rows, ScriptedTeacher(lambda request: reply))[0]["scores"]
    return score


def test_a_score_is_the_probability_of_the_accepted_choice() -> None:
    verdict = Reply("No", "stop", 1, 1, {"Yes": 0.25, "No": 0.75})
    assert judging(verdict) == {"judge": "faithful", "score": 0.25, "verdict": "No"}


@pytest.mark.parametrize(
    ("said", "score", "verdict"),
    [
        ("Yes", 1.0, "Yes"),
        (" yes, it does", 1.0, "Yes"),
        ("No.", 0.0, "No"),
        ("It says so", None, "unreadable"),
        ("", None, "unreadable"),
    ],
)
def test_without_probabilities_the_judges_word_counts(said: str, score: float | None, verdict: str) -> None:
    assert judging(said) == {"judge": "faithful", "score": score, "verdict": verdict}


@pytest.mark.parametrize(("characters", "room"), [(20, 80), (240, 80), (600, 200), (5000, 320)])
def test_a_leaf_with_long_seeds_gives_its_replies_more_room_within_bounds(characters: int, room: int) -> None:
    leaf = source("freeform_skill")
    leaf["seeds"][0]["answer"] = "x" * characters
    teacher = ScriptedTeacher()
    asyncio.run(generate(leaf, flow("freeform_skill"), teacher, ScriptedTeacher(), 17, "commit"))
    assert {request.max_tokens for request in teacher.requests} == {60, room}, "the questions stay short"


def test_several_items_in_one_reply_have_room_for_each() -> None:
    stage = Stage(output="pairs", prompt="p", max_tokens=100, several=5)
    seeds: list[Any] = [{"context": None, "question": "x" * 30, "answer": "é" * 60}]  # 150 bytes
    assert with_room(stage, seeds).max_tokens == 250
    assert with_room(stage, []) == stage


@pytest.mark.parametrize(("unreadable", "score"), [(1, 1.0), (2, 1.0), (3, None)])
def test_an_unreadable_verdict_is_asked_for_again_by_sampling_then_counted(unreadable: int, score: float | None) -> None:
    rows = generated("knowledge", ScriptedTeacher())[:1]
    replies = iter(["Hm."] * unreadable + ["Yes"])
    teacher = ScriptedTeacher(lambda request: next(replies))
    (found,) = judged("knowledge", rows, teacher)[0]["scores"]
    assert (found["score"], found["verdict"]) == (score, "unreadable" if score is None else "Yes")
    assert [(request.temperature > 0, request.seed) for request in teacher.requests] == [(False, 0), (True, 1), (True, 2)][
        : unreadable + 1
    ]


def test_the_judge_sees_the_row_and_may_say_the_flows_choices_only() -> None:
    teacher = ScriptedTeacher()
    rows = judged("knowledge", generated("knowledge", ScriptedTeacher()), teacher)
    assert len(teacher.requests) == len(rows)
    for row, request in zip(rows, teacher.requests, strict=True):
        assert set(request.choices) == {"Yes", "No"}
        for text in (row["support"], row["question"], row["answer"]):
            assert text in request.messages[-1].content


def test_judging_changes_nothing_else_in_a_row() -> None:
    rows = generated("knowledge", ScriptedTeacher())
    scored = judged("knowledge", rows, ScriptedTeacher())
    assert [{**row, "scores": None} for row in scored] == [{**row, "scores": None} for row in rows]


def test_a_judge_before_a_stage_scores_a_row_once_even_if_two_stages_write_that_column(tmp_path: Path) -> None:
    folder = judged_copy("freeform_skill", tmp_path / "own")
    revise = {"output": "answer", "prompt": "revise.yaml", "max_tokens": 80}
    edit_yaml(folder / "flow.yaml", lambda file: file["stages"].append(revise))
    edit_yaml(folder / "flow.yaml", lambda file: file["judges"].append({**file["judges"][0], "name": "b", "before": "answer"}))
    (folder / "fits_instruction.yaml").write_text("- {role: user, content: 'Judge {{ question }}'}")
    (folder / "revise.yaml").write_text("- {role: user, content: 'Revise {{ answer }}'}")
    teacher, judges = ScriptedTeacher(lambda request: f"{request.messages[-1].content[:6]}?"), ScriptedTeacher()
    judges.script = lambda request: "Yes"
    rows = asyncio.run(generate(source("freeform_skill"), load_flow(str(folder)), teacher, judges, 17, ""))
    assert {(row["answer"], len(row["scores"])) for row in rows} == {("Revise?", 1)}


def test_a_stage_can_revise_what_an_earlier_one_wrote(tmp_path: Path) -> None:
    folder = shutil.copytree(SHIPPED / "simple_freeform_skill", tmp_path / "own")
    revise = {"output": "answer", "prompt": "revise.yaml", "max_tokens": 80}
    edit_yaml(folder / "flow.yaml", lambda file: file["stages"].append(revise))
    (folder / "revise.yaml").write_text("- {role: user, content: 'Revise: {{ question }} -> {{ answer }}'}")

    def script(request: Request) -> str | Reply:
        last = request.messages[-1].content
        return last.upper() if last.startswith("Revise: ") else copying(request)

    teacher = ScriptedTeacher(script)
    rows = asyncio.run(generate(source("freeform_skill"), load_flow(str(folder)), teacher, ScriptedTeacher(), 17, "commit"))
    assert [row["question"] for row in rows] == [row["question"] for row in generated("freeform_skill", ScriptedTeacher())]
    for row in rows:
        assert row["answer"].startswith(f"Revise: {row['question']} -> ".upper())
        assert row["answer"].endswith(f"Dear neighbour, it is ready for you: {row['question']}".upper())


def test_a_teacher_that_gives_no_reply_ends_the_run_with_its_reason() -> None:
    def script(request: Request) -> str:
        raise TeacherError("out of paper")

    with pytest.raises(TeacherError, match="out of paper"):
        generated("knowledge", ScriptedTeacher(script))


def test_a_prompt_that_asks_for_what_rows_lack_ends_the_run() -> None:
    own = judging_flow("knowledge")
    own = replace(own, prompts={**own.prompts, "faithful.yaml": [{"role": "user", "content": "{{ grade }}"}]})
    rows = generated("knowledge", ScriptedTeacher())
    with pytest.raises(FlowError, match=r"flow simple_knowledge, faithful\.yaml: 'grade' is undefined"):
        asyncio.run(judge(rows, source("knowledge"), own, ScriptedTeacher()))


@pytest.mark.parametrize("asked_for", ["augmentation", "stage"])
def test_what_the_teacher_gave_no_answer_for_is_a_row_with_that_fault(asked_for: str, tmp_path: Path) -> None:
    why = "the teacher gave no answer: it refused: no"
    strong = load_flow("knowledge", "knowledge")
    asks = _augmenting(strong)

    def script(request: Request) -> Reply:
        refused = (request.messages in asks) == (asked_for == "augmentation")
        return Reply("", "stop", 1, 1, no_answer=why) if refused else Reply("Question: Who?\nAnswer: Anna.", "stop", 1, 1)

    rows = asyncio.run(generate(source("knowledge"), strong, ScriptedTeacher(script), ScriptedTeacher(), 17, "commit"))
    faults = [row for row in rows if row["fault"] == why]
    assert faults and {bool(row["augmentation"]) for row in faults} >= {asked_for == "augmentation"}
    assert {row["answer"] for row in faults} == {None}
    write_rows(tmp_path / "rows.parquet", rows, GENERATED_SCHEMA)


def _augmenting(strong: Flow) -> list[tuple[Any, ...]]:
    """The prompts for other forms of a text."""
    return [
        strong.render(wanted.prompt, draft.variables)
        for draft in first_drafts(source("knowledge"), strong, 17)
        for wanted in strong.file.augmentations
    ]


def test_as_many_items_are_worked_on_at_once_as_there_is_room_for_all_who_share_it() -> None:
    most = under_way = 0

    async def work(number: int) -> int:
        nonlocal most, under_way
        under_way += 1
        most = max(most, under_way)
        for _ in range(5 - number % 5):
            await asyncio.sleep(0)
        under_way -= 1
        return number

    async def two() -> list[list[int]]:
        room = asyncio.Semaphore(3)
        return await asyncio.gather(*(in_room(range(20), work, room) for _ in range(2)))

    assert asyncio.run(two()) == [list(range(20))] * 2
    assert most == 3


def test_the_first_error_ends_the_work_and_leaves_the_room_to_others() -> None:
    started: list[int] = []

    async def work(number: int) -> int:
        started.append(number)
        await asyncio.sleep(0)
        if number == 1:
            raise TeacherError("out of paper")
        await asyncio.sleep(0.01)
        return number

    async def after_an_error() -> list[int]:
        room = asyncio.Semaphore(2)
        with pytest.raises(TeacherError, match="out of paper"):
            await in_room(range(1000), work, room)
        return await asyncio.wait_for(in_room([7, 8, 9], work, room), 5)

    assert asyncio.run(after_an_error()) == [7, 8, 9]
    assert len(started) < 10


def test_a_draft_goes_on_while_others_of_its_leaf_are_at_an_earlier_stage() -> None:
    """Answers are asked for before the last question has come."""
    teacher = ScriptedTeacher(pace=lambda number: 1 if number > 1 else 200)
    rows = asyncio.run(generate(source("freeform_skill"), flow("freeform_skill"), teacher, ScriptedTeacher(), 17, "commit"))
    stages = [request.messages[-1].content.startswith("Write a new exercise") for request in teacher.requests]
    assert len(rows) == sum(stages) > 1
    assert stages.index(False) < len(stages) - 1, "the first request was a question, and its answer comes last"
    assert teacher.requests[-1].messages[-1].content == rows[0]["question"]

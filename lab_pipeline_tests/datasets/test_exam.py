from __future__ import annotations

import multiprocessing
import re
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab_pipeline.config.settings import ExamSettings, FlowSettings, MixingSettings, Settings
from lab_pipeline.config.teachers import EndpointTeacherSettings
from lab_pipeline.core.home import Home
from lab_pipeline.core.rows import CURATED_SCHEMA
from lab_pipeline.core.storage import read_json, read_lines, read_rows, write_rows
from lab_pipeline.datasets.catalog import current_catalog
from lab_pipeline.datasets.exam import ExamPlan, exam_flow, exam_questions, leaf_exam, plan_exam, questions_needed, write_exams
from lab_pipeline.datasets.heldout_questions import heldout_prompts
from lab_pipeline.datasets.mix import mix_knowledge
from lab_pipeline.flows.flow import load_flow
from lab_pipeline.taxonomy.reviews import Review
from lab_pipeline.teacher.choose import load_teachers, teacher_identities
from lab_pipeline.teacher.journal import read_journal
from lab_pipeline.teacher.protocol import Reply, Request, TeacherError
from lab_pipeline.text.leaks import LeakDetector
from lab_pipeline_tests.builders import KNOWLEDGE, edit_yaml, write_knowledge
from lab_pipeline_tests.datasets.filled import FilledHome, copied
from lab_pipeline_tests.scripted_teacher import ScriptedTeacher, copying
from lab_pipeline_tests.stub_endpoint import Answer, StubEndpoint
from lab_pipeline_tests.training.runs import recipe

OTHER = "knowledge/places/valleys"
NEAR = ("{}, please?", "Tell me: {}?", "{} - do you know?")
RECIPE = recipe(
    knowledge={"epochs": 1, "learning_rate": 1e-3, "general_replay": 0},
    skills={"epochs": 1, "learning_rate": 1e-3, "general_replay": 0, "phase_1_replay": 0.5},
)


def examining(request: Request) -> str | Reply:
    """Ask for the second half of a sentence, where the scripted teacher of the rows asks for the first."""
    return asking(request.messages[-1].content)


def asking(prompt: str) -> str:
    words = prompt.removeprefix("Sentence: ").rstrip(".").split()
    return f"Which place has to do with {' '.join(words[len(words) // 2 :])}, and how does it?"


def written(lab: FilledHome, teacher: ScriptedTeacher, most: int = 6, reviews: Any = None) -> dict[str, str]:
    return write_exams(lab.home, plans(lab, most, reviews), settings(lab, most), (teacher, teacher), lambda text: None)


def settings(lab: FilledHome, most: int) -> Any:
    return lab.settings.model_copy(update={"exam": ExamSettings(most=most)})


def plans(lab: FilledHome, most: int = 6, reviews: Any = None) -> list[ExamPlan]:
    return plan_exam(lab.home, lab.catalog().in_use, settings(lab, most), ("scripted", "scripted"), reviews or {})


def test_a_knowledge_leaf_gets_the_wanted_questions_and_they_are_in_the_test(lab):
    teacher = ScriptedTeacher(examining)
    assert written(lab, teacher) == {}
    exam = leaf_exam(lab.home, KNOWLEDGE)
    assert exam and len(exam["questions"]) == 6 and exam["funnel"]["kept"] == 6
    assert exam["funnel"]["written"] == len(teacher.requests) == 9, "half as many again as wanted"
    heldout = lab.heldout()
    assert list(heldout["exam"]) == [KNOWLEDGE] and {each["question"] for each in exam["questions"]} <= {
        *heldout_prompts(heldout)
    }
    assert heldout["leaves"][KNOWLEDGE] and not {each["id"] for each in heldout["leaves"][KNOWLEDGE]} & {
        each["id"] for each in exam["questions"]
    }


def test_no_exam_question_is_trained_on_or_in_a_journal_of_rows(lab):
    """Rows that repeat one are planted: the exam asks what the teacher of the rows asked about some sentences."""
    written(lab, ScriptedTeacher(copying))
    exam = leaf_exam(lab.home, KNOWLEDGE)
    assert exam and exam["questions"]
    dataset = mix_knowledge(lab.home, lab.catalog(), lab.heldout(), [], RECIPE, lab.settings)
    detector = LeakDetector(each["question"] for each in exam["questions"])
    trained = [turn["content"] for row in dataset.read() for turn in row["messages"] if turn["role"] == "user"]
    assert trained and not any(map(detector.leak, trained))
    assert dataset.excluded["held_out"] >= len(exam["questions"]), "counted"
    made_rows = {key for key, _ in read_journal(lab.home.leaf(KNOWLEDGE) / "journal")}
    made_exam = {key for key, _ in read_journal(lab.home.leaf(KNOWLEDGE) / "exam-journal")}
    assert made_rows and made_exam and not made_rows & made_exam


def test_a_row_that_nearly_repeats_an_exam_question_is_not_trained_on(lab):
    """Near repeats of every exam question are planted among the rows: more words, others in front, another order."""
    written(lab, ScriptedTeacher(examining))
    exam = leaf_exam(lab.home, KNOWLEDGE)
    assert exam and exam["questions"]
    path = next(lab.home.leaf(KNOWLEDGE).glob("curated-*.parquet"))
    rows = read_rows(path)
    near = [form.format(each["question"].rstrip("?")) for each in exam["questions"] for form in NEAR]
    planted = [{**rows[0], "id": f"planted-{number}", "question": question} for number, question in enumerate(near)]
    write_rows(path, [*rows, *planted], CURATED_SCHEMA)
    dataset = mix_knowledge(lab.home, lab.catalog(), lab.heldout(), [], RECIPE, lab.settings)
    trained = [turn["content"] for row in dataset.read() for turn in row["messages"] if turn["role"] == "user"]
    assert trained and not {text for text in trained if any(question in text for question in near)}
    assert dataset.excluded["held_out"] >= len(planted)


def test_no_prompt_that_writes_rows_shows_an_exam_question(lab):
    written(lab, ScriptedTeacher(examining))
    exam = leaf_exam(lab.home, KNOWLEDGE)
    assert exam and exam["questions"]
    document = next((lab.taxonomy / "documents").glob("*.md"))
    document.write_text(document.read_text().replace("is known for", "was long famous for"))
    teacher = ScriptedTeacher()
    lab.refresh(teacher=teacher)
    detector = LeakDetector(each["question"] for each in exam["questions"])
    shown = [line for request in teacher.requests for each in request.messages for line in each.content.splitlines()]
    assert shown and not [line for line in shown if "?" in line and detector.leak(line)]
    assert all(detector.leak(form.format(each["question"].rstrip("?"))) for each in exam["questions"] for form in NEAR)


def test_what_was_taught_or_is_a_seed_in_use_is_left_out_and_counted(lab):
    mix_knowledge(lab.home, lab.catalog(), lab.heldout(), [], RECIPE, lab.settings)
    written(lab, ScriptedTeacher(copying))
    exam = leaf_exam(lab.home, KNOWLEDGE)
    assert exam and exam["questions"] == [] and exam["funnel"]["taught already"] > 0
    assert exam_questions(lab.home, lab.catalog().in_use) == {KNOWLEDGE: []}


def test_only_what_changed_costs_calls(lab):
    write_knowledge(lab.taxonomy, OTHER, "documents")
    lab.refresh()
    teacher = ScriptedTeacher(examining)
    written(lab, teacher)
    first = len(teacher.requests)
    assert {OTHER, KNOWLEDGE} == exam_questions(lab.home, lab.catalog().in_use).keys() and first == 18
    written(lab, teacher)
    assert len(teacher.requests) == first, "nothing changed"
    before = leaf_exam(lab.home, KNOWLEDGE)
    document = next((lab.taxonomy / "documents").glob("*valleys.md"))
    document.write_text(document.read_text().replace("is known for", "was long famous for"))
    lab.refresh()
    assert OTHER not in exam_questions(lab.home, lab.catalog().in_use), "an old document's questions test nothing"
    written(lab, teacher)
    assert 0 < len(teacher.requests) - first <= 5, "the other sentences come from the journal"
    assert leaf_exam(lab.home, KNOWLEDGE) == before


def test_a_changed_threshold_or_a_ban_costs_no_call(lab, tmp_path):
    teacher = ScriptedTeacher(examining)
    written(lab, teacher)
    exam, calls = leaf_exam(lab.home, KNOWLEDGE), len(teacher.requests)
    assert exam
    banned = exam["questions"][0]["id"]
    review = Review(leaf=KNOWLEDGE, row=banned, decision="ban", author="Anna", reason="odd", at="2026-03-01")  # type: ignore[arg-type]
    written(lab, teacher, reviews={KNOWLEDGE: [review]})
    after = leaf_exam(lab.home, KNOWLEDGE)
    assert after and banned not in [each["id"] for each in after["questions"]] and after["funnel"]["banned"] == 1
    (plan,) = plans(lab)
    file = plan.flow.file.model_dump(mode="json")
    strict = [{**each, "minimum": 1.0} if each["rule"] == "off_topic" else each for each in file["rules"]]
    flow = type(plan.flow.file).model_validate({**file, "rules": strict})
    changed = ExamPlan(**{**vars(plan), "flow": type(plan.flow)("exam", flow, plan.flow.prompts)})
    assert changed.written == plan.written and changed.made_from != plan.made_from
    write_exams(lab.home, [changed], lab.settings, (teacher, teacher), lambda text: None)
    assert len(teacher.requests) == calls and leaf_exam(lab.home, KNOWLEDGE) != after


def test_a_failing_leaf_keeps_its_replies_and_stops_no_other(lab):
    write_knowledge(lab.taxonomy, OTHER, "documents")
    lab.refresh()
    broken = [True]

    def failing(request: Request) -> str | Reply:
        if broken[0] and "bridge" in request.messages[-1].content:
            raise TeacherError("HTTP 503")
        return examining(request)

    teacher = ScriptedTeacher(failing)
    assert set(written(lab, teacher).values()) == {"HTTP 503"}
    broken[0], calls = False, len(teacher.requests)
    assert written(lab, teacher) == {} and len(exam_questions(lab.home, lab.catalog().in_use)) == 2
    assert len(teacher.requests) < 2 * calls, "replies that came are in the journal"


def test_a_judged_flow_asks_passages_for_pairs_and_keeps_its_judges():
    flow = exam_flow(load_flow("knowledge"), wanted=36, passages=4)
    (stage,) = flow.file.stages
    assert (stage.output, stage.several, flow.file.augmentations) == ("pairs", 14, ())
    assert [judge.name for judge in flow.judges(early=False)] == ["faithful", "relevant", "self_contained"]
    shown = yaml.safe_dump(flow.prompts["exam/pairs.yaml"])
    assert "examples" not in shown, "seeds are shown to no examiner"


def test_wrong_answers_are_stored_beside_a_question_unless_they_may_be_right(lab):
    """A passage of the document is 'PLACE was founded by FOUNDER. PLACE is known for the bridge of BRIDGE. ...'."""

    def pairs(request: Request) -> str:
        if request.choices:
            return "Yes"
        place, bridge = re.findall(r"(\w+) is known for the bridge of (\w+)", request.messages[-1].content)[-1]
        right = f"The bridge of {bridge} is in {place}."
        wrong = ["The one of Ulm.", f"That is {bridge}.", right, "the one  of ulm.", f"Not the one of {bridge}.", ""]
        return "\n".join(
            [f"Question: Which bridge do people know in {place}?", f"Answer: {right}", *map("Wrong: {}".format, wrong)]
        )

    teacher = ScriptedTeacher(pairs)
    lab.settings = lab.settings.model_copy(update={"flows": FlowSettings(knowledge="knowledge")})
    written(lab, teacher)
    (questions,) = exam_questions(lab.home, lab.catalog().in_use).values()
    assert questions
    for question in questions:
        bridge = question["answer"].split()[3]
        assert question["answer"].startswith("The bridge of") and "\n" not in question["answer"]
        assert question.get("wrong") == ["The one of Ulm.", f"Not the one of {bridge}."]
    judged = [turn.content for request in teacher.requests if request.choices for turn in request.messages]
    assert judged and not [text for text in judged if "Ulm" in text], "judges see the right answer alone"


def test_none_are_written_where_none_are_wanted(lab):
    assert plans(lab, most=0) == []
    lab.settings = lab.settings.model_copy(update={"mixing": MixingSettings(generated=False)})
    assert plans(lab) == []


def test_an_edited_seed_leaves_the_exam_as_it_is(lab):
    teacher = ScriptedTeacher(examining)
    written(lab, teacher)
    exam, calls = exam_questions(lab.home, lab.catalog().in_use), len(teacher.requests)
    source = read_json(lab.home.leaf_source(lab.snapshot().usable[KNOWLEDGE]))
    used = source["seeds"][0]["question"]

    def change(value: dict[str, Any]) -> None:
        pairs = [pair for example in value["seed_examples"] for pair in example["questions_and_answers"]]
        next(pair for pair in pairs if pair["question"] == used)["answer"] = "Quite another answer."

    edit_yaml(lab.taxonomy / KNOWLEDGE / "qna.yaml", change)
    lab.refresh()
    written(lab, teacher)
    assert exam_questions(lab.home, lab.catalog().in_use) == exam and len(teacher.requests) == calls


@pytest.mark.parametrize(("gain", "needed"), [(1.0, 2), (0.5, 7), (0.3, 55), (0.2, 100)])
def test_small_gains_need_many_questions(gain, needed):
    assert questions_needed(gain) == needed


def examined_at(root: Path, settings: Settings) -> None:
    """Write the exam of a home, in a process of its own."""
    home = Home.open(root)
    plans = plan_exam(home, current_catalog(home).in_use, settings, teacher_identities(settings), {})
    assert write_exams(home, plans, settings, load_teachers(home, settings), lambda text: None) == {}


def test_a_process_killed_while_it_writes_an_exam_repeats_only_the_calls_under_way(lab, tmp_path):
    at_once, seconds = 2, 0.02
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload([__name__])
    lab.catalog()
    undisturbed = copied(lab, tmp_path / "undisturbed")
    with StubEndpoint(lambda asked: Answer(asking(asked.last), seconds=seconds)) as stub:
        teacher = EndpointTeacherSettings(kind="endpoint", url=stub.url, model="stub", concurrency=at_once, retries=0)
        flows = FlowSettings(knowledge="simple_knowledge")
        asking_stub = settings(lab, 12).model_copy(update={"teacher": teacher, "flows": flows})
        examined_at(undisturbed.home.root, asking_stub)
        wanted = Counter(asked.last for asked in stub.requests)
        stub.requests.clear()
        kills = 3
        for _ in range(kills):
            before = len(stub.requests)
            process = processes.Process(target=examined_at, args=(lab.home.root, asking_stub))
            process.start()
            while len(stub.requests) < before + 3 and process.is_alive():
                time.sleep(0.001)
            process.kill()
            process.join()
            assert process.exitcode == -signal.SIGKILL
        assert leaf_exam(lab.home, KNOWLEDGE) is None
        examined_at(lab.home.root, asking_stub)
    asked = Counter(asked.last for asked in stub.requests)
    assert asked.keys() == wanted.keys() and asked.total() <= wanted.total() + kills * at_once
    assert leaf_exam(lab.home, KNOWLEDGE) == leaf_exam(undisturbed.home, KNOWLEDGE)


def test_questions_are_entered_in_the_ledger_once(lab):
    written(lab, ScriptedTeacher(examining))
    entries = [entry["question"] for entry in read_lines(lab.home.heldout_ledger)]
    written(lab, ScriptedTeacher(examining), most=4)
    after = [entry["question"] for entry in read_lines(lab.home.heldout_ledger)]
    assert len(after) == len(set(after)) and set(entries) <= set(after)

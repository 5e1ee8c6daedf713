"""The flows for strong teachers, whole, against two endpoints: a teacher whose replies are good, bad and malformed, and a
judge that finds the bad ones."""

from __future__ import annotations

import itertools
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import pytest

from lab_pipeline.config.settings import FlowSettings, Settings
from lab_pipeline.config.teachers import EndpointTeacherSettings
from lab_pipeline.core.home import Home
from lab_pipeline.core.storage import read_json, read_rows
from lab_pipeline.flows.choose import default_flow
from lab_pipeline.flows.flow import SHIPPED, load_flow
from lab_pipeline.instructions.judge_calibration import separation
from lab_pipeline.instructions.plan import LeafFailure, LeafPlan, LeafState, Table, find_stale_leaves, plan_leaves
from lab_pipeline.instructions.refresh import refresh_leaves
from lab_pipeline.reports.status import leaf_summary
from lab_pipeline.taxonomy.leaf import Kind
from lab_pipeline.taxonomy.snapshot import Snapshot, take_snapshot
from lab_pipeline.teacher.choose import load_teachers, teacher_identities
from lab_pipeline_tests.builders import FREEFORM, GROUNDED, KNOWLEDGE, edit_yaml, settings_for, write_knowledge, write_skill
from lab_pipeline_tests.instructions.leaf_lab import spent
from lab_pipeline_tests.scripted_teacher import known_verdicts
from lab_pipeline_tests.stub_endpoint import Answer, Asked, StubEndpoint

TABLES: tuple[Table, ...] = get_args(Table)
KINDS: tuple[Kind, ...] = get_args(Kind)
KNOWN = {question: good for kind in KINDS for question, good in known_verdicts(load_flow(kind)).items()}
DOCUMENT = "The gate of Harsk is made of walnut. It was built by Pellira Donsk. Its two towers are called twins."

PAIRS = """Here are the exercises:

**Question 1:** Who built the gate of Harsk ({form})?
**Answer:** Pellira Donsk built the gate.

2. Question: What is the gate of Harsk made of ({form})?
   Answer: The gate is made of solid gold.

### Question 3
Which bird sings at dawn ({form})?
### Answer
The lark sings.

[QUESTION] How many towers does it have ({form})?
[ANSWER] It has two towers.
---
Question: Who opens the gate of Harsk ({form})?

Question: What does the document say about Harsk ({form})?
Answer: That its towers are called twins.

question: What are the towers of Harsk called ({form})?
answer: They are called twins, and nobody is sure.
"""
"""Good; unfaithful; off the subject; not self-contained; without its answer; pointing at the source; with a verdict that cannot
be read."""


def teaching(asked: Asked) -> Answer | str:
    last = asked.last
    if "Write a detailed summary" in last:
        return "In short: the walnut gate of Harsk was built by Pellira Donsk, and its towers are called twins."
    if "Choose the sentences" in last:
        return "The gate of Harsk was built by Pellira Donsk."
    if "List every fact" in last:
        return Answer("- The gate of Harsk is", finish="length")
    if found := re.search(r"<text>\n(In short|The gate of Harsk (?:is|was)).*\nWrite 5 exercises\.$", last, re.DOTALL):
        form = {"In short": "summary", "The gate of Harsk is": "passage"}.get(found.group(1), "extract")
        text = PAIRS.format(form=form)
        return Answer(f"{text}\nQuestion: And why?\nAnswer: Because the", "length") if form == "summary" else text
    if last == "Write a text.":
        return f"Person {asked.body['seed']} waters the plants on Friday."
    if last.endswith("Write 3 tasks."):
        return "Question: Who waters the plants?\nQuestion:\nQuestion: How old is the blue car?"
    if last == "Write 5 exercises.":
        number = asked.body["seed"]
        asked_for = [f"Write a line about boat {number}.", f"Sing boat {number} a song.", f"Praise boat {number}."]
        return "Sorry, what do you mean?" if number % 2 else "\n".join(f"Question: {each}" for each in asked_for)
    if found := re.search(r"Person (\d+) waters", last):
        return "A friend waters them." if int(found.group(1)) % 2 else f"Person {found.group(1)} does."
    return f"Dear captain, {last}"


BAD = {
    "Does the document say all": "solid gold",
    "Is the question about what": "Which bird",
    "Does the question stand": "does it have",
    "Does the task ask for the skill": "blue car",
    "does the text bear all of it out": "A friend waters",
    "Does the exercise ask for the skill": "a song",
    "Does the answer do all that the exercise": "Praise",
}
"""What each judge rejects: a part of its prompt, and of what is bad to it."""


def judging(asked: Asked) -> Answer:
    if asked.last in KNOWN:
        return probably(KNOWN[asked.last])
    if "Is the question about what" in asked.last and "nobody is sure" in asked.last:
        return Answer("Well, that depends.")
    (bad,) = [sign for prompt, sign in BAD.items() if prompt in asked.last]
    return probably(bad not in asked.last)


def probably(good: bool) -> Answer:
    return Answer("Yes" if good else "No", probabilities={"Yes": 0.9, "No": 0.1} if good else {"No": 0.9, "Yes": 0.1})


def by_judges_alone(file: dict[str, Any]) -> None:
    """Rules that know the words of a leaf would reject much before the judges are seen to."""
    file["start"].update(repeats=1)
    file["rules"] = [rule for rule in file["rules"] if rule["rule"] not in ("unsupported_number", "off_topic")]


@dataclass
class Lab:
    home: Home
    settings: Settings
    snapshot: Snapshot
    flows: Path
    stubs: tuple[StubEndpoint, StubEndpoint]

    def plans(self) -> dict[str, LeafPlan]:
        return plan_leaves(self.home, self.snapshot, self.settings, *teacher_identities(self.settings))

    def refresh(self, *leaves: str) -> dict[str, LeafState | LeafFailure]:
        """Refresh these leaves in this order, or all of them."""
        done: dict[str, LeafState | LeafFailure] = {}
        plans = self.plans()
        teacher, judge = load_teachers(self.home, self.settings)
        wanted = [plans[leaf] for leaf in leaves or plans]
        refresh_leaves(
            self.home, wanted, self.settings, teacher, judge, "commit", [].append, lambda each: done.update({each.leaf: each})
        )
        return done

    def calls(self) -> tuple[int, int]:
        """Requests that reached teacher and judge since last asked."""
        teacher, judge = (len(stub.requests) for stub in self.stubs)
        for stub in self.stubs:
            stub.requests.clear()
        return teacher, judge

    def rows(self, leaf: str, table: Table) -> list[dict[str, Any]]:
        return read_rows(self.plans()[leaf].path(self.home, table))

    def tables(self) -> dict[tuple[str, str], bytes]:
        return {
            (leaf, table): plan.path(self.home, table).read_bytes() for leaf, plan in self.plans().items() for table in TABLES
        }


@pytest.fixture(scope="module")
def stubs() -> Iterator[tuple[StubEndpoint, StubEndpoint]]:
    with StubEndpoint(teaching) as teacher, StubEndpoint(judging) as judge:
        yield teacher, judge


def endpoint(stub: StubEndpoint, concurrency: int = 16) -> EndpointTeacherSettings:
    return EndpointTeacherSettings(kind="endpoint", url=stub.url, model="strong", retries=0, concurrency=concurrency)


def settled(root: Path, stubs: tuple[StubEndpoint, StubEndpoint], home: str, concurrency: int = 16) -> Lab:
    """A lab on `root` with a home of this name; a skill leaf starts once from each seed."""
    flows = FlowSettings(**{kind: str(root / "flows" / kind) for kind in KINDS})
    teacher, judge = (endpoint(stub, concurrency) for stub in stubs)
    settings = settings_for(root / "taxonomy", teacher=teacher, judge=judge, flows=flows)
    opened = Home.open(root / home)
    return Lab(opened, settings, take_snapshot(opened, settings), root / "flows", stubs)


@pytest.fixture(scope="module")
def refreshed(tmp_path_factory: pytest.TempPathFactory, stubs: tuple[StubEndpoint, StubEndpoint]) -> Lab:
    root = tmp_path_factory.mktemp("refreshed")
    write_knowledge(root / "taxonomy", KNOWLEDGE, "documents")
    (document,) = (root / "taxonomy" / "documents").iterdir()
    document.write_text(DOCUMENT)
    write_skill(root / "taxonomy", GROUNDED, seeds=5, grounded=True)
    write_skill(root / "taxonomy", FREEFORM, seeds=5)
    for kind in KINDS:
        shutil.copytree(SHIPPED / kind, root / "flows" / kind)
        edit_yaml(root / "flows" / kind / "flow.yaml", by_judges_alone)
    lab = settled(root, stubs, "home")
    lab.refresh()
    return lab


@pytest.fixture
def lab(refreshed: Lab, tmp_path: Path) -> Lab:
    """The refreshed lab, to be changed."""
    shutil.copytree(refreshed.home.root.parent, tmp_path, dirs_exist_ok=True)
    changed = settled(tmp_path, refreshed.stubs, "home")
    assert find_stale_leaves(changed.home, changed.plans()) == []
    changed.calls()
    return changed


def test_each_passage_is_read_in_four_forms_and_its_funnel_adds_up_exactly(lab: Lab) -> None:
    funnel = lab.refresh(KNOWLEDGE)[KNOWLEDGE].funnel  # type: ignore[union-attr]
    assert funnel == {
        "generated": 2 + 1 + 3 * 7 + 1,
        "incomplete": 1 + 3 + 1,  # the facts, which were cut off, and so make no pairs; no answer; the last pair of the summary
        "points_at_source": 3,
        "judge faithful": 3,
        "judge relevant": 3,
        "judge relevant unreadable": 3,
        "judge self_contained": 3,
        "kept": 3 + 2,
    }
    rejected = lab.rows(KNOWLEDGE, "rejected")
    assert sorted(row["reason"] for row in rejected if row["rule"] == "incomplete") == [
        "answer cut off at 2048 tokens",
        *["answer missing"] * 3,
        "atomic_facts cut off at 1024 tokens",
    ]
    assert all("Who opens" in row["question"] for row in rejected if row["reason"] == "answer missing"), "the text is kept"
    kept = lab.rows(KNOWLEDGE, "curated")
    assert {row["augmentation"] for row in kept if not row["context"]} == {None, "detailed_summary", "extractive_summary"}
    assert {row["support"] for row in kept} == {DOCUMENT}, "whatever it was written from, the document must bear it out"
    instructions = {row["augmentation"]: row for row in kept if row["context"]}
    flow = lab.plans()[KNOWLEDGE].flow
    for augmentation in flow.file.augmentations[:2]:
        row = instructions[augmentation.name]
        assert (row["context"], row["question"] in augmentation.instructions) == (DOCUMENT, True)
        assert [score["judge"] for score in row["scores"]] == ["faithful"]


def test_bad_questions_are_stopped_before_their_answers_are_paid_for(refreshed: Lab) -> None:
    grounded = refreshed.rows(GROUNDED, "judged")
    assert len(grounded) == 4 * 3
    answered = [row for row in grounded if row["answer"] is not None]
    assert len(answered) == 4 == sum("waters the plants?" in row["question"] for row in answered)
    odd = sum(int(re.findall(r"\d+", row["context"])[0]) % 2 for row in answered)
    assert refreshed.refresh(GROUNDED)[GROUNDED].funnel == {  # type: ignore[union-attr]
        "generated": 12,
        "incomplete": 4,
        "judge answerable": 4,
        **({"judge follows_context": odd} if odd else {}),
        "kept": 4 - odd,
    }
    freeform = refreshed.rows(FREEFORM, "judged")
    unread = sum(row["fault"] == "no question found" for row in freeform)
    assert 0 < unread < 4
    assert refreshed.refresh(FREEFORM)[FREEFORM].funnel == {  # type: ignore[union-attr]
        "generated": unread + (4 - unread) * 3,
        "incomplete": unread,
        "judge sound": 4 - unread,
        "judge fulfils": 4 - unread,
        "kept": 4 - unread,
    }
    stopped = [row for row in grounded + freeform if row["fault"] in ("stopped by judge answerable", "stopped by judge sound")]
    assert len(stopped) == 4 + (4 - unread)
    assert {(row["answer"], len(row["scores"])) for row in stopped} == {(None, 1)}, "no second judge is asked about it"


def test_every_call_is_accounted_for(lab: Lab) -> None:
    elsewhere = settled(lab.flows.parent, lab.stubs, "other")
    elsewhere.refresh(KNOWLEDGE)
    known = len(known_verdicts(lab.plans()[KNOWLEDGE].flow))
    assert known == 3 * 20
    pairs = 3 * 6
    assert elsewhere.calls() == (3 + 3, known + pairs * 3 + 2 + 3 * 2)  # unreadable verdicts are asked for twice more
    assert spent(elsewhere.refresh(GROUNDED)[GROUNDED]).calls == 4 + 4 + 4 + 8 + 4
    assert elsewhere.calls() == (4 + 4 + 4, 2 * 16 + 8 + 4)


def change(lab: Lab, kind: str, file: str, edit: Callable[[Any], Any]) -> list[str]:
    """Edit a flow's file; the leaves that are behind now."""
    edit_yaml(lab.flows / kind / file, edit)
    return find_stale_leaves(lab.home, lab.plans())


def test_a_changed_threshold_costs_no_call(lab: Lab) -> None:
    for kind, leaf in (("knowledge", KNOWLEDGE), ("grounded_skill", GROUNDED), ("freeform_skill", FREEFORM)):
        assert change(lab, kind, "flow.yaml", lambda file: [each.update(minimum=0.95) for each in file["judges"]]) == [leaf]
        assert lab.refresh(leaf)[leaf].funnel["kept"] == 0  # type: ignore[union-attr]
        change(lab, kind, "flow.yaml", lambda file: [each.update(minimum=0.5) for each in file["judges"]])
        assert lab.refresh(leaf)[leaf].funnel["kept"] > 0  # type: ignore[union-attr]
    assert lab.calls() == (0, 0)


def test_a_changed_judge_prompt_costs_judge_calls_only(lab: Lab) -> None:
    def add(prompt: list[Any]) -> None:
        prompt[0]["content"] += " Be strict."

    assert change(lab, "knowledge", "relevant.yaml", add) == [KNOWLEDGE]
    lab.refresh()
    assert lab.calls() == (0, 20 + 3 * 6 + 3 * 2)
    assert change(lab, "grounded_skill", "answerable.yaml", add) == [GROUNDED]
    before = lab.rows(FREEFORM, "judged")
    lab.refresh()
    assert lab.calls() == (0, 16 + 8), "a judge between stages: the same questions pass, so no answer is asked for"
    assert lab.rows(FREEFORM, "judged") == before


def test_a_changed_flow_prompt_makes_that_kinds_leaves_again_from_there(lab: Lab) -> None:
    assert change(lab, "knowledge", "pairs.yaml", lambda prompt: prompt[0].update(content="Write well.")) == [KNOWLEDGE]
    lab.refresh()
    assert lab.calls() == (3, 0), "the augmentations, and the verdicts on equal rows, are in the journal"


def test_equal_replies_give_equal_bytes_whatever_the_order_and_the_concurrency(lab: Lab) -> None:
    other = settled(lab.flows.parent, lab.stubs, "other", concurrency=3)
    for leaf in (FREEFORM, KNOWLEDGE, GROUNDED):
        other.refresh(leaf)
    assert other.tables() == lab.tables()


def test_a_judge_that_does_not_tell_known_rows_apart_stops_nothing(lab: Lab) -> None:
    with StubEndpoint(lambda asked: probably(False)) as grumpy:
        lab.settings = lab.settings.model_copy(update={"judge": endpoint(grumpy)})
        funnel = lab.refresh(GROUNDED)[GROUNDED].funnel  # type: ignore[union-attr]
        assert funnel == {"generated": 12, "incomplete": 4, "kept": 8}
        answerable = lab.plans()[GROUNDED].flow.judges(early=True)[0]
        about = separation(lab.home, lab.plans()[GROUNDED].flow, answerable, teacher_identities(lab.settings)[1])
    assert about is not None and (about["area"], about["separates"]) == (0.5, False)
    assert all(score["verdict"] == "No" for row in lab.rows(GROUNDED, "curated") for score in row["scores"])


def test_prompts_show_seeds_of_their_leaf_only_and_none_that_is_held_out(lab: Lab) -> None:
    elsewhere = settled(lab.flows.parent, lab.stubs, "other")
    used = {leaf: read_json(lab.home.leaf_source(plan.source))["seeds"] for leaf, plan in lab.plans().items()}
    held_out = {row["leaf"]: row["heldout_questions"] for row in elsewhere.snapshot.rows}
    for leaf in (KNOWLEDGE, GROUNDED, FREEFORM):
        elsewhere.refresh(leaf)
        said = "\n".join(turn["content"] for stub in lab.stubs for asked in stub.requests for turn in asked.body["messages"])
        elsewhere.calls()
        shown = {other for other, seeds in used.items() for seed in seeds if seed["question"] in said}
        assert shown == {leaf}
        assert [seed["question"] for seed in held_out[leaf] if seed["question"] in said] == []


def test_the_status_says_which_flow_a_leaf_has(lab: Lab) -> None:
    status = leaf_summary(lab.home, lab.snapshot, lab.plans(), set())
    assert {leaf: about["flow"] for leaf, about in status.items()} == {
        KNOWLEDGE: "knowledge",
        GROUNDED: "grounded_skill",
        FREEFORM: "freeform_skill",
    }


def test_an_endpoint_teacher_gets_the_strong_flows_and_an_embedded_one_the_simple_ones(lab: Lab) -> None:
    for kind in KINDS:
        assert default_flow(Settings(taxonomy=lab.settings.taxonomy, teacher=lab.settings.teacher), kind) == kind
        assert default_flow(Settings(taxonomy=lab.settings.taxonomy), kind) == f"simple_{kind}"


SECTION = re.compile(r"Section: (knowledge-places.*)")


def test_calls_about_one_passage_are_sent_together_though_several_leaves_are_refreshed(lab: Lab, tmp_path: Path) -> None:
    """So that the server's cache of prefixes still holds the passage."""
    for leaf in (KNOWLEDGE, "knowledge/places/rivers"):
        write_knowledge(tmp_path / "two" / "taxonomy", leaf, "documents")
    for document in (tmp_path / "two" / "taxonomy" / "documents").iterdir():
        document.write_text("\n".join(f"## {document.stem} {part}\n\n{DOCUMENT}\n" for part in ("one", "two", "three")))
    shutil.copytree(lab.flows, tmp_path / "two" / "flows")
    edit_yaml(tmp_path / "two" / "flows" / "knowledge" / "flow.yaml", lambda file: file["start"].update(passage_tokens=30))
    two = settled(tmp_path / "two", lab.stubs, "home", concurrency=1)
    two.refresh()
    asked = [(len(each.body["messages"]), found) for each in lab.stubs[1].requests if (found := SECTION.findall(each.last))]
    assert len({section for _, (section,) in asked}) == 6 and len(asked) > 200
    assert len([*itertools.groupby(asked)]) < len(asked) / 6

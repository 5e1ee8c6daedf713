from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab_pipeline.taxonomy.holdout import Ledger, Role, split_seeds
from lab_pipeline.taxonomy.leaf import Kind, Leaf, Seed
from lab_pipeline.text.leaks import LeakDetector
from lab_pipeline_tests.text.test_leaks import LOG, QUESTIONS, SHEET, WORDS


def knowledge_seed(question: str, group: int = 0, context: str = "A context.", answer: str = "There.") -> Seed:
    return Seed(question, answer, context, group, line=1, asked=question)


def skill_seed(question: str, context: str | None = None) -> Seed:
    return Seed(question, "An answer.", context, 0, line=1, asked=f"{context}\n\n{question}" if context else question)


def leaf(seeds: list[Seed], kind: Kind = "freeform_skill", key: str = "a") -> Leaf:
    return Leaf(key, kind, 3, "somebody", "task", "domain", "outline", tuple(seeds), None, "")


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger.jsonl")


def test_one_of_three_questions_of_each_knowledge_context_is_held_out(ledger: Ledger) -> None:
    seeds = [knowledge_seed(question, group=number // 3) for number, question in enumerate(QUESTIONS[:15])]
    used, held_out = split_seeds(leaf(seeds, "knowledge"), ledger, 17)
    assert sorted(seed.group for seed in held_out) == [0, 1, 2, 3, 4]
    assert len(used) == 10


@pytest.mark.parametrize(("given_seeds", "held"), [(1, 0), (2, 0), (3, 1), (4, 1), (5, 1), (9, 1), (10, 2), (23, 4)])
def test_about_one_of_five_skill_seeds_is_held_out_and_none_below_three(ledger: Ledger, given_seeds: int, held: int) -> None:
    used, held_out = split_seeds(leaf([skill_seed(question) for question in QUESTIONS[:given_seeds]]), ledger, 17)
    assert (len(held_out), len(used)) == (held, given_seeds - held)


def test_a_context_with_fewer_than_three_questions_holds_none_out(ledger: Ledger) -> None:
    seeds = [knowledge_seed(question, group=number // 2) for number, question in enumerate(QUESTIONS[:4])]
    assert split_seeds(leaf(seeds, "knowledge"), ledger, 17)[1] == []


def test_both_halves_keep_the_order_of_the_file(ledger: Ledger) -> None:
    seeds = [skill_seed(question) for question in QUESTIONS[:20]]
    for half in split_seeds(leaf(seeds), ledger, 17):
        assert half == [seed for seed in seeds if seed in half]


def test_the_choice_depends_on_the_questions_and_the_seed_not_on_their_order(tmp_path: Path) -> None:
    seeds = [skill_seed(question) for question in QUESTIONS[:20]]

    def held(seeds: list[Seed], random_seed: int, name: str) -> set[str]:
        return {seed.question for seed in split_seeds(leaf(seeds), Ledger(tmp_path / name), random_seed)[1]}

    assert held(seeds, 17, "first") == held(seeds[::-1], 17, "second")
    assert held(seeds, 17, "first") != held(seeds, 18, "third")


def test_roles_are_read_back_from_the_file(ledger: Ledger) -> None:
    seeds = [skill_seed(question) for question in QUESTIONS[:10]]
    before = split_seeds(leaf(seeds), ledger, 17)
    assert split_seeds(leaf(seeds), Ledger(ledger.path), 99) == before


def test_only_newcomers_are_written_each_once(ledger: Ledger) -> None:
    seeds = [skill_seed(question) for question in QUESTIONS[:6]]
    split_seeds(leaf(seeds[:5]), ledger, 17)
    split_seeds(leaf(seeds), ledger, 17)
    split_seeds(leaf(seeds, key="moved"), ledger, 17)
    lines = [json.loads(line) for line in ledger.path.read_text().splitlines()]
    assert sorted(line["asked"] for line in lines) == sorted(seed.question for seed in seeds)


def test_an_edit_of_answer_context_case_or_spaces_leaves_a_knowledge_question_its_role(ledger: Ledger) -> None:
    seeds = [knowledge_seed(question) for question in QUESTIONS[:9]]
    _, held_out = split_seeds(leaf(seeds, "knowledge"), ledger, 17)
    edited = [knowledge_seed(seed.question.upper().replace(" ", "  "), context="Mended.", answer="Here.") for seed in seeds]
    _, still = split_seeds(leaf(edited, "knowledge"), ledger, 17)
    assert {seed.identity for seed in still} == {seed.identity for seed in held_out}


def test_a_new_wording_keeps_the_role_of_the_old_one(ledger: Ledger) -> None:
    seeds = [skill_seed(question) for question in QUESTIONS[:25]]
    used, held_out = split_seeds(leaf(seeds), ledger, 17)
    reworded = [skill_seed(f"So {seed.question.lower()}") for seed in seeds]
    used_after, held_out_after = split_seeds(leaf(reworded), ledger, 17)
    assert [seed.question for seed in used_after] == [f"So {seed.question.lower()}" for seed in used]
    assert [seed.question for seed in held_out_after] == [f"So {seed.question.lower()}" for seed in held_out]


def test_a_question_like_a_used_and_a_held_out_one_is_neither_shown_nor_asked(ledger: Ledger) -> None:
    ledger.assign(skill_seed("amber birch cedar dune ember fjord grove heath inlet"), "a", hold_out=False)
    ledger.assign(skill_seed("birch cedar dune ember fjord grove heath inlet jetty knoll"), "a", hold_out=True)
    between = skill_seed("amber birch cedar dune ember fjord grove heath inlet jetty")
    assert split_seeds(leaf([between]), ledger, 17) == ([], [])
    assert ledger.roles[between.identity] == "set_aside"


def test_a_question_for_another_thing_about_a_used_one_may_be_held_out(ledger: Ledger) -> None:
    assert ledger.assign(skill_seed("Who founded Thalveren?"), "a", hold_out=False) == "used"
    assert ledger.assign(skill_seed("When was Thalveren founded?"), "a", hold_out=True) == "held_out"
    assert ledger.assign(skill_seed("So who was it that founded Thalveren?"), "a", hold_out=True) == "used"
    assert ledger.assign(skill_seed("Thalveren was founded when?"), "a", hold_out=False) == "held_out"
    assert ledger.assign(skill_seed("The founding of Thalveren"), "a", hold_out=True) == "set_aside"


def test_the_same_task_on_another_text_is_another_question(ledger: Ledger) -> None:
    texts = [f"{name} waters plants near {place}." for name, place in pairwise(WORDS)]
    seeds = [skill_seed("Who does what?", text) for text in texts]
    used, held_out = split_seeds(leaf(seeds, "grounded_skill"), ledger, 17)
    assert len(held_out) == len(seeds) // 5
    assert len(used) + len(held_out) == len(seeds)


@pytest.mark.parametrize("context", [SHEET, LOG])
def test_different_questions_on_one_long_context_are_different_seeds(ledger: Ledger, context: str) -> None:
    seeds = [skill_seed(f"Which {one} sits between the {two} and this?", context) for one, two in pairwise(WORDS[:11])]
    used, held_out = split_seeds(leaf(seeds, "grounded_skill"), ledger, 17)
    assert (len(used), len(held_out)) == (8, 2)
    mended = [skill_seed(seed.question, f"{context} Mended.") for seed in seeds]
    still_used, still_held_out = split_seeds(leaf(mended, "grounded_skill"), Ledger(ledger.path), 18)
    assert [seed.question for seed in still_used] == [seed.question for seed in used]
    assert [seed.question for seed in still_held_out] == [seed.question for seed in held_out]


def test_seeds_that_all_repeat_each_other_stay_in_use(ledger: Ledger) -> None:
    seeds = [skill_seed(f"{polite}{QUESTIONS[0]}") for polite in ("", "So ", "Please: ", "Now, ", "Well then, ")]
    assert split_seeds(leaf(seeds), ledger, 17) == (seeds, [])


def test_of_seeds_that_repeat_each_other_in_part_the_others_are_held_out(ledger: Ledger) -> None:
    seeds = [skill_seed(f"{polite}{QUESTIONS[0]}") for polite in ("", "So ", "Please: ", "Now, ")]
    alone = skill_seed(QUESTIONS[-1])
    assert split_seeds(leaf([*seeds, alone]), ledger, 17) == (seeds, [alone])


def test_seeds_that_repeat_each_other_are_held_out_together_where_most_stay_in_use(ledger: Ledger) -> None:
    seeds = [skill_seed(polite + question) for question in QUESTIONS[::99][:3] for polite in ("", "So ")]
    used, held_out = split_seeds(leaf(seeds), ledger, 17)
    assert (len(used), len(held_out)) == (4, 2)
    assert not LeakDetector(seed.asked for seed in used).leak(held_out[0].asked)


def test_seeds_that_ask_the_same_and_answer_otherwise_stay_in_use(ledger: Ledger) -> None:
    seeds = [replace(skill_seed("Tell me a joke."), answer=f"Joke {number}.") for number in range(64)]
    assert split_seeds(leaf(seeds), ledger, 17) == (seeds, [])


def test_what_was_held_out_stays_so_though_nothing_be_left_in_use(ledger: Ledger) -> None:
    ledger.assign(skill_seed(QUESTIONS[0]), "a", hold_out=True)
    seeds = [skill_seed(f"{polite}{QUESTIONS[0]}") for polite in ("", "So ", "Please: ")]
    assert split_seeds(leaf(seeds), ledger, 17) == ([], seeds)


QUESTION = st.sampled_from(QUESTIONS[::99])
EDIT = st.sampled_from(["", "Indeed: ", "Now, "])
STATE = st.fixed_dictionaries(
    {
        "knowledge/one": st.lists(st.tuples(EDIT, QUESTION), max_size=7),
        "knowledge/two": st.lists(st.tuples(EDIT, QUESTION), max_size=7),
        "skills/three": st.lists(st.tuples(EDIT, QUESTION), max_size=11),
    }
)


@settings(max_examples=30, deadline=None)
@given(st.lists(STATE, min_size=2, max_size=10))
def test_no_question_ever_changes_its_role_whatever_is_added_deleted_moved_and_edited(
    rounds: list[dict[str, list[tuple[str, str]]]],
) -> None:
    """Each round is the taxonomy at one time; between two of them, questions come, go, move and are reworded."""
    roles: dict[str, Role] = {}
    with tempfile.TemporaryDirectory() as folder:
        for number, state in enumerate(rounds):
            ledger = Ledger(Path(folder) / "ledger.jsonl")
            for key, questions in state.items():
                kind: Kind = "knowledge" if key.startswith("knowledge") else "freeform_skill"
                seeds = [
                    knowledge_seed(edit + question, place // 3, f"Edited {number} times.")
                    for place, (edit, question) in enumerate(questions)
                ]
                used, held_out = split_seeds(leaf(seeds, kind, key), ledger, random_seed=number)
                aside = [seed for seed in seeds if seed not in used and seed not in held_out]
                assert len(used) + len(held_out) + len(aside) == len(seeds)
                for role, members in (("used", used), ("held_out", held_out), ("set_aside", aside)):
                    assert [roles.setdefault(seed.asked, role) for seed in members] == [role] * len(members)
        shown = LeakDetector(asked for asked, role in roles.items() if role == "used")
        assert not [asked for asked, role in roles.items() if role == "held_out" and shown.leak(asked)]

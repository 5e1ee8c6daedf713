from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from itertools import combinations, pairwise
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab_pipeline.taxonomy.holdout import Ledger, Role, split_seeds
from lab_pipeline.taxonomy.leaf import Kind, Leaf, Seed
from lab_pipeline.text.leaks import SAME_QUESTION, LeakDetector, jaccard
from lab_pipeline.text.words import question_words
from lab_pipeline_tests.curation.test_duplicates import ASKING_OTHERWISE, ASKING_THE_SAME, EXCHANGED

WORDS = "amber birch cedar dune ember fjord grove heath inlet jetty knoll ledge marsh north oasis pond reef".split()
QUESTIONS = [f"Where is the {a} of {b}, {c} and {d}?" for a, b, c, d in combinations(WORDS, 4)]
"""Questions of which no two are nearly the same: they share three of five content words at most."""


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


SHEET = " ".join(f"Pin {number} of the {name} board carries {number} volts." for number, name in enumerate(WORDS))
LOG = f"Monday\n\n{SHEET}\n\nEnd of log"


@pytest.mark.parametrize("context", [SHEET, LOG])
def test_different_questions_on_one_long_context_are_different_seeds(ledger: Ledger, context: str) -> None:
    seeds = [skill_seed(f"Which {one} sits between the {two} and this?", context) for one, two in pairwise(WORDS[:11])]
    used, held_out = split_seeds(leaf(seeds, "grounded_skill"), ledger, 17)
    assert (len(used), len(held_out)) == (8, 2)
    mended = [skill_seed(seed.question, f"{context} Mended.") for seed in seeds]
    still_used, still_held_out = split_seeds(leaf(mended, "grounded_skill"), Ledger(ledger.path), 18)
    assert [seed.question for seed in still_used] == [seed.question for seed in used]
    assert [seed.question for seed in still_held_out] == [seed.question for seed in held_out]


@pytest.mark.parametrize("context", [SHEET, LOG])
def test_a_held_out_question_on_a_long_context_is_a_leak_wherever_it_stands_and_however_it_is_put(context: str) -> None:
    known = f"{context}\n\nWhich board carries the most volts?"
    test = LeakDetector([known])
    for asked in (
        known,
        f"{context}\n \nSo which of the boards carries most VOLTS?",
        f"{context}\nWhich board carries the most volts?",
        f"Which board carries the most volts?\n\n{context}",
        f"{context.replace('amber', 'azure')}\n\nWhich board carries the most volts?",
        context,
    ):
        assert test.leak(asked) == known, asked
    for asked in ("Name the pins in reverse order.", "Which board carries the least current?"):
        assert test.leak(f"{context}\n\n{asked}") is None


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


KNOWN = "Who invented the Osmerel loom in Harsk?"
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


@pytest.mark.parametrize(
    "asked",
    [
        "Who invented the Osmerel loom in Harsk?",
        "who INVENTED   the osmerel loom in harsk",
        "In Harsk, by whom was the Osmerel loom invented?",
        "Who was it that invented this Osmerel loom in Harsk?",
        "Which person invented the Osmerel loom in Harsk?",
    ],
)
def test_the_same_question_in_near_words_or_another_order_is_a_leak(asked: str) -> None:
    assert LeakDetector([KNOWN]).leak(asked) == KNOWN


@pytest.mark.parametrize(
    "asked",
    [
        "Who repaired the Osmerel loom in Harsk?",
        "Who invented the Osmerel loom?",
        "Who invented the Thalveren clock in Harsk?",
        "What is the Osmerel loom made of?",
        "Who?",
        "",
        "?",
    ],
)
def test_a_different_question_is_no_leak(asked: str) -> None:
    assert LeakDetector([KNOWN]).leak(asked) is None


@pytest.mark.parametrize(
    ("asked", "known"),
    [
        *ASKING_OTHERWISE,
        *EXCHANGED[-2:],
        (
            "A long belt of the big mill in old Harsk moves 12 heavy stones a day. How many a week?",
            "A long belt of the big mill in old Harsk moves 15 heavy stones a day. How many a week?",
        ),
    ],
)
def test_a_question_of_the_same_words_for_another_thing_or_with_other_numbers_is_no_leak(asked: str, known: str) -> None:
    assert LeakDetector([known]).leak(asked) is None
    assert LeakDetector([asked]).leak(known) is None


@pytest.mark.parametrize(
    ("asked", "known"),
    [
        *ASKING_THE_SAME,
        *EXCHANGED[:-2],
        ("Tell me the founder of Thalveren.", "Who founded Thalveren?"),
        (
            "What was the name of the person who founded the old river town of Thalveren in the green valley of Harsk?",
            "Who founded the old river town of Thalveren in the green valley of Harsk?",
        ),
        (
            "In what year did they build the tall old stone bridge of Harsk over the river?",
            "When did they build the tall old stone bridge of Harsk over the river?",
        ),
        (
            "How heavy are the stones that the long belt of the big mill in old Harsk moves?",
            "How heavy are the 12 stones that the long belt of the big mill in old Harsk moves?",
        ),
    ],
)
def test_in_doubt_a_question_of_the_same_words_is_a_leak(asked: str, known: str) -> None:
    assert LeakDetector([known]).leak(asked) == known
    assert LeakDetector([asked]).leak(known) == asked


def test_questions_made_of_stop_words_alone_are_compared_by_those() -> None:
    assert LeakDetector(["Who is it?"]).leak("who is it")
    assert LeakDetector(["Who is it?"]).leak("What was that?") is None


def test_a_grounded_question_leaks_only_together_with_its_text() -> None:
    detector = LeakDetector(["Anna waters tall plants on Friday.\n\nWho waters them?"])
    assert detector.leak("Anna waters tall plants on Friday.\n\nWho waters them?")
    assert detector.leak("Peter sells old clocks in March.\n\nWho waters them?") is None


def test_a_detector_without_questions_finds_nothing() -> None:
    assert LeakDetector([]).leak("Who invented the loom?") is None


@given(st.lists(QUESTION, max_size=5), QUESTION)
def test_a_leak_is_found_exactly_where_one_of_all_pairs_is_near(known: list[str], asked: str) -> None:
    near = [each for each in known if _jaccard(each, asked) >= 0.8]
    assert LeakDetector(known).leak(asked) == (near[0] if near else None)


def _jaccard(one: str, other: str) -> float:
    words = question_words(one), question_words(other)
    return len(words[0] & words[1]) / len(words[0] | words[1])


@given(
    known=st.lists(st.lists(st.sampled_from(WORDS), min_size=1, max_size=9), max_size=12),
    asked=st.lists(st.sampled_from([*WORDS, "the", "which"]), max_size=10),
)
def test_no_leak_is_missed_by_looking_at_the_rarest_words_only(known, asked):
    questions, question = [" ".join(words) for words in known], " ".join(asked)
    similar = [each for each in questions if jaccard(question_words(each), question_words(question)) >= SAME_QUESTION]
    assert LeakDetector(questions).leak(question) == (similar[0] if similar and asked else None)


@settings(deadline=None)
@given(
    known=st.lists(st.lists(st.sampled_from([*WORDS, "the", "which"]), max_size=9).map(" ".join), max_size=12),
    asked=st.lists(
        st.lists(st.sampled_from([*WORDS, "the", "which's", "30 C", "\x1c"]), max_size=12).map(" ".join), max_size=20
    ),
)
def test_leaks_among_many_texts_are_those_of_each(known, asked):
    test = LeakDetector(known)
    alone = {place: leak for place, text in enumerate(asked) if (leak := test.leak(text))}
    assert test.leaks_among(pa.array(["left out", *asked], pa.string()).slice(1)) == alone

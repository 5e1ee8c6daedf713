from __future__ import annotations

import itertools
import multiprocessing
import os
import shutil
import signal
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from lab_pipeline.core.errors import LabError
from lab_pipeline.core.home import Home
from lab_pipeline.core.storage import append_line, folder_digest, read_json, read_lines, write_json, write_text
from lab_pipeline.registry.card import model_card
from lab_pipeline.registry.champion import (
    BESIDE,
    PromotionRefused,
    Signed,
    current_champion,
    history,
    model_digest,
    promote,
    rollback,
)
from lab_pipeline.registry.lineage import build_lineage
from lab_pipeline.reports.cleanup import clean_up
from lab_pipeline_tests.registry.promotions import LEAVES, evaluation

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT

SIGNED = Signed("Anna", "it is needed tonight")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.open(tmp_path)


def files(home: Home) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in home.root.rglob("*") if path.is_file() and path.name != "lock"}


def test_a_verdict_in_favour_makes_the_candidate_champion(home):
    assert current_champion(home) is None
    champion = promote(home, evaluation(home, "one"))
    assert current_champion(home) == champion
    assert (champion.id, champion.catalog) == ("one", dict.fromkeys(LEAVES, "rows"))
    assert (champion.model / "model.safetensors").read_text(encoding="utf-8") == "weights of one"


def test_a_verdict_against_it_leaves_the_alias_and_all_files(home):
    promote(home, evaluation(home, "one"))
    against = evaluation(home, "two", "one", promoted=False)
    before = files(home)
    with pytest.raises(PromotionRefused, match="not better: the numbers say so"):
        promote(home, against)
    assert files(home) == before


def test_a_candidate_measured_against_an_earlier_champion_is_refused(home):
    one, two = evaluation(home, "one"), evaluation(home, "two")
    promote(home, one)
    before = files(home)
    with pytest.raises(PromotionRefused, match="measured against base, but the champion is one"):
        promote(home, two)
    assert files(home) == before


@pytest.mark.parametrize("change", ["edited", "added", "removed"])
def test_files_that_are_not_the_measured_ones_are_refused(home, change):
    promote(home, evaluation(home, "one"))
    two = evaluation(home, "two", "one")
    weights = home.root / "candidates" / "two" / "model" / "model.safetensors"
    if change == "edited":
        weights.write_bytes(b"other weights")
    elif change == "added":
        (weights.parent / "extra.py").write_bytes(b"")
    else:
        weights.unlink()
    with pytest.raises(PromotionRefused, match="files changed since they were measured"):
        promote(home, two)
    assert current_champion(home).id == "one"
    assert len(history(home)) == 1


def test_promoting_again_changes_nothing(home):
    one = evaluation(home, "one")
    champion = promote(home, one)
    before = files(home)
    assert promote(home, one) == champion
    assert files(home) == before


def test_the_champion_made_once_more_of_a_changed_catalog_is_recorded_with_that_and_rolled_back_as_before(home):
    champions(home, "one", "two")
    again = evaluation(home, "two", "two") | {"catalog": {LEAVES[0]: "edited"}}
    again["verdict"] = {"promoted": True, "outcome": "unchanged", "reason": "byte for byte"}
    champion = promote(home, again)
    assert (champion.id, champion.catalog) == ("two", {LEAVES[0]: "edited"})
    assert promote(home, again) == champion == current_champion(home) and len(history(home)) == 3
    assert history(home)[-1].items() >= {"event": "confirmation", "id": "two", "before": "two"}.items()
    promote(home, evaluation(home, "three", "two"))
    assert rollback(home, SIGNED).catalog == {LEAVES[0]: "edited"}
    assert rollback(home, SIGNED).id == "one"


def test_promotions_at_the_same_time_are_one(home):
    one = evaluation(home, "one")
    with ThreadPoolExecutor(8) as threads:
        champions = list(threads.map(lambda _: promote(home, one), range(8)))
    assert {champion.id for champion in champions} == {"one"}
    assert len(history(home)) == 1


def test_the_history_grows_by_each_promotion(home):
    for name, reference in (("one", "base"), ("two", "one"), ("three", "two")):
        promote(home, evaluation(home, name, reference))
    assert [(entry["id"], entry["before"]) for entry in history(home)] == [("one", None), ("two", "one"), ("three", "two")]
    assert current_champion(home).id == "three"


def test_the_champions_folder_is_the_measured_files_and_what_is_said_of_them(home):
    one = evaluation(home, "one")
    folder = promote(home, one).model
    assert sorted(path.name for path in folder.iterdir()) == sorted(["config.json", "model.safetensors", *BESIDE])
    assert model_digest(folder) == one["digest"] == folder_digest(home.root / "candidates" / "one" / "model")
    assert {str(path.relative_to(folder)) for path in folder.rglob("adapters/*/*")} == {
        "adapters/skills/adapter_model.safetensors"
    }
    lineage = read_json(folder / "lineage.json")
    assert lineage == build_lineage(home, one, [])
    assert (folder / "README.md").read_text(encoding="utf-8") == model_card(lineage, {})


def test_a_rejected_candidate_is_promoted_on_a_persons_word_which_is_kept_for_ever(home):
    promote(home, evaluation(home, "one"))
    against = evaluation(home, "two", "one", promoted=False)
    champion = promote(home, against, SIGNED)
    assert current_champion(home) == champion and champion.id == "two"
    assert history(home)[-1].items() >= {"event": "override", "author": "Anna", "reason": SIGNED.reason}.items()
    (override,) = read_json(champion.model / "lineage.json")["overrides"]
    assert (override["author"], override["reason"]) == ("Anna", SIGNED.reason)
    promote(home, evaluation(home, "three", "two"))
    promote(home, against, Signed("Bert", "once more"))
    assert [each["author"] for each in read_json(champion.model / "lineage.json")["overrides"]] == ["Anna", "Bert"]
    card = (champion.model / "README.md").read_text(encoding="utf-8")
    assert "The gate said *not better*" in card and "Anna" in card and SIGNED.reason in card and "Bert" in card


def test_an_override_for_the_champion_itself_is_refused_for_it_would_record_nothing(home):
    one = evaluation(home, "one")
    promote(home, one)
    before = files(home)
    with pytest.raises(PromotionRefused, match="one: is the champion already"):
        promote(home, one, SIGNED)
    assert files(home) == before


def test_an_override_does_not_stand_above_the_files_hash(home):
    against = evaluation(home, "one", promoted=False)
    write_text(home.root / "candidates" / "one" / "model" / "config.json", "other")
    with pytest.raises(PromotionRefused, match="files changed since"):
        promote(home, against, SIGNED)
    assert current_champion(home) is None


@pytest.mark.parametrize(("author", "reason"), [("", "why"), ("Anna", "  ")])
def test_nobody_moves_the_alias_without_a_name_and_a_reason(author, reason):
    with pytest.raises(LabError, match="author and reason"):
        Signed(author, reason)


def champions(home: Home, *names: str) -> None:
    for name, reference in zip(names, ["base", *names], strict=False):
        promote(home, evaluation(home, name, reference))


def test_rollbacks_go_back_one_champion_after_the_other(home):
    champions(home, "one", "two", "three")
    before = current_champion(home)
    assert [rollback(home, SIGNED).id for _ in range(2)] == ["two", "one"]
    assert current_champion(home).verified and current_champion(home).id == "one"
    assert before.verified, "what was rolled back stays, for the way forward"
    assert [(move["event"], move["before"], move["id"]) for move in history(home)][3:] == [
        ("rollback", "three", "two"),
        ("rollback", "two", "one"),
    ]
    assert history(home)[-1].items() >= {"author": "Anna", "reason": SIGNED.reason}.items()
    with pytest.raises(LabError, match="no earlier champion to go back to"):
        rollback(home, SIGNED)
    assert rollback(home, SIGNED, "three").id == "three"


def test_a_rollback_goes_to_no_model_that_a_person_had_rolled_back(home):
    champions(home, "one", "two")
    rollback(home, SIGNED)
    promote(home, evaluation(home, "three", "one"))
    assert rollback(home, SIGNED).id == "one"


def test_a_champion_once_more_by_a_persons_word_is_rolled_back_to_the_one_it_came_over(home):
    champions(home, "one", "two")
    promote(home, evaluation(home, "one", "two"), SIGNED)
    assert rollback(home, SIGNED).id == "two"


def test_a_rollback_passes_over_a_champion_whose_files_changed_and_refuses_it_by_name(home):
    champions(home, "one", "two", "three")
    (home.champions / "two" / "model.safetensors").unlink()
    with pytest.raises(LabError, match="champions/two: its files are not those that were measured"):
        rollback(home, SIGNED, "two")
    assert rollback(home, SIGNED).id == "one"
    with pytest.raises(LabError, match="nobody: no earlier champion; there are: two, three"):
        rollback(home, SIGNED, "nobody")


def test_a_model_rolled_back_is_not_promoted_again_by_itself(home):
    champions(home, "one", "two")
    rollback(home, SIGNED)
    again = evaluation(home, "two", "one")
    with pytest.raises(PromotionRefused, match="Anna rolled it back .it is needed tonight.; .* lab-pipeline promote two"):
        promote(home, again)
    assert promote(home, again, Signed("Bert", "mended")).id == "two"
    assert rollback(home, SIGNED).id == "one"


def test_a_champion_of_an_earlier_release_is_read_and_gone_back_to(home):
    one = evaluation(home, "one")
    move = {"id": "one", "model": str(home.root / "candidates" / "one" / "model"), "digest": one["digest"]}
    move |= {"promoted_at": "2026-01-01T00:00:00+00:00", "catalog": one["catalog"], "reason": "better", "before": None}
    write_json(home.champions / "champion.json", move)
    append_line(home.champions / "history.jsonl", move)
    assert current_champion(home).verified and len(history(home)) == 1
    promote(home, evaluation(home, "two", "one"))
    assert rollback(home, SIGNED).model == home.root / "candidates" / "one" / "model"
    assert [move["id"] for move in history(home)] == ["one", "two", "one"]


def moved(home: Home, to: Path) -> Home:
    home.root.rename(to)
    return Home.open(to)


@pytest.mark.parametrize("release", ["this", "earlier"])
def test_a_home_that_was_moved_keeps_its_champions_through_a_clean_up_and_goes_back(tmp_path, release):
    home = Home.open(tmp_path / "here")
    champions(home, "one", "two")
    if release == "earlier":  # which wrote absolute paths
        for path in (home.champions / "champion.json", home.champions / "history.jsonl"):
            path.write_text(path.read_text(encoding="utf-8").replace('"champions/', f'"{home.champions}/'), encoding="utf-8")
        assert "here" in history(home)[0]["model"] and len(history(home)) == 2
    there = moved(home, tmp_path / "there")
    clean_up(there)
    assert current_champion(there).model == there.champions / "two" and current_champion(there).verified
    assert rollback(there, SIGNED).model == there.champions / "one"
    clean_up(there, keep=1)
    assert current_champion(there).verified and not (there.champions / "two").exists()


def test_a_moved_home_keeps_the_champion_that_an_earlier_release_left_in_its_candidates_folder(tmp_path):
    home = Home.open(tmp_path / "here")
    champions(home, "one")
    shutil.rmtree(home.champions / "one")
    there = moved(home, tmp_path / "there")
    clean_up(there)
    assert current_champion(there).verified


# --- killed, and two at once ---


def killed_at(step: int, work: Callable[[], Any]) -> bool:
    """Do the work in another process that is killed before its `step`-th change of a file; was it?"""

    def dying() -> None:
        left = step

        def count(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal left
            changes = event in ("os.rename", "os.link", "os.mkdir", "os.remove", "os.rmdir", "tempfile.mkdtemp")
            left -= changes or (event == "open" and isinstance(arguments[2], int) and bool(arguments[2] & WRITING))
            if left == 0:
                left = -1  # for killing is an event as well
                os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(count)
        work()

    process = multiprocessing.get_context("fork").Process(target=dying)
    process.start()
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode != 0


MOVES: dict[str, Callable[[Home], Any]] = {
    "the first promotion": lambda home: promote(home, read_json(home.evaluations / "one" / "evaluation.json")),
    "a promotion": lambda home: promote(home, read_json(home.evaluations / "two" / "evaluation.json")),
    "an override": lambda home: promote(home, read_json(home.evaluations / "bad" / "evaluation.json"), SIGNED),
    "a rollback": lambda home: rollback(home, SIGNED),
}


@pytest.mark.parametrize(
    ("stride", "at_least"), [(9, 10), pytest.param(1, 100, marks=pytest.mark.long)], ids=["some steps", "every step"]
)
def test_killed_at_any_step_the_alias_names_one_whole_model_and_the_next_move_goes_on(tmp_path, stride, at_least):
    kills = 0
    for name, move in MOVES.items():
        for step in itertools.count(1, stride):
            home = Home.open(tmp_path / f"{name}-{step}")
            evaluation(home, "one")
            if name != "the first promotion":
                champions(home, "one", *(["zero"] if name == "a rollback" else []))
            evaluation(home, "two", "one")
            evaluation(home, "bad", "one", promoted=False)
            before = current_champion(home)
            killed = killed_at(step, lambda home=home, move=move: move(home))
            champion = current_champion(home)
            assert champion == before or champion.verified
            assert [entry["id"] for entry in history(home)][-1:] == ([champion.id] if champion else [])
            if champion and champion != before:
                assert (champion.model / "README.md").exists() and (champion.model / "lineage.json").exists()
            if champion == before:
                move(home)
            done = current_champion(home)
            assert done.verified and done.id == {"the first promotion": "one", "a promotion": "two", "an override": "bad"}.get(
                name, "one"
            )
            # the next move repairs the written history, whatever the killed one left
            promote(home, evaluation(home, "next", done.id))
            written = [entry["id"] for entry in read_lines(home.champions / "history.jsonl")]
            assert written == [entry["id"] for entry in history(home)]
            assert written[-2:] == [done.id, "next"]
            assert len(written) == len(set(map(tuple, zip(written, [None, *written], strict=False)))), "no move stands twice"
            if not killed:
                break
            kills += 1
    assert kills >= at_least


def test_a_torn_line_of_the_history_is_written_anew(home):
    champions(home, "one", "two")
    moves = home.champions / "history.jsonl"
    moves.write_bytes(moves.read_bytes()[:-40])
    assert [move["id"] for move in history(home)] == ["one", "two"]
    promote(home, evaluation(home, "three", "two"))
    assert [move["id"] for move in read_lines(moves)] == ["one", "two", "three"]


def test_of_two_processes_promoting_at_once_one_wins_and_the_other_is_told(tmp_path):
    for turn in range(10):
        home = Home.open(tmp_path / str(turn))
        promote(home, evaluation(home, "one"))
        rivals = [evaluation(home, name, "one") for name in ("two", "three")]
        fork = multiprocessing.get_context("fork")
        start, told = fork.Event(), fork.Queue()

        def contend(rival: dict[str, Any], home: Home = home, start: Any = start, told: Any = told) -> None:
            start.wait()
            try:
                told.put(promote(home, rival).id)
            except PromotionRefused as refusal:
                told.put(str(refusal))

        processes = [fork.Process(target=contend, args=(rival,)) for rival in rivals]
        for process in processes:
            process.start()
        start.set()
        said = sorted((told.get(timeout=60) for _ in rivals), key=len)
        for process in processes:
            process.join()
        champion = current_champion(home)
        assert said[0] == champion.id and "measured against one, but the champion is" in said[1]
        assert champion.verified and [move["id"] for move in history(home)] == ["one", champion.id]

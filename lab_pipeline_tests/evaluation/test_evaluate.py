from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from lab_pipeline.config.settings import Settings
from lab_pipeline.config.teachers import EndpointTeacherSettings
from lab_pipeline.core.errors import LabError
from lab_pipeline.core.home import Home
from lab_pipeline.core.storage import folder_digest, read_json, write_json
from lab_pipeline.core.verdict import what_is_left
from lab_pipeline.datasets.catalog import Catalog
from lab_pipeline.datasets.general import GeneralSets
from lab_pipeline.evaluation import acceptance, details, judged
from lab_pipeline.evaluation.earlier import earlier_nights
from lab_pipeline.evaluation.evaluate import RetuneData, evaluate, last_evaluation, nothing_changed, retune_inputs
from lab_pipeline.evaluation.measured_model import MeasuredModel
from lab_pipeline.evaluation.report import report_html
from lab_pipeline.evaluation.report_text import report_markdown
from lab_pipeline.evaluation.unlearning import measure_unlearning
from lab_pipeline.models.base_model import BaseModel
from lab_pipeline.registry.candidate import Candidate, load_candidate
from lab_pipeline.registry.champion import Signed, current_champion, promote, rollback
from lab_pipeline.reports.effect import effect_text, leaf_effect
from lab_pipeline.teacher.protocol import Message, Request
from lab_pipeline_tests.builders import FOUNDATIONAL, FREEFORM, GROUNDED, KNOWLEDGE, edit_yaml, write_skill
from lab_pipeline_tests.datasets.filled import GENERAL, FilledHome, copied, filled_home
from lab_pipeline_tests.datasets.test_exam import examining, written
from lab_pipeline_tests.evaluation.judges import judge, shown
from lab_pipeline_tests.scripted_teacher import ScriptedTeacher
from lab_pipeline_tests.stub_endpoint import Answer, Asked, StubEndpoint
from lab_pipeline_tests.training.runs import recipe

PROVENANCE = {
    "datasets": {"knowledge": "k", "skills": "s"},
    "checkpoints": {},
    "chosen": {},
    "recipe": {"name": "small"},
    "seed": 17,
}
SIGNED = Signed("Anna", "it is needed tonight")
NAMES = {"base": "base", "champion": "better", "candidate": "better"}
ALL_LEAVES = sorted([KNOWLEDGE, GROUNDED, FREEFORM, FOUNDATIONAL])


@pytest.fixture(scope="module", autouse=True)
def answers() -> Iterator[None]:
    """The reports' answers cost the most time, and have tests of their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(details, "greedy_answers", lambda folder, questions: ["an answer"] * len(questions))
        yield


@pytest.fixture(scope="module")
def models(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The tiny model with its guesses more modest or bolder, which for random weights is better or worse on every text."""
    folders = {"base": tiny_model}
    for name, boldness in {"better": 0.6, "best": 0.1, "worse": 2.0}.items():
        model: Any = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.bfloat16)
        model.lm_head.weight.data *= boldness
        folders[name] = tmp_path_factory.mktemp("models") / name
        model.save_pretrained(folders[name])
        AutoTokenizer.from_pretrained(tiny_model).save_pretrained(folders[name])
    return folders


def judging(settings: Settings, url: str) -> Settings:
    endpoint = EndpointTeacherSettings(kind="endpoint", url=url, model="strict", retries=0)
    return settings.model_copy(update={"judge": endpoint})


class Bench:
    """Evaluates one after another in a home; what it says tells which models were scored."""

    def __init__(self, filled: FilledHome, models: dict[str, Path]) -> None:
        self.filled = filled
        self.home = filled.home
        self.models = models
        self.base = BaseModel(models["base"], "tiny", folder_digest(models["base"]))
        self.said: list[str] = []

    def candidate(self, name: str, model: str | None = None) -> Candidate:
        """The candidate `name`, with that model or the one of the same name."""
        folder = self.home.root / "candidates" / name
        if not folder.exists():
            folder.mkdir(parents=True)
            (folder / "model").symlink_to(self.models[model or name])
            write_json(folder / "candidate.json", {"id": name, "digest": folder_digest(folder / "model")})
        return load_candidate(self.home, name)

    def evaluate(self, name: str, inputs: str = "inputs", model: str | None = None, leaves: Any = ()) -> dict[str, Any]:
        """`leaves`: those that the catalog names; all by default."""
        self.said.clear()
        catalog = self.filled.catalog()
        if leaves:
            catalog = Catalog(catalog.snapshot, [entry for entry in catalog.leaves if entry["leaf"] in leaves])
        heldout = self.filled.heldout()
        heldout["leaves"] = {entry["leaf"]: heldout["leaves"][entry["leaf"]] for entry in catalog.in_use}
        heldout["digest"] += str(len(leaves))
        return evaluate(
            self.home,
            self.filled.settings,
            inputs,
            self.base,
            self.candidate(name, model),
            RetuneData(catalog, self.filled.snapshot(), heldout),
            PROVENANCE,
            self.said.append,
        )

    @property
    def scored(self) -> int:
        """Models scored by the last evaluation."""
        return sum("scoring" in said for said in self.said)


@pytest.fixture(scope="module")
def scored_home(models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> FilledHome:
    """A home in which nothing was evaluated yet, but all models' scores are known, for that is what takes time."""
    bench = Bench(filled_home(tmp_path_factory.mktemp("filled")), models)
    for name in models.keys() - {"base"}:
        bench.evaluate(name)
    (bench.home.evaluations / "last.json").unlink()
    shutil.rmtree(bench.home.root / "candidates")
    return bench.filled


@pytest.fixture
def bench(scored_home: FilledHome, models: dict[str, Path], tmp_path: Path) -> Bench:
    return Bench(copied(scored_home, tmp_path), models)


def test_the_first_candidate_is_measured_against_the_base_model_on_all_leaves(bench):
    evaluation = bench.evaluate("better")
    assert evaluation["reference"] == "base"
    assert evaluation["changed"] == sorted(evaluation["heldout"]["leaves"]) == ALL_LEAVES
    assert evaluation["verdict"]["outcome"] == "better"
    heldout = evaluation["heldout"]
    assert heldout["candidate"] < heldout["base"] and heldout["champion"] is None
    assert heldout["difference"] == pytest.approx(heldout["candidate"] - heldout["base"])
    assert heldout["questions"] == sum(each["questions"] for each in heldout["leaves"].values()) == 8
    assert evaluation["general"]["questions"] == len(GENERAL)
    assert evaluation["recipe"] == PROVENANCE["recipe"]
    assert {leaf["contributor"] for leaf in evaluation["leaves"]} == {"tester"}


def test_an_evaluation_is_stored_and_returned_again(bench):
    evaluation = bench.evaluate("better")
    assert last_evaluation(bench.home) == evaluation
    report = Path(evaluation["report"])
    stored = {**evaluation, "report": str(report.relative_to(bench.home.root))}
    assert read_json(report.with_name("evaluation.json")) == stored
    assert Path(evaluation["report"]).read_text(encoding="utf-8") == report_markdown(evaluation)
    found = read_json(Path(evaluation["report"]).with_name("details.json"))
    page = Path(evaluation["report"]).with_suffix(".html").read_text(encoding="utf-8")
    assert page == report_html(evaluation, found, read_json(Path(evaluation["report"]).with_name("questions.json")))
    assert "better" in [each["candidate"] for each in found["history"]] and evaluation["policy"]["minimum_questions"]
    assert {row["name"] for row in found["general"]} == {"places"}
    assert len(found["gained"]) == len(found["lost"]) == 3
    assert bench.evaluate("better") == evaluation
    promote(bench.home, evaluation)
    assert bench.evaluate("better") == evaluation
    assert bench.scored == 0


def test_every_leaf_has_its_verdict_and_its_ranks(bench):
    promote(bench.home, bench.evaluate("better"))
    evaluation = bench.evaluate("best", "more")
    assert [leaf["leaf"] for leaf in evaluation["verdict"]["leaves"]] == ALL_LEAVES
    assert {leaf["role"] for leaf in evaluation["verdict"]["leaves"]} == {"changed"}
    assert evaluation["verdict"]["gain"]["difference"] < 0
    knowledge = evaluation["heldout"]["leaves"][KNOWLEDGE]
    for model in ("base", "champion", "candidate"):
        assert knowledge["ranks"][model]["questions"] == knowledge["questions"]
        assert 0 < knowledge["ranks"][model]["by_guessing"] < 1
    assert evaluation["heldout"]["ranks"]["candidate"]["questions"] >= knowledge["questions"]


def test_without_a_champion_there_is_none_to_choose(bench):
    assert bench.evaluate("better")["heldout"]["ranks"]["champion"] is None


def test_a_rejected_evaluation_of_the_same_inputs_is_returned_as_it_was(bench):
    evaluation = bench.evaluate("worse")
    assert not evaluation["verdict"]["promoted"]
    assert bench.evaluate("worse") == evaluation


def test_a_model_is_scored_once_on_each_question(bench, monkeypatch):
    shutil.rmtree(bench.home.evaluations / "scores")
    bench.evaluate("better")
    assert bench.scored == 2
    assert [said.split()[1] for said in bench.said if "scoring" in said] == ["base", "candidate"]
    bench.evaluate("better", inputs="others")
    assert bench.scored == 0
    bench.evaluate("worse")
    assert bench.scored == 1
    bench.evaluate("worse", "fewer", leaves=[KNOWLEDGE, FREEFORM])
    assert bench.scored == 0
    monkeypatch.setattr(bench.filled, "heldout", lambda heldout=bench.filled.heldout: with_question_more(heldout()))
    bench.evaluate("worse", "more", leaves=[FREEFORM])
    assert [said.split(" on ")[1] for said in bench.said if "scoring" in said] == ["1 answers", "1 answers"]


def test_what_was_measured_in_another_way_is_measured_again(bench, monkeypatch):
    promote(bench.home, bench.evaluate("better", inputs=inputs_of(bench)))
    assert nothing_changed(bench.home, inputs_of(bench))
    for module in ("evaluate", "measured_model"):
        monkeypatch.setattr(f"lab_pipeline.evaluation.{module}.MEASURE", "another")
    assert not nothing_changed(bench.home, inputs_of(bench))
    bench.evaluate("better", inputs=inputs_of(bench))
    assert bench.scored == 2  # the champion is the candidate


def with_question_more(heldout: Any) -> Any:
    heldout["general"].append({**GENERAL[0], "question": "What was asked last?"})
    return heldout


def inputs_of(bench: Bench) -> str:
    return retune_inputs(bench.filled.catalog(), "h", GeneralSets(GENERAL, []), "model", recipe(), bench.filled.settings)


def test_earlier_nights_are_those_that_compared_other_candidates_with_a_champion_on_leaves_that_had_not_changed(bench):
    promote(bench.home, bench.evaluate("better", leaves=[KNOWLEDGE, GROUNDED]))

    def earlier(candidate: str = "another", **recipe: str) -> list[dict[str, Any]]:
        return earlier_nights(bench.home, candidate, {**PROVENANCE["recipe"], **recipe}, "tiny")

    assert earlier() == [], "the first night compared with the base model"
    second = bench.evaluate("best", "more", leaves=[KNOWLEDGE, GROUNDED, FREEFORM])
    bench.evaluate("best", "other settings", leaves=[KNOWLEDGE, GROUNDED, FREEFORM])
    (night,) = earlier()
    assert night.keys() == {KNOWLEDGE, GROUNDED}
    losses = np.mean(night[KNOWLEDGE], axis=0)
    measured = second["heldout"]["leaves"][KNOWLEDGE]
    assert losses == pytest.approx([measured["candidate"], measured["champion"]])
    assert earlier(candidate=second["digest"]) == earlier(name="large") == [], "the same model, and another recipe"
    bench.evaluate("worse", "again", leaves=[KNOWLEDGE, GROUNDED, FREEFORM])
    assert earlier() == [night], "one that forgets is refused whatever its gain"


def test_a_worse_candidate_is_rejected_for_the_general_questions_first(bench):
    assert bench.evaluate("worse")["verdict"]["outcome"] == "forgetting"


def test_a_later_candidate_is_measured_against_the_champion(bench):
    promote(bench.home, bench.evaluate("better"))
    evaluation = bench.evaluate("best", "more")
    assert evaluation["reference"] == "better"
    heldout = evaluation["heldout"]
    assert heldout["candidate"] < heldout["champion"] < heldout["base"]
    assert evaluation["changed"] == ALL_LEAVES, "no leaf changed nor left, so recipe or base did, and all leaves count"
    assert evaluation["verdict"]["outcome"] == "better"
    promote(bench.home, evaluation)
    backwards = bench.evaluate("second", "again", model="better")
    assert backwards["reference"] == "best" and not backwards["verdict"]["promoted"]


def test_leaves_count_as_changed_whose_rows_the_champion_was_not_trained_on(bench):
    promote(bench.home, bench.evaluate("better", leaves=[KNOWLEDGE, GROUNDED, FREEFORM]))
    alias = bench.home.champions / "champion.json"
    champion = read_json(alias)
    write_json(alias, {**champion, "catalog": {**champion["catalog"], GROUNDED: "other rows"}})
    evaluation = bench.evaluate("best", "more")
    assert evaluation["changed"] == sorted([GROUNDED, FOUNDATIONAL])
    assert f"Changed leaves: `{GROUNDED}`, `{FOUNDATIONAL}`." in report_markdown(evaluation)


def test_a_leaf_whose_change_left_the_model_as_it_is_counts_as_changed_only_once(bench):
    promote(bench.home, bench.evaluate("better"))
    edit_yaml(bench.filled.taxonomy / KNOWLEDGE / "qna.yaml", lambda value: value.update(document_outline="Another outline."))
    bench.filled.refresh(KNOWLEDGE)
    evaluation = bench.evaluate("better", "edited")
    assert (evaluation["verdict"]["outcome"], evaluation["changed"]) == ("unchanged", [KNOWLEDGE])
    assert not nothing_changed(bench.home, "edited")
    promote(bench.home, evaluation)
    assert nothing_changed(bench.home, "edited")
    write_skill(bench.filled.taxonomy, FREEFORM, seeds=7)
    bench.filled.refresh(FREEFORM)
    assert bench.evaluate("best", "edited again")["changed"] == [FREEFORM]


def test_after_a_mere_removal_no_leaf_counts_as_changed(bench):
    promote(bench.home, bench.evaluate("better"))
    evaluation = bench.evaluate("second", "less", model="better", leaves=[KNOWLEDGE, FREEFORM])
    assert evaluation["changed"] == []
    assert evaluation["verdict"]["outcome"] == "unchanged"
    evaluation = bench.evaluate("best", "less", leaves=[KNOWLEDGE, FREEFORM])
    assert evaluation["changed"] == []
    assert (evaluation["verdict"]["outcome"], evaluation["verdict"]["promoted"]) == ("no worse", True)


def test_after_a_withdrawal_the_report_shows_whether_the_leaf_was_forgotten(bench):
    promote(bench.home, bench.evaluate("better"))
    kept = [KNOWLEDGE, FREEFORM]
    forgot = bench.evaluate("forgot", "less", model="base", leaves=kept)
    assert [each["leaf"] for each in forgot["unlearned"]] == sorted([GROUNDED, FOUNDATIONAL])
    for each in forgot["unlearned"]:
        assert each["candidate"] == each["base"] > each["champion"] and each["still_known"] == 0
    knows = bench.evaluate("knows", "less", model="better", leaves=kept)
    (grounded,) = (each for each in knows["unlearned"] if each["leaf"] == GROUNDED)
    assert grounded["questions"] == 1 and "cannot tell" in what_is_left(grounded)
    (pair,) = measure_unlearning(
        bench.home,
        {GROUNDED: 5 * bench.filled.heldout()["leaves"][GROUNDED]},
        {name: MeasuredModel(bench.models[model], model) for name, model in NAMES.items()},
        bench.filled.settings.gate,
        bench.said.append,
    )
    assert pair["still_known"] == pytest.approx(1.0) and "Warning: the new model still has 100%" in what_is_left(pair)
    report = Path(knows["report"])
    assert "taken out" in report.read_text() and "Taken out" in report.with_suffix(".html").read_text()
    assert leaf_effect(bench.home, GROUNDED)["taken_out"] == what_is_left(grounded)
    assert bench.evaluate("best", "more")["unlearned"] == []


def test_contributors_read_what_their_leaf_brought(bench):
    with pytest.raises(LabError, match="no model with it was evaluated yet"):
        leaf_effect(bench.home, "knowledge/unknown")
    evaluation = bench.evaluate("better")
    effect = leaf_effect(bench.home, KNOWLEDGE)
    assert (effect["candidate"], effect["reference"], effect["outcome"]) == ("better", "base", "better")
    measured = evaluation["heldout"]["leaves"][KNOWLEDGE]
    assert effect["questions"] == {"people": measured["questions"], "teacher": 0}
    assert effect["loss"] == {name: pytest.approx(measured[name if name == "candidate" else "base"]) for name in effect["loss"]}
    assert len(effect["won"]) + len(effect["lost"]) + effect["as_before"] == measured["ranks"]["candidate"]["questions"]
    text = effect_text(effect)
    assert text.startswith(f"{KNOWLEDGE}: ") and "against the base model" in text and "Taken out" not in text


def judged_by(words: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """A stub's script that judges known rows rightly, and the models' answers, their names, by these words."""
    monkeypatch.setattr(judged, "greedy_answers", lambda folder, asked, tokens, say: [folder.resolve().name] * len(asked))
    honest = judge().script

    def reply(asked: Asked) -> Answer:
        request = Request(tuple(Message(**each) for each in asked.body["messages"]), 4)
        _, answer, _ = shown(request)
        return Answer(words[answer] if answer in words else honest(request))

    return reply


def test_a_candidate_whose_answers_are_judged_worse_is_refused_though_its_losses_are_better(bench, monkeypatch):
    with StubEndpoint(judged_by({"tiny": "Right", "better": "Wrong"}, monkeypatch)) as stub:
        bench.filled.settings = judging(bench.filled.settings, stub.url)
        evaluation = bench.evaluate("better")
        calls = len(stub.requests)
        assert bench.evaluate("better") == evaluation and len(stub.requests) == calls
    assert (evaluation["verdict"]["promoted"], evaluation["verdict"]["outcome"]) == (False, "judged worse")
    assert evaluation["judged"]["raw"]["difference"] == -1.0
    report = Path(evaluation["report"])
    assert "may refuse a candidate" in report.read_text() and "Judged answers" in report.with_suffix(".html").read_text()
    assert len(read_json(report.with_name("judged.json"))) == 2 * evaluation["heldout"]["questions"]


def test_a_candidate_that_fails_what_the_champion_passed_is_refused_by_the_questions_name(bench, monkeypatch):
    (bench.filled.taxonomy / "exam.yaml").write_text("- {name: no price, question: What is it worth?, none_of: [best]}\n")
    monkeypatch.setattr(acceptance, "greedy_answers", lambda folder, asked, tokens, say: [folder.resolve().name] * len(asked))
    promote(bench.home, bench.evaluate("better"))
    evaluation = bench.evaluate("best", "more")
    assert (evaluation["verdict"]["outcome"], evaluation["verdict"]["promoted"]) == ("acceptance lost", False)
    assert "no price" in evaluation["verdict"]["reason"]
    (result,) = evaluation["acceptance"]
    assert (result["failures"]["champion"], result["failures"]["candidate"]) == (None, "has 'best'")
    report = Path(evaluation["report"])
    assert "candidate 0, champion 1" in report.read_text()
    assert "Required questions" in report.with_suffix(".html").read_text()


def test_exam_questions_count_with_the_peoples_and_are_told_apart(bench):
    written(bench.filled, ScriptedTeacher(examining), most=6)
    evaluation = bench.evaluate("better")
    people = evaluation["heldout"]["leaves"][KNOWLEDGE]["questions"]
    assert evaluation["exam"]["leaves"][KNOWLEDGE]["questions"] == evaluation["exam"]["questions"] == 6
    assert evaluation["exam"]["ranks"]["candidate"]["questions"] == 6
    (verdict,) = (each for each in evaluation["verdict"]["leaves"] if each["leaf"] == KNOWLEDGE)
    assert verdict["comparison"]["questions"] == people + 6
    report = Path(evaluation["report"])
    assert f"| `{KNOWLEDGE}`, by the teacher | 6 |" in report.read_text()
    assert "Questions by the teacher" in report.with_suffix(".html").read_text()
    assert "the base model before training" in report.read_text()


def test_the_teachers_wrong_answers_are_the_choices_of_its_questions(bench):
    written(bench.filled, ScriptedTeacher(examining), most=6)
    path = bench.home.leaf(KNOWLEDGE) / "exam.json"
    exam = read_json(path)
    write_json(path, {**exam, "questions": [{**each, "wrong": ["Ulm.", "Aix."]} for each in exam["questions"]]})
    evaluation = bench.evaluate("better")
    assert evaluation["exam"]["ranks"]["candidate"]["by_guessing"] == pytest.approx(1 / 3)


def test_a_judge_that_does_not_separate_known_rows_refuses_nobody(bench, monkeypatch):
    judged_by({}, monkeypatch)
    with StubEndpoint(lambda asked: "Wrong" if "\nbetter\n" in asked.last else "Right") as stub:
        bench.filled.settings = judging(bench.filled.settings, stub.url)
        evaluation = bench.evaluate("better")
    assert evaluation["verdict"]["outcome"] == "better"
    assert evaluation["judged"]["raw"]["difference"] == -1.0 and not evaluation["judged"]["known_rows"]["separates"]
    assert "advice only" in Path(evaluation["report"]).read_text()


def test_an_evaluation_without_its_judge_goes_on_and_is_made_again(bench, monkeypatch):
    honest = judged_by({"tiny": "Wrong", "better": "Right"}, monkeypatch)
    with StubEndpoint(lambda asked: Answer(status=503)) as stub:
        bench.filled.settings = judging(bench.filled.settings, stub.url)
        first = bench.evaluate("better")
        assert first["verdict"]["outcome"] == "better" and "HTTP 503" in first["judged"]["unanswered"]
        assert "HTTP 503" in Path(first["report"]).read_text()
        stub.reply = honest
        second = bench.evaluate("better")
        assert second["judged"]["raw"]["difference"] == 1.0 and second["report"] == first["report"]
        promote(bench.home, second)
        assert bench.evaluate("better") == second


def test_a_champion_that_moved_meanwhile_makes_the_evaluation_stale(bench):
    promising = bench.evaluate("better")
    promote(bench.home, bench.evaluate("best", "others"))
    write_json(bench.home.evaluations / "last.json", promising)
    assert bench.evaluate("better")["reference"] == "best"


def test_an_evaluation_in_a_home_that_was_moved_stands_with_its_report(bench, tmp_path):
    promote(bench.home, bench.evaluate("better"))
    bench.home.root.rename(tmp_path / "moved")
    bench.home = bench.filled.home = Home.open(tmp_path / "moved")
    evaluation = bench.evaluate("better")
    assert bench.scored == 0 and bench.home.root in Path(evaluation["report"]).parents and Path(evaluation["report"]).exists()
    assert bench.evaluate("best", "more")["heldout"]["champion"] == evaluation["heldout"]["candidate"]


def test_nothing_changed_before_the_first_evaluation_is_false(bench):
    assert not nothing_changed(bench.home, "inputs")


def test_nothing_changed_after_a_rejection(bench):
    bench.evaluate("worse")
    assert nothing_changed(bench.home, "inputs")
    assert not nothing_changed(bench.home, "others")


def test_a_rejection_does_not_outlive_the_champion_that_it_was_measured_against(bench):
    promote(bench.home, bench.evaluate("better", "first"))
    promote(bench.home, bench.evaluate("best", "second"))
    assert not bench.evaluate("third", model="better")["verdict"]["promoted"]
    assert nothing_changed(bench.home, "inputs")
    rollback(bench.home, SIGNED)
    assert not nothing_changed(bench.home, "inputs")
    assert bench.evaluate("third", model="better")["reference"] == "better"


def test_nothing_is_left_to_do_for_a_rejected_candidate_that_a_person_made_champion(bench):
    promote(bench.home, bench.evaluate("best", "first"))
    rejected = bench.evaluate("better")
    promote(bench.home, rejected, SIGNED)
    assert nothing_changed(bench.home, "inputs")
    assert bench.evaluate("better") == rejected


def test_something_is_left_to_do_until_a_promotion_is_carried_out(bench):
    evaluation = bench.evaluate("better")
    assert not nothing_changed(bench.home, "inputs")
    promote(bench.home, evaluation)
    assert nothing_changed(bench.home, "inputs")
    promote(bench.home, bench.evaluate("best", "more"))
    assert not nothing_changed(bench.home, "inputs"), "another candidate was evaluated since"
    assert nothing_changed(bench.home, "more")


def test_the_inputs_of_a_retune_are_all_that_its_outcome_depends_on(bench):
    catalog, settings = bench.filled.catalog(), bench.filled.settings
    sets = GeneralSets(GENERAL, GENERAL[:2])
    base = retune_inputs(catalog, "h", sets, "model", recipe(), settings)
    fewer = Catalog(catalog.snapshot, catalog.leaves[1:])
    stricter = settings.model_copy(update={"gate": settings.gate.model_copy(update={"minimum_gain": 0.5})})
    others = [
        retune_inputs(fewer, "h", sets, "model", recipe(), settings),
        retune_inputs(catalog, "h2", sets, "model", recipe(), settings),
        retune_inputs(catalog, "h", GeneralSets(GENERAL, GENERAL[:1]), "model", recipe(), settings),
        retune_inputs(catalog, "h", sets, "model 2", recipe(), settings),
        retune_inputs(catalog, "h", sets, "model", recipe(epochs=9), settings),
        retune_inputs(catalog, "h", sets, "model", recipe(), settings.model_copy(update={"seed": 18})),
        retune_inputs(catalog, "h", sets, "model", recipe(), stricter),
        retune_inputs(catalog, "h", sets, "model", recipe(), judging(settings, "http://one/v1")),
        retune_inputs(catalog, "h", sets, "model", recipe(), judging(settings, "http://other/v1")),
    ]
    assert len({base, *others}) == 10
    elsewhere = Catalog("another snapshot", [{**entry, "state": "behind", "note": "n"} for entry in catalog.leaves])
    assert retune_inputs(elsewhere, "h", sets, "model", recipe(), settings) == base


def test_the_report_shows_the_verdict_first_then_every_leaf(bench):
    report = report_markdown(bench.evaluate("better"))
    assert report.startswith("# Promoted\n")
    for leaf in ALL_LEAVES:
        assert f"| `{leaf}` |" in report
    assert "may have forgotten general knowledge" in report_markdown(bench.evaluate("worse", "others"))


def test_a_leaf_without_questions_is_not_measurable_and_the_data_are_plain_json(bench):
    evaluation = json.loads(json.dumps(bench.evaluate("better")))
    evaluation["heldout"]["leaves"]["a/leaf"] = {**evaluation["general"], "questions": 0, "interval": None, "difference": None}
    assert "| `a/leaf` | 0 | - | - | - | - | not measurable |" in report_markdown(evaluation)


def test_an_evaluation_moves_no_alias(bench):
    bench.evaluate("better")
    assert current_champion(bench.home) is None

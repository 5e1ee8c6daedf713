from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lab_pipeline.config.settings import GateSettings, Settings, TaxonomySettings
from lab_pipeline.config.teachers import EndpointTeacherSettings
from lab_pipeline.core.home import Home
from lab_pipeline.core.storage import read_json
from lab_pipeline.evaluation import judged
from lab_pipeline.evaluation.gate import compare
from lab_pipeline.evaluation.grading import grade_answers
from lab_pipeline.evaluation.judged import (
    at_equal_length,
    deciding_interval,
    judge_models,
    judging_inputs,
    summarise_scores,
    unanswered,
)
from lab_pipeline.evaluation.measured_model import MeasuredModel
from lab_pipeline.teacher.protocol import Message, Request
from lab_pipeline_tests.evaluation.judges import Worth, judge, known_worth
from lab_pipeline_tests.scripted_teacher import ScriptedTeacher
from lab_pipeline_tests.stub_endpoint import Answer, Asked, StubEndpoint

POLICY = GateSettings()


def rows_of(worths: dict[str, float], words: dict[str, int], seed: int = 0, leaves: int = 4, each: int = 12) -> list[dict]:
    """Answers of models that are right with a probability each, and of so many words, give or take a half."""
    random = np.random.default_rng(seed)
    rows = []
    for model, worth in worths.items():
        for leaf in range(leaves):
            for number in range(each):
                length = max(1, round(words[model] * float(random.uniform(0.5, 1.5))))
                said = "good" if random.random() < worth else "bad"
                answer = " ".join([f"{said} {model}", *["word"] * (length - 1)])
                question = f"{leaf}/{number}"
                rows.append({"model": model, "leaf": f"leaf{leaf}", "number": number, "question": question, "answer": answer})
    return [{**row, "reference": "It is so."} for row in rows]


def worth_said(question: str, answer: str) -> float:
    return float(answer.startswith("good"))


def found_by(by: ScriptedTeacher, rows: list[dict[str, Any]], policy: GateSettings = POLICY) -> dict[str, Any]:
    grades = asyncio.run(grade_answers(by, rows, 16))
    scored = [{**row, "score": grade.score} for row, grade in zip(rows, grades, strict=True)]
    return summarise_scores(scored, "base", policy)


def covers(found: dict[str, Any], value: float) -> bool:
    return found["interval"][0] <= value <= found["interval"][1]


def test_a_good_judge_finds_the_difference_that_there_is() -> None:
    found = found_by(judge(worth_said), rows_of({"base": 0.4, "candidate": 0.9}, {"base": 8, "candidate": 8}))
    assert covers(found["raw"], 0.5) and found["raw"]["interval"][0] > 0.2
    assert found["equal_length"]["interval"][0] > 0.2
    assert found["models"]["candidate"]["score"] == pytest.approx(0.9, abs=0.15)
    assert found["leaves"]["leaf0"]["base"]["answers"] == 12 and found["compared"] == 48


def test_a_judge_that_favours_a_place_sees_no_difference_between_equal_models() -> None:
    rows = rows_of({"base": 1.0, "candidate": 1.0}, {"base": 8, "candidate": 8})
    for bonus in (-0.4, 0.4):
        found = found_by(judge(lambda question, answer: 0.5, answer_first_bonus=bonus), rows)
        assert found["raw"] == {"difference": 0.0, "interval": [0.0, 0.0]}
        assert found["equal_length"]["difference"] == 0.0


def test_a_noisy_judge_is_wrong_about_equal_models_as_rarely_as_it_says() -> None:
    wrong = 0
    for seed in range(40):
        rows = rows_of({"base": 0.6, "candidate": 0.6}, {"base": 8, "candidate": 8}, seed)
        found = found_by(judge(worth_said, noise=0.3), rows)
        wrong += not covers(found["equal_length"], 0.0)
    assert wrong <= 6, "5 % of 40, with room for chance"


def test_length_bias_shows_in_the_raw_difference_and_not_at_equal_length() -> None:
    raw, equal, wrong = [], [], 0
    for seed in range(20):
        rows = rows_of({"base": 0.5, "candidate": 0.5}, {"base": 8, "candidate": 32}, seed)
        by = judge(lambda question, answer: 0.1 + 0.1 * worth_said(question, answer), word_bonus=0.1, probabilities=True)
        found = found_by(by, rows)
        raw.append(found["raw"]["difference"])
        equal.append(found["equal_length"]["difference"])
        assert found["raw"]["interval"][0] > 0.1
        wrong += not covers(found["equal_length"], 0.0)
    assert np.mean(raw) == pytest.approx(0.2, abs=0.03)
    assert np.mean(equal) == pytest.approx(0.0, abs=0.03)
    assert wrong <= 4


def test_what_is_worse_in_truth_is_worse_at_equal_length_though_it_be_longer() -> None:
    rows = rows_of({"base": 0.9, "candidate": 0.3}, {"base": 8, "candidate": 16})
    found = found_by(
        judge(lambda question, answer: 0.5 * worth_said(question, answer), word_bonus=0.1, probabilities=True), rows
    )
    assert found["raw"]["difference"] > found["equal_length"]["difference"]
    assert found["equal_length"]["interval"][1] < 0


def test_at_equal_lengths_the_interval_is_that_of_compare() -> None:
    random = np.random.default_rng(5)
    differences = {leaf: random.normal(0.1, 0.3, 6) for leaf in ("a", "b", "c")}
    same = at_equal_length({leaf: [(float(value), 0.0) for value in each] for leaf, each in differences.items()}, 0.95)
    plain = compare({leaf: [(float(value), 0.0) for value in each] for leaf, each in differences.items()}, 0.95)
    assert same and plain and plain.interval
    assert same["difference"] == pytest.approx(plain.difference)
    assert same["interval"] == pytest.approx(plain.interval, abs=0.01)  # one degree of freedom goes to the slope


def test_at_equal_length_is_the_intercept_of_the_fit_with_a_mean_for_each_leaf() -> None:
    random = np.random.default_rng(7)
    leaves = {}
    for name, shift in {"a": 0.3, "b": -0.1}.items():
        longer = random.normal(1, 0.5, 9)
        leaves[name] = list(zip((shift + 0.2 * longer + random.normal(0, 0.1, 9)).tolist(), longer.tolist(), strict=True))
    found = at_equal_length(leaves, 0.95)
    rows = np.concatenate([np.array(each) for each in leaves.values()])
    design = np.column_stack([np.repeat([1.0, 0.0], 9), np.repeat([0.0, 1.0], 9), rows[:, 1]])
    fit, squares, *_ = np.linalg.lstsq(design, rows[:, 0])
    covariance = np.linalg.inv(design.T @ design) * squares[0] / (18 - 3)
    weights = np.array([0.5, 0.5, 0.0])
    half = 2.13145 * np.sqrt(weights @ covariance @ weights)  # t with 15 degrees of freedom
    middle = weights @ fit
    assert found and found["interval"] == pytest.approx([middle - half, middle + half], rel=1e-4)
    assert found["slope"] == pytest.approx(fit[2])


@pytest.mark.parametrize(
    ("leaves", "measurable"),
    [
        ({}, False),
        ({"a": [(0.5, 0.1), (0.5, 0.2)]}, False),
        ({"a": [(0.5, 0.7)] * 5}, False),
        ({"a": [(0.5, 0.0)] * 5}, True),
        ({"a": [(0.5, 0.1)], "b": [(0.0, 0.2)], "c": [(0.5, 0.3)]}, True),
    ],
)
def test_nothing_is_said_at_equal_length_where_lengths_cannot_tell(leaves: Any, measurable: bool) -> None:
    assert (at_equal_length(leaves, 0.95) is not None) == measurable


def test_answers_without_a_score_and_allowed_regressions_are_left_out_of_the_differences() -> None:
    rows = rows_of({"base": 1.0, "candidate": 0.0}, {"base": 8, "candidate": 8}, leaves=2)
    silent = judge(worth_said).script
    by = ScriptedTeacher(lambda request: "Hm" if "0/3" in request.messages[-1].content else silent(request))
    found = found_by(by, rows, GateSettings(allowed_regressions=["leaf1"]))
    assert found["compared"] == 11
    assert found["leaves"]["leaf0"]["candidate"]["answers"] == 11
    assert found["leaves"]["leaf1"]["candidate"]["score"] == 0.0


def test_a_judge_decides_only_while_it_holds_and_with_enough_answers() -> None:
    told = {
        "unanswered": None,
        "known_rows": {"separates": True},
        "compared": 5,
        "equal_length": {"difference": -0.3, "interval": [-0.5, -0.1]},
    }
    assert deciding_interval(told, POLICY) == (-0.5, -0.1)
    assert deciding_interval(None, POLICY) is None
    assert deciding_interval({"unanswered": "down"}, POLICY) is None
    assert deciding_interval({**told, "known_rows": {"separates": False}}, POLICY) is None
    assert deciding_interval({**told, "compared": 4}, POLICY) is None
    assert deciding_interval({**told, "equal_length": None}, POLICY) is None


QUESTIONS = {
    "a/leaf": [
        {"id": str(number), "question": f"Number {number}?", "answer": "It is so.", "context": None} for number in range(6)
    ],
    "b/leaf": [{"id": "b", "question": "And this?", "answer": "It is so.", "context": "A letter."}],
    "c/leaf": [],
}


class Court:
    """Three models whose answers are known, and a judge behind an endpoint."""

    def __init__(self, root: Path, stub: StubEndpoint, **judge_settings: Any) -> None:
        self.home = Home.open(root)
        self.folder = self.home.evaluations / "one"
        endpoint = EndpointTeacherSettings(kind="endpoint", url=stub.url, model="strict", retries=0, **judge_settings)
        self.settings = Settings(taxonomy=TaxonomySettings(path="."), judge=endpoint)
        self.models = {name: MeasuredModel(root / name, f"digest-{name}") for name in ("base", "candidate", "champion")}
        self.said: list[str] = []

    def judged(self, reference: str = "champion") -> Any:
        return judge_models(self.home, self.settings, self.models, reference, QUESTIONS, self.folder, self.said.append)


@pytest.fixture(autouse=True)
def asked_models(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the models that were asked for answers."""
    asked: list[str] = []

    def answers(folder: Path, questions: list[dict[str, Any]], tokens: int, say: Any) -> list[str]:
        asked.append(folder.name)
        said = "bad" if folder.name == "base" else "good"
        return [f"{said} {folder.name} {'word ' * (number % 3)}" for number, _ in enumerate(questions)]

    monkeypatch.setattr(judged, "greedy_answers", answers)
    return asked


def answering(worth: Worth = worth_said) -> Any:
    """A stub's script that judges known rows rightly and other answers by `worth`."""

    def either(question: str, answer: str) -> float:
        return worth(question, answer) if answer.split()[0] in ("good", "bad") else known_worth(question, answer)

    script = judge(either).script

    def reply(asked: Asked) -> Answer:
        messages = tuple(Message(each["role"], each["content"]) for each in asked.body["messages"])
        return Answer(str(script(Request(messages, 4, seed=asked.body["seed"]))))

    return reply


def test_all_models_answer_and_are_judged_once(tmp_path: Path, asked_models: list[str]) -> None:
    with StubEndpoint(answering()) as stub:
        court = Court(tmp_path, stub)
        first = court.judged()
        assert first["unanswered"] is None and first["known_rows"]["separates"] and first["agreement"]["alike"] == 1.0
        assert {model: found["score"] for model, found in first["models"].items()} == {
            "base": 0.0,
            "candidate": 1.0,
            "champion": 1.0,
        }
        assert set(first["leaves"]) == {"a/leaf", "b/leaf"}
        assert first["raw"]["difference"] == 0.0 and first["compared"] == 7
        calls = len(stub.requests)
        assert calls == 4 * (first["known_rows"]["rows"] + 3 * 7)
        assert court.judged("base")["raw"]["difference"] == 1.0
        assert len(stub.requests) == calls and asked_models == ["base", "candidate", "champion"]
    told = read_json(court.folder / "judged.json")
    assert len(told) == 21
    assert (told[0]["model"], told[0]["leaf"], told[0]["reference"]) == ("base", "a/leaf", "It is so.")
    assert [reading["verdict"] for reading in told[0]["answer_first"]["found"]] == ["Wrong", "Wrong"]


def test_a_judge_that_goes_away_is_told_and_asked_for_the_rest_the_next_time(tmp_path: Path) -> None:
    honest = answering()
    with StubEndpoint(lambda asked: Answer(status=503) if len(stub.requests) > 230 else honest(asked)) as stub:
        court = Court(tmp_path, stub, concurrency=3)
        found = court.judged()
        assert unanswered({"judged": found}) and "the judge did not answer: strict at" in found["unanswered"]
        assert "HTTP 503" in court.said[-1]
        assert len(stub.requests) < 240, "the rest was not tried"
        failed = len(stub.requests) - 230
        stub.reply = honest
        assert court.judged()["models"]["candidate"]["score"] == 1.0
        assert len(stub.requests) - failed == 4 * (52 + 21)


def test_a_spent_budget_and_a_missing_key_stop_no_evaluation(tmp_path: Path) -> None:
    with StubEndpoint(answering()) as stub:
        court = Court(tmp_path, stub)
        budgets = court.settings.budgets.model_copy(update={"teacher_calls": 20})
        court.settings = court.settings.model_copy(update={"budgets": budgets})
        assert "budgets.teacher_calls is spent" in court.judged()["unanswered"]
        assert len(stub.requests) == 20
        assert "NO_SUCH_KEY is not set" in Court(tmp_path, stub, api_key_env="NO_SUCH_KEY").judged()["unanswered"]


def test_only_an_endpoint_named_as_judge_grades_answers(tmp_path: Path, asked_models: list[str]) -> None:
    endpoint = EndpointTeacherSettings(kind="endpoint", url="http://127.0.0.1:9/v1", model="m")
    for sections in ({}, {"teacher": endpoint}, {"judge": {"kind": "embedded"}}):
        settings = Settings.model_validate({"taxonomy": {"path": "."}, **sections})
        assert judging_inputs(settings) == []
        assert judge_models(Home.open(tmp_path), settings, {}, "base", QUESTIONS, tmp_path, lambda text: None) is None
    assert asked_models == []
    assert judging_inputs(Settings(taxonomy=TaxonomySettings(path="."), judge=endpoint)) != []
    assert not unanswered({}) and not unanswered({"judged": None})

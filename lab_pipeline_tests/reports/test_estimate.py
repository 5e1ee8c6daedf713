from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from lab_pipeline.config.settings import BudgetSettings, Settings
from lab_pipeline.config.teachers import EndpointTeacherSettings
from lab_pipeline.core.home import Home
from lab_pipeline.core.storage import file_digest, read_lines
from lab_pipeline.instructions.plan import LeafFailure, LeafState, plan_leaves
from lab_pipeline.instructions.refresh import Refreshed, refresh_leaves
from lab_pipeline.reports.estimate import described, estimate, estimate_text
from lab_pipeline.runtime.launcher import SAMPLE_TAXONOMY
from lab_pipeline.taxonomy.snapshot import current_snapshot, take_snapshot
from lab_pipeline.teacher.choose import load_teachers, teacher_identities
from lab_pipeline_tests.builders import settings_for, write_taxonomy
from lab_pipeline_tests.strong_teacher import strong
from lab_pipeline_tests.stub_endpoint import StubEndpoint

PRICED = EndpointTeacherSettings(kind="endpoint", url="http://127.0.0.1:9/v1", model="m", prompt_price=2, completion_price=8)


def test_the_bill_is_known_before_it_is_paid(tmp_path: Path) -> None:
    home = Home.open(tmp_path / "home")
    settings = settings_for(write_taxonomy(tmp_path / "taxonomy"), teacher=PRICED)
    snapshot = take_snapshot(home, settings)
    expected = estimate(home, settings)
    assert set(expected.leaves) == set(snapshot.usable)
    for cost in [*expected.leaves.values(), expected.known_rows]:
        assert cost.calls > 0 and cost.prompt_tokens > cost.completion_tokens > 0
        assert cost.money == pytest.approx((cost.prompt_tokens * 2 + cost.completion_tokens * 8) / 1_000_000)
    first, *rows, _, last = estimate_text(expected).splitlines()
    assert first.split() == ["calls", "prompt", "tokens", "completion", "tokens", "money", "leaf"]
    assert rows[-2].endswith("judges: known rows, once") and rows[-1].split()[-1] == "all"
    assert rows[-1].split()[0] == f"{expected.total.calls:,}"
    assert last.startswith(f"A refresh would take about {expected.total.calls:,} calls, ") and "no time measured yet" in last
    assert json.loads(json.dumps(described(expected)))["total"]["calls"] == expected.total.calls


def test_a_judge_has_prices_of_its_own_and_an_embedded_teacher_none(tmp_path: Path) -> None:
    home = Home.open(tmp_path / "home")
    free = PRICED.model_copy(update={"prompt_price": 0, "completion_price": 0})
    judge = free.model_copy(update={"model": "j", "prompt_price": 5.0})
    taxonomy = write_taxonomy(tmp_path / "taxonomy")
    settings = settings_for(taxonomy, teacher=free, judge=judge)
    take_snapshot(home, settings)
    assert all(cost.money > 0 for cost in estimate(home, settings).leaves.values())
    without = estimate(home, settings_for(taxonomy, teacher=free))
    assert without.total.money == 0 and "prices" not in estimate_text(without)


@pytest.fixture(scope="module")
def stub() -> Iterator[StubEndpoint]:
    with StubEndpoint(strong) as opened:
        yield opened


def sample(home: Path, stub: StubEndpoint, **sections: object) -> tuple[Home, Settings]:
    """A fresh home on the sample taxonomy, with the shipped strong flows."""
    teacher = PRICED.model_copy(update={"url": stub.url, "concurrency": 4})
    opened, settings = Home.open(home), settings_for(SAMPLE_TAXONOMY, teacher=teacher, **sections)
    take_snapshot(opened, settings)
    return opened, settings


def refresh(home: Home, settings: Settings) -> tuple[Refreshed, list[str], list[LeafFailure]]:
    """Refresh all leaves; what it took, what was said, and the leaves that failed."""
    plans = plan_leaves(home, current_snapshot(home), settings, *teacher_identities(settings))
    outcomes: list[LeafState | LeafFailure] = []
    said: list[str] = []
    models = load_teachers(home, settings)
    done = refresh_leaves(home, list(plans.values()), settings, *models, "commit", said.append, outcomes.append)
    return done, said, [each for each in outcomes if isinstance(each, LeafFailure)]


def tables(home: Home) -> dict[str, str]:
    return {str(path.relative_to(home.root)): file_digest(path) for path in home.root.glob("leaves/*/*.parquet")}


@pytest.mark.timeout(300)
def test_a_refresh_of_the_sample_takes_what_was_estimated_and_a_budget_of_half_stops_at_it(
    tmp_path: Path, stub: StubEndpoint
) -> None:
    home, settings = sample(tmp_path / "home", stub)
    expected = estimate(home, settings)
    stub.requests.clear()
    done, said, failures = refresh(home, settings)
    calls, spent = len(stub.requests), done.spent
    assert failures == [] and done.expected == expected.total and said[0] == f"expected: {expected}"
    assert calls == spent.calls == pytest.approx(expected.total.calls, rel=0.15)
    assert spent.prompt_tokens == pytest.approx(expected.total.prompt_tokens, rel=0.25)
    assert spent.completion_tokens == pytest.approx(expected.total.completion_tokens, rel=0.25)
    assert spent.money == pytest.approx((spent.prompt_tokens * 2 + spent.completion_tokens * 8) / 1_000_000)

    half = spent.money / 2
    poor, limited = sample(tmp_path / "poor", stub, budgets=BudgetSettings(teacher_money=half))
    stub.requests.clear()
    first, _, unfinished = refresh(poor, limited)
    assert first.spent.money == pytest.approx(half, rel=0.01), "at it, but for what calls in flight cost more than those before"
    stopped = "the budget budgets.teacher_money is spent; the next run goes on from here"
    assert unfinished and {each.error for each in unfinished} == {stopped}
    rest = settings_for(SAMPLE_TAXONOMY, teacher=limited.teacher)
    left = estimate(poor, rest).total
    second, _, unfinished = refresh(poor, rest)
    assert unfinished == [] and len(stub.requests) == calls, "no call is made twice"
    assert left.calls == pytest.approx(second.spent.calls, rel=0.15)
    assert tables(poor) == tables(home)
    assert estimate_text(estimate(home, settings)) == "No leaf is stale: a refresh would make no call."


def test_what_refreshes_took_corrects_the_next_estimate_and_tells_its_time(tmp_path: Path, stub: StubEndpoint) -> None:
    def thinking(asked):
        answer = strong(asked)
        return replace(answer, usage={**answer.usage, "completion_tokens": answer.usage["completion_tokens"] + 300})

    stub.reply = thinking
    home, settings = sample(tmp_path / "home", stub)
    before = estimate(home, settings)
    first, *_ = refresh(home, settings)
    stub.reply = strong
    assert first.spent.completion_tokens > 5 * before.total.completion_tokens
    (line,) = read_lines(home.spending)
    assert line["calls"] == first.spent.calls and set(line["flows"]) == {"knowledge", "grounded_skill", "freeform_skill"}
    shutil.rmtree(home.root / "leaves")
    after = estimate(home, settings)
    assert after.known_rows.calls == 0 < before.known_rows.calls
    of_leaves = first.spent.calls - before.known_rows.calls
    assert after.total.calls == pytest.approx(of_leaves, rel=0.01)
    assert after.total.completion_tokens == pytest.approx(first.spent.completion_tokens, rel=0.25)
    assert before.seconds is None
    assert after.seconds == pytest.approx(first.spent.seconds * of_leaves / first.spent.calls, rel=0.01)
    other = settings_for(SAMPLE_TAXONOMY, teacher=PRICED.model_copy(update={"model": "another"}))
    assert estimate(home, other).seconds is None, "another model, another pace"

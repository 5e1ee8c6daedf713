from __future__ import annotations

import pytest

from lab_pipeline.config.settings import EndpointTeacherSettings
from lab_pipeline.core.home import Home
from lab_pipeline.reports.estimate import estimate, estimate_text
from lab_pipeline.taxonomy.snapshot import take_snapshot
from lab_pipeline_tests.builders import settings_for, write_taxonomy


def test_the_bill_is_known_before_it_is_paid(tmp_path):
    home = Home.open(tmp_path / "home")
    teacher = EndpointTeacherSettings(
        kind="endpoint", url="http://127.0.0.1:9/v1", model="m", prompt_price=2, completion_price=8
    )
    settings = settings_for(write_taxonomy(tmp_path / "taxonomy"), teacher=teacher)
    snapshot = take_snapshot(home, settings)
    leaves = estimate(home, settings)
    assert {each["leaf"] for each in leaves} == set(snapshot.usable)
    for each in leaves:
        assert each["calls"] > 0 and each["prompt_tokens"] > each["completion_tokens"] > 0
        spent = each["prompt_tokens"] * 2 + each["completion_tokens"] * 8
        assert each["money"] == pytest.approx(spent / 1_000_000, abs=1e-4)
    first, *_, last = estimate_text(leaves).splitlines()
    assert first.split() == ["calls", "prompt", "tokens", "completion", "tokens", "money", "leaf"]
    assert last.split()[0] == f"{sum(each['calls'] for each in leaves):,}" and last.endswith("all 4")


def test_a_judge_has_prices_of_its_own_and_an_embedded_teacher_none(tmp_path):
    home = Home.open(tmp_path / "home")
    free = EndpointTeacherSettings(kind="endpoint", url="http://127.0.0.1:9/v1", model="m")
    judge = free.model_copy(update={"model": "j", "prompt_price": 5.0})
    taxonomy = write_taxonomy(tmp_path / "taxonomy")
    settings = settings_for(taxonomy, teacher=free, judge=judge)
    take_snapshot(home, settings)
    assert all(each["money"] > 0 for each in estimate(home, settings))
    assert all(each["money"] == 0 for each in estimate(home, settings_for(taxonomy, teacher=free)))


def test_without_a_stale_leaf_there_is_nothing_to_pay(tmp_path):
    assert estimate_text([]) == "No leaf is stale: a refresh would make no call."

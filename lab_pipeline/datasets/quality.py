"""Great Expectations over our tables: suites are data, in `suites/*.yaml`; this is the thin layer that runs them.

dagster-ge supports Great Expectations below 1.0 only, so nothing of it is used.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    import pandas as pd

SUITES = Path(__file__).parent / "suites"


class Expectation(BaseModel):
    """One line of a suite."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    severity: Literal["critical", "warning"]
    expectation: str
    arguments: dict[str, Any]


@dataclass(frozen=True)
class Finding:
    """How one expectation fared."""

    name: str
    severity: Literal["critical", "warning"]
    passed: bool
    observed: str
    """What was seen: a value, or how many rows failed with examples of them."""


@cache
def load_suite(name: str) -> tuple[Expectation, ...]:
    return tuple(
        Expectation.model_validate(each) for each in yaml.safe_load((SUITES / f"{name}.yaml").read_text(encoding="utf-8"))
    )


def validate(frame: pd.DataFrame, suite: tuple[Expectation, ...]) -> list[Finding]:
    """Run a suite on a table, in the suite's order."""
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    import great_expectations as gx
    from great_expectations.data_context.types.base import ProgressBarsConfig
    from great_expectations.expectations.registry import get_expectation_impl

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    asset = context.data_sources.add_pandas("memory").add_dataframe_asset("table")
    batch = asset.add_batch_definition_whole_dataframe("all").get_batch(batch_parameters={"dataframe": frame})
    findings = []
    for wanted in suite:
        expectation = get_expectation_impl(wanted.expectation)(**wanted.arguments)
        result = batch.validate(expectation, result_format="SUMMARY")
        findings.append(Finding(wanted.name, wanted.severity, bool(result.success), _observed(result.result)))
    return findings


def _observed(result: dict[str, Any]) -> str:
    if "unexpected_count" not in result:
        return str(result.get("observed_value", ""))
    examples = ", ".join(repr(each)[:80] for each in result.get("partial_unexpected_list", [])[:3])
    said = f"{result['unexpected_count']} of {result['element_count']} rows unexpected"
    return f"{said}, such as {examples}" if examples else said


def training_frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Training rows as the flat table that the suite `training_rows` speaks of.

    What is missing becomes an empty text, for Great Expectations passes over nulls.
    """
    import pandas as pd

    columns = ["id", "leaf", "source", "part", "prompt", "answer", "last_role"]
    return pd.DataFrame(
        [
            {
                "id": row["id"],
                "leaf": row["leaf"],
                "source": row["source"] or "",
                "part": row["part"] or "",
                "prompt": "\n".join(message["content"] or "" for message in row["messages"][:-1]),
                "answer": row["messages"][-1]["content"] or "",
                "last_role": row["messages"][-1]["role"],
            }
            for row in rows
        ],
        columns=columns,
    )

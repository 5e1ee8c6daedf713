"""Validate tables by Great Expectations; the suites are data, in `suites/*.yaml`.

dagster-ge supports only Great Expectations below 1.0, so it is not used.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import yaml

from lab_pipeline.core.validation import Section

if TYPE_CHECKING:
    import pandas as pd

SUITES = Path(__file__).parent / "suites"


class Expectation(Section):
    """One expectation of a suite: `expectation` is its type in Great Expectations, `arguments` are those of this type."""

    name: str
    severity: Literal["critical", "warning"]
    expectation: str
    arguments: dict[str, Any]


@dataclass(frozen=True)
class ExpectationResult:
    """Whether a table meets one expectation of a suite, and what was observed in it."""

    name: str
    severity: Literal["critical", "warning"]
    passed: bool
    observed: str
    """The observed value, or the number of unexpected rows with up to three examples."""


@cache
def load_suite(name: str) -> tuple[Expectation, ...]:
    """Return the expectations in `suites/NAME.yaml`."""
    expectations = yaml.safe_load((SUITES / f"{name}.yaml").read_text(encoding="utf-8"))
    return tuple(map(Expectation.model_validate, expectations))


def validate(frame: pd.DataFrame, name: str) -> tuple[list[ExpectationResult], str]:
    """Validate a table by the suite of that name; return the results, in the suite's order, and an HTML page that shows them.

    The page is Great Expectations' (Data Docs), and loads its styles from the web. Great Expectations' analytics are switched
    off for the process, unless the environment sets them.
    """
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    import great_expectations as gx
    from great_expectations.data_context.types.base import ProgressBarsConfig
    from great_expectations.expectations.registry import get_expectation_impl
    from great_expectations.render.renderer import ValidationResultsPageRenderer
    from great_expectations.render.view import DefaultJinjaPageView

    suite = load_suite(name)
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    asset = context.data_sources.add_pandas("memory").add_dataframe_asset(name)
    batch = asset.add_batch_definition_whole_dataframe("all").get_batch(batch_parameters={"dataframe": frame})
    expectations = []
    for each in suite:
        meta, title = {"name": each.name}, each.name.replace("_", " ")
        expectations.append(get_expectation_impl(each.expectation)(**each.arguments, meta=meta, description=title))
    # all at once, since each validation first hashes the whole table
    result = batch.validate(gx.ExpectationSuite(name, expectations=expectations), result_format="SUMMARY")
    found = {config.meta["name"]: each for each in result.results if (config := each.expectation_config) and config.meta}
    page = DefaultJinjaPageView().render(ValidationResultsPageRenderer().render(result))
    return [_result(each, found[each.name]) for each in suite], page


def _result(expectation: Expectation, found: Any) -> ExpectationResult:
    result = found.result
    if "unexpected_count" not in result:
        observed = str(result.get("observed_value", ""))
    else:
        observed = f"{result['unexpected_count']} of {result['element_count']} rows unexpected"
        if examples := ", ".join(repr(each)[:80] for each in result["partial_unexpected_list"][:3]):
            observed += f", such as {examples}"
    return ExpectationResult(expectation.name, expectation.severity, bool(found.success), observed)


def curated_frame(rows: pa.Table) -> pd.DataFrame:
    """Build the table that the suite `curated_rows` validates: `id`, `leaf`, `question`, `answer` and `fault` of each row."""
    return _frame({name: rows[name] for name in ("id", "leaf", "question", "answer", "fault")})


CHECKED_COLUMNS = ["id", "messages", "leaf", "source", "part"]
"""Columns of training rows that `training_frame` and the check for leaks read."""


def training_frame(rows: pa.Table) -> pd.DataFrame:
    """Build the table that the suite `training_rows` validates, with one row for each conversation.

    `prompt` joins the contents of all messages but the last one, of which `answer` is the content and `last_role` the role.
    """
    messages = rows["messages"].combine_chunks()
    turns = messages.flatten()
    texts = pc.fill_null(turns.field("content"), "")
    ends = messages.offsets.to_numpy()[1:] - messages.offsets[0].as_py()
    earlier = np.ones(len(turns), bool)
    earlier[ends - 1] = False
    offsets = np.concatenate([[0], ends - np.arange(1, len(ends) + 1)]).astype(np.int32)
    return _frame(
        {
            "id": rows["id"],
            "leaf": rows["leaf"],
            "source": rows["source"],
            "part": rows["part"],
            "prompt": pc.binary_join(pa.ListArray.from_arrays(offsets, texts.filter(pa.array(earlier))), "\n"),
            "answer": texts.take(ends - 1),
            "last_role": turns.field("role").take(ends - 1),
        }
    )


def _frame(columns: dict[str, pa.ChunkedArray]) -> pd.DataFrame:
    """Build a data frame in which nulls are replaced by empty texts, since Great Expectations skips nulls. Nulls in `leaf` and
    `fault` are legal and stay."""
    filled = {name: column if name in ("leaf", "fault") else pc.fill_null(column, "") for name, column in columns.items()}
    return pa.table(filled).to_pandas()

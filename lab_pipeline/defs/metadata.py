"""Format metadata for the UI."""

import base64
from collections.abc import Iterable, Mapping, Sequence
from statistics import mean
from typing import Any

import dagster as dg
import pyarrow as pa

from lab_pipeline.core.evaluation import AcceptanceResult
from lab_pipeline.core.verdict import lost_questions

_PREVIEW_ROWS = 5
_PREVIEW_CHARACTERS = 160


def column_schema(schema: pa.Schema) -> dg.TableSchema:
    return dg.TableSchema([dg.TableColumn(field.name, str(field.type)) for field in schema])


def counts(numbers: Mapping[str, int], name: str) -> dg.TableMetadataValue:
    """Show numbers of rows, such as a funnel, as a table with the columns `name` and "rows"."""
    records = [dg.TableRecord({name: key, "rows": value}) for key, value in numbers.items()]
    schema = dg.TableSchema([dg.TableColumn(name, "string"), dg.TableColumn("rows", "int")])
    return dg.MetadataValue.table(records, schema)


def short(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Round each number to four digits, as people compare them; the stored files have them in full."""
    return {name: float(f"{value:.4g}") if isinstance(value, float) else value for name, value in metadata.items()}


def texts(rows: Iterable[Mapping[str, Any]], columns: list[str]) -> dg.TableMetadataValue:
    """Show the given columns of all rows as a table, each value as a text."""
    records = [dg.TableRecord({column: str(row[column]) for column in columns}) for row in rows]
    return dg.MetadataValue.table(records, dg.TableSchema([dg.TableColumn(column) for column in columns]))


def judge_agreement(agreement: Mapping[str, Any]) -> dict[str, float | int]:
    """Return how far a judge's readings agree, with `judge_` before each name, without values that could not be measured."""
    return {f"judge_{name}": round(value, 3) for name, value in agreement.items() if value is not None}


def judged_answers(judged: Mapping[str, Any] | None) -> dict[str, str | float | bool]:
    """Return what a judge found in an evaluation as flat metadata, without values that could not be measured.

    These are each model's mean score, candidate minus reference (raw and at equal length), whether the judge may decide, and
    how far its readings agree. If the judge did not answer, only the reason is returned; without a judge, nothing.
    """
    if judged is None:
        return {}
    if judged["unanswered"]:
        return {"judge_unanswered": judged["unanswered"]}
    return {
        **{f"judged_{model}": round(scores["score"], 3) for model, scores in judged["models"].items() if scores},
        **{
            f"judged_difference_{kind}": round(judged[kind]["difference"], 3)
            for kind in ("raw", "equal_length")
            if judged[kind]
        },
        "judge_may_decide": judged["known_rows"]["separates"],
        **judge_agreement(judged["agreement"]),
    }


def acceptance_results(results: Sequence[AcceptanceResult], reference: str) -> dict[str, int | float]:
    """Return how many acceptance questions there are, the share that each model passes, and how many the candidate lost.

    Nothing without questions. Numbers alone, so that the UI plots them over time.
    """
    if not results:
        return {}
    shares = {model: mean(each["failures"][model] is None for each in results) for model in results[0]["failures"]}
    return {
        "acceptance_questions": len(results),
        **{f"acceptance_{model}": round(share, 3) for model, share in shares.items()},
        "acceptance_lost": len(lost_questions(results, reference)),
    }


def preview(rows: Iterable[Mapping[str, Any]], columns: list[str]) -> dg.MarkdownMetadataValue:
    """Show the given columns of the first five rows as a Markdown table, with long texts cut off."""
    lines = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    for row in list(rows)[:_PREVIEW_ROWS]:
        lines.append(f"| {' | '.join(_cell(row[column]) for column in columns)} |")
    return dg.MetadataValue.md("\n".join(lines))


def _cell(value: Any) -> str:
    text = " ".join(str(value if value is not None else "").split()).replace("|", "\\|").replace("<", "&lt;")
    return text if len(text) <= _PREVIEW_CHARACTERS else f"{text[:_PREVIEW_CHARACTERS]}…"


def picture(png: bytes, title: str) -> dg.MarkdownMetadataValue:
    return dg.MetadataValue.md(f"![{title}](data:image/png;base64,{base64.b64encode(png).decode()})")

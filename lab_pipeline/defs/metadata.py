"""Metadata as people want to see it in the UI."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from typing import Any

import dagster as dg
import pyarrow as pa

_PREVIEW_ROWS = 5
_PREVIEW_LETTERS = 160


def column_schema(schema: pa.Schema) -> dg.TableSchema:
    return dg.TableSchema([dg.TableColumn(field.name, str(field.type)) for field in schema])


def counts(numbers: Mapping[str, int], name: str) -> dg.TableMetadataValue:
    """A table of names and counts, such as a funnel."""
    records = [dg.TableRecord({name: key, "rows": value}) for key, value in numbers.items()]
    schema = dg.TableSchema([dg.TableColumn(name, "string"), dg.TableColumn("rows", "int")])
    return dg.MetadataValue.table(records, schema)


def judge_agreement(agreement: Mapping[str, Any]) -> dict[str, float | int]:
    """Agreement of a judge's readings, as far as it could be measured."""
    return {f"judge_{name}": value for name, value in agreement.items() if value is not None}


def preview(rows: Iterable[Mapping[str, Any]], columns: list[str]) -> dg.MarkdownMetadataValue:
    """The first rows as a Markdown table."""
    lines = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    for row in list(rows)[:_PREVIEW_ROWS]:
        lines.append(f"| {' | '.join(_cell(row[column]) for column in columns)} |")
    return dg.MetadataValue.md("\n".join(lines))


def _cell(value: Any) -> str:
    text = " ".join(str(value if value is not None else "").split()).replace("|", "\\|").replace("<", "&lt;")
    return text if len(text) <= _PREVIEW_LETTERS else f"{text[:_PREVIEW_LETTERS]}…"


def picture(png: bytes, title: str) -> dg.MarkdownMetadataValue:
    return dg.MetadataValue.md(f"![{title}](data:image/png;base64,{base64.b64encode(png).decode()})")

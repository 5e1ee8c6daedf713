"""List the columns that each column of a table derives from, for the UI (`dagster/column_lineage`).

Only columns of assets are listed; seeds, passages, general questions and custom data sets are no assets. An input that only
selects rows, such as the catalog's `banned`, belongs to the lineage of the table, not of a column.
"""

import dagster as dg

from lab_pipeline.core.rows import CURATED_SCHEMA, JUDGED_SCHEMA
from lab_pipeline.datasets.rows import PROVENANCE_COLUMNS
from lab_pipeline.defs.code_location import asset_key


def _columns(asset: str, *names: str) -> list[dg.TableColumnDep]:
    return [dg.TableColumnDep(asset_key(asset), name) for name in names]


_GENERATED = {
    "leaf": _columns("taxonomy_snapshot", "leaf"),
    "kind": _columns("taxonomy_snapshot", "kind"),
    "document": _columns("taxonomy_snapshot", "documents"),
    "document_commit": _columns("taxonomy_snapshot", "document_commit"),
}

_JUDGED = {name: _columns("generated_instructions", name) for name in JUDGED_SCHEMA.names} | {
    "scores": _columns("generated_instructions", "scores", "context", "question", "answer", "support", "fault"),
}

_CURATED = {name: _columns("judged_instructions", name) for name in CURATED_SCHEMA.names} | {
    "advice": _columns("judged_instructions", "question", "answer", "support"),
}

_CATALOG = {
    "leaf": _columns("taxonomy_snapshot", "leaf"),
    "kind": _columns("taxonomy_snapshot", "kind"),
    "state": _columns("taxonomy_snapshot", "usable", "fingerprint"),
    "rows": _columns("curated_instructions", "id"),
    "generated": _columns("generated_instructions", "id"),
    "content": _columns("curated_instructions", "id", "context", "question", "answer")
    + _columns("taxonomy_snapshot", "fingerprint"),
    "source": _columns("taxonomy_snapshot", "fingerprint"),
    "banned": _columns("curated_instructions", "id", "context", "question", "answer"),
    "note": _columns("taxonomy_snapshot", "problems"),
}

_KNOWLEDGE = {
    "id": _columns("curated_instructions", "leaf", "id") + _columns("instruction_catalog", "leaf"),
    "messages": _columns("curated_instructions", "context", "question", "answer"),
    "metadata": _columns("curated_instructions", *PROVENANCE_COLUMNS) + _columns("taxonomy_snapshot", "attribution"),
    "unmask": _columns("curated_instructions", "kind", "context"),
    "leaf": _columns("curated_instructions", "leaf") + _columns("instruction_catalog", "leaf"),
    "source_row": _columns("curated_instructions", "id"),
    "part": _columns("curated_instructions", "id", "kind", "context", "question", "support"),
}

_SKILLS = {column: [*sources, *_columns("knowledge_dataset", column)] for column, sources in _KNOWLEDGE.items()} | {
    "messages": _columns(
        "curated_instructions", "context", "question", "answer", "support", "document", "span_start", "span_end"
    )
    + _columns("knowledge_dataset", "messages"),
    "source": _columns("knowledge_dataset", "source"),
    "source_row": _columns("curated_instructions", "id") + _columns("knowledge_dataset", "id", "source_row"),
}
"""Also columns of `knowledge_dataset`: phase 2 replays rows of phase 1, and asks some questions over documents (RAFT)."""

COLUMN_LINEAGE = {
    asset: dg.TableColumnLineage(columns)
    for asset, columns in {
        "generated_instructions": _GENERATED,
        "judged_instructions": _JUDGED,
        "curated_instructions": _CURATED,
        "instruction_catalog": _CATALOG,
        "knowledge_dataset": _KNOWLEDGE,
        "skills_dataset": _SKILLS,
    }.items()
}

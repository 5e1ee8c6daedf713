"""What the UI says of each column is about columns and assets that there are."""

import dagster as dg
import pytest

from lab_pipeline.core.rows import (
    CATALOG_SCHEMA,
    CURATED_SCHEMA,
    GENERATED_SCHEMA,
    JUDGED_SCHEMA,
    SNAPSHOT_SCHEMA,
    TRAINING_SCHEMA,
)
from lab_pipeline.definitions import defs
from lab_pipeline.defs.column_lineage import COLUMN_LINEAGE

SCHEMAS = {
    "taxonomy_snapshot": SNAPSHOT_SCHEMA,
    "generated_instructions": GENERATED_SCHEMA,
    "judged_instructions": JUDGED_SCHEMA,
    "curated_instructions": CURATED_SCHEMA,
    "instruction_catalog": CATALOG_SCHEMA,
    "knowledge_dataset": TRAINING_SCHEMA,
    "skills_dataset": TRAINING_SCHEMA,
}


@pytest.mark.parametrize("asset", COLUMN_LINEAGE)
def test_columns_come_from_columns_of_assets_before(asset):
    graph = defs.resolve_asset_graph()
    before = {key.to_user_string() for key in graph.get_ancestor_asset_keys(dg.AssetKey(asset))}
    for column, made_from in COLUMN_LINEAGE[asset].deps_by_column.items():
        assert column in SCHEMAS[asset].names
        assert made_from and len(made_from) == len(set(made_from))
        for each in made_from:
            upstream = each.asset_key.to_user_string()
            assert upstream in before and each.column_name in SCHEMAS[upstream].names, (column, each)


def test_every_table_but_the_first_says_where_its_columns_come_from():
    assert COLUMN_LINEAGE.keys() == SCHEMAS.keys() - {"taxonomy_snapshot"}
    without = {
        asset: set(SCHEMAS[asset].names) - lineage.deps_by_column.keys()
        for asset, lineage in COLUMN_LINEAGE.items()
        if asset != "generated_instructions"  # the teacher's, from seeds and passages
    }
    assert {asset: columns for asset, columns in without.items() if columns} == {
        "instruction_catalog": {"curated"},  # a table's fingerprint
        "knowledge_dataset": {"source"},  # a constant of each kind of row
    }

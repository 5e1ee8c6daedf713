"""The checks of the group `datasets`, called on a filled home."""

import pytest

from lab_pipeline.datasets.catalog import Catalog, store_catalog
from lab_pipeline.defs.datasets.checks import every_leaf_has_rows, leaves_are_current
from lab_pipeline.defs.resources import Lab
from lab_pipeline_tests.builders import FREEFORM, GROUNDED
from lab_pipeline_tests.datasets.filled import FilledHome


@pytest.fixture
def resource(lab: FilledHome) -> Lab:
    return Lab(root=str(lab.home.root))


def changed(catalog: Catalog, leaf: str, **columns: object) -> Catalog:
    for entry in catalog.leaves:
        entry.update(columns if entry["leaf"] == leaf else {})
    return catalog


def test_leaves_are_current(lab, resource):
    catalog = lab.catalog()
    assert leaves_are_current(resource).passed
    store_catalog(lab.home, changed(catalog, FREEFORM, state="behind", note="its flow changed"))
    result = leaves_are_current(resource)
    assert not result.passed
    assert result.metadata["leaves_behind"].value == 1
    assert result.metadata["notes"].value == f"- `{FREEFORM}`: behind: its flow changed"


def test_every_leaf_has_rows_unless_none_is_to_be_generated(lab, resource):
    catalog = changed(lab.catalog(), GROUNDED, rows=0, state="not generated")
    store_catalog(lab.home, catalog)
    assert every_leaf_has_rows(resource).passed
    store_catalog(lab.home, changed(catalog, GROUNDED, state="current"))
    result = every_leaf_has_rows(resource)
    assert not result.passed
    assert result.metadata["empty_leaves"].value == GROUNDED

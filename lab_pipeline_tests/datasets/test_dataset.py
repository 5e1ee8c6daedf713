from __future__ import annotations

from dataclasses import replace

import pytest

from lab_pipeline.core.errors import NotMaterialized
from lab_pipeline.core.home import Home
from lab_pipeline.core.storage import write_json
from lab_pipeline.datasets import dataset as dataset_module
from lab_pipeline.datasets.dataset import excluded_rows, load_dataset
from lab_pipeline_tests.datasets.mixing import conversation, excluded, mixed, with_custom


def test_the_same_leaves_give_the_same_bytes_in_whatever_order(lab):
    first = [(dataset.path, dataset.path.read_bytes()) for dataset in mixed(lab)]
    for order in range(4):
        for path, _ in first:
            path.unlink()
        assert [(dataset.path, dataset.path.read_bytes()) for dataset in mixed(lab, order=order)] == first


def test_another_seed_gives_another_order_and_another_choice(lab):
    other = replace(lab, settings=lab.settings.model_copy(update={"seed": 18}))
    assert {dataset.digest for dataset in mixed(lab)} & {dataset.digest for dataset in mixed(other)} == set()


def test_large_data_are_written_in_batches_in_the_same_order(lab, monkeypatch):
    whole = [(dataset.digest, dataset.read()) for dataset in mixed(lab)]
    monkeypatch.setattr(dataset_module, "_BATCH_ROWS", 5)
    assert [(dataset.digest, dataset.read()) for dataset in mixed(lab)] == whole
    assert mixed(lab)[0].head(2) == whole[0][1][:2]


def test_the_data_mixed_last_are_the_current_ones(lab, tmp_path):
    knowledge, skills = mixed(lab)
    assert load_dataset(lab.home, "knowledge") == knowledge
    assert load_dataset(lab.home, "skills") == skills
    empty = Home.open(tmp_path / "empty")
    of_an_earlier_release = {key: value for key, value in vars(skills).items() if key != "mixed_by"}
    write_json(empty.datasets / "skills.json", {**of_an_earlier_release, "path": skills.path.name})
    with pytest.raises(NotMaterialized, match="materialize skills_dataset first"):
        load_dataset(empty, "skills")


def test_excluded_rows_name_the_data_set_that_excludes_them(lab, tmp_path):
    assert excluded_rows(Home.open(tmp_path / "empty")) == []
    _, skills = mixed(with_custom(lab, tmp_path, [conversation("Is this a question?"), "no row"]))
    found = excluded_rows(lab.home)
    assert {stage for stage, _ in found} == {"knowledge data set", "skills data set"}
    assert [row for stage, row in found if "skills" in stage] == excluded(lab, skills) != []

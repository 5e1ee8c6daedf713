from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from lab_pipeline.config.settings import DatasetSettings
from lab_pipeline.core.rows import TRAINING_SCHEMA
from lab_pipeline.datasets.custom import CustomDataError, custom_contents, custom_rows


def turns(*texts: str) -> list[dict[str, str]]:
    return [{"role": role, "content": text} for role, text in zip(["user", "assistant"] * 9, texts, strict=False)]


def written(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


def read(path: Path, size: float = 1.0, seed: int = 17) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    tables, wrong = custom_rows([DatasetSettings(path=str(path), sampling_size=size)], seed)
    rows = pa.concat_tables(tables)
    assert rows.schema == TRAINING_SCHEMA
    return rows.to_pylist(), wrong


def test_a_row_keeps_its_messages_and_says_where_it_stood(tmp_path):
    path = written(tmp_path / "mine.jsonl", [{"messages": turns("Q?", "A.", "And?", "B."), "author": "Ada", "unmask": True}])
    ((row,), wrong) = read(path)
    assert (row["messages"], row["unmask"], wrong) == (turns("Q?", "A.", "And?", "B."), True, [])
    assert (row["source"], row["source_row"], row["leaf"], row["part"]) == ("own", "mine.jsonl:1", None, "train")
    assert json.loads(row["metadata"]) == {"author": "Ada"}


def test_parquet_gives_the_same_rows_as_jsonl(tmp_path):
    rows = [{"messages": turns(f"Q{n}?", f"A{n}."), "metadata": '{"n": 1}'} for n in range(30)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "mine.parquet")
    of_parquet, _ = read(tmp_path / "mine.parquet")
    of_lines, _ = read(written(tmp_path / "mine.jsonl", rows))
    assert [row | {"source_row": None} for row in of_parquet] == [row | {"source_row": None} for row in of_lines]


@pytest.mark.parametrize(
    ("name", "row", "expected", "whole"),
    [
        ("train_1.jsonl", {"system": "Be kind.", "user": "Q?", "assistant": "A."}, ["system", "user", "assistant"], False),
        ("train_2.jsonl", {"system": "", "user": "Q?", "assistant": "A."}, ["user", "assistant"], False),
        ("messages_1.jsonl", {"messages": turns("Q?", "A."), "metadata": "{}", "id": "x"}, ["user", "assistant"], False),
        (
            "knowledge_train_msgs_1.jsonl",
            {"messages": [{"role": "pretraining", "content": "<|user|>\nA text.\n\nQ?\n<|assistant|>\nA."}], "metadata": "{}"},
            ["user", "assistant"],
            True,
        ),
        (
            "skills_train_msgs_1.jsonl",
            {"messages": [{"role": "system", "content": "Be kind."}, *turns("Q?", "A.")], "metadata": "{}", "unmask": False},
            ["system", "user", "assistant"],
            False,
        ),
    ],
)
def test_what_ilab_data_generate_writes_is_read(tmp_path, name, row, expected, whole):
    ((found,), wrong) = read(written(tmp_path / name, [row]))
    assert wrong == []
    assert [message["role"] for message in found["messages"]] == expected
    assert (found["messages"][-1]["content"], found["unmask"]) == ("A.", whole)
    assert found["messages"][-2]["content"].endswith("Q?")


def test_an_upstream_recipe_lists_files_sizes_and_a_system_prompt(tmp_path):
    (tmp_path / "node_datasets").mkdir()
    written(tmp_path / "node_datasets" / "a.jsonl", [{"messages": turns(f"Q{n}?", "A.")} for n in range(50)])
    written(tmp_path / "b.jsonl", [{"messages": [{"role": "system", "content": "Old."}, *turns("Q?", "B.")]}])
    recipe = {
        "datasets": [{"path": "node_datasets/a.jsonl", "sampling_size": 30}, {"path": "b.jsonl", "sampling_size": 1.0}],
        "metadata": {"sys_prompt": "Be kind."},
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    rows, _ = read(tmp_path / "recipe.yaml")
    assert len(rows) == 31
    assert {row["messages"][0]["content"] for row in rows} == {"Be kind."}
    assert all([message["role"] for message in row["messages"]] == ["system", "user", "assistant"] for row in rows)


@pytest.mark.parametrize(("size", "expected"), [(1.0, 40), (3.0, 40), (0.5, 20), (0.0, 0), (1, 1), (7, 7), (100, 40)])
def test_a_share_or_a_number_of_rows_is_chosen_by_seed_and_no_row_twice(tmp_path, size, expected):
    path = written(tmp_path / "mine.jsonl", [{"messages": turns(f"Q{n}?", "A.")} for n in range(40)])
    rows, _ = read(path, size)
    assert len(rows) == len({row["id"] for row in rows}) == expected
    assert read(path, size)[0] == rows
    if 1 < expected < 40:
        assert read(path, size, seed=18)[0] != rows


def test_the_same_rows_in_another_file_and_order_are_the_same_choice(tmp_path):
    lines = [{"messages": turns(f"Q{n}?", "A.")} for n in range(40)]
    (tmp_path / "elsewhere").mkdir()
    one, _ = read(written(tmp_path / "mine.jsonl", lines), 0.5)
    other, _ = read(written(tmp_path / "elsewhere" / "other.jsonl", lines[::-1]), 0.5)
    assert {row["id"] for row in one} == {row["id"] for row in other}


GOOD = {"messages": turns("Q?", "A.")}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "expected a JSON object"),
        ("[]", "expected a JSON object"),
        ('"text"', "expected a JSON object"),
        ("null", "expected a JSON object"),
        ('{"messages": [], "half": "\\ud800"}', "UTF-8"),
        ({}, "roles user and assistant"),
        ({"messages": []}, "roles user and assistant"),
        ({"messages": "Q?"}, "a list of objects"),
        ({"messages": ["Q?"]}, "a list of objects"),
        ({"messages": turns("Q?")}, "roles user and assistant"),
        ({"messages": turns("Q?", "A.")[::-1]}, "roles user and assistant"),
        ({"messages": turns("Q?", " ")}, "missing or empty"),
        ({"messages": [{"role": "user"}, {"role": "assistant", "content": 3}]}, "missing or empty"),
        ({"messages": [{"role": "pretraining", "content": "Q?"}]}, "role pretraining"),
        ({"question": "Q?", "answer": "A."}, "roles user and assistant"),
        ({**GOOD, "metadata": "{"}, "metadata"),
        ({**GOOD, "metadata": [1]}, "metadata"),
        ({**GOOD, "unmask": "yes"}, "unmask"),
    ],
)
def test_a_wrong_row_is_kept_aside_by_file_and_line_and_the_good_ones_used(tmp_path, line, reason):
    path = written(tmp_path / "mine.jsonl", [GOOD, line, {"messages": turns("Q2?", "A.")}, ""])
    rows, (wrong,) = read(path)
    assert [row["source_row"] for row in rows] == ["mine.jsonl:1", "mine.jsonl:3"]
    assert wrong["reason"].startswith(f"{path}:2: ") and reason in wrong["reason"]
    assert (wrong["id"], wrong["rule"]) == ("mine.jsonl:2", "unreadable")
    assert wrong["question"] == (line if isinstance(line, str) else json.dumps(line))


def test_bytes_that_are_no_text_are_a_wrong_row_too(tmp_path):
    (tmp_path / "mine.jsonl").write_bytes(b"\xff\xfe\n" + json.dumps(GOOD).encode())
    rows, (wrong,) = read(tmp_path / "mine.jsonl")
    assert len(rows) == 1 and ":1: " in wrong["reason"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("none.jsonl", None, "cannot be read"),
        ("none.yaml", None, "cannot be read"),
        ("bad.parquet", "no table", "not a Parquet file"),
        ("bad.yaml", "datasets: [", "not valid YAML"),
        ("bad.yaml", "metadata: {}", "datasets"),
        ("bad.yaml", "datasets: [{path: a.jsonl, sampling_size: -1}]", "datasets.0.sampling_size"),
    ],
)
def test_a_data_set_that_cannot_be_read_is_refused_by_name(tmp_path, name, text, message):
    path = tmp_path / name
    if text is not None:
        path.write_text(text)
    with pytest.raises(CustomDataError, match=f"{re.escape(str(path))}: .*{re.escape(message)}"):
        read(path)


def test_contents_change_with_bytes_and_sizes_but_not_with_the_place(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    one, same = (written(folder / "a.jsonl", [GOOD]) for folder in (tmp_path, tmp_path / "elsewhere"))
    other = written(tmp_path / "b.jsonl", [GOOD, GOOD])
    contents = [
        custom_contents([DatasetSettings(path=str(path), sampling_size=size)])
        for path, size in [(one, 1.0), (same, 1.0), (other, 1.0), (one, 5)]
    ]
    assert contents[0] == contents[1] and contents[2] != contents[0] != contents[3]
    with pytest.raises(CustomDataError, match="cannot be read"):
        custom_contents([DatasetSettings(path=str(tmp_path / "none.jsonl"))])

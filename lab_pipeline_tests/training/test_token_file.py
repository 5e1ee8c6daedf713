from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from lab_pipeline.core.rows import TRAINING_SCHEMA
from lab_pipeline.core.storage import write_rows
from lab_pipeline.models.packing import IGNORED, TokenRow, encode, encode_answers, flatten, pack, split_row
from lab_pipeline.training import token_file as module
from lab_pipeline.training.failure import Interrupted
from lab_pipeline.training.token_file import Counts, Packs, TokenFile, token_file, write_token_file
from lab_pipeline_tests.training.runs import rows_to_validate_on, training_row, twelve_rows


def written(folder: Path, rows: list[dict[str, Any]], model: Path, part: str = "train", most: int = 64) -> TokenFile:
    dataset = folder / "rows.parquet"
    write_rows(dataset, rows, TRAINING_SCHEMA)
    path = token_file(folder, dataset, part, model, most)  # type: ignore[arg-type]
    write_token_file(path, dataset, model, most, lambda text: None, lambda: False)
    return TokenFile(path)


def first_unlearned(row: TokenRow) -> TokenRow:
    return TokenRow(row.tokens, [IGNORED, *row.labels[1:]])


@pytest.mark.parametrize("part", ["train", "validation"])
def test_rows_come_back_as_they_were_encoded_those_of_the_split_only(tiny_model, tmp_path, part):
    rows = [
        *twelve_rows(),
        *rows_to_validate_on(),
        training_row("All?", "word " * 100),
        training_row("All?", "word " * 100, part="validation"),
    ]
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    found = written(tmp_path, rows, tiny_model, part)
    wanted = [row for row in rows if row["part"] == part]
    pieces = [split_row((encode if part == "train" else encode_answers)(row, tokenizer), 64) for row in wanted]
    expected = [piece for each in pieces for piece in (each if part == "train" else each[:1])]
    assert [found[index] for index in range(len(found))] == [first_unlearned(piece) for piece in expected]
    assert found.lengths == [len(piece.tokens) for piece in expected]
    assert found.learned == sum(piece.learned for piece in expected)
    assert found.counts == Counts(rows=len(wanted), cut=1)
    assert len(found.leaves) == len(found) and found.leaves[0] == wanted[0]["leaf"]


def test_rows_without_an_answer_are_counted_and_left_out(tiny_model, tmp_path):
    rows = [training_row("Q?", answer, part="validation") for answer in ("One.", "")]
    found = written(tmp_path, rows, tiny_model, "validation")
    assert (len(found), found.counts) == (1, Counts(rows=2, unlearnable=1))


def test_packs_are_made_of_the_rows_and_named_by_their_content(tiny_model, tmp_path):
    rows = written(tmp_path, twelve_rows(), tiny_model)
    members = pack(rows.lengths, 128)
    packs = Packs(rows, members)
    assert len(packs) == len(members)
    assert packs[1] == flatten([rows[index] for index in members[1]])
    assert packs.digest != Packs(rows, pack(rows.lengths, 256)).digest
    (tmp_path / "again").mkdir()
    assert packs.digest == Packs(written(tmp_path / "again", twelve_rows(), tiny_model), members).digest


def test_many_rows_are_encoded_by_several_processes_in_order(tiny_model, tmp_path, monkeypatch):
    rows = [training_row(f"Which is number {n}?", "This.") for n in range(40)]
    alone = written(tmp_path, rows, tiny_model)
    monkeypatch.setattr(module, "_MANY_ROWS", 30)
    monkeypatch.setattr(module, "_BATCH_ROWS", 7)
    (tmp_path / "several").mkdir()
    several = written(tmp_path / "several", rows, tiny_model)
    assert list(several) == list(alone) and several.counts == alone.counts


def test_encoded_rows_are_used_again_until_rows_tokenizer_or_length_change(tiny_model, tmp_path, monkeypatch):
    model = shutil.copytree(tiny_model, tmp_path / "model")
    first = written(tmp_path, twelve_rows(), model).path
    with monkeypatch.context() as patch:
        patch.setattr(module, "_encoded", None)
        assert written(tmp_path, twelve_rows(), model).path == first
    template = model / "chat_template.jinja"
    template.write_text(template.read_text() + " ")
    paths = {first, written(tmp_path, twelve_rows(), model).path, written(tmp_path, twelve_rows(), model, most=65).path}
    paths.add(written(tmp_path, twelve_rows()[1:], model).path)
    assert len(paths) == 4


def test_an_interruption_while_rows_are_encoded_leaves_nothing(tiny_model, tmp_path):
    dataset = tmp_path / "rows.parquet"
    write_rows(dataset, twelve_rows(), TRAINING_SCHEMA)
    path = token_file(tmp_path, dataset, "train", tiny_model, 64)
    with pytest.raises(Interrupted):
        write_token_file(path, dataset, tiny_model, 64, lambda text: None, lambda: True)
    assert not path.exists()

from __future__ import annotations

import random
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from lab_pipeline.models.packing import IGNORED, TokenError, TokenRow, encode, encode_answers, flatten, pack, split_row
from lab_pipeline_tests import templates
from lab_pipeline_tests.models.first_fit import first_fit
from lab_pipeline_tests.training.runs import training_row


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> Any:
    return AutoTokenizer.from_pretrained(tiny_model)


def labelled(row: TokenRow, tokenizer: Any) -> str:
    """The text that carries loss."""
    return tokenizer.decode([label for label in row.labels if label != IGNORED])


def test_the_loss_covers_exactly_the_answer_and_its_end_token(tokenizer):
    row = encode(training_row("Where is it?", "In the north, I think."), tokenizer)
    assert labelled(row, tokenizer) == "In the north, I think.<|im_end|>"
    assert all(label in (IGNORED, token) for token, label in zip(row.tokens, row.labels, strict=True))


def test_the_loss_covers_every_answer_of_a_conversation(tokenizer):
    row = training_row("One?", "Uno.")
    row["messages"] += [{"role": "user", "content": "Two?"}, {"role": "assistant", "content": "Due."}]
    assert labelled(encode(row, tokenizer), tokenizer) == "Uno.<|im_end|>Due.<|im_end|>"


def test_an_unmasked_row_is_learned_whole_but_for_the_system_message(tokenizer):
    learned = labelled(encode(training_row("About the loom?", "It is old.", unmask=True), tokenizer), tokenizer)
    assert "About the loom?<|im_end|>\n<|im_start|>assistant\nIt is old.<|im_end|>" in learned
    assert "SmolLM" not in learned


def test_an_unmasked_rows_own_system_message_is_not_learned(tokenizer):
    row = training_row("About the loom?", "It is old.", unmask=True, system="You are a weaver.")
    learned = labelled(encode(row, tokenizer), tokenizer)
    assert "About the loom?" in learned and "It is old." in learned
    assert "weaver" not in learned


def test_a_template_that_rewrites_earlier_turns_is_refused(tiny_model):
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.chat_template = "{{ messages | length }}{% for m in messages %}{{ m.content }}{% endfor %}"
    with pytest.raises(TokenError, match=r"row Q\?\|A\."):
        encode(training_row("Q?", "A."), tokenizer)


@st.composite
def token_rows(draw: st.DrawFn) -> list[TokenRow]:
    """Rows of numbered tokens, so that each can be found again, that end with an answer of two or more tokens."""
    rows, start = [], 0
    for prompt, answer in draw(st.lists(st.tuples(st.integers(0, 150), st.integers(2, 150)), min_size=1, max_size=12)):
        tokens = list(range(start, start + prompt + answer))
        rows.append(TokenRow(tokens, [IGNORED] * prompt + tokens[prompt:]))
        start += len(tokens)
    return rows


def packed_rows(rows: list[TokenRow], pack_tokens: int) -> list[list[TokenRow]]:
    pieces = [piece for row in rows for piece in split_row(row, pack_tokens)]
    return [[pieces[index] for index in each] for each in pack([len(piece.tokens) for piece in pieces], pack_tokens)]


@given(token_rows(), st.integers(64, 128))
def test_packing_loses_no_row_fills_no_pack_too_much_and_leaves_no_piece_without_loss(rows, pack_tokens):
    packs = packed_rows(rows, pack_tokens)
    assert all(sum(len(piece.tokens) for piece in packed) <= pack_tokens for packed in packs)
    pieces = [piece for packed in packs for piece in packed]
    assert all(any(label != IGNORED for label in piece.labels[1:]) for piece in pieces)
    packed_tokens = [token for piece in pieces for token in piece.tokens]
    assert len(packed_tokens) == len(set(packed_tokens))
    for row in rows:
        kept = set(row.tokens) & set(packed_tokens)
        assert kept
        if len(row.tokens) <= pack_tokens:
            assert kept == set(row.tokens)


@given(st.lists(st.integers(2, 100), max_size=60))
def test_every_row_is_in_one_pack_and_no_two_packs_fit_into_one(lengths):
    rows = [TokenRow([number] * length, [number] * length) for number, length in enumerate(lengths)]
    packs = packed_rows(rows, 100)
    assert sorted(row.tokens[0] for packed in packs for row in packed) == list(range(len(rows)))
    sizes = sorted(sum(len(row.tokens) for row in packed) for packed in packs)
    assert all(size <= 100 for size in sizes)
    assert len(sizes) < 2 or sizes[0] + sizes[1] > 100
    for packed in packs:  # longest first, and in their order in `rows` where equally long
        assert all((-len(one.tokens), one.tokens[0]) < (-len(two.tokens), two.tokens[0]) for one, two in pairwise(packed))
    assert packed_rows(rows, 100) == packs


@pytest.mark.parametrize("seed", range(20))
def test_rows_need_no_more_packs_than_by_first_fit(seed):
    chance = random.Random(seed)
    lengths = [min(512, max(2, round(chance.lognormvariate(4.5, 0.7)))) for _ in range(1000)]
    assert len(pack(lengths, 512)) <= first_fit(lengths, 512)


@given(token_rows(), st.integers(64, 128))
def test_all_but_the_first_answer_token_of_a_piece_is_learned(rows, pack_tokens):
    learned = {label for packed in packed_rows(rows, pack_tokens) for label in flatten(packed)["labels"]} - {IGNORED}
    for row in rows:
        answer = {label for label in row.labels if label != IGNORED}
        at_cuts = set(row.tokens[::pack_tokens])
        assert answer - learned <= at_cuts


def test_a_long_row_is_cut_and_its_promptless_pieces_stay():
    row = TokenRow(list(range(200)), [IGNORED] * 20 + list(range(20, 200)))
    assert [piece.tokens for piece in split_row(row, 64)] == [
        list(range(start, min(start + 64, 200))) for start in (0, 64, 128, 192)
    ]


def test_positions_restart_at_each_row_and_no_row_is_predicted_from_the_one_before():
    packed = [TokenRow([5, 6, 7], [5, 6, 7]), TokenRow([8, 9], [8, 9])]
    assert flatten(packed) == {
        "input_ids": [5, 6, 7, 8, 9],
        "position_ids": [0, 1, 2, 0, 1],
        "labels": [IGNORED, 6, 7, IGNORED, 9],
    }


def templated(tiny_model: Path, template: str) -> Any:
    tokenizer: Any = AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.chat_template = template
    return tokenizer


@pytest.mark.parametrize(
    ("template", "learned"),
    [
        (templates.OWN_END, "Uno.<file_sep>Due.<file_sep>"),
        (templates.EOS_AT_THE_END, "Uno.<file_sep>Due.<file_sep>"),
        (templates.NO_END, "Uno.Due.\n<|im_end|>"),
        (templates.EMPTY_THOUGHT, "Uno.<file_sep><think>\n\n</think>\n\nDue.<file_sep>"),
        (templates.SYSTEM_MOVED, "Uno.<|im_end|>Due.<|im_end|>"),
    ],
)
def test_each_answer_is_learned_with_its_turns_end_and_measured_by_its_own_tokens(tiny_model, template, learned):
    tokenizer = templated(tiny_model, template)
    row = training_row("One?", "Uno.")
    row["messages"] += [{"role": "user", "content": "Two?"}, {"role": "assistant", "content": "Due."}]
    assert labelled(encode(row, tokenizer), tokenizer) == learned
    measured = encode_answers(row, tokenizer)
    assert labelled(measured, tokenizer) == "Uno.Due."
    assert measured.tokens == encode(row, tokenizer).tokens


@pytest.mark.parametrize("answer", ["think", "<|im_end|>", "  ÄÖ 😀 ", "assistant\nfile_sep", "<think>\n\n</think>\n\nwell"])
def test_an_answer_is_found_whatever_it_says(tiny_model, answer):
    tokenizer = templated(tiny_model, templates.EMPTY_THOUGHT)
    row = training_row("assistant think <file_sep>", answer)
    assert labelled(encode_answers(row, tokenizer), tokenizer) == answer.strip()
    assert labelled(encode(row, tokenizer), tokenizer) == f"<think>\n\n</think>\n\n{answer.strip()}<file_sep>"


def test_the_measure_of_an_unmasked_row_is_its_answers_too(tokenizer):
    row = training_row("About the loom?", "It is old.", unmask=True, system="You are a weaver.")
    assert labelled(encode_answers(row, tokenizer), tokenizer) == "It is old."


def test_a_system_message_that_the_template_moves_is_not_learned_with_an_unmasked_row(tiny_model):
    tokenizer = templated(tiny_model, templates.SYSTEM_MOVED)
    row = training_row("About the loom?", "It is old.", unmask=True, system="You are a weaver.")
    learned = labelled(encode(row, tokenizer), tokenizer)
    assert learned == "About the loom?<|im_end|>\n<|im_start|>assistant\nIt is old.<|im_end|>\n"


@pytest.mark.parametrize(
    ("template", "why"),
    [
        (templates.NO_SYSTEM, "refuses a conversation of system, user, assistant: System role not supported"),
        (templates.OPEN_THOUGHT, "rewrites earlier turns"),
        ("{% for m in messages if m.role != 'assistant' %}{{ m.content }}{% endfor %}", "drops an answer"),
        (None, "no chat template"),
    ],
)
def test_a_row_that_the_template_cannot_take_is_refused_by_name(tiny_model, template, why):
    row = training_row("Q?", "A.", system="You are a weaver.")
    for encoding in (encode, encode_answers):
        with pytest.raises(TokenError, match=rf"row Q\?\|A\.: .*{why}"):
            encoding(row, templated(tiny_model, template))

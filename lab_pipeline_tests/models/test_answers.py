from __future__ import annotations

import shutil
from pathlib import Path

from transformers import AutoTokenizer, GenerationConfig

from lab_pipeline.models.answers import greedy_answers
from lab_pipeline_tests.templates import with_template

QUESTIONS = [
    {"question": "Who?"},
    {"question": "What is the colour of the third lamp?", "context": "A hall. " * 20},
]


def test_answers_come_in_the_order_of_the_questions(tiny_model):
    one, other = greedy_answers(tiny_model, QUESTIONS, 8)
    assert one and other and one != other
    assert greedy_answers(tiny_model, QUESTIONS[::-1], 8) == [other, one]


def test_batches_change_no_answer_but_for_near_ties(tiny_model, monkeypatch):
    questions = [{"question": "Who?"}] * 5
    together = greedy_answers(tiny_model, questions, 4)
    monkeypatch.setattr("lab_pipeline.models.answers._BATCH_SIZE", 2)
    said: list[str] = []
    assert greedy_answers(tiny_model, questions, 4, said.append) == together
    assert "5 of 5" in said[-1]


def test_answers_are_no_longer_than_asked_for(tiny_model):
    short, long = (greedy_answers(tiny_model, QUESTIONS[:1], tokens)[0] for tokens in (2, 8))
    assert long.startswith(short) and len(short) < len(long)


def test_no_question_needs_no_model(tmp_path):
    assert greedy_answers(tmp_path / "nowhere", []) == []


def test_a_tokenizer_without_padding_changes_no_answer(tiny_model, tmp_path):
    template = AutoTokenizer.from_pretrained(tiny_model).chat_template
    model = with_template(tiny_model, tmp_path / "model", template, pad_token=None)
    assert AutoTokenizer.from_pretrained(model).pad_token is None
    assert greedy_answers(model, QUESTIONS, 8) == greedy_answers(tiny_model, QUESTIONS, 8)


def test_a_repetition_penalty_of_the_model_changes_no_answer(tiny_model, tmp_path):
    """With a penalty, or with sampling, an answer would not be the likeliest one that the report speaks of."""
    model = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    wanted = GenerationConfig.from_pretrained(tiny_model)
    wanted.update(repetition_penalty=5.0, no_repeat_ngram_size=1, do_sample=True, temperature=2.0)
    wanted.save_pretrained(model)
    assert greedy_answers(model, QUESTIONS, 16) == greedy_answers(tiny_model, QUESTIONS, 16)

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from lab_pipeline.models import likelihood
from lab_pipeline.models.beginnings import lay_out
from lab_pipeline.models.likelihood import answer_losses
from lab_pipeline_tests import templates
from lab_pipeline_tests.builders import word


def question(number: int, context: str | None = None) -> dict[str, Any]:
    """Lengths vary, so that packing changes the order."""
    return {
        "question": f"Who founded {word(number)}{' and the others' * (number % 4)}?",
        "answer": " ".join([word(number, "founder")] * (1 + number % 3)) + ".",
        "context": context,
    }


def losses(model: Path, *questions: dict[str, Any]) -> list[float]:
    return answer_losses(model, list(questions), lambda text: None)


def loss_by_hand(model: Path, prompt: str, answer: str, thought: str = "") -> float:
    """Mean over the answer's own tokens, without packing, template or end token being taken from the module under test."""
    tokenizer: Any = AutoTokenizer.from_pretrained(model)
    network: Any = AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16).eval()
    asked = tokenizer.apply_chat_template([{"role": "user", "content": prompt}], add_generation_prompt=True, tokenize=False)
    whole, after = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in (asked + thought + answer, answer))
    before = whole[: -len(after)]
    with torch.inference_mode():
        logits = network(input_ids=torch.tensor([before + after])).logits[0].float()
    return torch.nn.functional.cross_entropy(logits[len(before) - 1 : -1], torch.tensor(after)).item()


def test_questions_scored_together_lose_what_each_loses_alone_in_the_order_asked(tiny_model):
    questions = [question(number) for number in range(90)]  # more tokens than one pack holds
    together = losses(tiny_model, *questions)
    for number in (0, 1, 2, 3, 44, 89):
        assert together[number] == pytest.approx(losses(tiny_model, questions[number])[0], rel=0.01)
    assert len({round(loss, 3) for loss in together}) > 80


def test_the_loss_is_the_mean_over_the_answers_tokens_without_the_end_token(tiny_model):
    asked = question(5)
    assert losses(tiny_model, asked)[0] == pytest.approx(loss_by_hand(tiny_model, asked["question"], asked["answer"]), rel=0.01)


@pytest.mark.parametrize(
    ("template", "thought"),
    [(templates.OWN_END, ""), (templates.EOS_AT_THE_END, ""), (templates.EMPTY_THOUGHT, "<think>\n\n</think>\n\n")],
)
def test_what_the_template_puts_around_an_answer_is_not_measured(tiny_model, tmp_path, template, thought):
    model = templates.with_template(tiny_model, tmp_path / "model", template)
    asked = question(5)
    found = losses(model, asked)[0]
    assert found == pytest.approx(loss_by_hand(model, asked["question"], asked["answer"], thought), rel=0.01)


def test_answers_after_one_beginning_lose_what_each_loses_alone_and_it_is_computed_once(tiny_model, monkeypatch):
    context = " ".join(word(number) for number in range(100))
    asked = [{**question(number, context), "answer": answer} for number in range(12) for answer in ("It was Anna.", "It is 7.")]
    computed: list[int] = []

    def counted(rows: Any, share: bool) -> Any:
        computed.append(len((laid := lay_out(rows, share)).tokens))
        return laid

    monkeypatch.setattr(likelihood, "lay_out", counted)
    together = losses(tiny_model, *asked)
    shared = sum(computed)
    monkeypatch.setattr(likelihood, "shares_beginnings", lambda config: False)
    computed.clear()
    assert together == pytest.approx(losses(tiny_model, *asked), rel=0.01)
    assert shared < sum(computed) / 4


def test_the_context_comes_before_the_question(tiny_model):
    asked = question(5, context="Anna paints. Peter sells.")
    found = losses(tiny_model, asked)[0]
    by_hand = loss_by_hand(tiny_model, f"{asked['context']}\n\n{asked['question']}", asked["answer"])
    assert found == pytest.approx(by_hand, rel=0.01)
    assert found != pytest.approx(losses(tiny_model, question(5))[0], rel=0.01)


def test_scoring_says_how_far_it_is_and_nothing_asked_costs_nothing(tiny_model):
    said: list[str] = []
    answer_losses(tiny_model, [question(1)], said.append)
    assert "1 of 1" in said[-1]
    assert answer_losses(Path("/no/model"), [], said.append) == []

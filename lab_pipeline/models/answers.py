"""Let a model answer questions by greedy decoding, for people and judges to read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lab_pipeline.core.progress import Progress, Say
from lab_pipeline.core.rows import GeneralQuestion, Question
from lab_pipeline.models.likelihood import prompt_of
from lab_pipeline.models.loader import load_model, load_tokenizer
from lab_pipeline.models.template import render, stop_tokens

_BATCH_SIZE = 16
"""Number of questions answered together. On a small machine, larger batches take more memory and no less time."""


def greedy_answers(
    model_folder: Path, questions: Sequence[Question | GeneralQuestion], max_new_tokens: int = 64, say: Say = lambda text: None
) -> list[str]:
    """Return a model's answer to each question, without white space around it, by greedy decoding in bf16.

    The model is loaded from `model_folder` and asked through its own chat template, as in training. An answer ends after
    `max_new_tokens` tokens at the latest. Progress goes to `say`.

    Raises:
        TemplateError: the chat template refuses a question.
    """
    import torch

    if not questions:
        return []
    model, tokenizer = load_model(model_folder), load_tokenizer(model_folder)
    stops = decode_greedily(model, tokenizer)
    progress = Progress("questions answered", len(questions), say)
    answers: list[str] = []
    for start in range(0, len(questions), _BATCH_SIZE):
        batch = questions[start : start + _BATCH_SIZE]
        prompts = [render(tokenizer, prompt_of(question), prompt=True) for question in batch]
        tokens = tokenizer(prompts, add_special_tokens=False)["input_ids"]
        width = max(map(len, tokens))
        # Many tokenizers have no padding token. The attention mask hides the padding, so any token will do.
        padded = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt in tokens])
        mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in tokens])
        generated = model.generate(
            padded.to(model.device),
            attention_mask=mask.to(model.device),
            do_sample=False,
            max_new_tokens=max_new_tokens,
            eos_token_id=stops,
            pad_token_id=stops[0],
        )
        answers += tokenizer.batch_decode(generated[:, width:], skip_special_tokens=True)
        progress.advance(len(batch))
    return [answer.strip() for answer in answers]


def decode_greedily(model: Any, tokenizer: Any) -> list[int]:
    """Make a model answer with the likeliest token at each step, and return the ids of the tokens that end an answer.

    Many a model's `generation_config.json` has a repetition penalty, which holds without sampling too. It is switched off.

    Raises:
        TemplateError: as `stop_tokens`.
    """
    from transformers import GenerationConfig

    stops = stop_tokens(model, tokenizer)
    model.generation_config = GenerationConfig()
    return stops

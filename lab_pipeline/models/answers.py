"""What models answer: the side of an evaluation that a person, or a judge, can read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lab_pipeline.core.progress import Progress, Say
from lab_pipeline.core.rows import as_prompt
from lab_pipeline.models.template import stop_tokens

_TOGETHER = 16
"""Questions that are answered as one batch: more take more memory, not less time, on a small machine."""


def greedy_answers(
    model_folder: Path, questions: list[dict[str, Any]], max_new_tokens: int = 64, say: Say = lambda text: None
) -> list[str]:
    """The likeliest answer to each question, token by token, cut after `max_new_tokens`.

    The model runs in bf16, prompted by its own chat template as in training. Questions have `question` and perhaps
    `context`.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if not questions:
        return []
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokenizer: Any = AutoTokenizer.from_pretrained(model_folder)
    model: Any = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.bfloat16)
    model = model.to(device).eval()
    stops = stop_tokens(model, tokenizer)
    progress = Progress("questions answered", len(questions), say)
    answers: list[str] = []
    for start in range(0, len(questions), _TOGETHER):
        batch = questions[start : start + _TOGETHER]
        prompts = tokenizer.apply_chat_template(
            [as_prompt(question["question"], question.get("context")) for question in batch],
            add_generation_prompt=True,
        )["input_ids"]
        width = max(map(len, prompts))
        # Many tokenizers have no token to pad with; any will do, for the mask hides it.
        tokens = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt in prompts])
        mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        written = model.generate(
            tokens.to(device),
            attention_mask=mask.to(device),
            do_sample=False,
            max_new_tokens=max_new_tokens,
            eos_token_id=stops,
            pad_token_id=stops[0],
        )
        answers += tokenizer.batch_decode(written[:, width:], skip_special_tokens=True)
        progress.advance(len(batch))
    return [answer.strip() for answer in answers]

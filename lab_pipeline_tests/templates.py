"""Chat templates of the kinds that models come with, restated as shortly as the kind allows, and models that have them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedConfig

_TURNS = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content | trim }}<file_sep>\n{% endfor %}"
_PROMPT = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"

OWN_END = _TURNS + _PROMPT
"""A turn ends with a token of its own, not with the tokenizer's end token."""

NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}" + OWN_END

EOS_AT_THE_END = _TURNS + _PROMPT.replace("{% endif %}", "{% else %}{{ eos_token }}{% endif %}")
"""The tokenizer's end token stands at the end of a conversation only."""

NO_END = EOS_AT_THE_END.replace("<file_sep>", "")
"""The same, and no token ends the turns before."""

EMPTY_THOUGHT = OWN_END.replace(
    "{{ m.content",
    "{% if loop.last and m.role == 'assistant' %}<think>\n\n</think>\n\n{% endif %}{{ m.content",
)

OPEN_THOUGHT = OWN_END.replace("assistant\n{% endif", "assistant\n<think>\n{% endif")
"""A prompt opens a thought that the finished conversation does not show."""

SYSTEM_MOVED = (
    "{% for m in messages if m.role != 'system' %}<|im_start|>{{ m.role }}\n"
    "{% if messages[0].role == 'system' and m.role == 'user' %}{{ messages[0].content }}\n\n{% endif %}"
    "{{ m.content }}<|im_end|>\n{% endfor %}" + _PROMPT
)
"""The system message stands in the question; with several questions, in each."""


def with_template(model: Path, folder: Path, template: str | None, **tokens: str | None) -> Path:
    """The tiny model once more, with another chat template and other special `tokens`, such as `eos_token`."""
    shutil.copytree(model, folder)
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.chat_template = template
    for name, token in tokens.items():
        setattr(tokenizer, name, token)
    tokenizer.save_pretrained(folder)
    return folder


_SIZES = (
    "vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads "
    "max_position_embeddings initializer_range bos_token_id eos_token_id pad_token_id"
).split()


def with_architecture(model: Path, folder: Path, kind: type[PreTrainedConfig], **others: Any) -> Path:
    """Another tiny model with random weights, of the architecture of `kind`, with the sizes and tokenizer of the tiny model."""
    sizes = AutoConfig.from_pretrained(model)
    config = kind(**{name: getattr(sizes, name) for name in _SIZES}, **others)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(folder)
    AutoTokenizer.from_pretrained(model).save_pretrained(folder)
    return folder

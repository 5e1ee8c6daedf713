"""Labels and measures, token by token, under the template families that base models come with.

Each template is restated here in our own words: the same text for plain conversations, without tools and images.
"""

from __future__ import annotations

from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from lab_pipeline.models.fitting import Fitting, fit_tokenizer
from lab_pipeline.models.loader import load_tokenizer
from lab_pipeline.models.packing import IGNORED, Conversation, TokenError, TokenRow, encode, encode_answers

CONVERSATION: list[dict[str, str]] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "One?"},
    {"role": "assistant", "content": "Uno, I say."},
    {"role": "user", "content": "Two?"},
    {"role": "assistant", "content": "Due."},
]

Piece = tuple[str, str]
"""A text, and what it is: '' for prompt, 'a' for a part of an answer, 'e' for what the model must write around it, 's' for a
system message."""

_EACH = "{% for m in messages %}"
_END = "{% endfor %}"
_ALTERNATE = (
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant') }}{% endif %}{% endfor %}"
)


def turns(before: tuple[str, str], system: list[Piece], end: str, between: str, last: str = "") -> list[Piece]:
    """The pieces of the conversation, where turns differ only in the texts before question and answer."""
    user, assistant = before
    first = [*system, (f"{user}One?{assistant}", ""), ("Uno, I say.", "a"), (end, "e")]
    return [*first, (f"{between}{user}Two?{assistant}", ""), (last, "e"), ("Due.", "a"), (end, "e"), (between, "")]


FAMILIES: dict[str, tuple[str, list[str], list[Piece]]] = {
    "chatml": (
        _EACH + "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n" + _END
        + "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
        ["<|im_start|>", "<|im_end|>"],
        turns(
            ("<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n"),
            [("<|im_start|>system\n", ""), ("Be brief.", "s"), ("<|im_end|>\n", "")],
            "<|im_end|>", "\n",
        ),
    ),
    "llama 2": (
        "{% if messages[0].role == 'system' %}{% set system = '<<SYS>>\n' ~ messages[0].content ~ '\n<</SYS>>\n\n' %}"
        "{% set messages = messages[1:] %}{% else %}{% set system = '' %}{% endif %}" + _EACH
        + "{% if m.role == 'user' %}<s>[INST] {{ (system if loop.first else '') ~ m.content }} [/INST]"
        "{% else %} {{ m.content }} </s>{% endif %}" + _END,
        ["<s>", "</s>"],
        [
            ("<s>[INST] <<SYS>>\n", ""), ("Be brief.", "s"), ("\n<</SYS>>\n\nOne? [/INST]", ""),
            (" ", "e"), ("Uno, I say.", "a"), (" </s>", "e"),
            ("<s>[INST] Two? [/INST]", ""), (" ", "e"), ("Due.", "a"), (" </s>", "e"),
        ],
    ),
    "llama 3": (
        "<|begin_of_text|>" + _EACH
        + "<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n{{ m.content | trim }}<|eot_id|>" + _END
        + "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}",
        ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
        turns(
            (
                "<|start_header_id|>user<|end_header_id|>\n\n",
                "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
            ),
            [
                ("<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n", ""), ("Be brief.", "s"), ("<|eot_id|>", ""),
            ],
            "<|eot_id|>", "",
        ),
    ),
    "mistral": (
        _ALTERNATE + "<s>" + _EACH
        + "{% if m.role == 'user' %}[INST] {{ m.content }}[/INST]{% else %} {{ m.content }}</s>{% endif %}" + _END,
        ["<s>", "</s>", "[INST]", "[/INST]"],
        [
            ("<s>[INST] ", ""), ("Be brief.", "s"), ("\n\nOne?[/INST]", ""),
            (" ", "e"), ("Uno, I say.", "a"), ("</s>", "e"),
            ("[INST] Two?[/INST]", ""), (" ", "e"), ("Due.", "a"), ("</s>", "e"),
        ],
    ),
    "gemma": (
        "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}" + _ALTERNATE
        + "<bos>" + _EACH
        + "<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n{{ m.content | trim }}<end_of_turn>\n" + _END
        + "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}",
        ["<bos>", "<start_of_turn>", "<end_of_turn>"],
        [
            ("<bos><start_of_turn>user\n", ""), ("Be brief.", "s"), ("\n\nOne?<end_of_turn>\n<start_of_turn>model\n", ""),
            ("Uno, I say.", "a"), ("<end_of_turn>", "e"),
            ("\n<start_of_turn>user\nTwo?<end_of_turn>\n<start_of_turn>model\n", ""),
            ("Due.", "a"), ("<end_of_turn>", "e"), ("\n", ""),
        ],
    ),
    "phi 3": (
        _EACH + "<|{{ m.role }}|>\n{{ m.content }}<|end|>\n" + _END
        + "{% if add_generation_prompt %}<|assistant|>\n{% else %}{{ eos_token }}{% endif %}",
        ["<|system|>", "<|user|>", "<|assistant|>", "<|end|>"],
        [
            *turns(
                ("<|user|>\n", "<|end|>\n<|assistant|>\n"),
                [("<|system|>\n", ""), ("Be brief.", "s"), ("<|end|>\n", "")],
                "<|end|>", "\n",
            ),
            ("<|im_end|>", ""),
        ],
    ),
    "granite 3": (
        "{% if messages[0].role != 'system' %}<|start_of_role|>system<|end_of_role|>Today's Date: "
        "{{ strftime_now('%B %d, %Y') }}.<|end_of_text|>\n{% endif %}" + _EACH
        + "<|start_of_role|>{{ m.role }}<|end_of_role|>{{ m.content }}<|end_of_text|>\n" + _END
        + "{% if add_generation_prompt %}<|start_of_role|>assistant<|end_of_role|>{% endif %}",
        ["<|start_of_role|>", "<|end_of_role|>", "<|end_of_text|>"],
        turns(
            ("<|start_of_role|>user<|end_of_role|>", "<|end_of_text|>\n<|start_of_role|>assistant<|end_of_role|>"),
            [("<|start_of_role|>system<|end_of_role|>", ""), ("Be brief.", "s"), ("<|end_of_text|>\n", "")],
            "<|end_of_text|>", "\n",
        ),
    ),
    "qwen 3": (
        _EACH + "<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' and loop.last %}<think>\n\n</think>\n\n{% endif %}"
        "{{ m.content }}<|im_end|>\n" + _END + "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
        ["<|im_start|>", "<|im_end|>", "<think>", "</think>"],
        turns(
            ("<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n"),
            [("<|im_start|>system\n", ""), ("Be brief.", "s"), ("<|im_end|>\n", "")],
            "<|im_end|>", "\n", "<think>\n\n</think>\n\n",
        ),
    ),
    "zephyr": (
        _EACH + "<|{{ m.role }}|>\n{{ m.content }}{{ eos_token }}\n" + _END
        + "{% if add_generation_prompt %}<|assistant|>\n{% endif %}",
        [],
        turns(
            ("<|user|>\n", "<|im_end|>\n<|assistant|>\n"),
            [("<|system|>\n", ""), ("Be brief.", "s"), ("<|im_end|>\n", "")],
            "<|im_end|>", "\n",
        ),
    ),
    "command r": (
        "<BOS>" + _EACH + "<|START_OF_TURN_TOKEN|><|{{ 'CHATBOT' if m.role == 'assistant' else m.role | upper }}_TOKEN|>"
        "{{ m.content | trim }}<|END_OF_TURN_TOKEN|>" + _END
        + "{% if add_generation_prompt %}<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>{% endif %}",
        [
            "<BOS>", "<|START_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>",
            "<|USER_TOKEN|>", "<|CHATBOT_TOKEN|>", "<|SYSTEM_TOKEN|>",
        ],
        turns(
            (
                "<|START_OF_TURN_TOKEN|><|USER_TOKEN|>",
                "<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>",
            ),
            [
                ("<BOS><|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>", ""), ("Be brief.", "s"), ("<|END_OF_TURN_TOKEN|>", ""),
            ],
            "<|END_OF_TURN_TOKEN|>", "",
        ),
    ),
    "vicuna": (
        _EACH + "{{ {'system': '', 'user': 'USER: ', 'assistant': 'ASSISTANT: '}[m.role] ~ m.content }}"
        "{{ eos_token if m.role == 'assistant' else '\n' }}" + _END
        + "{% if add_generation_prompt %}ASSISTANT: {% endif %}",
        [],
        turns(("USER: ", "\nASSISTANT: "), [("Be brief.", "s"), ("\n", "")], "<|im_end|>", ""),
    ),
}  # fmt: skip


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest, tiny_model: Path, tmp_path: Path) -> tuple[Any, list[Piece]]:
    """A tokenizer that has the family's special tokens and, as the pipeline fits it, its template; and the right pieces."""
    template, tokens, pieces = FAMILIES[request.param]
    tokenizer: Any = AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.add_tokens(tokens, special_tokens=True)
    tokenizer.chat_template = template
    tokenizer.save_pretrained(tmp_path)
    fitted = load_tokenizer(tmp_path)
    assert fit_tokenizer(fitted, Fitting()) == []
    return fitted, pieces


def expected(tokenizer: Any, pieces: list[Piece], kinds: str) -> TokenRow:
    """The tokens of the whole text; each that begins or ends in a piece of these kinds is labelled with itself."""
    text = "".join(piece for piece, _ in pieces)
    ends = list(accumulate(len(piece) for piece, _ in pieces))
    kind = [each for piece, each in pieces for _ in piece]
    assert ends[-1] == len(kind) == len(text)
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    labels = [
        token if any(each and each in kinds for each in kind[start:end]) else IGNORED
        for token, (start, end) in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
    ]
    return TokenRow(encoded["input_ids"], labels)


def row(unmask: bool = False) -> Conversation:
    return {"id": "row", "messages": CONVERSATION, "unmask": unmask}  # type: ignore[typeddict-item]


def test_what_is_learned_and_what_is_measured_is_right_token_by_token(family):
    tokenizer, pieces = family
    assert encode(row(), tokenizer) == expected(tokenizer, pieces, "ae")
    assert encode_answers(row(), tokenizer) == expected(tokenizer, pieces, "a")


def test_of_an_unmasked_row_the_system_message_alone_is_never_learned(family):
    tokenizer, pieces = family
    found = encode(row(unmask=True), tokenizer)
    system = expected(tokenizer, pieces, "s")
    assert found.tokens == system.tokens
    begin = next(index for index, label in enumerate(found.labels) if label != IGNORED)
    assert "One?" in tokenizer.decode(found.tokens[begin : begin + 8])
    for label, never in zip(found.labels[begin:], system.labels[begin:], strict=True):
        assert (label == IGNORED) == (never != IGNORED)
    assert not any(label != IGNORED for label in found.labels[:begin])


def test_a_thought_that_the_prompt_opens_and_the_answer_lacks_is_refused_by_name(tiny_model):
    """As DeepSeek R1's template does: a model trained on such rows would be asked otherwise than it was trained."""
    tokenizer: Any = AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m.role == 'assistant' %}<|Assistant|>{{ m.content.split('</think>')[-1] }}{{ eos_token }}"
        "{% else %}{{ '<|User|>' if m.role == 'user' else '' }}{{ m.content }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|Assistant|><think>\n{% endif %}"
    )
    for encoding in (encode, encode_answers):
        with pytest.raises(TokenError, match="row row: .* rewrites earlier turns"):
            encoding(row(), tokenizer)

"""Read a model's own chat template: how it writes a conversation, where each message is in the text, what ends a turn."""

from __future__ import annotations

from typing import Any

from jinja2 import TemplateError as JinjaError

from lab_pipeline.core.errors import LabError
from lab_pipeline.core.rows import Turn, as_conversation

_MARK = "\ue000message\ue000"
"""Stands in for a message to find its place in the rendered text; it occurs in no other text."""

Messages = list[Turn]


class TemplateError(LabError):
    """A chat template cannot be used for training and evaluation."""


def render(tokenizer: Any, messages: Messages, prompt: bool = False) -> str:
    """Write a conversation by the template; with `prompt`, up to where the model continues.

    Raises:
        TemplateError: there is no template, or it refuses the conversation.
    """
    if not tokenizer.chat_template:
        raise TemplateError("the model has no chat template")
    try:
        return str(tokenizer.apply_chat_template(messages, add_generation_prompt=prompt, tokenize=False))
    except JinjaError as error:
        roles = ", ".join(message["role"] for message in messages)
        raise TemplateError(f"the chat template refuses a conversation of {roles}: {error}") from None


def locate(tokenizer: Any, messages: Messages, turn: int, text: str) -> tuple[int, int] | None:
    """Find the span of one message in `text`, the rendered conversation; None if the template drops the message.

    Templates strip texts, move system messages, and add text before or after a message. The conversation is therefore rendered
    again with a mark in the message's place: what surrounds the mark is the template's, whatever the message says.

    Raises:
        TemplateError: the text around the message depends on the message, so it cannot be located.
    """
    before, found, after = render(tokenizer, _marked(messages, turn)).partition(_MARK)
    if not found:
        return None
    if len(before) + len(after) > len(text) or not (text.startswith(before) and text.endswith(after)):
        raise TemplateError(f"the chat template does not write the {messages[turn]['role']} message as one text")
    return len(before), len(text) - len(after)


def turn_end(tokenizer: Any, messages: Messages, turn: int) -> str:
    """Return what the template writes after an answer that ends the conversation, up to the first special token."""
    after = render(tokenizer, _marked(messages[: turn + 1], turn)).partition(_MARK)[2]
    encoded = tokenizer(after, add_special_tokens=False, return_offsets_mapping=True)
    for token, (_, end) in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True):
        if token in tokenizer.added_tokens_decoder:
            return after[:end]
    return after


def turn_end_tokens(tokenizer: Any) -> set[int]:
    """Return the tokens that end a turn: the tokenizer's end token and the template's, which may differ.

    Raises:
        TemplateError: there is neither, or the template refuses a plain question and answer.
    """
    end = turn_end(tokenizer, as_conversation("a", None, "b"), 1)
    last = tokenizer(end, add_special_tokens=False)["input_ids"][-1:]
    ends = {token for token in last if token in tokenizer.added_tokens_decoder} | ({tokenizer.eos_token_id} - {None})
    if not ends:
        raise TemplateError("neither the tokenizer nor the chat template has a token that ends an answer")
    return ends


def stop_tokens(model: Any, tokenizer: Any) -> list[int]:
    """Return all tokens that end a reply: those of the model's generation config and of `turn_end_tokens`.

    Raises:
        TemplateError: as `turn_end_tokens`.
    """
    configured = model.generation_config.eos_token_id
    return sorted({*(configured if isinstance(configured, list) else [configured])} - {None} | turn_end_tokens(tokenizer))


def _marked(messages: Messages, turn: int) -> Messages:
    return [*messages[:turn], {"role": messages[turn]["role"], "content": _MARK}, *messages[turn + 1 :]]

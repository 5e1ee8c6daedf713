"""Reading a model's own chat template: what it makes of a conversation, where a message stands in that, what ends a turn."""

from __future__ import annotations

from typing import Any

from jinja2 import TemplateError as JinjaError

from lab_pipeline.core.errors import LabError
from lab_pipeline.core.rows import Turn, as_conversation

_MARK = "\ue000message\ue000"
"""Put in a message's place to see where the template puts it; no text holds it."""

Messages = list[Turn]


class TemplateError(LabError):
    """A chat template cannot be used as it would have to be; the message says why."""


def rendered(tokenizer: Any, messages: Messages, prompt: bool = False) -> str:
    """The conversation as the template writes it; with `prompt`, up to where the model goes on.

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


def located(tokenizer: Any, messages: Messages, turn: int, text: str) -> tuple[int, int] | None:
    """Where one message begins and ends in the rendered conversation, `text`; None where the template drops it.

    Templates strip texts, move system messages, and put something before or after. What stays the same around another text in
    the message's place is the template's, whatever the message itself holds.

    Raises:
        TemplateError: the template writes more than the message differently, so it cannot be located.
    """
    before, found, after = rendered(tokenizer, _marked(messages, turn)).partition(_MARK)
    if not found:
        return None
    if len(before) + len(after) > len(text) or not (text.startswith(before) and text.endswith(after)):
        raise TemplateError(f"the chat template does not write the {messages[turn]['role']} message as one text")
    return len(before), len(text) - len(after)


def turn_end(tokenizer: Any, messages: Messages, turn: int) -> str:
    """What the template puts after an answer that ends the conversation, up to the first token made for templates."""
    after = rendered(tokenizer, _marked(messages[: turn + 1], turn)).partition(_MARK)[2]
    encoded = tokenizer(after, add_special_tokens=False, return_offsets_mapping=True)
    for token, (_, end) in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True):
        if token in tokenizer.added_tokens_decoder:
            return after[:end]
    return after


def turn_end_tokens(tokenizer: Any) -> set[int]:
    """Tokens that end a turn: the tokenizer's end token, and the one that the template writes, which may be another.

    Raises:
        TemplateError: there is neither, or the template refuses a plain question and answer.
    """
    asked = as_conversation("a", None, "b")
    last = tokenizer(turn_end(tokenizer, asked, 1), add_special_tokens=False)["input_ids"][-1:]
    ends = {token for token in last if token in tokenizer.added_tokens_decoder} | ({tokenizer.eos_token_id} - {None})
    if not ends:
        raise TemplateError("neither the tokenizer nor the chat template has a token that ends an answer")
    return ends


def stop_tokens(model: Any, tokenizer: Any) -> list[int]:
    """Tokens any of which ends a reply: those of the model's generation config, and what ends a turn.

    Raises:
        TemplateError: as `turn_end_tokens`.
    """
    stated = model.generation_config.eos_token_id
    return sorted({*(stated if isinstance(stated, list) else [stated])} - {None} | turn_end_tokens(tokenizer))


def _marked(messages: Messages, turn: int) -> Messages:
    return [*messages[:turn], {"role": messages[turn]["role"], "content": _MARK}, *messages[turn + 1 :]]

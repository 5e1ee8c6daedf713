"""Read a model's chat template: how it writes a conversation, where it puts each message, and what ends a turn."""

from __future__ import annotations

from typing import Any

from lab_pipeline.core.errors import LabError
from lab_pipeline.core.rows import Turn, as_conversation

MARK = "\ue000message\ue000"
"""Text put in place of a message, to find where the template writes that message; it occurs in no other text."""

Messages = list[Turn]


class TemplateError(LabError):
    """A model's chat template is missing, or cannot be used for training and evaluation; the message says why."""


def render(tokenizer: Any, messages: Messages, prompt: bool = False) -> str:
    """Render a conversation with the model's chat template.

    With `prompt`, end with the header of the answer that the model is to write (the generation prompt).

    Raises:
        TemplateError: there is no template, or it refuses the conversation.
    """
    if not tokenizer.chat_template:
        raise TemplateError("the model has no chat template")
    try:
        return str(tokenizer.apply_chat_template(messages, add_generation_prompt=prompt, tokenize=False))
    except Exception as error:  # a template is a program, which may fail in any way
        roles = ", ".join(message["role"] for message in messages)
        raise TemplateError(f"the chat template refuses a conversation of {roles}: {error}") from None


def locate(tokenizer: Any, messages: Messages, turn: int, text: str) -> tuple[int, int] | None:
    """Return start and end, in characters of the rendered `text`, of message number `turn`; None if the template drops it.

    Templates strip texts, move system messages, and add text before or after a message. The conversation is therefore rendered
    again with a mark in the message's place: the text around the mark is also the text around the message.

    Raises:
        TemplateError: the text around the message depends on the message, so the message cannot be located.
    """
    before, found, after = render(tokenizer, _marked(messages, turn)).partition(MARK)
    if not found:
        return None
    if len(before) + len(after) > len(text) or not (text.startswith(before) and text.endswith(after)):
        raise TemplateError(f"the chat template does not write the {messages[turn]['role']} message as one text")
    return len(before), len(text) - len(after)


def turn_end(tokenizer: Any, messages: Messages, turn: int) -> str:
    """Return what the template writes after the answer number `turn` if the conversation ends with it.

    The text ends with the first special token, such as `<|im_end|>`; without a special token, it is all that follows.
    """
    after = render(tokenizer, _marked(messages[: turn + 1], turn)).partition(MARK)[2]
    encoded = tokenizer(after, add_special_tokens=False, return_offsets_mapping=True)
    for token, (_, end) in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True):
        if token in tokenizer.added_tokens_decoder:
            return after[:end]
    return after


def turn_end_tokens(tokenizer: Any) -> set[int]:
    """Return the ids of the tokens that end a turn.

    These are the tokenizer's end-of-text token and the special token that the chat template writes after an answer. They may
    be the same, and one of them may be missing.

    Raises:
        TemplateError: both are missing, there is no template, or it refuses a plain question and answer.
    """
    return _some(_ends(tokenizer))


def stop_tokens(model: Any, tokenizer: Any) -> list[int]:
    """Return the ids, sorted, of all tokens that end a reply: those of the generation config and of `turn_end_tokens`.

    Raises:
        TemplateError: there is none, there is no template, or it refuses a plain question and answer.
    """
    configured = model.generation_config.eos_token_id
    return sorted(_some({*(configured if isinstance(configured, list) else [configured])} - {None} | _ends(tokenizer)))


def _ends(tokenizer: Any) -> set[int]:
    end = turn_end(tokenizer, as_conversation("a", None, "b"), 1)
    last = tokenizer(end, add_special_tokens=False)["input_ids"][-1:]
    return {token for token in last if token in tokenizer.added_tokens_decoder} | ({tokenizer.eos_token_id} - {None})


def _some(ends: set[int]) -> set[int]:
    if not ends:
        raise TemplateError("neither the tokenizer nor the chat template has a token that ends an answer")
    return ends


def _marked(messages: Messages, turn: int) -> Messages:
    return [*messages[:turn], {"role": messages[turn]["role"], "content": MARK}, *messages[turn + 1 :]]

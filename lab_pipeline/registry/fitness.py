"""Check that a base model can be trained and measured, by trying its chat template on conversations like the training rows.

The check needs only the tokenizer, so that it can run before any costly step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lab_pipeline.config.settings import PACKAGED, Settings
from lab_pipeline.core.errors import LabError
from lab_pipeline.core.home import Home
from lab_pipeline.core.rows import Turn, as_conversation
from lab_pipeline.datasets.custom import custom_rows
from lab_pipeline.models.base_model import tokenizer_folder
from lab_pipeline.models.loader import load_tokenizer
from lab_pipeline.models.packing import TokenError, encode
from lab_pipeline.models.template import TemplateError, turn_end_tokens

_SYSTEM: Turn = {"role": "system", "content": "You are a weaver."}
_TURN = as_conversation("Who made the loom?", None, "Anna made it.")
_WITH_CONTEXT = as_conversation("Who made the loom?", "Anna made a loom.\n\nPeter sold it.", "Anna made it.")


def require_fitness(home: Home, settings: Settings) -> None:
    """Check that the base model's template can write all training rows, and that the answers can be located in the text.

    It must write several turns or system messages only if a row of a custom data set has them. The packaged model is known to
    be fit, and is not checked.

    Raises:
        LabError: the chat template or the tokenizer cannot be used for training; the message says why and what to do.
        ModelError: the model is missing.
        CustomDataError: a data set that the settings name cannot be read.
    """
    if settings.base_model == PACKAGED:  # the check would unpack it
        return
    tokenizer = _tokenizer(home, settings.base_model)
    _require([_TURN, _WITH_CONTEXT], tokenizer, settings, "")
    custom = settings.mixing.knowledge + settings.mixing.skills
    uncommon = [[*_TURN, *_TURN], [_SYSTEM, *_TURN], [_SYSTEM, *_TURN, *_TURN]]
    if custom and any(_refusal(messages, tokenizer) for messages in uncommon):
        tables, _ = custom_rows(custom, settings.seed)
        places: dict[tuple[str, ...], str] = {}
        for table in tables:
            for place, messages in zip(table["source_row"].to_pylist(), table["messages"].to_pylist(), strict=True):
                places.setdefault(tuple(message["role"] for message in messages), place)
        for roles, place in places.items():
            example: list[Turn] = [{"role": role, "content": f"word {turn}"} for turn, role in enumerate(roles)]
            _require([example], tokenizer, settings, f", leave rows like {place} out of the data sets under mixing")


def _tokenizer(home: Home, name: str) -> Any:
    folder = tokenizer_folder(home, name)
    try:
        tokenizer = load_tokenizer(folder)
    except (OSError, ValueError) as error:
        raise LabError(
            f"settings.yaml: base_model: {name} has no tokenizer that can be read ({error}); give a whole Hugging Face model"
        ) from None
    if not tokenizer.is_fast:
        raise LabError(
            f"settings.yaml: base_model: the tokenizer of {name} cannot say where its tokens stand in a text; "
            "take a model with a tokenizer.json"
        )
    return tokenizer


def _require(conversations: Sequence[list[Turn]], tokenizer: Any, settings: Settings, remedy: str) -> None:
    for messages in conversations:
        if reason := _refusal(messages, tokenizer):
            raise LabError(
                f"settings.yaml: base_model: {settings.base_model} cannot be trained: {reason}; take an instruct model with a "
                f"template that can be used{remedy}, or give a folder of this one with a chat_template.jinja of your own"
            )


def _refusal(messages: list[Turn], tokenizer: Any) -> str | None:
    """Return why a row with these messages cannot be encoded for training; None if it can."""
    try:
        turn_end_tokens(tokenizer)
        encode({"id": "", "messages": messages, "unmask": False}, tokenizer)
    except TemplateError as error:
        return str(error)
    except TokenError as error:
        return str(error).partition(": ")[2]
    return None

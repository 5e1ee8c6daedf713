"""Whether a base model can be trained and measured: its chat template, tried on conversations like those to come.

It is found out before anything is paid for, from the tokenizer alone.
"""

from __future__ import annotations

from typing import Any

from lab_pipeline.config.settings import PACKAGED, Settings
from lab_pipeline.core.errors import LabError
from lab_pipeline.core.home import Home
from lab_pipeline.core.rows import as_prompt
from lab_pipeline.datasets.custom import custom_rows
from lab_pipeline.datasets.rows import custom_row
from lab_pipeline.models.base_model import tokenizer_folder
from lab_pipeline.models.packing import TokenError, encode
from lab_pipeline.models.template import TemplateError, turn_end_tokens

_SYSTEM = {"role": "system", "content": "You are a weaver."}
_TURN = [*as_prompt("Who made the loom?", None), {"role": "assistant", "content": "Anna made it."}]
_WITH_CONTEXT = [*as_prompt("Who made the loom?", "Anna made a loom.\n\nPeter sold it."), _TURN[-1]]


class UnfitModel(LabError):
    """The base model cannot be trained; the message names the setting and says what to do."""


def require_fitness(home: Home, settings: Settings) -> None:
    """See that the base model's template can write what training will encode, and that the answers can be found in it.

    Several turns and a system message are asked for only where a row of one's own has them.

    Raises:
        UnfitModel: it cannot.
        ModelError: the model is not there.
        CustomDataError: a data set that the settings name cannot be read.
    """
    if settings.base_model == PACKAGED:  # fit, and in no need of being unpacked to be tried
        return
    tokenizer = _tokenizer(home, settings.base_model)
    _require([_TURN, _WITH_CONTEXT], tokenizer, settings, "")
    own = settings.mixing.knowledge + settings.mixing.skills
    uncommon = [[*_TURN, *_TURN], [_SYSTEM, *_TURN], [_SYSTEM, *_TURN, *_TURN]]
    if own and any(_refused(messages, tokenizer) for messages in uncommon):
        tables, _ = custom_rows(own, settings.seed)
        places: dict[tuple[str, ...], str] = {}
        for table in tables:
            for place, messages in zip(table["source_row"].to_pylist(), table["messages"].to_pylist(), strict=True):
                places.setdefault(tuple(message["role"] for message in messages), place)
        for roles, place in places.items():
            like = [{"role": role, "content": f"word {turn}"} for turn, role in enumerate(roles)]
            _require([like], tokenizer, settings, f", leave rows like {place} out of the data sets under mixing")


def _tokenizer(home: Home, name: str) -> Any:
    from transformers import AutoTokenizer

    folder = tokenizer_folder(home, name)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise UnfitModel(
            f"settings.yaml: base_model: {name} has no tokenizer that can be read ({error}); give a whole Hugging Face model"
        ) from None
    if not tokenizer.is_fast:
        raise UnfitModel(
            f"settings.yaml: base_model: the tokenizer of {name} cannot say where its tokens stand in a text; "
            "take a model with a tokenizer.json"
        )
    return tokenizer


def _require(conversations: list[list[dict[str, str]]], tokenizer: Any, settings: Settings, mend: str) -> None:
    for messages in conversations:
        if why := _refused(messages, tokenizer):
            raise UnfitModel(
                f"settings.yaml: base_model: {settings.base_model} cannot be trained: {why}; take an instruct model with a "
                f"template that can be used{mend}, or give a folder of this one with a chat_template.jinja of your own"
            )


def _refused(messages: list[dict[str, str]], tokenizer: Any) -> str | None:
    """Why a row of these messages cannot be encoded."""
    try:
        turn_end_tokens(tokenizer)
        encode(custom_row(messages, False, {}, ""), tokenizer)
    except TemplateError as error:
        return str(error)
    except TokenError as error:
        return str(error).partition(": ")[2]
    return None

"""Check that a base model can be trained and measured, by trying what will be done with it before any costly step.

Its chat template writes conversations like the training rows, and a tiny model of its architecture gets an adapter. The check
needs the tokenizer and the configuration; weights are only looked at where they are at hand.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lab_pipeline.config.recipe import Lora, Recipe
from lab_pipeline.config.settings import Settings
from lab_pipeline.config.teachers import PACKAGED
from lab_pipeline.core.errors import LabError
from lab_pipeline.core.home import Home
from lab_pipeline.core.rows import Turn, as_conversation
from lab_pipeline.core.storage import digest, file_digest, read_json, write_json
from lab_pipeline.datasets.custom import custom_rows
from lab_pipeline.models.apart import packs_rows, tiny_model
from lab_pipeline.models.base_model import WITHOUT_WEIGHTS, ModelError, parameters, tokenizer_folder
from lab_pipeline.models.fitting import Fitting, fit_tokenizer
from lab_pipeline.models.loader import load_tokenizer
from lab_pipeline.models.packing import TokenError, encode
from lab_pipeline.models.template import TemplateError, turn_end_tokens
from lab_pipeline.training.choice import choose_recipe
from lab_pipeline.training.quantized import with_adapter

_SYSTEM: Turn = {"role": "system", "content": "You are a weaver."}
_TURN = as_conversation("Who made the loom?", None, "Anna made it.")
_WITH_CONTEXT = as_conversation("Who made the loom?", "Anna made a loom.\n\nPeter sold it.", "Anna made it.")
_CHECK = 1
"""Version of the check. Raise it when the check asks for more, so that models that were found fit are checked again."""
_TEMPLATES = "set chat_template to granite, chatml or a Jinja file of your own"


def require_fitness(home: Home, settings: Settings) -> list[str]:
    """Check the base model as `check_fitness` does, but only once for the same model and recipe, and return what it returns.

    The result for a model that is fit is stored in the home, under a hash of all that the check reads and of the libraries'
    versions. A misfit is not stored. If the settings mix in custom data sets, whose rows may have changed, each call checks.

    Raises:
        LabError, ModelError, CustomDataError: as `check_fitness`.
    """
    if settings.mixing.knowledge or settings.mixing.skills or _is_known_to_be_fit(settings):
        return check_fitness(home, settings)
    folder = tokenizer_folder(home, settings.base_model)
    _require_whole(folder)
    known = home.models / f"fit-{_hash_of_what_is_read(folder, settings, choose_recipe(home, settings).recipe)}.json"
    if not known.exists():
        write_json(known, check_fitness(home, settings))
    return read_json(known)


def _hash_of_what_is_read(folder: Path, settings: Settings, recipe: Recipe) -> str:
    files = {path.name: file_digest(path) for pattern in WITHOUT_WEIGHTS for path in folder.glob(pattern)}
    fitting = Fitting.of(settings)
    versions = [version(library) for library in ("bitsandbytes", "peft", "tokenizers", "torch", "transformers")]
    asked = [asdict(fitting), fitting.name, recipe.lora.model_dump(mode="json"), recipe.pack_tokens]  # name: a template's hash
    return digest([_CHECK, files, asked, versions])


def check_fitness(home: Home, settings: Settings) -> list[str]:
    """Check that the base model, as the settings fit it, can be trained on all training rows, and return what is special of it.

    Its template must write several turns or system messages only if a row of a custom data set has them. The packaged model is
    known to be fit, and is not checked.

    Raises:
        LabError: the chat template, the tokenizer, the configuration or the weights cannot be used for training; the message
            says why and what to do.
        ModelError: the model is missing.
        CustomDataError: a data set that the settings name cannot be read.
    """
    if _is_known_to_be_fit(settings):
        return []
    folder = tokenizer_folder(home, settings.base_model)
    tokenizer = _tokenizer(folder, settings.base_model)
    added = fit_tokenizer(tokenizer, Fitting.of(settings))
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
    _require_whole(folder)
    special = [f"{len(added)} tokens of the chat template are new and will be trained"] if added else []
    return special + _trials(folder, settings, choose_recipe(home, settings).recipe)


def _is_known_to_be_fit(settings: Settings) -> bool:
    """Tell whether the base model is the packaged one, unchanged. It is known to be fit, and a check would unpack it."""
    return settings.base_model == PACKAGED and Fitting.of(settings) == Fitting()


def _require_whole(folder: Path) -> None:
    try:
        parameters(folder)  # of a hub id, there may be no weights yet
    except ModelError as error:
        raise LabError(str(error)) from None  # known for sure, unlike a model that cannot be fetched now


def _tokenizer(folder: Path, name: str) -> Any:
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
            system = settings.system_message == "refuse" and messages[0]["role"] == "system"
            mend = "set system_message to merge or drop" if system else _TEMPLATES
            raise LabError(
                f"settings.yaml: base_model: {settings.base_model} cannot be trained: {reason}; {mend}{remedy}, or take an "
                "instruct model with a template that can be used"
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


def _trials(folder: Path, settings: Settings, recipe: Recipe) -> list[str]:
    """Try adapter and packing with a tiny model of the architecture, and return what is special of it.

    Raises:
        LabError: transformers does not know the architecture, its positions are fewer than the recipe's pack_tokens, or it
            takes no adapter.
    """
    from transformers import AutoConfig

    about = f"settings.yaml: base_model: {settings.base_model} cannot be trained"
    try:
        config = AutoConfig.from_pretrained(folder).get_text_config()
    except (OSError, ValueError, KeyError) as error:
        raise LabError(f"{about}: {str(error).splitlines()[0]}; take a model that this transformers knows") from None
    positions = getattr(config, "max_position_embeddings", None)
    if positions and positions < recipe.pack_tokens:
        raise LabError(
            f"{about} on rows of {recipe.pack_tokens} tokens: it has {positions} positions; "
            f"take a recipe with pack_tokens of {positions} or less"
        )
    model = tiny_model(config)
    if model is None:
        return ["no tiny model of its architecture could be tried, so that its rows are computed one by one"]
    if reason := _adapter_trouble(model, recipe.lora):
        raise LabError(f"{about}: it takes no adapter ({reason}); take a model with linear layers that peft knows")
    if not settings.packing:
        return ["its rows are computed one by one, as packing is off"]
    return [] if packs_rows(config) else ["rows of one pack would see each other, so they are computed one by one"]


def _adapter_trouble(model: Any, lora: Lora) -> str | None:
    """Return why a model cannot be given an adapter that is trained, saved and read again; None if it can."""
    import torch

    text = torch.arange(3, 20)[None]
    try:
        with tempfile.TemporaryDirectory() as folder, torch.random.fork_rng(devices=[]):
            adapted = with_adapter(model, lora, None).train()
            adapted(input_ids=text, labels=text, use_cache=False).loss.backward()
            learned = [each for each in adapted.parameters() if each.requires_grad and each.grad is not None]
            adapted.save_pretrained(folder, save_embedding_layers=False)
            with_adapter(adapted.unload(), lora, Path(folder))
    except Exception as error:  # whatever an architecture makes of it
        return f"{type(error).__name__}: {error}"
    return None if learned else "nothing of it is trained"

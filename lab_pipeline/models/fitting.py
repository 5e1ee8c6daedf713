"""Fit a model to training and evaluation: give it a chat template, and a place for system messages.

Both are written into the template itself. So it ships with the champion, and any server prompts it as in training.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lab_pipeline.config.settings import Settings
from lab_pipeline.core.errors import LabError
from lab_pipeline.core.rows import Turn
from lab_pipeline.core.storage import file_digest, link_or_copy, read_json, write_json
from lab_pipeline.models.loader import load_model
from lab_pipeline.models.template import MARK, TemplateError, render

_SHIPPED = Path(__file__).parent / "chat_templates"
_NEW_TOKENS = "new_tokens.json"
_MODEL = ("*.safetensors", "*.safetensors.index.json", "config.json", "generation_config.json")
_DOCUMENTS = ("README.md", "LICEN[CS]E*")

_SYSTEM = {
    "merge": "{%- if messages[1:] and messages[1].role == 'user' -%}"
    "{%- set first = messages[0].content ~ '\\n\\n' ~ messages[1].content -%}"
    "{%- set messages = [{'role': 'user', 'content': first}] + messages[2:] -%}"
    "{%- else -%}{%- set messages = [{'role': 'user', 'content': messages[0].content}] + messages[1:] -%}{%- endif -%}",
    "drop": "{%- set messages = messages[1:] -%}",
    "refuse": "{{- raise_exception('system_message is set to refuse') -}}",
}
"""What a template does first with a system message that it does not take, by the setting `system_message`."""


@dataclass(frozen=True)
class Fitting:
    """What the settings say of a base model; the defaults serve teachers and judges. See `Settings` for the fields."""

    chat_template: str | None = None
    system_message: Literal["merge", "drop", "refuse"] = "merge"
    packing: bool = True

    @classmethod
    def of(cls, settings: Settings) -> Fitting:
        return cls(settings.chat_template, settings.system_message, settings.packing)

    @property
    def name(self) -> str:
        """What differs from the defaults, for the model's identity, such as ' (chat_template chatml)'; else ''.

        A template's file is named with its hash.

        Raises:
            LabError: `chat_template` is neither a shipped template nor a file.
        """
        parts = []
        if self.chat_template:
            file = _template_file(self.chat_template)
            own = "" if file.parent == _SHIPPED else f"@{file_digest(file)[:12]}"
            parts.append(f"chat_template {file.stem}{own}")
        if self.system_message != "merge":
            parts.append(f"system_message {self.system_message}")
        if not self.packing:
            parts.append("packing off")
        return f" ({', '.join(parts)})" if parts else ""


def fit_tokenizer(tokenizer: Any, fitting: Fitting) -> list[int]:
    """Change a tokenizer's chat template as `fitting` says; return the ids of tokens that this adds.

    A shipped template's marks become special tokens where the tokenizer has none of that name. The marks of a template file
    are written with the tokens that there are. A template that takes no system message gets a place for it.

    Raises:
        LabError: `chat_template` is neither a shipped template nor a file of text.
    """
    from tokenizers import AddedToken

    added: list[str] = []
    if fitting.chat_template:
        file = _template_file(fitting.chat_template)
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise LabError(f"settings.yaml: chat_template: {file} cannot be read as UTF-8 text ({error})") from None
        if file.parent == _SHIPPED:
            added = [mark for mark in dict.fromkeys(re.findall(r"<\|\w+\|>", text)) if mark not in tokenizer.get_vocab()]
            tokenizer.add_tokens([AddedToken(mark, special=True, normalized=False) for mark in added], special_tokens=True)
            first = tokenizer("a")["input_ids"][0]
            text = ("{{- bos_token -}}" if first == tokenizer.bos_token_id else "") + text
        tokenizer.chat_template = text
    if tokenizer.chat_template and not _takes_system_message(tokenizer):
        place = "{%- if messages and messages[0].role == 'system' -%}" + _SYSTEM[fitting.system_message] + "{%- endif -%}"
        tokenizer.chat_template = place + tokenizer.chat_template
    return tokenizer.convert_tokens_to_ids(added)


def write_fitted(source: Path, tokenizer: Any, added: Sequence[int], packing: bool, folder: Path) -> None:
    """Write the model in the folder `source` with another tokenizer to `folder`. Weights that do not change take no space.

    New tokens begin as the mean of all others (Hewitt, "Initializing New Word Embeddings", 2021), and are noted for the
    training. With `packing` off, the model's configuration says so.
    """
    folder.mkdir()
    if added:
        model = load_model(source, "cpu", as_stored=True)
        _add_rows(model, added)
        model.save_pretrained(folder)
        write_json(folder / _NEW_TOKENS, list(added))
    tokenizer.save_pretrained(folder)
    for file in (each for pattern in (*_DOCUMENTS, *(() if added else _MODEL)) for each in source.glob(pattern)):
        link_or_copy(str(file.resolve()), str(folder / file.name))
    if not packing:
        config = read_json(folder / "config.json")
        (folder / "config.json").unlink()  # it may be a link
        write_json(folder / "config.json", {**config, "packing": False})


def new_tokens(folder: Path) -> list[int]:
    """Return the ids of the tokens that a fitted model in a folder has got and that are to be trained; none for others."""
    return read_json(folder / _NEW_TOKENS) if (folder / _NEW_TOKENS).exists() else []


def _template_file(name: str) -> Path:
    shipped = _SHIPPED / f"{name}.jinja"
    if not shipped.is_file() and not Path(name).is_file():
        known = ", ".join(sorted(path.stem for path in _SHIPPED.glob("*.jinja")))
        raise LabError(f"settings.yaml: chat_template: expected {known} or a Jinja file, found {name}, which is not there")
    return shipped if shipped.is_file() else Path(name)


def _takes_system_message(tokenizer: Any) -> bool:
    """Tell whether the template writes a system message; also True if it refuses the same conversation without one."""
    conversation: list[Turn] = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    try:
        render(tokenizer, conversation)
    except TemplateError:
        return True
    try:
        return MARK in render(tokenizer, [{"role": "system", "content": MARK}, *conversation])
    except TemplateError:
        return False


def _add_rows(model: Any, added: Sequence[int]) -> None:
    """Give the embeddings of a model a row for each of the new tokens: the mean of the others."""
    import torch

    rows = model.get_input_embeddings().weight.shape[0]
    if max(added) >= rows:
        model.resize_token_embeddings(max(added) + 1, mean_resizing=False)
    for embeddings in (model.get_input_embeddings(), model.get_output_embeddings()):
        weight = embeddings.weight.data
        new = sorted({*added, *range(rows, len(weight))})  # some tokenizers have more tokens than their model had rows
        weight[new] = weight[: new[0]].mean(0, dtype=torch.float32).to(weight.dtype)

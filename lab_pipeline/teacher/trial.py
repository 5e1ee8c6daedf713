"""Try a teacher or judge before a run begins: an endpoint by one call of each kind, an embedded model by its chat template."""

from __future__ import annotations

import asyncio
from pathlib import Path

from lab_pipeline.config.teachers import PACKAGED, EmbeddedTeacherSettings, EndpointTeacherSettings
from lab_pipeline.core.home import Home
from lab_pipeline.models.base_model import tokenizer_folder
from lab_pipeline.models.loader import load_tokenizer
from lab_pipeline.models.template import TemplateError, render, turn_end_tokens
from lab_pipeline.teacher.embedded import OTHER_MODEL
from lab_pipeline.teacher.protocol import Message, Request, TeacherError

_TEXT = Request((Message("user", "Reply with one word: ready"),), 16)
_CHOICE = Request((Message("user", "Is 7 larger than 3? Answer with one word, Yes or No."),), 16, choices=("Yes", "No"))
_LIKE_FLOWS = Request(
    (Message("system", "Be brief."), Message("user", "a"), Message("assistant", "b"), Message("user", "c")), 1
)


def try_embedded(home: Home, settings: EmbeddedTeacherSettings) -> None:
    """Check that a model can be asked as flows ask, without loading it. The packaged one is known to be fit.

    Raises:
        TeacherError: it has no tokenizer or chat template, the template refuses a system message or several turns, no token
            ends an answer, or the embedded teacher cannot run its layers.
        ModelError: the model is missing.
    """
    if settings.model == PACKAGED:  # the check would unpack it
        return
    from transformers import AutoConfig

    from lab_pipeline.teacher.decoding import attention_types

    folder = tokenizer_folder(home, settings.model)
    try:
        tokenizer = load_tokenizer(folder)
        render(tokenizer, _LIKE_FLOWS.turns(), prompt=True)
        turn_end_tokens(tokenizer)
        attention_types(AutoConfig.from_pretrained(folder))
    except TemplateError as error:
        raise TeacherError(f"{settings.model} cannot be asked: {error}; {OTHER_MODEL}") from None
    except (OSError, ValueError) as error:
        first, *_ = str(error).splitlines()
        raise TeacherError(f"{settings.model} cannot be read: {first}; give the folder of a whole Hugging Face model") from None


def try_endpoint(settings: EndpointTeacherSettings, learned: Path) -> str:
    """Ask for a text and for a verdict, remember in the file `learned` what the server does not take, and say what was found.

    Raises:
        TeacherError: A call failed, or the model gave no answer to one.
        SettingsError: The environment variable that should hold the key is not set.
    """
    from lab_pipeline.teacher.endpoint import EndpointTeacher  # httpx takes long to import

    teacher = EndpointTeacher(settings.model_copy(update={"retries": min(settings.retries, 1)}), learned=learned)

    async def both() -> bool:
        text, choice = await teacher.reply(_TEXT), await teacher.reply(_CHOICE)
        for reply in (text, choice):
            if reply.no_answer:
                mend = "; set reasoning_tokens, the room for its thinking" if "before it began" in reply.no_answer else ""
                raise TeacherError(f"{teacher.identity}: {reply.no_answer}{mend}")
        return bool(choice.probabilities)

    probabilities = asyncio.run(both())
    found = ["answers", "states log-probabilities" if probabilities else "states no log-probabilities: a judge's word decides"]
    return ", ".join([*found, *([f"is asked with {teacher.dialect}"] if str(teacher.dialect) else [])])

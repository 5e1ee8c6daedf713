"""Try an endpoint with one call of each kind, before a run pays for thousands."""

from __future__ import annotations

import asyncio
from pathlib import Path

from lab_pipeline.config.settings import EndpointTeacherSettings
from lab_pipeline.teacher.protocol import Message, Request, TeacherError

_TEXT = Request((Message("user", "Reply with one word: ready"),), 16)
_CHOICE = Request((Message("user", "Is 7 larger than 3? Answer with one word, Yes or No."),), 16, choices=("Yes", "No"))


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

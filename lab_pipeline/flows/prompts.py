"""Prompts as YAML files: lists of messages whose contents are templates; an undefined variable is an error."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import yaml
from jinja2.sandbox import SandboxedEnvironment

from lab_pipeline.core.errors import LabError
from lab_pipeline.teacher.protocol import Message

Prompt = list[dict[str, Any]]
"""Messages with `role` and `content`; or `each`, with `messages` repeated for its items: a variable that holds a list, or
the items themselves, such as a judge's worked examples."""


class FlowError(LabError):
    """A flow or one of its prompts cannot be used; the message names the file and what to mend."""


_TEMPLATES = SandboxedEnvironment(undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)


@cache
def _template(text: str) -> jinja2.Template:
    return _TEMPLATES.from_string(text)


def render_prompt(name: str, prompt: Prompt, variables: dict[str, Any]) -> tuple[Message, ...]:
    """Fill a prompt in.

    Raises:
        FlowError: the prompt, called `name` in the message, uses a variable that is not given.
    """
    messages: list[Message] = []
    for part in prompt:
        if "each" in part:
            items = part["each"] if isinstance(part["each"], list) else variables.get(part["each"])
            if not isinstance(items, list):
                raise FlowError(f"{name}: each: a row has no list {part['each']!r}")
            for item in items:
                messages += [_message(name, message, variables | item) for message in part["messages"]]
        else:
            messages.append(_message(name, part, variables))
    return tuple(messages)


def _message(name: str, part: dict[str, Any], variables: dict[str, Any]) -> Message:
    try:
        return Message(part["role"], _template(part["content"]).render(variables).strip())
    except jinja2.UndefinedError as error:
        raise FlowError(f"{name}: {error}; a row has {', '.join(sorted(variables))}") from None


def load_prompt(path: Path) -> Prompt:
    """A prompt file, checked whole.

    Raises:
        FlowError: it cannot be read, or is no list of messages.
    """
    try:
        parts = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise FlowError(f"{path}: cannot be read ({error.strerror})") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise FlowError(f"{path}: not valid YAML: {error}") from None
    if not isinstance(parts, list):
        raise FlowError(f"{path}: expected a list of messages")
    for part in parts:
        repeated = isinstance(part, dict) and set(part) == {"each", "messages"} and isinstance(part["messages"], list)
        if repeated and isinstance(part["each"], list) and not all(isinstance(item, dict) for item in part["each"]):
            raise FlowError(f"{path}: each: expected the name of a list, or a list of items with a text for each variable")
        for message in part["messages"] if repeated else [part]:
            if not _is_message(message):
                raise FlowError(
                    f"{path}: every message needs a role (system, user, assistant) and a content, and nothing else; "
                    "repeated ones stand under 'messages' beside 'each'"
                )
            try:
                _template(message["content"])
            except jinja2.TemplateSyntaxError as error:
                raise FlowError(f"{path}: {error}") from None
    return parts


def _is_message(part: Any) -> bool:
    return (
        isinstance(part, dict)
        and set(part) == {"role", "content"}
        and part["role"] in ("system", "user", "assistant")
        and isinstance(part["content"], str)
    )

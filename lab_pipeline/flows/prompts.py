"""Load and render prompts: YAML lists of messages whose contents are Jinja templates. An undefined variable is an error."""

from collections.abc import Collection, Mapping, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, TypedDict, final

import jinja2
import yaml
from jinja2 import meta, nodes
from jinja2.sandbox import SandboxedEnvironment

from lab_pipeline.core.errors import LabError
from lab_pipeline.core.rows import Turn
from lab_pipeline.teacher.protocol import Message


@final
class RepeatedTurns(TypedDict):
    """A part of a prompt whose messages are repeated for each item of a list. The item's keys are variables of the messages."""

    each: str | list[dict[str, str]]
    """The name of a variable that holds the list, such as `examples`, or the list itself, such as a judge's worked examples."""
    messages: list[Turn]


Prompt = Sequence[Turn | RepeatedTurns]


class FlowError(LabError):
    """A flow or one of its prompts cannot be used; the message names the file and the fix."""


_TEXTS = {str, type(None)}
"""Types of values of which equal ones render alike."""
_TEMPLATES = SandboxedEnvironment(undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)


@cache
def _template(text: str) -> jinja2.Template:
    return _TEMPLATES.from_string(text)


def render_prompt(name: str, prompt: Prompt, variables: Mapping[str, object]) -> tuple[Message, ...]:
    """Return the messages of a prompt, filled in with `variables`. Error messages call the prompt `name`.

    Raises:
        FlowError: the prompt uses an undefined variable, or repeats messages for a variable that is no list.
    """
    messages: list[Message] = []
    for part in prompt:
        if "role" in part:
            messages.append(_message(name, part, variables))
            continue
        items = part["each"] if isinstance(part["each"], list) else variables.get(part["each"])
        if not isinstance(items, list):
            raise FlowError(f"{name}: each: a row has no list {part['each']!r}")
        for item in items:
            known = {**variables, **item}
            messages += [_message(name, turn, known) for turn in part["messages"]]
    return tuple(messages)


def _message(name: str, turn: Turn, variables: Mapping[str, object]) -> Message:
    content = turn["content"]
    values = tuple([variables.get(each, jinja2.Undefined) for each in _variables(content)])
    try:
        render = _rendered if {*map(type, values)} <= _TEXTS else _rendered.__wrapped__
        return render(turn["role"], content, values)
    except jinja2.UndefinedError as error:
        raise FlowError(f"{name}: {error}; a row has {', '.join(sorted(variables))}") from None


@lru_cache(maxsize=1024)
def _rendered(role: Any, content: str, values: tuple[object, ...]) -> Message:
    """Render a message with the values of its `_variables`, of which those that are `Undefined` itself are missing.

    Most of a prompt's messages are equal from row to row: instructions, and worked examples.
    """
    given = zip(_variables(content), values, strict=True)
    variables = {name: value for name, value in given if value is not jinja2.Undefined}
    return Message(role, _template(content).render(variables).strip())


def load_yaml(path: Path) -> Any:
    """Return the content of a flow's YAML file.

    Raises:
        FlowError: the file cannot be read, or is not YAML in UTF-8.
    """
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise FlowError(f"{path}: cannot be read ({error.strerror})") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise FlowError(f"{path}: not valid YAML: {error}") from None


def unknown_variables(prompt: Prompt, known: Collection[str], in_examples: Collection[str]) -> list[str]:
    """Return, sorted, the variables of a prompt that would be undefined when the prompt is rendered.

    Args:
        known: variables that all messages may use.
        in_examples: further variables of messages that are repeated for the items of a variable. If the prompt lists the items
            itself, the keys that all of them have count instead.
    """
    unknown: set[str] = set()
    for part in prompt:
        if "role" in part:
            unknown |= _needed(part["content"]) - {*known}
            continue
        each = part["each"]
        given = {*in_examples} if isinstance(each, str) else set.intersection(*map(set, each)) if each else set()
        unknown |= {each} - {*known} if isinstance(each, str) else set()
        unknown |= {name for turn in part["messages"] for name in _needed(turn["content"])} - {*known} - given
    return sorted(unknown)


@cache
def _variables(text: str) -> tuple[str, ...]:
    """Return the variables that a template names."""
    return tuple(meta.find_undeclared_variables(_TEMPLATES.parse(text)) - {*_TEMPLATES.globals})


def _needed(text: str) -> set[str]:
    """Return the variables that a template needs: all but those that it tests by `is defined` or gives a `default`."""
    tested = _TEMPLATES.parse(text).find_all((nodes.Test, nodes.Filter))
    spared = {each.node.name for each in tested if each.name in ("defined", "default") and isinstance(each.node, nodes.Name)}
    return {*_variables(text)} - spared


def load_prompt(path: Path) -> Prompt:
    """Load a prompt file, and check the form of its messages and the syntax of its templates, but not their variables.

    Raises:
        FlowError: the file cannot be read, is not a list of messages, or a template is wrong.
    """
    parts = load_yaml(path)
    if not isinstance(parts, list):
        raise FlowError(f"{path}: expected a list of messages")
    for part in parts:
        repeated = isinstance(part, dict) and set(part) == {"each", "messages"} and isinstance(part["messages"], list)
        if repeated and isinstance(part["each"], list) and not all(isinstance(item, dict) for item in part["each"]):
            raise FlowError(f"{path}: each: expected the name of a list, or a list of items that map variables to texts")
        for message in part["messages"] if repeated else [part]:
            if not _is_message(message):
                raise FlowError(
                    f"{path}: every message needs a role (system, user, assistant) and a content, and nothing else; "
                    "repeated messages go under 'messages', beside 'each'"
                )
            try:
                _template(message["content"])
            except jinja2.TemplateSyntaxError as error:
                raise FlowError(f"{path}: {error}") from None
    return parts


def _is_message(part: Any) -> bool:
    if not isinstance(part, dict) or set(part) != {"role", "content"}:
        return False
    return part["role"] in ("system", "user", "assistant") and isinstance(part["content"], str)

"""Parse untrusted YAML: safe types only, limited in size and depth, with the line of every value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import yaml

MAX_BYTES = 1_000_000
MAX_DEPTH = 20
MAX_DIGITS = 100
"""Maximum length of a number: Python refuses to print much longer ones, so they could not even be reported."""

Path = tuple[str | int, ...]


class YamlProblem(Exception):
    """Raised for YAML that is not read; `line` (1-based) says where, and `message` why."""

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.message = message
        self.line = line


@dataclass(frozen=True)
class LocatedYaml:
    """The value of a YAML document, and the 1-based line of each value in it, by its path of keys and indices."""

    value: Any
    lines: dict[Path, int]

    def line(self, path: Path) -> int:
        """Return the line of the value at `path`; if there is none, that of the innermost value that would enclose it."""
        while path not in self.lines:
            path = path[:-1]
        return self.lines[path]


def load_located(raw: bytes) -> LocatedYaml:
    """Parse one YAML document of strings, numbers, lists and other plain types; an empty document has the value None.

    Raises:
        YamlProblem: The document is too large, nested too deeply, not UTF-8 or not YAML; or it has an alias, a duplicate key,
            an unprintable character written as an escape, an integer of more than `MAX_DIGITS` digits, or a tag that PyYAML's
            safe loader refuses, such as `!!python/object`.
    """
    if len(raw) > MAX_BYTES:
        raise YamlProblem(f"the file has {len(raw):,} bytes; at most {MAX_BYTES:,} are read", 1)
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise YamlProblem("not UTF-8 text; save the file as UTF-8", raw[: error.start].count(b"\n") + 1) from None
    try:
        _check_depth(text)
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        lines: dict[Path, int] = {(): 1}
        if node is None:
            return LocatedYaml(None, lines)
        _record_lines(node, (), lines)
        return LocatedYaml(loader.construct_document(node), lines)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise YamlProblem(error.problem or "not valid YAML", mark.line + 1 if mark else 1) from None
    except yaml.reader.ReaderError as error:
        raise YamlProblem(f"not valid YAML: {error.reason}", text[: error.position].count("\n") + 1) from None
    # The types of YAML refuse some values, e.g. the date 2024-13-45, and PyYAML fails on others, e.g. `!!int ""`.
    except (ValueError, ArithmeticError, LookupError, AttributeError, TypeError) as error:
        raise YamlProblem(f"not valid YAML: {error}", 1) from None


def _check_depth(text: str) -> None:
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise YamlProblem("aliases (*name) are not read; write the text out", _line(event))
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                raise YamlProblem(f"nested deeper than {MAX_DEPTH} levels", _line(event))
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _check_scalar(node: yaml.Node) -> None:
    """Raise `YamlProblem` for an unprintable character, and for an integer of more than `MAX_DIGITS` digits."""
    if not isinstance(node, yaml.ScalarNode):
        return
    found = yaml.reader.Reader.NON_PRINTABLE.search(node.value)
    if found:
        raise YamlProblem(f"the character U+{ord(found.group()):04X} is not read", node.start_mark.line + 1)
    if node.tag == "tag:yaml.org,2002:int" and len(node.value) > MAX_DIGITS:
        raise YamlProblem(f"a number of more than {MAX_DIGITS} digits", node.start_mark.line + 1)


def _line(event: yaml.Event) -> int:
    assert event.start_mark is not None
    return event.start_mark.line + 1


def _record_lines(node: yaml.Node, path: Path, lines: dict[Path, int]) -> None:
    lines[path] = node.start_mark.line + 1
    _check_scalar(node)
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            _check_scalar(key)
            here = (*path, str(key.value))
            if here in lines:
                raise YamlProblem(f"the key '{key.value}' stands twice", key.start_mark.line + 1)
            _record_lines(value, here, lines)
            lines[here] = key.start_mark.line + 1
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            _record_lines(value, (*path, index), lines)

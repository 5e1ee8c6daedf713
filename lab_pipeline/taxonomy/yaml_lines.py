"""Parse untrusted YAML: safe types only, limited in size and depth, with line and column of every value.

libyaml reads nearly all files, twenty times as fast as PyYAML's own parser. The two differ on characters that are rare in
YAML, such as tabs, and PyYAML's errors say more; so files with such characters, and those that libyaml refuses, are read by
PyYAML's own parser, whose answer is the one that counts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

MAX_BYTES = 1_000_000
MAX_DEPTH = 20
MAX_NODES = 40_000
"""Maximum number of values and keys, those that aliases repeat included."""
MAX_DIGITS = 100
"""Maximum length of a number: Python refuses to print much longer ones, so they could not even be reported."""

Path = tuple[str | int, ...]
Place = tuple[int, int]
"""A line and a column, both 1-based."""

_FAST: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # PyYAML may be built without libyaml
_SLOW: Any = yaml.SafeLoader
_ODD = re.compile(r"[\t\x85\u2028\u2029\ufeff]|^%|^ *[?]|[\[{,] *[?:]|(?<!\S)!(?!\S)|[|>][-+0-9]*#", re.MULTILINE)
"""What libyaml and PyYAML's own parser read differently, or may."""
_DEEPEST = 200
"""Nesting at which reading stops; up to it, a deep file is only refused, and the verdict of InstructLab's parser known."""


_CONFLICT = re.compile(r"^<<<<<<< ", re.MULTILINE)
_HINTS = {
    "'\\t' that cannot start": "indent with blanks, not tabs",
    "that cannot start any token": "put the text in quotes",
    "mapping values are not allowed": "put a text that contains ': ' in quotes",
    "expected alphabetic or numeric character": "put a text that begins with '*' or '&' in quotes, or close a quote above",
    "expected <block end>": "check the indentation of this line, and the quotes of the one before",
    "could not find expected ':'": "a key ends with ': ', and a text of several lines is indented, or begins with '|'",
    "unexpected end of stream": "close the quotes or brackets that are open",
}
"""How to mend what YAML's parser often says."""


class YamlProblem(Exception):
    """Raised for YAML that is not read; `line` and `column` (1-based) say where, `message` why, and `rule` names the reason."""

    def __init__(self, message: str, line: int, column: int = 1, rule: str = "yaml-syntax") -> None:
        super().__init__(message)
        self.message = message
        self.line = line
        self.column = column
        self.rule = rule


@dataclass(frozen=True)
class LocatedYaml:
    """The value of a YAML document, and the place of each value in it, by its path of keys and indices."""

    value: Any
    places: dict[Path, Place]
    refused: list[YamlProblem] = field(default_factory=list)
    """What `load_located` refuses although it is YAML, in the order of the file."""

    def place(self, path: Path) -> Place:
        """Return the place of the value at `path`; if there is none, that of the innermost value that would enclose it."""
        while path not in self.places:
            path = path[:-1]
        return self.places[path]

    def line(self, path: Path) -> int:
        """Return the line of `place`."""
        return self.place(path)[0]


def load_located(raw: bytes) -> LocatedYaml:
    """Parse one YAML document of strings, numbers, lists and other plain types; an empty document has the value None.

    Raises:
        YamlProblem: As for `read_located`, or the document is nested deeper than `MAX_DEPTH` levels; or it has a duplicate key
            or an unprintable character written as an escape.
    """
    located = read_located(decoded(raw))
    if located.refused:
        raise located.refused[0]
    return located


def decoded(raw: bytes) -> str:
    """Return the text of a file, with `\\n` at the end of each line.

    Raises:
        YamlProblem: The file is too large, or not UTF-8.
    """
    if len(raw) > MAX_BYTES:
        raise YamlProblem(f"the file has {len(raw):,} bytes; at most {MAX_BYTES:,} are read", 1, rule="too-large")
    try:
        return raw.decode("utf-8").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        column = error.start - raw.rfind(b"\n", 0, error.start)
        raise YamlProblem("not UTF-8 text; save the file as UTF-8", line, column, "not-utf-8") from None


def read_located(text: str) -> LocatedYaml:
    """Parse one YAML document as `load_located` does, but only collect what is refused although it is YAML.

    Raises:
        YamlProblem: The text is not YAML, or nested monstrously; it has more than `MAX_NODES` values, an alias inside of what
            it repeats, an integer of more than `MAX_DIGITS` digits, or a tag that PyYAML's safe loader refuses, such as
            `!!python/object`.
    """
    if not _ODD.search(text):
        try:
            return _read(text, _FAST)
        except yaml.YAMLError:
            pass  # PyYAML's own parser says it better, and does not refuse quite the same
    try:
        return _read(text, _SLOW)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = _place(mark) if mark else (1, 1)
        if conflict := _CONFLICT.search(text):
            message = "the mark of a merge conflict; choose one of the versions, and take the marks out"
            raise YamlProblem(message, text.count("\n", 0, conflict.start()) + 1) from None
        said = error.problem or "not valid YAML"
        hint = next((hint for part, hint in _HINTS.items() if part in said), "")
        raise YamlProblem(f"{said}; {hint}" if hint else said, line, column) from None
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        place = before.count("\n") + 1, len(before) - before.rfind("\n")
        raise YamlProblem(f"not valid YAML: {error.reason}", *place) from None


def _read(text: str, loader_class: Any) -> LocatedYaml:
    loader = loader_class(text)
    try:
        refused = list(_check_bounds(text, loader_class))
        node = loader.get_single_node()
        places: dict[Path, Place] = {(): (1, 1)}
        if node is None:
            return LocatedYaml(None, places)
        refused += _record(node, (), places)
        return LocatedYaml(loader.construct_document(node), places, sorted(refused, key=lambda each: (each.line, each.column)))
    # The types of YAML refuse some values, e.g. the date 2024-13-45, and PyYAML fails on others, e.g. `!!int ""`.
    except (ValueError, ArithmeticError, LookupError, AttributeError, TypeError) as error:
        raise YamlProblem(f"not valid YAML: {error}", 1) from None
    finally:
        loader.dispose()


def _check_bounds(text: str, loader_class: Any) -> Iterator[YamlProblem]:
    """Yield the place where a document is nested too deeply, and raise `YamlProblem` where it must not be read at all."""
    open_nodes: list[tuple[str | None, int]] = []  # of each open collection the anchor, and the number of nodes before it
    sizes: dict[str, int | None] = {}  # of each anchored node; None while it is open
    count = 0
    for event in yaml.parse(text, Loader=loader_class):
        if isinstance(event, yaml.AliasEvent):
            size = sizes.get(str(event.anchor), 0)
            if size is None:
                raise YamlProblem(
                    f"*{event.anchor} stands inside of what it repeats", *_place(event.start_mark), "alias-recursive"
                )
            count += size
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_nodes.pop()
            if anchor:
                sizes[anchor] = count - before
        elif isinstance(event, yaml.NodeEvent):
            count += 1
            if isinstance(event, yaml.CollectionStartEvent):
                open_nodes.append((event.anchor, count - 1))
                if len(open_nodes) == MAX_DEPTH + 1:
                    yield YamlProblem(f"nested deeper than {MAX_DEPTH} levels", *_place(event.start_mark), "too-deep")
                if len(open_nodes) > _DEEPEST:
                    raise YamlProblem(f"nested deeper than {MAX_DEPTH} levels", *_place(event.start_mark), "too-deep")
            if event.anchor:
                sizes[event.anchor] = None if isinstance(event, yaml.CollectionStartEvent) else 1
        if count > MAX_NODES:
            message = f"more than {MAX_NODES:,} values, those that aliases (*name) repeat included; write less"
            raise YamlProblem(message, *_place(event.start_mark), "too-many-values")


def _place(mark: Any) -> Place:
    return mark.line + 1, mark.column + 1


def _check_scalar(node: yaml.Node) -> Iterator[YamlProblem]:
    """Yield an unprintable character, and raise `YamlProblem` for an integer of more than `MAX_DIGITS` digits."""
    if not isinstance(node, yaml.ScalarNode):
        return
    if not node.value.isprintable() and (found := yaml.reader.Reader.NON_PRINTABLE.search(node.value)):
        message = f"the character U+{ord(found.group()):04X} is not read"
        yield YamlProblem(message, *_place(node.start_mark), "unprintable-character")
    if node.tag == "tag:yaml.org,2002:int" and len(node.value) > MAX_DIGITS:
        raise YamlProblem(f"a number of more than {MAX_DIGITS} digits", *_place(node.start_mark), "long-number")


def _record(node: yaml.Node, path: Path, places: dict[Path, Place]) -> Iterator[YamlProblem]:
    """Add the places of a node and of all in it to `places`, and yield what is refused."""
    places.setdefault(path, _place(node.start_mark))
    yield from _check_scalar(node)
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield from _check_scalar(key)
            here = (*path, str(key.value))
            if here in places:
                message = f"the key '{key.value}' stands twice"
                yield YamlProblem(message, *_place(key.start_mark), "duplicate-key")
                continue
            places[here] = _place(key.start_mark)
            yield from _record(value, here, places)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield from _record(value, (*path, index), places)

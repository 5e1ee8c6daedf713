"""Judge a `qna.yaml` as the parser of package `instructlab-schema` does in strict mode, which `ilab` runs.

It reads the file by PyYAML, compares it with the public schema of its version and branch, and from version 2 on lets yamllint
look at it; a warning of yamllint is an error. Only an empty file passes with a warning.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from typing import Any, Literal, NamedTuple, cast, get_args

import jsonschema
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012
from yamllint import linter
from yamllint.config import YamlLintConfig

from lab_pipeline.taxonomy.yaml_lines import LocatedYaml, Place

VERSIONS = (1, 2, 3)
"""Schema versions of `qna.yaml`."""
SchemaName = Literal["knowledge", "compositional_skills"]

_LINT_CONFIG = YamlLintConfig("{extends: relaxed, rules: {line-length: disable}}")
_LINT_OFF = re.compile(r"#\s*yamllint disable-file\s*")
_LINT_MENDS = {
    "trailing-spaces": "remove them",
    "new-line-at-end-of-file": "end the last line with a line break",
    "indentation": "indent each level by the same number of spaces",
    "empty-lines": "remove blank lines",
    "key-duplicates": "remove one of the two",
}
_TOO_FEW = {"seed_examples": "too-few-seeds", "questions_and_answers": "too-few-questions", "patterns": "too-few-patterns"}
_GUESSED = 20
"""Number of unknown keys of a mapping for which a similar known one is looked for."""
_TYPES = {"string": "a text", "array": "a list", "object": "a mapping of keys", "integer": "a whole number"}


class Finding(NamedTuple):
    """What a rule found at a place of a file."""

    place: Place
    rule: str
    message: str


def schema_version(value: Mapping[Any, Any]) -> int | None:
    """Return the version of the schema for the content of a `qna.yaml`, or None if there is no such version."""
    version = value.get("version", 1)
    return None if isinstance(version, bool) or version not in VERSIONS else int(version)


def upstream_schema(key: str, value: Mapping[Any, Any]) -> SchemaName:
    """Return the name of the schema for the leaf `key`: the last folder of its path that is named like a schema counts; below
    none, what has a `document` is knowledge."""
    for part in reversed(key.split("/")):
        if part in get_args(SchemaName):
            return cast(SchemaName, part)
    return "knowledge" if "document" in value else "compositional_skills"


def schema_findings(located: LocatedYaml, name: SchemaName, version: int) -> list[Finding]:
    """Return what the schema of this name and version refuses, in the order of the file."""
    schema = _schema(name, version)
    definition = schema.schema
    if definition.get("deprecated"):
        missing = "" if "version" in located.value else f"the key 'version' is missing; add 'version: {VERSIONS[-1]}'. "
        return [Finding(located.place(("version",)), "version", missing + definition["description"])]
    return sorted(finding for error in schema.iter_errors(located.value) for finding in _findings(error, located))


def lint_findings(text: str) -> list[Finding]:
    """Return what yamllint finds in YAML: of each of its rules the first place, and the number of further ones.

    This is `linter.run` without its first step, which parses the text once more to see whether it is YAML.
    """
    text = text.removeprefix("\ufeff")
    if _LINT_OFF.fullmatch(text.partition("\n")[0]):
        return []
    found: dict[str, list[linter.LintProblem]] = {}
    for problem in linter.get_cosmetic_problems(text, _LINT_CONFIG, None):
        found.setdefault(problem.rule, []).append(problem)
    findings = []
    for rule, problems in found.items():
        message = problems[0].desc
        if len(problems) > 1:
            message += f" (and at {len(problems) - 1} further places, first in line {problems[1].line})"
        mend = f"; {_LINT_MENDS[rule]}" if rule in _LINT_MENDS else ""
        place = problems[0].line, max(problems[0].column, 1)
        findings.append(Finding(place, f"lint-{rule}", f"{message}{mend}; until then, ilab refuses the file"))
    return findings


def _findings(error: jsonschema.ValidationError, located: LocatedYaml) -> Iterator[Finding]:
    path = tuple(error.absolute_path)
    instance: Any = error.instance
    wanted: Any = error.validator_value
    schema: Any = error.schema
    rule, message = f"schema-{error.validator}", _cut(error.message)
    match error.validator:
        case "unevaluatedProperties":
            known = [*schema["properties"], *([] if path else ["version"])]
            free, unknown = [key for key in known if key not in instance], [key for key in instance if key not in known]
            for number, key in enumerate(unknown):
                like = get_close_matches(str(key)[:100], free, 1) if number < _GUESSED else []
                hint = f"did you mean {like[0]}?" if like else f"known are {', '.join(known)}"
                message = f"unknown key {_cut(repr(key))}; {hint}"
                yield Finding(located.place((*path, str(key))), "unknown-key", _at(path, message))
            return
        case "required":
            name = error.message.removesuffix(" is a required property")
            like = get_close_matches(name.strip("'"), [key for key in map(str, instance) if key not in schema["properties"]], 1)
            if like and schema.get("unevaluatedProperties") is False:
                return  # said of the unknown key already, at its line
            mend = f"rename {like[0]!r}" if like else "add it"
            rule, message = "schema-required", f"the key {name} is missing; {mend}"
        case "minItems":
            rule = _TOO_FEW.get(str(path[-1]), rule)
            message = f"has {len(instance)} of at least {wanted} entries; add {wanted - len(instance)}"
        case "uniqueItems":
            rule, message = "duplicate-entry", "two entries are the same; change or remove one of them"
        case "minLength":
            rule, message = "empty-text", "is empty; write a text"
        case "type":
            mend = "put it in quotes" if wanted == "string" and not isinstance(instance, dict | list | None) else "replace it"
            message = f"expected {_TYPES.get(str(wanted), wanted)}, found {_cut(_shown(instance))}; {mend}"
    yield Finding(located.place(path), rule, _at(path, message))


def _shown(value: Any) -> str:
    return "nothing" if value is None else value.isoformat() if hasattr(value, "isoformat") else repr(value)


def _at(path: tuple[str | int, ...], message: str) -> str:
    return f"{'.'.join(map(str, path))}: {message}" if path else message


def _cut(text: str) -> str:
    return text if len(text) < 200 else f"{text[:200]}…"


def _unique_items(validator: Any, wanted: bool, instance: Any, schema: Any) -> Iterator[jsonschema.ValidationError]:
    """Check `uniqueItems` as jsonschema does, which takes minutes for the seeds of a large leaf, in linear time."""
    if wanted and isinstance(instance, list):
        try:
            if len({_hashable(each) for each in instance}) < len(instance):
                yield jsonschema.ValidationError("has non-unique elements")
        except TypeError:  # a set of YAML, for one
            yield from jsonschema.Draft202012Validator.VALIDATORS["uniqueItems"](validator, wanted, instance, schema)


def _hashable(value: Any) -> Any:
    """Return a value that equals another one's if the two are equal to JSON schema, to which true is not 1."""
    match value:
        case dict():
            return frozenset((key, _hashable(each)) for key, each in value.items())
        case list():
            return "list", *map(_hashable, value)
        case bool():
            return "bool", value
    return value


_Validator = jsonschema.validators.extend(jsonschema.Draft202012Validator, {"uniqueItems": _unique_items})


@cache
def _schema(name: SchemaName, version: int) -> Any:
    folder = files("instructlab.schema") / f"v{version}"
    version_schema = Resource.from_contents(json.loads((folder / "version.json").read_text()), DRAFT202012)
    registry = Registry().with_resources([(each, version_schema) for each in ("./version.json", "version.json")])
    return _Validator(json.loads((folder / f"{name}.json").read_text()), registry=registry)

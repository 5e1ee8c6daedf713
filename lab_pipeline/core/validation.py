"""Validate configurations with pydantic, and report what is wrong with them."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, ValidationError


class Section(BaseModel):
    """A part of a configuration; its values cannot be changed, and unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def validation_problems(error: ValidationError) -> list[str]:
    """Describe each problem in one line, as `key: expectation, found value`.

    Values of unknown keys are left out, because they may be secrets. Messages of our own validators are taken as they are,
    because they state the value where it may be shown.
    """
    problems = []
    for problem in error.errors():
        key, value = ".".join(map(str, problem["loc"])), problem["input"]
        mapping = problem["type"] in ("model_type", "model_attributes_type", "dict_type")
        text = "expected a mapping" if mapping else problem["msg"].removeprefix("Value error, ")
        if problem["type"] not in ("missing", "extra_forbidden", "value_error"):
            simple = value is None or isinstance(value, str | int | float)
            text += f", found {value!r:.60}" if simple else f", found a {type(value).__name__}"
        problems.append(f"{key}: {text}" if key else text)
    return problems

"""Validate configurations with pydantic, and report what is wrong with them."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ModelWrapValidatorHandler, ValidationError, model_validator
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

_UNKNOWN = "unknown_key"


class Section(BaseModel):
    """A part of a configuration; its values cannot be changed, and unknown keys are errors that name a similar known key."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="wrap")
    @classmethod
    def _suggest_known_keys(cls, given: Any, validate: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return validate(given)
        except ValidationError as error:
            details = [cls._with_suggestion(problem) for problem in error.errors(include_url=False)]
            raise ValidationError.from_exception_data(cls.__name__, details) from None

    @classmethod
    def _with_suggestion(cls, problem: ErrorDetails) -> InitErrorDetails:
        kind: str | PydanticCustomError = problem["type"]
        if kind == _UNKNOWN:  # of a part, which has said it already
            kind = PydanticCustomError(_UNKNOWN, "{text}", {"text": problem["msg"]})
        elif kind == "extra_forbidden" and len(problem["loc"]) == 1:
            similar = get_close_matches(str(problem["loc"][0]), cls.model_fields, 1)
            known = f"did you mean {similar[0]}?" if similar else f"known are {', '.join(cls.model_fields)}"
            kind = PydanticCustomError(_UNKNOWN, "{text}", {"text": f"unknown key; {known}"})
        return {"type": kind, "loc": problem["loc"], "input": problem["input"], "ctx": problem.get("ctx", {})}


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
        if problem["type"] not in ("missing", "extra_forbidden", _UNKNOWN, "value_error"):
            simple = value is None or isinstance(value, str | int | float)
            text += f", found {value!r:.60}" if simple else f", found a {type(value).__name__}"
        problems.append(f"{key}: {text}" if key else text)
    return problems

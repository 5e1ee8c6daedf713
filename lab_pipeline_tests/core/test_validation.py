from __future__ import annotations

from typing import Any

import pytest
from pydantic import Field, ValidationError, field_validator

from lab_pipeline.core.validation import Section, validation_problems


class _Part(Section):
    size: int = Field(1, ge=1)
    name: str = ""

    @field_validator("name")
    @classmethod
    def _is_no_path(cls, name: str) -> str:
        if "/" in name:
            raise ValueError(f"expected a name, found {name!r}")
        return name


class _Whole(Section):
    part: _Part
    others: list[_Part] = Field([])


def problems(value: Any) -> list[str]:
    with pytest.raises(ValidationError) as caught:
        _Whole.model_validate(value)
    return validation_problems(caught.value)


def test_all_problems_are_told_by_key_expectation_and_value() -> None:
    assert problems({"part": {"size": 0}, "others": [{}, {"size": "many"}]}) == [
        "part.size: Input should be greater than or equal to 1, found 0",
        "others.1.size: Input should be a valid integer, unable to parse string as an integer, found 'many'",
    ]


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ({}, "part: Field required"),
        ({"part": {"name": "a/b"}}, "part.name: expected a name, found 'a/b'"),
        ({"part": 3}, "part: expected a mapping, found 3"),
        ({"part": {"size": [1]}}, "part.size: Input should be a valid integer, found a list"),
        ({"part": {"size": "9" * 99 + "x"}}, "found '" + "9" * 59),
        (None, "expected a mapping, found None"),
    ],
)
def test_a_message_is_short_and_names_no_class_of_the_program(value: Any, told: str) -> None:
    (problem,) = problems(value)
    assert problem.endswith(told)


def test_the_value_of_an_unknown_key_may_be_a_secret_and_is_left_out() -> None:
    assert problems({"part": {"api_key": "sk-123"}}) == ["part.api_key: unknown key; known are size, name"]


def test_a_misspelt_key_is_told_with_the_right_one_at_any_depth() -> None:
    assert problems({"part": {"siez": 1}, "others": [{"nam": "x", "size": 0}], "{odd}": 1}) == [
        "part.siez: unknown key; did you mean size?",
        "others.0.size: Input should be greater than or equal to 1, found 0",
        "others.0.nam: unknown key; did you mean name?",
        "{odd}: unknown key; known are part, others",
    ]

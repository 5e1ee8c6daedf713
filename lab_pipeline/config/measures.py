"""Define the settings of named lm-eval tasks, by which models are measured beside their exam."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from lab_pipeline.core.validation import Section


class MeasuresSettings(Section):
    """Tasks of lm-eval (extra `lm-eval`) whose scores stand in the evaluation; those in `refuse_below` decide as well."""

    tasks: list[str] = Field([], description="Names of tasks or groups, e.g. mmlu, ifeval, or a task of your own")
    folder: str | None = Field(
        None, description="Folder with task files of your own, read before lm-eval's; their data sets may be local files"
    )
    questions: int | None = Field(None, ge=2, description="Maximum number of questions of each task. none = all")
    offline: bool = Field(True, description="Whether data sets must be on this machine already; false = download them")
    refuse_below: dict[str, Annotated[float, Field(ge=0, le=1)]] = Field(
        {},
        description="Tasks that decide, with the loss of score that is tolerated, e.g. mmlu: 0.02. A candidate is refused that "
        "is surely worse than the model before it by more",
    )

    @model_validator(mode="after")
    def _decides_by_what_is_measured(self) -> Self:
        if others := sorted(self.refuse_below.keys() - {*self.tasks}):
            raise ValueError(f"refuse_below: {others[0]} is not among the tasks")
        return self

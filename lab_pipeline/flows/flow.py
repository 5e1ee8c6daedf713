"""Loading and checking a flow: `flow.yaml` and the prompt files beside it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from lab_pipeline.flows.prompts import FlowError, Prompt, load_prompt, render_prompt
from lab_pipeline.storage import digest
from lab_pipeline.taxonomy.leaf import Kind
from lab_pipeline.teacher.protocol import Message

SHIPPED = Path(__file__).parent


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Start(_Part):
    """What a row starts from, before the teacher is asked anything."""

    each: Literal["sentence", "passage", "seed"]
    """One row for each sentence or passage of the documents (knowledge), or each training seed (skills)."""
    repeats: int = Field(1, ge=1, le=100)
    """Rows from each start, with other examples each time."""
    examples: int = Field(3, ge=1, le=20)
    """Seed examples shown in the prompt, drawn from the same leaf (local sampling: LAB paper, section 3)."""


class Stage(_Part):
    """One question to the teacher, whose reply becomes a column."""

    output: Literal["context", "question", "answer"]
    prompt: str
    max_tokens: int = Field(ge=1, le=32_768)
    temperatures: tuple[float, ...] = (0.0,)
    """One sample for each entry."""
    first_line: bool = False
    """Keep the reply's first line only: small models like to go on."""


class Judge(_Part):
    """One verdict on a row: the probability that the judge's answer begins with `accept`."""

    name: str
    prompt: str
    choices: tuple[str, ...] = ("Yes", "No")
    accept: str = "Yes"
    minimum: float = Field(0.5, ge=0, le=1)
    gates: bool = False
    """Rejects rows below `minimum`; otherwise the score is advice, shown and stored."""

    @model_validator(mode="after")
    def _accepts_a_choice(self) -> Judge:
        if self.accept not in self.choices:
            raise ValueError(f"accept: {self.accept!r} is not among choices {list(self.choices)}")
        return self


class Rules(_Part):
    """Thresholds of the rules that need no model; see `lab_pipeline.curation.rules`. None switches a rule off."""

    question_words: tuple[int, int] = (3, 60)
    answer_words: tuple[int, int] = (1, 250)
    answer_support: float | None = None
    question_support: float | None = None
    question_mark: bool = False
    informative: bool = True
    language: bool = True


class FlowFile(_Part):
    version: int = Field(ge=1)
    kind: Literal["knowledge", "grounded_skill", "freeform_skill"]
    description: str
    start: Start
    stages: tuple[Stage, ...] = Field(min_length=1)
    judges: tuple[Judge, ...] = ()
    rules: Rules = Rules()


@dataclass(frozen=True)
class Flow:
    """A flow ready to run. The three digests say what a change invalidates: generation, judging or curation alone."""

    name: str
    file: FlowFile
    prompts: dict[str, Prompt]

    @property
    def kind(self) -> Kind:
        return self.file.kind

    @property
    def generation_digest(self) -> str:
        stages = [[stage.model_dump(mode="json"), self.prompts[stage.prompt]] for stage in self.file.stages]
        return digest([self.file.start.model_dump(mode="json"), stages])

    @property
    def judging_digest(self) -> str:
        return digest(
            [
                [judge.model_dump(mode="json", exclude={"minimum", "gates"}), self.prompts[judge.prompt]]
                for judge in self.file.judges
            ]
        )

    @property
    def curation_digest(self) -> str:
        gates = [[judge.name, judge.minimum, judge.gates] for judge in self.file.judges]
        return digest([self.file.rules.model_dump(mode="json"), gates])

    def render(self, prompt: str, variables: dict[str, Any]) -> tuple[Message, ...]:
        """Fill a prompt in.

        Raises:
            FlowError: the prompt uses a variable that the row does not have.
        """
        return render_prompt(f"flow {self.name}, {prompt}", self.prompts[prompt], variables)


def shipped_flows() -> list[str]:
    return sorted(path.parent.name for path in SHIPPED.glob("*/flow.yaml"))


def load_flow(name: str, kind: Kind) -> Flow:
    """The shipped flow of that name, or the flow in the folder of that path, checked whole.

    Raises:
        FlowError: there is none, it serves another kind of leaf, or a file of it is wrong.
    """
    folder = SHIPPED / name if name in shipped_flows() else Path(name)
    if not (folder / "flow.yaml").is_file():
        raise FlowError(f"no flow {name!r}: neither one of {', '.join(shipped_flows())} nor a folder with flow.yaml")
    try:
        file = FlowFile.model_validate(yaml.safe_load((folder / "flow.yaml").read_text(encoding="utf-8")))
    except ValidationError as error:
        wrong = error.errors()[0]
        raise FlowError(f"{folder}/flow.yaml: {'.'.join(map(str, wrong['loc']))}: {wrong['msg']}") from None
    except yaml.YAMLError as error:
        raise FlowError(f"{folder}/flow.yaml: not valid YAML: {error}") from None
    if file.kind != kind:
        raise FlowError(f"flow {name} serves {file.kind} leaves, not {kind}; see flows in settings.yaml")
    outputs = [stage.output for stage in file.stages]
    if outputs[-1] != "answer" or "question" not in outputs:
        raise FlowError(f"{folder}/flow.yaml: stages: one must give the question, and the last one the answer")
    names = {stage.prompt for stage in file.stages} | {judge.prompt for judge in file.judges}
    return Flow(folder.name, file, {prompt: load_prompt(folder / prompt) for prompt in sorted(names)})

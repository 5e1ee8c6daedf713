"""Define, load and validate `settings.yaml`, the settings of one home."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError, field_validator

from lab_pipeline.config.deployment import KubernetesSettings
from lab_pipeline.config.measures import MeasuresSettings
from lab_pipeline.config.schedule import ScheduleSettings
from lab_pipeline.config.teachers import PACKAGED, EmbeddedTeacherSettings, TeacherSettings
from lab_pipeline.core.errors import LabError
from lab_pipeline.core.git import GitError, is_remote
from lab_pipeline.core.storage import read_json
from lab_pipeline.core.validation import Section, validation_problems


class SettingsError(LabError):
    """A wrong setting, or a settings file that cannot be read; the message names file, key, expectation and value found."""


class TaxonomySettings(Section):
    path: str = Field(description="Folder, git repository or bundle (relative to this file's folder), or an https or ssh URL")
    ref: str | None = Field(
        None, min_length=1, description="Branch, tag or full commit id. none = a folder as it is, a URL's HEAD"
    )

    @field_validator("path")
    @classmethod
    def _is_an_address(cls, path: str) -> str:
        try:
            is_remote(path)
        except GitError as error:
            raise ValueError(str(error)) from None
        return path


class DocumentSettings(Section):
    allow_local: bool | None = Field(
        None,
        description="Whether `document.repo` may be a local path (folder, repository, bundle). none = only if the taxonomy is "
        "local. Paths inside a taxonomy that is read from git are always allowed.",
    )
    timeout_seconds: int = Field(300, ge=1, description="Maximum time for one git command")
    max_megabytes: int = Field(200, ge=1, description="Maximum size of the documents of one leaf")
    sensitive: Literal["warn", "refuse"] = Field(
        "warn",
        description="What to do if a leaf's documents seem to hold secrets or personal data. 'warn' = warn only; 'refuse' = "
        "also quarantine the leaf if teacher or judge is on a host outside your network",
    )


class DatasetSettings(Section):
    """A custom data set, and how much of it to use; the keys are those of InstructLab's data recipes."""

    path: str = Field(
        description="JSONL or Parquet file of conversations, or a recipe (YAML) that lists such files. "
        "Relative to the folder of the file that names it"
    )
    sampling_size: Annotated[int, Field(ge=0)] | Annotated[float, Field(ge=0)] = Field(
        1.0,
        description="With a decimal point, the share of rows to use (1.0 = all); without, their number. "
        "If there are fewer rows, all are used once",
    )

    @field_validator("sampling_size", mode="before")
    @classmethod
    def _is_a_number(cls, value: Any) -> Any:
        if isinstance(value, bool):
            raise ValueError("expected a share such as 0.5 or a number of rows such as 100")
        return value


class MixingSettings(Section):
    """Custom data sets to train on besides the rows of the leaves, and whether any rows of leaves are generated."""

    knowledge: list[DatasetSettings] = Field([], description="Data sets of phase 1")
    skills: list[DatasetSettings] = Field([], description="Data sets of phase 2")
    generated: bool = Field(True, description="false = generate nothing; of the leaves, use only seeds and documents")


class FlowSettings(Section):
    """The flow for each kind of leaf, and for single leaves: the name of a shipped flow, or the folder of a custom one.

    A key of `leaves` matches its own leaf and, if it is a branch, all leaves below. Of the matching keys whose flow serves the
    leaf's kind, the longest wins.
    """

    knowledge: str | None = Field(None, description="none = knowledge (embedded teacher: simple_knowledge). Likewise below")
    grounded_skill: str | None = None
    freeform_skill: str | None = None
    leaves: dict[str, str] = Field(
        {}, description="Flows of single leaves or branches, by key. The longest key whose flow serves the leaf's kind wins"
    )


class RowsWantedSettings(Section):
    """How many rows a leaf should have after curation. All rows of its flow are asked for again until there are as many."""

    leaves: dict[str, Annotated[int, Field(ge=1)]] = Field(
        {}, description="Least number of kept rows, by the key of a leaf or branch; the longest key wins. none = one round"
    )
    rounds: int = Field(5, ge=1, le=100, description="Maximum number of times that all rows of such a leaf are asked for")

    @field_validator("leaves")
    @classmethod
    def _are_keys(cls, leaves: dict[str, int]) -> dict[str, int]:
        return {key.strip("/"): number for key, number in leaves.items()}

    def of(self, leaf: str) -> int | None:
        """Return the number of rows wanted of a leaf, None if no key matches."""
        above = [key for key in self.leaves if f"{leaf}/".startswith(f"{key}/")]
        return self.leaves[max(above, key=len)] if above else None


class GateSettings(Section):
    """How much better than the champion a candidate must be, and how much worse it may be elsewhere, to be promoted: losses in
    nats per answer token (see `lab_pipeline.evaluation.gate`)."""

    minimum_gain: float = Field(0.20, ge=0, description="Minimum improvement on the changed leaves; twice a retrain's noise")
    unchanged_tolerance: float = Field(0.20, ge=0, description="Maximum loss increase of the unchanged leaves together")
    leaf_tolerance: float = Field(0.30, ge=0, description="Maximum statistically certain loss increase of any leaf")
    general_tolerance: float = Field(0.10, ge=0, description="Maximum loss increase of the general questions")
    minimum_questions: int = Field(5, ge=2, description="Minimum number of held-out questions for a decision")
    allowed_regressions: list[str] = Field([], description="Keys of leaves that the gate ignores, e.g. during a rewrite")
    retrain_noise: float = Field(
        0.20, gt=0, description="Standard deviation of a leaf's mean loss between retrains, used if too few leaves show it"
    )
    answers: Literal["refuse", "tell"] = Field(
        "refuse",
        description="What to do if a candidate surely chooses the right answer among others less often than the model before, "
        "whatever its loss",
    )
    confidence: float = Field(
        0.95, gt=0.5, lt=1, description="Confidence level of the two-sided intervals, and of the one-sided test of the gain"
    )


class ExamSettings(Section):
    """Exam questions, which the teacher writes about the documents of knowledge leaves to test models."""

    gain: float = Field(
        0.30,
        gt=0,
        description="Gain on one changed leaf that the exam should find in 80 of 100 cases, in nats per answer token; decides "
        "how many questions each knowledge leaf gets",
    )
    most: int | None = Field(
        None,
        ge=0,
        le=100,
        description="Maximum number of exam questions for a leaf; 0 = none are written. none = 8 for an embedded teacher, for "
        "an endpoint as many as the gain needs",
    )


class BudgetSettings(Section):
    teacher_calls: int | None = Field(
        None,
        ge=1,
        description="Maximum calls to teacher and judge in one run of refresh_leaves, and to the judge in one evaluation. "
        "none = unlimited",
    )
    teacher_tokens: int | None = Field(None, ge=1, description="Likewise, maximum tokens of prompts and replies together")
    teacher_money: float | None = Field(None, gt=0, description="Likewise, maximum money by the prices of teacher and judge")


class SensorSettings(Section):
    interval_seconds: int = Field(30, ge=1, description="Time between checks of the taxonomy and the leaves")
    attempts: int = Field(3, ge=1, le=20, description="Number of failures after which a leaf needs attention by a person")
    retry_seconds: int = Field(120, ge=1, description="Wait after a leaf's first failure; doubles with each further one")


class NotificationSettings(Section):
    webhook_env: str | None = Field(
        None, description="Environment variable that holds a Slack-compatible webhook URL. none = off"
    )


class PagesSettings(Section):
    """Where people reach the pages, and how they are known there (see `docs/pages.md`)."""

    url: str | None = Field(
        None,
        pattern=r"^https?://[^/?#\s]+(/[^?#\s]*)?$",
        description="Address that people type, if a proxy stands before the pages. none = http://127.0.0.1:PORT",
    )
    tokens_env: str | None = Field(
        None, description="Environment variable that holds NAME:TOKEN for each person who may log in. none = no login"
    )
    user_header: str | None = Field(
        None, description="Header in which a proxy on this machine names the person, e.g. X-Forwarded-User. none = no proxy"
    )


class Settings(Section):
    taxonomy: TaxonomySettings
    documents: DocumentSettings = DocumentSettings()
    teacher: TeacherSettings = EmbeddedTeacherSettings()
    judge: TeacherSettings | None = Field(
        None, description="A separate judge model. none = the teacher judges. An endpoint also grades answers in evaluations"
    )
    base_model: str = Field(
        PACKAGED,
        description="'packaged', the folder of a local model, a Hugging Face Hub id, or a folder's address such as "
        "s3://bucket/model@DIGEST, of which the digest may be left out",
    )
    publish: str | None = Field(
        None,
        pattern=r"^[a-z0-9+]+://\S+$",
        description="Address to which each champion is copied, e.g. s3://bucket/champions. none = champions stay in the home",
    )
    chat_template: str | None = Field(
        None,
        min_length=1,
        description="Chat template for a base model without one, or in place of its own: granite, chatml, or a Jinja file. "
        "none = the model's own",
    )
    system_message: Literal["merge", "drop", "refuse"] = Field(
        "merge",
        description="Where the base model's chat template takes no system message: merge = it begins the first question; "
        "drop = it is left out; refuse = rows with one are refused",
    )
    packing: bool = Field(
        True,
        description="Whether the base model computes several rows in one pass, if it was seen to keep them apart. off = never",
    )
    flows: FlowSettings = FlowSettings()
    rows_wanted: RowsWantedSettings = RowsWantedSettings()
    recipe: str | None = Field(
        None, description="Name of a shipped training recipe, or a recipe file. none = chosen by the base model's size and GPUs"
    )
    tracking: Literal["mlflow", "wandb", "tensorboard"] | None = Field(
        None, description="Tool to report each training step to, set up by its own environment variables. none = the UI only"
    )
    mixing: MixingSettings = MixingSettings()
    general: str | None = Field(None, description="Folder with questions.jsonl and replay.jsonl. none = data/general")
    gate: GateSettings = GateSettings()
    exam: ExamSettings = ExamSettings()
    measures: MeasuresSettings = MeasuresSettings()
    budgets: BudgetSettings = BudgetSettings()
    schedule: ScheduleSettings = ScheduleSettings()
    sensors: SensorSettings = SensorSettings()
    notifications: NotificationSettings = NotificationSettings()
    lab: str | None = Field(
        None,
        pattern=r"^[a-z][a-z0-9_]{0,29}$",
        description="Name of this lab if several share one Dagster instance; it stands before all assets, jobs, sensors, pools "
        "and partitions. Changing it starts a new history in the UI. none = the instance has one lab",
    )
    k8s: KubernetesSettings = KubernetesSettings()
    pages: PagesSettings = PagesSettings()
    seed: int = Field(17, ge=0, description="Random seed of all random choices")


def load_settings(path: Path) -> Settings:
    """Read and validate a settings file, and make its paths absolute: relative ones start at the file's folder.

    Raises:
        SettingsError: The file is missing, unreadable or not YAML, a key is unknown, missing or wrong, or the taxonomy is not
            the home's. An address written as in `home.json` is the home's, so a home may be moved together with its taxonomy.
            Earlier releases stored an absolute path there whatever the settings said; with a relative one in the settings and
            nothing left at the absolute one, both were moved.
    """
    settings = read_settings(path)
    marker, named = path.parent / "home.json", settings.taxonomy.path
    owner = read_json(marker).get("taxonomy", named) if marker.exists() else named
    moved = not is_remote(owner) and not Path(named).is_absolute() and Path(owner).is_absolute() and not Path(owner).exists()
    if owner != named and not moved and taxonomy_address(owner, path.parent) != taxonomy_address(named, path.parent):
        raise SettingsError(
            f"{another_taxonomy(path.parent, owner, named)}, or correct taxonomy.path in {path}; if it was moved, write the "
            f"new place into {marker}"
        )
    return _anchored(settings, path.parent)


def another_taxonomy(home: Path, owner: str, named: str) -> str:
    """Say that a home belongs to the taxonomy `owner`, and what to do with the one `named`."""
    return f"{home}: belongs to the taxonomy {owner}, not {named}; give the other one its own home with --home"


def read_settings(path: Path) -> Settings:
    """Read and validate a settings file as `load_settings` does, but for the home's taxonomy, and leave paths as written."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SettingsError(f"{path}: not found; run `lab-pipeline retune --taxonomy PATH_OR_URL` to create it") from None
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read ({error.strerror})") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: not UTF-8, or a date such as 2024-13-45
        raise SettingsError(f"{path}: not valid YAML: {error}") from None
    return _validated(values, str(path))


def overridden(settings: Settings, values: Mapping[str, Any], where: str, folder: Path) -> Settings:
    """Return a copy of the settings with some values replaced; keys of a section that are not given keep their values.

    Args:
        values: The new values, as in `{"seed": 3, "gate": {"confidence": 0.9}}`.
        where: Where the new values come from, for messages.
        folder: Where relative paths in them start.

    Raises:
        SettingsError: A value is wrong; the message begins with `where`.
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
    """Return a copy with absolute paths; relative ones start at `folder`. A model, flow or recipe that is no existing file or
    folder is taken for a name, and stays as it is."""

    def here(name: str) -> str:
        return str((folder / name).resolve()) if (folder / name).exists() else name

    def teacher(section: TeacherSettings) -> TeacherSettings:
        return section.model_copy(update={"model": here(section.model)}) if section.kind == "embedded" else section

    mixing, flows, measures = settings.mixing, settings.flows, settings.measures
    knowledge, skills = ([anchored(each, folder) for each in phase] for phase in (mixing.knowledge, mixing.skills))
    by_kind = {kind: here(name) for kind, name in flows.model_dump(exclude={"leaves"}, exclude_none=True).items()}
    by_leaf = {leaf.strip("/"): here(name) for leaf, name in flows.leaves.items()}
    return settings.model_copy(
        update={
            "taxonomy": settings.taxonomy.model_copy(update={"path": taxonomy_address(settings.taxonomy.path, folder)}),
            "teacher": teacher(settings.teacher),
            "judge": teacher(settings.judge) if settings.judge else None,
            "base_model": here(settings.base_model),
            "chat_template": here(settings.chat_template) if settings.chat_template else None,
            "flows": FlowSettings(**by_kind, leaves=by_leaf),
            "recipe": here(settings.recipe) if settings.recipe else None,
            "mixing": mixing.model_copy(update={"knowledge": knowledge, "skills": skills}),
            "general": str((folder / settings.general).resolve()) if settings.general else None,
            "measures": measures.model_copy(update={"folder": str(folder / measures.folder) if measures.folder else None}),
        }
    )


def anchored(dataset: DatasetSettings, folder: Path) -> DatasetSettings:
    """Return a copy of a data set's settings with an absolute path; a relative one starts at `folder`."""
    return dataset.model_copy(update={"path": str((folder / dataset.path).resolve())})


def taxonomy_address(taxonomy: str, folder: Path) -> str:
    """Return the URL of a remote taxonomy as it is, or the absolute path of a local one; a relative path starts at `folder`.

    Raises:
        GitError: The URL is not allowed (see `is_remote`).
    """
    return taxonomy if is_remote(taxonomy) else str((folder / taxonomy).resolve())


def initial_settings(taxonomy: str | Path, ref: str | None = None) -> str:
    """Return the text of a new home's settings file: the taxonomy, and all other keys as comments with their defaults."""
    lines = [
        "# Settings of this home. Every key below shows its default; remove the '#' to change it.",
        yaml.safe_dump({"taxonomy": {"path": str(taxonomy), "ref": ref}}, allow_unicode=True).rstrip(),
    ]
    defaults = Settings(taxonomy=TaxonomySettings(path=".")).model_dump()
    for name, field in Settings.model_fields.items():
        if name != "taxonomy":
            shown = yaml.safe_dump({name: defaults[name]}, allow_unicode=True, sort_keys=False)
            about = [f"# {field.description}"] if field.description else []
            lines += ["", *about, *(f"#{line}" for line in shown.splitlines())]
    return "\n".join(lines) + "\n"

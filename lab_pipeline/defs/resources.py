"""Give assets, sensors and schedules their resources: the home with its settings, and the retune lock."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import dagster as dg
from filelock import FileLock, Timeout
from pydantic import BaseModel, Field

from lab_pipeline.config.recipe import Recipe, Strategy
from lab_pipeline.config.settings import BudgetSettings, GateSettings, Settings, load_settings, overridden
from lab_pipeline.core.errors import LabError
from lab_pipeline.core.home import Home
from lab_pipeline.core.machine import as_lab_error
from lab_pipeline.core.progress import Say
from lab_pipeline.defs.private_dagster import DagsterExecutionInterruptedError
from lab_pipeline.training.choice import choose_recipe

_BOUNDS = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}


def _as_setting(section: type[BaseModel], name: str) -> Any:
    """Make a launchpad field that overrides the setting `name` of a section; it shows the setting's description and bounds."""
    setting = section.model_fields[name]
    bounds = ", ".join(f"{_BOUNDS[kind]} {limit}" for bound in setting.metadata for kind, limit in asdict(bound).items())
    return Field(None, description=f"{setting.description}{f'; {bounds}' if bounds else ''}. Left out: as in settings.yaml")


class ThisRun(dg.Config):
    """Settings that a person gives one run in the launchpad. They override `settings.yaml` and the recipe, unless None."""

    recipe: str | None = _as_setting(Settings, "recipe")
    strategy: Strategy | None = Field(
        default=None,
        description="phased: knowledge, then skills with a replay; stacked: one run over both. Left out: as in the recipe",
    )
    seed: int | None = _as_setting(Settings, "seed")
    teacher_calls: int | None = _as_setting(BudgetSettings, "teacher_calls")
    teacher_tokens: int | None = _as_setting(BudgetSettings, "teacher_tokens")
    teacher_money: float | None = _as_setting(BudgetSettings, "teacher_money")
    minimum_gain: float | None = _as_setting(GateSettings, "minimum_gain")
    unchanged_tolerance: float | None = _as_setting(GateSettings, "unchanged_tolerance")
    general_tolerance: float | None = _as_setting(GateSettings, "general_tolerance")
    leaf_tolerance: float | None = _as_setting(GateSettings, "leaf_tolerance")
    minimum_questions: int | None = _as_setting(GateSettings, "minimum_questions")
    allowed_regressions: list[str] | None = _as_setting(GateSettings, "allowed_regressions")
    retrain_noise: float | None = _as_setting(GateSettings, "retrain_noise")
    confidence: float | None = _as_setting(GateSettings, "confidence")

    def applied_to(self, settings: Settings, folder: Path) -> Settings:
        """Return the settings with this run's overrides, without `strategy`, which overrides the recipe (see `Lab.recipe`).

        Relative paths start at `folder`, as in `settings.yaml`.

        Raises:
            SettingsError: a value is out of its bounds.
        """
        given = {name: value for name, value in self if value is not None}
        values = {name: given[name] for name in given.keys() & {"recipe", "seed"}}
        values["gate"] = {name: given[name] for name in given.keys() & GateSettings.model_fields.keys()}
        values["budgets"] = {name: given[name] for name in given.keys() & BudgetSettings.model_fields.keys()}
        return overridden(settings, values, "launchpad, this_run", folder)


class Lab(dg.ConfigurableResource):
    """A home with its settings and recipe, as `this_run` overrides them; their files are read anew at each access."""

    root: str = Field(description="Folder of the home; set by the launcher")
    this_run: ThisRun = ThisRun()

    @property
    def home(self) -> Home:
        return Home.open(Path(self.root))

    @property
    def settings(self) -> Settings:
        file = self.home.settings_file
        return self.this_run.applied_to(load_settings(file), file.parent)

    @property
    def recipe(self) -> Recipe:
        recipe = choose_recipe(self.home, self.settings).recipe
        return recipe.model_copy(update={"strategy": self.this_run.strategy}) if self.this_run.strategy else recipe


def launchable_lab(root: Path) -> dg.ResourceDefinition:
    """Return the resource `lab` of the home at `root`, of which the launchpad offers `this_run`.

    Dagster maps a resource's config when it plans a run, before it records one. So a wrong value is refused there, and turns no
    asset red. The home's path is in no run's config: a run of a copied home can be launched again and works on the copy.
    """

    def lab_of(config: Mapping[str, Any]) -> Lab:
        return Lab(root=str(root), this_run=ThisRun(**config.get("this_run", {})))

    def checked(config: Mapping[str, Any]) -> Mapping[str, Any]:
        lab = lab_of(config)
        try:
            if lab.this_run != ThisRun():
                assert lab.settings
            if lab.this_run.recipe:
                assert lab.recipe
        except LabError as error:
            raise dg.DagsterInvariantViolationError(str(error)) from None  # Dagster shows its own errors without more words
        return config

    opened = dg.ResourceDefinition(lambda context: lab_of(context.resource_config), config_schema=dg.Permissive())
    offered = dg.Field(ThisRun.to_config_schema().as_field().config_type, is_required=False)
    return opened.configured(checked, {"this_run": offered}, description=Lab.__doc__)


class RetuneLock(dg.ConfigurableResource):
    """A lock on a home: only one run at a time mixes, trains, evaluates or promotes, and others wait.

    The lock is released when the run ends, even if its process is killed.
    """

    root: str
    held_by_run: bool = Field(False, description="Whether the executor holds the lock, so that no step takes it")

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Iterator["RetuneLock"]:
        assert context.log
        with nullcontext() if self.held_by_run else retune_lock(Path(self.root), context.log.info):
            yield self


@contextmanager
def retune_lock(root: Path, say: Say) -> Iterator[None]:
    """Hold the lock of the home at `root` (see `RetuneLock`); wait for it as long as it takes, and say so."""
    lock = FileLock(Home.open(root).root / "tail.lock")
    waiting_since: float | None = None
    while not lock.is_locked:
        try:
            lock.acquire(timeout=1)
        except Timeout:
            if waiting_since is None:
                waiting_since = time.monotonic()
                say("another run works on this home's data sets or model; waiting for it to end")
    if waiting_since is not None:
        say(f"waited {time.monotonic() - waiting_since:.0f} s for another run to end")
    try:
        yield
    finally:
        lock.release()


@contextmanager
def errors_as_failures() -> Iterator[None]:
    """Turn an error that a person can fix into a step failure, which is not retried and shows the message, not a traceback.

    An interruption stays one, though the tasks that it met put it into a group: Dagster would take the group for a failure of
    the step, and a run whose pod is evicted would not be tried again.
    """
    try:
        yield
    except BaseException as error:
        if isinstance(error, BaseExceptionGroup) and error.subgroup(DagsterExecutionInterruptedError):
            raise DagsterExecutionInterruptedError from error
        fixable = as_lab_error(error) if isinstance(error, Exception) else None
        if fixable is None:
            raise
        raise dg.Failure(description=str(fixable), allow_retries=False) from None

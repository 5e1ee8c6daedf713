"""Check what a run needs before it starts, and say how to fix what is missing."""

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import get_args

from lab_pipeline.config.deployment import deployment
from lab_pipeline.config.settings import Settings, load_settings
from lab_pipeline.config.teachers import EmbeddedTeacherSettings, EndpointTeacherSettings, TeacherSettings
from lab_pipeline.core.errors import LabError
from lab_pipeline.core.formats import did_you_mean
from lab_pipeline.core.git import is_remote
from lab_pipeline.core.home import Home
from lab_pipeline.core.storage import read_json
from lab_pipeline.datasets.custom import custom_rows
from lab_pipeline.datasets.general import load_general
from lab_pipeline.evaluation.tasks import require_tasks
from lab_pipeline.flows.choose import default_flow
from lab_pipeline.flows.flow import load_flow
from lab_pipeline.models.base_model import ModelError, base_identity, model_identity
from lab_pipeline.registry.fitness import check_fitness
from lab_pipeline.reports.lineage import with_branches
from lab_pipeline.reports.notifications import webhook_url
from lab_pipeline.taxonomy.find import find_leaves
from lab_pipeline.taxonomy.leaf import Kind
from lab_pipeline.taxonomy.snapshot import check_recipients, current_snapshot
from lab_pipeline.taxonomy.source import find_tip, reads_git
from lab_pipeline.teacher.dialect import endpoint_identity
from lab_pipeline.teacher.trial import try_embedded, try_endpoint
from lab_pipeline.training.choice import choose_recipe

_FREE_GIB = 5
_MEMORY_GIB = 6


@dataclass(frozen=True)
class HealthCheck:
    """One finding of `lab-pipeline doctor` or `preflight`; `message` says what was found, or what is wrong and the fix."""

    name: str
    passed: bool
    message: str


def examine(home: Path) -> Iterator[HealthCheck]:
    """Check the machine and a home, and if the home has settings, all that they name.

    Yield one finding for each thing checked. If the settings are wrong, this is a finding, and what they name is not checked.
    """
    yield from _machine()
    yield from _home(home)
    if not (home / "settings.yaml").exists():
        yield HealthCheck("settings", True, f"none yet; the first retune writes {home / 'settings.yaml'}")
        return
    try:
        settings = load_settings(home / "settings.yaml")
    except LabError as error:
        yield HealthCheck("settings", False, str(error))
        return
    yield HealthCheck("settings", True, str(home / "settings.yaml"))
    yield from examine_settings(Home(home), settings, ask=True)
    yield _tried("base model", lambda: _base_model(Home(home), settings))
    yield examine_model("teacher", settings.teacher, Home(home))
    if settings.judge:
        yield examine_model("judge", settings.judge, Home(home))


def examine_settings(home: Home, settings: Settings, ask: bool) -> Iterator[HealthCheck]:
    """Check all for which a retune would be refused, as far as that shows without loading a model.

    Args:
        ask: Whether the server of a remote taxonomy is asked for its tip.
    """
    yield _tried("deployment", deployment)
    if ask or not is_remote(settings.taxonomy.path):
        yield _tried("taxonomy", lambda: _taxonomy(home, settings))
    yield _tried("leaves in the settings", lambda: _named_leaves(home, settings))
    yield _tried("recipe", lambda: _recipe(home, settings))
    for kind in get_args(Kind):
        yield _flow(kind, default_flow(settings, kind), kind)
    for leaf, name in settings.flows.leaves.items():
        yield _flow(leaf, name)
    yield _tried("general questions", lambda: _general(settings))
    yield _tried("custom data sets", lambda: _custom(settings))
    yield _tried("measures", lambda: require_tasks(settings.measures))
    yield _tried("notifications", lambda: _notifications(settings))


def _tried(name: str, attempt: Callable[[], str]) -> HealthCheck:
    try:
        return HealthCheck(name, True, attempt())
    except LabError as error:
        return HealthCheck(name, False, str(error))


def _custom(settings: Settings) -> str:
    tables, wrong = custom_rows(settings.mixing.knowledge + settings.mixing.skills, settings.seed)
    first = f", the first: {wrong[0]['reason']}" if wrong else ""
    return f"{sum(map(len, tables))} rows, {len(wrong)} invalid ones left out{first}" if tables else "none"


def _machine() -> list[HealthCheck]:
    import psutil

    python = ".".join(map(str, sys.version_info[:3]))
    git = shutil.which("git")
    gib = psutil.virtual_memory().available / 2**30
    return [
        HealthCheck("Python", sys.version_info >= (3, 11), f"{python}; 3.11 or later is needed"),
        HealthCheck("git", git is not None, git or "not found; install git to read document repositories"),
        *map(_package, ("torch", "transformers", "peft", "bitsandbytes", "dagster")),
        HealthCheck("memory", gib >= _MEMORY_GIB, f"{gib:.1f} GiB free; the shipped recipe needs about {_MEMORY_GIB}"),
    ]


def _package(name: str) -> HealthCheck:
    try:
        return HealthCheck(name, True, version(name))
    except PackageNotFoundError:
        return HealthCheck(name, False, "not installed; run `make install`")


def _home(home: Path) -> list[HealthCheck]:
    existing = next(path for path in [home, *home.parents] if path.exists())
    writable, free = os.access(existing, os.W_OK), shutil.disk_usage(existing).free / 2**30
    return [
        HealthCheck("home", writable, str(home) if writable else f"{existing} cannot be written; set LAB_HOME or --home"),
        HealthCheck("disk", free >= _FREE_GIB, f"{free:.0f} GiB free below {existing}; at least {_FREE_GIB} are needed"),
    ]


def _taxonomy(home: Home, settings: Settings) -> str:
    source = settings.taxonomy
    marker = home.root / "home.json"
    owner = read_json(marker).get("taxonomy", source.path) if marker.exists() else source.path
    if owner != source.path:
        raise LabError(f"this home belongs to {owner}, but taxonomy.path is {source.path}; give the other its own home")
    if home.current_snapshot.exists():
        check_recipients(current_snapshot(home), settings)
    if reads_git(settings):
        tip = find_tip(home, settings)
        return f"{source.path}, {tip.branch} at {tip.id[:12]}"
    leaves = len(find_leaves(Path(source.path)))
    if not leaves:
        raise LabError(f"no leaf in {source.path}; check taxonomy.path")
    return f"{leaves} leaves in {source.path}"


def _named_leaves(home: Home, settings: Settings) -> str:
    """Check that the leaves and branches to which settings refer exist, as far as leaves are known."""
    leaves = {row["leaf"] for row in current_snapshot(home).rows} if home.current_snapshot.exists() else set()
    if not reads_git(settings):
        leaves |= set(find_leaves(Path(settings.taxonomy.path)))
    branches = with_branches(leaves)
    named = [
        *(("flows.leaves", key, branches) for key in settings.flows.leaves),
        *(("rows_wanted.leaves", key, branches) for key in settings.rows_wanted.leaves),
        *(("gate.allowed_regressions", key, leaves) for key in settings.gate.allowed_regressions),
    ]
    wrong = [
        f"settings.yaml: {setting}: no leaf {key}; {did_you_mean(key, known)}"
        for setting, key, known in named
        if key not in known
    ]
    if wrong and leaves:
        raise LabError("\n".join(wrong))
    return f"{len(named)} named"


def missing_keys(settings: Settings) -> list[str]:
    """Return the names of the environment variables that should hold the keys of teacher and judge, but are not set."""
    models = [each for each in (settings.teacher, settings.judge) if isinstance(each, EndpointTeacherSettings)]
    return [each.api_key_env for each in models if each.api_key_env and not os.environ.get(each.api_key_env, "").strip()]


def _base_model(home: Home, settings: Settings) -> str:
    return "; ".join([base_identity(settings), *check_fitness(home, settings)])


def _recipe(home: Home, settings: Settings) -> str:
    try:
        choice = choose_recipe(home, settings)
    except ModelError:
        return "chosen by the size of the base model, once that can be used"
    return f"{choice.name} ({choice.recipe.quantization}): {choice.why}"


def _flow(purpose: str, name: str, kind: Kind | None = None) -> HealthCheck:
    return _tried(f"flow for {purpose}", lambda: f"{name}, version {load_flow(name, kind).file.version}")


def _general(settings: Settings) -> str:
    sets = load_general(settings.general)
    return f"{len(sets.questions)} to measure, {len(sets.replay)} to replay"


def _notifications(settings: Settings) -> str:
    return "off" if webhook_url(settings) is None else f"to the webhook in {settings.notifications.webhook_env}"


def _embedded(settings: EmbeddedTeacherSettings, home: Home) -> str:
    identity = model_identity(settings.model)
    try_embedded(home, settings)
    return f"embedded, {identity}"


def examine_model(role: str, settings: TeacherSettings, home: Home) -> HealthCheck:
    """Check that an embedded model can be asked, or that an endpoint has its key, serves the model, and answers calls."""
    if not isinstance(settings, EndpointTeacherSettings):
        return _tried(role, lambda: _embedded(settings, home))
    import httpx

    key = os.environ.get(settings.api_key_env, "") if settings.api_key_env else ""
    if settings.api_key_env and not key:
        return HealthCheck(role, False, f"the environment variable {settings.api_key_env} is not set")
    try:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        response = httpx.get(f"{settings.url.rstrip('/')}/models", headers=headers, timeout=10)
        served = [model["id"] for model in response.raise_for_status().json()["data"]]
    except (httpx.HTTPError, KeyError, TypeError, ValueError) as error:
        return HealthCheck(role, False, f"{settings.url} does not answer as an OpenAI-compatible server: {error}")
    if settings.model not in served:
        return HealthCheck(role, False, f"{settings.url} serves {', '.join(served)}; the settings name {settings.model}")
    return _tried(role, lambda: f"{settings.model} {try_endpoint(settings, home.dialect(endpoint_identity(settings)))}")

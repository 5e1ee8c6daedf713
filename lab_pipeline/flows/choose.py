"""Choose the flow of each leaf, as the settings say."""

from collections.abc import Callable
from functools import cache
from typing import Any

from lab_pipeline.config.settings import Settings
from lab_pipeline.config.teachers import EmbeddedTeacherSettings
from lab_pipeline.core.home import Home
from lab_pipeline.core.storage import digest
from lab_pipeline.flows.flow import Flow, load_flow
from lab_pipeline.models.base_model import model_identity, tokenizer_folder
from lab_pipeline.taxonomy.documents.passages import PassageBudget, PassageBudgets, estimated_tokens
from lab_pipeline.taxonomy.leaf import Kind


def default_flow(settings: Settings, kind: Kind) -> str:
    """Return the name of the flow for one kind of leaf: as the settings say, else `simple_KIND` for an embedded teacher, which
    is small, and `KIND` for any other."""
    return getattr(settings.flows, kind) or (f"simple_{kind}" if settings.teacher.kind == "embedded" else kind)


def flows_of_leaves(settings: Settings, kinds: dict[str, Kind]) -> dict[str, Flow]:
    """Load the flow of each leaf in `kinds`, which maps leaves' keys to their kinds; return the flows by the same keys.

    A key of `flows.leaves` matches its own leaf and, if it is a branch, all leaves below. Of the matching keys whose flow
    serves the leaf's kind, the longest wins. A leaf without such a key gets the flow that `default_flow` names.

    Raises:
        FlowError: a flow named in the settings cannot be loaded, or serves another kind than the leaf that it is named for.
    """
    load = cache(load_flow)
    branches = sorted(settings.flows.leaves, key=len, reverse=True)
    chosen = {}
    for leaf, kind in kinds.items():
        above = [branch for branch in branches if f"{leaf}/".startswith(f"{branch}/")]
        named = [load(settings.flows.leaves[branch], kind if branch == leaf else None) for branch in above]
        fitting = [flow for flow in named if flow.kind == kind]
        chosen[leaf] = fitting[0] if fitting else load(default_flow(settings, kind), kind)
    return chosen


def token_counter(home: Home, settings: Settings) -> Callable[[str], int]:
    """Return what counts the tokens of a text for the teacher: the tokenizer of an embedded one, which is fetched when it is
    first needed; for a teacher behind an endpoint, an estimate."""
    if not isinstance(settings.teacher, EmbeddedTeacherSettings):
        return estimated_tokens
    name = settings.teacher.model

    @cache
    def tokenizer() -> Any:
        from tokenizers import Tokenizer

        return Tokenizer.from_file(str(tokenizer_folder(home, name) / "tokenizer.json"))

    return lambda text: len(tokenizer().encode(text, add_special_tokens=False))


def passage_budgets(home: Home, settings: Settings) -> PassageBudgets:
    """Return how long the passages of each knowledge leaf may be: the `passage_tokens` of its flow, by `token_counter`.

    Raises:
        FlowError: A flow named in the settings cannot be loaded.
        ModelError: The embedded teacher is not installed, or its folder lacks a file.
    """
    counter = model_identity(settings.teacher.model) if isinstance(settings.teacher, EmbeddedTeacherSettings) else "estimated"
    flows = {name: load_flow(name) for name in {default_flow(settings, "knowledge"), *settings.flows.leaves.values()}}
    count = token_counter(home, settings)

    def budget(leaf: str) -> PassageBudget:
        return PassageBudget(flows_of_leaves(settings, {leaf: "knowledge"})[leaf].file.start.passage_tokens, count)

    return PassageBudgets(budget, digest([counter, {name: flow.file.start.passage_tokens for name, flow in flows.items()}]))

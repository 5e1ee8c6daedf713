"""Choose the flow of each leaf, as the settings say."""

from functools import cache

from lab_pipeline.config.settings import Settings
from lab_pipeline.flows.flow import Flow, load_flow
from lab_pipeline.taxonomy.leaf import Kind


def default_flow(settings: Settings, kind: Kind) -> str:
    """Name the taxonomy's flow for one kind of leaf: as the settings say, else the one that suits the teacher's strength."""
    return getattr(settings.flows, kind) or (f"simple_{kind}" if settings.teacher.kind == "embedded" else kind)


def flows_of_leaves(settings: Settings, kinds: dict[str, Kind]) -> dict[str, Flow]:
    """Choose the flow of each leaf in `kinds`, by key.

    The longest key of `flows.leaves` decides that is the leaf or a branch above it, and whose flow serves this kind of leaf;
    without one, the taxonomy's flow for the kind.

    Raises:
        FlowError: a flow named in the settings cannot be used, or is set for a leaf of another kind.
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

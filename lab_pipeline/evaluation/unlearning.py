"""Show whether a model forgot what was withdrawn: ask the questions of leaves that the champion was trained on and it was not.

A retrained model should know no more of such a leaf than the base model. Its loss may still be lower, because other leaves
teach the style of answers, and because a retrain shifts each leaf by chance. So the test is that of a gain on one leaf, by the
policy's `retrain_noise` (see `lab_pipeline.evaluation.gate`): only if the candidate is surely better than the base model, it
still knows something.
"""

from collections.abc import Mapping
from itertools import islice
from statistics import fmean

from lab_pipeline.config.settings import GateSettings
from lab_pipeline.core.errors import NotMaterialized
from lab_pipeline.core.evaluation import Unlearned
from lab_pipeline.core.home import Home
from lab_pipeline.core.progress import Say
from lab_pipeline.core.rows import HeldoutQuestion
from lab_pipeline.core.storage import digest, read_json
from lab_pipeline.datasets.catalog import Catalog
from lab_pipeline.datasets.exam import leaf_exam
from lab_pipeline.evaluation.gain import measure_gain
from lab_pipeline.evaluation.measured_model import MeasuredModel, stored_losses
from lab_pipeline.registry.champion import Champion
from lab_pipeline.taxonomy.snapshot import load_snapshot


def gone_questions(home: Home, champion: Champion | None, catalog: Catalog) -> dict[str, list[HeldoutQuestion]]:
    """Return the test questions of each leaf that the champion was trained on and that is in use no more.

    Those of people are of the snapshot that the champion was made from. A leaf without any question is left out.
    """
    gone = champion.catalog.keys() - catalog.contents.keys() if champion else ()
    if not champion or not gone:
        return {}
    lineage = champion.model / "lineage.json"
    try:
        rows = load_snapshot(home, read_json(lineage)["snapshot"]).rows if lineage.exists() else []
    except NotMaterialized:
        rows = []
    questions: dict[str, list[HeldoutQuestion]] = {
        row["leaf"]: [{"id": digest([each["question"], each["context"]]), **each} for each in row["heldout_questions"]]
        for row in rows
        if row["leaf"] in gone
    }
    for leaf in gone:
        exam = leaf_exam(home, leaf)
        questions[leaf] = questions.get(leaf, []) + (exam["questions"] if exam else [])
    return {leaf: asked for leaf, asked in sorted(questions.items()) if asked}


def measure_unlearning(
    home: Home,
    questions: Mapping[str, list[HeldoutQuestion]],
    models: Mapping[str, MeasuredModel],
    policy: GateSettings,
    say: Say,
) -> list[Unlearned]:
    """Compare base model, champion and candidate on the questions of leaves that are gone; losses are stored by model."""

    def losses(role: str, model: MeasuredModel) -> dict[str, list[float]]:
        found = iter(stored_losses(home, role, model, [each for asked in questions.values() for each in asked], say))
        return {leaf: list(islice(found, len(asked))) for leaf, asked in questions.items()}

    scores = {role: losses(role, model) for role, model in models.items()}
    found: list[Unlearned] = []
    for leaf, asked in questions.items():
        base, champion, candidate = (fmean(scores[role][leaf]) for role in ("base", "champion", "candidate"))
        pairs = list(zip(scores["candidate"][leaf], scores["base"][leaf], strict=True))
        gain = measure_gain({leaf: pairs}, {}, policy)
        learned = base - champion
        found.append(
            {
                "leaf": leaf,
                "questions": len(asked),
                "base": base,
                "champion": champion,
                "candidate": candidate,
                "interval": list(gain.interval) if gain else None,
                "still_known": (base - candidate) / learned if gain and gain.bound < 0 and learned > 0 else 0.0,
            }
        )
    return found

"""Build, store and load the held-out questions, with which models are tested."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import cast

from lab_pipeline.core.errors import NotMaterialized
from lab_pipeline.core.home import Home
from lab_pipeline.core.rows import AcceptanceQuestion, GeneralQuestion, HeldoutQuestion, HeldoutSet, as_prompt
from lab_pipeline.core.storage import digest, read_json, write_json
from lab_pipeline.datasets.catalog import Catalog
from lab_pipeline.taxonomy.snapshot import Snapshot


def build_heldout(
    catalog: Catalog,
    snapshot: Snapshot,
    general: list[GeneralQuestion],
    withheld: list[str],
    exam: Mapping[str, list[HeldoutQuestion]] = MappingProxyType({}),
) -> HeldoutSet:
    """Collect the held-out questions of each leaf in use, the general questions and the withheld prompts, with a hash of all.

    Acceptance questions are those of the leaves in use and those for every model: nobody is asked what a withdrawn leaf taught.

    Args:
        snapshot: the snapshot from which the catalog was built.
        withheld: prompts of all questions that were ever held out (`holdout.withheld_questions`). Never train on these, even
            after the seed is deleted or the leaf withdrawn: a question that comes back is held out again.
        exam: questions that the teacher wrote to test models, by leaf (`lab_pipeline.datasets.exam`).
    """
    questions = {row["leaf"]: row["heldout_questions"] for row in snapshot.rows}
    leaves: dict[str, list[HeldoutQuestion]] = {
        entry["leaf"]: [
            {"id": digest([question["question"], question["context"]]), **question} for question in questions[entry["leaf"]]
        ]
        for entry in catalog.in_use
    }
    acceptance = [cast(AcceptanceQuestion, each) for each in snapshot.exam if each["leaf"] in ("", *leaves)]
    contents = {"leaves": leaves, "general": general, "withheld": withheld}
    contents |= {"acceptance": acceptance} if acceptance else {}
    contents |= {"exam": dict(exam)} if exam else {}
    return cast(HeldoutSet, {**contents, "digest": digest(contents)})


def store_heldout(home: Home, heldout: HeldoutSet) -> None:
    """Store held-out questions as the current ones, in place of those before."""
    write_json(home.datasets / "heldout.json", heldout)


def load_heldout(home: Home) -> HeldoutSet:
    """Load the current held-out questions.

    Raises:
        NotMaterialized: heldout_questions was not materialized yet, or only by a release that recorded no withheld prompts.
    """
    path = home.datasets / "heldout.json"
    heldout: HeldoutSet | None = read_json(path) if path.exists() else None
    if heldout is None or "withheld" not in heldout:
        raise NotMaterialized("no held-out questions yet; materialize heldout_questions first")
    return heldout


def heldout_prompts(heldout: HeldoutSet) -> list[str]:
    """Return, each once, the prompts that no training row may repeat: the leaves' held-out questions with their contexts, the
    general questions, and the withheld prompts."""
    prompts = [
        as_prompt(question["question"], question["context"])[0]["content"]
        for questions in (*heldout["leaves"].values(), *heldout.get("exam", {}).values())
        for question in questions
    ]
    prompts += [question["question"] for question in heldout["general"]]
    prompts += [as_prompt(each["question"], each["context"])[0]["content"] for each in heldout.get("acceptance", [])]
    return list(dict.fromkeys([*prompts, *heldout["withheld"]]))

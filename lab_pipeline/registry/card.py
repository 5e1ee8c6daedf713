"""Make the text of a model card, the `README.md` that the Hugging Face hub expects, from a model's lineage."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import jinja2

from lab_pipeline.core.formats import cell, number, took
from lab_pipeline.core.verdict import right_answers, what_is_left
from lab_pipeline.registry.lineage import Lineage
from lab_pipeline.taxonomy.attribution import is_non_commercial
from lab_pipeline.taxonomy.withdrawals import Withdrawal

_TAGS = ["lab", "qlora", "synthetic-data", "instructlab-taxonomy"]


def model_card(lineage: Lineage, withdrawn: Mapping[str, Withdrawal]) -> str:
    """Return the card's text: YAML front matter for the hub, then Markdown.

    Args:
        withdrawn: all leaves that are withdrawn now; the card warns of those that the model was trained on.
    """
    from huggingface_hub import ModelCardData

    data = ModelCardData(
        base_model=lineage["base_model_id"],
        license=lineage["base_licence"],
        license_name="unknown" if lineage["base_licence"] == "other" else None,
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=_TAGS,
    )
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(cell=cell, number=number, took=took)
    template = environment.from_string((Path(__file__).parent / "model_card.md.jinja").read_text(encoding="utf-8"))
    non_commercial = sorted(
        {work["licence"] for leaf in lineage["leaves"] for work in leaf["works"] if is_non_commercial(work.get("licence", ""))}
    )
    affected = {leaf["leaf"]: withdrawn[leaf["leaf"]] for leaf in lineage["leaves"] if leaf["leaf"] in withdrawn}
    text = template.render(
        front_matter=data.to_yaml(),
        withdrawn=affected,
        non_commercial=non_commercial,
        right=right_answers(lineage),
        what_is_left=what_is_left,
        right_of=lambda leaf: right_answers(lineage, leaf),
        **lineage,
    )
    return f"{text}\n"

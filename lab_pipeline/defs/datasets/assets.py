from collections import Counter

import dagster as dg

from lab_pipeline.core.rows import CATALOG_SCHEMA, TRAINING_SCHEMA
from lab_pipeline.core.storage import digest
from lab_pipeline.datasets.catalog import build_catalog, current_catalog, store_catalog
from lab_pipeline.datasets.dataset import Dataset, load_dataset
from lab_pipeline.datasets.exam import exam_questions as stored_exam
from lab_pipeline.datasets.exam import leaf_exam, plan_exam, wanted_questions, write_exams
from lab_pipeline.datasets.general import load_general
from lab_pipeline.datasets.heldout_questions import build_heldout, load_heldout, store_heldout
from lab_pipeline.datasets.mix import mix_knowledge, mix_skills
from lab_pipeline.defs.code_location import PREFIX, asset_key, named
from lab_pipeline.defs.column_lineage import COLUMN_LINEAGE
from lab_pipeline.defs.kubernetes import lost_pod_retries, pod_tags
from lab_pipeline.defs.metadata import column_schema, counts, preview
from lab_pipeline.defs.resources import Lab, RetuneLock, errors_as_failures
from lab_pipeline.defs.taxonomy.assets import taxonomy_snapshot
from lab_pipeline.instructions.plan import plan_leaves
from lab_pipeline.pages.links import link
from lab_pipeline.taxonomy.holdout import withheld_questions
from lab_pipeline.taxonomy.reviews import reviews_in_force
from lab_pipeline.taxonomy.snapshot import check_recipients, current_snapshot, load_snapshot
from lab_pipeline.teacher.choose import load_teachers, teacher_identities


@dg.asset(
    key_prefix=PREFIX,
    group_name="datasets",
    kinds={"parquet"},
    owners=["team:lab"],
    deps=[taxonomy_snapshot, dg.AssetDep(asset_key("curated_instructions"), partition_mapping=dg.AllPartitionMapping())],
)
def instruction_catalog(lab: Lab, retune_lock: RetuneLock) -> dg.MaterializeResult:
    """List which rows of each leaf go into the next model: its current rows or, if it is stale or broken, its last good rows.

    The data sets depend on this list instead of every leaf, so the graph stays small however many leaves there are.
    """
    with errors_as_failures():
        home, settings = lab.home, lab.settings
        snapshot = current_snapshot(home)
        plans = plan_leaves(home, snapshot, settings, *teacher_identities(settings))
        catalog = build_catalog(home, snapshot, plans, settings.mixing.generated)
        store_catalog(home, catalog)
    return dg.MaterializeResult(
        data_version=dg.DataVersion(digest(catalog.contents)),
        metadata={
            "dagster/row_count": len(catalog.leaves),
            "dagster/column_schema": column_schema(CATALOG_SCHEMA),
            "dagster/column_lineage": COLUMN_LINEAGE["instruction_catalog"],
            "leaves_in_use": len(catalog.in_use),
            "leaves_behind": len(catalog.stale),
            "rows_kept": sum(entry["rows"] for entry in catalog.leaves),
            "rows_by_leaf": counts({entry["leaf"]: entry["rows"] for entry in catalog.leaves}, "leaf"),
            "preview": preview(catalog.leaves, ["leaf", "kind", "state", "rows", "note"]),
            "page": dg.MetadataValue.url(link(home, settings, "rows", status="kept")),
        },
    )


@dg.asset(
    key_prefix=PREFIX,
    group_name="datasets",
    kinds={"llm", "json"},
    owners=["team:lab"],
    deps=[instruction_catalog],
    pool=named("teacher"),
    op_tags=pod_tags("generation"),
    retry_policy=lost_pod_retries("generation"),
)
def exam_questions(context: dg.AssetExecutionContext, lab: Lab, retune_lock: RetuneLock) -> dg.MaterializeResult:
    """Let the teacher write questions about each knowledge leaf's documents, to test models; none is ever trained on.

    Only leaves whose documents, flow or teacher changed cost calls. If a leaf's calls fail, it is tested by people's questions
    alone until the next run.
    """
    with errors_as_failures():
        home, settings = lab.home, lab.settings
        catalog = current_catalog(home)
        snapshot = load_snapshot(home, catalog.snapshot)
        check_recipients(snapshot, settings)
        reviews = reviews_in_force(home, snapshot.reviews)
        plans = plan_exam(home, catalog.in_use, settings, teacher_identities(settings), reviews)
        failed = write_exams(home, plans, settings, load_teachers(home, settings), context.log.info) if plans else {}
    for leaf, why in failed.items():
        context.log.warning(f"{leaf}: no exam questions: {why}")
    stored = {plan.leaf["leaf"]: leaf_exam(home, plan.leaf["leaf"]) for plan in plans}
    exams = {leaf: exam for leaf, exam in stored.items() if exam and leaf not in failed}
    funnel = sum((Counter(exam["funnel"]) for exam in exams.values()), Counter[str]())
    questions = [{"leaf": leaf, **question} for leaf, exam in exams.items() for question in exam["questions"]]
    return dg.MaterializeResult(
        data_version=dg.DataVersion(digest([exam["made_from"] for exam in exams.values()])),
        metadata={
            "dagster/row_count": len(questions),
            "wanted_for_a_leaf": wanted_questions(settings),
            "leaves_failed": len(failed),
            "questions_by_leaf": counts({leaf: len(exam["questions"]) for leaf, exam in exams.items()}, "leaf"),
            "funnel": counts(funnel, "stage"),
            "preview": preview(questions, ["leaf", "question", "answer"]),
            "page": dg.MetadataValue.url(link(home, settings, "leaves")),
        },
    )


@dg.asset(
    key_prefix=PREFIX,
    group_name="datasets",
    kinds={"json"},
    owners=["team:lab"],
    deps=[taxonomy_snapshot, instruction_catalog, exam_questions],
)
def heldout_questions(lab: Lab, retune_lock: RetuneLock) -> dg.MaterializeResult:
    """Collect the test questions: each leaf's held-out seeds, general questions that reveal forgetting, acceptance questions.

    No prompt shows them to the teacher.
    """
    with errors_as_failures():
        home, settings = lab.home, lab.settings
        general = load_general(settings.general)
        catalog = current_catalog(home)
        snapshot = load_snapshot(home, catalog.snapshot)
        heldout = build_heldout(
            catalog, snapshot, general.questions, withheld_questions(home), stored_exam(home, catalog.in_use)
        )
        store_heldout(home, heldout)
    by_leaf = {leaf: len(questions) for leaf, questions in heldout["leaves"].items()}
    questions = [{"leaf": leaf, **question} for leaf, asked in heldout["leaves"].items() for question in asked]
    return dg.MaterializeResult(
        data_version=dg.DataVersion(heldout["digest"]),
        metadata={
            "dagster/row_count": len(questions),
            "general_questions": len(heldout["general"]),
            "exam_questions": sum(map(len, heldout.get("exam", {}).values())),
            "acceptance_questions": len(heldout.get("acceptance", [])),
            "questions_by_leaf": counts(by_leaf, "leaf"),
            "leaves_not_measurable": sum(not number for number in by_leaf.values()),
            "preview": preview(questions, ["leaf", "question", "answer"]),
            "ledger": dg.MetadataValue.path(home.heldout_ledger),
            "page": dg.MetadataValue.url(link(home, settings, "leaves")),
        },
    )


@dg.asset(
    key_prefix=PREFIX,
    group_name="datasets",
    kinds={"parquet"},
    owners=["team:lab"],
    deps=[instruction_catalog, heldout_questions],
)
def knowledge_dataset(lab: Lab, retune_lock: RetuneLock) -> dg.MaterializeResult:
    """Mix phase 1's data: rows of the knowledge leaves and text of the documents, with general rows against forgetting."""
    with errors_as_failures():
        home, settings = lab.home, lab.settings
        general = load_general(settings.general)
        dataset = mix_knowledge(home, current_catalog(home), load_heldout(home), general.replay, lab.recipe, settings)
    return _described(lab, dataset)


@dg.asset(
    key_prefix=PREFIX,
    group_name="datasets",
    kinds={"parquet"},
    owners=["team:lab"],
    deps=[instruction_catalog, heldout_questions, knowledge_dataset],
)
def skills_dataset(lab: Lab, retune_lock: RetuneLock) -> dg.MaterializeResult:
    """Mix phase 2's data: rows of the skill leaves, with a replay of phase 1 and general rows against forgetting.

    Some of phase 1's questions are asked again over several documents (RAFT).
    """
    with errors_as_failures():
        home, settings = lab.home, lab.settings
        catalog, heldout, general = current_catalog(home), load_heldout(home), load_general(settings.general)
        knowledge = load_dataset(home, "knowledge")
        dataset = mix_skills(home, catalog, heldout, general.replay, lab.recipe, settings, knowledge)
    return _described(lab, dataset)


def _described(lab: Lab, dataset: Dataset) -> dg.MaterializeResult:
    rows = [
        {**row, "question": row["messages"][-2]["content"], "answer": row["messages"][-1]["content"]} for row in dataset.head()
    ]
    return dg.MaterializeResult(
        data_version=dg.DataVersion(dataset.digest),
        metadata={
            "dagster/row_count": dataset.rows + sum(dataset.validation.values()),
            "training_rows": dataset.rows,
            "validation_rows": sum(dataset.validation.values()),
            "dagster/column_schema": column_schema(TRAINING_SCHEMA),
            "dagster/column_lineage": COLUMN_LINEAGE[f"{dataset.phase}_dataset"],
            "rows_by_source": counts(dataset.by_source, "source"),
            "rows_by_leaf": counts(dataset.by_leaf, "leaf"),
            "validation_rows_by_leaf": counts(dataset.validation, "leaf"),
            "excluded_rows": sum(dataset.excluded.values()),
            "excluded": counts(dataset.excluded, "rule"),
            "preview": preview(rows, ["source", "leaf", "part", "question", "answer"]),
            "path": dg.MetadataValue.path(dataset.path),
            "page": dg.MetadataValue.url(link(lab.home, lab.settings, "rows", stage=f"{dataset.phase} data set")),
        },
    )

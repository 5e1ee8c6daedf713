"""Preview what changed leaves would teach, as Markdown for the reviewer of a pull request.

All texts of contributors and teachers stand in code spans or fenced blocks, in which Markdown, HTML and @mentions do nothing.
"""

import asyncio
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar, cast

from lab_pipeline.config.settings import Settings, TaxonomySettings
from lab_pipeline.core.errors import LabError
from lab_pipeline.core.formats import printable
from lab_pipeline.core.home import Home
from lab_pipeline.core.rows import CuratedRow, FrozenLeaf, SnapshotRow
from lab_pipeline.core.storage import read_json
from lab_pipeline.curation.curate import Curation
from lab_pipeline.curation.profile import profile
from lab_pipeline.flows.choose import flows_of_leaves
from lab_pipeline.flows.flow import Flow
from lab_pipeline.instructions.generate import continue_drafts, first_drafts, judge
from lab_pipeline.instructions.rehearsal import Rehearser, rehearse, spread
from lab_pipeline.taxonomy.changes import Changes
from lab_pipeline.taxonomy.documents.passages import estimated_tokens
from lab_pipeline.taxonomy.leaf import Kind, Problem
from lab_pipeline.taxonomy.snapshot import take_snapshot
from lab_pipeline.teacher.choose import load_teachers
from lab_pipeline.teacher.protocol import Teacher

T = TypeVar("T")

Models = tuple[Teacher, Teacher]
"""The teacher and the judge."""


def preview_text(taxonomy: Path, changes: Changes, settings: Settings, sample: int) -> str:
    """Describe the changed leaves of a taxonomy in Markdown: problems, content, calls to the teacher, and a sample of rows.

    The taxonomy is read into a temporary home, so that no other home changes.

    Args:
        settings: Those of a home, whose taxonomy does not count; they name flows, teacher and judge.
        sample: Maximum number of rows per leaf to generate and judge; 0 loads no model.

    Raises:
        LabError: The taxonomy cannot be read, or the settings name a flow or model that cannot be used.
    """
    changed = [*changes.added, *changes.modified]
    lines = [
        "# Preview of the taxonomy's changes",
        "",
        f"{len(changes.added)} added, {len(changes.modified)} modified and {len(changes.removed)} removed leaves "
        f"since {changes.base[:12]}.",
    ]
    if changed:
        with TemporaryDirectory() as folder:
            home = Home.open(Path(folder))
            settings = settings.model_copy(update={"taxonomy": TaxonomySettings(path=str(taxonomy))})
            rows = {row["leaf"]: row for row in take_snapshot(home, settings).rows if row["leaf"] in changed}
            flows = flows_of_leaves(settings, {key: cast("Kind", row["kind"]) for key, row in rows.items() if row["usable"]})
            sources = {key: _source(home, rows[key]) for key in flows}
            samples = {}
            if sample and flows:
                samples = asyncio.run(_samples(sources, flows, load_teachers(home, settings), settings.seed, sample))
            for key in changed:
                lines += ["", f"## {code(key)} ({'added' if key in changes.added else 'modified'})", ""]
                lines += _problem_lines(rows[key]) if key in rows else ["- outside of this sparse checkout, so it was not read"]
                if key in flows:
                    lines += _content_lines(rows[key], sources[key], flows[key], settings.seed)
                elif key in rows:
                    lines.append("- quarantined: it teaches nothing until the errors are mended")
                lines += samples.get(key, [])
    for key in changes.removed:
        lines += ["", f"## {code(key)} (removed)", "", "- no longer taught by later models"]
    return "\n".join(lines)


def code(text: str) -> str:
    """Put a text on one line into a code span, whose fence is longer than any run of backticks in the text."""
    text = printable(" ".join(text.split())) or "(blank)"
    fence = "`" * (_longest_backticks(text) + 1)
    return f"{fence} {text} {fence}"


def block(*texts: str) -> str:
    """Put texts, with a blank line between them, into a fenced block that none of them can end."""
    text = printable("\n\n".join("\n".join(each.splitlines()) for each in texts))
    fence = "`" * max(3, _longest_backticks(text) + 1)
    return f"{fence}text\n{text}\n{fence}"


def _longest_backticks(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)


def _problem_lines(row: SnapshotRow) -> Iterator[str]:
    for problem in row["problems"]:
        yield f"- {problem['severity']}: {code(str(Problem(**problem)))}"


def _content_lines(row: SnapshotRow, source: FrozenLeaf, flow: Flow, seed: int) -> Iterator[str]:
    """Yield what a usable leaf holds, and the number of calls that it leads to."""
    yield f"- kind: {flow.kind.replace('_', ' ')}"
    yield f"- seeds: {row['seeds']}, of which {row['held_out']} are held out for the test"
    for document in dict.fromkeys(passage["document"] for passage in source["passages"]):
        passages = [passage for passage in source["passages"] if passage["document"] == document]
        words = sum(len(passage["text"].split()) for passage in passages)
        first = passages[0]["heading"]
        heading = f"; the first stands under {code(first)}" if first else ""
        yield f"- document {code(document)}: {len(passages)} passages of {words} words together{heading}"
    written, judged = rehearse(source, flow, seed, Rehearser("teacher", "judge", estimated_tokens))
    tokens = f"{written.prompt_tokens + judged.prompt_tokens:,} prompt and {written.completion_tokens:,} completion tokens"
    calls = f"{written.calls} to generate rows, {judged.calls} to judge them"
    yield f"- expected calls by flow {code(flow.name)}: about {calls}; {tokens}"


def _source(home: Home, row: SnapshotRow) -> FrozenLeaf:
    assert row["fingerprint"]
    return cast("FrozenLeaf", read_json(home.leaf_source(row["fingerprint"])))


async def _samples(
    sources: Mapping[str, FrozenLeaf], flows: Mapping[str, Flow], models: Models, seed: int, count: int
) -> dict[str, list[str]]:
    """Return the lines of each leaf's sample, by its key; all leaves are asked about at once."""
    lines = await asyncio.gather(*(_sample_lines(sources[key], flow, models, seed, count) for key, flow in flows.items()))
    return dict(zip(flows, lines, strict=True))


async def _sample_lines(source: FrozenLeaf, flow: Flow, models: Models, seed: int, count: int) -> list[str]:
    """Show rows of a leaf with their verdicts; or say why there are none, so that the other leaves are still shown."""
    lines = ["", "A sample, which later runs need not repeat. Its judges were not calibrated:"]
    try:
        rows = await _sampled_rows(source, flow, models, seed, count)
    except LabError as error:
        return [*lines, "", f"no rows: {code(str(error))}"]
    for row, verdict in rows:
        context = [f"CONTEXT: {row['context']}"] if row["context"] else []
        lines += ["", block(*context, f"QUESTION: {row['question'] or ''}", f"ANSWER: {row['answer'] or ''}"), "", verdict]
    return lines if rows else [*lines, "", "no rows: nothing in the leaf is long enough to start from"]


async def _sampled_rows(source: FrozenLeaf, flow: Flow, models: Models, seed: int, count: int) -> list[tuple[CuratedRow, str]]:
    """Generate rows from at most `count` drafts, spread evenly over the leaf; judge and curate at most `count` of these.

    Return each with its verdict in words.
    """
    teacher, judge_model = models
    drafts = spread(first_drafts(source, flow, seed), count)
    generated = spread(await continue_drafts(drafts, flow, teacher, judge_model, seed, taxonomy_commit=""), count)
    judged = await judge(generated, source, flow, judge_model)
    kept, rejected = Curation(profile(source), flow).split(judged)
    verdicts: list[tuple[CuratedRow, str]] = [(row, "kept") for row in kept]
    verdicts += [(row, f"rejected by {code(row['rule'])}: {code(row['reason'])}") for row in rejected]
    place = {row["id"]: number for number, row in enumerate(judged)}
    return sorted(verdicts, key=lambda verdict: place[verdict[0]["id"]])

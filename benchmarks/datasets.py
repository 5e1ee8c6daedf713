"""What does mixing and checking cost at a million rows, and the search for near-duplicates at 200,000?

Synthetic curated rows over 1,000 leaves, half of them knowledge, a quarter each grounded and freeform skills: words drawn by
Zipf's law from 20,000, a fifth of them from the leaf's own 200. One row in a hundred repeats a row of another leaf with a word
added to question and answer, one in a thousand asks a question of the test. Each part runs in a process of its own:

- `mix_1m_s`, `mix_1m_mib`: both phases' data sets mixed and stored, their suites and the curated rows' validated, every row
  compared with the test once more; wall time and largest resident size. `seconds` has its parts.
- `pandas_1m_s`, `pandas_1m_mib`: the plain pandas way: read, join, drop rows of equal question and of the test's questions
  verbatim, shuffle, write, validate the same suites one expectation at a time.
- `near_duplicates_200k_s`: near-duplicates of 200,000 rows, with how many of the planted ones were `found`;
  `pandas_near_duplicates_200k_s`: all pairs compared in pandas, extrapolated from 1,000 rows.

    python -P benchmarks/datasets.py [ROWS]
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lab_pipeline.config.recipe import load_recipe
from lab_pipeline.config.settings import Settings, TaxonomySettings
from lab_pipeline.core.home import Home
from lab_pipeline.core.rows import CURATED_SCHEMA, SNAPSHOT_SCHEMA, HeldoutSet
from lab_pipeline.core.storage import read_json, write_json, write_rows
from lab_pipeline.datasets.catalog import Catalog, curated_table
from lab_pipeline.datasets.general import load_general
from lab_pipeline.datasets.heldout_questions import build_heldout, heldout_prompts
from lab_pipeline.datasets.mix import mix_knowledge, mix_skills
from lab_pipeline.datasets.quality import CHECKED_COLUMNS, curated_frame, load_suite, training_frame, validate
from lab_pipeline.datasets.rows import instruction_rows, user_texts
from lab_pipeline.taxonomy.snapshot import Snapshot
from lab_pipeline.text.leaks import LeakDetector
from lab_pipeline.text.near_duplicates import near_duplicates

LEAVES = 1000
SETTINGS = Settings(taxonomy=TaxonomySettings(path="."))
COLUMNS = ["id", "leaf", "question", "answer", "fault"]


def make(home: Home, rows: int) -> None:
    """Fill a home with curated tables, sources, a snapshot and `made.json`, which `made` reads."""
    draw = np.random.default_rng(17)
    vocabulary = np.array(
        [f"{word:x}".translate(str.maketrans("0123456789abcdef", "aeioubdfgklmnprs")) for word in range(20_000)]
    )
    weights = 1 / np.arange(1, 20_001)
    weights /= weights.sum()
    repeated: dict[str, list[tuple[str, str]]] = {kind: [] for kind in ("knowledge", "grounded_skill", "freeform_skill")}
    entries, snapshot = [], []
    each = rows // LEAVES
    for number in range(LEAVES):
        kind = ("knowledge", "grounded_skill", "knowledge", "freeform_skill")[number % 4]
        leaf = f"{'knowledge' if kind == 'knowledge' else 'compositional_skills'}/topic_{number % 37}/leaf_{number:04}"
        own = draw.choice(vocabulary, 200)

        def texts(count: int, least: int, most: int) -> list[str]:
            lengths = draw.integers(least, most, count)
            words = draw.choice(vocabulary, lengths.sum(), p=weights)
            mine = draw.random(len(words)) < 0.2
            words[mine] = draw.choice(own, mine.sum())  # noqa: B023
            return [" ".join(part) for part in np.split(words, np.cumsum(lengths)[:-1])]

        held_out = [f"Which {text}?" for text in texts(3, 6, 10)]
        questions = [
            f"{start} {text}?" for start, text in zip(np.resize(["What", "How", "When"], each), texts(each, 6, 12), strict=True)
        ]
        answers = [f"{text}." for text in texts(each, 6, 30)]
        contexts = texts(20, 40, 80) if kind == "grounded_skill" else None
        for row, (question, answer) in enumerate(repeated[kind]):
            questions[row], answers[row] = f"{question[:-1]} indeed?", f"{answer[:-1]} indeed."
        questions[each - each // 1000 :] = [held_out[0].upper()] * (each // 1000)
        repeated[kind] = list(zip(questions, answers, strict=True))[each // 2 :][: each // 100]
        passages = [
            {"document": "d", "commit": "c", "heading": f"{leaf} {n}", "start": n, "end": n + 1, "text": text}
            for n, text in enumerate(texts(5, 80, 120))
        ]
        source = {"leaf": leaf, "kind": kind, "domain": "d", "seeds": [], "passages": passages if kind == "knowledge" else []}
        write_json(home.leaf_source(leaf.replace("/", "-")), source)
        table: dict[str, object] = {
            "id": [f"{number:06x}{row:014x}" for row in range(each)],
            "leaf": [leaf] * each,
            "kind": [kind] * each,
            "context": [contexts[row % 20] for row in range(each)] if contexts else [None] * each,
            "question": questions,
            "answer": answers,
            "support": [f"support {number} {row // 3}" for row in range(each)],
            "taxonomy_commit": ["c"] * each,
            "flow": ["f"] * each,
            "teacher": ["t"] * each,
        }
        rest = {name: pa.nulls(each, CURATED_SCHEMA.field(name).type) for name in CURATED_SCHEMA.names if name not in table}
        path = home.leaf(leaf) / "curated-x.parquet"
        path.parent.mkdir(parents=True)
        pq.write_table(pa.table({name: {**table, **rest}[name] for name in CURATED_SCHEMA.names}, CURATED_SCHEMA), path)
        entries.append(
            {"leaf": leaf, "kind": kind, "curated": "x", "source": leaf.replace("/", "-"), "content": leaf, "rows": each}
        )
        asked = [{"question": each, "context": None} for each in held_out]
        snapshot.append({"leaf": leaf, "heldout_questions": asked, "attribution": "License of the work: Apache-2.0"})
    catalog = Catalog("s", entries)
    blank = dict.fromkeys(SNAPSHOT_SCHEMA.names)
    write_rows(home.snapshot("s"), [{**blank, **row} for row in snapshot], SNAPSHOT_SCHEMA)
    write_json(home.snapshot_facts("s"), {"id": "s", "taxonomy_commit": "c", "taken_at": ""})
    heldout = build_heldout(catalog, Snapshot("s", "c", "", snapshot), load_general(None).questions, [])
    write_json(home.root / "made.json", [entries, heldout])


def made(home: Home) -> tuple[Catalog, HeldoutSet]:
    """Read catalog and held-out questions of a home that `make` filled."""
    entries, heldout = read_json(home.root / "made.json")
    return Catalog("s", entries), heldout


def mix(home: Home) -> dict[str, object]:
    """Mix and check the data sets of both phases."""
    catalog, heldout = made(home)
    recipe, replay = load_recipe("smollm2_135m_cpu"), load_general(None).replay
    clock = Clock()
    knowledge = mix_knowledge(home, catalog, heldout, replay, recipe, SETTINGS)
    clock.took("knowledge")
    skills = mix_skills(home, catalog, heldout, replay, recipe, SETTINGS, knowledge)
    clock.took("skills")
    curated = pa.concat_tables([curated_table(home, entry, COLUMNS) for entry in catalog.in_use])
    assert all(finding.passed for finding in validate(curated_frame(curated), "curated_rows"))
    del curated
    clock.took("curated_suite")
    test = LeakDetector(heldout_prompts(heldout))
    for dataset in (knowledge, skills):
        rows = pq.read_table(dataset.path, columns=CHECKED_COLUMNS)
        findings = validate(training_frame(rows), "training_rows")
        assert all(finding.passed for finding in findings), findings
        clock.took("training_suites")
        assert not test.leaks_among(user_texts(rows)[0])
        clock.took("leaks")
    facts = {"rows": knowledge.rows + skills.rows, "excluded": [knowledge.excluded, skills.excluded], "seconds": clock.parts}
    return {"mix_1m_s": round(sum(clock.parts.values()), 1), "mix_1m_mib": peak_mib(), **facts}


def plain_pandas(home: Home) -> dict[str, object]:
    """Do the same in plain pandas."""
    import pandas as pd

    catalog, heldout = made(home)
    clock = Clock()
    frame = pd.concat([pd.read_parquet(home.leaf(entry["leaf"]) / "curated-x.parquet") for entry in catalog.in_use])
    frame["prompt"] = frame["question"].where(frame["context"].isna(), frame["context"] + "\n\n" + frame["question"])
    frame["key"] = frame["prompt"].str.lower().str.split().str.join(" ")
    frame = frame[~frame["key"].isin([question.lower() for question in heldout_prompts(heldout)])].drop_duplicates("key")
    frame["messages"] = [
        [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
        for prompt, answer in zip(frame["prompt"], frame["answer"], strict=True)
    ]
    frame = frame.assign(source="curated", part="train", last_role="assistant").sample(frac=1, random_state=17)
    frame[["id", "messages", "leaf", "source", "part"]].to_parquet(home.root / "pandas.parquet")
    clock.took("mixed")
    one_by_one(frame[COLUMNS], "curated_rows")
    one_by_one(frame[["id", "leaf", "source", "part", "prompt", "answer", "last_role"]], "training_rows")
    clock.took("suites")
    return {"pandas_1m_s": round(sum(clock.parts.values()), 1), "pandas_1m_mib": peak_mib(), "pandas_seconds": clock.parts}


def one_by_one(frame: Any, suite: str) -> None:
    """Validate a frame by each expectation of a suite on its own."""
    import great_expectations as gx
    from great_expectations.data_context.types.base import ProgressBarsConfig
    from great_expectations.expectations.registry import get_expectation_impl

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    asset = context.data_sources.add_pandas("memory").add_dataframe_asset("table")
    batch = asset.add_batch_definition_whole_dataframe("all").get_batch(batch_parameters={"dataframe": frame})
    for each in load_suite(suite):
        batch.validate(get_expectation_impl(each.expectation)(**each.arguments))


def near(home: Home) -> dict[str, object]:
    """Search for near-duplicates, and compare some rows with each other in pandas."""
    import pandas as pd

    catalog, _ = made(home)
    tables = [instruction_rows(curated_table(home, entry), set()) for entry in catalog.in_use[:200]]
    clock = Clock()
    found = near_duplicates(tables)
    clock.took("ours")
    count = sum(map(len, tables))
    words = pd.Series([frozenset(row["question"].split()) for row in curated_table(home, catalog.in_use[0])[:1000].to_pylist()])
    pairs = words.to_frame("one").merge(words.to_frame("other"), how="cross")
    pairs.apply(lambda pair: len(pair["one"] & pair["other"]) / len(pair["one"] | pair["other"]), axis=1)
    clock.took("pandas")
    all_pairs = clock.parts["pandas"] * (count / len(words)) ** 2
    return {
        "near_duplicates_200k_s": clock.parts["ours"],
        "near_duplicates_200k_mib": peak_mib(),
        "pandas_near_duplicates_200k_s": round(all_pairs),
        "found": len(found),
    }


class Clock:
    """Wall time by part, in seconds."""

    def __init__(self) -> None:
        self.parts: dict[str, float] = {}
        self._since = time.monotonic()

    def took(self, part: str) -> None:
        """Add the time since the last call to a part."""
        now = time.monotonic()
        self.parts[part] = round(self.parts.get(part, 0) + now - self._since, 1)
        self._since = now


def peak_mib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def main(rows: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        home = Home.open(Path(folder))
        make(home, rows)
        found = {"made_rows": rows}
        for part in ("mix", "plain_pandas", "near"):
            ran = subprocess.run([sys.executable, __file__, part, folder], check=True, stdout=subprocess.PIPE)
            found |= json.loads(ran.stdout.splitlines()[-1])
            print(part, "done", file=sys.stderr, flush=True)
        print(json.dumps(found))


if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1].isidentifier():
        print(json.dumps({"mix": mix, "plain_pandas": plain_pandas, "near": near}[sys.argv[1]](Home(Path(sys.argv[2])))))
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)

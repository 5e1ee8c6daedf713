"""Homes that earlier code made open under the code as it stands, and nothing that was paid for is asked again without need.

`homes/46bf18b.tar.xz` was made by that commit, `homes/unchanged.tar.xz` before curation was rebuilt. Rules differ since
(`CURATION_VERSION`), so each leaf is curated once more; documents are read otherwise (`READING_VERSION`), so passages of the
knowledge leaf have other spans, and its rows that are sampled at random are asked for once more. If that changes the rows
that are kept, data sets and model are made once more too. No skill leaf makes a call.

Both are moved homes: they were made in another folder. So `home.json`, which binds a home to its taxonomy's absolute path, is
rewritten. All else that holds a path of then (`models/*.json`, `spec.json` and `meta.json` of checkpoints, adapters'
`adapter_config.json`, `candidate.json`, evaluations, Dagster's events) stays as it was.
"""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from lab_pipeline.core.storage import read_json, write_json
from lab_pipeline_tests.homes.make import retuned, teacher

HOMES = Path(__file__).parent / "homes"

ONE_RETUNE = {
    "leaves/*/curated-*.parquet": 4,
    "datasets/catalog-*.parquet": 1,
    "datasets/knowledge-*-excluded.parquet": 1,
    "datasets/skills-*-excluded.parquet": 1,
    "checkpoints/knowledge-*": 1,
    "checkpoints/skills-*": 1,
    "candidates/*": 1,
    "evaluations/*/evaluation.json": 1,
}
"""What one retune of all four leaves adds to a home, by path."""


SAMPLED = 30
"""Requests of the knowledge leaf at a temperature above 0: 15 sentences, two temperatures."""


@pytest.mark.parametrize("name", [pytest.param("46bf18b", marks=pytest.mark.long), "unchanged"])
def test_a_home_of_earlier_code_opens_and_tunes_at_most_once(name, tmp_path):
    home = unpacked(name, tmp_path)
    champion = read_json(home / "champions" / "champion.json")["id"]
    before = {pattern: len(list(home.glob(pattern))) for pattern in ONE_RETUNE}
    assert all(before.values())
    with teacher() as asked:
        first, second = retuned(home), retuned(home)
    assert {leaf["status"] for leaf in first["leaves"].values()} <= {"current", "refreshed"}
    assert all(leaf["kept"] for leaf in first["leaves"].values())
    exam = [request for request in asked.requests if "examiner" in request.body["messages"][0]["content"]]
    assert 0 < len(exam) <= SAMPLED / 2, "one for each sentence of the knowledge leaf: no earlier home has an exam"
    prompts = [request.body["messages"][-1]["content"] for request in asked.requests if request not in exam]
    assert all(prompt.startswith("Sentence: ") for prompt in prompts), "of the knowledge leaf alone"
    assert first["teacher_calls"] == len(prompts) <= SAMPLED and second["teacher_calls"] == 0
    added = {pattern: len(list(home.glob(pattern))) - number for pattern, number in before.items()}
    assert all(added[pattern] <= most for pattern, most in ONE_RETUNE.items()), added
    assert (home / "champions" / champion).is_dir()
    assert second["nothing_changed"] and second["training_steps"] == 0
    assert {leaf["status"] for leaf in second["leaves"].values()} == {"current"}
    assert second["champion"] == first["champion"]


def unpacked(name: str, folder: Path) -> Path:
    with tarfile.open(HOMES / f"{name}.tar.xz") as packed:
        packed.extractall(folder, filter="data")
    marker = folder / "home" / "home.json"
    write_json(marker, {**read_json(marker), "taxonomy": str((folder / "taxonomy").resolve())})
    return folder / "home"

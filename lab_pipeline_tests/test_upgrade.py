"""Homes that earlier code made open under the code as it stands, and nothing that was paid for is asked or trained again.

`homes/46bf18b.tar.xz` was made by that commit. Later code may curate its rows by other rules, and so tune once more.
`homes/unchanged.tar.xz` is made anew (`python -m lab_pipeline_tests.homes.make`) only by a change that means to make homes tune
again, and otherwise nothing may happen to it.

Both are moved homes: they were made in another folder. So `home.json`, which binds a home to its taxonomy's absolute path, is
rewritten. All else that holds a path of then (`models/*.json`, `spec.json` and `meta.json` of checkpoints, adapters'
`adapter_config.json`, `candidate.json`, evaluations, Dagster's events) stays as it was.
"""

from __future__ import annotations

import tarfile
from pathlib import Path

from lab_pipeline.core.storage import file_digest, read_json, write_json
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


def test_a_home_of_earlier_code_opens_and_tunes_at_most_once(tmp_path):
    home = unpacked("46bf18b", tmp_path)
    champion = read_json(home / "champions" / "champion.json")["id"]
    before = {pattern: len(list(home.glob(pattern))) for pattern in ONE_RETUNE}
    assert all(before.values())
    with teacher() as asked:
        first, second = retuned(home), retuned(home)
    assert {leaf["status"] for leaf in first["leaves"].values()} <= {"current", "refreshed"}
    assert all(leaf["kept"] for leaf in first["leaves"].values())
    assert asked.requests == [] and first["teacher_calls"] == 0
    added = {pattern: len(list(home.glob(pattern))) - number for pattern, number in before.items()}
    assert all(added[pattern] <= most for pattern, most in ONE_RETUNE.items()), added
    assert (home / "champions" / champion).is_dir()
    assert second["nothing_changed"] and second["training_steps"] == 0
    assert second["champion"] == first["champion"]


def test_nothing_happens_to_a_home_that_no_change_concerns(tmp_path):
    home = unpacked("unchanged", tmp_path)
    champion, before = read_json(home / "champions" / "champion.json")["id"], digests(home)
    with teacher() as asked:
        summary = retuned(home)
    assert asked.requests == []
    assert summary["nothing_changed"] and (summary["teacher_calls"], summary["training_steps"]) == (0, 0)
    assert {leaf["status"] for leaf in summary["leaves"].values()} == {"current"}
    assert digests(home) == before
    assert summary["champion"]["id"] == champion


def unpacked(name: str, folder: Path) -> Path:
    with tarfile.open(HOMES / f"{name}.tar.xz") as packed:
        packed.extractall(folder, filter="data")
    marker = folder / "home" / "home.json"
    write_json(marker, {**read_json(marker), "taxonomy": str((folder / "taxonomy").resolve())})
    return folder / "home"


def digests(home: Path) -> dict[str, str]:
    """Every file of the home by its hash, but for what tells when a run looked."""
    files = (path.relative_to(home) for path in home.rglob("*") if path.is_file())
    return {str(path): file_digest(home / path) for path in files if path.parts[0] not in ("dagster", "logs", "snapshots")}

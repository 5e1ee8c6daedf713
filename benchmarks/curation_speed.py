"""How much processor time do the rules take on 100,000 rows, in this build and in an older one?

Both builds curate the same rows, one after the other, each in a process of its own: the planted good and bad rows of the sample
taxonomy again and again, each time with another number and name in question and answer, so that caches do not know them.

- `cpu_seconds`: processor time by build; `ratio`: this build's over the older one's.

    python -P benchmarks/curation_speed.py CHECKOUT_OF_THE_OLDER_BUILD [ROWS]
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

MEASURE = """
import json, random, sys, tempfile, time
from pathlib import Path
from lab_pipeline.core.home import Home
from lab_pipeline.core.storage import read_json
from lab_pipeline.flows.flow import load_flow
from lab_pipeline.taxonomy.snapshot import take_snapshot
from lab_pipeline_tests.builders import settings_for
from lab_pipeline_tests.curation.planted import planted
try:
    from lab_pipeline.curation.curate import Curation
    from lab_pipeline.curation.profile import profile
    def split(rows, source, flow):
        return Curation(profile(source), flow).split(rows)
except ImportError:
    from lab_pipeline.curation.curate import curate as split
with tempfile.TemporaryDirectory() as folder:
    home = Home.open(Path(folder))
    snapshot = take_snapshot(home, settings_for(Path("data/taxonomy").resolve()))
    sources = {leaf: read_json(home.leaf_source(frozen)) for leaf, frozen in snapshot.usable.items()}
    heldout = {row["leaf"]: row["heldout_questions"] for row in snapshot.rows}
good, bad = planted(sources, heldout)
choice = random.Random(1)
letters = "abcdefghijklmnopqrstuvwxyz"
rows = []
for number in range(int(sys.argv[1])):
    row = dict(choice.choice(good if number % 3 else bad))
    name = "".join(choice.choices(letters, k=7)).capitalize()
    for column in ("question", "answer"):
        if row[column]:
            row[column] = f"{row[column][:-1]} of {name} {number}{row[column][-1]}"
    rows.append({**row, "id": str(number)})
by_leaf = {leaf: [row for row in rows if row["leaf"] == leaf] for leaf in sources}
started, kept = time.process_time(), 0
for leaf, source in sources.items():
    kept += len(split(by_leaf[leaf], source, load_flow(f"simple_{source['kind']}", source["kind"]))[0])
print(json.dumps({"cpu_seconds": round(time.process_time() - started, 1), "kept": kept}))
"""


def measured(checkout: Path, rows: int) -> dict[str, float]:
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    command = [sys.executable, "-P", "-c", MEASURE, str(rows)]
    done = subprocess.run(command, cwd=checkout, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main(older: Path, rows: int) -> None:
    builds = {"this": measured(Path(__file__).parents[1], rows), "older": measured(older.resolve(), rows)}
    times = {build: found["cpu_seconds"] for build, found in builds.items()}
    kept = {build: found["kept"] for build, found in builds.items()}
    print(json.dumps({"rows": rows, "cpu_seconds": times, "ratio": round(times["this"] / times["older"], 2), "kept": kept}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if sys.argv[2:] else 100_000)

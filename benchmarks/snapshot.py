"""What does checking a leaf cost, beside InstructLab's own parser, and what a snapshot in which little or nothing changed?

Both read the same files in one run, ours with both verdicts, theirs in strict mode, which runs yamllint in a process of its own
for each file. Processor time, that of these processes included; each side runs once unmeasured on the first files.

- `cpu_ms_per_file`: ours
- `vs_schema`: theirs over ours
- `unchanged_740_vs_before`: processor time of a second snapshot of 740 leaves, ours over that of an older build
- `one_changed_of_5000_s`: seconds for a snapshot of 5,000 leaves of which one changed
- `peak_mib`: largest memory of the process that took it

    python -P benchmarks/snapshot.py CHECKOUT_OF_THE_OLDER_BUILD [TAXONOMY]

Without a taxonomy, 60 leaves are made from those of `data/taxonomy`, each with names of its own.
"""

from __future__ import annotations

import json
import logging
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from instructlab.schema.taxonomy import TaxonomyParser, TaxonomyReadingException

from lab_pipeline.taxonomy.find import QNA, find_leaves
from lab_pipeline.taxonomy.leaf import read_leaf

SAMPLES = Path(__file__).parents[1] / "data" / "taxonomy"
COPIES = 12
WARM_UP = 5
MOST = 200
"""Files that are read; of a larger taxonomy, as many at equal distances."""


SNAPSHOTS = """
import json, resource, sys, time
from pathlib import Path
from lab_pipeline.core.home import Home
from lab_pipeline.taxonomy.snapshot import take_snapshot
from lab_pipeline_tests.builders import settings_for, write_skill
root, leaves = Path(sys.argv[1]), int(sys.argv[2])
if not (root / "taxonomy").exists():
    for number in range(leaves):
        write_skill(root / "taxonomy", f"compositional_skills/area{number % 50}/leaf{number}")
home, settings = Home.open(root / sys.argv[3]), settings_for(root / "taxonomy")
if len(sys.argv) > 4:
    write_skill(root / "taxonomy", "compositional_skills/area7/leaf7", seeds=9)
started, used = time.monotonic(), time.process_time()
take_snapshot(home, settings)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
print(json.dumps([time.monotonic() - started, time.process_time() - used, peak]))
"""
"""Takes a snapshot in a process of its own, so that a build can be measured that is not this one."""


def snapshots(build: Path, root: Path, leaves: int, *rest: str) -> tuple[float, float, int]:
    """Seconds, processor seconds and MiB of a snapshot of a taxonomy with so many leaves, taken by the code of `build`."""
    command = [sys.executable, "-P", "-c", SNAPSHOTS, str(root), str(leaves), build.name, *rest]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(build)}, capture_output=True, text=True, check=True)
    seconds, used, peak = json.loads(done.stdout)
    return seconds, used, peak


def unchanged(before: Path) -> dict[str, float]:
    here = Path(__file__).parents[1]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        cold = {build: snapshots(build, root / "740", 740)[1] for build in (before, here)}
        again = {build: snapshots(build, root / "740", 740)[1] for build in (before, here)}
        for build in (before, here):
            print(f"740 leaves with {build.name}: first {cold[build]:.2f} s, again {again[build]:.2f} s")
        first = snapshots(here, root / "5000", 5000)
        changed = snapshots(here, root / "5000", 5000, "changed")
        print(f"5,000 leaves: first {first[0]:.1f} s and {first[2]} MiB, one changed {changed[0]:.2f} s and {changed[2]} MiB")
    return {
        "unchanged_740_vs_before": round(again[here] / again[before], 3),
        "one_changed_of_5000_s": round(changed[0], 2),
        "peak_mib": max(first[2], changed[2]),
    }


def main(taxonomy: Path, before: Path) -> None:
    logging.disable(logging.CRITICAL)  # the parser logs each problem
    os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # where yamllint is
    keys = find_leaves(taxonomy)
    keys = keys[:: -(-len(keys) // MOST)]
    ours = per_file(keys, lambda key: read_leaf(taxonomy, key).schema_verdict == "valid")
    theirs = per_file(keys, lambda key: upstream_accepts(taxonomy / key / QNA))
    print(f"{len(keys)} files: ours {ours[0]:.2f} ms, InstructLab's {theirs[0]:.2f} ms; valid: {ours[1]} and {theirs[1]}")
    found = {"cpu_ms_per_file": round(ours[0], 2), "vs_schema": round(theirs[0] / ours[0], 1)}
    print(json.dumps({**found, **unchanged(before)}))


def per_file(keys: list[str], accepts: Callable[[str], bool]) -> tuple[float, int]:
    """Processor time for a file, in ms, and the number of files that are accepted."""
    for key in keys[:WARM_UP]:
        accepts(key)
    before = processor_time()
    accepted = sum(accepts(key) for key in keys)
    return (processor_time() - before) / len(keys) * 1000, accepted


def processor_time() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def upstream_accepts(qna: Path) -> bool:
    parser = TaxonomyParser(schema_version=0, yamllint_strict=True, message_format="logging")
    parser.yq_available = False  # it would only look up the lines of problems, each in a process
    try:
        return not parser.parse(qna).errors
    except TaxonomyReadingException:
        return False


def copies(root: Path) -> Path:
    """Leaves like the samples, none of which has the text of another."""
    for key in find_leaves(SAMPLES):
        for number in range(COPIES):
            for source in (SAMPLES / key).iterdir():
                target = root / f"{key}_{number}" / source.name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(source.read_text().replace("created_by: ", f"created_by: writer-{number}-"))
    return root


if __name__ == "__main__":
    older = Path(sys.argv[1]).resolve()
    if len(sys.argv) > 2:
        main(Path(sys.argv[2]), older)
    else:
        with tempfile.TemporaryDirectory() as folder:
            main(copies(Path(folder)), older)

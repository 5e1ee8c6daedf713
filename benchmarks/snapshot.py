"""What does checking a leaf cost, beside InstructLab's own parser?

Both read the same files in one run, ours with both verdicts, theirs in strict mode, which runs yamllint in a process of its own
for each file. Processor time, that of these processes included; each side runs once unmeasured on the first files.

- `cpu_ms_per_file`: ours
- `vs_schema`: theirs over ours

    python -P benchmarks/snapshot.py [TAXONOMY]

Without a taxonomy, 60 leaves are made from those of `data/taxonomy`, each with names of its own.
"""

from __future__ import annotations

import json
import logging
import os
import resource
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


def main(taxonomy: Path) -> None:
    logging.disable(logging.CRITICAL)  # the parser logs each problem
    os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # where yamllint is
    keys = find_leaves(taxonomy)
    keys = keys[:: -(-len(keys) // MOST)]
    ours = per_file(keys, lambda key: read_leaf(taxonomy, key).schema_verdict == "valid")
    theirs = per_file(keys, lambda key: upstream_accepts(taxonomy / key / QNA))
    print(f"{len(keys)} files: ours {ours[0]:.2f} ms, InstructLab's {theirs[0]:.2f} ms; valid: {ours[1]} and {theirs[1]}")
    print(json.dumps({"cpu_ms_per_file": round(ours[0], 2), "vs_schema": round(theirs[0] / ours[0], 1)}))


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
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as folder:
            main(copies(Path(folder)))

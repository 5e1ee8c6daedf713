#!/usr/bin/env bash
# sentencex takes the month May at the end of an English sentence for an abbreviation, and joins the sentence with the next one.
# "June." ends a sentence. A pipeline that starts a question from each sentence loses one, and asks about two facts at once.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet sentencex==1.0.32
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
from importlib.metadata import version

from sentencex import segment

print("sentencex", version("sentencex"))
counts = {}
for month in ("May", "June", "July"):
    parts = [part.strip() for part in segment("en", f"The festival is on the ninth of {month}. A silver ladle is its prize.")]
    counts[month] = len(parts)
    print(f"{month}: {parts}")
assert counts == {"May": 1, "June": 2, "July": 2}, "behaviour changed"
PYTHON

#!/usr/bin/env bash
# text2num's English takes the word "OS" for the number zero: "a device with an OS" becomes "a device with an 0". A check that
# compares the numbers of an answer with those of its source then finds a number that nobody wrote. "OSD" stays as it is.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet text2num==3.1.0
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
from importlib.metadata import version

from text_to_num import alpha2digit

print("text2num", version("text2num"))
seen = {}
for text in ("a device with an OS and two disks", "an OSD and two disks", "o and two disks"):
    seen[text] = alpha2digit(text, "en", threshold=0), alpha2digit(text, "en")
    print(f"{text!r}: threshold 0: {seen[text][0]!r}, default: {seen[text][1]!r}")
assert seen["a device with an OS and two disks"] == ("a device with an 0 and 2 disks",) * 2, "changed"
assert seen["an OSD and two disks"][0] == "an OSD and 2 disks", "changed"
PYTHON

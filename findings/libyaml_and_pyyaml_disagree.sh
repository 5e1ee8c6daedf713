#!/usr/bin/env bash
# PyYAML's two safe loaders do not read the same YAML. The one on libyaml (CSafeLoader, chosen for its speed) accepts a tab after a
# key or inside of a value, which the one in Python refuses; the one in Python reads a character written as two JSON escapes, as two
# lone surrogates, which libyaml refuses. A validator that switches loaders for speed changes verdicts.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet pyyaml==6.0.4
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import yaml


def read(text, loader):
    try:
        return yaml.load(text, Loader=loader)
    except yaml.YAMLError as error:
        return type(error).__name__


print("PyYAML", yaml.__version__)
seen = {}
for text in ("a:\tx\n", "a: x\ty\n", "a: |#c\n  x\n", 'a: "\\ud83d\\ude00"\n', "? a\n: b\n"):
    seen[text] = read(text, yaml.SafeLoader), read(text, yaml.CSafeLoader)
    print(f"{text!r}: Python {seen[text][0]!r}, libyaml {seen[text][1]!r}")
assert list(seen.values()) == [
    ("ScannerError", {"a": "x"}),
    ("ScannerError", {"a": "x\ty"}),
    ("ScannerError", {"a": "x\n"}),
    ({"a": "\ud83d\ude00"}, "ScannerError"),
    ({"a": "b"}, {"a": "b"}),
], "changed"
PYTHON

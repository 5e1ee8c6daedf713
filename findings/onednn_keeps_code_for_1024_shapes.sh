#!/usr/bin/env bash
# On a CPU with AVX512-BF16, torch 2.13.0 multiplies bf16 matrices by oneDNN, which compiles code for each shape. oneDNN keeps the
# code of the last 1,024 shapes, and torch's own layer above it as many objects with their working memory. Rows of text are of
# many lengths, so a process that trains or scores on rows as they are grows by hundreds of MiB, which no count of its tensors
# shows. ONEDNN_PRIMITIVE_CACHE_CAPACITY and LRU_CACHE_CAPACITY, read at the first product, limit the two, each only its own.
set -euo pipefail
grep -q avx512_bf16 /proc/cpuinfo || { echo "this CPU has no AVX512-BF16: nothing to see"; exit 0; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0
cd "$folder"
cat > grow.py <<'PYTHON'
import time
from pathlib import Path

import torch


def resident() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) / 256


def multiply(lengths: list[int]) -> None:
    for length in lengths:
        for weight in weights:
            torch.nn.functional.linear(rows[:length, : weight.shape[1]], weight)


weights = [torch.randn(out, into, dtype=torch.bfloat16) for out, into in ((576, 576), (1536, 576), (576, 1536))]
rows = torch.randn(640, 1536, dtype=torch.bfloat16)
multiply([640] * 20)  # what the largest product itself takes
before, started = resident(), time.perf_counter()
multiply([length for length in range(100, 440)])
print(f"{resident() - before:.1f} {time.perf_counter() - started:.1f}")
PYTHON
"$folder/venv/bin/python" -c "import torch; print('torch', torch.__version__)"
read -r kept kept_s < <("$folder/venv/bin/python" grow.py)
read -r one one_s < <(ONEDNN_PRIMITIVE_CACHE_CAPACITY=64 "$folder/venv/bin/python" grow.py)
read -r few few_s < <(ONEDNN_PRIMITIVE_CACHE_CAPACITY=64 LRU_CACHE_CAPACITY=64 "$folder/venv/bin/python" grow.py)
echo "products of 1,020 shapes: the process grows by $kept MiB in $kept_s s"
echo "with 64 shapes in oneDNN's cache by $one MiB in $one_s s, in torch's as well by $few MiB in $few_s s"
"$folder/venv/bin/python" -c "assert $few < $one / 2 and $one < $kept - 100, 'behaviour changed'"

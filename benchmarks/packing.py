"""How long does packing take, and how full are the packs?

Packs rows of log-normal lengths, as instruction rows have them, and fewer of these by the quadratic first fit decreasing.

    python -P benchmarks/packing.py
"""

from __future__ import annotations

import json
import random
import time

from lab_pipeline.models.packing import TokenRow, pack
from lab_pipeline_tests.models.first_fit import first_fit

ROWS, ROWS_BY_FIRST_FIT, PACK_TOKENS = 1_000_000, 20_000, 2048


def lengths(number: int) -> list[int]:
    chance = random.Random(17)
    return [min(PACK_TOKENS, max(2, round(chance.lognormvariate(5, 0.8)))) for _ in range(number)]


def best_fit(sizes: list[int]) -> tuple[float, int]:
    by_length = {size: TokenRow([0] * size, [0] * size) for size in set(sizes)}  # a million rows of their own take gigabytes
    rows = [by_length[size] for size in sizes]
    started = time.perf_counter()
    packs = pack(rows, PACK_TOKENS)
    return time.perf_counter() - started, len(packs)


if __name__ == "__main__":
    everything, fewer = lengths(ROWS), lengths(ROWS_BY_FIRST_FIT)
    seconds, packs = best_fit(everything)
    few_seconds, few_packs = best_fit(fewer)
    started = time.perf_counter()
    packs_by_first_fit = first_fit(fewer, PACK_TOKENS)
    first_fit_seconds = time.perf_counter() - started
    print(
        json.dumps(
            {
                "rows": ROWS,
                "seconds": round(seconds, 1),
                "filled": round(sum(everything) / (packs * PACK_TOKENS), 4),
                "fewer_rows": ROWS_BY_FIRST_FIT,
                "fewer_rows_seconds": round(few_seconds, 2),
                "fewer_rows_first_fit_seconds": round(first_fit_seconds, 2),
                "speedup": round(first_fit_seconds / few_seconds, 1),
                "packs": few_packs,
                "first_fit_packs": packs_by_first_fit,
            }
        )
    )

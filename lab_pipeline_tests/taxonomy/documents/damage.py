"""Damage files at random, and require that each is read or refused within seconds."""

import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

import pytest

from lab_pipeline.taxonomy.documents.blocks import DocumentError

COUNTS = pytest.mark.parametrize("count", [200, pytest.param(5_000, marks=pytest.mark.long)])


def spliced(raw: bytes, chance: random.Random, pieces: Sequence[bytes]) -> bytes:
    """Put pieces, random bytes and repeats of the file itself into it, at up to twelve places, some over what is there."""
    changed = bytearray(raw)
    for _ in range(chance.randint(1, 12)):
        start = chance.randrange(len(changed))
        end = start + chance.randint(0, 40)
        repeat = bytes(changed[start:end]) * chance.choice([2, 2, 50])
        changed[start : chance.choice([start, end])] = chance.choice([*pieces, repeat, bytes([chance.randrange(256)])])
        changed = changed or bytearray(b" ")
    return bytes(changed)


def read_or_refused(read: Callable[[bytes], object], files: Iterator[bytes]) -> int:
    """Read files, each within five seconds, and return how many were not refused."""
    readings = 0
    for raw in files:
        started = time.monotonic()
        with suppress(DocumentError):
            read(raw)
            readings += 1
        assert time.monotonic() - started < 5, raw
    return readings

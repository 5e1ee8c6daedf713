"""Map leaves to dynamic partitions."""

from itertools import groupby
from urllib.parse import quote, unquote

import dagster as dg

from lab_pipeline.defs.code_location import named

LEAVES_NAME = named("leaves")
LEAVES = dg.DynamicPartitionsDefinition(name=LEAVES_NAME)

_BATCH = 1000
"""Maximum number of partitions added in one statement, because SQLite limits the number of variables."""


def partition_of(leaf: str) -> str:
    """Encode a leaf's key as a partition key: '%', commas and unprintable characters become %-escapes, as Dagster allows no
    commas and control characters; `leaf_of` reverses this."""
    return "".join(quote(char) if char in ",%" or not char.isprintable() else char for char in leaf)


def leaf_of(partition: str) -> str:
    return unquote(partition)


def register(instance: dg.DagsterInstance, leaves: list[str]) -> None:
    """Add partitions for new leaves. Partitions of removed leaves stay, with their history."""
    known = set(instance.get_dynamic_partitions(LEAVES_NAME))
    new = [key for key in map(partition_of, leaves) if key not in known]
    for start in range(0, len(new), _BATCH):
        instance.add_dynamic_partitions(LEAVES_NAME, new[start : start + _BATCH])


def ranges(instance: dg.DagsterInstance, leaves: list[str]) -> list[tuple[str, str]]:
    """Group leaves into the fewest ranges of partitions, each as (first, last), that contain no other leaf.

    A run takes one range, in the order in which partitions were added. Leaves without a partition get one first: a snapshot
    may have been killed before it registered them.
    """
    register(instance, leaves)
    wanted = set(map(partition_of, leaves))
    found = []
    for is_wanted, keys in groupby(instance.get_dynamic_partitions(LEAVES_NAME), wanted.__contains__):
        if is_wanted:
            first, *others = keys
            found.append((first, others[-1] if others else first))
    return found

"""Leaves as dynamic partitions."""

from __future__ import annotations

from urllib.parse import quote, unquote

import dagster as dg

LEAVES = dg.DynamicPartitionsDefinition(name="leaves")

_ADD_AT_ONCE = 1000
"""SQLite refuses statements with too many variables."""


def partition_of(leaf: str) -> str:
    """A leaf's key as a partition key: percent-encoded where Dagster cannot carry it (commas, control characters, %)."""
    return "".join(quote(letter) if letter in ",%" or not letter.isprintable() else letter for letter in leaf)


def leaf_of(partition: str) -> str:
    return unquote(partition)


def register(instance: dg.DagsterInstance, leaves: list[str]) -> None:
    """Make partitions of leaves; those of leaves that were removed stay, with their history."""
    known = set(instance.get_dynamic_partitions("leaves"))
    new = [key for key in map(partition_of, leaves) if key not in known]
    for start in range(0, len(new), _ADD_AT_ONCE):
        instance.add_dynamic_partitions("leaves", new[start : start + _ADD_AT_ONCE])


def ranges(instance: dg.DagsterInstance, leaves: list[str]) -> list[tuple[str, str]]:
    """The leaves as the fewest contiguous ranges (first and last partition) that hold no other leaf.

    A run takes one range, and ranges go by the order in which partitions were added. Leaves that are no partitions yet
    become some: a snapshot may have been cut off before it registered them.
    """
    register(instance, leaves)
    wanted = set(map(partition_of, leaves))
    found: list[tuple[str, str]] = []
    extends = False
    for key in instance.get_dynamic_partitions("leaves"):
        if key in wanted:
            found = [*found[:-1], (found[-1][0], key)] if extends else [*found, (key, key)]
        extends = key in wanted
    return found

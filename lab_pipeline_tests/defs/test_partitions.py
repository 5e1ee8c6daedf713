import dagster as dg
from hypothesis import given
from hypothesis import strategies as st

from lab_pipeline.defs.partitions import leaf_of, partition_of, ranges, register


@given(st.text(min_size=1))
def test_partition_keys_are_reversible_and_carry_nothing_that_dagster_refuses(leaf):
    key = partition_of(leaf)
    assert leaf_of(key) == leaf
    assert "," not in key and key.isprintable()


def test_leaves_are_grouped_into_the_fewest_ranges_in_order_of_insertion():
    with dg.DagsterInstance.ephemeral() as instance:
        register(instance, ["d", "b", "a", "c"])
        register(instance, ["a", "e"])
        assert instance.get_dynamic_partitions("leaves") == ["d", "b", "a", "c", "e"]
        assert ranges(instance, ["a", "b", "e"]) == [("b", "a"), ("e", "e")]
        assert ranges(instance, ["a", "b", "c", "d", "e"]) == [("d", "e")]
        assert ranges(instance, ["d", "a", "e"]) == [("d", "d"), ("a", "a"), ("e", "e")]
        assert ranges(instance, []) == []


def test_thousands_of_leaves_are_registered():
    with dg.DagsterInstance.ephemeral() as instance:
        register(instance, [f"leaf{number}" for number in range(2500)])
        assert len(instance.get_dynamic_partitions("leaves")) == 2500

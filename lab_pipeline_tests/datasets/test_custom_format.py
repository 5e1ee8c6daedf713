from __future__ import annotations

import json
from datetime import date
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab_pipeline.core.rows import TRAINING_SCHEMA, as_conversation
from lab_pipeline.datasets.custom_format import RowError, parse_row

CONVERSATION = as_conversation("Q?", None, "A.")


def test_a_system_prompt_replaces_that_of_the_row() -> None:
    prompt = {"role": "system", "content": "Be kind."}
    for messages in (CONVERSATION, [{"role": "system", "content": "Be brief."}, *CONVERSATION]):
        assert parse_row({"messages": messages}, "Be kind.", "f:1")["messages"] == [prompt, *CONVERSATION]


def test_metadata_may_be_json_text_and_further_columns_join_it() -> None:
    for metadata in ({"a": 1}, '{"a": 1}'):
        row = parse_row({"messages": CONVERSATION, "metadata": metadata, "id": "x"}, "", "f:1")
        assert json.loads(row["metadata"]) == {"a": 1, "id": "x"}


@pytest.mark.parametrize("value", [date(2024, 1, 1), b"bytes"])
def test_a_value_of_parquet_that_json_lacks_is_a_row_error(value: Any) -> None:
    with pytest.raises(RowError, match="expected a JSON object"):
        parse_row({"messages": CONVERSATION, "when": value}, "", "f:1")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda few: (
            st.lists(few)
            | st.dictionaries(
                st.sampled_from(["messages", "role", "content", "metadata", "unmask", "user", "assistant", "x"]), few
            )
        ),
    )
)
def test_no_row_is_wild_enough_for_a_traceback(value: Any) -> None:
    try:
        row = parse_row(json.dumps(value).encode(), "", "f:1")
    except RowError:
        return
    pa.Table.from_pylist([row], TRAINING_SCHEMA)

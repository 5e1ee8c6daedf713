from collections.abc import Iterator

import pytest
from dagster._core.storage.defs_state.base import set_defs_state_storage


@pytest.fixture(autouse=True)
def no_instance_of_earlier_tests() -> Iterator[None]:
    """Loading definitions asks the Dagster instance that was entered last, which may be gone since an earlier test."""
    with set_defs_state_storage(None):
        yield

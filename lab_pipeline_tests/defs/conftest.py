import pytest
from dagster._core.storage.defs_state import DefsStateStorage


@pytest.fixture(autouse=True)
def no_instance_of_earlier_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading definitions asks the Dagster instance that was entered last for the state of components, of which there are none.

    An earlier test's instance may be the last one again, and gone: its context ends whenever its generator is collected.
    """
    monkeypatch.setattr(DefsStateStorage, "get", classmethod(lambda cls: None))

"""The one resource of the graph: the home, with its settings."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg

from lab_pipeline.errors import LabError
from lab_pipeline.settings import Settings, load_settings
from lab_pipeline.storage import Home


class Lab(dg.ConfigurableResource):
    """A home folder; `LAB_HOME` names it, the launcher sets it."""

    root: str

    @property
    def home(self) -> Home:
        return Home.open(Path(self.root))

    @property
    def settings(self) -> Settings:
        return load_settings(self.home.settings_file)


@contextmanager
def mendable() -> Iterator[None]:
    """Turn what a person can mend into a step failure that shows the message, not a traceback."""
    try:
        yield
    except LabError as error:
        raise dg.Failure(description=str(error), allow_retries=False) from None

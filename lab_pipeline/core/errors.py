"""Define the errors that a person can fix; their messages say what is wrong, where, and what to do."""

from typing import Literal

Severity = Literal["error", "warning"]
"""How bad a problem of a leaf is: an error makes the leaf unusable, a warning does not."""


class LabError(Exception):
    """An error that a person can fix, the base of all such errors: it is shown as its message alone, without a traceback."""


class NotMaterialized(LabError):
    """Raised if what an earlier Dagster asset produces is missing, or was produced from other inputs than the current ones."""

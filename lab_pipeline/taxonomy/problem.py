"""Say what is wrong with a file of a taxonomy, and where."""

from __future__ import annotations

from dataclasses import dataclass

from lab_pipeline.core.errors import Severity


@dataclass(frozen=True)
class Problem:
    """Something wrong with a leaf, at a 1-based line of a file: an error makes the leaf unusable, a warning does not."""

    file: str
    """Path in the taxonomy."""
    line: int
    severity: Severity
    message: str
    """What was expected, and how to mend it."""
    column: int = 1
    rule: str = "leaf"
    """Name of the rule that is broken; it stays the same from release to release."""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.message}"

"""Record which leaves people withdrew from all later models.

The record is an append-only file in the home; of several entries on a leaf, the last one counts.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from filelock import FileLock

from lab_pipeline.core.errors import LabError
from lab_pipeline.core.home import Home
from lab_pipeline.core.storage import append_line, read_lines


@dataclass(frozen=True)
class Withdrawal:
    """An entry of the record: a leaf is withdrawn, or its withdrawal undone."""

    leaf: str
    withdrawn: bool
    """False undoes an earlier withdrawal."""
    author: str
    reason: str
    at: str
    """ISO 8601, UTC."""

    def __str__(self) -> str:
        return f"withdrawn by {self.author} on {self.at[:10]}: {self.reason}"


def withdrawals(home: Home) -> dict[str, Withdrawal]:
    """Return the withdrawals in force, by leaf key; withdrawals that were undone are left out."""
    last = {entry["leaf"]: Withdrawal(**entry) for entry in read_lines(home.withdrawals)}
    return {leaf: withdrawal for leaf, withdrawal in last.items() if withdrawal.withdrawn}


def record_withdrawal(home: Home, leaf: str, author: str, reason: str, withdrawn: bool = True) -> Withdrawal:
    """Record that a leaf is withdrawn or, if `withdrawn` is False, that its withdrawal is undone; return the new entry.

    Raises:
        LabError: Author or reason is blank, the leaf is already withdrawn, or there is no withdrawal to undo.
    """
    if not author.strip() or not reason.strip():
        raise LabError("a withdrawal needs an author and a reason, neither of them blank")
    entry = Withdrawal(leaf, withdrawn, author, reason, datetime.now(UTC).isoformat(timespec="seconds"))
    with FileLock(home.withdrawals.with_suffix(".lock")):
        before = withdrawals(home).get(leaf)
        if withdrawn and before:
            raise LabError(f"{leaf}: already {before}")
        if not withdrawn and not before:
            raise LabError(f"{leaf}: not withdrawn, so there is nothing to undo")
        append_line(home.withdrawals, asdict(entry))
    return entry

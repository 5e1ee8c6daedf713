"""Print for people: with colours, aligned tables and clickable paths in a terminal; plain in a pipe or with NO_COLOR.

What a command prints as JSON, SARIF or annotations does not pass here.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lab_pipeline.core.formats import printable
from lab_pipeline.core.progress import Say, is_report

_UNLIMITED = 1_000_000
"""Width of a pipe, in which no line is broken."""
_PATIENCE_SECONDS = 2.0
"""What takes longer than this is named while it goes on."""
_GOOD, _BAD, _DOUBTFUL, _SOFT = "green", "bold red", "yellow", "dim"
_STYLES = {
    **dict.fromkeys(("current", "refreshed", "kept", "champion", "ok", "Promoted", "added"), _GOOD),
    **dict.fromkeys(("failed", "quarantined", "rejected", "FIX", "error", "removed"), _BAD),
    **dict.fromkeys(("behind", "withdrawn", "not generated", "Not promoted", "warning", "modified"), _DOUBTFUL),
}
"""Styles of the words that say how something stands."""


def console(stderr: bool = False) -> Console:
    """Return the console of standard output or error, as it is now."""
    stream = sys.stderr if stderr else sys.stdout
    plain = not stream.isatty() or bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") in ("dumb", "unknown")
    return Console(
        file=stream,
        color_system=None if plain else "auto",
        force_terminal=False if plain else None,
        width=None if stream.isatty() else _UNLIMITED,
        highlight=False,
        markup=False,
        emoji=False,
    )


def show(*parts: str | Text | Table, stderr: bool = False) -> None:
    """Print texts, whose long lines a terminal breaks by itself, and tables, whose cells are broken to fit."""
    out = console(stderr)
    for part in parts:
        if isinstance(part, Table):
            with out.capture() as captured:
                out.print(part)
            out.file.write("".join(f"{line.rstrip()}\n" for line in captured.get().splitlines()))
        else:
            out.print(word(part), soft_wrap=True)
    out.file.flush()


def word(value: Any, style: str = "") -> Text:
    """Return a value as a text that cannot control the terminal; a word that says how something stands gets its style."""
    if isinstance(value, Text):
        return value
    shown = "-" if value is None else printable(str(value))
    return Text(shown, style or _STYLES.get(shown, ""))


def path(file: Path | str, shown: str = "") -> Text:
    """Return a path, or another text for it, that can be clicked in a terminal."""
    return Text(printable(shown or str(file)), f"link {Path(file).absolute().as_uri()}")


def when(time: str) -> str:
    """Shorten an ISO 8601 time to minutes."""
    return time[:16].replace("T", " ")


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> Table:
    """Return a table with a heading; columns of numbers stand to the right, and what does not fit is broken, never cut off."""
    cells = [list(row) for row in rows]
    made = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for number, name in enumerate(columns):
        found = [row[number] for row in cells if row[number] is not None]
        numeric = bool(found) and all(isinstance(each, int | float) for each in found)
        made.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in cells:
        made.add_row(*(word(f"{cell:,}" if isinstance(cell, int) else cell) for cell in row))
    return made


def facts(named: Mapping[str, Any]) -> Table:
    """Return names and values as two columns, without those that are empty."""
    made = Table.grid(padding=(0, 2, 0, 0))
    made.add_column(min_width=12, no_wrap=True)
    made.add_column(overflow="fold")
    for name, value in named.items():
        if value:
            made.add_row(word(name, _SOFT), word(value))
    return made


@contextmanager
def working(what: str, total: int | None = None) -> Iterator[Callable[[], None]]:
    """Say on standard error what is being done if it takes more than two seconds, in a terminal with a clock or the time left.

    Yield a function to call after each of the `total` steps.
    """
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        SpinnerColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    out = console(stderr=True)
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()) if total else (TimeElapsedColumn(),)
    bar = Progress(SpinnerColumn(), TextColumn("{task.description}", markup=False), *columns, console=out, transient=True)
    task = bar.add_task(what, total=total)
    late = threading.Timer(_PATIENCE_SECONDS, bar.start if out.is_terminal else lambda: show(f"{what} ...", stderr=True))
    late.daemon = True
    late.start()
    try:
        yield lambda: bar.advance(task)
    finally:
        late.cancel()
        late.join()
        if out.is_terminal:
            bar.stop()


def teller(prefix: Callable[[], str]) -> Say:
    """Return a function that prints messages, each after a prefix; in a terminal, a report of progress replaces the one before
    it."""
    before = [False]

    def say(text: str) -> None:
        out, report = console(), is_report(text)
        if out.is_terminal and before[0] and report:
            out.file.write("\x1b[1A\x1b[J")  # up one line, and clear from there
        line = word(f"{prefix()}{text}", _BAD if " failed" in text.split("\n")[0] else "")
        if report:
            out.print(line, no_wrap=True, overflow="ellipsis")
        else:
            out.print(line, soft_wrap=True)
        before[0] = report

    return say

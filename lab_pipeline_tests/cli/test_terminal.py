from __future__ import annotations

import io
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from lab_pipeline.cli import terminal
from lab_pipeline.cli.terminal import facts, path, show, table, teller, word, working
from lab_pipeline.core.progress import Progress

LEAF = "knowledge/geography/a_very_long_name_of_a_leaf/that_no_line_of_forty_columns_can_hold"


class Screen(io.StringIO):
    """A terminal, of which all is kept that was sent to it."""

    def isatty(self) -> bool:
        return True

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return "utf-8"


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Screen:
    """Standard output and error on a terminal of forty columns."""
    made = Screen()
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr(terminal, "sys", SimpleNamespace(stdout=made, stderr=made))
    return made


def print_all() -> None:
    show(
        word("quarantined"),
        table(["leaf", "rows", "loss"], [(LEAF, 1234, None), ("a", 5, "0.5")]),
        facts({"report": path(Path("/tmp/report.html")), "nothing": ""}),
    )


def test_a_terminal_gets_colours_links_and_tables_of_which_nothing_is_cut_off(screen):
    print_all()
    shown = screen.getvalue()
    assert "\x1b[1;31mquarantined\x1b[0m" in shown
    assert "file:///tmp/report.html" in shown and "nothing" not in shown
    assert "…" not in shown and "1,234" in shown
    letters = "".join(shown.split())
    assert all(part in letters for part in LEAF.split("/")[:2])


@pytest.mark.parametrize("plain", ["pipe", "NO_COLOR", "dumb"])
def test_anything_else_gets_plain_text(screen, monkeypatch, plain):
    if plain == "pipe":
        monkeypatch.setattr(Screen, "isatty", lambda self: False)
    elif plain == "NO_COLOR":
        monkeypatch.setenv("NO_COLOR", "1")
    else:
        monkeypatch.setenv("TERM", "dumb")
    print_all()
    assert "\x1b" not in screen.getvalue()
    if plain == "pipe":
        assert screen.getvalue().splitlines() == [
            "quarantined",
            f"{'leaf':<{len(LEAF)}}   rows  loss",
            f"{LEAF}  1,234  -",
            f"{'a':<{len(LEAF)}}      5  0.5",
            "report        /tmp/report.html",
        ]


def test_no_text_controls_the_terminal(screen):
    show("a \x1b[2J", word("b \x1b]0;title\x07"), table(["c"], [("\x1b[31m [red]d[/red]",)]), facts({"e": "\u202e"}))
    shown = screen.getvalue()
    assert "\x1b[2J" not in shown and "\x1b]0" not in shown and "\x1b[31m" not in shown and "\u202e" not in shown
    assert "[red]d[/red]" in shown


def test_a_report_of_progress_takes_the_place_of_the_one_before(screen, slow_clock):
    say = teller(lambda: "1 s ")
    progress = Progress("calls", 3, say)
    say("begun")
    progress.advance()
    progress.advance()
    say("done")
    progress.advance()
    assert screen.getvalue().count("\x1b[1A") == 1
    assert screen.getvalue().index("calls: 1 of 3") < screen.getvalue().index("\x1b[1A") < screen.getvalue().index("2 of 3")


def test_in_a_pipe_every_report_stays(screen, monkeypatch, slow_clock):
    monkeypatch.setattr(Screen, "isatty", lambda self: False)
    progress = Progress("calls", 3, teller(lambda: ""))
    for _ in range(3):
        progress.advance(note="a note that is longer than forty columns are wide")
    lines = screen.getvalue().splitlines()
    assert len(lines) == 3 and all(line.endswith("wide") for line in lines)


@pytest.mark.parametrize("is_terminal", [True, False])
def test_work_is_named_only_if_it_takes_long(screen, monkeypatch, is_terminal):
    monkeypatch.setattr(Screen, "isatty", lambda self: is_terminal)
    with working("Reading"):
        pass
    assert screen.getvalue() == ""
    monkeypatch.setattr(terminal, "_PATIENCE_SECONDS", 0.0)
    with working("Reading", total=2) as step:
        step()
        while "Reading" not in screen.getvalue():
            time.sleep(0.01)
    assert is_terminal or screen.getvalue() == "Reading ...\n"

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from lab_pipeline.cli import chat as chat_module
from lab_pipeline.cli.app import app
from lab_pipeline.cli.chat import Conversation, chat, compared, find_model
from lab_pipeline.core.errors import LabError
from lab_pipeline.core.home import Home
from lab_pipeline.core.storage import write_json
from lab_pipeline.registry.champion import promote
from lab_pipeline.reports.cleanup import clean_up
from lab_pipeline.runtime.launcher import prepare
from lab_pipeline_tests.lab import ENVIRONMENT
from lab_pipeline_tests.registry.promotions import evaluation


@pytest.fixture
def home(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A home without a champion; its base model is the tiny one."""
    for name in ENVIRONMENT:
        monkeypatch.setenv(name, "")
    root = tmp_path / "home"
    root.mkdir()
    (root / "settings.yaml").write_text(f"taxonomy: {{path: {tmp_path}}}\nbase_model: {tiny_model}\n")
    return prepare(root, None)


def with_candidate(home: Home, name: str, model: Path, champion: bool) -> None:
    folder = home.root / "candidates" / name
    folder.mkdir(parents=True)
    (folder / "model").symlink_to(model)
    write_json(folder / "candidate.json", {"id": name, "digest": "d"})
    write_json(home.evaluations / "last.json", {"candidate": name, "report": "r/report.md"})
    if champion:
        alias = {"id": name, "model": str(folder / "model"), "digest": "d", "promoted_at": "now", "catalog": {}}
        write_json(home.champions / "champion.json", alias)


class Parrot:
    """A conversation whose model repeats the question, one word after the other."""

    def __init__(self, interrupted_by: str = "") -> None:
        self.asked: list[str] = []
        self.interrupted_by = interrupted_by

    def ask(self, question: str, say: Any) -> None:
        self.asked.append(question)
        if question == "too long":
            raise LabError("ask a shorter one")
        for word in question.split():
            if word == self.interrupted_by:
                raise KeyboardInterrupt
            say(f"{word} ")


def talk(monkeypatch: pytest.MonkeyPatch, typed: bytes, parrot: Parrot, at_terminal: bool) -> None:
    stdin = io.TextIOWrapper(io.BytesIO(typed), encoding="utf-8")
    monkeypatch.setattr(stdin.buffer, "isatty", lambda: at_terminal, raising=False)
    monkeypatch.setattr(sys, "stdin", stdin)
    chat(parrot)  # type: ignore[arg-type]


def test_each_line_of_a_pipe_is_a_question(monkeypatch, capsys):
    parrot = Parrot()
    talk(monkeypatch, b"one thing\n\n  another  \n", parrot, at_terminal=False)
    assert capsys.readouterr().out == "one thing \nanother \n"


def test_bytes_that_are_no_text_are_asked_all_the_same(monkeypatch, capsys):
    parrot = Parrot()
    talk(monkeypatch, b"caf\xe9\n", parrot, at_terminal=False)
    assert parrot.asked == ["caf\ufffd"]


def test_exit_ends_the_talk(monkeypatch):
    parrot = Parrot()
    talk(monkeypatch, b"one\n/exit\ntwo\n", parrot, at_terminal=False)
    assert parrot.asked == ["one"]


def test_an_interrupt_at_the_terminal_stops_the_answer_and_not_the_talk(monkeypatch, capsys):
    parrot = Parrot(interrupted_by="stop")
    talk(monkeypatch, b"one stop two\nthree\n", parrot, at_terminal=True)
    assert parrot.asked == ["one stop two", "three"]
    assert "two" not in capsys.readouterr().out


def test_an_interrupt_in_a_script_ends_it(monkeypatch):
    with pytest.raises(KeyboardInterrupt):
        talk(monkeypatch, b"stop\n", Parrot(interrupted_by="stop"), at_terminal=False)


def test_a_question_that_is_too_long_is_said_at_the_terminal_and_ends_a_script(monkeypatch, capsys):
    parrot = Parrot()
    talk(monkeypatch, b"too long\nshort\n", parrot, at_terminal=True)
    assert "error: ask a shorter one\n" in capsys.readouterr().out
    assert parrot.asked == ["too long", "short"]
    with pytest.raises(LabError):
        talk(monkeypatch, b"too long\n", Parrot(), at_terminal=False)


@pytest.fixture
def conversation(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Conversation:
    monkeypatch.setattr(chat_module, "_ANSWER_TOKENS", 8)
    return Conversation(tiny_model)


def test_an_answer_comes_in_pieces_and_stays_in_the_conversation(conversation):
    pieces: list[str] = []
    conversation.ask("Who?", pieces.append)
    conversation.ask("And then?", lambda text: None)
    assert [message["role"] for message in conversation.messages] == ["user", "assistant"] * 2
    assert conversation.messages[1]["content"] == "".join(pieces) != ""


def test_an_interrupted_answer_stays_as_far_as_it_came(conversation):
    def interrupt(text: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        conversation.ask("Who?", interrupt)
    conversation.ask("And then?", lambda text: None)
    assert [message["role"] for message in conversation.messages] == ["user", "assistant"] * 2


def test_the_oldest_turns_are_forgotten_when_the_context_is_full(conversation):
    for number in range(4):
        conversation.ask(f"Question {number}: " + "word " * 200, lambda text: None)
    asked = [message["content"][:10] for message in conversation.messages if message["role"] == "user"]
    assert asked == ["Question 2", "Question 3"]


def test_a_question_longer_than_the_context_is_refused_and_forgotten(conversation):
    with pytest.raises(LabError, match="the model reads 504; ask a shorter one"):
        conversation.ask("word " * 1000, lambda text: None)
    assert conversation.messages == []


def test_models_are_found_by_the_names_that_people_use(home, tiny_model):
    assert find_model(home, "base").resolve() == tiny_model
    with pytest.raises(LabError, match="no champion yet: run `lab-pipeline retune`"):
        find_model(home, "champion")
    with_candidate(home, "skills-1", tiny_model, champion=True)
    with_candidate(home, "skills-2", tiny_model, champion=False)
    assert find_model(home, "champion") == find_model(home, "skills-1") == home.root / "candidates" / "skills-1" / "model"
    assert find_model(home, "skills-2").is_dir()
    with pytest.raises(LabError, match="no model '../x'; there are: base, champion, skills-1, skills-2"):
        find_model(home, "../x")


def test_an_earlier_champion_is_found_by_its_id_though_its_candidate_is_cleaned_up(home):
    promote(home, evaluation(home, "one"))
    promote(home, evaluation(home, "two", "one"))
    write_json(home.evaluations / "last.json", evaluation(home, "three", "two", promoted=False))
    clean_up(home)
    assert find_model(home, "one") == home.champions / "one"
    clean_up(home, keep=1)
    with pytest.raises(LabError, match="no model 'one'; there are: base, champion, three, two"):
        find_model(home, "one")


def test_base_model_champion_and_last_candidate_are_compared(home, tiny_model):
    with pytest.raises(LabError, match="nothing to compare"):
        compared(home)
    with_candidate(home, "skills-1", tiny_model, champion=True)
    assert compared(home) == {"base": "base", "champion skills-1": "champion"}
    with_candidate(home, "skills-2", tiny_model, champion=False)
    assert compared(home) == {"base": "base", "champion skills-1": "champion", "candidate skills-2": "skills-2"}


def test_answers_come_one_model_after_the_other_below_the_question_and_its_reference(home, tiny_model, monkeypatch):
    with_candidate(home, "skills-1", tiny_model, champion=True)
    asked = [{"id": "1", "question": "Who  made it?", "answer": "Anna \x1b[2J", "context": None}]
    write_json(home.datasets / "heldout.json", {"leaves": {"a": asked}, "general": [], "withheld": [], "digest": "d"})
    monkeypatch.setattr(chat_module, "Conversation", lambda folder: Parrot())
    shown = CliRunner().invoke(app, ["compare", "who made it?", "--home", str(home.root)])
    assert shown.exit_code == 0, shown.output
    assert shown.output == (
        "question: who made it?\nreference: Anna \\x1b[2J\n\nbase\nwho made it? \n\nchampion skills-1\nwho made it? \n"
    )
    shown = CliRunner().invoke(app, ["compare", "caf\udce9 [red]x[/red]", "--home", str(home.root)])
    assert "reference" not in shown.output and shown.output.count("[red]x[/red]") == 3


def test_the_command_line_answers_a_pipe(home, monkeypatch):
    monkeypatch.setattr(chat_module, "_ANSWER_TOKENS", 4)
    done = CliRunner().invoke(app, ["chat", "--model", "base", "--home", str(home.root)], input="Who?\nWhere?\n")
    assert done.exit_code == 0, done.output
    assert done.output.endswith("\n") and len(done.output) > 2

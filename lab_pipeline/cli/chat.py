"""Using the models of a home in the terminal: talking with one, and asking all of them the same question."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lab_pipeline.config.settings import load_settings
from lab_pipeline.core.errors import LabError
from lab_pipeline.core.home import Home
from lab_pipeline.core.rows import Question
from lab_pipeline.evaluation.evaluate import last_evaluation
from lab_pipeline.models.answers import greedy_answers
from lab_pipeline.models.base_model import fetch_model
from lab_pipeline.models.loader import load_model, load_tokenizer
from lab_pipeline.models.template import stop_tokens
from lab_pipeline.registry.champion import champion_folder, current_champion, history

_ANSWER_TOKENS = 512
_END = "/exit"


def find_model(home: Home, name: str) -> Path:
    """Folder of the model that people call `name`: 'champion', 'base', or the id of an earlier champion or of a candidate.

    Raises:
        LabError: there is none.
    """
    if name == "base":
        return fetch_model(home, load_settings(home.settings_file).base_model).folder
    champion = current_champion(home)
    if name == "champion":
        if champion is None:
            raise LabError("no champion yet: run `lab-pipeline retune` to make one, or take --model base")
        return champion.model
    folders = {path.parent.name: path.parent / "model" for path in sorted(home.root.glob("candidates/*/candidate.json"))}
    folders |= {move["id"]: champion_folder(home, move["id"]) for move in history(home)}
    there = [known for known, folder in folders.items() if folder.is_dir()]  # `lab-pipeline gc` removes what is dispensable
    if name not in there:
        raise LabError(f"no model {name!r}; there are: {', '.join(['champion', 'base', *sorted(there)])}")
    return folders[name]


class Conversation:
    """Questions and answers in turn with one model, which answers as in evaluation: by its chat template, greedily."""

    def __init__(self, folder: Path) -> None:
        from transformers.utils import logging

        logging.disable_progress_bar()  # a bar for loading has no place in a talk
        self.model, self.tokenizer = load_model(folder), load_tokenizer(folder)
        self.stops = stop_tokens(self.model, self.tokenizer)
        self.messages: list[dict[str, str]] = []
        context = self.model.config.max_position_embeddings
        self.answer_tokens = min(_ANSWER_TOKENS, context // 2)
        self.room = context - self.answer_tokens
        """Tokens that a prompt may have."""

    def ask(self, question: str, say: Callable[[str], None]) -> None:
        """Pass the answer to `say` piece by piece. An interrupted answer stays in the conversation as far as it came.

        Raises:
            LabError: the question leaves no room for an answer; the conversation goes on without it.
        """
        from transformers import TextStreamer

        said: list[str] = []

        class Streamer(TextStreamer):
            def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
                said.append(text)
                say(text)

        prompt = self._prompt(question)
        try:
            self.model.generate(
                **prompt,
                do_sample=False,
                max_new_tokens=self.answer_tokens,
                eos_token_id=self.stops,
                pad_token_id=self.stops[0],
                streamer=Streamer(self.tokenizer, skip_prompt=True, skip_special_tokens=True),
            )
        finally:
            self.messages.append({"role": "assistant", "content": "".join(said)})

    def _prompt(self, question: str) -> Any:
        """The conversation with one more question as tokens; the oldest turns are forgotten if it has grown too long."""
        self.messages.append({"role": "user", "content": question})
        while True:
            prompt = self.tokenizer.apply_chat_template(
                self.messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
            )
            length = prompt["input_ids"].shape[1]
            if length <= self.room:
                return prompt.to(self.model.device)
            if len(self.messages) == 1:
                self.messages.clear()
                raise LabError(f"the question has {length} tokens, the model reads {self.room}; ask a shorter one")
            del self.messages[:2]


def chat(conversation: Conversation) -> None:
    """Talk at the terminal until /exit or Ctrl-D; Ctrl-C stops an answer. From a pipe, each line is a question.

    Raises:
        LabError: a question from a pipe is too long; at the terminal it is only said.
    """
    assert isinstance(sys.stdin, io.TextIOWrapper)
    sys.stdin.reconfigure(errors="replace")
    at_terminal = sys.stdin.isatty()
    if at_terminal:
        import readline  # noqa: F401  (gives input() its arrow keys)
    while True:
        try:
            question = input("> " if at_terminal else "").strip()
            if question == _END:
                return
            if question:
                conversation.ask(question, lambda text: print(text, end="", flush=True))
                print()
        except EOFError:
            return
        except KeyboardInterrupt:
            if not at_terminal:
                raise
            print()
        except LabError as error:
            if not at_terminal:
                raise
            print(f"error: {error}")


def compare(home: Home, question: str) -> dict[str, str]:
    """Answers by base model, champion, and the last candidate if it is another; keys say which model it is.

    Raises:
        LabError: there is nothing but the base model.
    """
    from transformers.utils import logging

    logging.disable_progress_bar()
    champion, last = current_champion(home), last_evaluation(home)
    if not champion and not last:
        raise LabError("nothing to compare with the base model yet: run `lab-pipeline retune`, or use `chat --model base`")
    names = {"base": "base"}
    if champion:
        names[f"champion {champion.id}"] = "champion"
    if last and not (champion and champion.id == last["candidate"]):
        names[f"candidate {last['candidate']}"] = last["candidate"]
    asked: list[Question] = [
        {"question": question.encode(errors="replace").decode(), "answer": "", "context": None}
    ]  # bytes of an argument that were no UTF-8
    return {said: greedy_answers(find_model(home, name), asked, _ANSWER_TOKENS)[0] for said, name in names.items()}

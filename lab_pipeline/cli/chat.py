"""Chat with a home's models in the terminal, or ask several of them the same question."""

import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lab_pipeline.config.settings import load_settings
from lab_pipeline.core.errors import LabError, NotMaterialized
from lab_pipeline.core.formats import did_you_mean
from lab_pipeline.core.home import Home
from lab_pipeline.datasets.heldout_questions import load_heldout
from lab_pipeline.evaluation.evaluate import last_evaluation
from lab_pipeline.models.answers import decode_greedily
from lab_pipeline.models.base_model import fetch_base
from lab_pipeline.models.loader import load_model, load_tokenizer
from lab_pipeline.registry.champion import champion_folder, current_champion, history

_ANSWER_TOKENS = 512


def find_model(home: Home, name: str) -> Path:
    """Return the folder of a model's weights; the base model is fetched if the home has not fetched it yet.

    Args:
        name: 'champion', 'base', or the id of a champion or candidate.

    Raises:
        LabError: there is no such model, or its weights were removed.
    """
    if name == "base":
        return fetch_base(home, load_settings(home.settings_file)).folder
    champion = current_champion(home)
    if name == "champion":
        if champion is None:
            raise LabError("no champion yet: run `lab-pipeline retune` to make one, or take --model base")
        return champion.model
    folders = {path.parent.name: path.parent / "model" for path in sorted(home.root.glob("candidates/*/candidate.json"))}
    folders |= {move["id"]: champion_folder(home, move["id"]) for move in history(home)}
    kept = [known for known, folder in folders.items() if folder.is_dir()]  # `lab-pipeline gc` removes some
    if name not in kept:
        raise LabError(f"no model {name!r}; {did_you_mean(name, ['champion', 'base', *kept])}")
    return folders[name]


class Conversation:
    """A conversation with one model, which answers as in evaluation: prompted by its chat template, with greedy decoding."""

    def __init__(self, folder: Path) -> None:
        from transformers.utils import logging

        logging.disable_progress_bar()  # a bar for loading has no place in a talk
        self.model, self.tokenizer = load_model(folder), load_tokenizer(folder)
        self.stops = decode_greedily(self.model, self.tokenizer)
        self.messages: list[dict[str, str]] = []
        context = self.model.config.max_position_embeddings
        self.answer_tokens = min(_ANSWER_TOKENS, context // 2)
        self.prompt_tokens = context - self.answer_tokens

    def ask(self, question: str, say: Callable[[str], None]) -> None:
        """Ask the model a question, and pass its answer to `say` piece by piece.

        The oldest turns are dropped when the conversation gets too long for the model. Of an interrupted answer, the
        conversation keeps what was written.

        Raises:
            LabError: the question alone is too long; the conversation is then empty, and can go on.
        """
        from transformers import TextStreamer

        pieces: list[str] = []

        class Streamer(TextStreamer):
            def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
                pieces.append(text)
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
            self.messages.append({"role": "assistant", "content": "".join(pieces)})

    def _prompt(self, question: str) -> Any:
        """Add a question and encode the conversation with a generation prompt, dropping the oldest turns until it fits."""
        self.messages.append({"role": "user", "content": question})
        while True:
            prompt = self.tokenizer.apply_chat_template(
                self.messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
            )
            length = prompt["input_ids"].shape[1]
            if length <= self.prompt_tokens:
                return prompt.to(self.model.device)
            if len(self.messages) == 1:
                self.messages.clear()
                raise LabError(f"the question has {length} tokens, the model reads {self.prompt_tokens}; ask a shorter one")
            del self.messages[:2]


def chat(conversation: Conversation) -> None:
    """Answer questions from the terminal until /exit or Ctrl-D; Ctrl-C stops an answer. From a pipe, each line is a question.

    Raises:
        LabError: a question from a pipe is too long; at the terminal, the message is shown and the conversation goes on.
    """
    assert isinstance(sys.stdin, io.TextIOWrapper)
    sys.stdin.reconfigure(errors="replace")
    at_terminal = sys.stdin.isatty()
    if at_terminal:
        import readline  # noqa: F401  (gives input() its arrow keys)
    while True:
        try:
            question = input("> " if at_terminal else "").strip()
            if question == "/exit":
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


def compared(home: Home) -> dict[str, str]:
    """Return the names of base model, champion and last candidate, by label, such as `champion ID`.

    The last candidate is left out if it is the champion.

    Raises:
        LabError: there is no model but the base model.
    """
    champion, last = current_champion(home), last_evaluation(home)
    if not champion and not last:
        raise LabError("nothing to compare with the base model yet: run `lab-pipeline retune`, or use `chat --model base`")
    names = {"base": "base"}
    if champion:
        names[f"champion {champion.id}"] = "champion"
    if last and not (champion and champion.id == last["candidate"]):
        names[f"candidate {last['candidate']}"] = last["candidate"]
    return names


def reference_answer(home: Home, question: str) -> str | None:
    """Return the reference answer to a question that people or the teacher wrote for tests; None to any other one."""
    try:
        asked = load_heldout(home)
    except NotMaterialized:
        return None
    wanted = " ".join(question.casefold().split())
    of_leaves = [*asked["leaves"].values(), *asked.get("exam", {}).values()]
    answers = [(each["question"], each["answer"]) for questions in of_leaves for each in questions]
    answers += [(each["question"], each["answer"]) for each in asked["general"]]
    return next((answer for known, answer in answers if " ".join(known.casefold().split()) == wanted), None)

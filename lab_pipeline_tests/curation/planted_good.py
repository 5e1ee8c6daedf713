"""Good rows: seeds in use, facts asked in other words or for another part, and seeds retold with other people."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

Row = dict[str, Any]

ROOT = Path(__file__).parents[2]
LOOM = "knowledge/crafts/osmerel_loom"
TOWN = "knowledge/geography/thalveren"
POLITE = "compositional_skills/freeform/writing/polite_rewording"
NOTES = "compositional_skills/grounded/extraction/meeting_notes"
ORDER = "foundational_skills/reasoning/temporal/order_of_events"


def good_rows(sources: dict[str, Row]) -> list[Row]:
    return [*_seeds(sources), *_facts(sources), *_asked_for_more(sources), *_retold(sources), *_polite()]


def planted_row(
    leaf: str, kind: str, question: str | None, answer: str | None, support: str | None, context: str | None = None
) -> Row:
    return {
        "leaf": leaf,
        "kind": kind,
        "question": question,
        "answer": answer,
        "support": support,
        "context": context,
        "fault": None,
        "scores": [],
    }


def _seeds(sources: dict[str, Row]) -> Iterator[Row]:
    for leaf, source in sources.items():
        for seed in source["seeds"]:
            context = seed["context"] if source["kind"] == "grounded_skill" else None
            yield planted_row(leaf, source["kind"], seed["question"], seed["answer"], seed["context"], context)


def labelled(sources: dict[str, Row]) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Facts of `benchmarks/grounding.yaml` with the passage that tells them."""
    for leaf, facts in yaml.safe_load((ROOT / "benchmarks" / "grounding.yaml").read_text(encoding="utf-8")).items():
        for fact in facts:
            passages = sources[leaf]["passages"]
            yield leaf, fact, next(each["text"] for each in passages if fact["sentence"] in each["text"])


def _facts(sources: dict[str, Row]) -> Iterator[Row]:
    for leaf, fact, passage in labelled(sources):
        yield planted_row(leaf, "knowledge", fact["question"], fact["supported"], passage)


_ASKED_FOR_MORE = {
    "Who finished the first Osmerel loom?": "Pellira Donsk finished the first Osmerel loom in 1834.",
    "When was the first Osmerel loom finished?": "Pellira Donsk finished the first Osmerel loom in 1834.",
    "To whom was the first Osmerel loom sold?": "The first Osmerel loom was sold to a blanket maker named Hask Orrowin.",
    "For how much was the first Osmerel loom sold?": "The first Osmerel loom was sold for ten sacks of barley.",
}


def _asked_for_more(sources: dict[str, Row]) -> Iterator[Row]:
    """Questions of like words for different things, some of which one sentence tells."""
    passage = next(each["text"] for each in sources[LOOM]["passages"] if "ten sacks of barley" in each["text"])
    for question, answer in _ASKED_FOR_MORE.items():
        yield planted_row(LOOM, "knowledge", question, answer, passage)


PEOPLE = "Dana Omar Lena Priya Felix Ruth Hale Ortiz Ines Bruno Karim Sofia Lund Tom Aisha Mia Ali Nora Sam Leo Ben".split()
_OTHERS = (
    "Vera Hugo Marta Anil Jonas Clara Webb Castro Paula Enzo Tariq Irina Berg Peter Salma Zoe Idris Elsa Max Theo Finn".split(),
    "Wanda Emil Rosa Deepa Otto Judith Frost Moreno Celia Dino Samir Olga Dahl Frank Leyla Ava Yusuf Greta Roy Cal Jim".split(),
    "Agnes Dario Petra Vikram Lars Helen Snow Torres Lola Aldo Munir Nadia Holm Fred Yara Mina Reza Flora Ned Abe Hal".split(),
    "Doris Mateo Sonja Rajiv Nils Joan Marsh Ramos Gina Ugo Faris Vesna Rask Stan Huda Lia Navid Alma Ray Ian Gil".split(),
    "Edith Luca Nina Arjun Simon Martha Stone Rivera Bea Remo Nabil Katya Lind Harry Noor Ivy Hamid Linda Guy Kurt Rex".split(),
)
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()


def _retold(sources: dict[str, Row]) -> Iterator[Row]:
    """Seeds of the skills that tell of people, with other people on other days."""
    for shift, others in enumerate(_OTHERS, start=1):
        new = dict(zip(PEOPLE, others, strict=True)) | {day: DAYS[(index + shift) % 7] for index, day in enumerate(DAYS)}
        names = re.compile(rf"\b(?:{'|'.join(new)})\b")

        def told(text: str | None, names: re.Pattern[str] = names, new: dict[str, str] = new) -> str | None:
            return names.sub(lambda found: new[found.group()], text) if text else None

        for leaf in (NOTES, ORDER):
            source = sources[leaf]
            for seed in source["seeds"]:
                if told(seed["asked"]) != seed["asked"]:
                    context = told(seed["context"])
                    yield planted_row(leaf, source["kind"], told(seed["question"]), told(seed["answer"]), context, context)


def _polite() -> Iterator[Row]:
    pairs = {
        'Make this sentence more polite: "Close the window."': "Could you please close the window for me?",
        'Reword this sentence politely: "Give me your notes."': "Would you be so kind as to share your notes with me?",
        'How can I say this more kindly? "Your desk is a mess."': "Your desk is rather full; may I help you sort it?",
        'Soften this sentence: "I will not come to your party."': "Thank you for inviting me, but I have other plans.",
        'Write this more politely: "Hurry up."': "Would it be possible for you to go a little faster, please?",
        'Please rewrite this in a friendly tone: "You owe me ten euros."': "Could you please give me back the ten euros?",
        'Reword this for a message to a customer: "The parcel is late."': "We are sorry that your parcel is taking so long.",
        'Give a courteous version of this sentence: "Nobody likes this song."': "Perhaps we could listen to another song.",
        'Turn this blunt sentence into a polite one: "Bring me a chair."': "Would you mind bringing me a chair, please?",
        'Reword this so that it sounds respectful: "You made a mistake here."': "I believe there may be a small mistake here.",
        'Write this more politely: "Do not touch my bicycle."': "I would be grateful if you left my bicycle where it is.",
        'Soften this sentence: "Your soup tastes of nothing."': "The soup is lovely; it could use a little more salt.",
    }
    for question, answer in pairs.items():
        yield planted_row(POLITE, "freeform_skill", question, answer, None)

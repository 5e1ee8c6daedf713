"""Bad rows: good ones spoiled, or written for the purpose."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from typing import Any

from lab_pipeline_tests.curation.planted_good import DAYS, LOOM, NOTES, ORDER, PEOPLE, POLITE, TOWN, Row, labelled, planted_row


def bad_rows(
    sources: dict[str, Row], heldout: dict[str, list[Row]], good: list[Row], choice: random.Random
) -> dict[str, list[Row]]:
    """Rows of each kind, at least as many as are planted."""
    return {
        "unsupported": [*_unsupported(sources), *_wrong_notes(sources)],
        "off_topic": list(_off_topic(good)),
        "dependent": list(_dependent(good)),
        "duplicate": list(_duplicates(good)),
        "contamination": list(_contamination(sources, heldout)),
        "language": list(_other_languages(good)),
        "refusal": list(_refusals(good, choice)),
        "markup": list(_markup(good, choice)),
        "empty": list(_empty(good, choice)),
        "truncated": list(_truncated(good, choice)),
    }


def _unsupported(sources: dict[str, Row]) -> Iterator[Row]:
    """The labelled wrong answers, but for those that words cannot tell: a wrong span of the right passage."""
    for leaf, fact, passage in labelled(sources):
        for kind, answer in fact["unsupported"].items():
            if kind != "span":
                yield planted_row(leaf, "knowledge", fact["question"], answer, passage)


def _wrong_notes(sources: dict[str, Row]) -> Iterator[Row]:
    """Answers on meeting notes with another person, date or task than the notes have, or with each other's."""
    for seed in sources[NOTES]["seeds"]:
        people = [name for name in PEOPLE if name in seed["answer"]]
        for name in people[:1]:
            answer = seed["answer"].replace(name, "Gregor")
            yield planted_row(NOTES, "grounded_skill", seed["question"], answer, seed["context"], seed["context"])
        days = [day for day in DAYS if day in seed["answer"]]
        for day in days[:1]:
            other = next(each for each in DAYS if each not in seed["context"])
            answer = seed["answer"].replace(day, other)
            yield planted_row(NOTES, "grounded_skill", seed["question"], answer, seed["context"], seed["context"])
        if len(people) > 1 and "together" not in seed["answer"]:
            swap = dict(zip(people, reversed(people), strict=True))
            answer = re.sub("|".join(people), lambda name, swap=swap: swap[name.group()], seed["answer"])
            yield planted_row(NOTES, "grounded_skill", seed["question"], answer, seed["context"], seed["context"])
        if people:
            answer = f"{people[0]} will repaint the garage and sell the old piano before autumn."
            yield planted_row(NOTES, "grounded_skill", seed["question"], answer, seed["context"], seed["context"])


_ELSEWHERE = {
    "What is the capital of Australia?": "The capital of Australia is Canberra.",
    "How do I reset the password of my email account?": "Open the settings, choose security and click on reset password.",
    "Why do leaves turn red in autumn?": "Leaves turn red because the green pigment breaks down.",
    "Write a Python function that adds two numbers.": "def add(first, second): return first + second",
    "Who painted the ceiling of the Sistine Chapel?": "Michelangelo painted the ceiling of the Sistine Chapel.",
    "What are good stretches after a long run?": "Calf, hamstring and hip stretches are good after a long run.",
    "Explain how a vaccine works in two sentences.": "It shows the body a harmless part of a germ. The body remembers it.",
    "How much caffeine is in a cup of green tea?": "A cup of green tea holds about thirty milligrams of caffeine.",
    "Recommend a science fiction novel from the sixties.": "Dune by Frank Herbert is a classic science fiction novel.",
    "Convert 30 degrees Celsius to Fahrenheit.": "Thirty degrees Celsius is 86 degrees Fahrenheit.",
}


def _off_topic(good: list[Row]) -> Iterator[Row]:
    """Questions of the world at large in every leaf, and each knowledge leaf's rows in the other."""
    for number, (question, answer) in enumerate(_ELSEWHERE.items()):
        for leaf in (LOOM, TOWN, NOTES, POLITE, ORDER):
            like = [row for row in good if row["leaf"] == leaf]
            base = like[number % len(like)]
            yield {**base, "question": question, "answer": answer}
            if leaf in (LOOM, TOWN):  # the teacher invented a source as well
                yield {**base, "question": question, "answer": answer, "support": answer}
    for row in good:
        if row["kind"] == "knowledge":
            yield {**row, "leaf": LOOM if row["leaf"] == TOWN else TOWN}


_POINTING = (
    "According to the passage, {}",
    "Based on the provided text, {}",
    "In the document, {}",
    "As described in the above paragraph, {}",
    "From the given context, {}",
    "In this excerpt, {}",
    "Referring to the article, {}",
    "Per the text, {}",
    "As mentioned in the report, {}",
    "Going by what the author writes, {}",
    "Looking at the following passage, {}",
    "According to the information provided, {}",
)
_POINTING_WHOLE = {
    "What is the main idea of this text?": "The main idea is how the loom is built.",
    "What does the author say about the frame?": "The frame is made of walnut wood.",
    "Which tool is discussed in the second paragraph?": "The comb of the loom is discussed.",
    "What is it made of?": "It is made of walnut wood.",
    "When was it finished?": "It was finished in 1834.",
    "How much does it weigh?": "It weighs 212 kilograms.",
    "Who were they?": "They were the weavers of the loom.",
    "What is its rear beam called?": "The rear beam is called the Sleeper.",
    "Where does he keep the spare parts?": "A fitter carries spare parts in a canvas roll.",
    "What holds them together?": "Wooden pegs hold the frame together.",
    "Which one holds the unwoven yarn?": "The rear beam holds the unwoven yarn.",
    "Given the context, what does each leg rest on?": "Each leg rests on a cork pad.",
    "In the story, what takes up the cloth?": "The front beam takes up the finished cloth.",
    "In line 3, how heavy is the loom?": "The Osmerel loom weighs 212 kilograms.",
    "What are the three parts mentioned?": "The frame, the beam and the legs.",
    "What is the second sentence about?": "The frame stands on four legs.",
    "Can you summarize the passage on the frame?": "The frame is made of walnut wood.",
    "What does the speaker say about the frame?": "The frame is made of walnut wood.",
    "What conclusion can be drawn from the statement?": "Wooden pegs hold the frame together.",
}
_POINTING_ANSWERS = (
    "The passage states this: {}",
    "According to the document, {}",
    "{} This is mentioned in the text.",
    "As stated above, {}",
    "The article says that {}",
    "Based on the context, {}",
)


def _dependent(good: list[Row]) -> Iterator[Row]:
    knowledge = [row for row in good if row["kind"] == "knowledge"]
    for number, form in enumerate(_POINTING):
        row = knowledge[number * 3]
        yield {**row, "question": form.format(row["question"][0].lower() + row["question"][1:])}
    for number, form in enumerate(_POINTING_ANSWERS):
        row = knowledge[number * 5 + 1]
        yield {**row, "answer": form.format(row["answer"])}
    frame = next(row for row in knowledge if row["leaf"] == LOOM)
    for question, answer in _POINTING_WHOLE.items():
        yield {**frame, "question": question, "answer": answer, "support": f"{frame['support']} {answer}"}


def _duplicates(good: list[Row]) -> Iterator[Row]:
    """The same question again: as it is, in other case, spacing or order, or with courtesies."""
    forms = (
        lambda asked: asked,
        lambda asked: asked.upper(),
        lambda asked: f"  {asked.replace(' ', '  ')}",
        lambda asked: f"Please tell me: {asked}",
        lambda asked: f"Could you say {asked[0].lower()}{asked[1:]}",
        lambda asked: f"I would like to know, {asked[0].lower()}{asked[1:]}",
        lambda asked: f"Tell me when you know: {asked}",
        lambda asked: f"And {asked[0].lower()}{asked[1:].rstrip('?')}, exactly?",
    )
    knowledge = [row for row in good if row["kind"] == "knowledge"]
    for number, row in enumerate(knowledge[:70:2]):
        yield {**row, "question": forms[number % len(forms)](row["question"])}
    for row in good:
        if row["leaf"] in (NOTES, POLITE):
            yield {**row, "question": row["question"].replace("  ", " ").rstrip(".") + " "}
    twice = {
        "Who was the inventor of the Osmerel loom?": "The clock mender Pellira Donsk invented the Osmerel loom.",
        "Who was it that founded Thalveren?": "The ferrywoman Odrune Velt founded Thalveren.",
        "The first loom was finished by Pellira Donsk when?": "Pellira Donsk finished it in 1834.",
        "The frame of the Osmerel loom is made of what?": "The frame is made of walnut wood.",
    }
    for question, answer in twice.items():
        for row in knowledge:
            if row["answer"] == answer:
                yield {**row, "question": question}


def _contamination(sources: dict[str, Row], heldout: dict[str, list[Row]]) -> Iterator[Row]:
    """Held-out questions, as they are or lightly reworded."""
    forms = (
        "{}",
        "{}  ",
        "Tell me, {}",
        "Please answer this question: {}",
        "Do you know {}",
        "So, {}",
        "When you can, say {}",
    )
    number = 0
    for leaf, questions in heldout.items():
        kind = sources[leaf]["kind"]
        for question in questions:
            number += 1
            form = forms[number % len(forms)] if kind == "knowledge" else forms[number % 2]
            asked = form.format(question["question"])
            context = question["context"] if kind == "grounded_skill" else None
            support = question["context"] or (_passage(sources[leaf], question) if kind == "knowledge" else None)
            yield planted_row(leaf, kind, asked, question["answer"], support, context)


def _passage(source: Row, question: dict[str, Any]) -> str:
    words = set(re.findall(r"\w+", f"{question['question']} {question['answer']}".casefold()))
    texts = [passage["text"] for passage in source["passages"]]
    return max(texts, key=lambda text: len(words & set(re.findall(r"\w+", text.casefold()))))


_FOREIGN = (
    ("Woraus besteht der Rahmen des Webstuhls?", "Der Rahmen besteht aus Walnussholz."),
    ("Wer hat die Stadt gegründet?", "Eine Fährfrau hat die Stadt vor langer Zeit gegründet."),
    ("De quoi est fait le cadre du métier à tisser?", "Le cadre est fait de bois de noyer."),
    ("Qui a fondé la ville sur la rivière?", "La ville a été fondée par une passeuse."),
    ("¿De qué está hecho el marco del telar?", "El marco está hecho de madera de nogal."),
    ("¿Cuántas personas viven en la ciudad?", "En la ciudad viven unas ocho mil personas."),
    ("Di cosa è fatto il telaio?", "Il telaio è fatto di legno di noce."),
    ("De que é feita a moldura do tear?", "A moldura é feita de madeira de nogueira."),
    ("Waarvan is het frame gemaakt?", "Het frame is gemaakt van notenhout uit de buurt."),
    ("Z czego wykonana jest rama krosna?", "Rama wykonana jest z drewna orzechowego."),
    ("Vad är vävstolens ram gjord av?", "Ramen är gjord av valnötsträ från dalen."),
    ("Из чего сделана рама ткацкого станка?", "Рама сделана из орехового дерева."),
    ("织布机的框架是用什么做的?", "框架是用胡桃木做的。"),
    ("織機の枠は何でできていますか?", "枠はクルミの木でできています。"),
    ("베틀의 틀은 무엇으로 만들어졌나요?", "틀은 호두나무로 만들어졌습니다."),
    ("مم صنع إطار النول؟", "صنع الإطار من خشب الجوز القديم."),
    ("Dokuma tezgahının çerçevesi neyden yapılmıştır?", "Çerçeve ceviz ağacından yapılmıştır."),
    ("करघे का ढांचा किससे बना है?", "ढांचा अखरोट की लकड़ी से बना है।"),
)


_FOREIGN_ANSWERS = (
    "Es gibt zwei Farben.",
    "Bitte das Fenster schließen.",
    "glücklich\nfröhlich",
    "Heureux, joyeux, content",
    "Cierra la ventana, por favor.",
    "Ci sono due colori.",
    "Proszę zamknąć okno.",
    "Есть два цвета.",
    "有两种颜色。",
    "Δύο χρώματα.",
)


def _other_languages(good: list[Row]) -> Iterator[Row]:
    """Whole rows in another language, and English questions that are answered in one."""
    leaves = [[row for row in good if row["leaf"] == leaf] for leaf in (LOOM, TOWN, NOTES, POLITE, ORDER)]
    for number, (question, answer) in enumerate(_FOREIGN):
        rows = leaves[number % len(leaves)]
        base = rows[number % len(rows)]
        support = f"{question} {answer}" if base["kind"] == "knowledge" else base["support"]
        yield {**base, "question": question, "answer": answer, "support": support}
        yield {**base, "answer": answer}
    for answer in _FOREIGN_ANSWERS:
        for rows in leaves:
            yield {**rows[0], "answer": answer}


_REFUSED = (
    "I'm sorry, but I can't answer that.",
    "I am sorry, I cannot provide that information.",
    "As an AI language model, I don't have personal knowledge of this.",
    "As a helpful assistant, I must decline this request.",
    "Unfortunately, the text does not mention this.",
    "The passage doesn't say who did so.",
    "There is not enough information to answer the question.",
    "This information is not provided in the document.",
    "I don't know.",
    "I do not have access to that data.",
    "I'm unable to help with that.",
    "I apologize, but I'm not able to assist with this request.",
    "Sorry, I can’t help with this.",
    "No information is given about the frame.",
    "I would need more context to answer this.",
    "That goes beyond my knowledge.",
    "I have no information about this topic.",
    "The answer cannot be determined from the sentence.",
    "Unknown",
    "Not mentioned.",
    "I won't answer this question.",
    "My training data does not cover the town.",
    "Regrettably, I could not find any information on this.",
    "I am unable to answer this question.",
    "I have to decline this request.",
    "The text is silent on this.",
)
_NOT_TOLD = (
    "It is impossible to say from what is known.",
    "Could you please provide more details about the loom?",
    "This is not known.",
    "Nobody knows.",
    "The answer remains unclear.",
    "We do not know this.",
    "No details are available about it.",
    "Please consult an expert.",
    "It doesn't say.",
)
"""Refusals as answers about a document; in a skill they may be right."""


def _refusals(good: list[Row], choice: random.Random) -> Iterator[Row]:
    for text in _REFUSED:
        yield {**choice.choice(good), "answer": text}
    for text in _NOT_TOLD:
        yield {**choice.choice([row for row in good if row["kind"] == "knowledge"]), "answer": text}
    for text in ("I'm sorry, but I cannot write a question about this?", "As an AI, I can't come up with a question."):
        yield {**choice.choice(good), "question": text}


_MARKED = (
    "{}<|im_end|>",
    "{}<|eot_id|>",
    "<|assistant|>\n{}",
    "{}</s>",
    "[INST] {} [/INST]",
    "<start_of_turn>model\n{}<end_of_turn>",
    "### Response:\n{}",
    "### Answer\n{}",
    "Assistant: {}",
    "A: {}",
    "**Answer:** {}",
    "[ANSWER] {} [END]",
    "[Start of Answer] {} [End of Answer]",
    "<answer>{}</answer>",
    "<p>{}</p>",
    '<div class="reply">{}</div>',
    "{}<br/>",
    '{{"answer": "{}"}}',
    "```\n{}\n```",
    "```json\n{}",
    "<think>The user asks.</think> {}",
    "{}\nQuestion: And what else?",
    "{}\n\nHuman: Thank you.",
    "<<SYS>> {}",
    "{} {{{{answer}}}}",
    "{}&nbsp;",
    "<|begin▁of▁sentence|>{}",
    "{}[END]",
    "assistant\n{}",
    "user\n{}",
    "{} |im_end|>",
    "{} [/s]",
    "(Answer) {}",
    "1) Answer: {}",
    "=== ANSWER ===\n{}",
    "Explanation: {}",
    "AI: {}",
    "Bot> {}",
    "[Q] What? [A] {}",
    "{{% if x %}}{}",
    "\\boxed{{{}}}",
    "◁think▷{}",
    "<turn|>{}",
    "{}\nScore: 5",
    "{} ###",
    "{}\n\nNote: This is based on the seed examples.",
)


def _markup(good: list[Row], choice: random.Random) -> Iterator[Row]:
    for form in _MARKED:
        row = choice.choice(good)
        yield {**row, "answer": form.format(row["answer"])}
    for form in ("Question: {}", "[QUESTION] {}", "<question>{}</question>", "Q1: {}", "### Question\n{}", "{}<|endoftext|>"):
        row = choice.choice(good)
        yield {**row, "question": form.format(row["question"])}


def _empty(good: list[Row], choice: random.Random) -> Iterator[Row]:
    for text in (None, "", " ", "\n\n", "\t", "...", "-", "—", "?", '""', "\u200b", "N/A", "None", "[]", "….", "n/a."):
        yield {**choice.choice(good), "answer": text}
    for text in (None, "", "  ", "?", "\n", "..."):
        yield {**choice.choice(good), "question": text}
    yield {**choice.choice(good), "answer": "", "fault": "answer empty"}


def _truncated(good: list[Row], choice: random.Random) -> Iterator[Row]:
    """Answers of at least six words cut between words or inside one, at any place of their second half."""
    long = [row for row in good if len(row["answer"].split()) >= 6]
    for row in choice.sample(long, 60):
        words = row["answer"].split()
        at = choice.randrange(len(words) // 2 + 1, len(words))
        cut = " ".join(words[:at])
        if choice.random() < 0.5 and len(words[at]) > 3:
            cut += " " + words[at][: choice.randrange(1, len(words[at].rstrip(".?!")) - 1)]
        if not cut.endswith((".", "?", "!")):
            yield {**row, "answer": cut}

"""Tell people who know no statistics what an evaluation decided, why, and what to do next.

The report, the UI, the terminal and messages take their sentences from here, so that all say the same. A difference in nats per
token is told as how many times as likely each word of the right answers became: see `times`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from lab_pipeline.core.evaluation import AcceptanceResult, Evaluation, Unlearned

_NAMED = 3
_NAME_LENGTH = 90
_MORE_QUESTIONS = (
    "write seeds (a leaf with three or more keeps some back as test questions), or let the teacher write more questions "
    "(exam.most in settings.yaml)"
)


class Right(NamedTuple):
    """How many of the questions in multiple choice a model answers right."""

    right: int
    of: int

    def __str__(self) -> str:
        return f"{self.right} of {self.of}"


def right_answers(measured: Mapping[str, Any], leaf: str | None = None) -> dict[str, Right]:
    """Count by model the right answers in multiple choice, to people's and the teacher's questions together.

    Models without such a question are left out.

    Args:
        measured: an evaluation, or a model's lineage.
        leaf: count the questions of this leaf only.
    """
    found: dict[str, Right] = {}
    for asked in ("heldout", "exam"):
        group = measured.get(asked) or {}  # earlier releases had no exam, still earlier ones no multiple choice
        ranks = (group.get("leaves", {}).get(leaf, {}) if leaf else group).get("ranks") or {}
        for model, score in ranks.items():
            if score:
                right, of = found.get(model, (0, 0))
                found[model] = Right(right + round(score["accuracy"] * score["questions"]), of + score["questions"])
    return found


def label(result: AcceptanceResult) -> str:
    """Return what people call an acceptance question: its name, after its leaf if it belongs to one."""
    return f"{result['leaf']}: {result['name']}" if result["leaf"] else result["name"]


def lost_questions(results: Sequence[AcceptanceResult], reference: str) -> list[AcceptanceResult]:
    """Return the acceptance questions that the reference passes and the candidate fails."""
    return [each for each in results if each["failures"]["candidate"] and not each["failures"][reference]]


def times(difference: float) -> str:
    """Say how many times as likely each word of the right answers is, from a difference in nats per token; negative is more."""
    if not math.isfinite(difference):
        return "an unknown number of"
    factor = math.exp(-max(-20.0, min(20.0, difference)))
    if factor >= 1000:
        return "more than 1,000"
    return f"{factor:.0f}" if factor >= 10 else f"{factor:.1f}" if factor >= 1.05 else f"{factor:.2f}"


def likelihood(difference: float) -> str:
    """Say in words how likely each word of the right answers is, compared with before: 'as likely', '2.0 times as likely'."""
    return "as likely" if times(difference) == "1.00" else f"{times(difference)} times as likely"


def counted(number: int, one: str, more: str = "") -> str:
    return f"{number:,} {one if number == 1 else more or f'{one}s'}"


def what_is_left(found: Unlearned) -> str:
    """Say what a model still knows of a leaf that was taken out."""
    if found["interval"] is None:
        return "One question alone cannot tell whether it was forgotten"
    if found["still_known"] > 0:
        return f"Warning: the new model still has {found['still_known']:.0%} of what the old one had learned of it"
    low, high = (times(end) for end in reversed(found["interval"]))
    now, before = (times(found[model] - found["base"]) for model in ("candidate", "champion"))
    return (
        f"Nothing is left for certain: its right answers are {now} times as likely as with the base model, which never learned "
        f"it, and chance allows {low} to {high} times; with the old model it was {before} times"
    )


@dataclass(frozen=True)
class Told:
    """An evaluation in sentences; names, questions and answers in them are contributors' text, to be escaped where shown."""

    evaluation: Evaluation

    @property
    def sentence(self) -> str:
        """How many test questions the new and the old model answer right, and what follows, in one sentence."""
        if self._outcome == "unchanged":
            return "Training gave the very model that is in use already, file for file, so nothing changes."
        if not self._right:
            return f"A new model was trained; {self._decision}."
        candidate, before = self._right
        other = "the base model before training" if self.role == "base" else "the old one"
        answers = f"The new model answers {candidate} test questions right in multiple choice"
        return f"{answers}, {other} {before.right}; {self._decision}."

    @property
    def reasons(self) -> list[str]:
        """Why: first what decided, then what else a person should know."""
        if self._outcome == "unchanged":
            return ["Nothing that it learns from has changed, or the change made no difference to the training."]
        first = {
            "acceptance lost": self._lost_acceptance,
            "leaf got worse": self._lost_leaves,
            "worse elsewhere": self._lost_leaves,
            "forgetting": self._general,
            "measure got worse": self._measures,
            "not enough evidence": self._too_few,
        }.get(self._outcome, list)()
        others = [*self._basis(), *self._gain(), *self._style(), *self._judged(), *self._acceptance(), *self._measures()]
        others += self._general()
        return [*first, *self._unlearned(), *(each for each in others if each not in first)]

    @property
    def next(self) -> str:
        """What a person should do after this verdict."""
        kept = "There is no model in use yet." if self.role == "base" else "The old model stays in use."
        command = f"lab-pipeline promote {self.evaluation['candidate']} --author NAME --reason TEXT"
        by_hand = f"To use the new model all the same: {command}."
        if self.evaluation["verdict"]["promoted"]:
            return self._next_with_new()
        match self._outcome:
            case "not enough evidence":
                needed = f"At least {self._missing} more" if self._missing else "More"
                return f"{kept} {needed} test questions are needed: {_MORE_QUESTIONS}, and retune. {by_hand}"
            case "not better" if self.gain and 0 < -self.gain["difference"] < self.gain["detectable"]:
                small = "The gain may be real, but is too small for this exam"
                more = f"To see smaller gains, {_MORE_QUESTIONS}. To gain more, add seeds or documents"
                return f"{kept} {small}. {more}. Then retune."
            case "not better":
                read = "Read what the new model was taught (lab-pipeline rows LEAF): few or wrong rows teach nothing"
                return f"{kept} {read}. Mend the leaf's seeds or documents, and retune."
            case "worse elsewhere" | "leaf got worse":
                mend = "Read the lost questions below. If new documents contradict old ones, mend them"
                allow = "If you accept the loss, name the leaf under gate.allowed_regressions in settings.yaml"
                return f"{kept} {mend}. {allow}. Then retune."
            case "forgetting":
                recipe = "In the recipe, repeat more general rows (general_replay) or learn more gently (learning_rate)"
                return f"{kept} {recipe}, and retune."
            case "judged worse":
                return f"{kept} Read the answers below, and decide whether the judge is right. {by_hand}"
            case "measure got worse":
                mend = "Raise its tolerance under measures in settings.yaml if you accept the loss, or learn more gently"
                return f"{kept} {mend} (learning_rate in the recipe), and retune. {by_hand}"
            case "acceptance lost":
                teach = "Add seeds or documents that say what the question asks for, and retune"
                return f"{kept} {teach}. If the question itself is wrong, mend it in exam.yaml. {by_hand}"
            case _:
                style = "Read the lost questions below: the rows may teach a style of answers instead of facts"
                return f"{kept} {style}. Mend the leaf's seeds or documents, and retune. {by_hand}"

    @property
    def role(self) -> str:
        """Role of the model that the candidate was compared with: 'champion', or 'base' without one."""
        return "base" if self.evaluation["reference"] == "base" else "champion"

    @property
    def gain(self) -> Mapping[str, Any] | None:
        """The gate's `Gain` as stored; None without enough questions, or in an evaluation of an earlier release."""
        return self.evaluation["verdict"].get("gain")

    @property
    def _measured(self) -> float:
        """The gain with what unchanged leaves moved by; earlier releases took nothing off."""
        return self.gain["difference"] + self.gain.get("shift", 0.0) if self.gain else math.nan

    def compared(self, role: str | None = None) -> list[Mapping[str, Any]]:
        """Return the gate's verdicts on the leaves that have questions, of one role or of all."""
        leaves: Sequence[Mapping[str, Any]] = self.evaluation["verdict"].get("leaves", [])
        return [each for each in leaves if each.get("comparison") and role in (None, each["role"])]

    @property
    def _outcome(self) -> str:
        return self.evaluation["verdict"]["outcome"]

    @property
    def _old(self) -> str:
        return "the base model" if self.role == "base" else "the old model"

    @property
    def _right(self) -> tuple[Right, Right] | None:
        """Right answers of the candidate and of the model before it; None if one of them was asked nothing."""
        right = right_answers(self.evaluation)
        return (right["candidate"], right[self.role]) if right.keys() >= {"candidate", self.role} else None

    @property
    def _won(self) -> int:
        """How many more right answers the candidate gives; 1 if they were not counted, so that no sentence speaks of them."""
        return self._right[0].right - self._right[1].right if self._right else 1

    @property
    def remembered(self) -> list[str]:
        """Leaves that were taken out, but of which the candidate still knows something."""
        return [each["leaf"] for each in self.evaluation.get("unlearned", []) if each["still_known"] > 0]

    @property
    def _questions(self) -> int:
        role = "changed" if self.evaluation["changed"] else "unchanged"
        return sum(each["comparison"]["questions"] for each in self.compared(role))

    @property
    def _missing(self) -> int:
        """How many questions are missing for a decision; 0 in an evaluation of an earlier release, which stored no policy."""
        return max(0, self.evaluation.get("policy", {}).get("minimum_questions", 0) - self._questions)

    @property
    def _decision(self) -> str:
        if not self.evaluation["verdict"]["promoted"]:
            return f"it is not promoted, because {self._because()}"
        said = "it is promoted"
        if self._outcome == "no worse":
            gone = [each["leaf"] for each in self.evaluation.get("unlearned", [])]
            went = _listed(gone) if gone else "leaves"
            said += f", because {went} had to go and nothing else got worse by more than is tolerated"
        elif self.gain:
            count = "fewer" if self._won < 0 else "no more"
            although = f", although it answers {count} of them right" if self._won <= 0 else ""
            known = f"each word of the right answers {times(self._measured)} times as likely"
            said += f"{although}, because it finds {known}"
        return f"{said}; but it still knows part of {_listed(self.remembered)}" if self.remembered else said

    def _because(self) -> str:
        verdict, gain = self.evaluation["verdict"], self.gain
        match self._outcome:
            case "acceptance lost":
                lost = lost_questions(self.evaluation.get("acceptance", []), self.role)
                fails = f"fails the required question{'s' if len(lost) > 1 else ''} {_listed(map(label, lost))}"
                return f"it {fails}, which {self._old} passes"
            case "leaf got worse":
                return f"it got worse at {_listed(each['leaf'] for each in verdict['leaves'] if each['veto'])}"
            case "not better" if gain and gain["interval"][0] > 0 and self._measured <= 0:
                return "it gained less than leaves that were taught nothing new"
            case "not better" if gain and gain["interval"][0] > 0:
                return "it finds the right answers less likely than before, by more than chance explains"
            case "not better" if not gain or gain["bound"] >= 0:
                return "so small a gain may be chance" if self._won > 0 else "it shows no gain that chance does not explain"
            case "not better" if gain and max(gain["difference"], self._measured) > -gain["minimum"]:
                return "training the old one again might gain as much by luck"
            case "not better":
                return "it is worse at the questions that people wrote"
        return {
            "not enough evidence": "there are too few test questions to tell",
            "worse elsewhere": "it may have got worse at what did not change",
            "forgetting": "it may have forgotten general knowledge",
            "judged worse": "a judge finds its answers worse",
            "measure got worse": "it does worse in a test that your team lets decide",
            "answers got worse": "it picks the right answer less often, by more than chance explains",
        }[self._outcome]

    def _next_with_new(self) -> str:
        in_use = "the new model is in use once the retune ends"
        back = "lab-pipeline rollback --author NAME --reason TEXT"
        if self._outcome == "unchanged":
            return "Nothing. The next change of the taxonomy starts a new try."
        if self.remembered:
            look = "Look for other leaves or documents that say what was taken out, withdraw them too, and retune"
            return f"{look}. Meanwhile the new model replaces the old one."
        if self._won < 0:
            read = "Read the lost questions below, and ask the new model yourself (lab-pipeline chat)"
            return f"{read}. If its answers are worse, put the old one back: {back}."
        go_back = f" To go back: {back}." if self.role == "champion" else ""
        return f"Nothing has to be done: {in_use}. To try it: lab-pipeline chat.{go_back}"

    def _basis(self) -> list[str]:
        changed, every = len(self.evaluation["changed"]), len(self.evaluation["leaves"])
        said = []
        if self.role == "base":
            said.append("There was no model before it, so it is compared with the base model, which was taught none of this.")
        if changed:
            asked = f"Test questions about them, which training never showed: {self._questions}."
            said.append(f"New or changed leaves (subjects): {changed} of {every}. {asked}")
        else:
            said.append("Leaves (subjects) were only taken out, so the rest has to be known as well as before, not better.")
        return said

    def _gain(self) -> list[str]:
        gain = self.gain
        if not gain:
            return []
        low, high = (times(end) for end in gain["interval"])
        chance = f"({high} to {low} times once chance is allowed for)"
        shift = gain.get("shift") and times(gain["shift"])
        own = f". Unchanged leaves, taught nothing new: {shift} times; without that, {times(gain['difference'])} times"
        said = [
            f"On these, the new model gives each word of the right answers {times(self._measured)} times the probability that "
            f"{self._old} gives it{own if shift else ''} {chance}."
        ]
        if self._outcome == "not better" and gain["interval"][0] <= 0 <= gain["bound"]:
            said.append("1 would be no change, so chance is not ruled out.")
        elif self._outcome == "not better" and max(gain["difference"], self._measured) > -gain["minimum"]:
            said.append(f"At least {times(-gain['minimum'])} times is asked for, because training again may give less by luck.")
        seen = f"{times(-gain['detectable'])} times or more in 8 of 10 cases"
        said.append(f"How fine this exam is: it notices a gain of {seen}; smaller gains it often misses.")
        if gain["rests_on"] == "questions":
            said.append("With so few leaves, the verdict rests on single questions and a set allowance for a retrain's luck.")
        return said

    def _style(self) -> list[str]:
        if self._won >= 0 or not self._right:
            return []
        candidate, before = self._right
        style = ", though it finds right answers likelier: it may have learned their style, not their facts"
        learned = style if self.gain and self._measured < 0 else ""
        return [f"Beware: it picks the right answer among others less often, {candidate} against {before.right}{learned}."]

    def _judged(self) -> list[str]:
        judged = self.evaluation.get("judged")
        if not judged:
            return []
        if judged["unanswered"]:
            return ["The judge of answers did not reply."]
        ours, theirs = (judged["models"].get(model) for model in ("candidate", self.role))
        if not ours or not theirs:
            return []
        advice = (
            "" if judged["known_rows"]["separates"] else ", which is advice only: it fails to tell known good rows from bad"
        )
        return [f"A judge gives its answers {ours['score']:.2f} of 1, those of {self._old} {theirs['score']:.2f}{advice}."]

    def _acceptance(self) -> list[str]:
        results = self.evaluation.get("acceptance")
        if not results:
            return []
        ours, theirs = (sum(not each["failures"][model] for each in results) for model in ("candidate", self.role))
        return [f"Of {counted(len(results), 'required question')} (exam.yaml) it passes {ours}, {self._old} {theirs}."]

    def _measures(self) -> list[str]:
        said = []
        for each in self.evaluation.get("measures", []):
            if each["tolerance"] is not None:
                before, now = each["scores"][self.role], each["scores"]["candidate"]
                said.append(f"In the test {_short(each['task'])} it scores {now:.1%}, {self._old} {before:.1%}.")
        return said

    def _lost_acceptance(self) -> list[str]:
        return [
            f"Asked “{_short(each['question'])}”, it answers “{_short(each['answers']['candidate'])}”, which fails: the answer "
            f"{each['failures']['candidate']}. The answer of {self._old}, which passes: “{_short(each['answers'][self.role])}”."
            for each in lost_questions(self.evaluation.get("acceptance", []), self.role)[:_NAMED]
        ]

    def _lost_leaves(self) -> list[str]:
        vetoed = self._outcome == "leaf got worse"
        lost = [each for each in self.compared(None if vetoed else "unchanged") if each["veto"] or not vetoed]
        worst = sorted(lost, key=lambda each: -each["comparison"]["difference"])[:_NAMED]
        named = "; ".join(f"{_short(each['leaf'])}, {times(each['comparison']['difference'])} times" for each in worst)
        what = "Right answers became less likely than chance explains" if vetoed else "More may be lost there than is tolerated"
        return [f"{what}. As likely as with {self._old}: {named}."] if named else []

    def _general(self) -> list[str]:
        general: Mapping[str, Any] = {**self.evaluation["general"]}
        before, now = general[self.role], general["candidate"]
        if before is None or now is None:
            return []
        asked = f"{counted(general['questions'], 'general question')} that no leaf teaches"
        change = f"each word of the right answers is {likelihood(now - before)} as before"
        forgotten = self._outcome == "forgetting"
        return [f"On {asked}, {change}: {'too much may be forgotten' if forgotten else 'general knowledge is kept'}."]

    def _too_few(self) -> list[str]:
        missing, asked = self._missing, counted(self._questions, "test question")
        about = "what changed" if self.evaluation["changed"] else "the leaves that remain"
        lacking = f"{missing} {'is' if missing == 1 else 'are'} missing"
        needed = f"; {self._questions + missing} are needed, so {lacking}" if missing else ""
        return [f"There {'is' if self._questions == 1 else 'are'} {asked} about {about}{needed}."]

    def _unlearned(self) -> list[str]:
        gone = self.evaluation.get("unlearned", [])
        return [f"Taken out: {_short(each['leaf'])}. {what_is_left(each)}." for each in gone]


def _listed(names: Iterable[str]) -> str:
    every = [f"“{_short(name)}”" for name in names]
    more = [f"{len(every) - _NAMED} more"] if len(every) > _NAMED else []
    *most, last = every[:_NAMED] + more
    return f"{', '.join(most)} and {last}" if most else last


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _NAME_LENGTH else f"{line[:_NAME_LENGTH]}…"

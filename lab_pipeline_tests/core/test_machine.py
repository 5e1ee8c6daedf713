from __future__ import annotations

import os

import pytest

from lab_pipeline.core.machine import gpus_gib


@pytest.mark.parametrize(
    ("environment", "gib"),
    [
        ({}, [24.0, 80.0]),
        ({"CUDA_VISIBLE_DEVICES": "1"}, [24.0]),
        ({"CUDA_VISIBLE_DEVICES": ""}, []),
        ({"LAB_GPUS": "1"}, [24.0]),
    ],
)
def test_gpus_are_those_that_a_training_may_use(tmp_path, monkeypatch, environment, gib):
    for name in ("CUDA_VISIBLE_DEVICES", "LAB_GPUS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\nprintf '24576\\n81920\\n'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert gpus_gib() == gib


def test_without_nvidia_smi_there_is_no_gpu(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpus_gib() == []

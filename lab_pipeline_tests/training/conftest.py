from __future__ import annotations

import pytest
import torch


@pytest.fixture
def in_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    """Computes in bf16 on every machine, however slowly."""
    for module in ("models.loader", "training.quantized"):
        monkeypatch.setattr(f"lab_pipeline.{module}.compute_dtype", lambda device: torch.bfloat16)

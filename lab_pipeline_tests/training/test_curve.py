from __future__ import annotations

import io
import math

import matplotlib.image
import pytest

from lab_pipeline.training.curve import curve_png
from lab_pipeline.training.train import TrainingReport


@pytest.mark.parametrize("steps", [0, 1, 20, 5000])
def test_a_curve_is_a_small_picture_however_long_the_training(steps):
    curve = [{"step": step, "loss": 2 + math.sin(step * step), "learning_rate": 1e-4} for step in range(1, steps + 1)]
    validation = [
        {"epoch": epoch, "step": epoch * steps // 9, "leaves": 2 / (epoch + 1), "general": None if steps == 20 else 1.0}
        for epoch in range(10 if steps else 0)
    ]
    report = TrainingReport(curve=curve, validation=validation, chosen={"epoch": 7, "of": 9, "why": "it is the best"})
    picture = curve_png(report, "knowledge-0123456789")
    assert len(picture) < 50_000
    assert matplotlib.image.imread(io.BytesIO(picture), format="png").shape[:2] == (208, 400)

"""Draw the loss curve of a training."""

from __future__ import annotations

import io

from lab_pipeline.training.train import TrainingReport
from lab_pipeline.training.validation import GROUPS


def curve_png(report: TrainingReport, title: str) -> bytes:
    """Return a PNG, of well under 50 kB, of training and validation losses by step; a dotted line marks the chosen epoch."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 2.6), dpi=80, layout="constrained")
    axes = figure.subplots()
    steps, losses = [point["step"] for point in report.curve], [point["loss"] for point in report.curve]
    axes.plot(steps, losses, linewidth=1, label="training")
    for group in GROUPS:
        points = [(epoch["step"], epoch[group]) for epoch in report.validation if epoch[group] is not None]
        if points:
            axes.plot(*zip(*points, strict=True), marker="o", markersize=3, label=f"validation, {group}")
    for epoch in report.validation:
        if epoch["epoch"] == report.chosen["epoch"]:
            axes.axvline(epoch["step"], color="gray", linestyle=":", label="chosen epoch")
    if report.validation:
        axes.legend(fontsize="x-small")
    axes.set(title=title, xlabel="step", ylabel="loss (nats per token)")
    axes.grid(alpha=0.3)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()

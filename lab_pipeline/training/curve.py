"""The loss curve as a picture."""

from __future__ import annotations

import io
from typing import Any


def curve_png(report: dict[str, Any], title: str) -> bytes:
    """A small PNG (well under 50 kB) of a `TrainingReport`: training and validation losses by step, and the chosen epoch."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 2.6), dpi=80, layout="constrained")
    axes = figure.subplots()
    curve, validation, chosen = report["curve"], report["validation"], report["chosen"]
    axes.plot([point["step"] for point in curve], [point["loss"] for point in curve], linewidth=1, label="training")
    for part in ("leaves", "general"):
        points = [(found["step"], found[part]) for found in validation if found[part] is not None]
        if points:
            axes.plot(*zip(*points, strict=True), marker="o", markersize=3, label=f"validation, {part}")
    for found in validation:
        if found["epoch"] == chosen["epoch"]:
            axes.axvline(found["step"], color="gray", linestyle=":", label="chosen epoch")
    if validation:
        axes.legend(fontsize="x-small")
    axes.set(title=title, xlabel="step", ylabel="loss (nats per token)")
    axes.grid(alpha=0.3)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()

"""The loss curve as a picture."""

from __future__ import annotations

import io
from typing import Any


def curve_png(curve: list[dict[str, Any]], title: str) -> bytes:
    """A small PNG (well under 50 kB) of training loss by step."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 2.6), dpi=80, layout="constrained")
    axes = figure.subplots()
    axes.plot([point["step"] for point in curve], [point["loss"] for point in curve], linewidth=1)
    axes.set(title=title, xlabel="step", ylabel="loss (nats per token)")
    axes.grid(alpha=0.3)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()

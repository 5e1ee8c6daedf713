"""Say how fast a training goes, and what memory it takes."""

from __future__ import annotations

import resource
import time

from lab_pipeline.core.progress import Progress


class Pace:
    """Passes each step's numbers on to a progress line: loss, speed, learning rate, gradient norm and peak memory."""

    def __init__(self, progress: Progress, tokens_per_step: float) -> None:
        self._progress = progress
        self._tokens_per_step = tokens_per_step
        self._started = time.monotonic()

    def step(self, log: dict[str, float]) -> None:
        """Count a step, with its entry in the log of transformers' Trainer."""
        worked = (self._progress.worked + 1) * self._tokens_per_step
        self.tokens_per_second = round(worked / max(time.monotonic() - self._started, 1e-6), 1)
        self._progress.advance(
            note=f"loss {log['loss']:.3f}, {self.tokens_per_second:,.0f} tokens/s, learning rate {log['learning_rate']:.1e}, "
            f"gradient norm {log['grad_norm']:.2f}, peak memory {(peak_gpu_mib() or peak_rss_mib()) / 1024:.1f} GiB"
        )

    tokens_per_second: float | None = None
    """Tokens, prompts included, that this and all other processes together passed through the model in a second."""


def peak_rss_mib() -> int:
    """Return the largest resident memory that this process ever had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def peak_gpu_mib() -> int | None:
    """Return the largest GPU memory that this process's tensors ever had; None without a GPU."""
    import torch

    return torch.cuda.max_memory_allocated() // 2**20 if torch.cuda.is_available() else None


def machine(processes: int) -> str:
    """Name what so many processes train on, as in "8 x NVIDIA H100 80GB HBM3"."""
    import torch

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    return f"{processes} x {device}" if processes > 1 else device

"""Say how fast a training goes, how much of a GPU's speed that is, and what memory it takes."""

from __future__ import annotations

import resource
import time
from pathlib import Path
from typing import Any

from lab_pipeline.core.progress import Progress
from lab_pipeline.models.base_model import parameters

_PEAK_TFLOPS = {
    "A10": 125,
    "A100": 312,
    "A40": 150,
    "B200": 2250,
    "GeForce RTX 3090": 71,
    "GeForce RTX 4090": 165,
    "H100": 989,
    "H100 PCIe": 756,
    "H200": 989,
    "L4": 121,
    "L40S": 362,
}
"""Dense bf16 operations with float32 sums, in 10^12 a second, by the name of an NVIDIA GPU: from NVIDIA's data sheets, which
mostly print twice the number, for sparse matrices."""


class Pace:
    """Passes each step's numbers on to a progress line: loss, speed, learning rate, gradient norm and peak memory.

    Args:
        operations: of each token, if they are known (see `operations_per_token`).
        peak: of all GPUs together, in operations a second, if it is known.
    """

    def __init__(
        self, progress: Progress, tokens_per_step: float, operations: float | None = None, peak: float | None = None
    ) -> None:
        self._progress = progress
        self._tokens_per_step = tokens_per_step
        self._utilization = operations / peak if operations and peak else None
        self._started = time.monotonic()

    def step(self, log: dict[str, float]) -> None:
        """Count a step, with its entry in the log of transformers' Trainer."""
        worked = (self._progress.worked + 1) * self._tokens_per_step
        self.tokens_per_second = round(worked / max(time.monotonic() - self._started, 1e-6), 1)
        used = f" (MFU {self.mfu:.0%})" if self.mfu else ""
        self._progress.advance(
            note=f"loss {log['loss']:.3f}, {self.tokens_per_second:,.0f} tokens/s{used}, learning rate "
            f"{log['learning_rate']:.1e}, gradient norm {log['grad_norm']:.2f}, peak memory "
            f"{(peak_gpu_mib() or peak_rss_mib()) / 1024:.1f} GiB"
        )

    tokens_per_second: float | None = None
    """Tokens, prompts included, that this and all other processes together passed through the model in a second."""

    @property
    def mfu(self) -> float | None:
        """Model FLOPs utilization: the share, from 0 to 1, of the GPUs' peak that the training's own arithmetic takes (PaLM,
        arXiv 2204.02311, appendix B). None on a CPU, or where operations or peak are unknown."""
        return self.tokens_per_second * self._utilization if self.tokens_per_second and self._utilization else None


def operations_per_token(base: Path, model: Any) -> float | None:
    """Return how many operations the training of an adapter needs for each token; None for a mixture of experts.

    For each parameter of the base model two forward, and two backward, since frozen weights need no gradient; six for each
    parameter of the adapter. What gradient checkpointing computes again does not count, nor do attention scores, which are a
    tenth or less in rows of up to 4,096 tokens.
    """
    config = model.config.get_text_config()
    if any("expert" in name for name in config.to_dict()):
        return None
    looked_up = 0 if config.tie_word_embeddings else config.vocab_size * config.hidden_size
    tuned = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    return 4.0 * (parameters(base) - looked_up) + 6.0 * tuned


def peak_operations(processes: int) -> float | None:
    """Return how many operations a second the GPUs of so many processes can do; None for a GPU that is not in the table."""
    import torch

    name = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    known = [each for each in _PEAK_TFLOPS if f" {each} " in f"{name.replace('-', ' ')} "]
    return processes * _PEAK_TFLOPS[max(known, key=len)] * 1e12 if known else None


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

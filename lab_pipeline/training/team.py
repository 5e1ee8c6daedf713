"""Train in several processes, one for each GPU: start them with torchrun, and add up their gradients.

Every process holds the whole model and takes the same steps. Of each step's packs it computes its share, and adds its
gradients to the others'. So the number of processes changes how fast a step is, and nothing else.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from lab_pipeline.core.errors import LabError
from lab_pipeline.training.failure import INTERRUPTED

if TYPE_CHECKING:
    import torch

_LONGEST_WAIT = timedelta(days=1)
"""How long a process waits for the others: as long as the first may encode rows or validate alone."""


@dataclass(frozen=True)
class Team:
    """The processes of a training, as one of them sees it; by default there is only this one."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process is the first, which alone locks, reports, validates and writes."""
        return self.rank == 0

    def wait(self) -> None:
        """Wait until all processes have come to this point."""
        if self.size > 1:
            import torch.distributed

            torch.distributed.barrier()

    def add_up(self, parameters: Iterable[torch.nn.Parameter], numbers: torch.Tensor) -> torch.Tensor:
        """Set the gradients of the parameters to their sums over all processes, and return the sums of `numbers`.

        Sums are made in float32. A parameter without a gradient counts as zero.

        Args:
            numbers: one-dimensional.
        """
        if self.size == 1:
            return numbers
        import torch

        tuned = list(parameters)
        for parameter in tuned:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        gradients = [parameter.grad for parameter in tuned if parameter.grad is not None]
        together = torch.cat([numbers.float(), *(gradient.float().flatten() for gradient in gradients)])
        torch.distributed.all_reduce(together)
        sums = together[len(numbers) :].split([gradient.numel() for gradient in gradients])
        for gradient, summed in zip(gradients, sums, strict=True):
            gradient.copy_(summed.view_as(gradient))
        return together[: len(numbers)]


ALONE = Team()


def processes_wanted(packs_per_step: int) -> int:
    """Return how many processes to start: `LAB_GPUS`, by default one for each visible GPU.

    There is at most one for each pack of a step. It is 1 without a GPU, and in a process that torchrun has started.

    Raises:
        LabError: `LAB_GPUS` is no number from 1 to that of the visible GPUs.
    """
    import torch

    if "LOCAL_RANK" in os.environ:
        return 1
    visible = torch.cuda.device_count()
    wanted = os.environ.get("LAB_GPUS") or str(max(visible, 1))
    if not wanted.isdecimal() or not 1 <= int(wanted) <= max(visible, 1):
        raise LabError(f"LAB_GPUS: expected a number from 1 to that of the visible GPUs, {visible}, found {wanted!r:.20}")
    return min(int(wanted), packs_per_step)


def start(processes: int, spec: str) -> int:
    """Train by `torchrun -m lab_pipeline.training` in so many processes on this machine, and return the exit code."""
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import parse_args, run

    os.environ["PYTHONSAFEPATH"] = "1"  # as -P does, which torchrun does not pass on
    try:
        run(parse_args(["--standalone", f"--nproc-per-node={processes}", "-m", "lab_pipeline.training", spec]))
    except SignalException:
        return INTERRUPTED
    except ChildFailedError as error:
        code = error.get_first_failure()[1].exitcode
        return code if code > 0 else 128 - code  # as a shell tells of a signal
    return 0


def join() -> Team:
    """Join the processes that torchrun has started, and leave this process one GPU to see: its own, or alone the first.

    torchrun's variables are removed, so that transformers' Trainer takes this process for the only one. Its own way of sharing
    the work would repeat packs where their number is odd, and would tie the order of packs to the number of processes.
    """
    import torch

    names = (("RANK", 0), ("WORLD_SIZE", 1), ("LOCAL_RANK", 0))
    rank, size, local = (int(os.environ.pop(name, default)) for name, default in names)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible != "":  # which hides all GPUs
        os.environ["CUDA_VISIBLE_DEVICES"] = visible.split(",")[local] if visible else str(local)
    if size > 1:
        backend = "nccl" if torch.cuda.is_available() else "gloo"
        torch.distributed.init_process_group(backend, timeout=_LONGEST_WAIT, rank=rank, world_size=size)
    return Team(rank, size)

"""The processes that train one network together: data parallel, one of them leading."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
import torch.distributed as distributed
from torch import Tensor, nn

from drivecast.worldmodel.errors import InputError


@dataclass(frozen=True)
class Crew:
    """Processes that see different parts of each batch and move by the mean of their gradients.

    All of them must call the same methods in the same order; alone, each is as if it were not there.

    Attributes:
        rank: Number of this process; 0 leads: it alone validates, logs and writes.
        count: How many there are.
    """

    rank: int = 0
    count: int = 1

    @staticmethod
    def launched() -> Crew:
        """Those that `torchrun` has started, or this process alone.

        Raises `InputError` where they can't meet.
        """
        count = int(os.environ.get("WORLD_SIZE", "1"))
        if count == 1:
            return Crew()
        if not distributed.is_initialized():
            backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
            try:
                distributed.init_process_group(backend)
            except (RuntimeError, ValueError) as error:
                reason = str(error).splitlines()[0]
                raise InputError(f"the {count} processes can't meet ({reason}); start them with torchrun") from error
        return Crew(distributed.get_rank(), count)

    @property
    def leads(self) -> bool:
        """Whether this process is the one that validates, logs and writes."""
        return self.rank == 0

    def share(self, batch: int) -> int:
        """This process's part of a batch.

        Raises `InputError` where it can't be divided evenly.
        """
        if batch % self.count:
            raise InputError(f"training.batch: {batch} can't be divided among {self.count} processes; give a multiple")
        return batch // self.count

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Give everybody the mean of the gradients; who has none for a parameter counts as zero."""
        if self.count == 1:
            return
        parameters = list(parameters)
        flat = torch.cat(
            [torch.zeros_like(each).flatten() if each.grad is None else each.grad.flatten() for each in parameters]
        )
        distributed.all_reduce(flat)
        flat /= self.count
        for each, gradient in zip(parameters, flat.split([each.numel() for each in parameters]), strict=True):
            each.grad = gradient.view_as(each)

    def average(self, values: Mapping[str, float]) -> dict[str, float]:
        """The mean of each value over processes."""
        if self.count == 1:
            return dict(values)
        together = torch.tensor(list(values.values()), dtype=torch.float64)
        distributed.all_reduce(together)
        return dict(zip(values, (together / self.count).tolist(), strict=True))

    def any(self, here: bool) -> bool:
        """Whether it is so in any process."""
        if self.count == 1:
            return here
        together = torch.tensor(float(here))
        distributed.all_reduce(together, distributed.ReduceOp.MAX)
        return bool(together)

    def gather(self, here: Tensor) -> Tensor:
        """The tensors `(...)` of all, `(process, ...)`; alone: the tensor as it is."""
        if self.count == 1:
            return here
        everyone = [torch.empty_like(here) for _ in range(self.count)]
        distributed.all_gather(everyone, here)
        return torch.stack(everyone)

    def own(self, gathered: Tensor) -> Tensor:
        """What this process gave to `gather`."""
        return gathered if self.count == 1 else gathered[self.rank].clone()

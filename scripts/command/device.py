"""The device that a verb computes on."""

from __future__ import annotations

import torch

from drivecast.worldmodel.errors import InputError

MOST_THREADS = 4  # the operations are small: more threads than this wait for each other


def available_device(device: str) -> str:
    """`device`, once it is sure that it is there."""
    torch.set_num_threads(min(torch.get_num_threads(), MOST_THREADS))
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(
            f"device: '{device}' can't be used ({str(error).splitlines()[0]}); try --device cpu"
        ) from error
    return device

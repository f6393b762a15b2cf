"""Sums that stay apart for each scene, so that two forecasters can be compared scene by scene."""

from __future__ import annotations

import torch
from torch import Tensor


class Tally:
    """One number for each scene and horizon."""

    def __init__(self) -> None:
        self._rows: list[Tensor] = []

    def add(self, values: Tensor) -> None:
        """Of more scenes: `(scene, horizon)`."""
        self._rows.append(values.detach().cpu().double())

    def by_scene(self) -> Tensor:
        """`(scene, horizon)`, in the order in which they were added."""
        return torch.cat(self._rows)

    def total(self) -> Tensor:
        """Over all scenes: `(horizon,)`."""
        return self.by_scene().sum(0)

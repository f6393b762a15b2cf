"""A driven stretch in pictures: what costs are read from where nobody says who the others are."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from drivecast.planner.costs.trajectory import Trajectory
from drivecast.worldmodel.raster.clips import Clip
from drivecast.worldmodel.raster.view import View


@dataclass(frozen=True, kw_only=True)
class PictureTrajectory(Trajectory):
    """The ego alone in `states (batch, time, 1)`; all others in pictures, a clip of as many steps.

    Attributes:
        clip: Pictures after each control.
        view: Where they lie.
        seconds: When they are after the view's present, `(time,)`.
    """

    clip: Clip
    view: View
    seconds: Tensor

    def ego_place(self) -> tuple[Tensor, Tensor]:
        """Of the ego in the pictures, along and to the left, m, `(batch, time)` each."""
        along, left = self.view.local(self.states.position_m, self.seconds)
        return along[..., 0], left[..., 0]

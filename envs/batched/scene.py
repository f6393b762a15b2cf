"""The state of many episodes of traffic."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from torch import Tensor


@dataclass(frozen=True)
class Scene:
    """Who is where, `(episode, agent)` each, in highway-env's frame (+y to the right).

    Agent 0 is the ego, then come the other cars in highway-env's order, then the obstacles that stand on the road.

    Attributes:
        x_m, y_m: Centre, m.
        heading_rad: rad, not wrapped.
        speed_mps: Along the heading, m/s; negative backwards.
        acceleration_mps2, steering_rad: The action in force.
        lane: Lane that the car is on.
        target_lane: Lane that it steers for.
        timer_s: Since it last thought of changing lane, s.
        crashed: Bool.
        impact_x_m, impact_y_m: By how much a collision will move it in the next frame, m.
        struck: Bool. There is such an impact.
        target_speed_mps: Speed that it would like, m/s; 0 for an ego with continuous controls, which has none.
        exponent: IDM's delta.
        idm: Bool. Driven by IDM and MOBIL.
        aims: Bool. Has a target lane (`ControlledVehicle`).
        vehicle: Bool. Not an obstacle, not an empty place.
    """

    x_m: Tensor
    y_m: Tensor
    heading_rad: Tensor
    speed_mps: Tensor
    acceleration_mps2: Tensor
    steering_rad: Tensor
    lane: Tensor
    target_lane: Tensor
    timer_s: Tensor
    crashed: Tensor
    impact_x_m: Tensor
    impact_y_m: Tensor
    struck: Tensor
    target_speed_mps: Tensor
    exponent: Tensor
    idm: Tensor
    aims: Tensor
    vehicle: Tensor

    @property
    def heading_to_the_left_rad(self) -> Tensor:
        """Headings in our frame, +y to the left, within ±pi; those that lie there keep all their bits."""
        heading = -self.heading_rad
        wrapped = torch.remainder(heading + torch.pi, 2 * torch.pi) - torch.pi
        return torch.where(heading.abs() > torch.pi, wrapped, heading)

    def map(self, function: Callable[[Tensor], Tensor]) -> Scene:
        """The same scene with `function` applied to each of its tensors."""
        return Scene(**{field.name: function(getattr(self, field.name)) for field in fields(self)})

    def but(self, **changes: Tensor) -> Scene:
        """The same scene with other values in some places."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return Scene(**(values | changes))

    def where(self, mask: Tensor, other: Scene) -> Scene:
        """This scene in the episodes where `mask (episode,)` holds, `other` elsewhere."""
        return Scene(
            **{
                field.name: torch.where(mask[:, None], getattr(self, field.name), getattr(other, field.name))
                for field in fields(self)
            }
        )

"""When and how far ahead lanes are compared by their imagined energy."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LaneChoiceConfig:
    """Choice of the lane by imagined energy.

    Args:
        enabled: Choose lanes; otherwise the policy keeps to the goal's lane, or to the nearest where it names none.
        every_steps: Steps between decisions.
        horizon_steps: Steps imagined for each lane.
        samples: Futures imagined for each lane.
        margin: Energy by which another lane must be better than the present one.
        max_agents: Vehicles imagined, the nearest to the ego.
    """

    enabled: bool = True
    every_steps: int = 10
    horizon_steps: int = 40
    samples: int = 2
    margin: float = 0.03
    max_agents: int = 16

    def __post_init__(self) -> None:
        for name in ("every_steps", "horizon_steps", "samples", "max_agents"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")

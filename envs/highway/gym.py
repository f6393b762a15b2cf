"""highway-env's environments for gymnasium, with continuous controls at 10 Hz and rewards that take them."""

from __future__ import annotations

import os
from typing import Any

import gymnasium

from drivecast.envs.highway.simulator import HighwayScenario, mended_class


def make_environment(
    environment: str,
    render_mode: str | None = None,
    vehicles: int | None = None,
    lanes: int | None = None,
    density: float | None = None,
    duration_s: float = 30.0,
    config: dict[str, Any] | None = None,
) -> gymnasium.Env:
    """highway-env's `environment` with the action (acceleration, steering), each in [-1, 1].

    1 is 5 m/s² and 0.785 rad (highway-env's ranges), steering in highway-env's sign: positive to the right. The
    observation is highway-env's Kinematics of the 5 nearest cars, the reward its own, and leaving the road ends an
    episode of highway-*.

    Args:
        environment: highway-env's name.
        render_mode: None, "human" or "rgb_array".
        vehicles: Number of cars beside the ego. None: highway-env's own.
        lanes: Number of lanes. None: highway-env's own.
        density: Of the traffic at the start. None: highway-env's own.
        duration_s: Length of an episode, s.
        config: More of highway-env's configuration; its overrides are shallow.

    Raises:
        InputError: A value is out of range, or the environment is not known.
    """
    if render_mode is not None and os.environ.get("SDL_VIDEODRIVER") == "dummy":
        gymnasium.logger.warn("SDL_VIDEODRIVER=dummy renders black frames; set it to 'offscreen'")
    scenario = HighwayScenario(environment, vehicles, lanes, density, duration_s)
    overrides = {"observation": {"type": "Kinematics"}, "offroad_terminal": True, **(config or {})}
    return mended_class(environment)(config={**scenario.highway_config(), **overrides}, render_mode=render_mode)

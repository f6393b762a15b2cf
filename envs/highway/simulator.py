"""highway-env's environments made to take controls in SI units and to give their full state."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, cast

import numpy as np

from drivecast.worldmodel.errors import InputError

SIMULATORS = ("batched", "highway-env")  # who simulates: ours (envs/batched) or highway-env itself
IDLE = 1  # highway-env's meta-action "do nothing"

# Environments whose rewards, vehicles and ends make sense with two continuous controls.
ENVIRONMENTS = (
    "highway-v0",
    "highway-fast-v0",
    "merge-v0",
    "merge-v1",
    "merge-generic-v0",
    "merge-generic-v1",
    "exit-v0",
    "exit-v1",
    "roundabout-v0",
    "roundabout-v1",
)


@dataclass(frozen=True)
class HighwayScenario:
    """One of highway-env's environments and its traffic. None keeps highway-env's own value.

    Attributes:
        environment: highway-env's name, such as `highway-v0`.
        vehicles: Number of cars beside the ego (highway-*, merge-generic-*).
        lanes: Number of lanes (highway-*, merge-generic-*).
        density: Of the traffic at the start, highway-env's measure (highway-*): 1 is about one car per 21 m of a
            road of 4 lanes.
        duration_s: Time after which an episode is over, s.
        dt_s: Time between two decisions and simulation steps, s.
    """

    environment: str = "highway-v0"
    vehicles: int | None = None
    lanes: int | None = None
    density: float | None = None
    duration_s: float = 30.0
    dt_s: float = 0.1

    def __post_init__(self) -> None:
        if self.environment not in ENVIRONMENTS:
            raise InputError(f"environment: expected one of {', '.join(ENVIRONMENTS)}; got {self.environment!r}")
        for name, least in (("vehicles", 0), ("lanes", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise InputError(f"{name}: expected {least} or more, got {value}")
        for name in ("density", "duration_s", "dt_s"):
            value = getattr(self, name)
            if value is not None and not (np.isfinite(value) and value > 0):
                raise InputError(f"{name}: expected a number above zero, got {value}")
        if not np.isclose(1 / self.dt_s, round(1 / self.dt_s)):
            raise InputError(f"dt_s: expected a whole number of steps in a second, such as 0.1; got {self.dt_s}")

    def highway_config(self) -> dict[str, Any]:
        """The overrides of highway-env's configuration; both its clocks tick once in `dt_s`."""
        frequency = round(1 / self.dt_s)
        wanted = {
            "simulation_frequency": frequency,
            "policy_frequency": frequency,
            "duration": self.duration_s,
            "action": {"type": "ContinuousAction"},
            "vehicles_count": self.vehicles,
            "lanes_count": self.lanes,
            "vehicles_density": self.density,
        }
        return {name: value for name, value in wanted.items() if value is not None}


def check_finite(action: Any) -> None:
    """Refuse an action with NaN or infinity in it.

    Raises:
        InputError: It has.
    """
    values = np.asarray(action)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise InputError(f"action: expected finite numbers, got {values.tolist()}; look at what the policy puts out")


def mend(environment_class: type) -> type:
    """The environment with rewards that take continuous controls, which refuses those that are not finite.

    merge and roundabout look their action up among the numbers of meta-actions and fail on an array. Here they are told
    "do nothing", and `lane_change_reward` is whether the ego came to another lane in this step. highway-env takes NaN
    and then drives on without a place.
    """

    class Mended(environment_class):
        _lane_before: tuple | None = None

        def step(self, action):
            check_finite(action)
            return super().step(action)

        def _reset(self) -> None:
            super()._reset()
            self._lane_before = None

        def _simulate(self, action=None) -> None:
            self._lane_before = self.vehicle.lane_index
            super()._simulate(action)

        def _rewards(self, action) -> dict[str, float]:
            continuous = action is None or isinstance(action, np.ndarray)
            rewards = super()._rewards(IDLE if continuous else action)
            if continuous and "lane_change_reward" in rewards:
                before, now = self._lane_before, self.vehicle.lane_index
                rewards["lane_change_reward"] = bool(before and before[:2] == now[:2] and before[2] != now[2])
            return rewards

    Mended.__name__ = Mended.__qualname__ = environment_class.__name__
    return Mended


@cache
def mended_class(environment: str) -> type:
    """Class of highway-env's `environment`, with rewards that take continuous controls."""
    import gymnasium
    import highway_env  # noqa: F401 - its import registers the environments
    from gymnasium.envs.registration import load_env_creator

    entry_point = gymnasium.spec(environment).entry_point
    assert isinstance(entry_point, str)
    return mend(cast(type, load_env_creator(entry_point)))


@cache
def _simulator_class(environment: str) -> type:
    from gymnasium import spaces
    from highway_env.envs.common.action import ContinuousAction
    from highway_env.envs.common.observation import ObservationType

    class ControlsInSI(ContinuousAction):
        """(acceleration in m/s², steering in rad, highway-env's sign), neither scaled nor clipped."""

        def get_action(self, action: np.ndarray) -> dict[str, float]:
            return {"acceleration": float(action[0]), "steering": float(action[1])}

    class Unobserved(ObservationType):
        """Nothing: the state is read from the road, and highway-env's observation costs a data frame per step."""

        def space(self) -> spaces.Space:
            return spaces.Box(0.0, 1.0, (1,), np.float32)

        def observe(self) -> np.ndarray:
            return np.zeros(1, np.float32)

    class Simulator(mended_class(environment)):  # type: ignore[misc]
        def define_spaces(self) -> None:
            super().define_spaces()
            self.action_type = ControlsInSI(self)
            self.observation_type = Unobserved(self)

    return Simulator


def make_simulator(scenario: HighwayScenario, **overrides: Any) -> Any:
    """highway-env's environment for `scenario`: stepped with an array (acceleration in m/s², steering in rad).

    `overrides` of highway-env's configuration come last.
    """
    return _simulator_class(scenario.environment)(config={**scenario.highway_config(), **overrides})


def road_users(simulator: Any) -> list[Any]:
    """The ego, the other vehicles, and the obstacles that stand on the road; each in highway-env's order."""
    ego = simulator.vehicle
    others = [vehicle for vehicle in simulator.road.vehicles if vehicle is not ego]
    return [ego, *others, *(thing for thing in simulator.road.objects if thing.solid)]


def read_state(users: list[Any]) -> np.ndarray:
    """`(agent, 6)`: x, y (m), heading (rad, within ±pi), speed (m/s), length, width (m); +y to the left."""
    state = np.array(
        [(u.position[0], -u.position[1], -u.heading, u.speed, u.LENGTH, u.WIDTH) for u in users], dtype=np.float64
    )
    turned = np.abs(state[:, 2]) > np.pi
    state[turned, 2] = np.remainder(state[turned, 2] + np.pi, 2 * np.pi) - np.pi
    return state


def read_impacts(users: list[Any]) -> np.ndarray:
    """By how much a collision that is foreseen will move each in the next step, m, `(agent, 2)`; +y to the left."""
    moved = [(0.0, 0.0) if getattr(user, "impact", None) is None else user.impact for user in users]
    return np.array(moved, dtype=np.float64) * [1.0, -1.0]

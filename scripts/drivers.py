"""Drivers and traffic by the names they have on the command line."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from envs.closed_loop import Score
from envs.drivers import ConstantVelocityDriver, HumanDriver, IdleDriver, IDMConfig, IDMDriver
from envs.lockstep import LockstepTraffic
from envs.recorded_traffic import RecordedTraffic, RecordedTrafficConfig
from worldmodel.driver import Driver
from worldmodel.errors import InputError
from worldmodel.road import Road
from worldmodel.traffic import Controls, Goal, TrafficState

if TYPE_CHECKING:
    from planner.driver import PolicyDriver

PLAIN_DRIVERS = ("idm", "constant-velocity", "idle", "human")
RECORDED = "recorded"
ENVIRONMENTS = (RECORDED, "highway-v0", "highway-fast-v0", "merge-v1")


@dataclass(frozen=True)
class HighwayConfig:
    """highway-env's traffic.

    Args:
        vehicles: Number of cars beside the ego; 0: 20 on highway-*, else highway-env's own.
        lanes: Number of lanes; 0: highway-env's own (highway-v0 4, highway-fast-v0 3).
        density: Of the traffic at the start, highway-env's measure; 0: its own, 1.
        duration_s: Length of an episode, s.
        desired_speed_mps: Speed the ego is asked for, m/s.
        simulator: Who simulates: batched (tensors, many episodes at once) or highway-env; equal but for last bits.
    """

    vehicles: int = 0
    lanes: int = 0
    density: float = 0.0
    duration_s: float = 30.0
    desired_speed_mps: float = 30.0
    simulator: str = "batched"

    def __post_init__(self) -> None:
        if self.simulator not in ("batched", "highway-env"):
            raise InputError(f"highway.simulator: expected batched or highway-env, got '{self.simulator}'")


@dataclass(frozen=True)
class TrafficSource:
    """All that is needed to make one environment, here or in another process."""

    environment: str
    data: tuple[Path, ...] = ()
    split: str = "test"
    recorded: RecordedTrafficConfig = field(default_factory=RecordedTrafficConfig)
    highway: HighwayConfig = field(default_factory=HighwayConfig)
    device: str = "cpu"

    def open(self) -> LockstepTraffic:
        """Make the environment.

        Raises:
            InputError: It needs data that is missing, or a value is out of range.
        """
        if self.environment == RECORDED:
            if not self.data:
                raise InputError("data: environment 'recorded' needs a recording store; give --data DIR")
            return RecordedTraffic.open(self.data, self.split, self.recorded, self.device)
        from envs.batched.traffic import BATCHED, BatchedHighwayTraffic
        from envs.highway import HighwayTraffic

        given: dict[str, Any] = {
            "vehicles": self.highway.vehicles or None,
            "lanes": self.highway.lanes or None,
            "density": self.highway.density or None,
            "duration_s": self.highway.duration_s,
            "desired_speed_mps": self.highway.desired_speed_mps,
        }
        if self.highway.simulator == "batched" and self.environment in BATCHED:
            return BatchedHighwayTraffic(self.environment, **given, device=self.device)
        return HighwayTraffic(self.environment, **given)


def check_driver(name: str, environment: str) -> None:
    """Refuse, before anything is run, a driver that is not known or cannot drive there."""
    kind, _, path = name.partition(":")
    if not (kind == "policy" and path) and name not in PLAIN_DRIVERS:
        raise InputError(f"driver '{name}': expected one of {', '.join(PLAIN_DRIVERS)} or policy:PATH")
    if name == "human" and environment != RECORDED:
        raise InputError(f"driver 'human': {environment} has no recorded human; evaluate it on --environment recorded")


def check_policy_file(name: str) -> None:
    """Refuse, before anything is run, a policy that is not there."""
    kind, _, path = name.partition(":")
    if kind == "policy" and not Path(path).exists():
        raise InputError(f"driver '{name}': no file or folder {path}; train one with `drivecast train-policy`")


def make_driver(name: str, idm: IDMConfig, device: str = "cpu") -> Driver:
    """The driver of that name, which it also carries as its own."""
    if name.startswith("policy:"):
        return _policy(name, device)
    driver: Any = {
        "idm": lambda: IDMDriver(idm),
        "constant-velocity": ConstantVelocityDriver,
        "idle": IdleDriver,
        "human": HumanDriver,
    }[name]()
    driver.name = name
    return driver


def realised_score(policy: str, device: str, dt_s: float) -> Score:
    """What a drive cost in truth, by the energy that `policy:PATH` was trained with."""
    from planner.trajectory import Trajectory

    energy = _policy(policy, device).energy

    def score(states: TrafficState, controls: Controls, road: Road, goal: Goal) -> dict[str, Tensor]:
        before = controls.acceleration_mps2[:, 0]
        return energy.terms(Trajectory(states[:, 1:], controls, before, road, goal, dt_s))

    return score


@lru_cache(maxsize=4)
def _policy(name: str, device: str) -> PolicyDriver:
    """Read once per process: episodes come in small parts there."""
    from planner.driver import load_driver

    return load_driver(Path(name.removeprefix("policy:")), device, name)

"""All that is drawn for one recorded episode, before it runs: the same numbers whoever simulates it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from drivecast.envs.highway.simulator import HighwayScenario
from drivecast.worldmodel.scene.kinematics import MAX_BRAKING_MPS2

# behaviour of the ego: share of the episodes. The egos are careful, pushy and erratic, so that a world model sees what
# others do around all of them.
BEHAVIOURS = {
    "idm": 0.2,  # highway-env's IDM and MOBIL, its desired speed 30 m/s
    "idm-any-speed": 0.2,  # the same with a desired speed drawn for the episode
    "tailgater": 0.15,  # IDM with a time gap of 0.2 to 0.7 s, 28 to 35 m/s, changes lane as soon as it gains by it
    "noise": 0.2,  # acceleration and place in the lane wander, looks at nobody
    "sudden-braking": 0.1,  # IDM that brakes hard now and then, for no reason
    "lane-changer": 0.15,  # IDM that changes lane at random, looks at nobody there
    "bully": 0.0,  # a tailgater that brakes hard now and then; only where it is asked for
    "driven": 0.0,  # by a driver that is given; it starts as the others do, and wants a speed drawn for the episode
}
DRIVEN = "driven"
TAILGATERS, BRAKERS = ("tailgater", "bully"), ("sudden-braking", "bully")
ROAMING_PER_S = {"lane-changer": 0.35, "noise": 0.15}  # lane changes begun for no reason
BRAKING_PER_S = 0.2
CAR_LENGTH_M = 5.0
USUAL_LANES_SHARE = 0.6  # of the episodes have the middle number of lanes
FROM_THE_PACK_SHARE = 0.5  # of the egos start in the place of any car; highway-env puts its ego behind them all
VARIED_DRIVERS_SHARE = 0.5  # of the episodes have other cars that differ in more than highway-env's own exponent
STRAIGHT = ("highway-", "merge-")  # cars of the main road may trade places; on the others each has its own route
COUNTED = ("highway-", "merge-generic-")  # take a number of cars and lanes
# where the other cars vary: a wider spread than highway-env's exponent (3.5 to 4.5)
VARIED_TARGET_SPEED = (0.8, 1.2)  # factor
VARIED_PARAMETERS = {
    "time_gap_s": (1.0, 2.0),
    "jam_distance_m": (8.0, 12.0),
    "comfort_acceleration_mps2": (2.0, 4.0),
    "politeness": (0.0, 0.5),
}


@dataclass(frozen=True)
class RecordingPlan:
    """What is recorded; the same plan gives the same episodes, whoever runs them and in whichever order.

    Attributes:
        environment: highway-env's name.
        seed: Of all episodes together; episode i draws from (seed, i).
        duration_s: Longest an episode is recorded, s.
        vehicles: Range of the number of other cars.
        lanes: Range of the number of lanes; the middle of it is drawn more often.
        density: Range of highway-env's traffic density.
        speed_scale: Range of the factor on the other cars' initial and desired speeds, one per episode.
        desired_speed_mps: Range of the speed that egos want, m/s.
        dt_s: Time step, s.
        behaviour: Of all egos, one of `BEHAVIOURS`; empty: drawn for each episode.
    """

    environment: str
    seed: int
    duration_s: float
    vehicles: tuple[int, int]
    lanes: tuple[int, int]
    density: tuple[float, float]
    speed_scale: tuple[float, float]
    desired_speed_mps: tuple[float, float]
    dt_s: float = 0.1
    behaviour: str = ""

    @property
    def steps(self) -> int:
        """Longest an episode is recorded, in steps."""
        return round(self.duration_s / self.dt_s)

    def name(self, index: int) -> str:
        """Of episode `index`'s recording."""
        return f"{self.environment}-{index:05d}"


@dataclass(frozen=True)
class Setting:
    """Where one episode takes place.

    Attributes:
        scenario: Environment, number of cars and lanes.
        density: Of the traffic, where the environment knows of one.
        seed: highway-env's.
        behaviour: Of the ego, one of `BEHAVIOURS`.
    """

    scenario: HighwayScenario
    density: float | None
    seed: int
    behaviour: str


@dataclass(frozen=True)
class Whims:
    """What an ego does whatever it sees, `(step,)` each.

    Attributes:
        roams: Bool. It will change lane, if it is not about to already.
        side: Uniform in [0, 1): which of the lanes that it could take.
        braking_mps2: It brakes at least as hard; 0: no such thing.
        acceleration_mps2, steering_rad: Added to what it would do.
    """

    roams: np.ndarray
    side: np.ndarray
    braking_mps2: np.ndarray
    acceleration_mps2: np.ndarray
    steering_rad: np.ndarray


@dataclass(frozen=True)
class Cast:
    """Who drives in one episode. Parameters go by their names in `DriverParameters`.

    Attributes:
        behaviour: Of the ego, one of `BEHAVIOURS`.
        speed_scale: Factor on the others' initial and desired speeds.
        target_speed_factor: `(other,)`, on their desired speeds.
        others: Their parameters, `(other,)` each; none: highway-env's.
        partner: The one of the others that the ego trades places with, or None.
        desired_speed_mps: Of the ego.
        speed_factor: On its initial speed.
        ego: Its parameters; none: highway-env's.
        whims: Its.
    """

    behaviour: str
    speed_scale: float
    target_speed_factor: np.ndarray
    others: dict[str, np.ndarray]
    partner: int | None
    desired_speed_mps: float
    speed_factor: float
    ego: dict[str, float]
    whims: Whims


def draw_setting(plan: RecordingPlan, draw: np.random.Generator) -> Setting:
    """The first that is drawn."""
    vehicles = int(draw.integers(plan.vehicles[0], plan.vehicles[1] + 1))
    low, high = plan.lanes
    lanes = (low + high) // 2 if draw.random() < USUAL_LANES_SHARE else int(draw.integers(low, high + 1))
    density = float(draw.uniform(*plan.density))
    scenario = HighwayScenario(plan.environment, duration_s=plan.duration_s, dt_s=plan.dt_s)
    if plan.environment.startswith(COUNTED):
        scenario = replace(scenario, vehicles=vehicles, lanes=lanes)
    seed = int(draw.integers(2**31))
    behaviour = str(draw.choice(list(BEHAVIOURS), p=np.array(list(BEHAVIOURS.values()))))
    return Setting(
        scenario,
        density if plan.environment.startswith("highway") else None,
        seed=seed,
        behaviour=plan.behaviour or behaviour,
    )


def draw_cast(plan: RecordingPlan, behaviour: str, others: int, draw: np.random.Generator) -> Cast:
    """What is drawn once the traffic stands, in which there are `others` beside the ego."""
    scale = float(draw.uniform(*plan.speed_scale))
    factor, parameters = np.ones(others), {}
    if draw.random() < VARIED_DRIVERS_SHARE:
        low, high = np.array([VARIED_TARGET_SPEED, *VARIED_PARAMETERS.values()]).T
        factor, *values = draw.uniform(low, high, (others, len(low))).T
        parameters = dict(zip(VARIED_PARAMETERS, values, strict=True))
    partner = None
    if others and plan.environment.startswith(STRAIGHT) and draw.random() < FROM_THE_PACK_SHARE:
        partner = int(draw.integers(others))
    wanted = _desired_speed(behaviour, plan.desired_speed_mps, draw)
    speed_factor = float(draw.uniform(0.75, 1.1))
    ego = {}
    if behaviour in TAILGATERS:
        ego = {
            "time_gap_s": float(draw.uniform(0.2, 0.7)),
            "jam_distance_m": CAR_LENGTH_M + float(draw.uniform(1.0, 3.0)),
            "least_gain_mps2": 0.05,
            "most_imposed_mps2": float(draw.uniform(3.0, 9.0)),
        }
    whims = _draw_whims(behaviour, plan.steps, plan.dt_s, draw)
    return Cast(behaviour, scale, factor, parameters, partner, wanted, speed_factor, ego, whims)


def _desired_speed(behaviour: str, speeds_mps: tuple[float, float], draw: np.random.Generator) -> float:
    if behaviour == "idm":
        return 30.0
    if behaviour in TAILGATERS:
        return float(draw.uniform(28.0, 35.0))
    return float(draw.uniform(*speeds_mps))


def _draw_whims(behaviour: str, steps: int, dt_s: float, draw: np.random.Generator) -> Whims:
    roams, side = draw.random(steps) < ROAMING_PER_S.get(behaviour, 0.0) * dt_s, draw.random(steps)
    nothing = np.zeros(steps)
    acceleration = steering = braking = nothing
    if behaviour in BRAKERS:
        braking = _draw_braking(steps, dt_s, draw)
    if behaviour == "noise":
        acceleration = _wander(draw.standard_normal(steps), spread=1.2, time_s=1.5, dt_s=dt_s)
        steering = _wander(draw.standard_normal(steps), spread=0.006, time_s=0.5, dt_s=dt_s)
    return Whims(roams, side, braking, acceleration, steering)


def _draw_braking(steps: int, dt_s: float, draw: np.random.Generator) -> np.ndarray:
    """m/s² per step: now and then 3 m/s² or more for 0.5 to 2 s."""
    begins, lasts_s = draw.random(steps) < BRAKING_PER_S * dt_s, draw.uniform(0.5, 2.0, steps)
    strength = draw.uniform(3.0, MAX_BRAKING_MPS2, steps)
    braking, free_from = np.zeros(steps), 0
    for step in np.flatnonzero(begins).tolist():
        if step >= free_from:
            free_from = step + int(np.ceil(lasts_s[step] / dt_s))
            braking[step:free_from] = strength[step]
    return braking


def _wander(shocks: np.ndarray, spread: float, time_s: float, dt_s: float) -> np.ndarray:
    """An Ornstein-Uhlenbeck process from zero, of that standard deviation and correlation time."""
    keep = np.exp(-dt_s / time_s)
    values, value = np.empty_like(shocks), 0.0
    for step, shock in enumerate(spread * np.sqrt(1 - keep**2) * shocks):
        value = keep * value + shock
        values[step] = value
    return values

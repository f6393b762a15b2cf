"""Moments of simulated traffic to start from: episodes as `drivecast record` has them, kept with all that is known."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from drivecast.envs.batched.moments import Moments
from drivecast.envs.batched.scene import Scene
from drivecast.envs.batched.simulator import SPAWNS, BatchedHighway
from drivecast.envs.highway.road import road_of, through_lanes
from drivecast.envs.recording.batched_episodes import begin_part, parts_of, run_part
from drivecast.envs.recording.cast import RecordingPlan
from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.rules.driver_parameters import DriverParameters

SPLITS = ("train", "val")
FIRST_SEED = 7_000_000  # of these episodes: recordings are made with small ones
FIRST_STEP, EVERY_STEPS = 5, 5  # of an episode: which moments are kept


@dataclass(frozen=True)
class MomentBankConfig:
    """Simulated traffic that rollouts start from: episodes with the drivers of `drivecast record`, any car the ego.

    Args:
        episodes: Episodes to train from.
        validation_episodes: Episodes to validate from.
        duration_s: Longest an episode runs, s; it is over when its first ego crashes.
        vehicles: Least and greatest number of cars beside the ego (highway-*, merge-generic-*).
        lanes: Least and greatest number of lanes; the middle is drawn more often (highway-*, merge-generic-*).
        density: Least and greatest density of the traffic at the start (highway-*), highway-env's measure.
        speed_scale: Least and greatest factor on the initial and desired speeds of the other cars, one per episode.
        desired_speed_mps: Least and greatest speed that an episode's first ego wants, m/s.
    """

    episodes: int = 300
    validation_episodes: int = 60
    duration_s: float = 12.0
    vehicles: tuple[int, int] = (10, 30)
    lanes: tuple[int, int] = (3, 5)
    density: tuple[float, float] = (0.8, 1.5)
    speed_scale: tuple[float, float] = (0.8, 1.2)
    desired_speed_mps: tuple[float, float] = (15.0, 32.0)

    def __post_init__(self) -> None:
        for name in ("episodes", "validation_episodes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected 1 or more, got {getattr(self, name)}")
        if not 1.0 <= self.duration_s < float("inf"):
            raise ValueError(f"duration_s: expected 1 s or more, got {self.duration_s}")
        for name in ("vehicles", "lanes", "density", "speed_scale", "desired_speed_mps"):
            low, high = getattr(self, name)
            least = {"vehicles": 1, "lanes": 1}.get(name, 1e-3)
            if not least <= low <= high < float("inf"):
                raise ValueError(f"{name}: expected [least, greatest], both {least:g} or more; got [{low}, {high}]")


class MomentBank:
    """Draws moments of simulated traffic, each seen from one of its cars.

    Args:
        environment: One of the batched simulator's.
        config: What traffic.
        seed: Of the episodes.
        dt_s: Time step, s.
        dtype: Of what goes on from the moments; the episodes run in float64.

    Raises:
        InputError: The environment is not known, or no traffic came about.
    """

    def __init__(
        self,
        environment: str,
        config: MomentBankConfig,
        seed: int = 0,
        dt_s: float = 0.1,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        if environment not in SPAWNS:
            raise InputError(f"environment: expected one of {', '.join(SPAWNS)}; got '{environment}'")
        self.environment, self.config, self.dt_s, self.dtype = environment, config, dt_s, dtype
        self._roads: dict[str, list[tuple[Moments, Tensor]]] = {}
        for number, split in enumerate(SPLITS):
            ranges = asdict(config)
            episodes = (ranges.pop("episodes"), ranges.pop("validation_episodes"))[number]
            plan = RecordingPlan(environment, FIRST_SEED + len(SPLITS) * seed + number, dt_s=dt_s, **ranges)
            roads = [self._run(plan, indices) for indices in parts_of(plan, episodes)]
            self._roads[split] = [(moments, egos) for moments, egos in roads if len(egos)]
            if not self._roads[split]:
                raise InputError(f"{environment}: no moment to start from in {episodes} episodes; ask for more")

    @property
    def identity(self) -> dict[str, Any]:
        """What the traffic is, apart from its seed."""
        return {"environment": self.environment, "dt_s": self.dt_s, "dtype": str(self.dtype), **asdict(self.config)}

    def count(self, split: str) -> int:
        """How many there are to draw from."""
        return sum(len(egos) for _, egos in self._roads[split])

    def draw(self, split: str, count: int, generator: torch.Generator, one_road: bool) -> list[Moments]:
        """About `count` moments, one `Moments` per road.

        Args:
            split: `train` or `val`.
            count: How many.
            generator: On the CPU, as the moments are.
            one_road: All on one road, drawn by its share of the traffic: small batches cost nearly what large ones do.
        """
        roads = self._roads[split]
        sizes = torch.tensor([len(egos) for _, egos in roads])
        if one_road:
            pick = int(torch.multinomial(sizes.double(), 1, generator=generator))
            roads, counts = [roads[pick]], [count]
        else:
            counts = [max(round(count * int(size) / int(sizes.sum())), 1) for size in sizes]
        drawn = []
        for (moments, egos), wanted in zip(roads, counts, strict=True):
            rows, agents = egos[torch.randint(len(egos), (wanted,), generator=generator)].unbind(1)
            drawn.append(moments[rows].seen_from(agents))
        return drawn

    @torch.no_grad()
    def _run(self, plan: RecordingPlan, indices: list[int]) -> tuple[Moments, Tensor]:
        """Moments of some episodes on one road, and `(ego, 2)`: moment and agent of each car that may be the ego."""
        part = begin_part(plan, indices)
        scenes, _, steps = run_part(plan, part)
        kept = [
            (step, row)
            for step in range(FIRST_STEP, len(scenes), EVERY_STEPS)
            for row, last in enumerate(steps)
            if step < last  # an ego that has crashed is none to learn from
        ]
        rows = torch.tensor([row for _, row in kept], dtype=torch.long)

        def picked(back: int) -> Scene:
            def pick(name: str) -> Tensor:
                values = torch.stack([getattr(scenes[step - back], name)[row] for step, row in kept])
                return values.to(self.dtype) if values.is_floating_point() else values

            return Scene(**{name: pick(name) for name in vars(scenes[0])})

        drivers = {
            name: values[rows].to(self.dtype) if isinstance(values, Tensor) else values
            for name, values in vars(part.traffic.drivers).items()
            if name in DriverParameters.__dataclass_fields__
        }
        simulator = BatchedHighway(plan.environment, part.settings[0].scenario.highway_config(), self.dtype)
        road = road_of(through_lanes(simulator.network)).map(
            lambda values: values.to(self.dtype) if values.is_floating_point() else values
        )
        scene = picked(0)
        moments = Moments(
            scene=scene,
            before=picked(1),
            drivers=DriverParameters(**drivers),
            lanes=simulator.lanes,
            road=road[torch.zeros(len(kept), dtype=torch.long)],
            obstacles=len(simulator.obstacles),
            ego_only=simulator.ego_only,
            dt_s=plan.dt_s,
        )
        return moments, (scene.vehicle & ~scene.crashed).nonzero()

"""The learned world model as traffic to drive in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from drivecast.envs.imagined.arrivals import Arrivals, Entry
from drivecast.envs.imagined.config import ImaginedTrafficConfig
from drivecast.envs.imagined.section import find_sections
from drivecast.envs.imagined.starts import find_starts, recorded_history
from drivecast.envs.lockstep import LockstepStart, LockstepStep
from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.forecaster.draws import LatentDraws
from drivecast.worldmodel.forecaster.loading import load_world_model
from drivecast.worldmodel.forecaster.model import Memory, WorldModel
from drivecast.worldmodel.recordings.scenes import open_scenes
from drivecast.worldmodel.recordings.window import RecordedScene
from drivecast.worldmodel.scene.contact import ego_separation_m
from drivecast.worldmodel.scene.kinematics import drive, within_limits
from drivecast.worldmodel.scene.road import NO_LANE, Road, RoadPosition
from drivecast.worldmodel.scene.traffic import Controls, Goal, TrafficState

PERMUTATION_SEED = 2005  # of the fixed order in which seeds visit the starts
SPARE = 0.5  # slots beyond those of the fullest scene, as a share of them
LEAST_SPARE = 8
REST_S = 3.0  # a slot stays empty at least so long, longer than any driver looks back


class ImaginedTraffic:
    """`LockstepTraffic` in which everybody but the ego moves by the world model, from recorded scenes on.

    A seed stands for a recorded moment and the vehicle that is driven (all of them in one fixed order, seed `s` takes
    number `s mod count`), and for what is drawn: the others' latents, from the model's prior, and who enters. Each
    episode draws by a generator of its own, so an episode does not depend on which others stand in the batch, up to
    the rounding of sums that are added in another order.

    Vehicles enter at the lanes' open starts as the recording shows (`drivecast.envs.imagined.arrivals`), and leave
    where the recorded section ends, unless they are near the ego: it takes its surroundings along the open road. Each
    has a slot to itself; a slot is taken again only after `REST_S`. An episode is completed when it has lasted
    `duration_s`.
    """

    name = "imagined"

    def __init__(
        self,
        scenes: Mapping[str, RecordedScene],
        model: WorldModel,
        config: ImaginedTrafficConfig | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.config = config or ImaginedTrafficConfig()
        self.device = torch.device(device)
        self.model = model.to(self.device).eval().requires_grad_(False)
        self.dt_s = model.config.dt_s
        if not scenes:
            raise InputError("imagined traffic: expected at least one recording, got none; choose another split")
        for name, scene in scenes.items():
            if abs(scene.dt_s - self.dt_s) > 1e-6:
                raise InputError(
                    f"imagined traffic: the model steps by {self.dt_s:g} s and recording '{name}' by {scene.dt_s:g} s; "
                    "give a store ingested at the model's rate"
                )
        self.history_steps = round(self.config.history_s / self.dt_s) + 1
        self._names, self._scenes = list(scenes), list(scenes.values())
        self._starts = find_starts(self._scenes, self.config, self.dt_s, self.history_steps)
        count = len(self._starts.scene)
        if not count:
            raise InputError(
                f"imagined traffic: no vehicle of {len(scenes)} recordings has {self.config.history_s:g} s of history; "
                "lower imagined.history_s or take longer recordings"
            )
        self._order = np.random.default_rng(PERMUTATION_SEED).permutation(count)
        road = Road.batch([scene.road for scene in self._scenes])
        sections, headways = find_sections(self._scenes, road.centre_m.shape[1])
        self._road, self._sections = road.to(self.device), sections.to(self.device)
        self._headways = headways.to(self.device)
        fullest = max(int(scene.states.valid.sum(1).max()) for scene in self._scenes)
        self.slots = fullest + max(LEAST_SPARE, round(SPARE * fullest))
        self._desired_mps = [self.config.desired_speed_mps or _fast(scene) for scene in self._scenes]

    @classmethod
    def open(
        cls,
        model: Path | str,
        data: Sequence[Path] | Path | str,
        split: str = "test",
        config: ImaginedTrafficConfig | None = None,
        device: torch.device | str = "cpu",
    ) -> ImaginedTraffic:
        """Imagined traffic from the file of a world model and one or more recording stores."""
        return cls(open_scenes(data, split), load_world_model(model, str(device)), config, device)

    @property
    def count(self) -> int:
        """Number of starts."""
        return len(self._order)

    @torch.no_grad()
    def reset(self, seeds: Sequence[int]) -> LockstepStart:
        """Start one episode per seed."""
        starts = self._starts[torch.from_numpy(self._order[np.array(seeds, dtype=np.int64) % self.count])]
        scene = starts.scene.tolist()
        at = list(zip(scene, starts.frame.tolist(), starts.agent.tolist(), strict=True))
        history = TrafficState.cat(
            [recorded_history(self._scenes[n], frame, agent, self.history_steps, self.slots) for n, frame, agent in at]
        ).to(self.device)
        self._scene_road, self._section = self._road[starts.scene], self._sections[starts.scene]
        generators = [torch.Generator(self.device).manual_seed(int(seed)) for seed in seeds]
        most_per_s = float(self._sections.flow_per_s.max())
        self._arrivals = Arrivals(self._section, self._headways, generators, self.config.duration_s, most_per_s)
        self._latents = LatentDraws(self.model, sample=True, generator=generators)
        self._memory = self.model.observe(history, self._scene_road)
        self._state = history[:, -1]
        self._on_lane = self._scene_road.project(self._state.position_m)
        self._steps = 0
        self._left = torch.full(self._state.valid.shape, -(10**6), device=self.device)  # step at which a slot emptied
        self._over = torch.zeros(len(seeds), dtype=torch.bool, device=self.device)
        desired = torch.tensor([self._desired_mps[number] for number in scene], device=self.device)
        return LockstepStart(
            history=history,
            road=self._scene_road,
            goal=Goal(desired, torch.full((len(seeds),), NO_LANE, device=self.device)),
            task=tuple(
                {
                    "recording": self._names[number],
                    "vehicle_id": int(self._scenes[number].vehicle_id[agent]),
                    "start_s": frame * self.dt_s,
                }
                for number, frame, agent in at
            ),
        )

    @torch.no_grad()
    def step(self, controls: Controls | None) -> LockstepStep:
        if controls is None:
            raise InputError("driver 'human': imagined traffic has no recorded ego; drive it with another driver")
        running, before = ~self._over, self._state
        done = within_limits(controls.detach(), before.speed_mps[:, 0], self.dt_s)
        ego = drive(before[:, 0], done, self.dt_s).where(running, before[:, 0])
        scene = self._imagined(ego)
        self._steps += 1
        state = scene.where(running, before)
        self._state = state

        gap = ego_separation_m(state)
        collided = running & (gap.amin(-1) < -self.config.contact_tolerance_m)
        off_road = running & (self._scene_road.off_road_m(ego.position_m[:, None])[:, 0] > self.config.off_road_m)
        lasted = running & (self._steps * self.dt_s >= self.config.duration_s - 1e-6)
        self._over = self._over | collided | off_road | lasted
        return LockstepStep(
            state=state,
            controls=done,
            collided=collided,
            off_road=off_road,
            completed=lasted & ~collided & ~off_road,
            timed_out=torch.zeros_like(lasted),
            hit=torch.where(collided, gap.argmin(-1), -1),
        )

    def _imagined(self, ego: TrafficState) -> TrafficState:
        """The next scene, with the ego where it has driven to."""
        memory = self._memory
        latent = self._latents.at(self._steps, memory)
        time_s = (self._steps + 1) * self.dt_s
        free = ~memory.scene.valid & (self._steps - self._left >= REST_S / self.dt_s)
        entry = self._arrivals.enter(time_s, memory.scene, self._on_lane, free)
        rows = entry.enters.nonzero()[:, 0]
        if len(rows):
            memory = admitted(memory, entry, rows)
            latent = self._latents.begin(rows, entry.slot[rows], memory)
        known = memory.scene.with_ego(ego)
        who = torch.zeros_like(known.valid)
        who[:, 0] = True
        known.valid[rows, entry.slot[rows]] = who[rows, entry.slot[rows]] = True
        memory = self.model.step(memory, latent, self._scene_road, known, who)
        self._on_lane = self._scene_road.project(memory.scene.position_m)
        leaves = self._leaves(memory.scene, self._on_lane)
        self._left[leaves] = self._steps + 1
        self._memory = replace(memory, scene=replace(memory.scene, valid=memory.scene.valid & ~leaves))
        return self._memory.scene

    def _leaves(self, scene: TrafficState, on_lane: RoadPosition) -> Tensor:
        """Who drives out of the section where its lane goes on, and away from the ego: bool `(batch, agent)`."""
        beyond = on_lane.along_m > self._section.exit_along_m.gather(1, on_lane.lane)
        beyond &= self._section.exits.gather(1, on_lane.lane)
        far = (scene.position_m - scene.position_m[:, :1]).norm(dim=-1) > self.config.near_m
        return scene.valid & beyond & far


def admitted(memory: Memory, entry: Entry, rows: Tensor) -> Memory:
    """The memory with the slots of those who enter made new: at their place, not there yet, with nothing remembered.

    They are there once the model has stepped with them among the known. `rows (n,)`: where somebody enters.
    """
    slots = entry.slot[rows]

    def put(into: Tensor, value: Tensor | float) -> Tensor:
        changed = into.clone()
        changed[rows, slots] = value
        return changed

    new, scene, seen = entry.vehicle[rows], memory.scene, memory.seen
    return replace(
        memory,
        scene=TrafficState(
            put(scene.position_m, new.position_m),
            put(scene.heading_rad, new.heading_rad),
            put(scene.speed_mps, new.speed_mps),
            put(scene.length_m, new.length_m),
            put(scene.width_m, new.width_m),
            put(scene.valid, False),
        ),
        seen=replace(seen, valid=put(seen.valid, False)),
        embedded=put(memory.embedded, 0.0),
        hidden=put(memory.hidden, 0.0),
        acceleration_mps2=put(memory.acceleration_mps2, 0.0),
        curvature_per_m=put(memory.curvature_per_m, 0.0),
    )


def _fast(scene: RecordedScene) -> float:
    """The 95th percentile of a recording's speeds, m/s."""
    return float(np.quantile(scene.states.speed_mps[scene.states.valid].cpu().numpy(), 0.95))

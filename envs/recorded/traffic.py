"""Recorded traffic as a closed loop: one recorded vehicle is driven, the others replay their recording or react."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from drivecast.envs.lockstep import LockstepStart, LockstepStep
from drivecast.envs.recorded.config import RecordedTrafficConfig
from drivecast.envs.recorded.reacting_vehicles import ReactingVehicles
from drivecast.envs.recorded.tasks import Tasks, find_tasks
from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.recordings.scenes import open_scenes
from drivecast.worldmodel.recordings.window import RecordedScene
from drivecast.worldmodel.scene.contact import ego_separation_m
from drivecast.worldmodel.scene.kinematics import MAX_STEERING_RAD, drive, recorded_controls
from drivecast.worldmodel.scene.lane_neighbours import longest_lane, single_lane
from drivecast.worldmodel.scene.road import NO_LANE, Road
from drivecast.worldmodel.scene.traffic import Controls, Goal, TrafficState

PERMUTATION_SEED = 2005  # of the fixed order in which seeds visit the vehicles
GOAL_TOLERANCE_M = 1e-3  # rounding of a replayed position


class RecordedTraffic:
    """`LockstepTraffic` over recordings: the protocol of PPUU (Henaff et al. 2019, section 5).

    A seed stands for one vehicle: the eligible vehicles of all recordings are put in one fixed order (a permutation
    drawn once with `PERMUTATION_SEED`), and seed `s` drives vehicle `s mod count`. So seeds `0 .. count - 1` drive each
    vehicle once.

    The ego is handed over after `history_s` and moves by `bicycle_step` with its own length. It has completed its task
    when its progress, measured along the recording's longest lane, reaches where the human was at the end of its
    track. The others replay and do not react (an ego that brakes is run into, which is why contacts are split by
    fault), or by `RecordedTrafficConfig.others` they do (`drivecast.envs.recorded.reacting_vehicles`).
    """

    def __init__(
        self,
        scenes: Mapping[str, RecordedScene],
        config: RecordedTrafficConfig | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.config = config or RecordedTrafficConfig()
        self.name = "recorded" if self.config.others == "replay" else f"recorded-{self.config.others}"
        self.device = torch.device(device)
        if not scenes:
            raise InputError("recorded traffic: expected at least one recording, got none; choose another split")
        steps = {round(scene.dt_s, 6) for scene in scenes.values()}
        if len(steps) > 1:
            raise InputError(f"recorded traffic: expected one time step, got {sorted(steps)} s; ingest at one rate")
        self.dt_s = steps.pop()
        self.history_steps = round(self.config.history_s / self.dt_s) + 1
        dense = list(scenes.values())
        self._names = list(scenes)
        self._vehicle_ids = [scene.vehicle_id.tolist() for scene in dense]
        self._road = Road.batch([scene.road for scene in dense]).to(self.device)
        self._tasks, self._desired_mps = find_tasks(dense, self.config, self.dt_s, self.history_steps, self.device)
        self._lay_out(dense)
        self._reacting = None if self.config.others == "replay" else ReactingVehicles(scenes, self.config, self.device)
        count = len(self._tasks.scene)
        if count == 0:
            raise InputError(
                f"recorded traffic: no vehicle of {len(scenes)} recordings has {self.config.history_s} s of history "
                f"and then a span of {self.config.min_span_s} s; lower traffic.min_span_s or take longer recordings"
            )
        self.order = torch.from_numpy(np.random.default_rng(PERMUTATION_SEED).permutation(count)).to(self.device)
        self._axis = longest_lane(self._road)

    @classmethod
    def open(
        cls,
        data: Sequence[Path] | Path,
        split: str = "test",
        config: RecordedTrafficConfig | None = None,
        device: torch.device | str = "cpu",
    ) -> RecordedTraffic:
        """Recorded traffic from one or more recording stores (see `drivecast.worldmodel.recordings.store`)."""
        return cls(open_scenes(data, split), config, device)

    @property
    def count(self) -> int:
        """Number of vehicles that can be driven."""
        return len(self._tasks.scene)

    def reset(self, seeds: Sequence[int]) -> LockstepStart:
        tasks = self.order[torch.tensor([seed % self.count for seed in seeds], device=self.device)]
        self._task = self._tasks[tasks]
        task = self._task
        self._scene_road = self._road[task.scene]
        self._axis_road = single_lane(self._scene_road, self._axis[task.scene])
        self._slots = self._present(task)
        self._barred = torch.zeros(self._slots.shape, dtype=torch.bool, device=self.device)
        self._frame = task.start.clone()
        self._over = torch.zeros(len(seeds), dtype=torch.bool, device=self.device)
        times = torch.arange(1 - self.history_steps, 1, device=self.device)
        past = [self._replay(self._frame + int(time)) for time in times]
        self._state = past[-1]
        if self._reacting:
            self._reacting.reset(task.scene, self._slots, self._state)
        desired = self._desired_mps[task.scene]
        return LockstepStart(
            history=TrafficState.stack(past, 1),
            road=self._scene_road,
            goal=Goal(desired, torch.full_like(task.scene, NO_LANE)),
            task=tuple(
                {
                    "recording": self._names[scene],
                    "vehicle_id": self._vehicle_ids[scene][agent],
                    "human_s": (finish - start) * self.dt_s,
                }
                for scene, agent, start, finish in zip(
                    task.scene.tolist(), task.agent.tolist(), task.start.tolist(), task.finish.tolist(), strict=True
                )
            ),
        )

    def step(self, controls: Controls | None) -> LockstepStep:
        running = ~self._over
        frame = self._frame + running
        before, scene = self._state, self._replay(frame)
        if controls is None:
            ego, done = scene[:, 0], self._recorded_controls(before, scene)
        else:
            done = self._limited(controls)
            ego = drive(before[:, 0], done, self.dt_s)
        # once the human's recording is over, its replay goes on standing: the task was complete before
        ego = ego.where(running & ego.valid, before[:, 0])
        if self._reacting:
            now, axis = self._row_at(self._frame), self._axis_road.project(before.position_m[:, :1])
            scene = self._reacting.step(before, scene, ego, now, axis, running, self.dt_s)
        self._barred |= self._appeared_on_ego(before, scene, ego)
        state = replace(scene, valid=scene.valid & ~self._barred).with_ego(ego)
        state = state.where(running, before)
        self._state, self._frame = state, frame

        gap = ego_separation_m(state)
        progress = self._progress(state.position_m[:, :1])
        collided = running & (gap.amin(-1) < -self.config.contact_tolerance_m)
        off_road = running & (self._scene_road.off_road_m(state.position_m[:, :1])[:, 0] > self.config.off_road_m)
        completed = running & (progress >= self._task.goal_m - GOAL_TOLERANCE_M)
        timed_out = running & (frame >= self._task.limit)
        self._over = self._over | collided | off_road | completed | timed_out
        return LockstepStep(
            state=state,
            controls=done,
            collided=collided,
            off_road=off_road,
            completed=completed & ~collided & ~off_road,
            timed_out=timed_out & ~collided & ~off_road & ~completed,
            progress=self._share(progress),
            hit=torch.where(collided, gap.argmin(-1), -1),
            human_progress=self._human_progress(frame),
        )

    def _share(self, progress_m: Tensor) -> Tensor:
        """Share of the task that is done with this progress."""
        task = self._task
        return ((progress_m - task.start_m) / (task.goal_m - task.start_m).clamp_min(1e-6)).clamp(0.0, 1.0)

    def _human_progress(self, frame: Tensor) -> Tensor:
        human = self._rows[self._row_at(frame)[:, 0]]
        return torch.where(frame < self._task.finish, self._share(self._progress(human.position_m[:, None])), 1.0)

    def _limited(self, controls: Controls) -> Controls:
        most = self.config.max_acceleration_mps2
        return Controls(
            controls.acceleration_mps2.detach().to(self.device).clamp(-most, most),
            controls.steering_rad.detach().to(self.device).clamp(-MAX_STEERING_RAD, MAX_STEERING_RAD),
        )

    def _recorded_controls(self, before: TrafficState, after: TrafficState) -> Controls:
        pair = TrafficState.stack([before[:, 0], after[:, 0]], 1)
        acceleration, steering = recorded_controls(pair.heading_rad, pair.speed_mps, pair.length_m[:, 0], self.dt_s)
        known = pair.valid.all(1)
        return Controls(acceleration[:, 0].where(known, 0.0), steering[:, 0].where(known, 0.0))

    def _appeared_on_ego(self, before: TrafficState, scene: TrafficState, ego: TrafficState) -> Tensor:
        """Vehicles that the recording first shows on top of the ego: no human was there when it was made."""
        appeared = scene.valid & ~before.valid & ~self._barred
        near = ego_separation_m(scene.with_ego(ego)) < self.config.appearing_m
        return appeared & near

    def _progress(self, ego_m: Tensor) -> Tensor:
        return self._axis_road.project(ego_m).along_m[:, 0]

    def _replay(self, frame: Tensor) -> TrafficState:
        """The recorded scene at `frame (batch,)`, in the episodes' slots; nobody after the recording's end."""
        return self._rows[self._row_at(frame)]

    def _row_at(self, frame: Tensor) -> Tensor:
        """Row of each slot's vehicle at `frame (batch,)`; 0, which stands for nobody, where there is none."""
        scene = self._task.scene
        inside = (frame >= 0) & (frame < self._frames[scene])
        row = self._offset[scene] + frame * self._agents[scene]
        there = (self._slots >= 0) & inside[:, None]
        return torch.where(there, row[:, None] + self._slots, 0)

    def _present(self, task: Tasks) -> Tensor:
        """Recorded agents that are seen in the episode's time, the ego first, as `(batch, slot)`, -1 for none."""
        agents = self._first.shape[1]
        index = torch.arange(agents, device=self.device)
        since = (task.start - self.history_steps + 1)[:, None]
        seen = (self._first[task.scene] <= task.limit[:, None]) & (self._last[task.scene] >= since)
        is_ego = index == task.agent[:, None]
        order = torch.where(is_ego, -1, torch.where(seen, index, agents))
        slots = order.argsort(dim=1, stable=True)
        count = int((seen | is_ego).sum(1).max())
        known = order.gather(1, slots) < agents
        return torch.where(known, slots, -1)[:, :count]

    def _lay_out(self, scenes: Sequence[RecordedScene]) -> None:
        """All recordings end to end, row 0 standing for nobody, so that a step is one gather."""
        sizes = [scene.states.valid.shape for scene in scenes]
        rows = [scene.states.map(lambda tensor: tensor.flatten(0, 1)).to(self.device) for scene in scenes]
        nobody = rows[0].map(lambda tensor: torch.zeros_like(tensor[:1]))
        nobody = replace(nobody, length_m=nobody.length_m + 1, width_m=nobody.width_m + 1)
        self._rows = TrafficState.cat([nobody, *rows])
        self._frames = torch.tensor([frames for frames, _ in sizes], device=self.device)
        self._agents = torch.tensor([agents for _, agents in sizes], device=self.device)
        counts = torch.tensor([0] + [frames * agents for frames, agents in sizes[:-1]], device=self.device)
        self._offset = 1 + counts.cumsum(0)
        most = max(agents for _, agents in sizes)
        self._first = torch.full((len(scenes), most), torch.iinfo(torch.long).max, device=self.device)
        self._last = torch.full((len(scenes), most), -1, device=self.device)
        for number, scene in enumerate(scenes):
            self._first[number, : len(scene.first_step)] = scene.first_step.to(self.device)
            self._last[number, : len(scene.last_step)] = scene.last_step.to(self.device)

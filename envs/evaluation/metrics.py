"""What one drive was like: safety, progress and comfort, one row per episode."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import scipy  # its modules load where they are used: they take nearly as long as torch
import torch
from torch import Tensor

from drivecast.envs.lockstep import LockstepStep
from drivecast.worldmodel.scene.contact import ContactKind, at_fault, contact_kind, nearest_contact, straddles_lanes
from drivecast.worldmodel.scene.instruments import read_instruments
from drivecast.worldmodel.scene.road import Road
from drivecast.worldmodel.scene.traffic import TrafficState

OUTCOMES = ("collision", "off_road", "completed", "timed_out")  # by precedence
SHORT_TTC_S = 0.95  # nuPlan `least_min_ttc`
COMFORT_BOUNDS = {  # nuPlan `ego_is_comfortable`
    "longitudinal_acceleration_mps2": (-4.05, 2.40),
    "lateral_acceleration_mps2": (-4.89, 4.89),
    "jerk_mps3": (-8.37, 8.37),
    "longitudinal_jerk_mps3": (-4.13, 4.13),
    "yaw_rate_radps": (-0.95, 0.95),
}
DERIVATIVE_WINDOW_STEPS = 15  # nuPlan smooths derivatives with a Savitzky-Golay filter of order 2 over 15 samples
MOST_TO_HUMAN = 1.5  # progress relative to the human counts no more than this
KEEPING_S = 2.0  # who has been within one lane for this long keeps its lane
OVER_MARKING_M = 0.3  # ... its box no further over the marking than this: wide cars on narrow lanes are at times


@dataclass(frozen=True)
class Observation:
    """What is noted of each episode at each moment, `(batch,)` each."""

    position_m: Tensor  # (batch, 2)
    heading_rad: Tensor
    speed_mps: Tensor
    time_to_collision_s: Tensor  # inf: none
    time_headway_s: Tensor  # NaN: no leader, or too slow
    lane: Tensor
    straddles: Tensor


def observe(state: TrafficState, road: Road) -> Observation:
    """Look at `state (batch, agent)`."""
    ego, read = state[:, 0], read_instruments(state, road)
    return Observation(
        position_m=ego.position_m,
        heading_rad=ego.heading_rad,
        speed_mps=ego.speed_mps,
        time_to_collision_s=read.time_to_collision_s,
        time_headway_s=read.time_headway_s,
        lane=read.lane,
        straddles=straddles_lanes(state, road, OVER_MARKING_M),
    )


class DriveLog:
    """Collects the observations of a batch of episodes and turns them into a table when all are over."""

    def __init__(self, start: TrafficState, road: Road, dt_s: float) -> None:
        self.dt_s = dt_s
        self._road = road
        self._seen = [observe(start, road)]
        batch = start.heading_rad.shape[0]
        device = start.heading_rad.device
        self.running = torch.ones(batch, dtype=torch.bool, device=device)
        self.steps = torch.zeros(batch, dtype=torch.long, device=device)
        self.outcome = torch.full((batch,), -1, device=device)
        self.kind = torch.zeros(batch, dtype=torch.long, device=device)
        self.hit = torch.full((batch,), -1, device=device)
        self.fault = torch.zeros(batch, dtype=torch.bool, device=device)
        self.part = torch.zeros(batch, dtype=torch.long, device=device)
        self.progress = torch.full((batch,), torch.nan, device=device)
        self.overridden: Tensor | None = None  # steps in which a safety net overrode the driver
        # at the human's goal or the end, whichever is first: done, and what the human had done by then
        self._compared, self._human = torch.full_like(self.progress, torch.nan), torch.zeros_like(self.progress)
        kept = self._seen[0].lane
        self._kept_since = torch.where(self._seen[0].straddles, 0, -round(KEEPING_S / dt_s))
        self._lane = kept

    def add(self, step: LockstepStep, overridden: Tensor | None = None) -> None:
        """Note one step of all episodes; those that were over already are left as they were.

        `overridden (batch,)`: whether a safety net overrode the driver; None: there is no net.
        """
        if overridden is not None:
            before = torch.zeros_like(self.steps) if self.overridden is None else self.overridden
            self.overridden = before + (overridden.to(before.device) & self.running)
        seen = observe(step.scene, self._road)
        self._seen.append(seen)
        now = len(self._seen) - 1
        self.steps = self.steps + self.running
        broke = seen.straddles | (seen.lane != self._lane)
        self._lane = seen.lane
        self._kept_since = torch.where(broke, now, self._kept_since)
        if step.progress is not None:
            self.progress = torch.where(self.running, step.progress, self.progress)
        if step.progress is not None and step.human_progress is not None:
            counts = self.running & (self._human < 1.0)
            self._compared = torch.where(counts, step.progress, self._compared)
            self._human = torch.where(counts, step.human_progress, self._human)

        collided = self.running & step.collided
        if collided.any():
            nearest = nearest_contact(step.scene)
            hit = nearest if step.hit is None else torch.where(step.hit >= 0, step.hit, nearest)
            kind = contact_kind(step.scene, hit)
            moving = replace(step.scene, speed_mps=torch.ones_like(step.scene.speed_mps))
            self.part = torch.where(collided, contact_kind(moving, hit), self.part)
            keeps = (now - self._kept_since) * self.dt_s >= KEEPING_S - 1e-6
            self.hit = torch.where(collided, hit, self.hit)
            self.kind = torch.where(collided, kind, self.kind)
            self.fault = torch.where(collided, at_fault(kind, keeps), self.fault)
        for number, event in enumerate((step.collided, step.off_road, step.completed, step.timed_out)):
            self.outcome = torch.where((self.outcome < 0) & self.running & event, number, self.outcome)
        self.running = self.running & ~step.ended

    def table(self) -> pd.DataFrame:
        """One row per episode; the columns are those of docs/evaluation.md."""
        seen = {name: torch.stack([getattr(o, name) for o in self._seen], 1).cpu().numpy() for name in _TRACED}
        steps = self.steps.cpu().numpy()
        rows = [
            self._row({name: values[episode, : length + 1] for name, values in seen.items()})
            for episode, length in enumerate(steps)
        ]
        table = pd.DataFrame(rows)
        outcome = self.outcome.cpu().numpy()
        table.insert(0, "outcome", [OUTCOMES[number] if number >= 0 else "timed_out" for number in outcome])
        kinds = self.kind.cpu().numpy()
        table["contact"] = [ContactKind(number).name.lower() if number else "" for number in kinds]
        parts = self.part.cpu().numpy()
        table["contact_part"] = [ContactKind(number).name.lower() if number else "" for number in parts]
        table["at_fault"] = self.fault.cpu().numpy()
        table["progress"] = self.progress.cpu().numpy()
        table["progress_to_human"] = self._to_human().cpu().numpy()
        table["duration_s"] = steps * self.dt_s
        if self.overridden is not None:
            table["net_share"] = self.overridden.cpu().numpy() / np.maximum(steps, 1)
        return table

    def _to_human(self) -> Tensor:
        """Progress relative to the human's in the same time; who crashed or left the road stands from then on."""
        failed = (self.outcome == OUTCOMES.index("collision")) | (self.outcome == OUTCOMES.index("off_road"))
        human = torch.where(failed, 1.0, self._human)
        return (self._compared / human.clamp_min(1e-6)).clamp_max(MOST_TO_HUMAN)

    def _row(self, drive: dict[str, np.ndarray]) -> dict[str, float]:
        speed, ttc, headway = drive["speed_mps"], drive["time_to_collision_s"], drive["time_headway_s"]
        travelled = np.linalg.norm(np.diff(drive["position_m"], axis=0), axis=1).sum()
        row = {
            "mean_speed_mps": float(speed.mean()),
            "distance_m": float(travelled),
            "min_ttc_s": float(ttc.min()),
            "short_ttc_share": float((ttc < SHORT_TTC_S).mean()),
            "time_headway_s": float(np.nanmedian(headway)) if np.isfinite(headway).any() else np.nan,
        }
        for name, values in comfort_signals(speed, drive["heading_rad"], self.dt_s).items():
            low, high = COMFORT_BOUNDS[name]
            outside = (values < low) | (values > high)
            row[f"uncomfortable_{name.rsplit('_', 1)[0]}"] = float(outside.mean())
        return row


_TRACED = ("position_m", "heading_rad", "speed_mps", "time_to_collision_s", "time_headway_s")


def comfort_signals(speed_mps: np.ndarray, heading_rad: np.ndarray, dt_s: float) -> dict[str, np.ndarray]:
    """The quantities that `COMFORT_BOUNDS` bounds, for one drive `(time,)`.

    As nuPlan, derivatives are taken by a Savitzky-Golay filter of order 2 over 15 samples (fewer in a shorter drive),
    so that 10 Hz noise is not called jerk. Acceleration along and across the heading: dv/dt and v dpsi/dt; jerk: the
    derivative of that vector's length; longitudinal jerk: of its first part.
    """
    window = min(DERIVATIVE_WINDOW_STEPS, len(speed_mps) - 1 + len(speed_mps) % 2)
    if window < 3:
        return {name: np.zeros(len(speed_mps)) for name in COMFORT_BOUNDS}

    def derivative(values: np.ndarray) -> np.ndarray:
        return scipy.signal.savgol_filter(values, window, 2, deriv=1, delta=dt_s)

    along = derivative(speed_mps)
    yaw_rate = derivative(np.unwrap(heading_rad))
    across = speed_mps * yaw_rate
    return {
        "longitudinal_acceleration_mps2": along,
        "lateral_acceleration_mps2": across,
        "jerk_mps3": derivative(np.hypot(along, across)),
        "longitudinal_jerk_mps3": derivative(along),
        "yaw_rate_radps": yaw_rate,
    }

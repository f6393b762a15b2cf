"""Drivers in traffic: many episodes in lockstep, their measures, and the episodes that are kept to look at."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable

import pandas as pd
import torch
from torch import Tensor

from drivecast.envs.evaluation.metrics import DriveLog
from drivecast.envs.lockstep import AttentiveTraffic, LockstepStart, LockstepTraffic
from drivecast.envs.replay.episode import Episode, EpisodeMetadata
from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.scene.driver import Driver, Imagination, ImaginingDriver, checked, history_steps_of
from drivecast.worldmodel.scene.lane_neighbours import nearest_indices, pick_agents, pick_attended
from drivecast.worldmodel.scene.road import Road
from drivecast.worldmodel.scene.traffic import Controls, Goal, TrafficState

IMAGINED_AGENTS = 24  # futures are asked for the ego and the vehicles nearest to it
KEEP = ("none", "sample", "crashes", "all")

# (states (batch, steps + 1, agent), controls (batch, steps), road, goal) -> weighted cost terms, (batch, steps) each
Score = Callable[[TrafficState, Controls, Road, Goal], dict[str, Tensor]]
OnProgress = Callable[[int, int, int], None]  # episodes done, collisions so far, completed so far


@dataclass(frozen=True)
class ClosedLoopConfig:
    """How episodes are run and which are kept.

    Args:
        batch: Episodes in lockstep at a time.
        keep: Which episodes to keep for replay: `none`; `sample`: the first ones and the first crashes; `crashes`: the
            first crashes and departures from the road; `all`.
        keep_at_most: With `sample` and `crashes`, keep at most this many of each sort.
        imagine_every_s: Drivers that imagine futures are asked for them this often in kept episodes, s.
        compare_every_s: How often the imagined cost is compared with what came about, s; 0: at the start only.
        most_steps: Stop episodes that no event ends after this many steps.
    """

    batch: int = 64
    keep: str = "sample"
    keep_at_most: int = 5
    imagine_every_s: float = 1.0
    compare_every_s: float = 3.0
    most_steps: int = 20_000

    def __post_init__(self) -> None:
        if self.keep not in KEEP:
            raise InputError(f"keep: expected one of {', '.join(KEEP)}; got '{self.keep}'")
        for name in ("batch", "most_steps", "imagine_every_s"):
            if getattr(self, name) <= 0:
                raise InputError(f"{name}: expected more than 0, got {getattr(self, name)}")
        for name in ("keep_at_most", "compare_every_s"):
            if getattr(self, name) < 0:
                raise InputError(f"{name}: expected at least 0, got {getattr(self, name)}")


@runtime_checkable
class KnowingDriver(Protocol):
    """A driver that looks into the traffic itself: a bound for those that may not."""

    def attend(self, traffic: LockstepTraffic) -> None:
        """Told which traffic it will drive in."""
        ...


class Keeper:
    """Decides, episode by episode in the order of the seeds, which are kept."""

    def __init__(self, config: ClosedLoopConfig) -> None:
        self.config = config
        self.crashes = 0

    def wants(self, number: int, outcome: str) -> bool:
        """Whether episode `number` is kept, given how it ended."""
        most, keep = self.config.keep_at_most, self.config.keep
        if keep == "all" or (keep == "sample" and number < most):
            return True
        if keep == "none" or outcome not in ("collision", "off_road") or self.crashes >= most:
            return False
        self.crashes += 1
        return True


@dataclass
class ClosedLoopResult:
    """Attributes:
    table: One row per episode, in the order of the seeds: `seed`, what names the task, and the columns of `DriveLog`.
    episodes: The kept ones.
    """

    table: pd.DataFrame
    episodes: list[Episode] = field(default_factory=list)


def run_episodes(
    traffic: LockstepTraffic,
    driver: Driver,
    seeds: Sequence[int],
    config: ClosedLoopConfig | None = None,
    score: Score | None = None,
    config_hash: str = "",
    on_progress: OnProgress | None = None,
    first: int = 0,
) -> ClosedLoopResult:
    """Drive one episode per seed.

    A driver with an attribute `replays` that is true is the recorded human: the traffic replays its ego.

    Args:
        traffic: Where to drive.
        driver: Who drives.
        seeds: One episode each.
        config: Batch size, and which episodes are kept.
        score: What an episode cost in truth; adds `cost_TERM` per episode, and for a driver that imagines
            `imagined_cost` and `realised_cost` per step over the same futures.
        config_hash: Stored with the kept episodes.
        on_progress: Called after each batch.
        first: How many episodes other calls ran before these, when one evaluation is spread over processes.
    """
    config = config or ClosedLoopConfig()
    if isinstance(driver, KnowingDriver):
        driver.attend(traffic)
    tables: list[pd.DataFrame] = []
    kept: list[Episode] = []
    keeper = Keeper(config)
    collisions = completed = 0
    for start in range(0, len(seeds), config.batch):
        batch = _Batch(traffic, driver, list(seeds[start : start + config.batch]), config, score)
        table = batch.run()
        wanted = [keeper.wants(first + start + number, outcome) for number, outcome in enumerate(table["outcome"])]
        kept.extend(batch.episodes([number for number, keep in enumerate(wanted) if keep], table, config_hash))
        tables.append(table)
        collisions += int((table["outcome"] == "collision").sum())
        completed += int((table["outcome"] == "completed").sum())
        if on_progress:
            on_progress(len(table), collisions, completed)
    return ClosedLoopResult(pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(), kept)


class _Batch:
    """Some episodes side by side, from reset to the last one's end."""

    def __init__(
        self,
        traffic: LockstepTraffic,
        driver: Driver,
        seeds: list[int],
        config: ClosedLoopConfig,
        score: Score | None,
    ) -> None:
        self.traffic, self.driver, self.seeds, self.config, self.score = traffic, driver, seeds, config, score
        self.history_steps = history_steps_of(driver)
        self.compared: list[tuple[int, dict[str, Tensor]]] = []  # step, imagined cost terms (batch, future)
        self.costs: dict[str, Tensor] = {}
        self.controls: list[Controls] = []

    @torch.no_grad()
    def run(self) -> pd.DataFrame:
        traffic, driver = self.traffic, self.driver
        self.start: LockstepStart = traffic.reset(self.seeds)
        history, road, goal = self.start.history, self.start.road, self.start.goal
        before = history.heading_rad.shape[1]
        self.states = [history[:, time] for time in range(before)]
        self.before = before - 1  # states that precede the episode
        replays = bool(getattr(driver, "replays", False))
        self.log = DriveLog(self.states[-1], road, traffic.dt_s)
        driver.reset(self.states[-1], road, goal)
        compare_every = round(self.config.compare_every_s / traffic.dt_s)
        for number in range(self.config.most_steps):
            controls = None
            if not replays:
                seen = TrafficState.stack(self.states[-self.history_steps :], 1)
                controls = checked(driver.act(seen, road, goal), driver.name, number)
                if isinstance(traffic, AttentiveTraffic):
                    traffic.announce(getattr(driver, "chosen_lane", None))
                if self.score and isinstance(driver, ImaginingDriver):
                    due = number % compare_every == 0 if compare_every else number == 0
                    if due:  # asked after it has acted, when it has decided where to go
                        near, agents = _nearest(seen, driver)
                        imagined = driver.imagine(near, road, _told(goal, driver, agents))
                        self._note_imagined_cost(number, imagined)
            step = traffic.step(controls)
            self.log.add(step, getattr(driver, "acted", None))
            self._remember(step.scene, step.controls)
            if not bool(self.log.running.any()):
                break
        table = self.log.table()
        names = pd.DataFrame([{"seed": seed, **task} for seed, task in zip(self.seeds, self.start.task, strict=True)])
        table = pd.concat([names.loc[:, ~names.columns.duplicated()], table], axis=1)
        if self.score is not None:
            table = pd.concat([table, self._scored(self.score)], axis=1)
        return table

    def _remember(self, state: TrafficState, controls: Controls) -> None:
        self.states.append(state)
        self.controls.append(controls)
        if self.config.keep == "none" and self.score is None:
            del self.states[: max(0, len(self.states) - self.history_steps)]
            self.controls.clear()

    def _note_imagined_cost(self, step: int, imagination: Imagination) -> None:
        if imagination.cost:
            self.compared.append((step, imagination.cost))

    def _scored(self, score: Score) -> pd.DataFrame:
        """Mean realised cost per step by term; and imagined beside realised cost over the same steps."""
        states = TrafficState.stack(self.states[self.before :], 1)
        controls = Controls.stack(self.controls, 1)
        self.costs = score(states, controls, self.start.road, self.start.goal)
        steps = torch.arange(controls.steering_rad.shape[1], device=self.log.steps.device)
        driven = steps < self.log.steps[:, None]
        count = driven.sum(1).clamp_min(1)
        columns = {f"cost_{name}": ((cost * driven).sum(1) / count).cpu().numpy() for name, cost in self.costs.items()}
        if self.compared:
            # some terms are only imagined, such as the model's uncertainty: compare those that also come about
            shared = [name for name in self.costs if name in self.compared[0][1]]
            total = sum((self.costs[name] for name in shared), torch.zeros_like(controls.steering_rad))
            imagined, realised, compared = (torch.zeros_like(total[:, 0]) for _ in range(3))
            for step, terms in self.compared:
                expected = sum((terms[name] for name in shared), torch.zeros_like(next(iter(terms.values()))))
                length = min(expected.shape[1], total.shape[1] - step)
                there = driven[:, step : step + length]
                imagined += (expected[:, :length] * there).sum(1)
                realised += (total[:, step : step + length] * there).sum(1)
                compared += there.sum(1)
            compared = compared.clamp_min(1)
            columns["imagined_cost"] = (imagined / compared).cpu().numpy()
            columns["realised_cost"] = (realised / compared).cpu().numpy()
        return pd.DataFrame(columns)

    @torch.no_grad()
    def episodes(self, chosen: Sequence[int], table: pd.DataFrame, config_hash: str) -> Iterator[Episode]:
        """The chosen episodes, with what their driver imagined on the way."""
        if not chosen:
            return
        index = torch.tensor(list(chosen), device=self.log.steps.device)
        # (chosen, before + steps + 1, agent)
        states = TrafficState.stack([state[index] for state in self.states], 1)
        controls = Controls.stack([done[index] for done in self.controls], 1)
        imagined = self._imagine(states, index)
        for number, episode in enumerate(chosen):
            row = table.iloc[episode]
            steps = int(self.log.steps[episode])
            hit = int(self.log.hit[episode])
            yield Episode(
                states=states[number, self.before : self.before + steps + 1].to("cpu"),
                controls=controls[number, :steps].to("cpu"),
                road=self.start.road[episode : episode + 1].to("cpu"),
                metadata=EpisodeMetadata(
                    driver=self.driver.name,
                    environment=self.traffic.name,
                    seed=int(self.seeds[episode]),
                    dt_s=self.traffic.dt_s,
                    outcome=row["outcome"],
                    config_hash=config_hash,
                    recording=row.get("recording"),
                    vehicle_id=int(row["vehicle_id"]) if "vehicle_id" in row else None,
                    collided_with=hit if hit >= 0 else None,
                    at_fault=bool(row["at_fault"]) if row["outcome"] == "collision" else None,
                    desired_speed_mps=float(self.start.goal.desired_speed_mps[episode]),
                    extras={"contact": row["contact"]} if row["contact"] else {},
                ),
                costs={name: cost[episode, :steps].cpu() for name, cost in self.costs.items()},
                imaginations={step: every.of(number) for step, every in imagined.items() if step < steps},
            )

    def _imagine(self, states: TrafficState, index: Tensor) -> dict[int, Imagination]:
        """Ask the driver, afterwards, what it expected in the chosen episodes."""
        driver = self.driver
        if not isinstance(driver, ImaginingDriver):
            return {}
        road, goal = self.start.road[index], self.start.goal[index]
        driver.reset(states[:, self.before], road, goal)
        every = max(1, round(self.config.imagine_every_s / self.traffic.dt_s))
        found = {}
        last = int(self.log.steps[index].max()) - 1
        for step in range(last - last % every + 1):  # nothing is asked afterwards
            now = self.before + step
            seen = states[:, max(0, now + 1 - self.history_steps) : now + 1]
            driver.act(seen, road, goal)  # a driver that makes up its mind is led to the same one
            if step % every == 0:
                near, agents = _nearest(seen, driver)
                imagined = driver.imagine(near, road, _told(goal, driver, agents))
                attended = getattr(driver, "attended", None)
                found[step] = replace(
                    imagined,
                    futures_m=_for_all(imagined.futures_m, agents, states[:, now]),
                    attended=None if attended is None else attended.any(1),
                )
        return found


def _nearest(history: TrafficState, driver: Driver) -> tuple[TrafficState, Tensor]:
    """The history of the vehicles nearest at present, and their agents `(batch, near)`.

    The ego comes first; whom the driver's concepts are about are among them.
    """
    attended = getattr(driver, "attended", None)
    kept = None if attended is None else attended.any(1).to(history.valid.device)
    agents = nearest_indices(history[:, -1], IMAGINED_AGENTS - 1, kept)
    return pick_agents(history, agents), agents


def _told(goal: Goal, driver: Driver, agents: Tensor) -> Goal:
    """The goal, with whom the driver's concepts are about among `agents (batch, near)`."""
    attended = getattr(driver, "attended", None)
    return goal if attended is None else replace(goal, attended=pick_attended(attended.to(agents.device), agents))


def _for_all(futures_m: Tensor, agents: Tensor, now: TrafficState) -> Tensor:
    """Futures `(batch, sample, step, near, 2)` of `agents` among all agents; NaN for who was not imagined."""
    batch, samples, steps, _, _ = futures_m.shape
    everyone = futures_m.new_full((batch, samples, steps, now.valid.shape[1], 2), torch.nan)
    everyone = everyone.scatter(3, agents[:, None, None, :, None].expand_as(futures_m), futures_m)
    return everyone.masked_fill(~now.valid[:, None, None, :, None], torch.nan)

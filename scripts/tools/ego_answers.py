"""How others answer an ego, imagined and simulated: `... tools.ego_answers --model PATH`.

On scenes of highway-v0 from 12 s on, an ego goes on, brakes, brakes hard, or cuts in ahead of a follower on the next
lane: once in the simulator, once in a world model that knows the ego's motion. Of the car behind it prints by how much
it is slower than behind an ego that goes on, after 1 to 4 s, and how many touch the ego.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from drivecast.envs.batched.traffic import BatchedHighwayTraffic
from drivecast.envs.drivers import IDMConfig, IDMDriver
from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.forecaster.forecast import sampled_forecasts
from drivecast.worldmodel.forecaster.loading import load_world_model
from drivecast.worldmodel.forecaster.model import WorldModel
from drivecast.worldmodel.rules.steering import lane_keeping_steering
from drivecast.worldmodel.scene.contact import separation_m
from drivecast.worldmodel.scene.lane_neighbours import lane_neighbours
from drivecast.worldmodel.scene.road import NO_LANE, Road
from drivecast.worldmodel.scene.traffic import Controls, TrafficState

FIRST_SEED = 7_700_000
WARM_UP_S, PAST_S, AHEAD_S = 12.0, 3.0, 4.0  # highway-env starts its ego behind everybody
AT_S = (1, 2, 3, 4)
DENSITY = 1.5
NEAR_M = 40.0  # from centre to centre, of the car behind
LEAST_GAP_M = 8.0  # to who is cut in on


@dataclass(frozen=True)
class Manoeuvre:
    """What the ego does; `to_the_left` changes lane."""

    name: str
    acceleration_mps2: float
    to_the_left: bool = False


GOES_ON = Manoeuvre("goes on", 0.0)
MANOEUVRES = (
    Manoeuvre("brakes", -3.0),
    Manoeuvre("brakes hard", -6.0),
    Manoeuvre("cuts in", 0.0, to_the_left=True),
)


@dataclass(frozen=True)
class Answers:
    """Of the car behind, speed `(episode, second)` and whether it touched the ego `(episode,)`."""

    speed_mps: Tensor
    touches: Tensor


def simulate(
    traffic: BatchedHighwayTraffic, seeds: Sequence[int], manoeuvre: Manoeuvre
) -> tuple[TrafficState, TrafficState, Road, Tensor]:
    """Past and future `(episode, time, agent)`, the road, and which episodes lasted; manoeuvres share their past."""
    start = traffic.reset(seeds)
    driver = IDMDriver(IDMConfig(time_gap_s=0.6, jam_gap_m=2.0, dt_s=traffic.dt_s))  # gets ahead of some
    driver.reset(start.history[:, -1], start.road, start.goal)
    states = [start.history[:, -1]]
    for _ in range(round(WARM_UP_S / traffic.dt_s)):
        states.append(traffic.step(driver.act(TrafficState.stack(states[-1:], 1), start.road, start.goal)).state)
    past = TrafficState.stack(states[-1 - round(PAST_S / traffic.dt_s) :], 1)
    own = start.road.project(states[-1].position_m[:, :1]).lane
    left = start.road.neighbour(own, "left")
    lane = torch.where((left != NO_LANE) & manoeuvre.to_the_left, left, own)[:, 0]
    future = []
    for _ in range(round(AHEAD_S / traffic.dt_s)):
        ego = states[-1][:, 0]
        steering = lane_keeping_steering(ego, start.road, lane)
        states.append(traffic.step(Controls(torch.full_like(steering, manoeuvre.acceleration_mps2), steering)).state)
        future.append(states[-1])
    return past, TrafficState.stack(future, 1), start.road, ~traffic.ended


def behind(now: TrafficState, road: Road, manoeuvre: Manoeuvre) -> tuple[Tensor, Tensor]:
    """The car behind on the lane that the ego goes to, `(episode,)`, and where there is one that counts."""
    own = road.project(now.position_m[:, :1]).lane
    lane = road.neighbour(own, "left") if manoeuvre.to_the_left else own
    around = lane_neighbours(now, road, lane[:, 0])
    counts = around.follower_distance_m < NEAR_M
    if manoeuvre.to_the_left:
        counts &= (lane[:, 0] != NO_LANE) & (around.follower_distance_m - 5.0 > LEAST_GAP_M)
    return around.follower, counts


def answers(future: TrafficState, agent: Tensor, dt_s: float) -> Answers:
    """Of the `agent (episode,)` in `future (episode, time, agent)`."""
    index = agent[:, None, None].expand(-1, future.valid.shape[1], 1)
    other = TrafficState(
        future.position_m.gather(2, index[..., None].expand(-1, -1, -1, 2)),
        *(values.gather(2, index) for values in (future.heading_rad, future.speed_mps)),
        *(values.gather(2, index) for values in (future.length_m, future.width_m, future.valid)),
    )
    at = [round(second / dt_s) - 1 for second in AT_S]
    return Answers(other.speed_mps[:, at, 0], (separation_m(future[:, :, 0], other[:, :, 0]) < 0.0).any(1))


def imagine(
    model: WorldModel, past: TrafficState, future: TrafficState, road: Road, agent: Tensor, samples: int
) -> Answers:
    """The model's, the mean over samples; the ego moves as in `future`."""
    who = torch.zeros_like(past.valid[:, -1])
    who[:, 0] = True
    drawn = sampled_forecasts(
        model,
        model.observe(past, road),
        road,
        future.valid.shape[1],
        samples,
        future,
        who,
        torch.Generator().manual_seed(0),
    )
    each = [answers(drawn[:, number], agent, model.config.dt_s) for number in range(samples)]
    return Answers(
        torch.stack([one.speed_mps for one in each]).mean(0),
        torch.stack([one.touches.double() for one in each]).mean(0),
    )


@torch.no_grad()
def table(model: WorldModel, traffic: BatchedHighwayTraffic, episodes: int, samples: int) -> list[str]:
    """One line per manoeuvre."""
    seeds = range(FIRST_SEED, FIRST_SEED + episodes)
    past, on, road, lasted = simulate(traffic, seeds, GOES_ON)
    now = past[:, -1]
    lines = [f"slower than behind an ego that goes on, m/s, after {', '.join(map(str, AT_S))} s: simulated; imagined"]
    for manoeuvre in MANOEUVRES:
        agent, counts = behind(now, road, manoeuvre)
        _, future, _, lasted_too = simulate(traffic, seeds, manoeuvre)
        counts &= lasted & lasted_too
        if not bool(counts.any()):
            lines.append(f"{manoeuvre.name:12} n    0")
            continue
        chosen = [part[counts] for part in (past, on, future)]
        here, who = road[counts], agent[counts]
        simulated = [answers(each, who, traffic.dt_s) for each in chosen[1:]]
        imagined = [imagine(model, chosen[0], each, here, who, samples) for each in chosen[1:]]
        slower = [(before.speed_mps - after.speed_mps).mean(0) for before, after in (simulated, imagined)]
        numbers = "; ".join(" ".join(f"{value:6.2f}" for value in each.tolist()) for each in slower)
        touches = ", ".join(f"{100 * float(pair[1].touches.double().mean()):.1f} %" for pair in (simulated, imagined))
        lines.append(f"{manoeuvre.name:12} n {len(who):4d}  {numbers}   touch: {touches}")
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m drivecast.scripts.tools.ego_answers", description="How others answer an ego."
    )
    parser.add_argument("--model", type=Path, required=True, help="world model, of simulated traffic")
    parser.add_argument("--episodes", type=int, default=200, help="scenes")
    parser.add_argument("--vehicles", type=int, default=50, help="cars of a scene")
    parser.add_argument("--samples", type=int, default=6, help="futures of each scene")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    try:
        lines = table(
            load_world_model(options.model),
            BatchedHighwayTraffic("highway-v0", options.vehicles, density=DENSITY, duration_s=60.0),
            options.episodes,
            options.samples,
        )
    except InputError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

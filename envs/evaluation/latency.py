"""How long a driver takes to decide, alone in one episode: what a car would wait for."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence

import numpy as np
import torch

from drivecast.envs.evaluation.closed_loop import KnowingDriver
from drivecast.envs.lockstep import AttentiveTraffic, LockstepTraffic
from drivecast.worldmodel.scene.driver import Driver, history_steps_of
from drivecast.worldmodel.scene.traffic import TrafficState

WARM_UP = 10  # calls before it is timed: libraries load, memory is taken


@torch.no_grad()
def decision_ms(
    traffic: LockstepTraffic, driver: Driver, seeds: Sequence[int], calls: int = 100
) -> dict[str, float | None]:
    """`decision_ms_p50` and `decision_ms_p99` of `calls` calls of `act`, a scene at a time; None of who is not asked.

    A driver that thinks in some steps only, such as a planner, shows that in its p99. On a busy machine the figures are
    the machine's.

    Args:
        traffic: Where it drives.
        driver: Who drives.
        seeds: Episodes that are driven one after the other, from the first one again if they do not suffice.
        calls: How many are timed, after the first `WARM_UP`.
    """
    nothing: dict[str, float | None] = {"decision_ms_p50": None, "decision_ms_p99": None}
    if getattr(driver, "replays", False):
        return nothing
    if isinstance(driver, KnowingDriver):
        driver.attend(traffic)
    history_steps = history_steps_of(driver)
    took_ms: list[float] = []
    for seed in itertools.cycle(seeds):
        start = traffic.reset([seed])
        states = [start.history[:, moment] for moment in range(start.history.valid.shape[1])]
        driver.reset(states[-1], start.road, start.goal)
        running = True
        while running and len(took_ms) < WARM_UP + calls:
            seen = TrafficState.stack(states[-history_steps:], 1)
            began_s = time.perf_counter()
            controls = driver.act(seen, start.road, start.goal)
            float(controls.acceleration_mps2[0])  # an accelerator answers when it is asked
            took_ms.append(1e3 * (time.perf_counter() - began_s))
            if isinstance(traffic, AttentiveTraffic):
                traffic.announce(getattr(driver, "chosen_lane", None))
            step = traffic.step(controls)
            states = [*states[-history_steps:], step.scene]
            running = not bool(step.ended.any())
        if len(took_ms) == WARM_UP + calls:
            break
    p50, p99 = np.percentile(took_ms[WARM_UP:], [50, 99])
    return {"decision_ms_p50": round(float(p50), 2), "decision_ms_p99": round(float(p99), 2)}

"""What any planner could reach: ours, in copies of the traffic's own simulator. A bound, no competitor."""

from __future__ import annotations

from dataclasses import replace

import torch

from drivecast.envs.batched.traffic import BatchedHighwayTraffic
from drivecast.envs.batched.world import SimulatedWorld
from drivecast.envs.lockstep import LockstepTraffic
from drivecast.planner.planning.driver import Planner, PlannerConfig
from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.scene.road import Road
from drivecast.worldmodel.scene.traffic import TrafficState


class CeilingDriver(Planner):
    """The planner that knows: its plans are driven in copies of the episode, with everybody's true intentions.

    Of more plans than the planner keeps, and with nothing to spare around its box: the copy says what comes of them.
    Only in traffic that can be copied: highway-env's straight highways as tensors.

    Args:
        config: The planner that it knows more than.
        dt_s: Time between two calls, s.
    """

    def __init__(self, config: PlannerConfig | None = None, dt_s: float = 0.1) -> None:
        config = config or PlannerConfig()
        if config.concepts:
            raise InputError("driver 'ceiling': it drives by no concepts; leave --concept out, or the ceiling")
        search = replace(config.search, beam=2 * config.search.beam, bumper_m=0.0, futures=1)
        super().__init__(replace(config, search=search), dt_s, "ceiling")
        self._traffic: BatchedHighwayTraffic | None = None

    def attend(self, traffic: LockstepTraffic) -> None:
        """Told which traffic it will drive in.

        Raises:
            InputError: It cannot be copied.
        """
        if not isinstance(traffic, BatchedHighwayTraffic) or not traffic.simulator.lanes.parallel:
            raise InputError(
                f"driver 'ceiling': {traffic.name} cannot be branched; it drives on highway-v0 and highway-fast-v0, "
                "with the simulator batched"
            )
        self._traffic, self.device = traffic, traffic.simulator.device

    def world(self, history: TrafficState, road: Road, futures: int, sample: bool) -> SimulatedWorld:
        rows = torch.arange(len(history.valid), device=history.valid.device).repeat_interleave(futures)
        return SimulatedWorld.of(self._known(), rows, road)

    def _known(self) -> BatchedHighwayTraffic:
        if self._traffic is None:
            raise InputError("driver 'ceiling': expected to be told its traffic (attend) before it drives")
        return self._traffic

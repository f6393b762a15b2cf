"""The benchmark's suites: which traffic, which seeds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Suite:
    """One named set of episodes; episode i has seed `first_seed + i`, for ever.

    Attributes:
        name: Of the suite.
        environment: `recorded`, or highway-env's name.
        first_seed: Seed of episode 0. On highway-env beyond 2**31, where no recording and no training draws its seeds;
            on recorded traffic the number of the vehicle.
        vehicles: Cars beside the ego; 0: the environment's own number.
        lanes: Lanes; 0: the environment's own number.
        density: highway-env's traffic density; 0: the environment's own.
        duration_s: Length of an episode, s.
        desired_speed_mps: Speed that the ego is asked for, m/s.
        reactive: Others see the ego's target speed and lane, as they see each other's.
        mixed: Others differ, from timid to aggressive; half of them as no recording of ours has them.
        others: On recorded traffic: what the others do (`RecordedTrafficConfig.others`).
    """

    name: str
    environment: str
    first_seed: int
    vehicles: int = 0
    lanes: int = 0
    density: float = 0.0
    duration_s: float = 30.0
    desired_speed_mps: float = 30.0
    reactive: bool = False
    mixed: bool = False
    others: str = "replay"

    def seeds(self, episodes: int) -> tuple[int, ...]:
        """Of the first `episodes` episodes."""
        return tuple(range(self.first_seed, self.first_seed + episodes))


def simulated() -> list[str]:
    """Names of the suites whose traffic is simulated, where there are as many training seeds as one wants."""
    return [name for name, suite in SUITES.items() if suite.environment != "recorded"]


SUITES = {
    suite.name: suite
    for suite in (
        Suite("highway", "highway-v0", 3_000_000_000, vehicles=20, lanes=4, density=1.0),
        Suite("highway-dense", "highway-v0", 3_100_000_000, vehicles=50, lanes=4, density=1.5),
        Suite("highway-reactive", "highway-v0", 3_300_000_000, vehicles=20, lanes=4, density=1.0, reactive=True),
        Suite("highway-dense-reactive", "highway-v0", 3_400_000_000, vehicles=50, lanes=4, density=1.5, reactive=True),
        Suite(
            "highway-mixed", "highway-v0", 3_500_000_000, vehicles=30, lanes=4, density=1.2, reactive=True, mixed=True
        ),
        Suite("merge", "merge-v1", 3_200_000_000),
        Suite("recorded", "recorded", 0),
        Suite("recorded-yielding", "recorded", 0, others="yielding"),
        Suite("recorded-reactive", "recorded", 0, others="reactive"),
    )
}

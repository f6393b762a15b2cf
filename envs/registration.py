"""Our environments in gymnasium's registry: `gymnasium.make("envs.registration:drivecast/Highway-v0")`."""

from __future__ import annotations

import gymnasium

HIGHWAY = {  # id: (highway-env's name, cars beside the ego)
    "drivecast/Highway-v0": ("highway-v0", 20),
    "drivecast/HighwayFast-v0": ("highway-fast-v0", 20),
    "drivecast/Merge-v1": ("merge-v1", None),
}
HIGHWAY_STEPS = 300  # 30 s at 10 Hz; merge-v1 has no time limit of its own


RECORDED = "drivecast/RecordedTraffic-v0"  # needs data=DIR; see envs.recorded_gym


def register() -> None:
    """Register what is not registered yet."""
    if RECORDED not in gymnasium.registry:
        gymnasium.register(RECORDED, entry_point="envs.recorded_gym:RecordedTrafficEnv")
    for name, (environment, vehicles) in HIGHWAY.items():
        if name not in gymnasium.registry:
            gymnasium.register(
                name,
                entry_point="envs.highway_gym:make_environment",
                max_episode_steps=HIGHWAY_STEPS,
                kwargs={"environment": environment, "vehicles": vehicles},
            )


register()

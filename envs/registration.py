"""Our environments in gymnasium's registry.

`gymnasium.make("drivecast:drivecast/HighwayControl-v0")` is highway-env with continuous controls at 10 Hz;
`gymnasium.make_vec("drivecast:drivecast/highway-v0", num_envs=64)` is highway-env as it is, in one batch.
"""

from __future__ import annotations

import warnings
from typing import Any

import gymnasium

HIGHWAY = {  # id: (highway-env's name, cars beside the ego)
    "drivecast/HighwayControl-v0": ("highway-v0", 20),
    "drivecast/HighwayFastControl-v0": ("highway-fast-v0", 20),
    "drivecast/MergeControl-v1": ("merge-v1", None),
}
RENAMED = {  # they differed by the case of a letter from the ids of BATCHED, which are other problems
    "drivecast/Highway-v0": "drivecast/HighwayControl-v0",
    "drivecast/HighwayFast-v0": "drivecast/HighwayFastControl-v0",
    "drivecast/Merge-v1": "drivecast/MergeControl-v1",
}
HIGHWAY_STEPS = 300  # 30 s at 10 Hz; merge-v1 has no time limit of its own

# highway-env's environments with its own actions, rewards and ends; drivecast/ before the name
BATCHED = ("highway-v0", "highway-fast-v0", "merge-v0", "merge-v1", "merge-generic-v0", "merge-generic-v1")


RECORDED = "drivecast/RecordedTraffic-v0"  # needs data=DIR; see drivecast.envs.recorded.gym
IMAGINED = "drivecast/ImaginedTraffic-v0"  # needs model=PATH and data=DIR; see drivecast.envs.imagined.gym


def register() -> None:
    """Register what is not registered yet."""
    if RECORDED not in gymnasium.registry:
        gymnasium.register(RECORDED, entry_point="drivecast.envs.recorded.gym:RecordedTrafficEnv")
    if IMAGINED not in gymnasium.registry:
        gymnasium.register(IMAGINED, entry_point="drivecast.envs.imagined.gym:ImaginedTrafficEnv")
    for name, (environment, vehicles) in HIGHWAY.items():
        if name not in gymnasium.registry:
            gymnasium.register(
                name,
                entry_point="drivecast.envs.highway.gym:make_environment",
                max_episode_steps=HIGHWAY_STEPS,
                kwargs={"environment": environment, "vehicles": vehicles},
            )
    for earlier, name in RENAMED.items():
        if earlier not in gymnasium.registry:
            environment, vehicles = HIGHWAY[name]
            gymnasium.register(
                earlier,
                entry_point="drivecast.envs.registration:make_renamed",
                max_episode_steps=HIGHWAY_STEPS,
                kwargs={"earlier": earlier, "environment": environment, "vehicles": vehicles},
            )
    for environment in BATCHED:
        name = f"drivecast/{environment}"
        if name not in gymnasium.registry:
            gymnasium.register(
                name,
                entry_point="drivecast.envs.registration:make_highway_env",
                vector_entry_point="drivecast.envs.batched.vector_env:BatchedHighwayVectorEnv",
                kwargs={"environment": environment},
            )


def make_renamed(earlier: str, **settings: Any) -> gymnasium.Env:
    """The environment that had the id `earlier`."""
    from drivecast.envs.highway.gym import make_environment

    warnings.warn(f"{earlier} is now called {RENAMED[earlier]}; use that name", DeprecationWarning, stacklevel=2)
    return make_environment(**settings)


def make_highway_env(environment: str, **settings: Any) -> gymnasium.Env:
    """highway-env's own `environment`, one episode at a time; `settings` are its `config` and `render_mode`."""
    from drivecast.envs.highway.simulator import mended_class

    return mended_class(environment)(**settings)


register()

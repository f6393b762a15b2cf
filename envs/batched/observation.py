"""highway-env's "Kinematics" observation (`KinematicObservation`, `Road.close_objects_to`) of many episodes at once."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from drivecast.envs.batched.lanes import CAR_LENGTH_M, Lanes
from drivecast.envs.batched.scene import Scene
from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.rules.laws import wrap_to_pi

FEATURES = ("presence", "x", "y", "vx", "vy")
OF_CARS = ("heading", "long_off", "lat_off", "ang_off")  # highway-env's obstacles have none of these
SUPPORTED = (*FEATURES, "cos_h", "sin_h", "cos_d", "sin_d", *OF_CARS)
RELATIVE = ("x", "y", "vx", "vy")  # to the ego, unless absolute
PERCEPTION_M = 200.0  # `AbstractEnv.PERCEPTION_DISTANCE`
BEHIND_M = 2 * CAR_LENGTH_M  # what is less far behind is seen nevertheless
RANGES = {"x": (-200.0, 200.0), "vx": (-80.0, 80.0), "vy": (-80.0, 80.0)}  # m, m/s
LANE_WIDTH_M = 4.0


@dataclass(frozen=True)
class KinematicsConfig:
    """What highway-env's `config["observation"]` says.

    Attributes:
        features: Columns, of `SUPPORTED`; cos_d and sin_d are zero, for nobody has a destination on these roads.
        vehicles_count: Rows: the ego and the nearest others, 2 or more.
        features_range: Feature: (lowest, highest), in m, m/s or rad. None: x within 200 m, vx and vy within 80 m/s, y
            within as many lane widths as there are lanes side by side where the episode starts.
        absolute: Others are not seen relative to the ego.
        order: "sorted": by distance along the road.
        normalize: The features with a range are mapped to [-1, 1].
        clip: And held there.
        see_behind: Cars more than 10 m behind are seen.
        observe_intentions: Without effect on these roads.
        include_obstacles: What stands on the road is seen.

    Raises:
        InputError: A value is not supported.
    """

    features: tuple[str, ...] = FEATURES
    vehicles_count: int = 5
    features_range: dict[str, tuple[float, float]] | None = None
    absolute: bool = False
    order: str = "sorted"
    normalize: bool = True
    clip: bool = True
    see_behind: bool = False
    observe_intentions: bool = False
    include_obstacles: bool = True

    def __post_init__(self) -> None:
        unknown = [name for name in self.features if name not in SUPPORTED]
        if unknown:
            raise InputError(f"observation features: expected some of {', '.join(SUPPORTED)}; got {', '.join(unknown)}")
        if self.vehicles_count < 2:
            raise InputError(f"observation vehicles_count: expected 2 or more, got {self.vehicles_count}")
        for name, values in (self.features_range or {}).items():
            if len(values) != 2 or not values[0] < values[1]:
                raise InputError(f"observation features_range {name}: expected [lowest, highest], got {values}")
        if self.order != "sorted":
            raise InputError(
                f"observation order: expected 'sorted', got {self.order!r}; use highway-env itself for other orders"
            )

    @staticmethod
    def of(config: dict[str, Any]) -> KinematicsConfig:
        """From highway-env's `config["observation"]`."""
        if config.get("type") != "Kinematics":
            raise InputError(
                f"observation type: expected 'Kinematics', got {config.get('type')!r}; "
                "use highway-env itself for other observations"
            )
        values = {name: value for name, value in config.items() if name != "type"}
        known = [field.name for field in fields(KinematicsConfig)]
        unknown = [name for name in values if name not in known]
        if unknown:
            raise InputError(f"observation: expected some of {', '.join(known)}; got {', '.join(unknown)}")
        # highway-env takes an empty list of features, or of ranges, for its own
        values["features"] = tuple(values.get("features") or FEATURES)
        values["features_range"] = values.get("features_range") or None
        return KinematicsConfig(**values)


class Kinematics:
    """The ego and the nearest others, one row each; rows of zeros where there are fewer.

    Args:
        config: What is seen.
        lanes: The road.
        obstacles: Number of obstacles; they are the last agents of a scene.

    Raises:
        InputError: Features are asked for that obstacles do not have.
    """

    def __init__(self, config: KinematicsConfig, lanes: Lanes, obstacles: int) -> None:
        missing = [name for name in config.features if name in OF_CARS]
        if missing and obstacles and config.include_obstacles:
            raise InputError(
                f"observation features: the obstacles on this road have no {', '.join(missing)}; "
                "set include_obstacles to False"
            )
        self.config, self.lanes, self.obstacles = config, lanes, obstacles
        self._beside = torch.bincount(lanes.edge)[lanes.edge]  # lanes of the same stretch
        self._y_range_m = lanes.start_y_m.new_zeros(0)

    @property
    def shape(self) -> tuple[int, int]:
        """Of one episode's observation."""
        return self.config.vehicles_count, len(self.config.features)

    def start(self, scene: Scene, which: Tensor | None = None) -> None:
        """Episodes begin: all of them, or those with the numbers `which`."""
        y_range_m = LANE_WIDTH_M * self._beside[scene.lane[:, 0]].to(scene.x_m)
        if which is None:
            self._y_range_m = y_range_m
        else:
            self._y_range_m = self._y_range_m.index_copy(0, which, y_range_m[which])

    def observe(self, scene: Scene) -> Tensor:
        """Float32 `(episode, vehicles_count, feature)`."""
        others, seen = self._nearest(scene)
        ego = torch.zeros_like(others[:, :1])
        agents = torch.cat([ego, others], 1)
        columns = self._columns(scene, agents)
        ranges = self._ranges() if self.config.normalize else {}
        for name, column in columns.items():
            if name in RELATIVE and not self.config.absolute:
                column = torch.cat([column[:, :1], column[:, 1:] - column[:, :1]], 1)
            if name in ranges:
                low, high = ranges[name]
                column = -1 + (column - low) * 2 / (high - low)
                column = column.clamp(-1, 1) if self.config.clip else column
            columns[name] = column
        rows = torch.stack([columns[name] for name in self.config.features], 2)
        rows = torch.cat([rows[:, :1], rows[:, 1:].masked_fill(~seen[:, :, None], 0.0)], 1)
        missing = self.config.vehicles_count - rows.shape[1]
        return torch.nn.functional.pad(rows, (0, 0, 0, missing)).to(torch.float32)

    def _nearest(self, scene: Scene) -> tuple[Tensor, Tensor]:
        """Numbers `(episode, row)` of the nearest others, nearest first, and whether they are seen at all."""
        x, y, lane = scene.x_m, scene.y_m, scene.lane[:, :1]
        ahead = self.lanes.along(x, lane) - self.lanes.along(x[:, :1], lane)
        dx, dy = x - x[:, :1], y - y[:, :1]
        within = torch.sqrt(dx * dx + dy * dy) < PERCEPTION_M
        not_behind = ahead > -BEHIND_M
        seen = within & scene.vehicle if self.config.see_behind else within & scene.vehicle & not_behind
        first_obstacle = x.shape[1] - self.obstacles
        if self.obstacles and self.config.include_obstacles:
            standing = (within & not_behind)[:, first_obstacle:]
            seen = torch.cat([seen[:, :first_obstacle], standing], 1)
        distance = ahead.abs().masked_fill(~seen, torch.inf)[:, 1:]
        distance, order = distance.sort(stable=True, dim=1)
        rows = self.config.vehicles_count - 1
        return order[:, :rows] + 1, distance[:, :rows].isfinite()

    def _columns(self, scene: Scene, agents: Tensor) -> dict[str, Tensor]:
        """The features that are asked for, `(episode, row)` each, in highway-env's units."""
        x, y, heading, speed = (
            values.gather(1, agents) for values in (scene.x_m, scene.y_m, scene.heading_rad, scene.speed_mps)
        )
        cos, sin, lane = heading.cos(), heading.sin(), scene.lane.gather(1, agents)
        makers = {
            "presence": lambda: torch.ones_like(x),
            "x": lambda: x,
            "y": lambda: y,
            "vx": lambda: speed * cos,
            "vy": lambda: speed * sin,
            "heading": lambda: heading,
            "cos_h": lambda: cos,
            "sin_h": lambda: sin,
            "cos_d": lambda: torch.zeros_like(x),
            "sin_d": lambda: torch.zeros_like(x),
            "long_off": lambda: self.lanes.along(x, lane),
            "lat_off": lambda: self.lanes.across(x, y, lane),
            "ang_off": lambda: wrap_to_pi(heading - self.lanes.heading(x, lane)),
        }
        return {name: makers[name]() for name in self.config.features}

    def _ranges(self) -> dict[str, tuple[Any, Any]]:
        if self.config.features_range is not None:
            return dict(self.config.features_range)
        y_range_m = self._y_range_m[:, None]
        return {**RANGES, "y": (-y_range_m, y_range_m)}

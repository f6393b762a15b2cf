"""An episode on disk: one Parquet file, a row per state."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from drivecast.envs.replay.episode_metadata import EpisodeMetadata
from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.scene.driver import Imagination, Weighed
from drivecast.worldmodel.scene.road import Road
from drivecast.worldmodel.scene.traffic import Controls, TrafficState
from drivecast.worldmodel.storage.files import atomic_file

FORMAT_VERSION = 4
# 1 held futures of every agent, also of those that nobody imagined; 2 no plans that were weighed; 3 nobody attended to
READABLE = (1, 2, 3, 4)
_HEADER = b"drivecast.episode"  # key of our JSON in the Parquet schema's metadata
_IMAGINED = {  # columns of lists, null where the driver was not asked
    "futures_agents": pa.int32(),
    "futures_shape": pa.int32(),
    "futures_cm": pa.int32(),
    "plan_m": pa.float32(),
    "imagined_cost": pa.float32(),
}
_WEIGHED = "weighed"  # JSON, null where no plans were weighed
_ATTENDED = "attended"  # agents, null where the driver was taught no concept
_FUTURES_PER_M = 100  # imagined futures are kept to the centimetre: they are looked at, not computed with


def write_parts(
    path: Path,
    states: TrafficState,
    controls: Controls,
    road: Road,
    metadata: EpisodeMetadata,
    costs: Mapping[str, Tensor],
    imaginations: Mapping[int, Imagination],
) -> None:
    """Write the fields of an `Episode` as one Parquet file."""
    terms = sorted({term for imagined in imaginations.values() for term in imagined.cost})
    columns = {**_driven(states, controls, costs, metadata.dt_s), **_imagined(states, imaginations, terms)}
    header = {
        "version": FORMAT_VERSION,
        "metadata": asdict(metadata),
        "agents": states.speed_mps.shape[1],
        "cost_terms": list(costs),
        "imagined_terms": terms,
        "road": _road_to_json(road),
    }
    table = pa.table(columns).replace_schema_metadata({_HEADER: json.dumps(header)})
    with atomic_file(path) as temporary:
        pq.write_table(table, temporary, compression="zstd", compression_level=9)


def read_parts(path: Path) -> dict[str, Any]:
    """Read the fields of an `Episode`; see `Episode.read`."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected an episode kept by `drivecast evaluate`")
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{path}: not a whole Parquet file ({reason}); expected an episode") from error
    text = (table.schema.metadata or {}).get(_HEADER)
    if text is None:
        raise InputError(f"{path}: Parquet, but not an episode; expected a file kept by `drivecast evaluate`")
    try:
        header = json.loads(text)
        if header["version"] not in READABLE:
            raise InputError(f"{path}: episode format {header['version']}; this drivecast reads {READABLE}")
        return _parts(table, header)
    except (KeyError, IndexError, ValueError, TypeError, RuntimeError) as error:
        if isinstance(error, InputError):
            raise
        raise damaged(path, error) from error


def damaged(path: Path, error: Exception) -> InputError:
    """What to tell of a file that does not hold together."""
    reason = " ".join(str(error).split())
    return InputError(f"{path}: damaged episode ({type(error).__name__}: {reason}); write it again")


def is_other_table(path: Path) -> bool:
    """Whether a file is whole Parquet that holds something else than an episode."""
    try:
        return _HEADER not in (pq.read_schema(path).metadata or {})
    except (pa.ArrowException, OSError):
        return False


def read_config_hash(path: Path) -> str | None:
    """`config_hash` of the episode in a file, without reading the rest; None: it is not a whole episode."""
    try:
        header = json.loads((pq.read_schema(path).metadata or {})[_HEADER])
        return str(header["metadata"]["config_hash"])
    except (pa.ArrowException, OSError, KeyError, ValueError):
        return None


def _driven(states: TrafficState, controls: Controls, costs: Mapping[str, Tensor], dt_s: float) -> dict[str, pa.Array]:
    steps = states.speed_mps.shape[0] - 1
    columns: dict[str, pa.Array] = {"step": pa.array(range(steps + 1), pa.int32())}
    columns["time_s"] = pa.array(np.arange(steps + 1) * dt_s, pa.float64())
    x_m, y_m = states.position_m.unbind(-1)
    scenes = {"x_m": x_m, "y_m": y_m}
    scenes |= {f.name: getattr(states, f.name) for f in fields(TrafficState) if f.name != "position_m"}
    for name, values in scenes.items():
        columns[name] = _rows(values)
    per_step = {f.name: getattr(controls, f.name) for f in fields(Controls)}
    for name, values in (per_step | {f"cost.{term}": values for term, values in costs.items()}).items():
        columns[name] = pa.array([*_float32(values).tolist(), None], pa.float32())  # nothing is done in the last state
    return columns


def _imagined(
    states: TrafficState, imaginations: Mapping[int, Imagination], terms: Sequence[str]
) -> dict[str, pa.Array]:
    rows: dict[str, list[Any]] = {
        name: [None] * states.speed_mps.shape[0] for name in (*_IMAGINED, _WEIGHED, _ATTENDED)
    }
    for step, imagined in imaginations.items():
        futures, now = _float32(imagined.futures_m[0]), _float32(states.position_m[step])
        who = np.flatnonzero(np.isfinite(futures).all((0, 1, 3)))
        rows["futures_agents"][step] = who
        rows["futures_shape"][step] = [*futures.shape[:2], len(who)]
        rows["futures_cm"][step] = _pack_futures(futures[:, :, who], now[who])
        rows["plan_m"][step] = _float32(imagined.plan_m).ravel()
        missing = torch.full((1, imagined.plan_m.shape[1]), torch.nan)
        costs = [imagined.cost.get(term, missing)[0] for term in terms]
        rows["imagined_cost"][step] = _float32(torch.cat([missing[0, :0], *costs]))
        if imagined.weighed is not None:
            rows[_WEIGHED][step] = json.dumps(_weighed_to_json(imagined.weighed, states.position_m[step, 0]))
        if imagined.attended is not None:
            rows[_ATTENDED][step] = imagined.attended[0].nonzero()[:, 0].tolist()
    columns = {name: pa.array(rows[name], pa.list_(kind)) for name, kind in _IMAGINED.items()}
    columns[_WEIGHED] = pa.array(rows[_WEIGHED], pa.string())
    return {**columns, _ATTENDED: pa.array(rows[_ATTENDED], pa.list_(pa.int32()))}


def _weighed_to_json(weighed: Weighed, now_m: Tensor) -> dict[str, Any]:
    """The plans that there are, their paths in cm from the present."""
    there = ~weighed.energy[0].isnan()
    path = ((weighed.path_m[0, there] - now_m) * _FUTURES_PER_M).round().long()
    return {
        "every": weighed.every,
        "ago": weighed.ago,
        "energy": _rounded(weighed.energy[0, there]),
        "cost": {name: _rounded(values[0, there]) for name, values in weighed.cost.items()},
        "lanes": weighed.lanes[0, there].tolist(),
        "brakes": weighed.brakes[0, there].tolist(),
        "path_cm": path.tolist(),
    }


def _weighed_from_json(values: dict[str, Any], now_m: Tensor) -> Weighed:
    return Weighed(
        path_m=torch.tensor(values["path_cm"])[None] / _FUTURES_PER_M + now_m,
        energy=torch.tensor(values["energy"])[None],
        cost={name: torch.tensor(numbers)[None] for name, numbers in values["cost"].items()},
        lanes=torch.tensor(values["lanes"])[None],
        brakes=torch.tensor(values["brakes"])[None],
        every=int(values["every"]),
        ago=int(values["ago"]),
    )


def _among(agents: int, some: list[int]) -> Tensor:
    """Bool `(1, agents)`: who is one of `some`."""
    chosen = torch.zeros(1, agents, dtype=torch.bool)
    chosen[0, torch.tensor(some, dtype=torch.long)] = True
    return chosen


def _rounded(values: Tensor) -> list[float]:
    return [round(value, 4) for value in values.double().tolist()]


def _float32(values: Tensor) -> np.ndarray:
    return values.detach().to("cpu", torch.float32).numpy()


def _rows(values: Tensor) -> pa.Array:
    """A `(time, agent)` tensor as a column of lists."""
    flat = values.detach().cpu().numpy().ravel() if values.dtype == torch.bool else _float32(values).ravel()
    return pa.FixedSizeListArray.from_arrays(pa.array(flat), values.shape[1])


def _pack_futures(futures_m: np.ndarray, now_m: np.ndarray) -> np.ndarray:
    """`(sample, step, agent, 2)` as increments in cm, starting from the present: small numbers compress well."""
    offset = (futures_m - now_m) * _FUTURES_PER_M
    points = np.clip(np.rint(offset), -(2**30), 2**30).astype(np.int32)
    return np.diff(points, axis=1, prepend=0).ravel()


def _parts(table: pa.Table, header: dict[str, Any]) -> dict[str, Any]:
    rows, agents = table.num_rows, header["agents"]

    def scene(name: str) -> Tensor:
        values = table.column(name).combine_chunks().flatten().to_numpy(zero_copy_only=False)
        return torch.from_numpy(values.copy()).reshape(rows, agents)

    def step(name: str) -> Tensor:
        return torch.from_numpy(table.column(name).to_numpy()[:-1].astype(np.float32))

    position = torch.stack([scene("x_m"), scene("y_m")], -1)
    others = {f.name: scene(f.name) for f in fields(TrafficState) if f.name != "position_m"}
    imaginations = {}
    if header["version"] == 1:
        everyone = pa.array([list(range(agents))] * rows, pa.list_(pa.int32()))
        table = table.append_column("futures_agents", everyone)
    for name, kind in ((_WEIGHED, pa.string()), (_ATTENDED, pa.list_(pa.int32()))):
        if name not in table.column_names:
            table = table.append_column(name, pa.nulls(rows, kind))
    for row, (who, shape, packed, plan, cost, weighed, attended) in enumerate(
        zip(*(table.column(name) for name in (*_IMAGINED, _WEIGHED, _ATTENDED)), strict=True)
    ):
        if not shape.is_valid:
            continue
        samples, points, _ = shape.as_py()
        index = torch.tensor(who.as_py(), dtype=torch.long)
        increments = packed.values.to_numpy().reshape(samples, points, len(index), 2)
        moved = torch.from_numpy(increments.cumsum(1, dtype=np.int64) / _FUTURES_PER_M).float()
        futures = torch.full((samples, points, agents, 2), torch.nan)
        futures[:, :, index] = moved + position[row, index]
        kinds = len(header["imagined_terms"])
        terms = torch.from_numpy(cost.values.to_numpy().copy()).reshape(kinds, 1, -1 if kinds else 0)
        imaginations[row] = Imagination(
            plan_m=torch.from_numpy(plan.values.to_numpy().copy()).reshape(1, -1, 2),
            futures_m=futures[None],
            cost={t: v for t, v in zip(header["imagined_terms"], terms, strict=True) if not v.isnan().all()},
            weighed=_weighed_from_json(json.loads(weighed.as_py()), position[row, 0]) if weighed.is_valid else None,
            attended=_among(agents, attended.as_py()) if attended.is_valid else None,
        )
    return {
        "states": TrafficState(position_m=position, **others),
        "controls": Controls(step("acceleration_mps2"), step("steering_rad")),
        "road": _road_from_json(header["road"]),
        "metadata": EpisodeMetadata(**header["metadata"]),
        "costs": {term: step(f"cost.{term}") for term in header["cost_terms"]},
        "imaginations": imaginations,
    }


def _road_to_json(road: Road) -> dict[str, Any]:
    return {f.name: getattr(road, f.name)[0].detach().cpu().tolist() for f in fields(Road)}


def _road_from_json(values: dict[str, Any]) -> Road:
    dtypes: dict[str, torch.dtype] = {"centre_m": torch.float32, "width_m": torch.float32}
    dtypes |= {"speed_limit_mps": torch.float32, "open_start": torch.bool, "open_end": torch.bool}
    return Road(
        **{f.name: torch.tensor(values[f.name], dtype=dtypes.get(f.name, torch.long))[None] for f in fields(Road)}
    )

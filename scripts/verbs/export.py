"""`drivecast export`: a model as ONNX, checked and timed in onnxruntime."""

from __future__ import annotations

import importlib.util
import logging
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from drivecast.envs.batched.traffic import BatchedHighwayTraffic
from drivecast.planner.policy.driver import load_driver
from drivecast.planner.policy.graph import PolicyGraph
from drivecast.planner.policy.training import POLICY_KIND
from drivecast.scripts.command.output import refuse_foreign_file
from drivecast.scripts.tracking.run import Run
from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.forecaster.graph import MOVED, REMEMBERED, ROAD, STATE, Graph, ObserveGraph, StepGraph
from drivecast.worldmodel.forecaster.loading import POLICY_FILE, load_world_model
from drivecast.worldmodel.forecaster.model import WorldModel
from drivecast.worldmodel.scene.road import Road
from drivecast.worldmodel.scene.traffic import Goal, TrafficState
from drivecast.worldmodel.storage.checkpoint import read_header
from drivecast.worldmodel.storage.files import atomic_file

MARK = "drivecast export"  # in files that it wrote, as their producer
LOOKED_AT = 256  # bytes at the beginning
PACKAGES = ("onnx", "onnxscript", "onnxruntime")
HISTORY_STEPS = 20
OPTIMISED = True  # takes nearly as long as all else
TOLERANCE = 1e-5  # relative to values above one
CHECKED = ((1, 20), (16, 12), (3, 40))  # episodes and vehicles of each check; the graph was made from another
CALLS = 200


Inputs = Callable[[int, int], dict[str, Tensor]]  # by name, of so many episodes and vehicles


@dataclass(frozen=True)
class ExportConfig:
    """Write a policy or a world model as ONNX, for any number of scenes, vehicles and lanes; check it, and time it.

    Of a policy OUTPUT is the whole of it, from what the ego sees to its controls, and to its lane if it has learned to
    choose lanes (`distil-planner`); a choice in imagination is not in it: give `goal_lane`. Of a world model OUTPUT is
    one decision of everybody, and OUTPUT-observe.onnx beside it takes in 2 s of history. Both are run in onnxruntime in
    scenes of highway-v0, and must give what the model gives.

    Args:
        model: A policy or a world model: its file, its folder (a policy where there is one), pretrained:NAME (the
            world model), or models:/NAME/VERSION of the registry.
        output: The file, *.onnx.
    """

    model: str
    output: Path

    def __post_init__(self) -> None:
        if Path(self.output).suffix != ".onnx":
            raise InputError(f"output: expected a file *.onnx, got {self.output}")


def run(config: ExportConfig, run: Run) -> None:
    """Export, check and time.

    Raises:
        InputError: A package is missing, there is no such model, or a file is there that it did not write.
        RuntimeError: The graph gives something else than the model.
    """
    from drivecast.scripts.driving.registry import resolve_model

    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(f"export takes {', '.join(missing)}; pip install 'drivecast[export]'")
    path, output = resolve_model(config.model), Path(config.output)
    observe_output = output.with_name(f"{output.stem}-observe.onnx")
    rows = []
    is_policy = _is_policy(path)
    for file in [output] if is_policy else [output, observe_output]:
        refuse_foreign_file(file, _is_ours(file))
    if is_policy:
        policy = load_driver(path, lane_choice=False).policy
        graph = PolicyGraph(policy)
        rows.append(_exported(graph, partial(_policy_inputs, names=graph.inputs), output, run))
    else:
        model = load_world_model(path)

        def step_inputs(episodes: int, vehicles: int) -> dict[str, Tensor]:
            return _step_inputs(model, episodes, vehicles)

        rows.append(_exported(StepGraph(model), step_inputs, output, run))
        rows.append(_exported(ObserveGraph(model), _observe_inputs, observe_output, run))
    run.table(
        "in onnxruntime, one scene of 20 vehicles, one thread",
        ["graph", "largest difference", "median", "99th percentile", "torch, median"],
        rows,
    )


def _is_policy(path: Path) -> bool:
    if path.is_dir():
        return (path / POLICY_FILE).is_file()
    return bool(read_header(path)["kind"] == POLICY_KIND)


def _is_ours(file: Path) -> bool:
    """Whether `drivecast export` wrote it."""
    if not file.is_file():
        return False
    with file.open("rb") as opened:
        return MARK.encode() in opened.read(LOOKED_AT)


def _exported(graph: Graph, inputs: Inputs, output: Path, run: Run) -> list[str]:
    """The row of the table."""
    run.say(f"exporting {output.name}: half a minute")
    example = inputs(2, 9)
    names = graph.inputs
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            graph.eval(),
            tuple(example[name] for name in names),
            dynamo=True,
            dynamic_shapes=(tuple(_dynamic(name, example[name]) for name in names),),
            input_names=list(names),
            output_names=list(graph.outputs),
            verbose=False,
            optimize=OPTIMISED,
        )
    assert program is not None
    program.model.producer_name = MARK
    with atomic_file(output) as temporary:
        program.save(str(temporary))
        largest = max(difference(graph, temporary, inputs(*size)) for size in CHECKED)
        if largest > TOLERANCE:
            raise RuntimeError(f"{output}: would differ from the model by {largest:.2g}, more than {TOLERANCE:g}")
    once = inputs(1, 20)
    session, feed = _session(output), {name: value.numpy() for name, value in once.items()}
    onnx_ms = _timed(lambda: session.run(None, feed))
    with torch.no_grad():
        torch_ms = _timed(lambda: graph(*(once[name] for name in names)))
    run.say(f"written: {output}")
    return [output.name, f"{largest:.1e}", *(f"{ms:.2f} ms" for ms in onnx_ms), f"{torch_ms[0]:.2f} ms"]


def _dynamic(name: str, value: Tensor) -> dict[int, object]:
    """Which dimensions may have any size: scenes, vehicles, lanes and their points; not time."""
    auto = torch.export.Dim.AUTO
    if name.startswith("history_"):
        return {0: auto, 2: auto}
    if name.startswith("road_"):
        return {axis: auto for axis in range(3 if value.dim() > 2 else 2)}
    if name.startswith("ego_") or value.dim() == 1:
        return {0: auto}
    return {0: auto, 1: auto}


def difference(graph: Graph, file: Path, values: dict[str, Tensor]) -> float:
    """The largest between what the exported `file` gives and what `graph` gives, relative to values above one."""
    with torch.no_grad():
        expected = graph(*(values[name] for name in graph.inputs))
    given = _session(file).run(None, {name: value.numpy() for name, value in values.items()})
    largest = 0.0
    for one, other in zip(given, (value.numpy() for value in expected), strict=True):
        finite = np.isfinite(other)
        if (np.isfinite(one) != finite).any():
            return float("inf")
        off = np.abs(one[finite] - other[finite]) / np.maximum(np.abs(other[finite]), 1.0)
        largest = max(largest, float(off.max(initial=0.0)))
    return largest


def _session(file: Path):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


def _timed(call) -> tuple[float, float]:
    """Median and 99th percentile, ms."""
    took = []
    for _ in range(CALLS):
        began = time.perf_counter()
        call()
        took.append(1e3 * (time.perf_counter() - began))
    return float(np.percentile(took, 50)), float(np.percentile(took, 99))


def _scenes(episodes: int, vehicles: int) -> tuple[TrafficState, Road, Goal]:
    """Beginnings of episodes of highway-v0, their histories `(episode, time, agent)`."""
    start = BatchedHighwayTraffic("highway-v0", vehicles=vehicles - 1).reset(range(episodes))
    history = start.history
    short = HISTORY_STEPS - history.valid.shape[1]
    if short > 0:
        history = history[:, torch.arange(-short, history.valid.shape[1]).clamp_min(0)]
    return history[:, -HISTORY_STEPS:].map(_plain), start.road.map(_plain), start.goal.map(_plain)


def _plain(values: Tensor) -> Tensor:
    return values.float() if values.is_floating_point() else values


def _named(record: TrafficState | Road, names: tuple[str, ...], prefix: str) -> dict[str, Tensor]:
    return {f"{prefix}_{name}": getattr(record, name).contiguous() for name in names}


def _observe_inputs(episodes: int, vehicles: int) -> dict[str, Tensor]:
    history, road, _ = _scenes(episodes, vehicles)
    return {**_named(history, STATE, "history"), **_named(road, ROAD, "road")}


def _policy_inputs(episodes: int, vehicles: int, names: tuple[str, ...]) -> dict[str, Tensor]:
    history, road, goal = _scenes(episodes, vehicles)
    given = {
        **_named(history[:, -2:], STATE, "history"),
        **_named(road, ROAD, "road"),
        "desired_speed_mps": goal.desired_speed_mps,
        "goal_lane": goal.lane,
        "bound_lane": road.project(history.position_m[:, -1, :1]).lane[:, 0],
    }
    return {name: given[name] for name in names}


@torch.no_grad()
def _step_inputs(model: WorldModel, episodes: int, vehicles: int) -> dict[str, Tensor]:
    history, road, _ = _scenes(episodes, vehicles)
    memory, scene = model.observe(history, road), history[:, -1]
    generator = torch.Generator().manual_seed(0)
    latent = torch.randn(episodes, vehicles, model.config.latent_dims, generator=generator)
    steps = torch.arange(1, model.config.decide_steps + 1)
    ego = scene[:, 0]
    ahead_m = ego.velocity_mps[:, None] * (steps * model.config.dt_s)[None, :, None]
    moved = {
        "position_m": ego.position_m[:, None] + ahead_m,
        "heading_rad": ego.heading_rad[:, None].expand(-1, len(steps)).contiguous(),
        "speed_mps": ego.speed_mps[:, None].expand(-1, len(steps)).contiguous(),
    }
    return {
        **_named(scene, STATE, "scene"),
        **{name: getattr(memory, name) for name in REMEMBERED},
        "latent": latent,
        **_named(road, ROAD, "road"),
        **{f"ego_{name}": moved[name] for name in MOVED},
        "ego_known": torch.arange(episodes) % 2 == 0,
    }

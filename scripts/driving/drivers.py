"""Drivers and traffic by the names they have on the command line."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from drivecast.envs.drivers import ConstantVelocityDriver, HumanDriver, IdleDriver, IDMConfig, IDMDriver
from drivecast.envs.drivers.rule import RuleDriver
from drivecast.envs.drivers.safety_net import under_net
from drivecast.envs.evaluation.closed_loop import Score
from drivecast.envs.evaluation.suites import Suite
from drivecast.envs.highway.simulator import ENVIRONMENTS as HIGHWAY_ENVIRONMENTS
from drivecast.envs.highway.simulator import SIMULATORS
from drivecast.envs.imagined.traffic import ImaginedTraffic, ImaginedTrafficConfig
from drivecast.envs.lockstep import LockstepTraffic
from drivecast.envs.recorded.traffic import RecordedTraffic, RecordedTrafficConfig
from drivecast.scripts.driving.driver_kinds import (
    PLAIN_DRIVERS,
    TIED_TO_TRAFFIC,
    TRAINED_BY,
    check_route,
    kind_of,
    named_drivers,
    without_net,
)
from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.forecaster.loading import POLICY_FILE, WORLD_MODEL_FILE
from drivecast.worldmodel.joint_embedding.loading import JOINT_EMBEDDING_KIND, is_joint_embedding, load_joint_embedding
from drivecast.worldmodel.scene.driver import Driver
from drivecast.worldmodel.scene.road import Road
from drivecast.worldmodel.scene.traffic import Controls, Goal, TrafficState

if TYPE_CHECKING:
    from drivecast.envs.drivers.learned.driver import StableBaselinesDriver
    from drivecast.planner.pictures.driver import PictureDriver
    from drivecast.planner.planning.driver import GradientPlanner, PlannerConfig
    from drivecast.planner.planning.proposal_planner import ProposalPlanner
    from drivecast.planner.policy.driver import ReactiveDriver

PLANNERS = ("planner", "sampling-planner", "proposal-planner")
BASELINES = ("ppo", "dqn", "tqc")
IDM_FILE_MARK = "parameters of IDM and MOBIL"  # in files that `drivecast tune-idm` wrote
RECORDED, IMAGINED = "recorded", "imagined"
ENVIRONMENTS = (RECORDED, *HIGHWAY_ENVIRONMENTS, IMAGINED)


@dataclass(frozen=True)
class HighwayConfig:
    """highway-env's traffic.

    Args:
        vehicles: Number of cars beside the ego; 0: 20 on highway-*, else highway-env's own.
        lanes: Number of lanes; 0: highway-env's own (highway-v0 4, highway-fast-v0 3).
        density: Of the traffic at the start, highway-env's measure; 0: its own, 1.
        duration_s: Length of an episode, s.
        desired_speed_mps: Speed the ego is asked for, m/s.
        reactive: Others see the ego's target speed and the lane that it steers for, as they see each other's: they cut
            in ahead of it and give way to it. highway-env's own cars do neither for an ego with continuous controls.
        mixed: Others differ in following and changing lanes, from timid to aggressive.
        simulator: Who simulates: batched (tensors, many episodes at once) or highway-env; equal but for last bits.
    """

    vehicles: int = 0
    lanes: int = 0
    density: float = 0.0
    duration_s: float = 30.0
    desired_speed_mps: float = 30.0
    reactive: bool = False
    mixed: bool = False
    simulator: str = "batched"

    def __post_init__(self) -> None:
        if self.simulator not in SIMULATORS:
            raise InputError(f"highway.simulator: expected {' or '.join(SIMULATORS)}, got '{self.simulator}'")


def highway_of(suite: Suite, simulator: str = "batched") -> HighwayConfig:
    """The traffic of a simulated suite."""
    return HighwayConfig(
        suite.vehicles,
        suite.lanes,
        suite.density,
        suite.duration_s,
        suite.desired_speed_mps,
        suite.reactive,
        suite.mixed,
        simulator,
    )


@dataclass(frozen=True)
class TrafficSource:
    """All that is needed to make one environment, here or in another process."""

    environment: str
    data: tuple[Path, ...] = ()
    split: str = "test"
    recorded: RecordedTrafficConfig = field(default_factory=RecordedTrafficConfig)
    highway: HighwayConfig = field(default_factory=HighwayConfig)
    device: str = "cpu"
    model: Path | None = None
    imagined: ImaginedTrafficConfig = field(default_factory=ImaginedTrafficConfig)

    @property
    def lockstep(self) -> bool:
        """Whether many episodes at once cost little more than one."""
        from drivecast.envs.batched.traffic import BATCHED

        of_recordings = self.environment in (RECORDED, IMAGINED)
        return of_recordings or (self.highway.simulator == "batched" and self.environment in BATCHED)

    def open(self) -> LockstepTraffic:
        """Make the environment.

        Raises:
            InputError: It needs data that is missing, or a value is out of range.
        """
        if self.environment == RECORDED:
            if not self.data:
                raise InputError("data: environment 'recorded' needs a recording store; give --data DIR")
            return RecordedTraffic.open(self.data, self.split, self.recorded, self.device)
        if self.environment == IMAGINED:
            if self.model is None:
                raise InputError("model: environment 'imagined' needs a world model; give --model PATH")
            if not self.data:
                raise InputError("data: environment 'imagined' begins at recorded scenes; give --data DIR")
            return ImaginedTraffic.open(self.model, self.data, self.split, self.imagined, self.device)
        from drivecast.envs.batched.traffic import BATCHED, BatchedHighwayTraffic
        from drivecast.envs.highway.traffic import HighwayTraffic

        given: dict[str, Any] = {
            "vehicles": self.highway.vehicles or None,
            "lanes": self.highway.lanes or None,
            "density": self.highway.density or None,
            "duration_s": self.highway.duration_s,
            "desired_speed_mps": self.highway.desired_speed_mps,
            "reactive": self.highway.reactive,
            "mixed": self.highway.mixed,
        }
        if self.highway.simulator == "batched" and self.environment in BATCHED:
            return BatchedHighwayTraffic(self.environment, **given, device=self.device)
        return HighwayTraffic(self.environment, **given)


def check_driver(name: str, environment: str) -> None:
    """Refuse, before anything is run, a driver that is not known or cannot drive there."""
    given, (net, name) = name, without_net(name)
    if net and name in TIED_TO_TRAFFIC:
        raise InputError(f"driver '{given}': {name} cannot be overridden; put {net}: before another driver")
    kind, _, value = name.partition(":")
    if kind == "idm" and name != "idm":
        idm_of(name, IDMConfig())
    elif not (kind in TRAINED_BY and value) and name not in PLAIN_DRIVERS:
        raise InputError(f"driver '{name}': expected one of {named_drivers()}")
    if name == "human" and environment != RECORDED:
        raise InputError(f"driver 'human': {environment} has no recorded human; evaluate it on --environment recorded")
    check_route(name, environment)


def driver_path(name: str) -> Path | None:
    """Where a trained driver lies; None: it is not a trained one."""
    kind, _, path = without_net(name)[1].partition(":")
    return Path(path) if kind in TRAINED_BY and path else None


def check_policy_file(name: str) -> None:
    """Refuse, before anything is run, a trained driver that is not there, or no model of its kind."""
    name = without_net(name)[1]
    path, kind = driver_path(name), kind_of(name)
    if path is None:
        return
    if not path.exists():
        raise InputError(f"driver '{name}': no file or folder {path}; train one with `drivecast {TRAINED_BY[kind]}`")
    if kind in BASELINES:
        _baseline(name, 0.1, "cpu")


def make_driver(name: str, idm: IDMConfig, device: str = "cpu", planner: PlannerConfig | None = None) -> Driver:
    """The driver of that name, which it also carries as its own; `idm.dt_s` is the time between two calls."""
    net, under = without_net(name)
    if net:
        return under_net(net, make_driver(under, idm, device, planner))
    kind = name.partition(":")[0]
    if kind == "policy":
        return _policy(name, device)
    if kind in PLANNERS:
        return _planner(name, device, planner)
    if kind in BASELINES:
        return _baseline(name, idm.dt_s, device)
    driver: Any = {
        "idm": lambda: IDMDriver(idm if name == "idm" else idm_of(name, idm)),
        "rule": lambda: RuleDriver(dt_s=idm.dt_s),
        "idm-planner": lambda: _rule_planner(True, idm.dt_s, planner),
        "constant-velocity-planner": lambda: _rule_planner(False, idm.dt_s, planner),
        "ceiling": lambda: _ceiling(idm.dt_s, planner),
        "constant-velocity": ConstantVelocityDriver,
        "idle": IdleDriver,
        "human": HumanDriver,
    }[kind]()
    driver.name = name
    return driver


def _rule_planner(follows: bool, dt_s: float, planner: PlannerConfig | None) -> Driver:
    from drivecast.planner.planning.driver import RulePlanner

    return RulePlanner(follows, planner, dt_s)


def _ceiling(dt_s: float, planner: PlannerConfig | None) -> Driver:
    from drivecast.scripts.driving.ceiling import CeilingDriver  # imports highway-env, which takes a second

    return CeilingDriver(planner, dt_s)


def idm_of(name: str, idm: IDMConfig) -> IDMConfig:
    """The parameters of `idm:SPEED` (m/s, all else as in `idm`) or of `idm:NAME`, a file.

    Raises:
        InputError: There is no such file, or it holds something else.
    """
    if is_idm_file(name):
        return replace(_read_idm(idm_file(name)), dt_s=idm.dt_s)
    text = name.partition(":")[2]
    speed = float(text) if text else math.nan
    if not 0 < speed < math.inf:
        raise InputError(f"driver '{name}': expected idm:SPEED with a speed above zero in m/s, such as idm:25")
    return replace(idm, desired_speed_mps=speed)


def is_idm_file(name: str) -> bool:
    """Whether a driver is `idm:NAME`, and not `idm:SPEED`."""
    kind, _, text = name.partition(":")
    try:
        float(text)
    except ValueError:
        return kind == "idm" and text != ""
    return False


def idm_file(name: str) -> Path:
    """The file of `idm:NAME`: a path, or one of those that come with drivecast.

    Raises:
        InputError: There is none.
    """
    from drivecast.scripts.command.parsing import PRESET_FOLDERS

    text = name.partition(":")[2]
    folders = [folder / "idm" for folder in PRESET_FOLDERS]
    for path in [Path(text), *(folder / f"{text}.yaml" for folder in folders)]:
        if text and path.is_file():
            return path
    known = sorted({path.stem for folder in folders for path in folder.glob("*.yaml")})
    raise InputError(
        f"driver '{name}': expected idm:SPEED with a speed above zero in m/s, idm:FILE, or idm: and one of "
        f"{', '.join(known)}; make one with `drivecast tune-idm`"
    )


def _read_idm(path: Path) -> IDMConfig:
    import yaml

    from drivecast.worldmodel.storage.checkpoint import config_from_dict

    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise InputError(f"{path}: not readable as YAML ({str(error).splitlines()[0]})") from error
    if isinstance(values, dict):  # a population's typical driver
        values = {name: value for name, value in values.items() if name not in ("spread", "drivers")}
    if not isinstance(values, dict) or not all(type(value) in (int, float, bool) for value in values.values()):
        raise InputError(f"{path}: expected 'name: number' lines of IDM's parameters, got {str(values)[:60]!r}")
    return config_from_dict(IDMConfig, values, str(path))


def training_seed(name: str) -> int | None:
    """Seed that a trained driver was trained with, where its file says so."""
    name = without_net(name)[1]
    path = driver_path(name)
    if path is None:
        return None
    if name.partition(":")[0] in BASELINES:
        return _baseline(name, 0.1, "cpu").card.seed
    from drivecast.planner.pictures.driver import PICTURE_POLICY_KIND, is_picture_policy
    from drivecast.planner.policy.training import POLICY_KIND
    from drivecast.worldmodel.forecaster.loading import stored_model
    from drivecast.worldmodel.storage.checkpoint import load_model

    if is_joint_embedding(path):
        return load_model(path, JOINT_EMBEDDING_KIND).extra.get("seed")
    if is_picture_policy(path):
        return load_model(path, PICTURE_POLICY_KIND).extra.get("seed")
    if name.partition(":")[0] in PLANNERS:
        return stored_model(beside_policy(path)).extra.get("seed")
    return load_model(path, POLICY_KIND).extra.get("seed")


def realised_score(driver: str, device: str, dt_s: float, planner: PlannerConfig | None = None) -> Score:
    """What a drive cost in truth, by the energy that `policy:PATH` was trained with or `planner:PATH` plans by.

    Without taught concepts: whom they are about is the planner's, not the drive's.
    """
    from drivecast.planner.costs.trajectory import Trajectory

    is_planner = driver.partition(":")[0] in PLANNERS
    planner = planner and replace(planner, concepts=())
    energy = _planner(driver, device, planner).energy if is_planner else _policy(driver, device).energy

    def score(states: TrafficState, controls: Controls, road: Road, goal: Goal) -> dict[str, Tensor]:
        before = controls.acceleration_mps2[:, 0]
        return energy.terms(Trajectory(states[:, 1:], controls, before, road, goal, dt_s))

    return score


def _planner(name: str, device: str, config: PlannerConfig | None) -> GradientPlanner | ProposalPlanner:
    from drivecast.planner.planning.driver import GradientPlanner, SamplingPlanner
    from drivecast.worldmodel.forecaster.loading import load_world_model

    path = driver_path(name)
    assert path is not None
    if is_joint_embedding(path) or name.startswith("proposal-"):
        return _proposal_planner(name, path, device, config)
    kind = SamplingPlanner if name.startswith("sampling-") else GradientPlanner
    return kind(load_world_model(beside_policy(path), device), config, name)


def _proposal_planner(name: str, path: Path, device: str, config: PlannerConfig | None) -> ProposalPlanner:
    from drivecast.planner.costs.readout import load_readout
    from drivecast.planner.planning.proposal_planner import ProposalPlanner, ProposalPlannerConfig
    from drivecast.worldmodel.forecaster.loading import load_world_model

    settings = ProposalPlannerConfig()
    if config is not None:
        if config.concepts:
            raise InputError(f"driver '{name}': its plans are not judged by concepts; take planner: and a world model")
        settings = replace(
            settings, decide_every_s=config.decide_every_s, energy=config.energy, law=config.law, search=config.search
        )
    if is_joint_embedding(path):
        model = load_joint_embedding(path, device)
        return ProposalPlanner(model, load_readout(path, model, device), settings, name)
    return ProposalPlanner(load_world_model(beside_policy(path), device), None, settings, name)


def beside_policy(path: Path) -> Path:
    """The world model of a policy's file or folder; of anything else, the path itself."""
    beside = path.parent / WORLD_MODEL_FILE
    return beside if path.name == POLICY_FILE and beside.is_file() else path


def _policy(name: str, device: str) -> ReactiveDriver | PictureDriver:
    return _read_policy(name, device, _written(name))


def _baseline(name: str, dt_s: float, device: str) -> StableBaselinesDriver:
    return _read_baseline(name, dt_s, device, _written(name))


def _written(name: str) -> tuple[tuple[str, int, int], ...]:
    """When the files of a trained driver were written, so that one which replaces another is read anew."""
    path = Path(name.partition(":")[2])
    folder = path if path.is_dir() else path.parent
    files = sorted(file for file in folder.iterdir() if file.suffix in (".safetensors", ".zip", ".json"))
    return tuple((file.name, file.stat().st_mtime_ns, file.stat().st_ino) for file in files)


@lru_cache(maxsize=4)
def _read_policy(name: str, device: str, written: object) -> ReactiveDriver | PictureDriver:
    """Read once per process: episodes come in small parts there."""
    from drivecast.planner.pictures.driver import is_picture_policy, load_picture_driver
    from drivecast.planner.policy.driver import load_driver

    path = name.removeprefix("policy:")
    if is_picture_policy(path):
        return load_picture_driver(path, device, name)
    return load_driver(Path(path), device, name)


@lru_cache(maxsize=4)
def _read_baseline(name: str, dt_s: float, device: str, written: object) -> StableBaselinesDriver:
    """The same for a model of Stable-Baselines3."""
    from drivecast.envs.drivers.learned.driver import load_baseline

    kind, _, path = name.partition(":")
    return load_baseline(Path(path), kind, dt_s, device, name)

"""`drivecast distil-planner`: what the planner finds by searching, learned by a policy that then does without."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from drivecast.envs.evaluation.suites import simulated
from drivecast.planner.distillation.fitting import FittingConfig, examined, fit
from drivecast.planner.planning.driver import PlannerConfig
from drivecast.planner.policy.driver import load_driver
from drivecast.planner.policy.lane_energy import LaneEnergy
from drivecast.planner.policy.network import Policy
from drivecast.planner.policy.training import POLICY_KIND
from drivecast.scripts.command.device import available_device
from drivecast.scripts.driving.drivers import beside_policy
from drivecast.scripts.driving.lessons import Lessons, Taught, parts_of_round, teach
from drivecast.scripts.driving.registry import located
from drivecast.scripts.driving.workers import Workers
from drivecast.scripts.figures.curves import Curves
from drivecast.scripts.tracking.mlflow_server import MODEL_FOLDER
from drivecast.scripts.tracking.run import Run
from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.forecaster.loading import POLICY_FILE, WORLD_MODEL_FILE, load_world_model
from drivecast.worldmodel.storage.checkpoint import load_model, save_model, weights_digest
from drivecast.worldmodel.storage.files import atomic_file, copy_file

PANELS = [
    ("share of choices as the search's", ["val/agreement", "val/agreement_on_changes"]),
    ("energy lost by the others", ["val/regret"]),
    ("mean speed of the drives, m/s", ["drive/speed_mps"]),
    ("share of the drives that collide", ["drive/collision_rate"]),
]
LESSONS_FOLDER, SETTINGS_FILE = "lessons", "settings.json"
SIMULATED = ("highway", "highway-dense", "highway-reactive", "highway-dense-reactive", "merge")


@dataclass(frozen=True)
class DistilPlannerConfig:
    """Teach a policy which lanes to choose by what the planner finds in imagination: it then drives without a search.

    The policy drives, and at each choice of a lane the planner searches sequences of manoeuvres in the world model; a
    small network learns what it found each lane to cost. In the first round the planner's choices are driven, later
    mostly the policy's own, so that it is taught where it gets to. Leaves OUTPUT/policy.safetensors, with its world
    model beside it, and distillation.png. Started again with the same settings, it goes on where it was stopped.

    Args:
        policy: Policy whose controls are driven, best one trained with --policy.feedback laws: its file, its folder,
            pretrained:NAME, or models:/NAME/VERSION.
        output: Folder of the policy that has learned.
        suites: In whose traffic, on training seeds: highway, highway-dense, merge, ...
        data: Recording stores whose train split is driven in; in the place of suites.
        desired_speed_mps: Least and greatest speed asked for in half of the simulated episodes; the others ask for the
            suite's own.
        rounds: Number of rounds.
        episodes: Of each round.
        searched_share: Share of the later rounds' episodes in which the planner's choices are driven.
        hidden: Width of the network.
        seed: Of scenes and weights.
        device: Where the network is fitted: cpu, or cuda where there is one.
        workers: Greatest number of processes; 0: one per core.
        fitting: The fit.
        planner: The planner.
        name: Name under which the policy is registered.
    """

    policy: str
    output: Path
    suites: list[str] = field(default_factory=lambda: list(SIMULATED))
    data: list[Path] = field(default_factory=list)
    desired_speed_mps: tuple[float, float] = (18.0, 32.0)
    rounds: int = 5
    episodes: int = 120
    searched_share: float = 0.2
    hidden: int = 256
    seed: int = 0
    device: str = "cpu"
    workers: int = 0
    fitting: FittingConfig = field(default_factory=FittingConfig)
    planner: PlannerConfig = field(default_factory=PlannerConfig)
    name: str = "policy"

    def __post_init__(self) -> None:
        for name in self.suites:
            if name not in simulated():
                raise InputError(f"suites: expected some of {', '.join(simulated())}; got '{name}'")
        for name, least in (("rounds", 1), ("episodes", 1), ("hidden", 1), ("seed", 0), ("workers", 0)):
            if getattr(self, name) < least:
                raise InputError(f"{name}: expected at least {least}, got {getattr(self, name)}")
        if not self.suites and not self.data:
            raise InputError("suites, data: expected one of the two; give --suites NAME or --data DIR")
        if not 0.0 <= self.searched_share <= 1.0:
            raise InputError(f"searched_share: expected 0 to 1, got {self.searched_share}")
        low, high = self.desired_speed_mps
        if not 0.0 < low <= high:
            raise InputError(f"desired_speed_mps: expected two rising speeds above 0, got {low} and {high}")


def run(config: DistilPlannerConfig, run: Run) -> None:
    """Teach round by round, fit after each, report and register."""
    device, output = available_device(config.device), Path(config.output)
    source = located(f"policy:{config.policy}").removeprefix("policy:")
    loaded = load_model(source, POLICY_KIND)
    world_model = beside_policy(loaded.path)
    if world_model == loaded.path:
        raise InputError(f"{loaded.path}: no {WORLD_MODEL_FILE} beside it to search in; put it there")
    before = load_driver(loaded.path).policy
    settings = _settings(config, weights_digest(before), world_model)
    _claim(output, settings)
    begun = output / LESSONS_FOLDER / "begun"
    copy_file(world_model, output / WORLD_MODEL_FILE)
    extra = {**loaded.extra, "seed": config.seed, "distilled": settings}
    extra["lane_choice"] = {**extra.get("lane_choice", {}), "enabled": True}
    plain = replace(before.config, lane_hidden=0)
    without = extra | {"lane_choice": {"enabled": False}}
    save_model(begun / POLICY_FILE, _with_lanes(before, plain), POLICY_KIND, plain, without)

    curves = Curves(output / "distillation.csv")
    taught: list[tuple[Lessons, Taught]] = []
    driven = begun / POLICY_FILE
    with Workers(config.workers) as workers:
        for number in range(config.rounds):
            parts = _parts(config, number, driven, output / WORLD_MODEL_FILE)
            taught += _teach(parts, output / LESSONS_FOLDER, workers, run, f"round {number + 1} of {config.rounds}")
            policy = _fitted(before, config, taught, device, number)
            driven = output / POLICY_FILE
            save_model(driven, policy, POLICY_KIND, policy.config, extra)
            measures = _measures(policy, taught, parts)
            run.log_metrics(measures, number + 1)
            curves.add(number + 1, measures)
            run.say(_line(number + 1, measures))
    run.log_figure(curves.draw(output / "distillation.png", PANELS))
    run.log_artifact(output / WORLD_MODEL_FILE, MODEL_FOLDER)
    run.register_model(driven, config.name)
    run.table(
        f"after {config.rounds} rounds, on moments that were not fitted",
        ["measure", "value"],
        [(name, f"{value:.4f}") for name, value in curves.last("val").items()],
    )
    run.say(f"policy: {driven}; drive it as policy:{output}")


def _parts(config: DistilPlannerConfig, number: int, policy: Path, world_model: Path) -> list[Lessons]:
    common: dict[str, Any] = {
        "policy": policy,
        "world_model": world_model,
        "searched_share": config.searched_share,
        "planner": config.planner,
    }
    return parts_of_round(
        config.suites, config.data, config.episodes, number, config.seed, config.desired_speed_mps, common
    )


def _teach(
    parts: Sequence[Lessons], folder: Path, workers: Workers, run: Run, what: str
) -> list[tuple[Lessons, Taught]]:
    """What the parts teach, in their order; what was taught before is read."""
    done: dict[int, Taught] = {}
    for part in parts:
        if (before := _read(_file(folder, part))) is not None:
            done[part.number] = before
    waiting = [part for part in parts if part.number not in done]
    episodes, left = (sum(len(part.seeds) for part in some) for some in (parts, waiting))
    try:
        with run.progress(episodes, what) as progress:
            progress.advance(episodes - left)
            for part, taught in workers.run(teach, waiting):
                _write(_file(folder, part), taught)
                done[part.number] = taught
                left -= len(part.seeds)
                progress.advance(len(part.seeds), collisions=sum(one.drive["collisions"] for one in done.values()))
    except KeyboardInterrupt:
        run.say(f"stopped in {what}; the same command goes on with the {episodes - left} episodes of it that are done")
        raise
    return [(part, done[part.number]) for part in parts]


def _fitted(
    before: Policy, config: DistilPlannerConfig, taught: Sequence[tuple[Lessons, Taught]], device: str, number: int
) -> Policy:
    """The policy with energies of lanes, fitted anew to all that was taught so far."""
    fitted = [one for part, one in taught if not part.validates]
    views, energies = torch.cat([one.views for one in fitted]), torch.cat([one.energies for one in fitted])
    if not len(views):
        raise InputError("episodes: the planner found nothing to teach; give more of them, or other traffic")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed + number)
        policy = _with_lanes(before, replace(before.config, lane_hidden=config.hidden))
    assert policy.lanes is not None
    policy.lanes.requires_grad_(True).to(device)
    fit(policy.lanes, views, energies, config.fitting, config.seed + number)
    return policy.cpu().eval().requires_grad_(False)


def _with_lanes(before: Policy, config: Any) -> Policy:
    """A policy of the same controls; its choice of lanes is new."""
    policy = Policy(config)
    controls = {name: value for name, value in before.state_dict().items() if not name.startswith("lanes.")}
    policy.load_state_dict(controls | {n: v for n, v in policy.state_dict().items() if n.startswith("lanes.")})
    return policy


def _measures(policy: Policy, taught: Sequence[tuple[Lessons, Taught]], parts: Sequence[Lessons]) -> dict[str, float]:
    """How well it foretells what it was not fitted to, and how the last round's drives went."""
    unseen = [one for part, one in taught if part.validates] or [one for _, one in taught]
    assert isinstance(policy.lanes, LaneEnergy)
    views, energies = torch.cat([one.views for one in unseen]), torch.cat([one.energies for one in unseen])
    found = examined(policy.lanes, views, energies)
    drives = [one.drive for _, one in taught[-len(parts) :]]
    total = {name: sum(drive[name] for drive in drives) for name in drives[0]}
    return {
        **{f"val/{name}": value for name, value in found.items()},
        "drive/speed_mps": total["distance_m"] / max(total["duration_s"], 1e-9),
        "drive/collision_rate": total["collisions"] / total["episodes"],
    }


def _line(number: int, measures: dict[str, float]) -> str:
    return (
        f"round {number}: drove {measures['drive/speed_mps']:.2f} m/s, {100 * measures['drive/collision_rate']:.1f} % "
        f"collided; now agrees with the search in {100 * measures['val/agreement']:.1f} % of unseen moments, "
        f"{100 * measures.get('val/agreement_on_changes', 0.0):.0f} % of its lane changes"
    )


# ---- files ------------------------------------------------------------------------------------------------------


def _settings(config: DistilPlannerConfig, policy: str, world_model: Path) -> dict[str, Any]:
    """All that the outcome depends on, plain JSON."""
    values = asdict(config)
    for name in ("output", "device", "workers", "name"):
        values.pop(name)
    digests = {"policy": policy, "world_model": weights_digest(load_world_model(world_model))}
    return json.loads(json.dumps({**values, "data": [str(path) for path in config.data], **digests}))


def _claim(output: Path, settings: dict[str, Any]) -> None:
    """Refuse another run's lessons; note whose these are."""
    file = output / LESSONS_FOLDER / SETTINGS_FILE
    if file.is_file():
        try:
            theirs = json.loads(file.read_text(encoding="utf-8"))
        except ValueError:
            theirs = None
        if theirs != settings:
            raise InputError(
                f"{file.parent}: belongs to a run with other settings; choose another --output or delete it"
            )
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(file) as temporary:
        temporary.write_text(json.dumps(settings, indent=1), encoding="utf-8")


def _file(folder: Path, part: Lessons) -> Path:
    return folder / f"{part.number:05d}.safetensors"


def _write(file: Path, taught: Taught) -> None:
    with atomic_file(file) as temporary:
        tensors = {"views": taught.views.contiguous(), "energies": taught.energies.contiguous()}
        temporary.write_bytes(save(tensors, metadata={"drive": json.dumps(taught.drive)}))  # fails as files do


def _read(file: Path) -> Taught | None:
    """What a part taught; None: it has not been driven yet, or its file is damaged, and it is driven again."""
    if not file.is_file():
        return None
    try:
        with safe_open(file, framework="pt", device="cpu") as opened:
            drive = json.loads(opened.metadata()["drive"])
            return Taught(opened.get_tensor("views"), opened.get_tensor("energies"), drive)
    except (SafetensorError, OSError, ValueError, TypeError, KeyError):
        return None

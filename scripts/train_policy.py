"""`drivecast train-policy`: a driver, by backpropagating the energy through imagined futures."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from planner.policy import PolicyConfig
from planner.training import PolicyTrainer, PolicyTrainingConfig
from scripts.curves import Curves
from scripts.tracking import Run
from scripts.train_world_model import available_device
from worldmodel.checkpoint import load_model
from worldmodel.files import atomic_file
from worldmodel.loading import load_world_model
from worldmodel.recordings.store import WindowStore
from worldmodel.training import MODEL_KIND


@dataclass(frozen=True)
class TrainPolicyConfig:
    """Train a driving policy by backpropagation through imagined rollouts of a frozen world model (MPUR).

    Leaves OUTPUT/policy.safetensors, the best policy in validation, with a copy of its world model beside it, and
    training-curves.png. Started again with the same settings, it goes on where it was stopped, to the last bit.

    Args:
        world_model: World model: its file, its folder, or models:/NAME/VERSION of the registry.
        data: Folders of recording stores whose scenes the rollouts start from; give it several times for several.
        output: Folder of the policy.
        seed: Seed of weights, starts and latents.
        device: `cpu`, or `cuda` where there is one.
        policy: Architecture and limits of the policy.
        training: Training settings.
        name: Name under which the policy is registered.
    """

    world_model: str
    data: list[Path]
    output: Path
    seed: int = 0
    device: str = "cpu"
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    training: PolicyTrainingConfig = field(default_factory=PolicyTrainingConfig)
    name: str = "policy"


def run(config: TrainPolicyConfig, run: Run) -> None:
    """Train, report and register."""
    from scripts.model_registry import resolve_model

    device = available_device(config.device)
    output = Path(config.output)
    source = load_model(resolve_model(config.world_model), MODEL_KIND).path
    world_model = load_world_model(source, device)
    stores = [WindowStore.open(folder) for folder in config.data]
    trainer = PolicyTrainer(
        world_model, config.policy, config.training, stores, output, config.seed, device, str(config.world_model)
    )
    done = trainer.resume()  # refuses another run's output before anything in it is touched
    copy = output / "world-model.safetensors"
    if source.resolve() != copy.resolve():
        with atomic_file(copy) as temporary:
            shutil.copyfile(source, temporary)
    if done:
        run.say(f"resumed at step {done} of {config.training.steps}")
    curves = Curves(output / "training-curves.csv", resumed_at=done)

    with run.progress(config.training.steps, "training the policy") as progress:
        progress.advance(done)

        def on_step(step: int, values: Mapping[str, float]) -> None:
            progress.advance(1, energy=values["energy"], proximity=values["proximity"])

        def log(step: int, values: Mapping[str, float]) -> None:
            run.log_metrics(values, step)
            curves.add(step, values)

        path = trainer.train(log, on_step)
    terms = ["proximity", "lane", "off_road", "speed", "comfort", "uncertainty"]
    figure = curves.draw(
        output / "training-curves.png",
        [
            ("energy of imagined rollouts", ["train/energy", "*/energy"]),
            ("its terms in validation", [f"*/{term}" for term in terms]),
            ("gradient norm before clipping", ["train/gradient_norm"]),
        ],
    )
    run.log_figure(figure)
    run.log_artifact(path, "policy")
    run.log_artifact(copy, "policy")
    run.register_model(path, config.name)
    run.table(
        f"policy after {config.training.steps} steps: imagined energy on '{trainer.validated_on}'",
        ["term", "value"],
        [(name, f"{value:.4f}") for name, value in curves.last(trainer.validated_on).items()],
    )
    run.say(f"policy: {path}")

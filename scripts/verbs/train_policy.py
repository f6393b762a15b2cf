"""`drivecast train-policy`: a driver, by backpropagating the energy through imagined futures."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from drivecast.planner.costs.energy import EnergyWeights
from drivecast.planner.imagination.imagined_rollouts import ImaginedRollouts
from drivecast.planner.pictures.driver import PICTURE_POLICY_KIND
from drivecast.planner.pictures.policy import PicturePolicy, PicturePolicyConfig
from drivecast.planner.pictures.rollouts import PictureRollouts
from drivecast.planner.policy.network import PolicyConfig
from drivecast.planner.policy.training import PolicyKind, PolicyTrainer, PolicyTrainingConfig
from drivecast.scripts.command.device import available_device
from drivecast.scripts.tracking.run import Run
from drivecast.scripts.verbs.training import train
from drivecast.worldmodel.energy.loaded_model import LoadedModel
from drivecast.worldmodel.forecaster.loading import PICTURE_POLICY_FILE, WORLD_MODEL_FILE
from drivecast.worldmodel.forecaster.model import MODEL_KIND
from drivecast.worldmodel.raster.loading import is_raster_model, load_raster_model
from drivecast.worldmodel.recordings.store import WindowStore
from drivecast.worldmodel.storage.checkpoint import load_model
from drivecast.worldmodel.storage.files import copy_file

PANELS = [
    ("energy of imagined rollouts", ["train/energy", "*/energy"]),
    ("its terms in validation", [f"*/{term}" for term in asdict(EnergyWeights())]),
    ("gradient norm before clipping", ["train/gradient_norm"]),
    ("share of controls at their limits", ["*/saturated_share"]),
]
ON_PICTURES = PolicyKind(PicturePolicy, PICTURE_POLICY_KIND, PICTURE_POLICY_FILE)


@dataclass(frozen=True)
class TrainPolicyConfig:
    """Train a driving policy by backpropagation through imagined rollouts of a frozen world model (MPUR).

    Leaves OUTPUT/policy.safetensors, the best policy in validation, with a copy of its world model beside it, and
    training-curves.png. Started again with the same settings, it goes on where it was stopped, to the last bit.

    Args:
        world_model: World model: its file, its folder, pretrained:us101, pretrained:highway, or models:/NAME/VERSION of
            the registry.
        data: Folders of recording stores whose scenes the rollouts start from; give it several times for several.
        output: Folder of the policy.
        seed: Seed of weights, starts and latents.
        device: `cpu`, or `cuda` where there is one.
        policy: Architecture and limits of the policy.
        picture_policy: The same of a policy that sees pictures, where the world model is a raster predictor.
        training: Training settings.
        name: Name under which the policy is registered.
    """

    world_model: str
    data: list[Path]
    output: Path
    seed: int = 0
    device: str = "cpu"
    policy: PolicyConfig = field(default_factory=lambda: PolicyConfig(feedback="laws"))
    picture_policy: PicturePolicyConfig = field(default_factory=PicturePolicyConfig)
    training: PolicyTrainingConfig = field(default_factory=PolicyTrainingConfig)
    name: str = "policy"


def run(config: TrainPolicyConfig, run: Run) -> None:
    """Train, report and register."""
    from drivecast.scripts.driving.registry import resolve_model

    device = available_device(config.device)
    file = resolve_model(config.world_model)
    if is_raster_model(file):
        _train_on_pictures(file, config, device, run)
        return
    output = Path(config.output)
    source = load_model(file, MODEL_KIND).path
    loaded = LoadedModel.load(source, device)
    stores = [WindowStore.open(folder) for folder in config.data]
    rollouts = ImaginedRollouts(
        loaded.model, stores, config.training, config.seed, device, config.world_model, loaded.scale
    )
    trainer = PolicyTrainer(rollouts, config.policy, config.training, output, config.seed, device, run.say)
    done = trainer.resume()  # refuses another run's output before anything in it is touched
    copy = output / WORLD_MODEL_FILE
    if trainer.optimisation.crew.leads:
        copy_file(source, copy)
    train(trainer, done, run, "policy", config.name, ["energy", "proximity"], PANELS, [copy])


def _train_on_pictures(file: Path, config: TrainPolicyConfig, device: str, run: Run) -> None:
    """The same through a raster predictor; it is not needed to drive, and stays where it is."""
    model = load_raster_model(file, device)
    stores = [WindowStore.open(folder) for folder in config.data]
    rollouts = PictureRollouts(
        model, stores, config.training, config.training.energy, config.seed, device, config.world_model
    )
    policy = replace(config.picture_policy, picture=model.config.picture, dt_s=model.config.dt_s)
    trainer = PolicyTrainer(
        rollouts, policy, config.training, Path(config.output), config.seed, device, run.say, ON_PICTURES
    )
    done = trainer.resume()
    train(trainer, done, run, "policy", config.name, ["energy", "proximity"], PANELS)

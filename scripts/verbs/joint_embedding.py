"""Training a joint embedding and, after it, what reads driving costs from its embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from drivecast.planner.costs.readout import COST_READOUT_FILE, load_readout, save_readout
from drivecast.planner.planning.readout_fitting import ReadoutFittingConfig, fit_readout
from drivecast.scripts.tracking.run import Run
from drivecast.scripts.verbs.training import train
from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.joint_embedding.loading import load_joint_embedding
from drivecast.worldmodel.joint_embedding.network import JointEmbeddingConfig
from drivecast.worldmodel.joint_embedding.trainer import JointEmbeddingTrainer, JointEmbeddingTrainingConfig
from drivecast.worldmodel.recordings.sampling import WindowRequest, WindowSampler
from drivecast.worldmodel.recordings.store import WindowStore
from drivecast.worldmodel.training.optimisation import Log

PANELS = [
    (
        "squared error of what is predicted last, over its variance\n(1: no better than its mean)",
        ["*/unexplained", "*/standing_still"],
    ),
    ("effective rank of the embeddings\n(it falls where they collapse)", ["*/effective_rank"]),
    ("error added by another ego's moves\n(unit as in the first panel; 0: the ego is ignored)", ["*/ego_gap"]),
    ("what the loss is made of", ["*/prediction", "*/variance", "*/covariance", "*/inverse_dynamics"]),
]


@dataclass(frozen=True)
class JointEmbeddingSettings:
    """A joint embedding.

    Args:
        model: Architecture.
        training: Training settings.
        readout: Fitting of the costs that are read from embeddings.
    """

    model: JointEmbeddingConfig = field(default_factory=JointEmbeddingConfig)
    training: JointEmbeddingTrainingConfig = field(default_factory=JointEmbeddingTrainingConfig)
    readout: ReadoutFittingConfig = field(default_factory=ReadoutFittingConfig)


@dataclass
class WithReadout:
    """A joint embedding's training that ends with fitting the readout of costs."""

    trainer: JointEmbeddingTrainer
    fitting: ReadoutFittingConfig
    run: Run

    def __post_init__(self) -> None:
        self.output, self.validated_on = Path(self.trainer.output), self.trainer.validated_on
        self.optimisation, self.config = self.trainer.optimisation, self.trainer.config

    def train(self, log: Log, on_step: Log = lambda *_: None) -> Path:
        """Train to the last step, and fit; returns the path of the joint embedding."""
        path = self.trainer.train(log, on_step)
        if self.optimisation.crew.leads:
            self._fit(path)
        return path

    def _fit(self, path: Path) -> None:
        trainer = self.trainer
        model = load_joint_embedding(path, trainer.device)
        try:
            load_readout(path, model)
            return  # of a training that was ended already
        except InputError:
            pass
        config = trainer.config
        request = WindowRequest(config.history_steps, config.horizon_steps, config.max_agents)
        sampler = WindowSampler(trainer.stores, "train", request)
        with self.run.progress(100, "reading costs from embeddings") as progress:
            shown = 0

            def on_progress(share: float) -> None:
                nonlocal shown
                progress.advance(int(100 * share) - shown)
                shown = int(100 * share)

            readout, unexplained = fit_readout(model, sampler, self.fitting, seed=trainer.seed, on_progress=on_progress)
        save_readout(self.output, readout, model, {"unexplained": unexplained, "seed": trainer.seed})
        self.run.table(
            "costs of plans read from predicted embeddings, on plans that were kept out",
            ["term", "left unexplained, share of variance"],
            [(name, f"{value:.3f}") for name, value in unexplained.items()],
        )


def train_joint_embedding(
    settings: JointEmbeddingSettings,
    stores: Sequence[WindowStore],
    output: Path,
    seed: int,
    device: str,
    run: Run,
    name: str,
) -> None:
    """Train, report and register; see `drivecast train-world-model --kind joint-embedding`."""
    trainer = JointEmbeddingTrainer(settings.model, settings.training, stores, output, seed, device)
    done = trainer.resume()
    parameters = sum(parameter.numel() for parameter in trainer.network.parameters())
    rows = sum(len(rows) for rows in trainer.training_windows.rows)
    run.log_params({"parameters": parameters, "training_rows": rows})
    with_readout = WithReadout(trainer, settings.readout, run)
    train(with_readout, done, run, "joint embedding", name, ["loss"], PANELS, [output / COST_READOUT_FILE])

"""What every training shows while it runs and leaves when it is done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from drivecast.scripts.figures.curves import Curves
from drivecast.scripts.tracking.mlflow_server import MODEL_FOLDER
from drivecast.scripts.tracking.run import Run
from drivecast.worldmodel.training.optimisation import Log, Optimisation, Schedule


class Trainer(Protocol):
    """A training that goes on where its `resume()` left it."""

    output: Path
    validated_on: str

    optimisation: Optimisation

    @property
    def config(self) -> Schedule: ...
    def train(self, log: Log, on_step: Log) -> Path: ...


def train(
    trainer: Trainer,
    done: int,
    run: Run,
    kind: str,
    name: str,
    shown: Sequence[str],
    panels: Sequence[tuple[str, Sequence[str]]],
    companions: Sequence[Path] = (),
) -> None:
    """Train from step `done` on; leave curves, figure, the registered model and a table of the last validation.

    Args:
        trainer: The training, resumed.
        done: Steps that were done before.
        run: Told everything; by the leading process, where several train together.
        kind: What is trained, in words.
        name: Name under which the model is registered.
        shown: Measures that stand beside the progress.
        panels: Title and curves of each panel of the figure, see `Curves.draw`.
        companions: Files that the model needs beside it.
    """
    if not trainer.optimisation.crew.leads:
        trainer.train(lambda *_: None, lambda *_: None)
        return
    steps, output = trainer.config.steps, Path(trainer.output)
    if done:
        run.say(f"resumed at step {done} of {steps}")
    curves = Curves(output / "training-curves.csv", resumed_at=done)

    try:
        with run.progress(steps, f"training the {kind}") as progress:
            progress.advance(done)

            def on_step(step: int, values: Mapping[str, float]) -> None:
                progress.advance(1, **{measure: values[measure] for measure in shown if measure in values})

            def log(step: int, values: Mapping[str, float]) -> None:
                run.log_metrics(values, step)
                curves.add(step, values)

            path = trainer.train(log, on_step)
    except KeyboardInterrupt:
        at = trainer.optimisation.saved_at
        went_on = f"the same command goes on at step {at} of {steps}" if at else "before the first checkpoint"
        run.say(f"stopped; {went_on}")
        raise
    run.log_figure(curves.draw(output / "training-curves.png", panels))
    for file in companions:
        run.log_artifact(file, MODEL_FOLDER)
    run.register_model(path, name)
    run.table(
        f"{kind} after {steps} steps, on '{trainer.validated_on}'",
        ["measure", "value"],
        [(key, f"{value:.4f}") for key, value in curves.last(trainer.validated_on).items() if "kl_dim" not in key],
    )
    run.say(f"{kind}: {path}")

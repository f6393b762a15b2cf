"""Claims about processes that train one network together."""

from __future__ import annotations

import os
import signal
import socket
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import nn

from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.storage.checkpoint import load_training_state
from drivecast.worldmodel.training.crew import Crew
from drivecast.worldmodel.training.optimisation import BestModel, Optimisation

BATCH = 8


@dataclass(frozen=True)
class Short:
    steps: int = 6
    learning_rate: float = 0.1
    gradient_clip: float = 100.0
    validate_every: int = 2
    checkpoint_every: int = 100


def optimisation(folder: Path, schedule: Short) -> Optimisation:
    torch.manual_seed(0)
    network = nn.Linear(3, 1)
    optimizer = torch.optim.Adam(network.parameters(), lr=schedule.learning_rate)
    best = BestModel(folder / "model.safetensors", "line", schedule, {})
    return Optimisation(network, optimizer, schedule, best, folder / "state.pt", {"of": "a line"}, seed=3)


def train(folder: Path, schedule: Short, asked_to_end_at: int | None = None) -> None:
    """Fit a line; the last process is asked to end after that step."""
    optimised = optimisation(folder, schedule)
    crew, network = optimised.crew, optimised.network
    optimised.resume()

    def step() -> dict[str, float]:
        optimised.start_step()
        inputs = torch.randn(crew.share(BATCH), 3, generator=optimised.batches)
        loss = (network(inputs) - inputs.sum(1, keepdim=True)).square().mean()
        optimised.descend(loss)
        if optimised.done_steps == asked_to_end_at and crew.rank == crew.count - 1:
            signal.raise_signal(signal.SIGINT)
        return {"loss": loss.item(), "gradient_norm": optimised.finish_step()}

    def validate() -> tuple[dict[str, float], float]:
        (folder / f"validated-by-{crew.rank}").touch()
        return {}, float(network.weight.detach().abs().sum())

    losses: list[float] = []
    try:
        optimised.train(step, validate, "val", lambda *_: None, lambda _, values: losses.append(values["loss"]))
    except KeyboardInterrupt:
        (folder / f"ended-{crew.rank}").touch()
    torch.save({"weights": network.state_dict(), "losses": losses}, folder / f"process-{crew.rank}.pt")


def _process(rank: int, count: int, port: int, *given) -> None:
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    train(*given)


def together(folder: Path, *given, count: int = 2) -> list[dict]:
    """Run `train` in several processes; what each of them left."""
    folder.mkdir(exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = torch.multiprocessing.get_context("spawn")
    crew = [context.Process(target=_process, args=(rank, count, port, folder, *given)) for rank in range(count)]
    for process in crew:
        process.start()
    for process in crew:
        process.join(120)
        if process.is_alive():
            process.kill()
    assert [process.exitcode for process in crew] == [0] * count
    return [torch.load(folder / f"process-{rank}.pt") for rank in range(count)]


def test_they_move_as_one_by_the_mean_of_their_gradients_and_one_of_them_leads(tmp_path):
    first, second = together(tmp_path, Short(steps=1))
    for name, weights in first["weights"].items():
        torch.testing.assert_close(weights, second["weights"][name], rtol=0, atol=0)
    assert first["losses"] == second["losses"], "what is shown is the mean of all"
    assert not (tmp_path / "validated-by-1").exists()
    # by hand: the whole batch in one process is the two halves
    alone = optimisation(tmp_path / "alone", Short(steps=1))
    generators = [torch.Generator().manual_seed(3 + 1_000_003 * rank) for rank in (0, 1)]
    inputs = torch.cat([torch.randn(BATCH // 2, 3, generator=each) for each in generators])
    alone.start_step()
    loss = (alone.network(inputs) - inputs.sum(1, keepdim=True)).square().mean()
    alone.descend(loss)
    alone.finish_step()
    for name, weights in alone.network.state_dict().items():
        torch.testing.assert_close(first["weights"][name], weights, rtol=1e-5, atol=1e-6)
    assert first["losses"] == [pytest.approx(loss.item())]


def test_asked_to_end_all_of_them_end_and_go_on_to_the_last_bit(tmp_path):
    whole = together(tmp_path / "whole", Short())
    together(tmp_path / "halves", Short(), 3)
    assert {path.name for path in (tmp_path / "halves").glob("ended-*")} == {"ended-0", "ended-1"}
    assert load_training_state(tmp_path / "halves/state.pt")["done_steps"] == 4
    went_on = together(tmp_path / "halves", Short())
    for one, other in zip(whole, went_on, strict=True):
        for name, weights in one["weights"].items():
            torch.testing.assert_close(other["weights"][name], weights, rtol=0, atol=0)
    assert went_on[0]["losses"] == whole[0]["losses"][4:]
    with pytest.raises(InputError, match="another number of processes"):
        optimisation(tmp_path / "halves", Short()).resume()


def test_alone_a_crew_changes_nothing(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    crew, values = Crew.launched(), torch.arange(3.0)
    assert (crew.leads, crew.share(7), crew.any(False), crew.average({"a": 1.5})) == (True, 7, False, {"a": 1.5})
    assert crew.own(crew.gather(values)) is values
    with pytest.raises(InputError, match="7 can't be divided among 2 processes"):
        Crew(0, 2).share(7)


def test_processes_that_torchrun_did_not_start_are_told_in_a_line(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(InputError, match="start them with torchrun"):
        Crew.launched()

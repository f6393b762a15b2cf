"""Model files and training states: exact, atomic, without pickle, and clear about what they cannot read."""

from __future__ import annotations

import errno
import pickle
import resource
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.storage.checkpoint import (
    config_from_dict,
    load_model,
    load_training_state,
    save_model,
    save_training_state,
)


@dataclass(frozen=True)
class Encoder:
    width: int = 8
    horizons_s: tuple[float, ...] = (1.0, 2.0)


@dataclass(frozen=True)
class Model:
    dt_s: float
    encoder: Encoder = field(default_factory=Encoder)
    teacher: Encoder | None = None
    folder: Path | None = None
    layers: list[Encoder] = field(default_factory=list)


CONFIG = Model(0.1, Encoder(16, (0.5,)), Encoder(2), Path("a/b"), [Encoder(1), Encoder(3)])


class Tied(nn.Module):
    """Two names for one weight, a buffer, and a dtype that is not float32."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.second = nn.Linear(4, 4)
        self.second.weight = self.first.weight
        self.register_buffer("mean", torch.arange(3, dtype=torch.float64))


def test_weights_buffers_and_config_come_back_exactly(tmp_path):
    module = Tied()
    save_model(tmp_path / "m.safetensors", module, "world-model", CONFIG, {"scores": [0.1, None], "name": "x"})
    loaded = load_model(tmp_path / "m.safetensors", "world-model")
    assert loaded.state.keys() == module.state_dict().keys()
    for name, tensor in module.state_dict().items():
        assert loaded.state[name].dtype == tensor.dtype
        assert torch.equal(loaded.state[name], tensor)
    assert config_from_dict(Model, loaded.config) == CONFIG
    assert loaded.extra == {"scores": [0.1, None], "name": "x"}


def test_a_folder_with_one_model_of_the_kind_is_as_good_as_the_file(tmp_path):
    save_model(tmp_path / "a.safetensors", nn.Linear(1, 1), "world-model", Encoder())
    save_model(tmp_path / "b.safetensors", nn.Linear(1, 1), "policy", Encoder())
    assert load_model(tmp_path, "policy").path == tmp_path / "b.safetensors"
    save_model(tmp_path / "c.safetensors", nn.Linear(1, 1), "policy", Encoder())
    with pytest.raises(InputError, match=r"found 2 \(b.safetensors, c.safetensors\); name the file"):
        load_model(tmp_path, "policy")
    with pytest.raises(InputError, match="kind 'ensemble', found none"):
        load_model(tmp_path, "ensemble")


def truncated(path: Path) -> None:
    save_model(path, nn.Linear(64, 64), "policy", Encoder())
    path.write_bytes(path.read_bytes()[:-100])


def cut_in_the_header(path: Path) -> None:
    save_model(path, nn.Linear(64, 64), "policy", Encoder())
    path.write_bytes(path.read_bytes()[:20])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def text(path: Path) -> None:
    path.write_text("not a model\n" * 100)


def pickled(path: Path) -> None:
    torch.save(nn.Linear(2, 2), path)


def foreign(path: Path) -> None:
    save_file({"weight": torch.zeros(2)}, path, metadata={"format": "pt"})


def without_header(path: Path) -> None:
    save_file({"weight": torch.zeros(2)}, path)


def of_another_kind(path: Path) -> None:
    save_model(path, nn.Linear(2, 2), "world-model", Encoder())


def newer(path: Path) -> None:
    metadata = {"format": "drivecast", "format_version": "99", "kind": "policy", "config": "{}", "extra": "{}"}
    save_file({"weight": torch.zeros(2)}, path, metadata=metadata)


def with_a_broken_config(path: Path) -> None:
    metadata = {"format": "drivecast", "format_version": "1", "kind": "policy", "config": "{", "extra": "{}"}
    save_file({"weight": torch.zeros(2)}, path, metadata=metadata)


def missing(path: Path) -> None: ...


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (truncated, "not a readable safetensors file"),
        (cut_in_the_header, "not a readable safetensors file"),
        (empty, "not a readable safetensors file"),
        (text, "not a readable safetensors file"),
        (pickled, "not a readable safetensors file"),
        (foreign, "was not written by drivecast"),
        (without_header, "was not written by drivecast"),
        (of_another_kind, "expected a model of kind 'policy', found 'world-model'"),
        (newer, "format version 99 is newer"),
        (with_a_broken_config, "not a readable safetensors file"),
        (missing, "found nothing"),
    ],
)
def test_unusable_model_files_are_refused_with_one_line(tmp_path, spoil, told):
    path = tmp_path / "policy.safetensors"
    spoil(path)
    with pytest.raises(InputError, match=told) as refused:
        load_model(path, "policy")
    assert "\n" not in str(refused.value)
    assert str(path) in str(refused.value)


def test_a_write_that_fails_leaves_the_old_model(tmp_path, monkeypatch):
    path = tmp_path / "m.safetensors"
    save_model(path, nn.Linear(2, 2), "policy", Encoder(1))
    before = path.read_bytes()

    def fail(target, content):
        with target.open("wb") as file:
            file.write(content[:8])
        raise OSError("disk full")

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(OSError, match="disk full"):
        save_model(path, nn.Linear(2, 2), "policy", Encoder(2))
    assert path.read_bytes() == before
    assert [item.name for item in tmp_path.iterdir()] == ["m.safetensors"]


@contextmanager
def files_of_at_most(size: int):
    """The system refuses to let files grow beyond `size` bytes, as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("save", [save_model, save_training_state], ids=["model", "training state"])
def test_where_there_is_no_room_the_system_s_error_is_raised_and_the_old_file_stands(tmp_path, save):
    def written(width: int) -> None:
        module = nn.Linear(width, width)
        if save is save_model:
            save_model(tmp_path / "file", module, "policy", Encoder())
        else:
            save_training_state(tmp_path / "file", network=module.state_dict())

    written(8)
    before = (tmp_path / "file").read_bytes()
    with files_of_at_most(16_384), pytest.raises(OSError, match="File too large") as refused:
        written(256)
    assert refused.value.errno == errno.EFBIG
    assert (tmp_path / "file").read_bytes() == before
    assert [item.name for item in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"dt_s": 0.1, "encoder": {"widht": 3}}, "encoder.widht: unknown key of Encoder; known: horizons_s, width"),
        ({"dt_s": 0.1, "layers": [{"depth": 3}]}, "layers.depth: unknown key"),
        ({"dt_s": 0.1, "teacher": {"depth": 3}}, "teacher.depth: unknown key"),
        ({"encoder": {}}, "dt_s: missing value of Model"),
        ({"dt_s": 0.1, "encoder": 3}, "encoder: expected keys of Encoder, got 3"),
    ],
)
def test_configs_that_do_not_fit_are_refused_with_the_dotted_path(values, told):
    with pytest.raises(InputError, match=told):
        config_from_dict(Model, values)


def train(module: nn.Module, optimizer: torch.optim.Optimizer, generator: torch.Generator, steps: int) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        module(torch.randn(8, 3, generator=generator)).square().mean().backward()
        optimizer.step()


def test_training_resumes_bit_exactly(tmp_path):
    torch.manual_seed(0)
    module = nn.Linear(3, 1)
    optimizer = torch.optim.AdamW(module.parameters(), 1e-2)
    generator = torch.Generator().manual_seed(1)
    train(module, optimizer, generator, 5)
    save_training_state(
        tmp_path / "state.pt",
        module=module.state_dict(),
        optimizer=optimizer.state_dict(),
        generator=generator.get_state(),
        step=5,
        best={"loss": 0.5, "history": [1.0, 2.0], "at": (1, "a"), "none": None},
    )
    train(module, optimizer, generator, 5)

    state = load_training_state(tmp_path / "state.pt")
    resumed = nn.Linear(3, 1)
    resumed.load_state_dict(state["module"])
    resumed_optimizer = torch.optim.AdamW(resumed.parameters(), 0.5)
    resumed_optimizer.load_state_dict(state["optimizer"])
    resumed_generator = torch.Generator()
    resumed_generator.set_state(state["generator"])
    assert (state["step"], state["best"]["at"]) == (5, (1, "a"))
    train(resumed, resumed_optimizer, resumed_generator, 5)
    assert torch.equal(resumed.weight, module.weight)
    assert torch.equal(resumed.bias, module.bias)


class Bomb:
    """Runs code when it is unpickled."""

    def __reduce__(self):
        return (Path.touch, (Path(self.target),))

    def __init__(self, target: Path) -> None:
        self.target = str(target)


def test_a_training_state_never_runs_code(tmp_path):
    torch.save({"format": "drivecast", "values": Bomb(tmp_path / "ran")}, tmp_path / "state.pt")
    with pytest.raises(InputError, match="not a readable training state"):
        load_training_state(tmp_path / "state.pt")
    (tmp_path / "raw.pt").write_bytes(pickle.dumps(Bomb(tmp_path / "ran")))
    with pytest.raises(InputError, match="not a readable training state"):
        load_training_state(tmp_path / "raw.pt")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("keep", [0, 10, 200, -50])
def test_a_cut_off_training_state_is_refused_with_one_line(tmp_path, keep):
    path = tmp_path / "state.pt"
    save_training_state(path, module=nn.Linear(20, 20).state_dict())
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match="not a readable training state") as refused:
        load_training_state(path)
    assert "\n" not in str(refused.value)


def test_a_foreign_or_missing_training_state_is_refused(tmp_path):
    torch.save({"step": 3}, tmp_path / "state.pt")
    with pytest.raises(InputError, match="was not written by drivecast"):
        load_training_state(tmp_path / "state.pt")
    with pytest.raises(InputError, match="found nothing"):
        load_training_state(tmp_path / "none.pt")

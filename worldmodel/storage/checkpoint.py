"""Models as one safetensors file with their configuration inside; training state without pickle."""

from __future__ import annotations

import hashlib
import io
import json
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as safetensors_bytes
from torch import Tensor, nn

from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.storage.files import atomic_file

FORMAT = "drivecast"
FORMAT_VERSION = 1
T = TypeVar("T")


@dataclass(frozen=True)
class LoadedModel:
    """What a model file holds. Rebuild the module with `config_from_dict(ItsConfig, loaded.config)`."""

    path: Path
    state: dict[str, Tensor]  # for `module.load_state_dict`
    config: dict[str, Any]
    extra: dict[str, Any]  # whatever else was stored with it, plain JSON


def save_model(path: Path | str, module: nn.Module, kind: str, config: object, extra: Mapping[str, Any] | None = None):
    """Write the module's weights and buffers, its config dataclass and `extra` (plain JSON) as one file, atomically.

    `kind` names what it is (`world-model`, `policy`), so that a file is not mistaken for another. Raises `OSError`
    where it cannot be written; what was at `path` stays as it was.
    """
    path = Path(path)
    # safetensors refuses tensors that share memory: tied weights are written once per name
    state = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in module.state_dict().items()}
    header = {
        "format": FORMAT,
        "format_version": str(FORMAT_VERSION),
        "kind": kind,
        "config": json.dumps(_plain(config), sort_keys=True),
        "extra": json.dumps(_plain(dict(extra or {})), sort_keys=True),
    }
    _write(path, safetensors_bytes(state, metadata=header))


def weights_digest(module: nn.Module) -> str:
    """SHA-256 of the module's weights and buffers, by name: the same for the same model, wherever its file lies."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def load_model(path: Path | str, kind: str) -> LoadedModel:
    """Read a model file, or the only model of this kind in a folder. Tensors are on the CPU.

    Raises `InputError` where the file is missing, damaged, foreign, newer than this program or of another kind.
    """
    path = Path(path)
    if path.is_dir():
        path = _only_model(path, kind)
    header = read_header(path)
    if header["kind"] != kind:
        raise InputError(f"{path}: expected a model of kind '{kind}', found '{header['kind']}'; give another file")
    try:
        with safe_open(path, framework="pt", device="cpu") as opened:
            state = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (not a mapping)
    except (SafetensorError, OSError, RuntimeError) as error:
        raise InputError(_damaged(path, error)) from error
    return LoadedModel(path, state, header["config"], header["extra"])


M = TypeVar("M", bound=nn.Module)


def frozen(model: M, loaded: LoadedModel, what: str, device: str = "cpu") -> M:
    """`model` with the weights that were stored, ready to be asked and not to be trained.

    Raises:
        InputError: They do not fit; `what` it is, in words.
    """
    try:
        model.load_state_dict(loaded.state)
    except RuntimeError as error:
        first = str(error).strip().splitlines()[-1].strip()
        raise InputError(
            f"{loaded.path}: weights do not fit this version's {what} ({first}); train it again"
        ) from error
    return model.to(device).eval().requires_grad_(False)


def holds_model(name: Path | str, file: str) -> bool:
    """Whether `name` is a file of that name, or a folder that holds one."""
    path = Path(name)
    return path.name == file or (path / file).is_file()


def read_header(path: Path | str) -> dict[str, Any]:
    """Kind, config, extra and format version of a model file, without its weights."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: expected a model file (.safetensors) or a folder that holds one, found nothing")
    try:
        with safe_open(path, framework="pt", device="cpu") as opened:
            metadata = opened.metadata() or {}
    except (SafetensorError, OSError, RuntimeError) as error:
        raise InputError(_damaged(path, error)) from error
    if metadata.get("format") != FORMAT or not {"kind", "config", "extra", "format_version"} <= metadata.keys():
        raise InputError(f"{path}: this safetensors file was not written by drivecast (its header names no model)")
    version = metadata["format_version"]
    if not version.isdigit() or int(version) > FORMAT_VERSION:
        raise InputError(
            f"{path}: format version {version} is newer than this program reads ({FORMAT_VERSION}); update drivecast"
        )
    try:
        config, extra = json.loads(metadata["config"]), json.loads(metadata["extra"])
    except json.JSONDecodeError as error:
        raise InputError(_damaged(path, error)) from error
    return {"kind": metadata["kind"], "format_version": int(version), "config": config, "extra": extra}


def config_from_dict(cls: type[T], values: Mapping[str, Any], where: str = "") -> T:
    """Rebuild a (nested) frozen config dataclass from the plain values that a model file holds.

    Unknown keys and missing ones without a default raise `InputError` with the dotted path.
    """
    if not is_dataclass(cls):
        raise TypeError(f"expected a dataclass, got {cls!r}")
    if not isinstance(values, Mapping):
        raise InputError(f"{where or cls.__name__}: expected keys of {cls.__name__}, got {values!r}")
    hints = typing.get_type_hints(cls)
    known = {field.name: field for field in fields(cls) if field.init}
    prefix = f"{where}." if where else ""
    if unknown := sorted(set(values) - set(known)):
        raise InputError(f"{prefix}{unknown[0]}: unknown key of {cls.__name__}; known: {', '.join(sorted(known))}")
    for name, field in known.items():
        if name not in values and field.default is MISSING and field.default_factory is MISSING:
            raise InputError(f"{prefix}{name}: missing value of {cls.__name__}")
    rebuilt = {name: _rebuild(hints[name], value, prefix + name) for name, value in values.items()}
    return typing.cast(T, cls(**rebuilt))


def save_training_state(path: Path | str, **values: Any) -> None:
    """Write tensors and plain values (numbers, texts, lists, dicts, state dicts) to resume from, atomically.

    Raises `OSError` where it cannot be written; what was at `path` stays as it was.
    """
    content = io.BytesIO()
    torch.save({"format": FORMAT, "format_version": FORMAT_VERSION, "values": values}, content)
    _write(Path(path), content.getbuffer())


def load_training_state(path: Path | str, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read what `save_training_state` wrote. Never runs code from the file.

    Raises `InputError` where it is missing, damaged, foreign or newer than this program.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: expected a saved training state, found nothing; start without resuming")
    try:
        content = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # torch raises a dozen types for what is not its file
        raise InputError(
            f"{path}: not a readable training state ({_first_line(error)}); delete it to start anew"
        ) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT or "values" not in content:
        raise InputError(f"{path}: this file was not written by drivecast as a training state; delete it to start anew")
    if content.get("format_version") != FORMAT_VERSION:
        raise InputError(f"{path}: format version {content.get('format_version')}, this program reads {FORMAT_VERSION}")
    return typing.cast(dict[str, Any], content["values"])


def _write(path: Path, content: bytes | memoryview) -> None:
    # not by the libraries' own writers: on a full disk each raises an error of its own, without a number
    with atomic_file(path) as temporary:
        temporary.write_bytes(content)


def _only_model(folder: Path, kind: str) -> Path:
    found = []
    for candidate in sorted(folder.glob("*.safetensors")):
        try:
            if read_header(candidate)["kind"] == kind:
                found.append(candidate)
        except InputError:
            if len(list(folder.glob("*.safetensors"))) == 1:
                raise
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(path.name for path in found)
        raise InputError(f"{folder}: expected one model of kind '{kind}', found {len(found)} ({names}); name the file")
    raise InputError(f"{folder}: expected one .safetensors model of kind '{kind}', found none")


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    return value


def _rebuild(hint: Any, value: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None:
            return None
        choices = [choice for choice in arguments if choice is not type(None)]
        nested = [choice for choice in choices if is_dataclass(choice)]
        if isinstance(value, Mapping) and len(nested) == 1:
            return _rebuild(nested[0], value, where)
        return _rebuild(choices[0], value, where) if len(choices) == 1 else value
    if is_dataclass(hint):
        return config_from_dict(typing.cast(type, hint), value, where)
    if hint is Path:
        return Path(value)
    if origin is tuple:
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return tuple(_rebuild(arguments[0], item, where) for item in value)
        return tuple(_rebuild(item_hint, item, where) for item_hint, item in zip(arguments, value, strict=True))
    if origin is list:
        return [_rebuild(arguments[0], item, where) for item in value]
    if origin is dict:
        return {key: _rebuild(arguments[1], item, where) for key, item in value.items()}
    return value


def _damaged(path: Path, error: Exception) -> str:
    return f"{path}: not a readable safetensors file ({_first_line(error)}); it is damaged, or something else"


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:160] if lines else type(error).__name__

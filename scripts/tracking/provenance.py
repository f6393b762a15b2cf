"""What a result depends on: configuration, code, packages and data."""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml

CHECKOUT = Path(__file__).resolve().parents[2]
PACKAGES = ("drivecast", "torch", "numpy", "gymnasium", "highway-env", "pandas", "pyarrow", "scipy", "mlflow")


def plain(value: object) -> Any:
    """A configuration as what YAML and JSON can hold."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value if isinstance(value, bool | int | float | str | None) else str(value)


def config_yaml(config: object) -> str:
    """The configuration as a file that `--config` reads."""
    return yaml.safe_dump(plain(config), sort_keys=False, allow_unicode=True)


def flat_params(config: object) -> dict[str, str]:
    """The configuration with dotted names: `training.steps: 1000`."""

    def flatten(prefix: str, value: Any) -> dict[str, str]:
        if isinstance(value, dict) and value:
            return {k: v for key, item in value.items() for k, v in flatten(f"{prefix}{key}.", item).items()}
        return {prefix[:-1]: value if isinstance(value, str) else json.dumps(value)}

    return flatten("", plain(config))


def code_tags(checkout: Path = CHECKOUT) -> dict[str, str]:
    """Revision of the code where it is a git checkout, and whether it was changed since; versions of the packages."""
    tags = {"python": platform.python_version(), "mlflow.source.name": "drivecast", "mlflow.source.type": "LOCAL"}
    for package in PACKAGES:
        try:
            tags[f"version.{package}"] = version(package)
        except PackageNotFoundError:
            continue
    if not (checkout / ".git").exists():
        return tags
    revision, changes = _git(checkout, "rev-parse", "HEAD"), _git(checkout, "status", "--porcelain")
    if revision:
        tags["mlflow.source.git.commit"] = tags["git_revision"] = revision
    if changes is not None:
        tags["git_dirty"] = str(bool(changes)).lower()
    return tags


def data_tags(config: object) -> dict[str, str]:
    """Fingerprint of each recording store that the configuration names in its field `data`."""
    data = getattr(config, "data", None)
    named = data if isinstance(data, list | tuple) else [data]
    folders = [Path(folder) for folder in named if isinstance(folder, str | Path)]
    found = {folder.name: store_fingerprint(folder) for folder in folders}
    tags = {f"data.{name}": fingerprint for name, fingerprint in found.items() if fingerprint}
    return tags


def store_fingerprint(folder: Path) -> str | None:
    """The data fingerprint in the `meta.json` of a recording store; None where there is none."""
    try:
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    fingerprint = meta.get("fingerprint") or meta.get("data_fingerprint") if isinstance(meta, dict) else None
    return str(fingerprint) if fingerprint else None


def _git(checkout: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(checkout), *arguments], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()

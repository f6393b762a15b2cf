"""Models found by path, or by the name they were registered under."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path

from drivecast.scripts.driving.driver_kinds import REGISTERED, TRAINED_BY, without_net
from drivecast.scripts.tracking.mlflow_server import MlflowServer, Rejected, Unreachable, absolute_uri, tracking_uri
from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.forecaster.loading import POLICY_FILE, PRETRAINED, pretrained_file, pretrained_folder


def resolve_model(reference: str | Path, uri: str = "") -> Path:
    """The local path of a model: `reference` itself, or the file of `pretrained:NAME` or `models:/NAME/VERSION`.

    VERSION is a number or `latest`.

    A model of a remote server is downloaded, once per process; one of a local database is used where it lies.
    """
    text = str(reference)
    if text.startswith(PRETRAINED):
        return pretrained_file(text)
    # pathlib turns models:/NAME into itself, but models://NAME into models:/NAME
    match = re.fullmatch(r"models:/+(?P<name>[^/]+)(/(?P<version>[^/]+))?", text)
    if not match:
        path = Path(reference)
        if not path.exists():
            raise InputError(
                f"{path}: expected a model file or folder, pretrained:NAME or models:/NAME/VERSION; found nothing"
            )
        return path
    name, wanted = match["name"], match["version"] or "latest"
    if wanted != "latest" and not wanted.isdigit():
        raise InputError(f"{text}: expected a version number or 'latest', got '{wanted}'")
    server = MlflowServer(absolute_uri(tracking_uri(uri)))
    try:
        versions = sorted(server.model_versions(name))
        if not versions:
            raise InputError(f"{text}: no model is registered under the name '{name}' at {server.uri}")
        version = versions[-1] if wanted == "latest" else int(wanted)
        if version not in versions:
            raise InputError(f"{text}: '{name}' has no version {version}; it has {', '.join(map(str, versions))}")
        return _model_file(server.uri, name, version)
    except (Unreachable, Rejected) as error:
        raise InputError(f"{text}: {server.uri} did not give the model ({error}); give a path instead") from error


@lru_cache
def _model_file(uri: str, name: str, version: int) -> Path:
    """A version never changes."""
    return MlflowServer(uri).model_file(name, version)


def located(driver: str) -> str:
    """A driver's name with a local path in the place of `models:/NAME/VERSION` or `pretrained:NAME`; others stay.

    `pretrained:NAME` itself is the policy of that name, `pretrained-planner:NAME` the planner around its world model.

    Raises:
        InputError: There is no such model.
    """
    net, under = without_net(driver)
    if net:
        return f"{net}:{located(under)}"
    kind, _, reference = driver.partition(":")
    if kind == "pretrained-planner":
        return f"planner:{pretrained_file(reference)}"
    if driver.startswith(PRETRAINED) or driver.startswith(f"policy:{PRETRAINED}"):
        return f"policy:{pretrained_folder(driver.removeprefix('policy:'), POLICY_FILE) / POLICY_FILE}"
    if kind not in TRAINED_BY or not reference.startswith((REGISTERED, PRETRAINED)):
        return driver
    return f"{kind}:{resolve_model(reference)}"

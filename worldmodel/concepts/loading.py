"""Concepts from their files: the energy that all of them share, and the code of one that was taught."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from drivecast.worldmodel.concepts.inference import InferenceConfig
from drivecast.worldmodel.concepts.relation_energy import RelationEnergy, RelationEnergyConfig
from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.forecaster.loading import PRETRAINED, pretrained_folder
from drivecast.worldmodel.storage.checkpoint import LoadedModel, config_from_dict, load_model, weights_digest
from drivecast.worldmodel.storage.files import atomic_file

CONCEPTS_KIND, CONCEPTS_FILE = "concepts", "concepts.safetensors"
FORMAT, FORMAT_VERSION = "drivecast concept", 1


@dataclass(frozen=True)
class ConceptModel:
    """The energy of concepts, frozen, and how codes are inferred under it.

    Attributes:
        path: Its file.
        reference: What it is found by: `pretrained:NAME`, or its file's path.
        energy: The network.
        inference: As it was trained.
        trained_on: Concepts that it learned.
        held_out: Concepts that it was to learn nothing of.
        digest: SHA-256 of its weights: a code means something under these alone.
    """

    path: Path
    reference: str
    energy: RelationEnergy
    inference: InferenceConfig
    trained_on: tuple[str, ...]
    held_out: tuple[str, ...]
    digest: str


@dataclass(frozen=True)
class TaughtConcept:
    """A concept that was taught by demonstrations.

    Attributes:
        name: What it is called.
        code: `(code,)`.
        attends_to: How many others it is about.
        model: The energy under which the code was found: its file, or `pretrained:NAME`.
        digest: Of that energy's weights.
        demonstrations: What it was taught by, in words.
        energy: Mean energy of these under the code.
    """

    name: str
    code: Tensor
    attends_to: int
    model: str
    digest: str
    demonstrations: Sequence[str] = ()
    energy: float = 0.0

    def write(self, path: Path) -> None:
        """Write it as JSON, whole or not at all."""
        values = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "name": self.name,
            "code": [round(value, 6) for value in self.code.tolist()],
            "attends_to": self.attends_to,
            "model": self.model,
            "digest": self.digest,
            "demonstrations": list(self.demonstrations),
            "energy": self.energy,
        }
        with atomic_file(path) as temporary:
            temporary.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")

    @staticmethod
    def read(path: Path) -> TaughtConcept:
        """Read what `write` wrote.

        Raises:
            InputError: It is missing or holds something else.
        """
        try:
            values = json.loads(Path(path).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise InputError(f"{path}: no such file; teach a concept with `drivecast teach`") from None
        except (OSError, ValueError) as error:
            raise InputError(f"{path}: not readable as a concept ({str(error).splitlines()[0]})") from error
        if not isinstance(values, dict) or values.get("format") != FORMAT:
            raise InputError(f"{path}: no concept; expected a file that `drivecast teach` wrote")
        if values.get("format_version") != FORMAT_VERSION:
            raise InputError(
                f"{path}: concept of format {values.get('format_version')}; this drivecast reads {FORMAT_VERSION}"
            )
        try:
            code = torch.tensor([float(value) for value in values["code"]])
            attends_to = int(values["attends_to"])
            if not len(code) or not bool(code.isfinite().all()) or attends_to not in (1, 2):
                raise ValueError("its code must be finite, and it must attend to one or two")
            energy = float(values["energy"])
            return TaughtConcept(
                str(values["name"]),
                code,
                attends_to,
                str(values["model"]),
                str(values["digest"]),
                tuple(str(each) for each in values["demonstrations"]),
                energy if math.isfinite(energy) else 0.0,
            )
        except (KeyError, TypeError, ValueError) as error:
            reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
            raise InputError(f"{path}: damaged concept ({reason}); teach it again") from error


def is_concept(path: Path) -> bool:
    """Whether a file is a taught concept, whole or damaged."""
    try:
        return path.is_file() and f'"format": "{FORMAT}"' in path.read_text(encoding="utf-8")[:200]
    except (OSError, UnicodeDecodeError):
        return False


def load_concepts(path: Path | str, device: str = "cpu") -> ConceptModel:
    """The energy of concepts in a file, in the folder that holds it, or of `pretrained:NAME`.

    Raises:
        InputError: It is missing, damaged, or something else.
    """
    comes_along = str(path).startswith(PRETRAINED)
    place = pretrained_folder(str(path), CONCEPTS_FILE) if comes_along else Path(path)
    loaded: LoadedModel = load_model(place, CONCEPTS_KIND)
    energy = RelationEnergy(config_from_dict(RelationEnergyConfig, loaded.config, str(loaded.path)))
    try:
        energy.load_state_dict(loaded.state)
    except RuntimeError as error:
        first = str(error).strip().splitlines()[-1].strip()
        raise InputError(f"{loaded.path}: its weights do not fit its settings ({first}); train it again") from error
    energy = energy.to(device).eval().requires_grad_(False)
    extra = loaded.extra
    return ConceptModel(
        loaded.path,
        str(path) if comes_along else str(loaded.path.resolve()),
        energy,
        config_from_dict(InferenceConfig, extra.get("inference", {}), str(loaded.path)),
        tuple(extra.get("trained_on", ())),
        tuple(extra.get("held_out", ())),
        weights_digest(energy),
    )

"""A verb's OUTPUT: held by one writer, and never at the cost of what drivecast did not make."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from drivecast.scripts.command.verb import Verb
from drivecast.scripts.tracking.journal import FILE_NAME as JOURNAL
from drivecast.scripts.tracking.journal import begun_by, is_recorded
from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.storage.files import atomic_file, recover_directory
from drivecast.worldmodel.storage.lock import held_for_writing

MARK = ".drivecast.json"  # in a folder: which verb's output it is
STORE = "store"
LONGEST_NAME = 200  # bytes; names of locks and of what is not yet whole are longer
# fields that name what a verb reads
INPUTS = ("data", "input", "world_model", "model", "start_from", "driver", "episode", "demonstration")
LEFT_HALF = re.compile(r"\..+\.[0-9a-f]{8}\.part")  # by a killed `atomic_file`


@contextmanager
def claimed(verb: Verb, config: Any) -> Iterator[Any]:
    """Hold the output of a verb from before anything is read until its end; yields its config.

    A folder is taken when it is absent, empty, or the output of the same verb (of any verb that writes stores, for a
    store). Where OUTPUT is a symbolic link, the config names what it leads to, so that the link stays.

    Raises:
        InputError: OUTPUT holds anything else, is a file, overlaps an input, or another process writes there.
    """
    output = getattr(config, "output", None)
    if output is None:
        yield config
        return
    output = Path(output)
    if verb.name == "replay" and os.path.realpath(output) == os.path.realpath(config.episode):
        yield config  # pages beside their episodes, in another verb's folder: looked at one by one
        return
    with _told_in_a_line(output):
        if len(os.fsencode(output.name)) > LONGEST_NAME:
            raise InputError(
                f"output: '{output.name[:40]}...' is too long a name; give one of {LONGEST_NAME} bytes at most"
            )
        if output.is_symlink():
            config = dataclasses.replace(config, output=Path(os.path.realpath(output)))
        output = config.output
        as_file = not verb.output_is_folder and output.suffix != ""
        _refuse_files(output.parent if as_file else output)
        if verb.output_is_folder or as_file:
            _refuse_overlap(output, config)
        if verb.kind == STORE and Path(os.path.realpath(output)) in (Path.cwd(), *Path.cwd().parents):
            raise InputError(f"output: '{output}' is or holds the folder you are in; give a new folder for the store")
    with held_for_writing(output, f"`drivecast {verb.name}`"):
        with _told_in_a_line(output):
            recover_directory(output)
        if as_file:
            yield config
        elif verb.kind == STORE:
            from drivecast.worldmodel.recordings.store_writer import check_replaceable

            with _told_in_a_line(output):
                check_replaceable(output)
            yield config
        else:
            with _marked(output, verb):
                yield config


@contextmanager
def _told_in_a_line(output: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"output: '{str(output)[:80]}': {error.strerror or error}; give another one") from error


@contextmanager
def _marked(folder: Path, verb: Verb) -> Iterator[None]:
    """The folder exists and says whose it is; where it is new and nothing came of it, it goes again."""
    with _told_in_a_line(folder):
        check_kind(folder, verb)
        new = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / MARK).exists():
            with atomic_file(folder / MARK) as temporary:
                temporary.write_text(json.dumps({"kind": verb.kind}) + "\n", encoding="utf-8")
        for file in folder.rglob(".*.part"):
            if LEFT_HALF.fullmatch(file.name) and file.is_file():
                file.unlink(missing_ok=True)
    try:
        yield
    except BaseException:
        left = {entry.name for entry in folder.iterdir()}
        if new and left <= {MARK, JOURNAL} and (JOURNAL not in left or is_recorded(folder)):
            for name in left:
                (folder / name).unlink()
            folder.rmdir()
        raise


def check_kind(folder: Path, verb: Verb) -> None:
    """Refuse a folder that is neither empty nor an output of this verb.

    Raises:
        InputError: one line that names what is there.
    """
    if not folder.exists():
        return
    found = {entry.name for entry in folder.iterdir()}
    if begun_by(folder):
        found -= {JOURNAL}
    kind = _kind(folder, verb)
    if kind == verb.kind or (kind is None and not found):
        return
    if kind is not None:
        raise InputError(f"{folder}: is the output of `drivecast {kind}`; give {verb.name} a folder of its own")
    raise InputError(
        f"{folder}: holds '{min(found)}' and is no output of {verb.name}, so it is left as it is; give a new folder"
    )


def _kind(folder: Path, verb: Verb) -> str | None:
    """Whose output a folder is, by its mark; by its journal, if it was written before there were marks."""
    try:
        return str(json.loads((folder / MARK).read_text(encoding="utf-8"))["kind"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    if verb.name == "demo" and (folder / "stages.json").is_file():
        return verb.kind
    if verb.name == "replay":
        from drivecast.envs.replay.authorship import is_ours

        return verb.kind if is_ours(folder / "index.html") else None
    return verb.kind if verb.name in begun_by(folder) else None


def _refuse_files(folder: Path) -> None:
    """A file in the place of the folder, or of a folder above it."""
    for place in (folder, *folder.parents):
        if place.exists():
            if not place.is_dir():
                raise InputError(f"output: '{place}' is a file, and a folder is needed there; give another one")
            return


def _refuse_overlap(folder: Path, config: Any) -> None:
    output = Path(os.path.realpath(folder))
    for given in input_paths(config):
        source = Path(os.path.realpath(given))
        if not source.exists():
            continue  # told by whoever reads it
        if output == source or output in source.parents:
            raise InputError(f"output: '{folder}' is or holds '{given}', which is read; give another folder")
        if source in output.parents:
            raise InputError(f"output: '{folder}' lies in '{given}', which is read; give a folder outside it")


def input_paths(config: Any) -> Iterator[Path]:
    """Files and folders that a config names as what is read."""
    for name in INPUTS:
        value = getattr(config, name, None)
        for item in value if isinstance(value, list | tuple) else [value]:
            text = "" if item is None else str(item)
            text = text.partition("@")[0] if name == "demonstration" else text  # EPISODE@FROM-TO
            # policy:PATH, LABEL=policy:PATH, rss:policy:PATH: what follows any colon
            parts = text.split(":")[1:] if name == "driver" else [text]
            paths = [":".join(parts[number:]) for number in range(len(parts))]
            yield from (Path(path) for path in paths if path)


def refuse_foreign_file(path: Path, is_ours: bool) -> None:
    """Refuse to replace a file that drivecast did not make.

    Raises:
        InputError: one line that names it.
    """
    if path.is_dir():
        raise InputError(f"{path}: is a folder, and a file is to be written there; give another name")
    if path.exists() and not is_ours:
        raise InputError(f"{path}: exists and was not made by drivecast; remove it, or give another name")

"""What is written is whole, or not there; and one writes at a time."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.storage import files
from drivecast.worldmodel.storage.files import atomic_directory, exchange, recover_directory
from drivecast.worldmodel.storage.lock import held_for_writing

REPOSITORY = Path(__file__).resolve().parents[3]


def folder_with(path: Path, text: str) -> Path:
    path.mkdir(parents=True)
    (path / "content").write_text(text)
    return path


def test_two_folders_change_places_in_one_step(tmp_path):
    one, other = folder_with(tmp_path / "one", "1"), folder_with(tmp_path / "other", "2")
    if not exchange(one, other):
        pytest.skip("this file system cannot exchange")
    assert [(one / "content").read_text(), (other / "content").read_text()] == ["2", "1"]
    assert not exchange(one, tmp_path / "nowhere")


@pytest.mark.parametrize("system_can", [True, False])
def test_a_folder_is_replaced_whole_and_keeps_the_file_that_is_carried_over(tmp_path, monkeypatch, system_can):
    if not system_can:
        monkeypatch.setattr(files, "exchange", lambda *_: False)
    store = folder_with(tmp_path / "store", "old")
    (store / "journal").write_text("line\n")
    inode = (store / "journal").stat().st_ino
    with atomic_directory(store, ("journal",)) as temporary:
        (temporary / "content").write_text("new")
        assert (store / "content").read_text() == "old"
    assert (store / "content").read_text() == "new"
    assert (store / "journal").stat().st_ino == inode  # whoever has it open goes on writing to it
    assert [entry.name for entry in tmp_path.iterdir()] == ["store"]


def test_a_refusal_at_the_last_moment_leaves_the_old_folder(tmp_path):
    store = folder_with(tmp_path / "store", "old")

    def check() -> None:
        raise InputError("somebody put something there meanwhile")

    with pytest.raises(InputError), atomic_directory(store, check=check) as temporary:
        (temporary / "content").write_text("new")
    assert (store / "content").read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["store"]


KILLED_BETWEEN = """
import os, sys
from pathlib import Path
from drivecast.worldmodel.storage import files
files.exchange = lambda *_: False
renames = []
replace = os.replace
def once(source, target):
    if renames:
        os.kill(os.getpid(), 9)
    renames.append(replace(source, target))
os.replace = once
with files.atomic_directory(Path("store")) as temporary:
    (temporary / "content").write_text("new")
"""


def test_a_folder_whose_writer_was_killed_between_two_renames_gets_its_name_back(tmp_path):
    folder_with(tmp_path / "store", "old")
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "src")}
    done = subprocess.run([sys.executable, "-c", KILLED_BETWEEN], cwd=tmp_path, env=environment, check=False)
    assert done.returncode == -9
    assert not (tmp_path / "store").exists()
    recover_directory(tmp_path / "store")
    assert (tmp_path / "store" / "content").read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["store"]


def test_recovery_touches_nothing_else(tmp_path):
    for name in ("store", ".store.notes.part", ".store2.0123abcd.part", ".store.0123abcd.part"):
        folder_with(tmp_path / name, name)
    recover_directory(tmp_path / "store")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [".store.notes.part", ".store2.0123abcd.part", "store"]


HOLD = """
from pathlib import Path
from drivecast.worldmodel.storage.lock import held_for_writing
with held_for_writing(Path("out"), "a test"):
    print("held", flush=True)
    input()
"""


def test_a_folder_has_one_writer_and_the_second_is_told_who_it_is(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "src")}
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD],
        cwd=tmp_path,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(InputError, match=rf"a test \(process {holder.pid} on .* is writing there"), held_for_writing(tmp_path / "out", "us"):  # fmt: skip  # noqa: E501
        pass
    holder.kill()
    holder.wait()
    with held_for_writing(tmp_path / "out", "us"), held_for_writing(tmp_path / "out", "us again"):
        assert not (tmp_path / "out").exists()
    assert list(tmp_path.iterdir()) == []


def test_what_goes_wrong_while_it_is_held_is_told_as_what_it_is(tmp_path):
    with pytest.raises(OSError, match="disk"), held_for_writing(tmp_path / "out", "us"):
        raise OSError("disk")

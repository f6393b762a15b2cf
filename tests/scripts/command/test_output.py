"""What a user has at OUTPUT is never lost: the command, and where two meet, processes."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
from command import drivecast, start, wait_for
from recorded_scenes import Track, straight_store
from traffic_scenes import platoon_store

from drivecast.worldmodel.recordings.store import WindowStore

RECORD = ("record", "--episodes", "1", "--duration-s", "1", "--vehicles", "3", "4", "--workers", "1")
OFF = ("--tracking.enabled", "false")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def refused(folder: Path, *arguments: str) -> str:
    """The one line with which the command refused, having changed nothing."""
    before = contents(folder)
    status, told = drivecast(folder, *arguments)
    assert status == 2, told
    assert (told.count("\n"), told[:11]) == (1, "drivecast: "), told
    assert contents(folder) == before
    return told


@pytest.fixture
def keep(tmp_path) -> Path:
    (tmp_path / "keep").mkdir()
    (tmp_path / "keep" / "thesis.txt").write_text("years of work")
    return tmp_path


def test_a_folder_with_anything_else_in_it_is_not_replaced(keep):
    assert "'thesis.txt'" in refused(keep, *RECORD, "--output", "keep", *OFF)


@pytest.mark.parametrize(
    "verb",
    [
        ("train-world-model", "--data", "nowhere"),
        ("train-policy", "--data", "nowhere", "--world-model", "nowhere"),
        ("evaluate", "--driver", "idm", "--environment", "highway-v0", "--episodes", "1"),
        ("benchmark",),
        ("forecast", "--model", "nowhere", "--data", "nowhere"),
        ("surprise", "nowhere", "--model", "nowhere"),
        ("demo",),
        ("measure-simulator",),
    ],
    ids=lambda verb: verb[0],
)
def test_no_verb_writes_among_files_of_the_users(keep, verb):
    off = () if verb[0] == "demo" else OFF
    assert "'thesis.txt'" in refused(keep, *verb, "--output", "keep", *off)


def test_a_file_in_the_place_of_the_output_stays(keep):
    assert "is a file" in refused(keep, *RECORD, "--output", "keep/thesis.txt", *OFF)
    assert "is a file" in refused(keep, *RECORD, "--output", "keep/thesis.txt/deeper", *OFF)


def test_the_folder_one_is_in_is_no_output(keep):
    for output in (".", "", "..", str(keep / "keep")):
        told = refused(keep / "keep", *RECORD, "--output", output, *OFF)
        assert "the folder you are in" in told


def test_an_output_that_holds_or_is_the_input_is_refused(tmp_path):
    straight_store(tmp_path / "data" / "raw", [Track(0.0, 10.0)], frames=100)
    ingest = ("ingest", "--input", "data/raw", *OFF)
    assert "is or holds 'data/raw', which is read" in refused(tmp_path, *ingest, "--output", "data")
    assert "is or holds 'data/raw'" in refused(tmp_path, *ingest, "--output", "data/raw")
    assert "lies in 'data/raw'" in refused(tmp_path, *ingest, "--output", "data/raw/store")
    (tmp_path / "link").symlink_to("data/raw")
    assert "is or holds 'data/raw'" in refused(tmp_path, *ingest, "--output", "link")
    train = ("train-world-model", "--data", "data/raw", "--output", "data/raw", *OFF)
    assert "is or holds 'data/raw'" in refused(tmp_path, *train)
    drive = ("evaluate", "--driver", "policy:data/raw", "--environment", "highway-v0", "--output", "data/raw", *OFF)
    assert "is or holds 'data/raw'" in refused(tmp_path, *drive)


def test_a_store_is_replaced_through_a_link_which_stays_and_keeps_the_journal_of_the_run_before(tmp_path):
    (tmp_path / "big-disk").mkdir()
    (tmp_path / "store").symlink_to("big-disk")
    fingerprints = []
    for seed in ("0", "1"):
        assert drivecast(tmp_path, *RECORD, "--seed", seed, "--output", "store", *OFF) == (0, "")
        fingerprints.append(WindowStore.open(tmp_path / "store").fingerprint)
    assert (tmp_path / "store").is_symlink()
    assert fingerprints[0] != fingerprints[1]
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["big-disk", "store"]
    begins = [line for line in (tmp_path / "store/metrics.jsonl").read_text().splitlines() if '"begin"' in line]
    assert len(begins) == 2
    (tmp_path / "store" / "notes.txt").write_text("seed 1 is the good one")
    assert "'notes.txt'" in refused(tmp_path, *RECORD, "--output", "store", *OFF)


def test_outputs_of_two_verbs_do_not_mix(tmp_path):
    straight_store(tmp_path / "data", [Track(0.0, 10.0), Track(30.0, 10.0)], frames=100)
    drive = ("evaluate", "--driver", "idle", "--environment", "recorded", "--data", "data", "--output", "out", *OFF)
    assert drivecast(tmp_path, *drive)[0] == 0
    assert "is the output of `drivecast evaluate`" in refused(tmp_path, "benchmark", "--output", "out", *OFF)
    assert "'.drivecast.json'" in refused(tmp_path, *RECORD, "--output", "out", *OFF)
    assert drivecast(tmp_path, *drive)[0] == 0


def test_an_output_that_was_written_before_there_were_marks_is_known_by_its_journal(tmp_path):
    straight_store(tmp_path / "data", [Track(0.0, 10.0), Track(30.0, 10.0)], frames=100)
    drive = ("evaluate", "--driver", "idle", "--environment", "recorded", "--data", "data", "--output", "out", *OFF)
    assert drivecast(tmp_path, *drive)[0] == 0
    (tmp_path / "out" / ".drivecast.json").unlink()
    assert drivecast(tmp_path, *drive)[0] == 0
    (tmp_path / "out" / "metrics.jsonl").unlink()
    (tmp_path / "out" / ".drivecast.json").unlink()
    assert "is no output of evaluate" in refused(tmp_path, *drive)


def test_a_command_that_could_not_begin_leaves_no_folder(tmp_path):
    assert "found nothing" in refused(
        tmp_path, "train-policy", "--world-model", "x", "--data", "y", "--output", "o", *OFF
    )
    assert not (tmp_path / "o").exists()


def test_a_replay_is_not_written_over_what_drivecast_did_not_make(tmp_path):
    straight_store(tmp_path / "data", [Track(0.0, 10.0), Track(30.0, 10.0)], frames=60)
    drive = ("evaluate", "--driver", "idle", "--environment", "recorded", "--data", "data", "--output", "out", *OFF)
    assert drivecast(tmp_path, *drive)[0] == 0
    episode = str(next((tmp_path / "out/episodes").glob("*.parquet")).relative_to(tmp_path))
    film = ("--film.width-px", "320", "--film.frames-per-second", "2")
    for name in ("page.html", "film.mp4", "film.gif"):
        (tmp_path / name).write_text("mine")
        assert "was not made by drivecast" in refused(tmp_path, "replay", episode, "-o", name, *film, *OFF)
        (tmp_path / name).unlink()
        for _ in range(2):  # its own it writes again
            assert drivecast(tmp_path, "replay", episode, "-o", name, *film, *OFF) == (0, "")
    (tmp_path / "site").mkdir()
    (tmp_path / "site/index.html").write_text("my homepage")
    assert "'index.html' and is no output of replay" in refused(tmp_path, "replay", "out/episodes", "-o", "site", *OFF)
    (tmp_path / "out/episodes/index.html").write_text("my homepage")
    assert "index.html: exists and was not made" in refused(tmp_path, "replay", "out/episodes", *OFF)
    for _ in range(2):
        assert drivecast(tmp_path, "replay", "out/episodes", "-o", "pages", *OFF) == (0, "")


def test_names_from_a_table_never_lead_out_of_the_scratch_folder(tmp_path):
    header = "Vehicle_ID,Frame_ID,Global_Time,Local_X,Local_Y,v_Length,v_Width,v_Class,v_Vel,Lane_ID,Location"
    rows = [
        f"{car},{frame},{1_000_000 + 100 * frame},{10 + 12 * (car % 2)},{40 * car + 5 * frame},15,6,2,50,{1 + car % 2},"
        + site
        for site in ("../../evil", "us-101")
        for car in range(1, 5)
        for frame in range(300)
    ]
    (tmp_path / "work").mkdir()
    (tmp_path / "work/portal.csv").write_text("\n".join([header, *rows]) + "\n")
    ingest = ("ingest", "--format", "ngsim-portal", "--input", "portal.csv", "--output", "a/store", *OFF)
    status, told = drivecast(tmp_path / "work", *ingest, "--locations", "../../evil", "us-101")
    assert status == 0, told
    assert [entry.name for entry in tmp_path.iterdir()] == ["work"]
    assert sorted(entry.name for entry in (tmp_path / "work").iterdir()) == ["a", "portal.csv"]
    for name in WindowStore.open(tmp_path / "work/a/store").recordings:
        assert "/" not in name
        assert not name.startswith(".")


@pytest.fixture
def training(tmp_path):
    """A training that goes on for long, and the folder it began in."""
    platoon_store(tmp_path / "data")
    small = ("--model.hidden", "8", "--training.batch", "2", "--training.max-agents", "4", "--training.steps", "100000")
    small += ("--training.history-steps", "4", "--training.horizon-steps", "4", "--training.validation-windows", "2")
    command = ("train-world-model", "--data", "data", "--output", "model", *small, "--training.checkpoint-every", "5")
    process = start(tmp_path, *command, *OFF)
    yield tmp_path, command, process
    process.kill()
    process.communicate()


def test_the_second_writer_in_an_output_is_told_who_is_the_first(training):
    folder, command, process = training
    wait_for(lambda: (folder / "model/training-state.pt").exists(), "a checkpoint")
    status, told = drivecast(folder, *command, *OFF)
    assert status == 2
    assert f"`drivecast train-world-model` (process {process.pid} on " in told
    assert told.count("\n") == 1
    status, told = drivecast(folder, "sync-metrics", "model")
    assert (status, "is writing there" in told) == (2, True)
    # who is killed holds nothing any more, and what it began is gone on with
    process.send_signal(signal.SIGKILL)
    process.wait(10)
    again = start(folder, *command, *OFF)
    wait_for(lambda: "resumed at step" in again.stdout.readline(), "the training to go on")
    again.send_signal(signal.SIGHUP)  # as SIGTERM
    assert again.wait(60) == 143
    ends = [json.loads(line) for line in (folder / "model/metrics.jsonl").read_text().splitlines() if '"end"' in line]
    assert [end["end"] for end in ends] == ["KILLED"]
    assert not [entry.name for entry in folder.iterdir() if entry.name.endswith(".lock")]


def test_what_a_search_or_a_replay_writes_is_looked_at_like_any_other_output(tmp_path):
    straight_store(tmp_path / "data", [Track(0.0, 10.0), Track(30.0, 10.0)], frames=60)
    drive = ("evaluate", "--driver", "idle", "--environment", "recorded", "--data", "data", "--output", "out", *OFF)
    assert drivecast(tmp_path, *drive)[0] == 0
    tune = ("tune-idm", "--data", "data", *OFF)
    assert "lies in 'data'" in refused(tmp_path, *tune, "--output", "data/x.yaml")
    (tmp_path / "file").write_text("mine")
    assert "is a file" in refused(tmp_path, *tune, "--output", "file/x.yaml")
    assert "is no output of replay" in refused(tmp_path, "replay", "out/episodes", "-o", "data", *OFF)
    assert "is a file" in refused(tmp_path, "replay", "out/episodes", "-o", "file/pages", *OFF)
    (tmp_path / "notes.html").write_text("<html>how to: drivecast replay runs/x</html>")
    episode = str(next((tmp_path / "out/episodes").glob("*.parquet")).relative_to(tmp_path))
    assert "was not made by drivecast" in refused(tmp_path, "replay", episode, "-o", "notes.html", *OFF)
    (tmp_path / "link.html").symlink_to("page.html")
    assert drivecast(tmp_path, "replay", episode, "-o", "link.html", *OFF) == (0, "")
    assert (tmp_path / "link.html").is_symlink()
    assert (tmp_path / "page.html").is_file()


def test_a_file_that_somebody_put_beside_kept_episodes_stays(tmp_path):
    straight_store(tmp_path / "data", [Track(0.0, 10.0), Track(30.0, 10.0)], frames=60)
    drive = ("evaluate", "--driver", "idle", "--environment", "recorded", "--data", "data", "--output", "out", *OFF)
    assert drivecast(tmp_path, *drive)[0] == 0
    (tmp_path / "out/episodes/mine.parquet").write_text("mine")
    assert drivecast(tmp_path, *drive, "--episodes", "1")[0] == 0
    assert (tmp_path / "out/episodes/mine.parquet").read_text() == "mine"
    assert len(list((tmp_path / "out/episodes").glob("*.parquet"))) == 2


@pytest.mark.parametrize("name", ["n" * 300, "n" * 245, "/proc/nowhere/x"])
def test_places_where_nothing_can_be_written_are_told_before_anything_is_done(tmp_path, name):
    refused(tmp_path, *RECORD, "--output", name, *OFF)
    refused(tmp_path, "tune-idm", "--suite", "highway", "--output", f"{name}.yaml", *OFF)


def test_a_rank_in_the_environment_opens_no_door(keep, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    drive = ("evaluate", "--driver", "idm", "--environment", "highway-v0", "--episodes", "1", "--output", "keep", *OFF)
    assert "'thesis.txt'" in refused(keep, *drive)


def test_files_named_like_ours_are_not_taken_for_ours(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/metrics.jsonl").write_text('{"loss": 1.0}\n')
    assert "'metrics.jsonl'" in refused(tmp_path, *RECORD, "--output", "mine", *OFF)
    drive = ("evaluate", "--driver", "idm", "--environment", "highway-v0", "--episodes", "1", "--output", "mine", *OFF)
    assert "'metrics.jsonl'" in refused(tmp_path, *drive)
    (tmp_path / ".new.lock").write_text("mine")
    assert "is in the place of a lock" in refused(tmp_path, *RECORD, "--output", "new", *OFF)


def test_a_verb_that_processes_can_t_share_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "start it without torchrun (it is for train-world-model, train-policy)" in refused(
        tmp_path, *RECORD, "--output", "new", *OFF
    )

"""`drivecast train-concepts` and `drivecast teach`: what they leave, and what they refuse."""

from __future__ import annotations

import json

import pytest
import torch
from example_episodes import highway_episode
from traffic_scenes import platoon_store

from drivecast.envs.evaluation.closed_loop import ClosedLoopConfig
from drivecast.envs.replay.episode import Episode
from drivecast.planner.planning.driver import PlannerConfig
from drivecast.planner.planning.refinement import RefinementConfig
from drivecast.planner.planning.search import SearchConfig
from drivecast.scripts.tracking.run import ConsoleRun
from drivecast.scripts.verbs import evaluate, teach, train_concepts
from drivecast.scripts.verbs.evaluate import EvaluateConfig
from drivecast.scripts.verbs.teach import TeachConfig
from drivecast.scripts.verbs.train_concepts import TrainConceptsConfig
from drivecast.worldmodel.concepts.loading import CONCEPTS_FILE, TaughtConcept, load_concepts
from drivecast.worldmodel.concepts.relation_energy import RelationEnergyConfig
from drivecast.worldmodel.concepts.trainer import ConceptTrainingConfig
from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.forecaster.model import MODEL_KIND, WorldModel, WorldModelConfig
from drivecast.worldmodel.storage.checkpoint import save_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A briefly trained energy of concepts, and an episode."""
    folder = tmp_path_factory.mktemp("teach")
    platoon_store(folder / "store")
    highway_episode(steps=60).write(folder / "episode.parquet")
    training = ConceptTrainingConfig(steps=2, batch=4, shots=1, stretches=200, validation_tasks=4, validate_every=2)
    model = RelationEnergyConfig(code_dims=4, hidden=12, relation_dims=6, outputs=4)
    config = TrainConceptsConfig([folder / "store"], folder / "concepts", model=model, training=training)
    train_concepts.run(config, ConsoleRun())
    return folder


def config_of(folder, *demonstrations: str, concepts: str = "", output: str = "taught.json", name: str = ""):
    shown = [text.replace("EPISODE", str(folder / "episode.parquet")) for text in demonstrations]
    return TeachConfig(shown, folder / output, concepts or str(folder / "concepts"), name=name)


def test_training_leaves_a_model_and_its_curves(folder):
    assert {CONCEPTS_FILE, "training-curves.png"} <= {file.name for file in (folder / "concepts").iterdir()}
    loaded = load_concepts(folder / "concepts")
    assert "follow-1.6" in loaded.held_out
    assert loaded.trained_on


def test_teaching_says_whom_each_demonstration_is_about(folder, capsys):
    teach.run(config_of(folder, "EPISODE@1-4:1", "EPISODE@2-5"), ConsoleRun())
    told = capsys.readouterr()
    assert "concept 'taught'" in told.out + told.err
    concept = TaughtConcept.read(folder / "taught.json")
    assert concept.attends_to == 1
    assert concept.digest == load_concepts(folder / "concepts").digest
    assert len(concept.demonstrations) == 2


def test_two_vehicles_make_a_concept_about_two(folder):
    teach.run(config_of(folder, "EPISODE@1-4:1+2", output="two.json"), ConsoleRun())
    assert TaughtConcept.read(folder / "two.json").attends_to == 2


def test_what_is_not_a_concept_is_not_written_over(folder):
    (folder / "notes.json").write_text("{}")
    (folder / "place.json").mkdir()
    for output, says in (("notes.json", "not made by drivecast"), ("place.json", "is a folder"), ("x", "NAME.json")):
        with pytest.raises(InputError, match=says):
            teach.run(config_of(folder, "EPISODE@1-4:1", output=output), ConsoleRun())
    assert (folder / "notes.json").read_text() == "{}"


def test_the_same_demonstrations_teach_the_same(folder):
    for name in ("a.json", "b.json"):
        teach.run(config_of(folder, "EPISODE@1-4:1", output=name, name="same"), ConsoleRun())
    one, two = (json.loads((folder / name).read_text()) for name in ("a.json", "b.json"))
    assert one == two


def test_the_concepts_that_come_along_teach_in_seconds(folder):
    teach.run(config_of(folder, "EPISODE@1-4:1", concepts="pretrained:concepts", output="p.json"), ConsoleRun())
    concept = TaughtConcept.read(folder / "p.json")
    assert concept.model == "pretrained:concepts"
    assert bool(torch.isfinite(concept.code).all())


@pytest.mark.parametrize(
    ("demonstration", "says"),
    [
        ("EPISODE", "expected EPISODE@FROM-TO"),
        ("EPISODE@4-1", "end after it begins"),
        ("EPISODE@1..2-3", "expected seconds"),
        ("EPISODE@1-4:0", "other vehicles than the ego"),
        ("EPISODE@1-4:2+2", "each once"),
        ("EPISODE@1-4:99", "vehicle 99 is not there"),
        ("EPISODE@1-400", "ends after"),
        ("EPISODE@1-1.4", "1 to 6 s"),
        ("nothing.parquet@1-4", "no such file"),
    ],
)
def test_what_shows_nothing_is_refused_in_one_line_and_leaves_nothing(folder, demonstration, says):
    with pytest.raises(InputError, match=says) as refused:
        teach.run(config_of(folder, demonstration, output="refused.json"), ConsoleRun())
    assert "\n" not in str(refused.value)
    assert not (folder / "refused.json").exists()


def test_a_world_model_teaches_no_concepts(folder):
    with pytest.raises(InputError, match="pretrained:concepts"):
        teach.run(config_of(folder, "EPISODE@1-4:1", concepts="pretrained:highway"), ConsoleRun())


def test_demonstrations_of_different_numbers_of_vehicles_are_refused(folder):
    with pytest.raises(InputError, match="as many vehicles"):
        teach.run(config_of(folder, "EPISODE@1-4:1", "EPISODE@1-4:1+2"), ConsoleRun())


def test_a_planner_drives_by_what_was_taught_and_the_episode_says_by_whom(folder, tmp_path):
    torch.manual_seed(0)
    world = WorldModelConfig(hidden=8, latent_dims=2)
    save_model(tmp_path / "model" / "world-model.safetensors", WorldModel(world), MODEL_KIND, world)
    teach.run(config_of(folder, "EPISODE@1-4:1"), ConsoleRun())
    config = EvaluateConfig(
        tmp_path / "out",
        driver=[f"planner:{tmp_path / 'model'}", "idle"],
        data=[folder / "store"],
        episodes=1,
        workers=1,
        loop=ClosedLoopConfig(keep="all"),
        planner=PlannerConfig(
            decide_every_s=2.0,
            max_agents=4,
            search=SearchConfig(horizon_s=1.5, beam=2, slower_mps=(0.0,)),
            refinement=RefinementConfig(iterations=0),
        ),
        concept=[f"{folder / 'taught.json'}=0.5"],
    )
    evaluate.run(config, ConsoleRun())
    by_concept, idle = json.loads((tmp_path / "out" / "results.json").read_text())
    assert by_concept["concepts"] == config.concept
    assert "concepts" not in idle
    (file,) = (tmp_path / "out" / "episodes").glob("*planner*.parquet")
    imagined = [each for _, each in sorted(Episode.read(file).imaginations.items())]
    assert int(imagined[-1].attended.sum()) == 1
    assert "concept taught" in imagined[-1].cost


def test_only_planners_drive_by_concepts(tmp_path):
    with pytest.raises(InputError, match="only planners"):
        EvaluateConfig(tmp_path, driver=["idm"], environment=["highway-v0"], concept=["follow.json"])

"""Exported graphs give what the models give, in scenes of other sizes than they were made from."""

import importlib.util
import io

import pytest
import torch

from drivecast.planner.policy.driver import load_driver
from drivecast.planner.policy.graph import PolicyGraph
from drivecast.planner.policy.network import Policy, PolicyConfig
from drivecast.planner.policy.training import POLICY_KIND
from drivecast.scripts.tracking.console import Console
from drivecast.scripts.tracking.run import ConsoleRun
from drivecast.scripts.verbs import export
from drivecast.scripts.verbs.export import TOLERANCE, ExportConfig, difference, run
from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.forecaster.graph import ObserveGraph, StepGraph
from drivecast.worldmodel.forecaster.loading import FOLDER, load_world_model
from drivecast.worldmodel.storage.checkpoint import save_model

needs_onnx = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in export.PACKAGES), reason="needs the extra 'export'"
)


@pytest.fixture(scope="module")
def shipped(tmp_path_factory):
    """The graph of a policy that comes along and has learned to choose lanes; to make it takes a while."""
    file = tmp_path_factory.mktemp("policy") / "new" / "policy.onnx"
    console = Console(io.StringIO())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "OPTIMISED", False)
        run(ExportConfig(str(FOLDER / "highway"), file), ConsoleRun(console))
    assert "policy.onnx" in console.stream.getvalue()
    return file


@needs_onnx
def test_a_policy_s_graph_steers_as_it_does_and_a_changed_policy_is_told_apart(shipped):
    assert export._is_ours(shipped)
    policy = load_driver(FOLDER / "highway", lane_choice=False).policy
    inputs = export._policy_inputs(5, 33, PolicyGraph(policy).inputs)
    assert difference(PolicyGraph(policy), shipped, inputs) < TOLERANCE
    to_the_left = {**inputs, "goal_lane": torch.zeros_like(inputs["goal_lane"])}
    assert difference(PolicyGraph(policy), shipped, to_the_left) < TOLERANCE
    with torch.no_grad():
        policy.net[0].weight[0] += 0.01
    assert difference(PolicyGraph(policy), shipped, inputs) > TOLERANCE


@needs_onnx
def test_a_graph_chooses_lanes_as_a_policy_does_that_has_learned_to(shipped):
    driver = load_driver(FOLDER / "highway")
    graph = PolicyGraph(driver.policy)
    assert (graph.inputs[-1], graph.outputs[-1]) == ("bound_lane", "lane")
    inputs = export._policy_inputs(24, 33, graph.inputs)
    assert difference(graph, shipped, inputs) < TOLERANCE
    lanes = graph(*inputs.values())[-1]
    assert len(set((lanes - inputs["bound_lane"]).tolist())) > 1, "some change lane"
    named = {**inputs, "goal_lane": torch.full_like(inputs["goal_lane"], 2)}
    assert graph(*named.values())[-1].tolist() == [2] * 24
    history, road, goal = export._scenes(24, 33)
    driver.reset(history[:, -1], road, goal)
    controls = driver.act(history, road, goal)
    torch.testing.assert_close(graph(*inputs.values())[0], controls.acceleration_mps2)
    assert driver.chosen_lane.tolist() == lanes.tolist()


@needs_onnx
def test_a_world_model_s_graphs_go_on_from_a_history_as_it_does(tmp_path, monkeypatch):
    monkeypatch.setattr(export, "OPTIMISED", False)
    monkeypatch.setattr(export, "HISTORY_STEPS", 5)  # a graph holds its steps one by one: of 20 it takes minutes
    file = tmp_path / "step.onnx"
    run(ExportConfig("pretrained:us101", file), ConsoleRun())
    model = load_world_model("pretrained:us101")
    inputs = export._step_inputs(model, 4, 25)
    assert difference(StepGraph(model), file, inputs) < TOLERANCE
    other = {**inputs, "latent": 2 * inputs["latent"]}
    assert (StepGraph(model)(*other.values())[0] - StepGraph(model)(*inputs.values())[0]).abs().max() > 1e-3
    observed = export._observe_inputs(4, 25)
    assert difference(ObserveGraph(model), tmp_path / "step-observe.onnx", observed) < TOLERANCE
    # the graph of a step is that of the model's own steps, with an ego that is known or is not
    memory = model.observe(*export._scenes(4, 25)[:2])
    for name in ("embedded", "hidden", "bounds"):
        torch.testing.assert_close(inputs[name], getattr(memory, name))


@needs_onnx
def test_a_graph_that_differs_from_its_model_takes_nobody_s_place(tmp_path, monkeypatch):
    config, file = PolicyConfig(hidden=8), tmp_path / "graph" / "policy.onnx"
    save_model(tmp_path / "policy.safetensors", Policy(config), POLICY_KIND, config, {"energy": {}})
    file.parent.mkdir()
    file.write_bytes(b"drivecast export, of before")
    monkeypatch.setattr(export, "TOLERANCE", -1.0)
    with pytest.raises(RuntimeError, match="would differ from the model by"):
        run(ExportConfig(str(tmp_path), file), ConsoleRun())
    assert file.read_bytes() == b"drivecast export, of before"
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize("name", ["model.onnx", "model-observe.onnx"])
def test_nobody_else_s_file_is_written_over(tmp_path, monkeypatch, name):
    monkeypatch.setattr(export, "PACKAGES", ())
    (tmp_path / name).write_text("mine")
    with pytest.raises(InputError, match=f"{name}: exists and was not made by drivecast"):
        run(ExportConfig("pretrained:us101", tmp_path / "model.onnx"), ConsoleRun())
    assert (tmp_path / name).read_text() == "mine"
    (tmp_path / name).unlink()
    (tmp_path / name).mkdir()
    with pytest.raises(InputError, match=f"{name}: is a folder"):
        run(ExportConfig("pretrained:us101", tmp_path / "model.onnx"), ConsoleRun())


def test_what_cannot_be_exported_is_refused_in_one_line(tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"expected a file \*.onnx"):
        ExportConfig("pretrained:us101", tmp_path / "model.pt")
    with pytest.raises(InputError, match="found nothing"):
        run(ExportConfig(str(tmp_path / "nowhere"), tmp_path / "model.onnx"), ConsoleRun())
    monkeypatch.setattr(export.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"onnx, onnxscript, onnxruntime; pip install 'drivecast\[export\]'"):
        run(ExportConfig("pretrained:us101", tmp_path / "model.onnx"), ConsoleRun())

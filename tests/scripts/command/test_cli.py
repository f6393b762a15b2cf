"""The command line: what it accepts, what it refuses, and how it ends."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import types
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
import yaml

from drivecast.scripts.command import cli
from drivecast.scripts.command.parsing import config_file, option_types, parse
from drivecast.scripts.command.verb import VERBS, Verb
from drivecast.scripts.driving.driver_kinds import DRIVER_KINDS, PLACE
from drivecast.worldmodel.errors import InputError

CONFIGS = Path(__file__).resolve().parents[3] / "configs"


@dataclass(frozen=True)
class Training:
    """How it is trained.

    Args:
        steps: Optimisation steps.
        learning_rate: Step size of Adam.
        horizons: Rollout lengths, in steps.
    """

    steps: int = 10
    learning_rate: float = 1e-3
    horizons: tuple[int, ...] = (1, 2)

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise InputError(f"training.steps: expected at least 1, got {self.steps}")


@dataclass(frozen=True)
class BrewTeaConfig:
    """Brew tea.

    Twice.

    Args:
        world_model: Model file.
        output: Folder to write to.
        driver: Who drives.
        data: Recording stores.
        variant: What replaces a dropped latent.
        gap_m: Distance to keep, in metres.
        training: How it is trained.
    """

    world_model: Path
    output: Path = Path("out")
    driver: tuple[str, ...] = ("idm",)
    data: list[Path] = field(default_factory=list)
    variant: Literal["zero", "prior"] = "zero"
    gap_m: float = -2.0
    training: Training = field(default_factory=Training)


VERB = Verb("brew-tea", "Brew tea.", positional=("world_model",), short=(("-o", "output"),))


def config(*arguments: str) -> BrewTeaConfig:
    return parse(VERB, BrewTeaConfig, arguments).config


def refusal(*arguments: str) -> str:
    with pytest.raises(InputError) as refused:
        config(*arguments)
    message = str(refused.value)
    assert "\n" not in message
    return message


def test_options_reach_nested_values():
    built = config("--world-model", "m.safetensors", "--training.steps", "7", "--training.learning-rate=1e-4")
    assert built == BrewTeaConfig(Path("m.safetensors"), training=Training(steps=7, learning_rate=1e-4))


def test_dashes_and_underscores_are_the_same():
    assert config("--world-model", "m") == config("--world_model", "m")


@pytest.mark.parametrize(
    "arguments",
    [
        ("--driver", "idm", "--driver", "idle"),
        ("--driver", "idm", "idle"),
        ("--driver=idm", "--driver=idle"),
        ("--driver", "[idm, idle]"),
    ],
)
def test_repeated_options_make_a_list(arguments):
    assert config("--world-model", "m", *arguments).driver == ("idm", "idle")


def test_a_repeated_option_replaces_the_list_of_the_file(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("world_model: m\ndriver: [idle]\ndata: [a, b]\n")
    built = config("--config", str(file), "--driver", "idm")
    assert built.driver == ("idm",)
    assert built.data == [Path("a"), Path("b")]


def test_a_single_data_folder_is_not_opened_as_a_list_of_paths(tmp_path):
    (tmp_path / "store").write_text("other\n")
    assert config("--world-model", "m", "--data", str(tmp_path / "store")).data == [tmp_path / "store"]


def test_numbers_in_lists_are_numbers():
    assert config("--world-model", "m", "--training.horizons", "5", "6").training.horizons == (5, 6)


def test_positional_and_short_option():
    built = config("m.safetensors", "-o", "page.html")
    assert (built.world_model, built.output) == (Path("m.safetensors"), Path("page.html"))


def test_negative_numbers_are_values():
    assert config("m", "--gap-m", "-3.5").gap_m == -3.5


@pytest.mark.parametrize("option", ["--print-config", "--print_config"])
def test_the_configuration_is_printed_by_either_spelling(option, capsys):
    with pytest.raises(SystemExit) as ended:
        config("m", option)
    assert ended.value.code == 0
    assert "world_model: m" in capsys.readouterr().out


@pytest.mark.parametrize("given", ["record", "record.yaml", "configs/record.yaml"])
def test_a_preset_is_found_by_its_name_wherever_the_command_is_run(given, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Path(config_file(given)) == CONFIGS / "record.yaml"
    command = parse(VERBS["record"], VERBS["record"].load()[1], ["--config", given, "--output", "x"])
    assert command.config.episodes == 300


def test_a_file_in_the_working_directory_goes_before_a_preset(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "record.yaml").write_text("episodes: 7\n")
    (tmp_path / "record").mkdir()
    assert config_file("record.yaml") == "record.yaml"
    assert Path(config_file("record")) == CONFIGS / "record.yaml"  # a folder is no configuration
    assert config_file("data/record.yaml") == "data/record.yaml"
    assert config_file("recrod") == "recrod"
    config_class = VERBS["record"].load()[1]
    assert parse(VERBS["record"], config_class, ["--config=record.yaml", "--output", "x"]).config.episodes == 7


def test_help_names_the_presets_of_the_verb(capsys):
    with pytest.raises(SystemExit):
        parse(VERBS["train-policy"], VERBS["train-policy"].load()[1], ["--help"])
    text = "".join(capsys.readouterr().out.split())
    assert "train-policy-ngsim" in text
    assert "record" not in text.partition("values:")[0]


@pytest.mark.parametrize("verb", ["evaluate", "benchmark"])
def test_help_names_every_kind_of_driver(verb, capsys):
    with pytest.raises(SystemExit):
        parse(VERBS[verb], VERBS[verb].load()[1], ["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert PLACE not in text
    for kind in DRIVER_KINDS:
        assert kind.form in text
        assert kind.form in (CONFIGS.parent / "docs" / "evaluation.md").read_text()


@pytest.mark.parametrize(
    ("verb", "options"),
    [("evaluate", ["--environment", "highway-v0"]), ("benchmark", ["--suite", "highway"]), ("forecast", [])],
)
def test_a_misspelt_split_is_refused_also_where_there_is_no_store(verb, options):
    required = ["--model", "m", "--data", "d"] if verb == "forecast" else []
    arguments = ["--output", "x", "--split", "tset", *required, *options]
    with pytest.raises(InputError, match=r"split: expected .*train.*val.*test.*all.*, got 'tset'"):
        parse(VERBS[verb], VERBS[verb].load()[1], arguments)


def test_counts_of_vehicles_are_called_vehicles_by_every_verb():
    for verb in VERBS.values():
        for option in option_types(verb.load()[1]):
            assert not {"cars", "count"} & set(re.split(r"[._]", option)), f"{verb.name} --{option}"


def test_options_outrank_the_file(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("world_model: m\ntraining: {steps: 3, learning_rate: 0.5}\n")
    assert config("--config", str(file), "--training.steps", "4").training == Training(4, 0.5)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("m", "--nope", "3"), "nope: unknown key"),
        (("m", "--training.stepz", "3"), "training.stepz: unknown key; did you mean 'training.steps'?"),
        (("m", "--training.steps", "sixteen"), "training.steps: expected int, got 'sixteen'"),
        (("m", "--training.steps", "1.5"), "training.steps: expected int, got '1.5'"),
        (("m", "--variant", "none"), "variant: expected Literal['zero', 'prior'], got 'none'"),
        (("m", "--training.steps", "0"), "training.steps: expected at least 1, got 0"),
        (("m", "--training.horizons", "a"), "training.horizons: "),
        (("m", "--training.steps"), "training.steps: expected a value, got none"),
        (("m", "--train.steps", "1"), "train.steps: unknown key"),
        (("m", "n"), "n: unknown argument"),
        (("m", "--driver"), "driver: expected a value, got none"),
        ((), "missing: --world-model"),
        (("m", "--config", "nowhere.yaml"), "nowhere.yaml"),
        (("m", "--tracking.nope", "1"), "tracking.nope: unknown key"),
    ],
)
def test_wrong_options_are_refused_in_one_line(arguments, told):
    assert told in refusal(*arguments)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("nope: 1", "nope: unknown key"),
        ("training: {stepz: 1}", "training.stepz: unknown key"),
        ("training: {steps: many}", "training.steps: expected int, got 'many'"),
        ("training: 3", "training"),
        ("training: {steps: 0}", "training.steps: expected at least 1"),
        ("driver: {a: 1}", "driver"),
        ("a: [", "c.yaml"),
        ("- 1", "c.yaml"),
    ],
)
def test_wrong_files_are_refused_in_one_line_that_names_the_file(tmp_path, text, told):
    file = tmp_path / "c.yaml"
    file.write_text(text)
    message = refusal("m", "--config", str(file))
    assert told in message
    assert "c.yaml" in message or "expected at least" in message


def test_help_explains_each_value(capsys):
    with pytest.raises(SystemExit) as ended:
        config("--help")
    assert ended.value.code == 0
    text = capsys.readouterr().out
    for part in ("Brew tea. Twice.", "--world-model", "Distance to keep, in metres.", "--training.learning-rate"):
        assert part in text
    assert "<class" not in text
    assert "_" not in "".join(word for word in text.split() if word.startswith("--"))


def test_printed_configuration_can_be_given_back(tmp_path, capsys):
    with pytest.raises(SystemExit):
        config("m", "--training.steps", "4", "--driver", "a", "b", "--print-config")
    file = tmp_path / "c.yaml"
    file.write_text(capsys.readouterr().out)
    assert config("--config", str(file)) == config("m", "--training.steps", "4", "--driver", "a", "b")


@pytest.fixture
def brew(monkeypatch):
    """Registers the verb; returns what runs it with a function as its body."""

    def install(body):
        module = types.ModuleType(VERB.module_name)
        module.BrewTeaConfig, module.run = BrewTeaConfig, body  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, VERB.module_name, module)
        monkeypatch.setitem(VERBS, VERB.name, VERB)
        return lambda *arguments: cli.main(["brew-tea", "m", "--tracking.enabled", "false", *arguments])

    return install


def test_input_errors_are_one_line_and_status_2(brew, capsys):
    def body(config, run):
        raise InputError("tracks.parquet: column 'speed_mps' is missing")

    assert brew(body)() == 2
    assert capsys.readouterr().err == "drivecast: tracks.parquet: column 'speed_mps' is missing\n"


def test_interrupt_is_one_line_and_status_130(brew, capsys):
    def body(config, run):
        raise KeyboardInterrupt

    assert brew(body)() == 130
    assert capsys.readouterr().err == "drivecast: interrupted\n"


def test_sigterm_ends_the_run_in_order(brew, capsys):
    def body(config, run):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)

    assert brew(body)() == 143


def test_unexpected_errors_keep_their_traceback(brew):
    def body(config, run):
        raise ZeroDivisionError("a bug")

    with pytest.raises(ZeroDivisionError):
        brew(body)()


def test_a_verb_gets_its_config_and_run(brew, tmp_path):
    seen = []

    def body(config, run):
        seen.append(config)
        config.output.mkdir(exist_ok=True)
        run.log_metrics({"loss": 1.0}, step=3)

    assert brew(body)("-o", str(tmp_path / "o"), "--training.steps", "2") == 0
    assert seen[0].training.steps == 2
    assert '"metrics":{"loss":1.0}' in (tmp_path / "o" / "metrics.jsonl").read_text()


def test_unknown_verb_is_one_line(capsys):
    assert cli.main(["recrod"]) == 2
    assert capsys.readouterr().err.startswith("drivecast: recrod: unknown verb; expected one of ingest, record")


def test_overview_is_quick_and_loads_no_torch():
    code = (
        "import sys; from drivecast.scripts.command.cli import main; main(['--help']); sys.exit('torch' in sys.modules)"
    )
    started_s = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert time.monotonic() - started_s < 2.0
    for name in VERBS:
        assert name in done.stdout


PRESETS = sorted(CONFIGS.glob("*.yaml"))


@pytest.mark.parametrize("file", PRESETS, ids=lambda file: file.stem)
def test_presets_fit_their_verb(file):
    verb = max((verb for verb in VERBS.values() if file.stem.startswith(verb.name)), key=lambda verb: len(verb.name))
    _, config_class = verb.load()
    hints = option_types(config_class)
    required = {name: "x" for name in hints if "." not in name and name not in (yaml.safe_load(file.read_text()) or {})}
    arguments = ["--config", str(file)]
    for name in required:
        if _is_required(config_class, name):
            arguments += [f"--{name}", "x"]
    parse(verb, config_class, arguments)


@pytest.mark.parametrize("name", sorted(VERBS))
def test_every_value_of_every_verb_is_explained(name, capsys):
    verb = VERBS[name]
    _, config_class = verb.load()
    with pytest.raises(SystemExit):
        parse(verb, config_class, ["--help"])
    text = " ".join(capsys.readouterr().out.split())
    for option in option_types(config_class):
        head = text.split(f" --{option.replace('_', '-')} ")
        assert len(head) > 1, f"{name}: --{option} is not in the help text"
        explanation = head[-1].split(" --")[0].split("(")[0].split()
        assert len(explanation) > 2, f"{name}: --{option} has no explanation in the docstring of its config"


def _is_required(config_class, name: str) -> bool:
    from dataclasses import MISSING, fields

    found = next(item for item in fields(config_class) if item.name == name)
    return found.default is MISSING and found.default_factory is MISSING

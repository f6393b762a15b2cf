"""The wheel, as a user has it: one package, which a script's own `envs/` or `scripts/` beside it does not touch."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("worldmodel", "planner", "envs", "scripts")


def run(*command: object, folder: Path = ROOT, seconds: float = 120) -> str:
    """What a command says; it must succeed."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    words = [str(word) for word in command]
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=seconds)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    pytest.importorskip("pip")
    pytest.importorskip("hatchling", reason="hatchling builds the wheel: pip install -e '.[dev]'")
    folder = tmp_path_factory.mktemp("wheel")
    options = ["--no-deps", "--no-build-isolation", "--disable-pip-version-check", "--quiet"]
    run(sys.executable, "-m", "pip", "wheel", *options, "--wheel-dir", folder, ROOT)
    (file,) = folder.glob("*.whl")
    return file


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """The Python of a fresh environment with the wheel, which borrows what it depends on from this one."""
    folder = tmp_path_factory.mktemp("fresh")
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    packages = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    borrowed = {entry for entry in sys.path if Path(entry).name in ("site-packages", "dist-packages")}
    (packages / "borrowed.pth").write_text("\n".join(sorted(borrowed)))  # theirs are not read: no editable install
    options = ["--no-deps", "--no-index", "--ignore-installed", "--disable-pip-version-check", "--quiet"]
    run(sys.executable, "-m", "pip", "--python", python, "install", *options, wheel)
    return python


def test_the_wheel_holds_one_package_with_all_that_it_needs(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"drivecast"}
    assert {"drivecast/py.typed", "drivecast/configs/demo.yaml", "drivecast/envs/replay/assets/page.html"} <= {*names}
    shipped = ("us101/world-model", "highway/world-model", "highway/policy")
    assert {f"drivecast/worldmodel/pretrained/{name}.safetensors" for name in shipped} <= {*names}
    modules = {f.relative_to(ROOT).as_posix() for package in PACKAGES for f in (ROOT / package).rglob("*.py")}
    assert {f"drivecast/{module}" for module in modules} <= {*names}


def test_the_users_own_folders_of_the_same_names_are_theirs_and_ours_are_ours(installed, tmp_path):
    for package in PACKAGES:
        (tmp_path / package).mkdir()
        (tmp_path / package / "mine.py").write_text("HERE = True\n")
    for package in ("envs", "planner"):  # the other two without __init__.py, as many are
        (tmp_path / package / "__init__.py").touch()
    (tmp_path / "script.py").write_text(
        """
import envs.mine, planner.mine, scripts.mine, worldmodel.mine
import gymnasium
import drivecast
import drivecast.planner.costs.energy
import drivecast.worldmodel.forecaster.model
from drivecast.envs.evaluation.closed_loop import run_episodes
from drivecast.scripts.driving.workers import Workers

def square(number):
    import scripts.mine
    return number * number if scripts.mine.HERE else None

if __name__ == "__main__":
    assert envs.mine.HERE and planner.mine.HERE and scripts.mine.HERE and worldmodel.mine.HERE
    environment = gymnasium.make_vec("drivecast/highway-fast-v0", num_envs=2)
    environment.reset(seed=0)
    with Workers(2) as workers:
        assert sorted(result for _, result in workers.run(square, [1, 2, 3])) == [1, 4, 9]
    print(drivecast.__file__)
"""
    )
    said = run(installed, "script.py", folder=tmp_path)
    assert Path(said.strip()).is_relative_to(installed.parents[1])


def test_the_command_is_there_with_its_presets(installed, tmp_path):
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "__init__.py").touch()
    command = installed.with_name("drivecast")
    assert run(command, "--version", folder=tmp_path).startswith("drivecast ")
    assert "train_world_model" in run(command, "demo", "--print_config", folder=tmp_path)

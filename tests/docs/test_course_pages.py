"""The pages of the course in a real browser: they work from a file, and their numbers are those of Python."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from site_building import DOCS, built_site

from drivecast.scripts.tools.course_scene import as_tensors, recorded_scene
from drivecast.worldmodel.energy.latent_rollout import unroll
from drivecast.worldmodel.energy.loaded_model import LoadedModel
from drivecast.worldmodel.energy.model_energy import QUADRATIC_UP_TO, ModelEnergy
from drivecast.worldmodel.energy.reconstruction_scale import errors_m, landmarks
from drivecast.worldmodel.joint_embedding.objective import covariance_of_others, effective_rank, variance_shortfall
from drivecast.worldmodel.scene.traffic import TrafficState

playwright = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install -e .[dev]")
pytestmark = pytest.mark.browser

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync"]
WIDGETS = {"energies": ["ellipse", "prototypes", "collapse"], "one-car": ["one-car"], "planning": ["plans"]}
WIDGETS |= {"joint-embeddings": ["joint-embedding"]}


class Page:
    """A page of the course in a tab, with what the tab complained about and asked for."""

    def __init__(self, tab, path: Path) -> None:
        self.tab, self.complaints, self.requests = tab, [], []
        tab.set_default_timeout(120_000)  # of a busy machine
        tab.on("console", lambda message: self.complaints.append(message.text))
        tab.on("pageerror", lambda error: self.complaints.append(str(error)))
        tab.on("request", lambda request: self.requests.append(request.url))
        tab.goto(path.as_uri())

    def ask(self, widget: str, expression: str, *arguments):
        """The value of an expression of a running `widget`."""
        return self.tab.evaluate(
            f"(args) => {{ const w = course.running['{widget}']; return {expression}; }}", arguments
        )

    def shown(self, widget: str) -> list[str]:
        """The numbers that are shown."""
        return self.tab.locator(f"[data-widget='{widget}'] .course-numbers dd").all_inner_texts()

    def drag(self, widget: str, start: tuple[float, float], end: tuple[float, float], plot: str = "plot") -> None:
        """By mouse, from a place of the plot to another, in its own coordinates."""
        place = f"(([x, y]) => {{ const b = w.{plot}.canvas.getBoundingClientRect();"
        place += f" return [b.left + w.{plot}.px(x), b.top + w.{plot}.py(y)]; }})"
        self.ask(widget, f"w.{plot}.canvas.scrollIntoView({{ block: 'center', behavior: 'instant' }})")
        self.ask(widget, f"w.{plot}.drawNow()")
        mouse = self.tab.mouse
        mouse.move(*self.ask(widget, f"{place}(args[0])", start))
        mouse.down()
        mouse.move(*self.ask(widget, f"{place}(args[0])", end), steps=3)
        mouse.up()


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    return built_site(tmp_path_factory)


@pytest.fixture(scope="module")
def browser() -> Iterator:
    executable = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if executable is None:
        pytest.skip("no Chromium: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=executable, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def show(browser, site: Path) -> Iterator:
    context = browser.new_context(viewport={"width": 1280, "height": 900}, offline=True)
    yield lambda name: Page(context.new_page(), site / "course" / f"{name}.html")
    context.close()


@pytest.mark.parametrize("name", WIDGETS)
def test_a_page_runs_from_a_file_without_complaints_on_a_phone_and_in_the_dark(browser, site: Path, name: str) -> None:
    context = browser.new_context(
        viewport={"width": 360, "height": 740}, color_scheme="dark", offline=True, has_touch=True
    )
    page = Page(context.new_page(), site / "course" / f"{name}.html")
    for widget in WIDGETS[name]:
        page.ask(widget, "w.plot.canvas.scrollIntoView()")
        page.tab.wait_for_timeout(100)
        assert all(page.shown(widget)[:2])
    assert page.tab.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.complaints == []
    assert not [url for url in page.requests if not url.startswith(("file:", "data:"))]
    context.close()


def soft_minimum(energies: np.ndarray, beta: float) -> float:
    """-1/beta log mean exp(-beta E)."""
    least = energies.min()
    return float(least - np.log(np.exp(-beta * (energies - least)).mean()) / beta)


def test_the_ellipse_s_free_energies_are_those_of_a_fine_grid_wherever_the_point_is_dragged(show) -> None:
    page = show("energies")
    before = page.shown("ellipse")
    z = np.linspace(0.0, 2 * math.pi, 400_000, endpoint=False)
    for place, beta in (((-1.6, 0.9), 8.0), ((-0.7, 0.3), 0.1), ((0.4, -1.2), 100.0)):
        start = page.ask("ellipse", "w.state().y")
        page.drag("ellipse", start, place)
        page.ask("ellipse", "w.setBeta(args[0])", beta)
        found = page.ask("ellipse", "w.state()")
        np.testing.assert_allclose(found["y"], place, atol=0.02)
        energies = (found["y"][0] - 1.6 * np.cos(z)) ** 2 + (found["y"][1] - 0.8 * np.sin(z)) ** 2
        assert found["F_inf"] == pytest.approx(energies.min(), abs=1e-8)
        assert found["F_beta"] == pytest.approx(soft_minimum(energies, beta), abs=1e-8)
        assert page.shown("ellipse") != before
        before = page.shown("ellipse")
    assert page.complaints == []


def test_the_prototypes_free_energies_are_those_of_k_means_and_of_a_mixture(show) -> None:
    page = show("energies")
    page.drag("prototypes", page.ask("prototypes", "w.state().prototypes[0]"), (-1.0, 0.9))
    found = page.ask("prototypes", "w.state()")
    data, beta = np.array(found["data"]), found["beta"]

    def distances(points: np.ndarray, prototypes: np.ndarray) -> np.ndarray:
        return np.square(points[:, None] - prototypes).sum(-1)

    prototypes = np.array(found["prototypes"])
    np.testing.assert_allclose(prototypes[0], (-1.0, 0.9), atol=0.02)
    own = distances(np.array([found["y"]]), prototypes)[0]
    assert found["F_inf"] == pytest.approx(own.min(), abs=1e-12)
    variance = 1 / (2 * beta)
    density = np.exp(-own / (2 * variance)).mean() / (2 * math.pi * variance)  # of the mixture, in the plane
    assert found["F_beta"] == pytest.approx(-math.log(density * 2 * math.pi * variance) / beta, abs=1e-9)
    assert found["mean"] == pytest.approx(distances(data, prototypes).min(1).mean(), abs=1e-9)
    for _ in range(12):  # Lloyd's algorithm
        nearest = distances(data, prototypes).argmin(1)
        prototypes = np.array([data[nearest == k].mean(0) if (nearest == k).any() else prototypes[k] for k in range(3)])
        page.ask("prototypes", "w.step()")
    learned = page.ask("prototypes", "w.state()")
    np.testing.assert_allclose(learned["prototypes"], prototypes, atol=1e-9)
    assert learned["mean"] < 0.5 * found["mean"]
    assert page.complaints == []


def test_an_energy_with_a_free_code_collapses_and_a_noisy_code_prevents_it(show) -> None:
    page = show("energies")
    found = {}
    for kind in ("free", "noisy"):
        page.ask("collapse", "(w.choose(args[0]), w.pause())", kind)
        found[kind] = page.ask("collapse", "w.advance(150)")
    assert found["free"]["on"] < 0.01
    assert found["free"]["off"] < 0.01
    assert found["free"]["low"] > 0.95
    assert found["noisy"]["on"] < 0.1
    assert found["noisy"]["off"] > 5 * found["noisy"]["on"]
    assert found["noisy"]["low"] < 0.4
    page.drag("collapse", found["noisy"]["y"], (1.5, -1.0))
    assert page.ask("collapse", "w.state().F") != found["noisy"]["F"]
    assert page.complaints == []


def test_gradients_find_the_minimum_of_their_side_and_the_mean_of_two_modes_hits_what_is_between(show) -> None:
    page = show("planning")
    for _ in range(80):
        page.ask("plans", "w.step()")
    found = page.ask("plans", "w.state()")
    ends = np.array(found["plans"])
    assert (ends > 2).any()
    assert (ends < -2).any()
    u = np.linspace(-6.2, 6.2, 124_001)
    cost = 5 * np.exp(-(((u - found["blocked"]) / 1.7) ** 2)) + 0.3 * (1 - np.cos(2 * np.pi * u / 4)) + 0.015 * u**2
    cost += 2 * np.maximum(0, np.abs(u) - 4.8) ** 2
    inner = (cost[1:-1] < cost[:-2]) & (cost[1:-1] < cost[2:])
    minima = u[1:-1][inner]
    assert all(np.abs(minima - end).min() < 0.05 for end in ends)
    assert found["chosenCost"] == pytest.approx(cost.min(), abs=1e-3)

    page.ask("plans", "w.choose('cem')")
    page.ask("plans", "w.step()")
    (one,) = page.ask("plans", "w.state()")["distributions"]
    elites = np.interp(one["elites"], u, cost)
    assert min(one["elites"]) < -2 < 2 < max(one["elites"])
    assert one["cost"] > 3 * elites.max()

    page.ask("plans", "w.choose('lanes')")
    for _ in range(6):
        page.ask("plans", "w.step()")
    assert page.ask("plans", "w.state()")["chosenCost"] < cost.min() + 0.1

    shown = page.shown("plans")
    page.drag("plans", (page.ask("plans", "w.state().blocked"), 38), (-3, 38))
    assert page.ask("plans", "w.state().blocked") == pytest.approx(-3, abs=0.1)
    assert page.shown("plans") != shown
    assert page.complaints == []


def doubles(values: list) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


class Reference:
    """The energy of the first car's futures by PyTorch, in double precision; the others move as recorded."""

    def __init__(self) -> None:
        loaded = LoadedModel.load("pretrained:highway")
        self.energy = ModelEnergy(loaded.model.double(), loaded.scale)
        scene = json.loads((DOCS / "course/one-car.json").read_text(encoding="utf-8"))
        self.history, self.road, self.future = as_tensors(scene, torch.float64)
        self.who = torch.ones(1, self.future.valid.shape[-1], dtype=torch.bool)
        self.who[0, 0] = False

    def with_future(self, own: list[dict[str, float]]) -> TrafficState:
        """The future with these states of the first car."""
        future = self.future.map(lambda tensor: tensor.clone())
        for step, state in enumerate(own):
            future.position_m[0, step, 0] = torch.tensor([state["x"], state["y"]])
            future.heading_rad[0, step, 0] = state["heading"]
            future.speed_mps[0, step, 0] = state["speed"]
        return future

    def of(self, future: TrafficState, latents: torch.Tensor) -> torch.Tensor:
        """E of `latents (some, stretch, latent)`, `(some,)`."""
        count, agents = len(latents), self.who.shape[1]
        every = torch.zeros(count, latents.shape[1], agents, latents.shape[2], dtype=torch.float64)
        every[:, :, 0] = latents
        same = torch.zeros(count, dtype=torch.long)
        with torch.no_grad():
            return self.energy.energy(self.history[same], self.road[same], future[same], every, self.who[same])[:, 0]

    def errors(self, future: TrafficState, latents: torch.Tensor) -> torch.Tensor:
        """Errors in usual ones under `latents (some, stretch, latent)`: `(some, landmark, 2)`."""
        count, agents = len(latents), self.who.shape[1]
        every = torch.zeros(count, latents.shape[1], agents, latents.shape[2], dtype=torch.float64)
        every[:, :, 0] = latents
        same = torch.zeros(count, dtype=torch.long)
        model, future, who = self.energy.model, future[same], self.who[same]
        with torch.no_grad():
            memory = model.observe(self.history[same], self.road[same])
            rollout = unroll(model, memory, self.road[same], future, lambda k, memory, last: every[:, k], who)
        moments = landmarks(future.valid.shape[1], model.config.dt_s)
        off = torch.stack(errors_m(rollout.position_m, future, moments), -1)[:, :, 0]
        return off / torch.stack(self.energy.scale.at(len(moments), off), -1)

    def bend(self, future: TrafficState, latents: torch.Tensor) -> torch.Tensor:
        """Of 3 s times E by `latents (stretch, latent)`, all in a row: Gauss-Newton's for the errors."""
        step, limit = 1e-4, QUADRATIC_UP_TO**2
        flat = latents.flatten()
        moved = torch.cat([flat[None], flat + step * torch.eye(len(flat), dtype=torch.float64)])
        errors = self.errors(future, moved.view(-1, *latents.shape))
        weight = (1 + errors[0].square().sum(-1, keepdim=True) / limit).rsqrt().expand_as(errors[0]).flatten()
        slopes = ((errors[1:] - errors[0]) / step).flatten(1)  # (latent, error)
        share = self.energy.model.persistence.sigmoid()

        def code(flat: torch.Tensor) -> torch.Tensor:
            z = flat.view_as(latents)
            later = (z[1:] - share * z[:-1]).square() / (1 - share.square())
            return (z[0].square().sum() + later.sum()) / 2

        return (slopes * weight) @ slopes.T + torch.autograd.functional.hessian(code, flat)


@pytest.fixture(scope="module")
def reference() -> Reference:
    return Reference()


def test_one_car_s_energies_are_those_of_the_world_model(show, reference: Reference) -> None:
    page = show("one-car")
    (page.ask("one-car", "w.plot.drawNow()"), page.tab.wait_for_timeout(50))
    end = page.ask("one-car", "w.plot.canvas && w.future().at(-1)")
    shown = page.shown("one-car")
    found = [page.ask("one-car", "w.settle()")]
    page.drag("one-car", (end["x"], end["y"]), (end["x"] - 4.0, end["y"] + 1.0))
    assert page.shown("one-car") != shown
    found.append(page.ask("one-car", "w.settle()"))
    np.testing.assert_allclose(found[1]["end"], (-4.0, 1.0), atol=0.2)
    for state in found:
        future = reference.with_future(state["future"])
        draws = state["draws"]
        latents = doubles([state["latents"], state["guessed"], *(draw["latents"] for draw in draws[:6])])
        energies = [state["F_inf"], state["guess"], *(draw["energy"] for draw in draws[:6])]
        np.testing.assert_allclose(energies, reference.of(future, latents), rtol=1e-5, atol=1e-4)
        posterior = reference.energy.posterior_latents(reference.history, reference.road, future, reference.who)
        np.testing.assert_allclose(state["guessed"], posterior.mean[0, :, 0], atol=1e-4)
        logs = doubles([-state["beta"] * draw["energy"] - draw["density"] for draw in draws])
        marginal = -float(torch.logsumexp(logs, 0) - math.log(len(logs))) / state["beta"]
        assert state["F_beta"] == pytest.approx(marginal, abs=1e-6)
        # from which density the draws are: normal about the best latents, with the Gauss-Newton bend of beta E
        best = latents[0]
        precision = state["beta"] * reference.bend(future, best) / 3.0
        for draw in draws[:6]:
            away = doubles(draw["latents"]).flatten() - best.flatten()
            log = 0.5 * (torch.logdet(precision) - away @ precision @ away - best.numel() * math.log(2 * math.pi))
            assert draw["density"] == pytest.approx(float(log), abs=0.02)
    other = reference.energy.best_latents(reference.history, reference.road, future, reference.who, steps=6)
    assert found[1]["F_inf"] < float(other.energy[0, 0]) + 1e-3, "a few steps of Adam found better latents"
    assert page.complaints == []


def test_the_scene_is_what_its_script_records() -> None:
    stored = json.loads((DOCS / "course/one-car.json").read_text(encoding="utf-8"))
    recorded = recorded_scene()
    assert len(stored["cars"]) == len(recorded["cars"]) > 8
    for one, other in zip(stored["cars"], recorded["cars"], strict=True):
        np.testing.assert_allclose(one["x_m"], other["x_m"], atol=1e-3)
        np.testing.assert_allclose(one["y_m"], other["y_m"], atol=1e-3)


EMBEDDING_TERMS = {"prediction": 1.0, "variance": 5.0, "covariance": 0.5, "inverse": 3.0}


@pytest.mark.parametrize("on", [list(EMBEDDING_TERMS), ["prediction", "variance", "covariance"]], ids=len)
def test_the_joint_embedding_s_terms_and_gradients_are_those_of_pytorch(show, on: list[str]) -> None:
    page = show("joint-embeddings")
    page.ask("joint-embedding", "(w.choose(args[0]), w.pause())", on)
    page.ask("joint-embedding", "w.advance(5)")
    lesson = page.ask("joint-embedding", "w.lesson()")
    flat = [doubles(layer["weights"]).requires_grad_() for layer in lesson["layers"]]
    shapes = [layer["into"] + 1 for layer in lesson["layers"]]
    encoder, *others = [values.view(-1, inputs) for values, inputs in zip(flat, shapes, strict=True)]

    def linear(rows: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return x @ rows[:, :-1].T + rows[:, -1]

    before, after = (doubles([one[name] for one in lesson["batch"]]) for name in ("before", "after"))
    move = doubles([one["move"] for one in lesson["batch"]])[:, None]
    s, t = linear(encoder, before), linear(encoder, after)
    predicted = s + linear(others[1], linear(others[0], torch.cat([s, move], 1)).tanh())
    ends = torch.cat([s, t], 1) if "inverse" in on else torch.cat([s, t], 1).detach()  # else a probe
    told = linear(others[3], linear(others[2], ends).tanh())
    both = torch.cat([s, t])
    terms = {
        "prediction": (predicted - t).square().mean(),
        "variance": variance_shortfall(both),
        "covariance": covariance_of_others(both),
        "inverse": (told - move).square().mean(),
    }
    for name, value in terms.items():
        assert lesson["terms"][name] == pytest.approx(value.item(), abs=1e-10), name
    loss = torch.stack([EMBEDDING_TERMS[name] * terms[name] for name in on]).sum()
    assert lesson["terms"]["loss"] == pytest.approx(loss.item(), abs=1e-10)
    (loss if "inverse" in on else loss + terms["inverse"]).backward()
    for values, layer in zip(flat, lesson["layers"], strict=True):
        assert max(map(abs, layer["gradient"])) > 1e-4
        np.testing.assert_allclose(layer["gradient"], values.grad, atol=1e-10)
    assert page.complaints == []


def test_what_a_joint_embedding_unfolds_to_without_each_term(show) -> None:
    page = show("joint-embeddings")

    def learned(on: list[str], steps: int) -> dict:
        page.ask("joint-embedding", "(w.choose(args[0]), w.pause())", on)
        return page.ask("joint-embedding", "w.advance(args[0])", steps)

    shown = page.shown("joint-embedding")
    full = learned(list(EMBEDDING_TERMS), 600)
    assert full["rank"] == pytest.approx(effective_rank(doubles(full["embeddings"])), abs=1e-6)
    assert min(full["spread"]) > 0.9
    assert full["place"] > 0.95 > 0.1 > full["background"]
    assert full["move"] > 0.9
    assert full["other"] > 20 * full["came"]
    assert page.shown("joint-embedding") != shown

    point = learned(["prediction"], 700)
    assert max(point["spread"]) < 0.02
    assert point["other"] < 0.01
    line = learned(["prediction", "variance"], 700)
    assert line["spread"][0] > 1.2
    assert line["rank"] == pytest.approx(effective_rank(doubles(line["embeddings"])), abs=1e-6)
    assert line["rank"] < 1.15
    beside = learned(["prediction", "variance", "covariance"], 600)
    assert min(beside["spread"]) > 0.9
    assert beside["background"] > 0.9 > 0.1 > beside["place"]
    assert beside["move"] < 0.1
    smaller = learned(["prediction", "covariance", "inverse"], 500)
    assert 0.4 < min(smaller["spread"]) < max(smaller["spread"]) < 0.8
    assert smaller["place"] > 0.9
    page.ask("joint-embedding", "w.setBackground('new')")
    elsewhere = learned(["prediction", "variance", "covariance"], 500)
    assert elsewhere["place"] > 0.9 > 0.1 > elsewhere["background"]
    assert page.complaints == []

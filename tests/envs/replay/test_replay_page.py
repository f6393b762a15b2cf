"""The replay page and the list of replays, in a real browser."""

from __future__ import annotations

import base64
import shutil
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from attending import attending
from example_episodes import curved_road, highway_episode, weighing

from drivecast.envs.replay.episode import Episode
from drivecast.envs.replay.gallery import find_episodes, write_gallery
from drivecast.envs.replay.page import page, write_page
from drivecast.envs.replay.palette import DARK, LIGHT
from drivecast.worldmodel.scene.traffic import Controls

STEPS = 60
playwright = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install -e .[dev]")
pytestmark = pytest.mark.browser

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync"]


class Page:
    """A replay in a tab, with what the tab complained about and asked the network for."""

    def __init__(self, tab, path: Path) -> None:
        self.tab, self.complaints, self.requests = tab, [], []
        tab.on("console", lambda message: self.complaints.append(message.text))
        tab.on("pageerror", lambda error: self.complaints.append(str(error)))
        tab.on("request", lambda request: self.requests.append(request.url))
        tab.goto(path.as_uri())
        tab.evaluate("replay.ready")
        tab.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def state(self) -> dict:
        return self.tab.evaluate("replay.state()")

    def wait(self, condition: str) -> None:
        """Ask until it holds; the page's own rules forbid what `wait_for_function` does."""
        for _ in range(400):
            if self.tab.evaluate(condition):
                return
            self.tab.wait_for_timeout(25)
        raise AssertionError(f"not within 10 s: {condition}; {self.state()}")

    def pixels(self, canvas: str) -> np.ndarray:
        """Colours of a canvas, `(height, width, 4)`."""
        width, height, data = self.tab.evaluate(
            """(id) => { const c = document.getElementById(id);
               const d = c.getContext("2d").getImageData(0, 0, c.width, c.height).data;
               let text = "";
               for (let i = 0; i < d.length; i += 8192) text += String.fromCharCode(...d.subarray(i, i + 8192));
               return [c.width, c.height, btoa(text)]; }""",
            canvas,
        )
        return np.frombuffer(base64.b64decode(data), np.uint8).reshape(height, width, 4)

    def share_of(self, canvas: str, colour: str) -> float:
        """Share of a canvas's pixels that are nearly of a colour `#rrggbb`."""
        wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
        return float((np.abs(self.pixels(canvas)[..., :3].astype(int) - wanted).max(-1) <= 6).mean())


@pytest.fixture(scope="module")
def browser() -> Iterator:
    executable = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if executable is None:
        pytest.skip("no Chromium: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=executable, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("replay") / "episode.html"
    write_page(highway_episode(steps=STEPS, cars=8), path)
    return path


@pytest.fixture
def show(browser) -> Iterator:
    context = browser.new_context(viewport={"width": 1280, "height": 720}, color_scheme="light", offline=True)
    yield lambda path: Page(context.new_page(), path)
    context.close()


@pytest.fixture
def replay(show, path: Path) -> Page:
    return show(path)


def written(tmp_path: Path, episode: Episode) -> Path:
    write_page(episode, tmp_path / "episode.html")
    return tmp_path / "episode.html"


def test_page_loads_without_complaints_and_asks_for_nothing_but_itself(replay: Page, path: Path) -> None:
    replay.tab.keyboard.press("End")
    assert replay.complaints == []
    assert [url for url in replay.requests if not url.startswith("data:")] == [path.as_uri()]


def test_the_picture_shows_the_ego_its_plan_and_the_road(replay: Page) -> None:
    replay.tab.evaluate("replay.seek(10)")
    assert replay.share_of("scene", LIGHT["ego"]) > 0.001
    assert replay.share_of("scene", LIGHT["asphalt"]) > 0.2
    with_plan = replay.share_of("scene", LIGHT["ego"])
    replay.tab.keyboard.press("p")
    assert 0 < replay.share_of("scene", LIGHT["ego"]) < 0.8 * with_plan


def test_the_futures_can_be_taken_away(replay: Page) -> None:
    before = replay.pixels("scene")
    replay.tab.keyboard.press("f")
    assert (replay.pixels("scene") != before).any(-1).mean() > 0.01
    assert replay.state()["shows"]["futures"] is False


def test_each_cost_term_is_in_the_chart_and_in_the_legend(replay: Page) -> None:
    assert replay.share_of("chart", LIGHT["term-proximity"]) > 0.05
    assert replay.share_of("chart", LIGHT["term-lane"]) > 0.01
    assert replay.tab.locator("#legend th").all_inner_texts()[:4] == ["proximity", "lane", "speed", "comfort"]


def test_the_legend_tells_the_costs_of_the_step_that_led_to_the_time(show, tmp_path: Path) -> None:
    episode = highway_episode(steps=STEPS, cars=8)
    replay = show(written(tmp_path, episode))
    replay.tab.evaluate("replay.seek(30)")
    shown = float(replay.tab.locator("#legend td").first.inner_text())
    assert shown == pytest.approx(float(episode.costs["proximity"][29]), abs=0.001)


def test_the_instruments_tell_the_egos_speed_and_gap(show, tmp_path: Path) -> None:
    episode = highway_episode(steps=STEPS, cars=8)
    replay = show(written(tmp_path, episode))
    replay.tab.evaluate("replay.seek(30)")
    values = replay.tab.locator(".tile strong").all_inner_texts()
    assert values[0] == f"{float(episode.states.speed_mps[30, 0]):.1f}"
    apart = float(episode.states.position_m[30, 1, 0] - episode.states.position_m[30, 0, 0])
    gap = apart - float(episode.states.length_m[30, :2].sum()) / 2
    assert float(values[3]) == pytest.approx(gap, abs=0.06)


def test_space_plays_and_pauses(replay: Page) -> None:
    assert replay.state()["step"] == 0
    replay.tab.keyboard.press("Space")
    replay.wait("replay.state().step >= 3")
    replay.tab.keyboard.press("Space")
    stopped = replay.state()
    assert stopped["playing"] is False
    replay.tab.wait_for_timeout(250)
    assert replay.state()["step"] == stopped["step"]


def test_playing_stops_at_the_end_and_tells_the_outcome(replay: Page) -> None:
    replay.tab.select_option("#rate", "4")
    replay.tab.evaluate(f"replay.seek({STEPS - 8})")
    assert not replay.tab.locator("#banner").is_visible()
    replay.tab.click("#play")
    replay.wait(f"!replay.state().playing && replay.state().step === {STEPS}")
    assert replay.tab.locator("#banner").inner_text() == "Completed after 6.0 s"


def test_speed_control_sets_how_fast_it_plays(replay: Page) -> None:
    covered = {}
    for rate in ("0.25", "4"):
        replay.tab.select_option("#rate", rate)
        covered[rate] = replay.tab.evaluate(
            """async () => { replay.seek(0); replay.play(); await new Promise((r) => setTimeout(r, 700));
               const { time_s } = replay.state(); replay.pause(); return time_s; }"""
        )
    assert covered["4"] > 4 * covered["0.25"] > 0
    replay.tab.keyboard.press("Escape")
    replay.tab.locator("#scene").focus()
    replay.tab.keyboard.press("[")
    assert replay.state()["rate"] == 2


def test_arrow_keys_step_and_shift_makes_it_a_second(replay: Page) -> None:
    steps = []
    for key in ("ArrowRight", "ArrowRight", "ArrowLeft", "Shift+ArrowRight", "Shift+ArrowLeft", "End", "Home"):
        replay.tab.keyboard.press(key)
        steps.append(replay.state()["step"])
    assert steps == [1, 2, 1, 11, 1, STEPS, 0]


def test_dragging_the_scrubber_moves_through_time(replay: Page) -> None:
    area = replay.tab.locator("#time").bounding_box()
    middle = area["y"] + area["height"] / 2
    replay.tab.mouse.move(area["x"] + 8, middle)
    replay.tab.mouse.down()
    replay.tab.mouse.move(area["x"] + area["width"] / 2, middle, steps=5)
    replay.tab.mouse.up()
    assert replay.state()["step"] == pytest.approx(STEPS / 2, abs=2)
    replay.tab.keyboard.press("ArrowRight")  # the scrubber has the focus now: one step, not two
    assert replay.state()["step"] == pytest.approx(STEPS / 2 + 1, abs=2)
    assert replay.tab.locator("#time").get_attribute("aria-valuetext").endswith("of 6.0 seconds")


def test_a_click_in_the_chart_goes_to_that_time(replay: Page) -> None:
    area = replay.tab.locator("#chart").bounding_box()
    replay.tab.mouse.click(area["x"] + 44 + (area["width"] - 52) * 0.75, area["y"] + area["height"] / 2)
    assert replay.state()["step"] == pytest.approx(0.75 * STEPS, abs=1)


def test_wheel_and_keys_zoom_and_zero_resets(replay: Page) -> None:
    area = replay.tab.locator("#scene").bounding_box()
    replay.tab.mouse.move(area["x"] + 60, area["y"] + 60)
    replay.tab.mouse.wheel(0, -300)
    replay.wait("replay.state().zoom > 1.2")
    replay.tab.keyboard.press("0")
    assert replay.state()["zoom"] == 1
    replay.tab.keyboard.press("-")
    assert replay.state()["zoom"] < 1


def test_views_and_colourings_take_turns(replay: Page) -> None:
    replay.tab.evaluate("replay.seek(20)")
    pictures = [replay.pixels("scene")]
    for key, name in (("c", "camera"), ("c", "camera"), ("v", "colour")):
        before = replay.state()[name]
        replay.tab.keyboard.press(key)
        assert replay.state()[name] != before
        pictures.append(replay.pixels("scene"))
    assert all((a != b).any() for a, b in pairwise(pictures))


def test_question_mark_opens_help_with_keys_and_details(replay: Page) -> None:
    replay.tab.keyboard.press("?")
    text = replay.tab.locator("#help").inner_text()
    assert "play or pause" in text
    assert "0123456789abcdef" in text
    replay.tab.locator("#help button").click()
    assert not replay.tab.locator("#help").is_visible()
    assert replay.complaints == []


def test_a_car_under_the_pointer_is_named(replay: Page) -> None:
    area = replay.tab.locator("#scene").bounding_box()
    found = np.argwhere(np.abs(replay.pixels("scene")[..., :3].astype(int) - [0x3F, 0xB2, 0xF5]).max(-1) <= 6)
    ego_x = area["x"] + 0.36 * area["width"]
    replay.tab.mouse.move(ego_x, area["y"] + float(np.median(found[:, 0])))
    assert replay.tab.locator("#tip").inner_text().startswith("Ego: 25.0 m/s")


def test_the_plans_that_were_weighed_are_listed_drawn_and_pointed_at(show, tmp_path: Path) -> None:
    replay = show(written(tmp_path, weighing(highway_episode(steps=STEPS, cars=8))))
    replay.tab.evaluate("replay.seek(12)")
    rows = replay.tab.locator("#weighed tbody tr")
    cells = [row.locator("td").all_inner_texts() for row in rows.all()]
    assert [row[1] for row in cells] == ["1.00", "1.50", "31.25"]
    assert cells[0][2] == "speed 1.00"
    assert cells[2][2] == "contact +30.00, speed +0.25"
    assert "at 0.8 s" in replay.tab.locator("#weighed-title").inner_text()
    before, ego = replay.pixels("scene"), replay.share_of("scene", LIGHT["ego"])
    rows.nth(2).hover()
    assert replay.share_of("scene", LIGHT["ego"]) > 1.2 * ego
    replay.tab.mouse.move(5, 5)
    assert (replay.pixels("scene") == before).all()
    replay.tab.keyboard.press("w")
    assert (replay.pixels("scene") != before).any()


def test_who_weighed_nothing_has_no_table_of_plans(replay: Page) -> None:
    assert not replay.tab.locator("#weighed-panel").is_visible()


def test_whom_a_concept_is_about_is_ringed_named_in_the_key_and_can_be_taken_away(show, tmp_path: Path) -> None:
    replay = show(written(tmp_path, attending(highway_episode(steps=STEPS, cars=8), 2, since=20)))
    assert "Attended to by the concept" in replay.tab.locator("#key li").all_inner_texts()
    replay.tab.evaluate("replay.seek(19)")
    assert replay.share_of("scene", LIGHT["attended"]) == 0
    replay.tab.evaluate("replay.seek(20)")
    assert replay.share_of("scene", LIGHT["attended"]) > 0.0005
    replay.tab.keyboard.press("a")
    assert replay.share_of("scene", LIGHT["attended"]) == 0


def test_the_key_names_no_concept_where_nobody_is_attended_to(show, tmp_path: Path) -> None:
    for episode in (highway_episode(steps=10, cars=4), attending(highway_episode(steps=10, cars=4))):
        replay = show(written(tmp_path, episode))
        assert replay.tab.locator("#key li", has_text="concept").count() == 0


def test_a_crash_is_marked(show, tmp_path: Path) -> None:
    replay = show(written(tmp_path, highway_episode(steps=30, cars=6, outcome="collision")))
    assert replay.share_of("scene", LIGHT["crash"]) == 0
    replay.tab.keyboard.press("End")
    assert replay.share_of("scene", LIGHT["crash"]) > 0.0005
    assert replay.tab.locator("#banner").inner_text() == "Collision with car 1 after 3.0 s: the ego's fault"


def test_a_closed_lane_is_marked(show, tmp_path: Path) -> None:
    replay = show(written(tmp_path, highway_episode(steps=70, cars=4, road=curved_road(), every=1000)))
    replay.tab.evaluate("replay.seek(60)")
    road, mark = (np.array([int(LIGHT[n][i : i + 2], 16) for i in (1, 3, 5)]) for n in ("asphalt", "closed"))
    mixed = (0.7 * road + 0.3 * mark).round().astype(int)
    assert replay.share_of("scene", "#" + "".join(f"{value:02x}" for value in mixed)) > 0.002


def test_markup_in_names_is_shown_as_text(show, tmp_path: Path) -> None:
    episode = highway_episode(steps=5, cars=3, driver="</script><script>document.title='broken'</script><b>x</b>")
    episode = replace(episode, costs={"<img src=x onerror=alert(1)>": episode.costs["lane"]})
    replay = show(written(tmp_path, episode))
    assert replay.complaints == []
    assert replay.tab.locator("h1").inner_text().startswith("</script><script>")
    assert replay.tab.title() != "broken"
    assert replay.tab.locator("h1 b, #legend img").count() == 0


@pytest.mark.parametrize("name", ["{{script}}", "{{data}}{{style}}", "{{title}}"])
def test_a_driver_named_like_a_place_of_the_template_is_shown_as_text(show, tmp_path: Path, name: str) -> None:
    replay = show(written(tmp_path, highway_episode(steps=5, cars=3, driver=name)))
    assert replay.complaints == []
    assert replay.tab.locator("h1").inner_text().startswith(f"{name} on highway-v0")
    assert replay.tab.title().startswith(name)


def broken_into(path: Path) -> str:
    """The page with a stranger's script, handler and style put into it."""
    text = path.read_text(encoding="utf-8")
    mischief = "<script>document.title='broken'</script><img src=x onerror=\"document.title='broken'\">"
    mischief += "<a id=trap href=\"javascript:document.title='broken'\">x</a><style>h1 { display: none }</style>"
    assert "</h1>" in text
    path.write_text(text.replace("</h1>", f"</h1>{mischief}", 1), encoding="utf-8")
    return "() => document.getElementById('trap').click()"


def test_only_the_pages_own_script_and_style_are_in_force(show, tmp_path: Path) -> None:
    path = written(tmp_path, highway_episode(steps=5, cars=3))
    trap = broken_into(path)
    replay = show(path)
    replay.tab.evaluate(trap)
    replay.tab.wait_for_timeout(100)
    assert replay.tab.title() != "broken"
    assert replay.tab.locator("h1").is_visible()
    assert replay.state()["steps"] == 5


@pytest.fixture
def listing(browser, tmp_path: Path) -> Iterator:
    """`listing(width)`: the list of replays of two drivers, in a tab."""
    for seed, driver, outcome in (
        (1, "idle", "completed"),
        (2, "idle", "collision"),
        (3, "policy:runs/" + "a-long-name/" * 12 + "policy.safetensors", "completed"),
    ):
        episode = highway_episode(steps=4, cars=3, seed=seed, driver=driver, outcome=outcome)
        episode.write(tmp_path / "in" / ("highway-v0-" + "deep-" * 30) / f"{seed}.parquet")
    contexts = []

    def opened(width: int = 1280):
        if not (tmp_path / "out").exists():
            write_gallery(tmp_path / "in", find_episodes(tmp_path / "in"), tmp_path / "out")
        contexts.append(browser.new_context(viewport={"width": width, "height": 700}, offline=True))
        tab = contexts[-1].new_page()
        tab.complaints = []
        tab.on("console", lambda message: tab.complaints.append(message.text))
        tab.on("pageerror", lambda error: tab.complaints.append(str(error)))
        tab.goto((tmp_path / "out" / "index.html").as_uri())
        return tab

    opened.index = tmp_path / "out" / "index.html"
    yield opened
    for context in contexts:
        context.close()


@pytest.mark.parametrize("width", [320, 700, 1000, 1300])
def test_nothing_of_the_list_is_cut_off(listing, width: int) -> None:
    tab = listing(width)
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    right = tab.evaluate(
        "Math.max(...[...document.querySelectorAll('td')].map((c) => c.getBoundingClientRect().right))"
    )
    assert right <= width


def test_the_list_can_be_narrowed_to_some_words(listing) -> None:
    tab = listing()
    rows = tab.locator("tbody tr")
    assert rows.count() == 3
    tab.fill("#filter", "IDLE collision")
    assert [row.is_visible() for row in rows.all()] == [False, True, False]
    assert not tab.locator("details").first.is_visible()
    assert tab.locator("#shown").inner_text() == "1 of 3 episodes"
    tab.fill("#filter", "")
    assert all(row.is_visible() for row in rows.all())
    assert tab.complaints == []


def test_a_link_of_the_list_leads_to_its_page(listing) -> None:
    tab = listing()
    tab.locator("tbody a").first.click()
    tab.evaluate("replay.ready")
    assert tab.locator("h1").inner_text().startswith("policy:runs/")


def test_only_the_lists_own_script_and_style_are_in_force(listing) -> None:
    listing()
    trap = broken_into(listing.index)
    tab = listing()
    tab.evaluate(trap)
    tab.wait_for_timeout(100)
    assert tab.title() == "Replays"
    assert tab.locator("h1").is_visible()
    assert tab.locator("#shown").inner_text() == "3 episodes"


def test_an_episode_without_steps_costs_or_imaginations_can_be_shown(show, tmp_path: Path) -> None:
    full = highway_episode(steps=5, cars=3)
    none = Controls(torch.zeros(0), torch.zeros(0))
    replay = show(written(tmp_path, replace(full, states=full.states[:1], controls=none, costs={}, imaginations={})))
    assert replay.complaints == []
    assert replay.state()["steps"] == 0


def test_without_cost_terms_the_chart_shows_the_egos_speed(show, tmp_path: Path) -> None:
    replay = show(written(tmp_path, replace(highway_episode(steps=20, cars=3), costs={})))
    assert replay.tab.locator("#chart-title").inner_text() == "Speed, m/s"
    assert replay.share_of("chart", LIGHT["ego"]) > 0.1
    assert "no cost terms were kept" in replay.tab.locator("#legend").inner_text()


def test_sharp_on_a_dense_screen_and_dark_where_the_reader_prefers_it(browser, path: Path) -> None:
    context = browser.new_context(
        viewport={"width": 900, "height": 700}, device_scale_factor=2, color_scheme="dark", offline=True
    )
    replay = Page(context.new_page(), path)
    size = replay.tab.evaluate("[document.getElementById('scene').width, document.getElementById('scene').clientWidth]")
    assert size[0] == 2 * size[1]
    assert replay.share_of("scene", DARK["verge"]) > 0.2
    context.close()


@pytest.mark.parametrize("width", [360, 800, 1366])
def test_nothing_is_wider_than_the_window(browser, path: Path, width: int) -> None:
    context = browser.new_context(viewport={"width": width, "height": 700}, offline=True)
    replay = Page(context.new_page(), path)
    assert replay.tab.evaluate("document.documentElement.scrollWidth") <= width
    context.close()


def test_page_of_half_a_minute_among_twenty_cars_is_small() -> None:
    assert len(page(highway_episode(steps=300, cars=21, samples=8, every=5))) < 1_000_000

"""Lines of the road, instruments and film pictures."""

from __future__ import annotations

import json
import zlib
from dataclasses import replace
from pathlib import Path

import imageio.v2 as imageio
import numpy as np
import pytest
import torch
from attending import attending
from example_episodes import curved_road, highway_episode
from PIL import Image, ImageColor

from drivecast.envs.replay.episode import Episode
from drivecast.envs.replay.film import FilmConfig, write_film
from drivecast.envs.replay.frame import FrameArtist
from drivecast.envs.replay.page import pack
from drivecast.envs.replay.palette import DARK, LIGHT, term_colour
from drivecast.envs.replay.readings import Readings
from drivecast.envs.replay.roadway import Roadway, road_middle_m
from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.scene.road import NO_LANE, Road

HERE_M = np.array([[100.0, 0.0]])


def heights(lines: list[np.ndarray]) -> list[float]:
    return sorted(float(np.round(line[:, 1].mean(), 3)) for line in lines)


def test_edges_are_solid_and_lines_between_lanes_dashed() -> None:
    roadway = Roadway.of(Road.straight(3), HERE_M)
    assert heights(roadway.solid) == [-10.0, 2.0]
    assert heights(roadway.dashed) == [-6.0, -2.0]
    assert roadway.closed == []


def test_only_the_road_near_where_someone_drives_is_drawn() -> None:
    line = Roadway.of(Road.straight(1, length_m=10_000.0, start_m=-5_000.0), HERE_M).solid[0]
    assert line[:, 0].min() == pytest.approx(-250, abs=3)
    assert line[:, 0].max() == pytest.approx(450, abs=3)


def test_an_open_lane_is_drawn_beyond_its_last_point_and_a_closed_one_is_not() -> None:
    road = Road.straight(1, length_m=200.0)
    assert max(line[:, 0].max() for line in Roadway.of(road, HERE_M).solid) > 400
    shut = replace(road, open_end=torch.zeros_like(road.open_end))
    roadway = Roadway.of(shut, HERE_M)
    assert max(line[:, 0].max() for line in roadway.solid) == pytest.approx(200, abs=0.01)
    assert len(roadway.closed) == 1


def test_the_line_is_solid_where_the_neighbour_lane_has_ended() -> None:
    roadway = Roadway.of(curved_road(), np.array([[100.0, 0.0], [160.0, 5.0]]))
    assert len(roadway.closed) == 1
    beside_ended = curved_road().centre_m[0, 1, 65].numpy()  # the middle lane, beyond the end of the right one
    nearest = min(np.linalg.norm(line - beside_ended, axis=1).min() for line in roadway.solid)
    assert nearest < 6


def test_a_lane_that_goes_on_in_another_is_not_closed_off() -> None:
    first, second = Road.straight(1, length_m=100.0), Road.straight(1, length_m=100.0, start_m=100.0)
    joined = Road(
        **{
            name: torch.cat([getattr(first, name), getattr(second, name)], 1)
            for name in ("centre_m", "width_m", "point_count", "speed_limit_mps")
        },
        left=torch.full((1, 2), NO_LANE),
        right=torch.full((1, 2), NO_LANE),
        open_start=torch.tensor([[True, False]]),
        open_end=torch.tensor([[False, True]]),
    )
    assert Roadway.of(joined, HERE_M).closed == []


def test_the_middle_of_the_road_lies_left_of_the_right_lane() -> None:
    at = np.array([[100.0, 0.0], [100.0, -12.0]])
    assert road_middle_m(Road.straight(4), at, np.zeros(2)).tolist() == [-6.0, 6.0]


def test_the_leader_is_the_next_car_ahead_in_the_lane_and_the_gap_is_between_bumpers() -> None:
    episode = highway_episode(steps=3, cars=8)
    readings = Readings.of(episode)
    assert readings.leader[0] == 1
    lengths = episode.states.length_m[0, :2].sum().item() / 2
    apart = (episode.states.position_m[0, 1, 0] - episode.states.position_m[0, 0, 0]).item()
    assert readings.gap_m[0] == pytest.approx(apart - lengths, abs=1e-3)
    fronts = readings.gap_m[0] + episode.states.length_m[0, 1].item()
    assert readings.headway_s[0] == pytest.approx(fronts / 25, abs=1e-3)


def test_time_to_collision_is_read_only_on_course() -> None:
    episode = highway_episode(steps=3, cars=8)
    speed = episode.states.speed_mps.clone()
    speed[:, 1] = 20.0
    closing = Readings.of(replace(episode, states=replace(episode.states, speed_mps=speed)))
    assert closing.time_to_collision_s[0] == pytest.approx(closing.gap_m[0] / 5, abs=1e-3)
    speed[:, 1] = 30.0
    opening = Readings.of(replace(episode, states=replace(episode.states, speed_mps=speed)))
    assert np.isnan(opening.time_to_collision_s).all()


def test_no_leader_where_the_car_ahead_is_not_seen() -> None:
    episode = highway_episode(steps=3, cars=2)
    valid = episode.states.valid.clone()
    valid[:, 1] = False
    readings = Readings.of(replace(episode, states=replace(episode.states, valid=valid)))
    assert (readings.leader == -1).all()
    assert np.isnan(readings.gap_m).all()


def share_of(image: Image.Image, colour: str) -> float:
    away = np.abs(np.asarray(image).astype(int) - ImageColor.getrgb(colour)[:3]).max(-1)
    return float((away <= 6).mean())


@pytest.mark.parametrize(("theme", "colours"), [("light", LIGHT), ("dark", DARK)])
def test_a_picture_shows_the_ego_the_road_and_the_costs(theme: str, colours: dict[str, str]) -> None:
    picture = FrameArtist(highway_episode(steps=20, cars=6), 640, 368, theme).draw(7.5)
    assert picture.size == (640, 368)
    assert share_of(picture, colours["ego"]) > 0.002
    assert share_of(picture, colours["asphalt"]) > 0.1
    assert share_of(picture, colours["term-proximity"]) > 0.01


def test_no_future_is_drawn_for_who_was_not_imagined() -> None:
    """Neither in a film nor on a page; the cars themselves and the ego's plan stay."""
    episode = highway_episode(steps=20, cars=6)

    def known(cars: int) -> Episode:
        imaginations = {}
        for step, imagined in episode.imaginations.items():
            futures = imagined.futures_m.clone()
            futures[:, :, :, cars:] = torch.nan
            imaginations[step] = replace(imagined, futures_m=futures)
        return replace(episode, imaginations=imaginations)

    def purple(episode: Episode) -> int:
        picture = np.asarray(FrameArtist(episode, 960, 544).draw(7.5)).astype(int)
        return int((picture[..., 2] - picture[..., 1] > 20).sum())

    nobody, everybody = purple(known(1)), purple(episode)
    assert nobody < purple(known(3)) < everybody
    assert share_of(FrameArtist(known(1), 960, 544).draw(7.5), LIGHT["ego"]) > 0.002
    for cars in (1, 3):
        header = header_of(pack(known(cars)))
        assert [car for each in header["imaginations"] for car in each["cars"] if car >= cars] == []
        assert {car for each in header["imaginations"] for car in each["cars"]} == set(range(1, cars))


@pytest.mark.parametrize(("theme", "colours"), [("light", LIGHT), ("dark", DARK)])
def test_whom_a_concept_is_about_is_ringed_from_then_on(theme: str, colours: dict[str, str]) -> None:
    episode = highway_episode(steps=20, cars=6)
    told = FrameArtist(attending(episode, 2, since=10), 640, 368, theme)
    untold = FrameArtist(episode, 640, 368, theme)
    assert told.draw(9.5).tobytes() == untold.draw(9.5).tobytes()
    assert share_of(untold.draw(12.5), colours["attended"]) == 0
    assert share_of(told.draw(12.5), colours["attended"]) > 0.0003


def test_who_is_attended_to_but_gone_is_not_ringed() -> None:
    episode = attending(highway_episode(steps=20, cars=6), 2)
    valid = episode.states.valid.clone()
    valid[8:, 2] = False
    artist = FrameArtist(replace(episode, states=replace(episode.states, valid=valid)), 640, 368)
    assert share_of(artist.draw(6.0), LIGHT["attended"]) > 0.0003
    assert share_of(artist.draw(8.0), LIGHT["attended"]) == 0


def test_a_page_holds_whom_a_concept_is_about_by_the_places_of_its_cars() -> None:
    episode = attending(highway_episode(steps=20, cars=6), 2, 4, since=10)
    valid = episode.states.valid.clone()
    valid[:, 1] = False  # never there: left out of the page
    header = header_of(pack(replace(episode, states=replace(episode.states, valid=valid))))
    assert [(each["step"], each["attended"]) for each in header["imaginations"]] == [
        (0, []),
        (5, []),
        (10, [1, 3]),
        (15, [1, 3]),
    ]
    assert [header["cars"][place]["name"] for place in (1, 3)] == [2, 4]
    untaught = header_of(pack(highway_episode(steps=20, cars=6)))
    assert all(each["attended"] is None for each in untaught["imaginations"])


def header_of(packed: bytes) -> dict:
    raw = zlib.decompress(packed)
    return json.loads(raw[4 : 4 + int.from_bytes(raw[:4], "little")])


def test_a_picture_without_cost_terms_shows_the_speed_instead() -> None:
    bare = replace(highway_episode(steps=20, cars=6), costs={})
    assert share_of(FrameArtist(bare, 640, 368).draw(20.0), LIGHT["ego"]) > 0.1


def test_the_last_picture_of_a_crash_marks_it() -> None:
    artist = FrameArtist(highway_episode(steps=20, cars=6, outcome="collision"), 640, 368)
    assert share_of(artist.draw(10.0), LIGHT["crash"]) == 0
    assert share_of(artist.draw(20.0), LIGHT["crash"]) > 0.001


def test_mp4_has_the_size_the_rate_and_every_picture(tmp_path: Path) -> None:
    episode, config, drawn = highway_episode(steps=10, cars=4), FilmConfig(width_px=320), []
    write_film(episode, tmp_path / "a.mp4", config, lambda: drawn.append(1))
    with imageio.get_reader(tmp_path / "a.mp4", format="FFMPEG") as film:  # type: ignore[arg-type]
        about = film.get_meta_data()
        frames = [np.asarray(frame) for frame in film]
    assert about["fps"] == 20
    assert about["size"] == (320, 176)
    assert len(frames) == len(drawn) == len(config.times(episode, ".mp4")) == 20 + 30
    assert np.abs(frames[0].astype(int) - frames[19]).mean() > 0.5
    assert frames[0].std() > 20
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


def test_gif_moves(tmp_path: Path) -> None:
    write_film(highway_episode(steps=10, cars=4), tmp_path / "a.gif", FilmConfig(width_px=320))
    with Image.open(tmp_path / "a.gif") as film:
        assert film.size == (320, 176)
        assert film.n_frames > 8  # type: ignore[attr-defined]
        first = np.asarray(film.convert("RGB")).copy()
        film.seek(6)
        assert (np.asarray(film.convert("RGB")) != first).any()


@pytest.mark.parametrize("values", [{"width_px": 500}, {"speed": 0.0}, {"frames_per_second": 100.0}])
def test_unusable_film_settings_are_refused_with_one_line(values: dict[str, float]) -> None:
    with pytest.raises(InputError, match=r"film\.\w+: expected") as error:
        FilmConfig(**values)  # type: ignore[arg-type]
    assert "\n" not in str(error.value)


def test_terms_without_a_colour_of_their_own_differ_from_each_other() -> None:
    terms = ["lane", "tollbooth", "snow"]
    assert len({term_colour(terms, place) for place in range(3)}) == 3

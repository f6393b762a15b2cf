"""`drivecast replay`: an episode as a page or a film."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from drivecast.envs.replay import caption
from drivecast.envs.replay.authorship import is_ours
from drivecast.envs.replay.episode import Episode
from drivecast.envs.replay.film import FilmConfig, write_film
from drivecast.envs.replay.page import write_page
from drivecast.scripts.command.output import refuse_foreign_file
from drivecast.scripts.tracking.run import Run
from drivecast.worldmodel.errors import InputError

PAGE, FILMS = ".html", (".mp4", ".gif")


@dataclass(frozen=True)
class ReplayConfig:
    """Turn an episode into something to look at: one HTML file that works offline, or a film.

    Args:
        episode: File of an episode that `drivecast evaluate` kept (.parquet), or a folder of them.
        output: File to write: .html, .mp4 or .gif. Default: the episode's name with .html. For a folder of episodes:
            the folder of pages to write, with an index.html; default: the same folder.
        film: How an .mp4 or .gif looks.
    """

    episode: Path
    output: Path | None = None
    film: FilmConfig = field(default_factory=FilmConfig)


def run(config: ReplayConfig, run: Run) -> None:
    """Write the replay and store it with the run."""
    if config.episode.is_dir():
        from drivecast.envs.replay.gallery import INDEX, find_episodes, page_of, write_gallery

        paths = find_episodes(config.episode)
        output = config.output or config.episode
        if output.suffix in (PAGE, *FILMS):
            raise InputError(
                f"{output}: {config.episode} is a folder of episodes; give a folder to write their pages to"
            )
        for page in [output / INDEX, *(output / page_of(path, config.episode) for path in paths)]:
            refuse_foreign_file(page, is_ours(page))
        with run.progress(len(paths), "replays") as progress:
            index = write_gallery(config.episode, paths, output, lambda: progress.advance())
        run.log_artifact(output, "replays")
        run.say(f"{index}: {len(paths)} replays")
        return
    output = config.output or config.episode.with_suffix(PAGE)
    if output.suffix not in (PAGE, *FILMS):
        raise InputError(
            f"{output}: expected a name ending in .html, .mp4 or .gif, got {output.suffix or 'no ending'!r}"
        )
    refuse_foreign_file(output, is_ours(output))
    episode = Episode.read(config.episode)
    if output.suffix == PAGE:
        write_page(episode, output)
    else:
        with run.progress(len(config.film.times(episode, output.suffix)), output.name) as progress:
            write_film(episode, output, config.film, lambda: progress.advance())
    run.log_artifact(output, "replays")
    run.say(f"{output}: {caption.title(episode)}. {caption.verdict(episode)}")

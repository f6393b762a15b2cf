"""The words under an episode."""

from __future__ import annotations

from drivecast.envs.replay.episode import Episode, EpisodeMetadata

OUTCOMES = {
    "completed": "Completed",
    "collision": "Collision",
    "off_road": "Left the road",
    "timed_out": "Time ran out",
}


def title(episode: Episode) -> str:
    """One line that tells episodes apart."""
    about = episode.metadata
    return f"{about.driver} on {place(about)}, seed {about.seed}"


def place(about: EpisodeMetadata) -> str:
    """The environment, and whose place the ego took in recorded traffic."""
    vehicle = f", {about.recording} vehicle {about.vehicle_id}" if about.recording is not None else ""
    return f"{about.environment}{vehicle}"


def verdict(episode: Episode) -> str:
    """How the episode ended, in a few words."""
    about = episode.metadata
    words = OUTCOMES[about.outcome]
    if about.outcome != "collision":
        return f"{words} after {episode.duration_s:.1f} s"
    party = "" if about.collided_with is None else f" with car {about.collided_with}"
    fault = "" if about.at_fault is None else f": {'' if about.at_fault else 'not '}the ego's fault"
    return f"{words}{party} after {episode.duration_s:.1f} s{fault}"


def details(episode: Episode) -> list[tuple[str, str]]:
    """All there is to know about where an episode came from, as label and value."""
    about = episode.metadata
    rows: list[tuple[str, object]] = [
        ("Driver", about.driver),
        ("Environment", about.environment),
        ("Recording", about.recording),
        ("Vehicle", about.vehicle_id),
        ("Seed", about.seed),
        ("Outcome", verdict(episode)),
        ("Steps", f"{episode.steps} of {about.dt_s:g} s"),
        ("Desired speed", None if about.desired_speed_mps is None else f"{about.desired_speed_mps:g} m/s"),
        ("Configuration", about.config_hash or None),
        *((str(key), value) for key, value in about.extras.items()),
    ]
    return [(label, str(value)) for label, value in rows if value is not None]

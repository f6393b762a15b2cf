"""The colours of a replay, on paper and on screen. Hues of Okabe and Ito (2008), told apart by colour-blind people."""

from __future__ import annotations

LIGHT = {
    "page": "#f4f5f7",
    "panel": "#ffffff",
    "line": "#dde1e6",
    "text": "#1a1e23",
    "muted": "#5a6470",
    "accent": "#0b6bb3",
    "good": "#00704f",
    "bad": "#b34700",
    "warn": "#8a5a00",
    "verge": "#d9e2d3",
    "verge-tick": "#a9b6a2",
    "asphalt": "#4b525c",
    "marking": "#f4f6f8",
    "closed": "#f0b429",
    "ego": "#3fb2f5",
    "neutral": "#c9d0d8",
    "slower": "#ff8b3d",
    "faster": "#2fd0a8",
    "leader": "#ffe14d",
    "imagined": "#e7c2ff",
    "weighed": "#c3d4e3",
    "attended": "#ff6ec7",
    "crash": "#ff5a36",
    "plate": "#ffffffdb",
    "expected": "#8d4fc4",
    "term-proximity": "#d55e00",
    "term-lane": "#0072b2",
    "term-speed": "#e69f00",
    "term-comfort": "#009e73",
    "term-off_road": "#cc79a7",
    "term-uncertainty": "#56b4e9",
    "term-other": "#8a8f98",
    "term-more": "#5d3a9b",
}
DARK = LIGHT | {
    "page": "#101316",
    "panel": "#191d22",
    "line": "#2c323a",
    "text": "#e8ebef",
    "muted": "#98a2ae",
    "accent": "#5cb8f5",
    "good": "#3fd6a5",
    "bad": "#ff9a5c",
    "warn": "#f0c05a",
    "verge": "#1c2420",
    "verge-tick": "#4a564f",
    "asphalt": "#343a42",
    "marking": "#d5dae0",
    "plate": "#101316d1",
    "expected": "#c79bf2",
    "term-lane": "#3d9be0",
    "term-more": "#a98ae8",
}
THEMES = {"light": LIGHT, "dark": DARK}
OUTCOME_COLOURS = {"completed": "good", "collision": "crash", "off_road": "crash", "timed_out": "warn"}


def term_colour(terms: list[str], place: int) -> str:
    """Name of the colour of a cost term: its own, or one of two in turn for terms that have none."""
    own = f"term-{terms[place]}"
    if own in LIGHT:
        return own
    others = [name for name in terms if f"term-{name}" not in LIGHT]
    return ("term-other", "term-more")[others.index(terms[place]) % 2]


def style_sheet() -> str:
    """The colours as CSS variables, dark ones where the reader prefers them."""

    def rules(colours: dict[str, str]) -> str:
        return " ".join(f"--{name}: {colour};" for name, colour in colours.items())

    return f":root {{ {rules(LIGHT)} }}\n@media (prefers-color-scheme: dark) {{ :root {{ {rules(DARK)} }} }}\n"

"""Options and configuration files to a verb's config dataclass; what does not fit is told in one line."""

from __future__ import annotations

import dataclasses
import difflib
import json
import re
import textwrap
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from jsonargparse import ArgumentParser, DefaultHelpFormatter, Namespace

from drivecast.scripts.command.verb import VERBS, Verb
from drivecast.scripts.tracking.run import TrackingConfig
from drivecast.worldmodel.errors import InputError

PRESET_FOLDERS = (Path(__file__).resolve().parents[2] / "configs",)  # in a checkout, and in a wheel
FLAGS = {"--help", "-h", "--print_config"}


@dataclasses.dataclass(frozen=True)
class Command:
    """What a verb was asked to do."""

    config: Any
    tracking: TrackingConfig


def parse(verb: Verb, config_class: type[Any], arguments: Sequence[str]) -> Command:
    """Build the verb's config from defaults, `--config` files and options, the later ones first in rank.

    Raises `InputError` with one line; `--help` and `--print-config` print and raise `SystemExit(0)`.
    """
    parser = _Parser(verb, config_class)
    arguments = _with_presets(_canonical(arguments, verb, parser.lists))
    if verb.preset and not any(argument.split("=")[0] == "--config" for argument in arguments):
        arguments = ["--config", str(preset_file(verb.preset)), *arguments]
    parser.given = arguments
    namespace = parser.parse_args(arguments)
    parser.check_groups(namespace)
    try:
        built = parser.instantiate(namespace)
    except ValueError as error:
        raise InputError(_one_line(str(error))) from error
    tracking = built.pop("tracking", TrackingConfig()) if verb.tracked else TrackingConfig(enabled=False)
    built.pop("config", None)
    return Command(_build(config_class, built), tracking)


def preset_file(name: str) -> Path:
    """The file of a preset that comes with drivecast."""
    if name not in (found := _presets()):
        raise InputError(f"{name}.yaml: this preset is missing from {PRESET_FOLDERS[-1]}; give a file with --config")
    return found[name]


def presets_of(verb: Verb) -> list[str]:
    """Names of the presets of a verb: they begin with its name."""
    longer = [other for other in VERBS if other.startswith(verb.name) and other != verb.name]
    return [n for n in _presets() if n.startswith(verb.name) and not any(n.startswith(other) for other in longer)]


def _presets() -> dict[str, Path]:
    return {file.stem: file for folder in reversed(PRESET_FOLDERS) for file in sorted(folder.glob("*.yaml"))}


def config_file(given: str) -> str:
    """The file that `--config` means: one that is there, else the preset NAME, NAME.yaml or configs/NAME.yaml.

    A name that is neither stays as it is, for whoever reads it to refuse.
    """
    path = Path(given)
    if path.is_file() or path.parent not in (Path(), Path("configs")):
        return given
    return str(_presets().get(path.name.removesuffix(".yaml"), given))


def option_types(config_class: type[Any], prefix: str = "") -> dict[str, Any]:
    """The dotted name and type of every value of a (nested) config dataclass."""
    hints = typing.get_type_hints(config_class)
    found: dict[str, Any] = {}
    for field in dataclasses.fields(config_class):
        hint = hints[field.name]
        if dataclasses.is_dataclass(hint):
            found |= option_types(typing.cast(type, hint), f"{prefix}{field.name}.")
        else:
            found[prefix + field.name] = hint
    return found


class _Help(DefaultHelpFormatter):
    """Keeps names whole that are to be copied: lines break at spaces, not at hyphens."""

    def _split_lines(self, text: str, width: int) -> list[str]:
        return textwrap.wrap(" ".join(text.split()), width, break_on_hyphens=False)


class _Parser(ArgumentParser):
    """jsonargparse with one-line errors and a help text that shows options as they are typed."""

    def __init__(self, verb: Verb | None = None, config_class: type[Any] | None = None, **kwargs: Any) -> None:
        if verb is None or config_class is None:  # jsonargparse makes parsers of its own class for nested groups
            super().__init__(**kwargs)
            return
        description = (config_class.__doc__ or verb.summary).split("Args:")[0].split("Attributes:")[0]
        super().__init__(
            prog=f"drivecast {verb.name}",
            description=" ".join(description.split()),
            usage=_usage(verb),
            allow_abbrev=False,
            default_env=False,
            formatter_class=_Help,
        )
        self.given: Sequence[str] = ()
        self.add_argument(
            "--config",
            action="config",
            help="YAML file with any of the values below, or the name of one that comes with drivecast"
            f" ({', '.join(presets_of(verb)) or 'none for this verb'}).",
        )
        self.add_class_arguments(config_class, None)
        self.names = option_types(config_class)
        if verb.tracked:
            self.add_class_arguments(TrackingConfig, "tracking")
            self.names |= option_types(TrackingConfig, "tracking.")
        self.lists = {name for name, hint in self.names.items() if _is_list(hint)}

        for group in self._action_groups:
            if group.title and group.title.rstrip(":") in description:
                group.title = "values"

    def check_groups(self, namespace: Namespace) -> None:
        """Refuse a number or text where a group of values belongs, which jsonargparse lets through."""
        for name in sorted({name.rpartition(".")[0] for name in self.names if "." in name}):
            value = namespace.get(name)
            if not isinstance(value, Namespace):
                raise InputError(f"{self._place(name)}: expected a group of values, got '{value}'")

    def error(self, message: str, error: Exception | None = None) -> NoReturn:
        raise InputError(self._explain(message)) from error

    def format_help(self, *args: Any, **kwargs: Any) -> str:
        text = super().format_help(*args, **kwargs)
        text = re.sub(r"<class\s+'([\w.]*\.)?(\w+)'>", r"\2", text)
        text = re.sub(r", --[\w.]+\+ .*", "", text)  # the second form of a list: options may simply be repeated
        text = re.sub(r"(--[\w.]+) ('\[\"PATH1\".*|\[ITEM,\.\.\.\])", r"\1 VALUE ...", text)
        text = re.sub(r"^  --[\w.]+ CONFIG +Path to a configuration file\.\n", "", text, flags=re.MULTILINE)
        return re.sub(r"--[a-z][\w.]*", lambda option: option[0].replace("_", "-"), text)

    def _explain(self, message: str) -> str:
        message = _one_line(message)
        if found := re.match(r"Parser key \"([\w.]+)\": ?(.*)", message):
            key, rest = found.groups()
            rest = re.sub(r"<class '([\w.]*\.)?(\w+)'>", r"\2", rest).replace("typing.", "").replace("Expected a ", "")
            rest = re.sub(r"\. Got value: (.*)$", r", got '\1'", rest)
            expectation = f"expected {rest}" if ", got " in rest else rest
            return f"{self._place(key)}: {expectation}"
        if found := re.match(r"Group '([\w.]+)' does not accept option '([\w.]+)'", message):
            return self._unknown(f"{found[1]}.{found[2]}")
        if found := re.match(r"Option '([\w.]+)' is not accepted", message):
            return self._unknown(found[1])
        if found := re.match(r"unrecognized arguments: (\S+)", message):
            key = found[1].split("=")[0]
            return self._unknown(key.removeprefix("--")) if key.startswith("--") else f"{key}: unknown argument"
        if found := re.match(r"the following arguments are required: (.*)", message):
            missing = ", ".join("--" + name.strip().replace("_", "-") for name in found[1].split(","))
            return f"missing: {missing}"
        if found := re.match(r"argument (--[\w.]+).*: expected one argument", message):
            return f"{found[1].removeprefix('--')}: expected a value, got none"
        if message.startswith(("Problems parsing config: ", "Unexpected config: ")):
            kind, _, rest = message.partition(": ")
            expected = "expected 'name: value' lines" if kind.startswith("Unexpected") else "not readable as YAML"
            return f"{self._files()[-1]}: {expected}, got '{rest}'" if self._files() else message
        return message

    def _files(self) -> list[str]:
        after = zip(self.given, [*self.given[1:], ""], strict=True)
        return [option.partition("=")[2] or value for option, value in after if option.partition("=")[0] == "--config"]

    def _unknown(self, key: str) -> str:
        close = difflib.get_close_matches(key, self.names, n=1)
        hint = f"; did you mean '{close[0]}'?" if close else "; --help lists the known ones"
        return f"{self._place(key)}: unknown key{hint}"

    def _place(self, key: str) -> str:
        """The key, and the file it stands in where it was not given as an option."""
        options = {argument.split("=")[0] for argument in self.given}
        given = any(option == f"--{key}" or option.startswith(f"--{key}.") for option in options)
        return key if given or key == "config" or not self._files() else f"{self._files()[-1]}: {key}"


def _canonical(arguments: Sequence[str], verb: Verb, lists: set[str]) -> list[str]:
    """Options with underscores, positionals and short options by their name, repeated values of a list as one list."""
    shorts = {short: f"--{name}" for short, name in verb.short}
    positional = list(verb.positional)
    gathered: dict[str, list[str]] = {}
    result: list[str] = []
    rest = list(arguments)
    while rest:
        token = rest.pop(0)
        if not _is_option(token):
            if not positional:
                raise InputError(f"{token}: unknown argument; values are given as --name VALUE")
            result += [f"--{positional.pop(0)}", token]
            continue
        option, equals, value = token.partition("=")
        option = shorts.get(option, option.replace("-", "_").replace("__", "--", 1) if len(option) > 2 else option)
        name = option.removeprefix("--")
        if name in lists:
            values = [value] if equals else []
            while not equals and rest and not _is_option(rest[0]):
                values.append(rest.pop(0))
            if not values:
                raise InputError(f"{name}: expected a value, got none")
            gathered.setdefault(name, []).extend(values)
        elif equals or option in FLAGS or option == "-h":
            result.append(f"{option}{equals}{value}")
        else:
            result.append(option)
            if rest and not _is_option(rest[0]):
                result.append(rest.pop(0))
    for name, values in gathered.items():
        whole = len(values) == 1 and values[0].startswith("[")
        result.append(f"--{name}={values[0] if whole else json.dumps(values)}")
    return result


def _with_presets(arguments: Sequence[str]) -> list[str]:
    """Arguments whose `--config` names the file itself."""
    result: list[str] = []
    for token in arguments:
        if result[-1:] == ["--config"]:
            token = config_file(token)
        elif token.startswith("--config="):
            token = f"--config={config_file(token.partition('=')[2])}"
        result.append(token)
    return result


def _is_option(token: str) -> bool:
    return token.startswith("-") and len(token) > 1 and not re.match(r"-[\d.]", token)


def _is_list(hint: Any) -> bool:
    if typing.get_origin(hint) in (list, tuple):
        return True
    return any(_is_list(choice) for choice in typing.get_args(hint)) if _is_union(hint) else False


def _is_union(hint: Any) -> bool:
    import types

    return typing.get_origin(hint) in (typing.Union, types.UnionType)


def _build(config_class: type[Any], values: Any) -> Any:
    try:
        return config_class(**{field.name: values[field.name] for field in dataclasses.fields(config_class)})
    except ValueError as error:
        raise InputError(_one_line(str(error))) from error


def _usage(verb: Verb) -> str:
    positional = "".join(f" {name.upper()}" for name in verb.positional)
    shorts = "".join(f" {short} {name.upper()}" for short, name in verb.short)
    return f"drivecast {verb.name}{positional}{shorts} [--config FILE] [--name VALUE] [--group.name VALUE] ..."


def _one_line(text: str) -> str:
    return " ".join(text.split())

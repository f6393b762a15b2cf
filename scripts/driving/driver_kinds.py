"""The kinds of drivers that can be named: the one list that help texts and refusals are made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from drivecast.worldmodel.errors import InputError

PLACE = "{drivers}"  # in a docstring: where the list goes
REGISTERED = "models:/"  # PATH of a registered model begins so
T = TypeVar("T")


@dataclass(frozen=True)
class DriverKind:
    """One kind of driver.

    Attributes:
        form: How it is named; capitals stand for what is to be filled in.
        note: Where it can drive, if not everywhere.
        trained_by: Verb that trains it; empty: it is not trained.
        plans: It plans, by the settings `planner`.
        by_lanes: Chooses its way among lanes side by side; so it cannot follow a route from lane to lane.
    """

    form: str
    note: str = ""
    trained_by: str = ""
    plans: bool = False
    by_lanes: bool = True

    @property
    def name(self) -> str:
        return self.form.partition(":")[0]


DRIVER_KINDS = (
    DriverKind("idm"),
    DriverKind("constant-velocity", by_lanes=False),
    DriverKind("idle", by_lanes=False),
    DriverKind("human", note="recorded traffic only", by_lanes=False),
    DriverKind("idm:SPEED"),
    DriverKind("policy:PATH", trained_by="train-policy"),
    DriverKind(
        "planner:PATH",
        note="around a world model, that of a policy, or a joint embedding",
        trained_by="train-world-model",
        plans=True,
    ),
    DriverKind("sampling-planner:PATH", note="the same without gradients", trained_by="train-world-model", plans=True),
    DriverKind(
        "proposal-planner:PATH", note="the best of a few dozen fixed plans", trained_by="train-world-model", plans=True
    ),
    DriverKind("idm-planner", note="the planner where others follow by IDM, without a learned model", plans=True),
    DriverKind("constant-velocity-planner", note="the planner where others hold their speed", plans=True),
    DriverKind("pretrained:NAME", note="a policy that comes with drivecast", trained_by="train-policy"),
    DriverKind("pretrained-planner:NAME", note="planner:pretrained:NAME", trained_by="train-world-model", plans=True),
    DriverKind("ppo:PATH", trained_by="train-baseline"),
    DriverKind("dqn:PATH", trained_by="train-baseline"),
    DriverKind("tqc:PATH", trained_by="train-baseline"),
    DriverKind("idm:NAME", note="a file of parameters, see tune-idm"),
    DriverKind("rule"),
    DriverKind("ceiling", note="a bound: it looks into the simulator; highway-* only", plans=True),
)
NETS = ("rss", "r157")  # NET:DRIVER is a driver under a safety net (`drivecast.envs.drivers.safety_net`)
TIED_TO_TRAFFIC = ("human", "ceiling")  # replays its ego, or drives copies of it
PLAIN_DRIVERS = tuple(kind.form for kind in DRIVER_KINDS if ":" not in kind.form)
TRAINED_BY = {kind.name: kind.trained_by for kind in DRIVER_KINDS if kind.trained_by}  # kind of KIND:PATH: the verb
PLANNING = tuple(kind.name for kind in DRIVER_KINDS if kind.plans)
ROUTED = ("roundabout-v0", "roundabout-v1")  # the ego's way leads from lane to lane, and its goal does not say where
WITHOUT_ROUTE = tuple(kind.form for kind in DRIVER_KINDS if not kind.by_lanes and not kind.note)


def without_net(driver: str) -> tuple[str, str]:
    """The safety net of NET:DRIVER and the driver; no net of any other driver."""
    net, _, under = driver.partition(":")
    return (net, under) if net in NETS else ("", driver)


def kind_of(driver: str) -> str:
    """`policy` of policy:PATH, and of rss:policy:PATH."""
    return without_net(driver)[1].partition(":")[0]


def kind_under_net(driver: str) -> str:
    """`policy` of policy:PATH, and `rss:policy` of rss:policy:PATH."""
    return ":".join(filter(None, (without_net(driver)[0], kind_of(driver))))


def check_route(driver: str, environment: str) -> None:
    """Refuse a driver that would stand at the end of its first lane."""
    if environment in ROUTED and kind_of(driver) not in WITHOUT_ROUTE:
        raise InputError(
            f"driver '{driver}': {environment} asks for a route from lane to lane, which it does not know; "
            f"only {' and '.join(WITHOUT_ROUTE)} can be driven there"
        )


def without_destination(environment: str) -> bool:
    """Whether its task is to leave the road at an exit, of which a goal (a speed and a lane) says nothing."""
    return environment.startswith("exit-")


def named_drivers() -> str:
    """All forms of names, for a refusal."""
    return f"{', '.join(kind.form for kind in DRIVER_KINDS)}; or {' or '.join(NETS)}:DRIVER"


def explains_drivers(config_class: type[T]) -> type[T]:
    """Put the list of drivers in the place that the docstring of a config keeps for it."""
    forms = ", ".join(kind.form + (f" ({kind.note})" if kind.note else "") for kind in DRIVER_KINDS)
    text = (
        f"{forms}; PATH: a file, a folder, models:/NAME/VERSION of the registry, or planner:pretrained:NAME; "
        f"{' or '.join(f'{net}:DRIVER' for net in NETS)}: the same under a safety net"
    )
    if config_class.__doc__:  # python -OO has none
        config_class.__doc__ = config_class.__doc__.replace(PLACE, text)
    return config_class

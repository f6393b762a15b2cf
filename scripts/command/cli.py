"""The command `drivecast VERB --config FILE --a.b value`."""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType

from drivecast.scripts.command.verb import VERBS, Verb
from drivecast.worldmodel.errors import InputError

INPUT_ERROR, INTERRUPTED, TERMINATED = 2, 130, 143


class Terminated(KeyboardInterrupt):
    """The process was asked to end: by SIGTERM, as job schedulers do, or by SIGHUP, as a terminal that is closed."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a verb; returns the exit status. An unexpected exception passes through, with its traceback."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] in ("-h", "--help"):
        sys.stdout.write(_overview())
        return 0 if arguments else INPUT_ERROR
    if arguments[0] == "--version":
        from importlib.metadata import version

        sys.stdout.write(f"drivecast {version('drivecast')}\n")
        return 0
    try:
        _run(_verb(arguments[0]), arguments[1:])
    except InputError as error:
        return _fail(str(error), INPUT_ERROR)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        return _fail(f"{error.filename or 'disk'}: {error.strerror}; make room and start again", INPUT_ERROR)
    except Terminated:
        return _fail("terminated", TERMINATED)
    except KeyboardInterrupt:
        return _fail("interrupted", INTERRUPTED)
    return 0


def _run(verb: Verb, arguments: Sequence[str]) -> None:
    from drivecast.scripts.command.execution import execute
    from drivecast.scripts.command.parsing import parse

    _, config_class = verb.load()
    command = parse(verb, config_class, arguments)
    previous = {number: signal.signal(number, _terminate) for number in _asked_to_end()}
    try:
        execute(verb, command.config, command.tracking)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _asked_to_end() -> list[signal.Signals]:
    """Signals to end in order at; not one that is ignored, as SIGHUP is under nohup."""
    if not _in_main_thread():
        return []
    named = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    return [number for number in named if signal.getsignal(number) is not signal.SIG_IGN]


def _verb(name: str) -> Verb:
    if name not in VERBS:
        raise InputError(f"{name}: unknown verb; expected one of {', '.join(VERBS)}")
    return VERBS[name]


def _in_main_thread() -> bool:
    import threading

    return threading.current_thread() is threading.main_thread()


MAIN_PROCESS = os.getpid()


def _terminate(number: int, frame: FrameType | None) -> None:
    if os.getpid() != MAIN_PROCESS:  # a forked worker: no unwinding there
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    raise Terminated


def _fail(line: str, status: int) -> int:
    sys.stdout.flush()
    sys.stderr.write(f"drivecast: {' '.join(line.split())}\n")
    return status


def _overview() -> str:
    width = max(map(len, VERBS)) + 2
    verbs = "\n".join(f"  {verb.name:<{width}}{verb.summary}" for verb in VERBS.values())
    return (
        "usage: drivecast VERB [--config FILE] [--name VALUE] [--group.name VALUE] ...\n\n"
        "Learn how traffic moves from recordings, then train a driver by backpropagating a cost\n"
        "through imagined futures.\n\n"
        f"verbs:\n{verbs}\n\n"
        "drivecast VERB --help          explains every value of the verb, with its unit\n"
        "drivecast VERB --print-config  prints its configuration, to be changed and given with --config\n"
    )


if __name__ == "__main__":
    sys.exit(main())

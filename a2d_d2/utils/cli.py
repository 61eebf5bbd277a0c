"""What every command line of the project shares."""

import contextlib
import logging
import os
import re
import sys
from collections.abc import Callable, Sequence

_LONGEST = 1000  # characters of a message
_KEY = re.compile(r"[A-Za-z_]\w*(\.\w+)+|[A-Z][A-Z0-9_]*")  # "SOLVER.MAX_ITER", "SEED"


def one_line(error: BaseException) -> str:
    """The message of an error on one line that is safe to print.

    Line breaks become spaces and other characters that cannot be seen, such as the escape sequences
    that a file name may hold, their escapes; the middle of a very long message is left out.
    """
    text = " ".join(str(error).split())
    if len(text) > _LONGEST:
        text = f"{text[: _LONGEST // 2]} ... {text[-_LONGEST // 2 :]}"
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def counted(number: int, noun: str) -> str:
    """ "no tracks", "1 track", "2 tracks" """
    return f"{number or 'no'} {noun}{'' if number == 1 else 's'}"


def split_options(flag: str, words: Sequence[str]) -> tuple[list[str], list[str]]:
    """What argparse gives a flag of any number of words, and the KEY VALUE pairs that follow it.

    The pairs begin at the first word that looks like a key of the configuration.

    Raises:
        ValueError: nothing is left for the flag.
    """
    place = next((i for i, word in enumerate(words) if _KEY.fullmatch(word)), len(words))
    if words and not place:
        raise ValueError(f"{flag} has no value before {words[0]}")
    return list(words[:place]), list(words[place:])


def check_not_negative(**numbers: int) -> None:
    """ValueError when a number is less than 0; names its option."""
    for name, value in numbers.items():
        if value < 0:
            raise ValueError(f"--{name} is {value}; it must be at least 0")


class _LostLines:
    """In place of ``logging.Handler.handleError``, which prints a traceback for each line.

    A log that cannot be written, as on a full disk, is said once for each file.
    """

    def __init__(self):
        self._print_traceback = logging.Handler.handleError
        self._said = set()

    def __call__(self, handler: logging.Handler, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            self._print_traceback(handler, record)
            return
        name = getattr(getattr(handler, "stream", None), "name", type(handler).__name__)
        if name not in self._said and sys.stderr:
            self._said.add(name)
            with contextlib.suppress(OSError):
                print(  # noqa: T201
                    f"warning: {one_line(error)}: lines of the log to {name} are lost",
                    file=sys.stderr,
                )


def say_lost_lines_once() -> None:
    """In this process a log that cannot be written gives one line; other faults of logging stay."""
    if logging.Handler.handleError.__name__ == "handleError":  # not done yet
        lost = _LostLines()
        logging.Handler.handleError = lambda handler, record: lost(handler, record)


def run_tool(main: Callable[[], int | None]) -> None:
    """Runs a command-line ``main`` and exits with its status.

    A user's mistake (ValueError, OSError) becomes one line on standard error and exit code 2,
    without a traceback; Ctrl-C exits with 130. ``A2D_D2_DEBUG=1`` shows the traceback instead.
    """
    say_lost_lines_once()
    try:
        status = main()
    except (ValueError, OSError) as error:
        if os.environ.get("A2D_D2_DEBUG"):
            raise
        print(f"error: {one_line(error)}", file=sys.stderr)  # noqa: T201
        status = 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)  # noqa: T201
        status = 130
    sys.exit(status or 0)

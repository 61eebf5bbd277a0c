"""What every command line of the project shares."""

import os
import sys
from collections.abc import Callable


def run_tool(main: Callable[[], int | None]) -> None:
    """Runs a command-line ``main`` and exits with its status.

    A user's mistake (ValueError, OSError) becomes one line on standard error and exit code 2,
    without a traceback; Ctrl-C exits with 130. ``A2D_D2_DEBUG=1`` shows the traceback instead.
    """
    try:
        status = main()
    except (ValueError, OSError) as error:
        if os.environ.get("A2D_D2_DEBUG"):
            raise
        message = " ".join(str(error).split())
        print(f"error: {message}", file=sys.stderr)  # noqa: T201
        status = 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)  # noqa: T201
        status = 130
    sys.exit(status or 0)

"""Scripts and configuration files of this checkout."""

import os
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]


def repository_path(path: str) -> str:
    """A file of the repository, given from its top, as short as the current folder allows."""
    absolute = REPOSITORY / path
    relative = os.path.relpath(absolute)
    return str(absolute) if relative.startswith(os.pardir) else relative

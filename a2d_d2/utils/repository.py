"""Scripts and configuration files of this checkout."""

import os
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]


def repository_path(path: str) -> str:
    """A file of the repository, given from its top, as short as the current folder allows."""
    absolute = REPOSITORY / path
    relative = os.path.relpath(absolute)
    return str(absolute) if relative.startswith(os.pardir) else relative


def repository_name(path: str) -> str:
    """An absolute path of the repository as seen from its top; any other as it is."""
    absolute = os.path.realpath(path)
    is_ours = os.path.isabs(path) and absolute.startswith(f"{REPOSITORY.resolve()}{os.sep}")
    return os.path.relpath(absolute, REPOSITORY.resolve()) if is_ours else path

"""What is made of the records at the end of every call."""

import json
from collections.abc import Mapping
from pathlib import Path

import cv2

from a2d_d2.evaluation.predictions import parse_entries
from a2d_d2.experiments.figures import qualitative_picture, zero_shot_picture
from a2d_d2.experiments.page import render_experiment
from a2d_d2.experiments.records import describe_data, read_records
from a2d_d2.experiments.results import summarize_records
from a2d_d2.experiments.systems import all_systems
from a2d_d2.experiments.tables import tables_markdown
from a2d_d2.label_space import LabelSpace
from a2d_d2.utils.files import write_json, write_text
from a2d_d2.visualization.canvas import data_uri, to_picture, write_picture


def write_outputs(output: Path, root: Path | None) -> Path:
    """Writes results.json, tables.md, zero_shot.png, qualitative.png and index.html anew.

    Args:
        output: folder that holds ``records``, or, without them, a results.json made of some.
        root: of the records' release, for the qualitative grid. None keeps the grid that is there,
            if any.

    Returns:
        The path of the page.

    Raises:
        ValueError: there are no records, or some of different settings; or the release at ``root``
            is not that of the records (in all these cases nothing is written) or cannot be read.
    """
    results = summarize_records(_records(output))
    if root is not None:
        _check_release(results, root, output)
    write_json(output / "results.json", results, sort_keys=True)
    write_text(output / "tables.md", tables_markdown(results))
    pictures = {}
    if results["zero_shot"]:
        write_picture(output / "zero_shot.png", zero_shot_picture(results["zero_shot"]))
        pictures["zero_shot"] = output / "zero_shot.png"
    grid = output / "qualitative.png"
    if root is not None and (picture := qualitative_picture(results, root)) is not None:
        write_picture(grid, picture)
    if grid.exists():
        pictures["frames"] = grid
    addresses = {
        name: data_uri(to_picture(cv2.imread(str(path)))) for name, path in pictures.items()
    }
    page = output / "index.html"
    write_text(
        page, render_experiment(results, addresses.get("zero_shot"), addresses.get("frames"))
    )
    return page


def _records(output: Path) -> list[dict]:
    path = output / "results.json"
    if (output / "records").is_dir() or not path.exists():
        return read_records(output / "records", _check)
    try:
        systems = json.loads(path.read_text(encoding="utf-8"))["systems"].values()
        return [record for system in systems for record in system["records"]]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} holds no results; delete it") from error


def _check_release(results: Mapping, root: Path, output: Path) -> None:
    """The frames of another release would stand in the grid as if they were the records'."""
    data = results["data"]
    space = LabelSpace.from_dict(results["label_space"])
    other = describe_data(root, space, data["hold_out"])
    different = [key for key, value in other.items() if value != data.get(key)]
    if different:
        raise ValueError(
            f"--root {root} is not the release of the records in {output} (other "
            f"{', '.join(different)}); give theirs, or with --tables-only none, which keeps the "
            "frames that are there"
        )


def _check(record: dict) -> None:
    """Makes of one record what is made of all."""
    render_experiment(summarize_records([record]), None, None)
    dict(record["figures"]["official"]["per_class"]["detection"]["joint"])
    system = all_systems(LabelSpace.from_dict(record["label_space"])).get(record["system"])
    if system is not None and system.is_shown:
        parse_entries(list(enumerate(record["shown"])), LabelSpace.from_dict(record["label_space"]))

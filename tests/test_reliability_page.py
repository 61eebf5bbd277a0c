"""docs/reliability.md names tests that there are."""

import re

from a2d_d2.utils.repository import REPOSITORY


def test_every_test_that_the_page_names_exists():
    text = (REPOSITORY / "docs" / "reliability.md").read_text(encoding="utf-8")
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", text)
    assert len(named) > 20
    for path, name in named:
        source = (REPOSITORY / path).read_text(encoding="utf-8")
        assert re.search(rf"^def {name}\(", source, re.MULTILINE), f"{path}::{name}"
    for path in re.findall(r"\]\(\.\./([^)#]+)", text):
        assert (REPOSITORY / path).exists(), path

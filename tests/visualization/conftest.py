"""What the tests of HTML pages share."""

from html.parser import HTMLParser

import pytest

VOID = {"meta", "img", "br", "path", "circle"}


class Page(HTMLParser):
    """Collects what a page holds; fails on tags that are not closed in order."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] not in (["style"], ["script"]):
            self.text += data + "\n"

    def all(self, tag: str, name: str = "") -> list[dict]:
        """The attributes of the elements of a tag, and of a class if ``name`` is one."""
        return [
            attributes
            for element, attributes in self.elements
            if element == tag and name in (attributes.get("class") or "").split() + [""]
        ]


@pytest.fixture
def parse_page():
    """Turns the text of a page into a Page."""
    return Page

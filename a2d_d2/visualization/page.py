"""The frame of a page that needs no network."""

import html
from collections.abc import Sequence

from a2d_d2.visualization.page_style import PAGE_STYLE


def render_page(
    title: str,
    lead: str,
    sections: Sequence[tuple[str, str, str]],
    *,
    top: str = "",
    footer: str = "",
    style: str = "",
    script: str = "",
) -> str:
    """The page as HTML text.

    Args:
        title, lead, footer: plain text.
        sections: anchor, heading and HTML content of each; those without content are left out.
        top: HTML before the first section.
        style, script: CSS and JavaScript of this page alone.
    """
    sections = [section for section in sections if section[2]]
    links = "".join(f'<a href="#{name}">{heading}</a>' for name, heading, _ in sections)
    navigation = f'<nav aria-label="Sections">{links}</nav>' if len(sections) > 1 else ""
    body = "".join(
        f'<section id="{name}"><h2>{heading}</h2>{content}</section>'
        for name, heading, content in sections
    )
    title = html.escape(title)
    script = f"<script>{script}</script>\n" if script else ""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{title}</title>\n<style>{PAGE_STYLE}{style}</style>\n</head>\n"
        f'<body><div class="page">\n<header><h1>{title}</h1>'
        f'<p class="lead">{html.escape(lead)}</p>'
        f"{navigation}</header>\n"
        f"<main>{top}{body}</main>\n"
        f"<footer><p>{html.escape(footer)}</p></footer>\n</div>\n{script}</body>\n</html>\n"
    )

"""The page of a video with its action timelines."""

import dataclasses
import re

import pytest

from a2d_d2.visualization.video_page import (
    TimelineRow,
    TimelineSegment,
    VideoPage,
    render_video_page,
)


def segment(start, end, action, first, last, color=(255, 0, 0), score=0.875):
    return TimelineSegment(start, end, action, color, score, first, last, (10 + start, 10 + end))


def make_page(**changes):
    rows = [
        TimelineRow(
            number=0,
            color=(255, 64, 64),
            actor="dog",
            segments=[
                segment(0, 2, "running", 1, 20, color=(51, 0, 0)),
                segment(4, 5, "none", 41, 50, color=(255, 255, 0)),
            ],
        ),
        TimelineRow(
            number=12,
            color=(0, 64, 255),
            actor="adult",
            segments=[segment(1, 1.5, "walking", 11, 15)],
        ),
    ]
    page = VideoPage(
        title="holiday.mov",
        summary="50 frames.",
        problem=None,
        video="holiday.mp4",
        no_video="none was asked for.",
        size=(240, 320),
        duration=5.0,
        rows=rows,
        footer="How.",
    )
    return dataclasses.replace(page, **changes)


def test_video_beside_one_row_for_each_track(parse_page):
    page = parse_page(render_video_page(make_page()))
    (video,) = page.all("video")
    assert video["src"] == "./holiday.mp4" and "controls" in video
    assert (video["width"], video["height"]) == ("320", "240")
    assert len(page.all("div", "lane")) == 2
    assert len(page.all("i", "head")) == 1
    assert [number["style"] for number in page.all("b", "number")] == [
        "background:#ff4040;color:#000000",
        "background:#0040ff;color:#ffffff",
    ]
    buttons = page.all("button", "segment")
    assert [(b["data-start"], b["data-end"]) for b in buttons] == [
        ("0.000000", "2.000000"),
        ("4.000000", "5.000000"),
        ("1.000000", "1.500000"),
    ]
    assert [b["style"] for b in buttons] == [
        "left:0.000%;width:40.000%;background:#330000;color:#ffffff",
        "left:80.000%;width:20.000%;background:#ffff00;color:#000000",
        "left:20.000%;width:10.000%;background:#ff0000;color:#ffffff",
    ]
    assert buttons[0]["title"] == (
        "#0 dog: running, frames 1 to 20, 10.00 s to 12.00 s, mean score 0.88"
    )
    assert page.all("div", "timelines")[0]["data-duration"] == "5.000000"
    for text in ("running 0.88", "#12", "adult", "50 frames.", "How.", "0 s", "1 s", "4 s"):
        assert text in page.text
    assert "5 s" not in page.text.splitlines()  # it would stand out at the right


def test_a_segment_of_one_frame(parse_page):
    rows = [TimelineRow(0, (0, 0, 0), "cat", [segment(0, 0.04, "eating", 7, 7)])]
    page = parse_page(render_video_page(make_page(rows=rows, duration=0.04)))
    (button,) = page.all("button", "segment")
    assert button["title"] == "#0 cat: eating, frame 7, 10.00 s, mean score 0.88"
    assert "left:0.000%;width:100.000%" in button["style"]


def test_all_segments_in_time_as_a_table(parse_page):
    page = parse_page(render_video_page(make_page()))
    assert len(page.all("tr")) == 4
    table = page.text[page.text.index("Mean score") :]
    assert re.findall("running|walking|none", table) == ["running", "walking", "none"]


def test_names_are_escaped(parse_page):
    evil = "<b>&\"'#?%.mp4"
    rows = [TimelineRow(0, (0, 0, 0), "<i>dog", [segment(0, 1, '"><u>', 1, 10)])]
    text = render_video_page(make_page(title=evil, video=evil, problem=evil, rows=rows))
    page = parse_page(text)
    assert not page.all("i", "dog") and not page.all("u")
    assert len(page.all("b")) == 2  # "Not whole:" and the number
    (video,) = page.all("video")
    assert video["src"] == "./%3Cb%3E%26%22%27%23%3F%25.mp4"
    assert evil in page.text and "<i>dog" in page.text and '"><u>' in page.text


def test_what_was_lost_is_said(parse_page):
    page = parse_page(render_video_page(make_page(problem="12 of the 50 frames")))
    assert "Not whole:" in page.text and "12 of the 50 frames" in page.text
    assert "Not whole:" not in parse_page(render_video_page(make_page())).text


def test_without_a_video(parse_page):
    page = parse_page(render_video_page(make_page(video=None)))
    assert not page.all("video") and not page.all("script") and not page.all("button")
    assert "No video here: none was asked for." in page.text
    assert len(page.all("span", "segment")) == 3  # the timelines stand alone
    assert not page.all("i", "head")


def test_without_tracks(parse_page):
    page = parse_page(render_video_page(make_page(rows=[])))
    assert page.all("video") and not page.all("div", "lane") and not page.all("table")
    assert "No actor was found." in page.text


@pytest.mark.parametrize(
    ("duration", "labels"),
    [(0.5, ["0 s", "0.1 s", "0.4 s"]), (90, ["0:00", "0:20", "1:20"]), (7200, ["0:00", "1:06:40"])],
)
def test_labels_of_the_axis(duration, labels, parse_page):
    page = parse_page(render_video_page(make_page(duration=duration)))
    lines = page.text.splitlines()
    assert [label for label in labels if label in lines] == labels


def test_needs_no_network():
    text = render_video_page(make_page())
    assert not re.search(r"https?:|url\(|@import|<link|<script src", text)
    assert text.count("<script>") == 1


def test_names_of_strangers_are_text():
    name = "\"'><script>alert(1)</script><img src=x onerror=alert(1)>.mp4"
    page = make_page(title=name, summary=name, problem=name, video=name, footer=name)
    text = render_video_page(page)
    assert text.count("<script") == render_video_page(make_page()).count("<script")
    assert "<img" not in text and "<script>alert" not in text
    assert "&lt;script&gt;" in text


def test_a_file_name_in_another_encoding_keeps_its_address():
    text = render_video_page(make_page(video="\udcff.mp4"))
    assert 'src="./%FF.mp4"' in text

"""The page of a video: the video beside the action timelines of its tracks.

The video is another file in the same folder; without it the timelines stand alone. Nothing else is
needed, and no network.
"""

import html
import urllib.parse
from collections.abc import Sequence
from dataclasses import dataclass

from a2d_d2.visualization.canvas import Color, ink_on
from a2d_d2.visualization.charts import ticks
from a2d_d2.visualization.page import render_page


@dataclass(frozen=True)
class TimelineSegment:
    """Consecutive frames on which a track has one action.

    Attributes:
        start, end: seconds of the written video.
        action: its name.
        color: of the pair.
        score: mean p(actor) * p(action).
        first, last: 1-based numbers of the first and the last frame.
        times: seconds of the first and the last frame in the source.
    """

    start: float
    end: float
    action: str
    color: Color
    score: float
    first: int
    last: int
    times: tuple[float, float]


@dataclass(frozen=True)
class TimelineRow:
    """A track.

    Attributes:
        number: its identity.
        color: of the identity, as in the video.
        actor: its name.
        segments: in time.
    """

    number: int
    color: Color
    actor: str
    segments: Sequence[TimelineSegment]


@dataclass(frozen=True)
class VideoPage:
    """What the page tells.

    Attributes:
        title: name of the source.
        summary: what was computed, a sentence.
        problem: what was lost, or None.
        video: name of the video's file, in the folder of the page; None without one.
        no_video: says why there is no video.
        size: (height, width) of the video.
        duration: seconds of the written video.
        rows: the tracks.
        footer: how the results came about.
    """

    title: str
    summary: str
    problem: str | None
    video: str | None
    no_video: str
    size: tuple[int, int]
    duration: float
    rows: Sequence[TimelineRow]
    footer: str


def render_video_page(page: VideoPage) -> str:
    """The page as HTML text, all names escaped."""
    watch = f'<div class="watch">{_player(page)}{_timelines(page)}</div>'
    problem = (
        f'<p class="card problem"><b>Not whole:</b> {html.escape(page.problem)}</p>'
        if page.problem
        else ""
    )
    return render_page(
        page.title,
        page.summary,
        [("segments", "All segments", _table(page))],
        top=problem + watch,
        footer=page.footer,
        style=_STYLE,
        script=_SCRIPT if page.video else "",
    )


def _player(page: VideoPage) -> str:
    if page.video is None:
        return f'<div class="card player"><p>No video here: {html.escape(page.no_video)}</p></div>'
    height, width = page.size
    address = html.escape("./" + urllib.parse.quote(page.video, errors="surrogateescape"))
    return (
        f'<div class="card player"><video src="{address}" width="{width}" height="{height}" '
        f'controls muted playsinline preload="auto">This browser plays no video; the file is '
        f'<a href="{address}">{html.escape(page.video)}</a>.</video></div>'
    )


def _timelines(page: VideoPage) -> str:
    if not page.rows:
        return '<div class="card"><p>No actor was found.</p></div>'
    duration = max(page.duration, 1e-3)
    axis = "".join(
        f'<span class="at" style="left:{100 * second / duration:.3f}%">'
        f"{_clock(second, duration)}</span>"
        for second in ticks(0, duration, 5)
        if second < 0.92 * duration  # the text of a later one would stand out of the card
    )
    rows = "".join(_row(row, page, duration) for row in page.rows)
    head = '<i class="head"></i>' if page.video else ""
    note = (
        '<p class="note">Click on a segment to see it. '
        if page.video
        else '<p class="note">Seconds from the first frame. '
    )
    return (
        f'<div class="card"><div class="timelines" data-duration="{duration:.6f}">'
        f'<div class="row"><span></span><div class="axis">{axis}</div></div>{rows}{head}</div>'
        f"{note}The number is the mean of p(actor) · p(action).</p></div>"
    )


def _row(row: TimelineRow, page: VideoPage, duration: float) -> str:
    name = html.escape(row.actor)
    number = (
        f'<b class="number" style="background:{_css(row.color)};color:{_css(ink_on(row.color))}">'
        f"#{row.number}</b>"
    )
    segments = ""
    for segment in row.segments:
        left = 100 * segment.start / duration
        width = 100 * (segment.end - segment.start) / duration
        title = html.escape(f"#{row.number} {row.actor}: {_describe(segment)}")
        place = (
            f'style="left:{left:.3f}%;width:{width:.3f}%;background:{_css(segment.color)};'
            f'color:{_css(ink_on(segment.color))}" title="{title}"'
        )
        text = f"{html.escape(segment.action)} {segment.score:.2f}"
        if page.video:
            segments += (
                f'<button class="segment" data-start="{segment.start:.6f}" '
                f'data-end="{segment.end:.6f}" aria-label="{title}" {place}>{text}</button>'
            )
        else:
            segments += f'<span class="segment" {place}>{text}</span>'
    return (
        f'<div class="row"><span class="who" title="#{row.number} {name}">{number}{name}</span>'
        f'<div class="lane">{segments}</div></div>'
    )


def _describe(segment: TimelineSegment) -> str:
    first, last = segment.times
    where = (
        f"frame {segment.first}, {first:.2f} s"
        if segment.first == segment.last
        else f"frames {segment.first} to {segment.last}, {first:.2f} s to {last:.2f} s"
    )
    return f"{segment.action}, {where}, mean score {segment.score:.2f}"


def _table(page: VideoPage) -> str:
    order = [(segment, row) for row in page.rows for segment in row.segments]
    order.sort(key=lambda pair: (pair[0].first, pair[1].number))
    rows = "".join(
        f'<tr><th scope="row">#{row.number} {html.escape(row.actor)}</th>'
        f"<td>{html.escape(segment.action)}</td><td>{segment.times[0]:.2f}</td>"
        f"<td>{segment.times[1]:.2f}</td><td>{segment.first}</td><td>{segment.last}</td>"
        f"<td>{segment.score:.2f}</td></tr>"
        for segment, row in order
    )
    if not rows:
        return ""
    names = ("Track", "Action", "From (s)", "To (s)", "From frame", "To frame", "Mean score")
    heads = "".join(f'<th scope="col">{name}</th>' for name in names)
    return (
        '<div class="card wide"><table class="segments">'
        f"<thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _clock(seconds: float, duration: float) -> str:
    """0.5 s, 12 s, 1:05 or 1:00:05, as exact as an axis of ``duration`` seconds needs."""
    if duration < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _css(color: Color) -> str:
    return "#{:02x}{:02x}{:02x}".format(*color)


_STYLE = """
h1 { overflow-wrap: anywhere; }
.problem { border-left: 4px solid var(--two); max-width: none; margin-bottom: 14px; }
.watch { display: grid; grid-template-columns: 1fr 1fr; gap: 14px; align-items: start; }
.watch > * { min-width: 0; }
.player { position: sticky; top: 14px; padding: 10px; }
.player p { margin: 8px; }
.player video { display: block; width: 100%; height: auto; max-height: 78vh; border-radius: 5px;
  background: #000000; }
.timelines { position: relative; --label: 112px; --at: 0; }
.row { display: grid; grid-template-columns: var(--label) 1fr; align-items: center;
  margin-bottom: 5px; }
.row > * { min-width: 0; }
.who { font-size: 14px; white-space: nowrap; overflow: hidden; text-overflow: ellipsis;
  padding-right: 8px; }
.number { display: inline-block; min-width: 30px; text-align: center; font-size: 12px;
  border-radius: 4px; padding: 0 5px; margin-right: 7px; font-variant-numeric: tabular-nums; }
.axis { position: relative; height: 20px; }
.at { position: absolute; font-size: 12px; color: var(--muted); white-space: nowrap;
  border-left: 1px solid var(--rule); padding-left: 4px; font-variant-numeric: tabular-nums; }
.lane { position: relative; height: 28px; background: var(--track); border-radius: 5px;
  overflow: hidden; }
.segment { position: absolute; top: 0; bottom: 0; min-width: 3px; margin: 0; padding: 0 6px;
  border: 1px solid rgba(128, 128, 128, 0.55); border-radius: 5px; font: inherit; font-size: 12px;
  line-height: 26px; text-align: left; white-space: nowrap; overflow: hidden;
  text-overflow: clip; }
button.segment { cursor: pointer; }
button.segment:hover, button.segment:focus-visible, .segment.now {
  outline: 2px solid var(--ink); outline-offset: -2px; }
.timelines[data-video] .lane, .timelines[data-video] .axis { cursor: pointer; }
.head { position: absolute; top: 0; bottom: 0; width: 2px; background: var(--ink);
  left: calc(var(--label) + (100% - var(--label)) * var(--at)); pointer-events: none; }
.watch .note { margin: 12px 0 0; font-size: 13px; }
table.segments td:nth-child(2) { text-align: left; }
table.segments th:nth-child(2) { text-align: left; }
@media (max-width: 900px) {
  .watch { grid-template-columns: 1fr; }
  .player { position: static; }
  .player video { max-height: 56vh; }
}
@media (max-width: 480px) { .timelines { --label: 92px; } .segment { padding: 0 3px; } }
"""

_SCRIPT = """
(() => {
  const video = document.querySelector("video");
  const timelines = document.querySelector(".timelines");
  if (!timelines) return;
  timelines.dataset.video = "";
  const duration = Number(timelines.dataset.duration);
  const segments = [...timelines.querySelectorAll(".segment")].map((element) => ({
    element, start: Number(element.dataset.start), end: Number(element.dataset.end)}));
  const show = () => {
    const time = video.currentTime;
    timelines.style.setProperty("--at", Math.min(1, time / duration));
    for (const {element, start, end} of segments) {
      element.classList.toggle("now", time >= start && time < end);
    }
  };
  const follow = () => { show(); if (!video.paused) requestAnimationFrame(follow); };
  for (const name of ["loadeddata", "seeking", "seeked", "timeupdate", "pause"]) {
    video.addEventListener(name, show);
  }
  video.addEventListener("play", follow);
  timelines.addEventListener("click", (event) => {
    const segment = event.target.closest(".segment");
    const lane = event.target.closest(".lane, .axis");
    if (segment) {
      // A hair after its start: the frame before must not be shown.
      video.currentTime = Number(segment.dataset.start) + 0.001;
    } else if (lane) {
      const box = lane.getBoundingClientRect();
      video.currentTime = duration * (event.clientX - box.left) / box.width;
    }
  });
  show();
})();
"""

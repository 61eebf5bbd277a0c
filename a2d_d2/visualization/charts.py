"""Line charts as inline SVG, coloured by the page's style sheet."""

import html
import math
from collections.abc import Mapping

from a2d_d2.visualization.training_log import Curve

WIDTH, HEIGHT = 260, 165
LEFT, RIGHT, TOP, BOTTOM = 32, 12, 8, 22  # margins that hold the axes' labels
MAX_POINTS = 300  # of a curve; longer ones are averaged in equal parts


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About ``count`` round numbers in [low, high], at equal steps of 1, 2 or 5 times 10^n."""
    assert high > low
    rough = (high - low) / count
    power = 10 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [i * step for i in range(first, last + 1)]


def number(value: float) -> str:
    """A short form of a number on an axis: 2000 as 2k, 0.0002 as 2e-4."""
    if value and abs(value) < 1e-3:
        mantissa, exponent = f"{value:.1e}".split("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    if abs(value) >= 1000:
        return f"{value / 1000:g}k"
    return f"{value:.4g}"


def thin_out(curve: Curve, limit: int = MAX_POINTS) -> Curve:
    """At most ``limit`` points: means of equal parts of the curve, the last point kept."""
    size = math.ceil(len(curve.values) / limit)
    if size <= 1:
        return curve
    starts = range(0, len(curve.values), size)

    def means(numbers: list) -> list[float]:
        parts = [numbers[i : i + size] for i in starts]
        return [sum(part) / len(part) for part in parts]

    iterations, values = means(curve.iterations), means(curve.values)
    return Curve([*iterations[:-1], curve.iterations[-1]], [*values[:-1], curve.values[-1]])


def line_chart(curves: Mapping[str, Curve], *, title: str) -> str:
    """An SVG chart of one or several curves over the iterations; the vertical axis includes zero.

    Args:
        curves: legend name to curve, at least one, none empty. Their lines get the classes
            ``line-0``, ``line-1`` and so on.
        title: said by screen readers together with the last values.
    """
    thinned = {name: thin_out(curve) for name, curve in curves.items()}
    values = [value for curve in thinned.values() for value in curve.values]
    low, high = min(0.0, *values), max(0.0, *values)
    if low == high:
        high = 1.0
    end = 1 + max(curve.iterations[-1] for curve in thinned.values())  # they count from 0

    def x(iteration: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * iteration / end

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (value - low) / (high - low)

    parts = []
    for tick in ticks(low, high):
        parts.append(
            f'<path class="grid" d="M{LEFT} {y(tick):.1f}H{WIDTH - RIGHT}"/>'
            f'<text class="tick" x="{LEFT - 6}" y="{y(tick) + 4:.1f}" text-anchor="end">'
            f"{number(tick)}</text>"
        )
    for tick in ticks(0, end, 4):
        parts.append(
            f'<text class="tick" x="{x(tick):.1f}" y="{HEIGHT - 6}" text-anchor="middle">'
            f"{number(tick)}</text>"
        )
    for i, curve in enumerate(thinned.values()):
        points = [(x(a), y(b)) for a, b in zip(curve.iterations, curve.values, strict=True)]
        path = "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in points)
        parts.append(f'<path class="line line-{i}" d="{path}"/>')
        marked = points if len(points) <= 12 else points[-1:]
        parts += [
            f'<circle class="dot line-{i}" cx="{a:.1f}" cy="{b:.1f}" r="2.5"/>' for a, b in marked
        ]
    last = ", ".join(f"{name} {curve.values[-1]:.4g}" for name, curve in curves.items())
    label = html.escape(f"{title} over {end} iterations; last values: {last}")
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">'
        + "".join(parts)
        + "</svg>"
    )


def chart_card(title: str, curves: Mapping[str, Curve], digits: str) -> str:
    """A chart with its title and, beside the name of each curve, its last value as HTML.

    Args:
        title: plain text.
        curves: name to curve, at least one.
        digits: format of the last values, as ".1f".
    """
    keys = "".join(
        f'<span><i class="line-{i}"></i>{html.escape(name)} {curve.values[-1]:{digits}}</span>'
        for i, (name, curve) in enumerate(curves.items())
    )
    return (
        f'<figure class="card"><figcaption>{html.escape(title)}<div class="keys">{keys}</div>'
        f"</figcaption>{line_chart(curves, title=title)}</figure>"
    )

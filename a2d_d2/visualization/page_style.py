"""The style sheet of the report page: one column of cards, light and dark."""

PAGE_STYLE = """
:root {
  color-scheme: light dark;
  --ground: #f4f5f7; --card: #ffffff; --ink: #1a1f27; --muted: #5a6473; --rule: #e2e5ea;
  --one: #2563c9; --two: #c2610c; --three: #14805a; --track: #eceef2;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #0e1217; --card: #171c24; --ink: #e7eaef; --muted: #9aa5b4; --rule: #2b333e;
    --one: #74a7ff; --two: #ffab66; --three: #5fd0a3; --track: #252c36;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--ground); color: var(--ink);
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
}
.page { max-width: 1240px; margin: 0 auto; padding: 40px 24px 64px; }
h1 { font-size: 30px; line-height: 1.2; letter-spacing: -0.015em; margin: 0 0 8px; }
h2 { font-size: 20px; letter-spacing: -0.01em; margin: 48px 0 4px; }
h3 { font-size: 14px; margin: 0 0 10px; }
p { margin: 0 0 14px; max-width: 78ch; text-wrap: pretty; }
.lead { color: var(--muted); font-size: 16px; margin-bottom: 18px; }
.note { color: var(--muted); margin-bottom: 16px; }
nav { display: flex; flex-wrap: wrap; gap: 6px 20px; font-size: 14px; margin-bottom: 24px; }
a { color: var(--one); text-decoration: none; }
a:hover, a:focus-visible { text-decoration: underline; }
.card { background: var(--card); border: 1px solid var(--rule); border-radius: 10px;
  padding: 18px; }
.tiles { display: grid; grid-template-columns: repeat(4, 1fr); gap: 14px; }
.tile b { display: block; font-size: 32px; line-height: 1.15; letter-spacing: -0.02em;
  font-variant-numeric: tabular-nums; font-weight: 650; }
.tile span { color: var(--muted); font-size: 14px; }
.pair { display: grid; grid-template-columns: 3fr 2fr; gap: 14px; align-items: start; }

table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 600; font-size: 14px; padding-bottom: 10px; }
th, td { padding: 7px 10px; text-align: right; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
thead th { color: var(--muted); font-weight: 500; font-size: 13px; }
thead tr:last-child th { border-bottom: 1px solid var(--rule); }
thead th.group { text-align: center; color: var(--ink); font-weight: 600; }
tbody th { font-weight: 500; }
td.first, th.first { border-left: 1px solid var(--rule); }
td.best { font-weight: 650; }
td.middle, thead th.middle { text-align: center; }

.wide { margin-bottom: 14px; overflow-x: auto; }
.wide table { font-size: 14px; }
.wide th, .wide td { white-space: nowrap; padding: 6px 8px; }
.wide p { margin: 12px 0 0; font-size: 13px; }
.wide td.source, .wide .published td, .wide .published th { color: var(--muted); }
.wide td.source { text-align: left; font-size: 13px; }
.wide .measured td { font-weight: 600; }
.wide .measured td.source { font-weight: 400; }
.picture { overflow-x: auto; background: #ffffff; }
.picture img { display: block; width: 100%; min-width: 640px; height: auto; }

.charts { display: grid; grid-template-columns: repeat(4, 1fr); gap: 14px; }
.charts figure, .gallery figure { margin: 0; }
.charts .card { padding: 14px 14px 8px; display: flex; flex-direction: column; }
.charts figcaption { font-weight: 600; font-size: 14px; margin-bottom: 6px; }
.keys { display: flex; flex-wrap: wrap; gap: 0 12px; font-size: 13px; font-weight: 400;
  color: var(--muted); font-variant-numeric: tabular-nums; }
.keys i { display: inline-block; width: 12px; height: 3px; border-radius: 2px; margin-right: 5px;
  vertical-align: middle; }
.chart { display: block; width: 100%; height: auto; margin-top: auto; overflow: visible; }
.grid { stroke: var(--rule); stroke-width: 1; }
.tick { fill: var(--muted); font-size: 10.5px; font-variant-numeric: tabular-nums; }
.line { fill: none; stroke-width: 1.8; stroke-linejoin: round; stroke-linecap: round; }
path.line-0 { stroke: var(--one); } path.line-1 { stroke: var(--two); }
path.line-2 { stroke: var(--three); }
circle.line-0, i.line-0 { fill: var(--one); background: var(--one); }
circle.line-1, i.line-1 { fill: var(--two); background: var(--two); }
circle.line-2, i.line-2 { fill: var(--three); background: var(--three); }

.halves { display: grid; grid-template-columns: 1fr 1fr; gap: 14px; margin-bottom: 14px; }
.bars { list-style: none; margin: 0; padding: 0; font-size: 14px; }
.bars.columns { columns: 3; column-gap: 40px; }
.bars li { display: grid; grid-template-columns: 132px 1fr 84px; gap: 10px; align-items: center;
  padding: 3px 0; break-inside: avoid; }
.bars .name { white-space: nowrap; overflow: hidden; text-overflow: ellipsis; }
.bars .value { text-align: right; color: var(--muted); font-variant-numeric: tabular-nums;
  font-size: 13px; white-space: nowrap; }
.track { display: block; height: 5px; background: var(--track); border-radius: 3px; margin: 2px 0; }
.track i { display: block; height: 5px; border-radius: 3px; }
.absent { color: var(--muted); }
.swatch { display: inline-block; width: 12px; height: 12px; border-radius: 3px; margin-right: 7px;
  vertical-align: -1px; border: 1px solid rgba(128, 128, 128, 0.55); }

.colors { overflow-x: auto; }
.colors table { font-size: 13px; table-layout: fixed; min-width: 560px; }
.colors th, .colors td { text-align: center; padding: 4px 6px; }
.colors tbody th { text-align: left; padding-left: 0; }
.colors .swatch { width: 100%; max-width: 64px; height: 16px; margin: 0; display: block;
  margin-inline: auto; }
.legend { display: grid; grid-template-columns: 1fr 190px; gap: 14px; margin-bottom: 14px; }
.wheel { text-align: center; font-size: 13px; }
.wheel p { color: var(--muted); margin: 0; }
.wheel img { width: 104px; height: 104px; display: block; margin: 4px auto 8px; }
.gallery { display: grid; gap: 14px; }
.gallery header { display: flex; justify-content: space-between; gap: 16px; align-items: baseline;
  margin-bottom: 10px; font-size: 14px; }
.gallery h3 { margin: 0; overflow-wrap: anywhere; }
.gallery header span { color: var(--muted); white-space: nowrap;
  font-variant-numeric: tabular-nums; }
.strip { display: grid; grid-template-columns: repeat(4, 1fr); gap: 12px; }
.strip img { display: block; width: 100%; height: auto; border-radius: 5px;
  background: var(--track); }
.strip figcaption { color: var(--muted); font-size: 13px; line-height: 1.4; margin-top: 5px; }
footer { margin-top: 48px; padding-top: 16px; border-top: 1px solid var(--rule);
  color: var(--muted); font-size: 13px; }
@media (max-width: 1020px) {
  .charts { grid-template-columns: repeat(2, 1fr); }
  .bars.columns { columns: 2; }
  .pair { grid-template-columns: 1fr; }
}
@media (max-width: 900px) {
  .strip { grid-template-columns: 1fr 1fr; }
  .legend { grid-template-columns: 1fr; }
  .wheel { display: flex; align-items: center; gap: 20px; text-align: left; }
  .wheel h3, .wheel img { margin: 0; }
  .page { padding: 28px 18px 48px; }
}
@media (max-width: 640px) {
  .tiles { grid-template-columns: 1fr 1fr; }
  .halves, .charts { grid-template-columns: 1fr; }
  .bars.columns { columns: 1; }
  .card { overflow-x: auto; }
}
@media print { .gallery > .card, .charts .card { break-inside: avoid; } }
"""

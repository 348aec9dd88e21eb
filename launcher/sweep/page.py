"""One page about a sweep: a single HTML file without a script, which needs neither a network nor a server."""

import time
from collections.abc import Iterator, Sequence
from html import escape

from launcher.sweep.charts import MOST_CURVES, curves_svg, drawn_curves, parameters_svg, timeline_svg
from launcher.sweep.points import Result
from launcher.sweep.summary import Summary
from launcher.sweep.table import best, counts, label, loss
from launcher.words import duration

STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #1f2328; background: #fff; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
code { font: 0.9em ui-monospace, monospace; background: #f3f4f6; padding: 0.1em 0.3em; border-radius: 3px; overflow-wrap: anywhere; }
table { border-collapse: collapse; width: 100%; font-size: 0.9rem; }
th, td { text-align: left; vertical-align: top; padding: 0.3rem 0.6rem; border-bottom: 1px solid #e5e7eb; }
td.number { text-align: right; font-variant-numeric: tabular-nums; } tr.best { background: #fff3e6; font-weight: 600; }
svg { width: 100%; height: auto; } p.note { color: #57606a; }
@media (prefers-color-scheme: dark) { svg { background: #fff; } }
"""
# Whatever a value holds: nothing is loaded, and no script runs.
POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def page(summary: Summary) -> str:
    """The whole file."""
    name = summary.sweep_dir.path.name
    body = "\n".join(part for part in (headline(summary), *pictures(summary), ended_table(summary), refused_table(summary), origin(summary)) if part)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Sweep {escape(name)}</title>
<style>{STYLE}</style>
</head>
<body>
{body}
</body>
</html>
"""


def headline(summary: Summary) -> str:
    winner = best(summary.results)
    said = f"<h1>Sweep {escape(summary.sweep_dir.path.name)}</h1>\n<p>{escape(counts(summary.results))}.</p>"
    if winner is None:
        return f"{said}\n<p>No best point is named: fewer than two points were measured, or not all in the same way.</p>"
    folder = f"<br>Its run folder: <code>{escape(str(winner.run_dir.path))}</code>" if winner.run_dir else ""
    measured = f"{winner.measure} {winner.objective:.4f}"
    return f"{said}\n<p>Best: point {winner.point.number}, {measured}: <code>{escape(label(winner.point))}</code>{folder}</p>"


def pictures(summary: Summary) -> Iterator[str]:
    with_steps = sum(1 for one in summary.curves if one.training or one.evaluation)
    left_out = f"The {MOST_CURVES} best of {with_steps} points are drawn." if with_steps > len(drawn_curves(summary)) else ""
    colours = "Blue: finished. Red: failed. Orange: stopped. Grey: its end was not recorded. A number is a point, a dotted line a later start."
    for title, svg, note in (
        ("Loss", curves_svg(summary), left_out),
        ("Parameters against the result", parameters_svg(summary), ""),
        ("Which point ran where and when", timeline_svg(summary), colours),
    ):
        if svg:
            yield f"<h2>{title}</h2>\n" + (f'<p class="note">{note}</p>\n' if note else "") + svg


def ended_table(summary: Summary) -> str:
    """Every point that was not refused, the best first."""
    rows = sorted((one for one in summary.results if one.state != "refused"), key=lambda one: (one.objective is None, one.objective or 0.0))
    if not rows:
        return ""
    winner = best(summary.results)
    head = ("point", "overrides", "state", "loss", "time", "run folder", "cause")
    cells = [
        (str(one.point.number), label(one.point), one.state, loss(one), duration(one.seconds) if one.seconds else "", folder_of(one), one.cause)
        for one in rows
    ]
    marked = [one.point.number for one in rows].index(winner.point.number) if winner else None
    return "<h2>Points</h2>\n" + table(head, cells, marked)


def refused_table(summary: Summary) -> str:
    rows = [one for one in summary.results if one.state == "refused"]
    if not rows:
        return ""
    cells = [(str(one.point.number), label(one.point), one.cause, " ".join(one.fits)) for one in rows]
    return "<h2>Refused points</h2>\n" + table(("point", "overrides", "why", "would fit with"), cells, None)


def origin(summary: Summary) -> str:
    begun = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(summary.starts[0]))
    words = escape(" ".join(summary.overrides))
    return (
        f'<p class="note">Started {begun}. Overrides of the newest start: <code>{words}</code>. The same for programs: <code>sweep.json</code>.</p>'
    )


def folder_of(result: Result) -> str:
    return str(result.run_dir.path) if result.run_dir else ""


def table(head: Sequence[str], rows: Sequence[Sequence[str]], marked: int | None) -> str:
    """The first column holds numbers, and so does `loss`; `marked`: the row of the best point."""
    numeric = {0, *(at for at, name in enumerate(head) if name == "loss")}
    lines = ["<table>", "<tr>" + "".join(f"<th>{escape(name)}</th>" for name in head) + "</tr>"]
    for place, row in enumerate(rows):
        cells = "".join(f'<td class="number">{escape(cell)}</td>' if at in numeric else f"<td>{escape(cell)}</td>" for at, cell in enumerate(row))
        lines.append(f'<tr class="best">{cells}</tr>' if place == marked else f"<tr>{cells}</tr>")
    return "\n".join([*lines, "</table>"])

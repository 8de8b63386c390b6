"""Results as Markdown, between two marks in docs/explanation/performance.md."""

from pathlib import Path

from benchmarks.suite import HIGHER_IS_BETTER, Group, Results

DOCUMENT = Path("docs/explanation/performance.md")
MARKS = "<!-- results, by `make bench` -->", "<!-- end of results -->"
WIDTH = 72  # of the timeline, in characters


def write(results: Results) -> None:
    """Put the results into the document."""
    text = DOCUMENT.read_text(encoding="utf-8")
    before, after = text.split(MARKS[0])[0], text.split(MARKS[1])[1]
    DOCUMENT.write_text(f"{before}{MARKS[0]}\n\n{markdown(results)}\n{MARKS[1]}{after}", encoding="utf-8")


def markdown(results: Results) -> str:
    """Machine, a table per group, and the timeline."""
    machine = ", ".join(f"{name} {value}" for name, value in results.machine.items())
    parts = [f"Machine: {machine}.\n", *map(_table, results.groups)]
    if results.timeline:
        parts.append(f"Timeline of `lenet repro`:\n\n```text\n{timeline(results)}\n```\n")
    return "\n".join(parts)


def _table(group: Group) -> str:
    first = group.rows[0].name
    ratio = f"{first} ÷ this" if group.unit in HIGHER_IS_BETTER else f"this ÷ {first}"
    lines = [f"**{group.name}**\n", f"| | {group.unit} | range | {ratio} | |", "|---|---:|---:|---:|---|"]
    for row in group.rows:
        spread = f"{number(min(row.values))}–{number(max(row.values))}" if len(row.values) > 1 else ""
        remark = "; ".join(filter(None, (group.verdict(row), row.note)))
        lines.append(f"| {row.name} | {number(row.median)} | {spread} | {group.ratio(row):.2f} | {remark} |")
    return "\n".join(lines) + "\n"


def number(value: float) -> str:
    """Three digits or all before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def timeline(results: Results) -> str:
    """A line per stage in the order of their starts: what runs at any moment stands in one column."""
    stages = sorted(results.timeline, key=lambda stage: (stage["start"], stage["stage"]))
    end = max(stage["end"] for stage in stages)
    names = max(len(stage["stage"]) for stage in stages)
    lines = []
    for stage in stages:
        left, right = (round(stage[at] / end * WIDTH) for at in ("start", "end"))
        bar = " " * left + "█" * max(right - left, 1)
        lines.append(f"{stage['stage']:{names}} {bar:{WIDTH}} {stage['start']:6.1f}–{stage['end']:.1f} s")
    return "\n".join(lines)

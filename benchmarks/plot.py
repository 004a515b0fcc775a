"""Plots as SVG: panels beside each other, each with lines over a common axis that begins at 0."""

from jinja2 import Template

WIDE, HIGH, LEFT, TOP = 300, 180, 60, 40
PLOT = Template("""\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {{ panels|length * (wide + 90) }} {{ high + 100 }}" \
font-family="sans-serif" font-size="12" fill="#0f172a">
<rect width="100%" height="100%" fill="#ffffff"/>
{% for panel in panels %}<g transform="translate({{ left + loop.index0 * (wide + 90) }} {{ top }})">
<text x="0" y="-16" font-weight="bold">{{ panel.title }}</text>
<path d="M0 0V{{ high }}H{{ wide }}" fill="none" stroke="#64748b"/>
<text x="-6" y="4" text-anchor="end">{{ "%.3g"|format(panel.top) }}</text>
<text x="-6" y="{{ high }}" text-anchor="end">0</text>
{% for x, label in panel.ticks %}<text x="{{ x }}" y="{{ high + 16 }}" text-anchor="middle">{{ label }}</text>
{% endfor %}<text x="{{ wide / 2 }}" y="{{ high + 34 }}" text-anchor="middle">{{ panel.below }}</text>
{% for line in panel.lines %}<polyline points="{{ line.points }}" fill="none" stroke="{{ line.colour }}" \
stroke-width="2"/>
<text x="{{ line.x }}" y="{{ line.y }}" text-anchor="end" fill="{{ line.colour }}">{{ line.name }}</text>
{% endfor %}</g>
{% endfor %}</svg>
""")


def draw_panels(panels: list[dict]) -> str:
    """The file, of what `make_panel` makes."""
    return PLOT.render(panels=panels, wide=WIDE, high=HIGH, left=LEFT, top=TOP)


def make_panel(title: str, below: str, lines: dict[str, list[tuple[float, float]]], colours: dict[str, str]) -> dict:
    """The lines of a plot, by name, from points to pixels."""
    points = [point for line in lines.values() for point in line]
    right, top = max(x for x, _ in points), max(y for _, y in points)
    place = lambda x, y: (round(x / right * WIDE, 1), round(HIGH - y / top * HIGH, 1))  # noqa: E731
    drawn = []
    for name, line in lines.items():
        places = [place(x, y) for x, y in line]
        x, y = places[-1]
        text = " ".join(f"{x},{y}" for x, y in places)
        drawn.append({"name": name, "colour": colours[name], "points": text, "x": x, "y": y - 6})
    ticks = [(place(x, 0)[0], f"{x:g}") for x in sorted({x for x, _ in points})]
    return {"title": title, "below": below, "top": top, "ticks": ticks, "lines": drawn}

"""picture.py: draws charts of horizontal bars as one SVG that can be read on light and on dark ground.

A chart is dict(title=, reference=(label, value), better="higher" or "lower", unit=,
bars=[dict(label=, value=, text=, budget=)]).  The dashed line is the reference; a bar's budget, where it has one, is a
mark across it.  A bar has one colour when it is as good as its budget (or as the reference, without one), else another; lines and
figures say the same to who cannot tell colours apart.
"""
import html

WIDTH = 960
LEFT = 330          # where bars begin
RIGHT = 210         # kept free behind the longest bar, for its figures
ROW = 22
STYLE = """
  svg { font-family: system-ui, 'DejaVu Sans', sans-serif; font-size: 13px; }
  .ground { fill: #ffffff; }
  .title { fill: #1b1f24; font-size: 15px; font-weight: 600; }
  .label { fill: #1b1f24; }
  .note { fill: #57606a; font-size: 12px; }
  .good { fill: #2f81c9; }
  .bad { fill: #d9822b; }
  .reference { stroke: #57606a; stroke-width: 1.5; stroke-dasharray: 4 3; }
  .budget { stroke: #1b1f24; stroke-width: 2; }
  @media (prefers-color-scheme: dark) {
    .ground { fill: #0d1117; }
    .title, .label { fill: #e6edf3; }
    .note { fill: #9aa4af; }
    .good { fill: #58a6ff; }
    .bad { fill: #e3a04f; }
    .reference { stroke: #9aa4af; }
    .budget { stroke: #ffffff; }
  }
"""


def number(value, unit):
    digits = 0 if value >= 1000 else 1 if value >= 100 else 2
    return format(value, ",.%df" % digits) + (" " + unit if unit else "")


def element(x, y, style, content, anchor="start"):
    return '<text x="%.1f" y="%.1f" class="%s" text-anchor="%s">%s</text>' % (x, y, style, anchor, html.escape(content))


def draw_chart(chart, top):
    """The chart's elements, and where the next one may begin."""
    name, reference = chart["reference"]
    unit = chart.get("unit", "")
    higher = chart.get("better", "higher") == "higher"
    bars = [bar for bar in chart["bars"] if bar["value"] is not None]
    limits = [bar["budget"] for bar in bars if bar.get("budget") is not None]
    scale = (WIDTH - LEFT - RIGHT) / (max([reference] + limits + [bar["value"] for bar in bars]) or 1)
    out = [element(16, top + 18, "title", chart["title"])]
    line = LEFT + reference * scale
    out.append(element(line, top + 38, "note", "%s: %s (%s is better)" % (
        name, number(reference, unit), "longer" if higher else "shorter"), "middle"))
    y = top + 46
    for bar in bars:
        budget = bar.get("budget")
        limit = reference if budget is None else budget
        good = bar["value"] >= limit if higher else bar["value"] <= limit
        length = max(1.0, bar["value"] * scale)
        out.append(element(LEFT - 8, y + 14, "label", bar["label"], "end"))
        out.append('<rect x="%d" y="%.1f" width="%.1f" height="%d" rx="2" class="%s"/>' % (
            LEFT, y + 3, length, ROW - 7, "good" if good else "bad"))
        if budget is not None:
            x = LEFT + budget * scale
            out.append('<line x1="%.1f" x2="%.1f" y1="%d" y2="%d" class="budget"/>' % (x, x, y + 1, y + ROW - 3))
        words = number(bar["value"], unit) + (", " + bar["text"] if bar.get("text") else "")
        # Not across a line.
        x = LEFT + length + 6
        for other in sorted([line] + ([LEFT + budget * scale] if budget is not None else [])):
            if x - 8 < other < x + 7.5 * len(words):
                x = other + 6
        out.append(element(x, y + 14, "note", words))
        y += ROW
    out.append('<line x1="%.1f" x2="%.1f" y1="%d" y2="%d" class="reference"/>' % (line, line, top + 43, y + 2))
    return out, y + 22


def draw(charts):
    out = []
    top = 8
    for chart in charts:
        if any(bar["value"] is not None for bar in chart["bars"]):
            elements, top = draw_chart(chart, top)
            out += elements
    if not out:
        out = [element(16, 26, "title", "Nothing was measured yet.")]
        top = 44
    else:
        out.append(element(16, top + 8, "note", "Blue: as good as the budget (the short mark) or, without one, as the "
                                                "reference (the dashed line). Orange: not."))
        top += 20
    return "\n".join(['<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" role="img">' % (
        WIDTH, top, WIDTH, top), "<style>%s</style>" % STYLE,
        '<rect width="%d" height="%d" class="ground"/>' % (WIDTH, top)] + out + ["</svg>"]) + "\n"

"""A bar chart of a benchmark's ratios as SVG."""
from xml.sax.saxutils import escape

BARS = [("ours", "Portcullis", "#2f6f9f"), ("tgt", "Debian's tgt", "#c98a3d")]
BAR, GAP, TOP, LEFT, WIDTH, RIGHT = 15, 12, 64, 250, 470, 60


def draw(report, names):
    """The rates of the cases of these names as parts of the limit's, which is the line at 100 %."""
    cases = [report["cases"][name] for name in names]
    bars = [bar for bar in BARS if all(f"{bar[0]}/limit" in case["ratio"] for case in cases)]
    top = max([1.0] + [case["ratio"][f"{name}/limit"]["median"] for case in cases for name, _, _ in bars])
    most = (int(top * 10) + 1) / 10
    step = len(bars) * BAR + GAP
    height = TOP + len(cases) * step + 30
    machine = report["machine"]
    title = "Requests a second, as a part of what the machine can do"
    note = f"{report['date']}, {machine['cpu']}, {machine['cpus']} CPUs, {report['folder']}, median of {report['rounds']} rounds"

    def x(part):
        return LEFT + WIDTH * part / most

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + WIDTH + RIGHT}" height="{height}" font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="#ffffff"/>',
        text(10, 20, title, size=15), text(10, 38, note, colour="#555555"),
    ]
    for index, (_, label, colour) in enumerate(bars):
        parts += [f'<rect x="{LEFT + 130 * index}" y="46" width="11" height="11" fill="{colour}"/>', text(LEFT + 130 * index + 16, 56, label)]
    for tenth in range(0, int(most * 10) + 1, 2):
        parts.append(line(x(tenth / 10), TOP, height - 24, "#333333" if tenth == 10 else "#dddddd"))
        parts.append(text(x(tenth / 10), height - 10, f"{tenth * 10} %", anchor="middle", colour="#555555"))
    for index, case in enumerate(cases):
        y = TOP + GAP / 2 + index * step
        parts.append(text(LEFT - 10, y + (step - GAP) / 2 + 4, case["what"], anchor="end"))
        for number, (name, _, colour) in enumerate(bars):
            ratio = case["ratio"][f"{name}/limit"]["median"]
            begin = y + number * BAR
            parts.append(f'<rect x="{LEFT}" y="{begin:.1f}" width="{x(ratio) - LEFT:.1f}" height="{BAR - 2}" fill="{colour}"/>')
            parts.append(text(x(ratio) + 5, begin + 11, f"{ratio * 100:.0f} %", colour="#333333"))
    return "\n".join([*parts, "</svg>", ""])


def text(x, y, words, anchor="start", size=12, colour="#000000"):
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" fill="{colour}">{escape(words)}</text>'


def line(x, top, bottom, colour):
    return f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{bottom}" stroke="{colour}"/>'

"""Bar charts of a benchmark's ratios, one below the other, as SVG."""
from xml.sax.saxutils import escape

OURS, PEER, CONNECT = "#2f6f9f", "#c98a3d", "#7fb0d0"
# A bar that would be longer is cut: its number says what it is.
LONGEST = 5
BAR, GAP, HEAD, FOOT, LEFT, WIDTH, RIGHT = 15, 12, 62, 34, 330, 420, 60


def panels(report):
    """Each: a title, what its colours stand for, and its rows: a label with (ratio, colour) for each bar. The line is at 1."""
    cases = list(report["cases"].values())
    clear, secure = [case for case in cases if not case["tls"]], [case for case in cases if case["tls"]]

    def bars(result, pairs):
        return [(result["ratio"][pair]["median"], colour) for pair, colour in pairs if pair in result["ratio"]]

    def rows(results, pairs):
        return [(result["what"], bars(result, pairs)) for result in results]

    yield ("Requests a second, as a part of what the machine can do", [("Portcullis", OURS), ("Debian's tgt", PEER)],
           rows(clear, [("ours/limit", OURS), ("tgt/limit", PEER)]))
    yield ("Requests a second through TLS, as a part of tgt's behind stunnel", [("Portcullis", OURS), ("with tgt-connect", CONNECT)],
           rows(secure, [("ours/tgt", OURS), ("connect/tgt", CONNECT)]))
    found = report.get("beside", {})
    chosen = [
        ("p99-r4k-qd1", "p99 of a read, in those of the limit (less is better)", [("ours/limit", OURS), ("tgt/limit", PEER)]),
        ("p99-w4k-qd1", "p99 of a write, in those of the limit (less is better)", [("ours/limit", OURS), ("tgt/limit", PEER)]),
        ("digests-r4k-qd32", "reads of 4 KiB with digests, of those without", [("ours with digests/ours", OURS), ("tgt with digests/tgt", PEER)]),
        ("digests-r256k-qd8", "reads of 256 KiB with digests, of those without", [("ours with digests/ours", OURS), ("tgt with digests/tgt", PEER)]),
        ("logins", "logins, of tgt's", [("ours/tgt", OURS)]),
        ("logins", "logins with CHAP by SHA-256, of those without CHAP", [("ours sha256/ours", OURS)]),
        ("idle-rate", "reads beside idle sessions, of those alone", [("in the crowd/alone", OURS)]),
        ("fairness", "p99 beside a flood, in those alone (less is better)", [("flood/alone", OURS)]),
        ("system-calls", "system calls for a read, of tgt's (less is better)", [("ours/tgt", OURS)]),
    ]
    yield ("What throughput does not tell", [("Portcullis", OURS), ("Debian's tgt", PEER)],
           [(label, bars(found[name], pairs)) for name, label, pairs in chosen if name in found])


def draw(report):
    shown = [panel for panel in panels(report) if any(row[1] for row in panel[2])]
    machine = report["machine"]
    note = f"{report['date']}, {machine['cpu']}, {machine['cpus']} CPUs, {report['folder']}, median of {report['rounds']} rounds"
    parts, top = [], 0
    for panel in shown:
        more, height = draw_panel(panel, note, top)
        parts += more
        top += height
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + WIDTH + RIGHT}" height="{top}" font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="#ffffff"/>', *parts, "</svg>", ""])


def draw_panel(panel, note, top):
    title, legend, rows = panel
    rows = [row for row in rows if row[1]]
    most = min(LONGEST, max([1.0] + [ratio for _, bars in rows for ratio, _ in bars])) * 1.05
    heights = [len(bars) * BAR + GAP for _, bars in rows]
    bottom = top + HEAD + sum(heights)

    def x(ratio):
        return LEFT + WIDTH * min(ratio, most) / most

    parts = [text(10, top + 20, title, size=15), text(10, top + 38, note, colour="#555555")]
    used = {colour for _, bars in rows for _, colour in bars}
    for index, (label, colour) in enumerate(entry for entry in legend if entry[1] in used):
        parts += [f'<rect x="{LEFT + 130 * index}" y="{top + 46}" width="11" height="11" fill="{colour}"/>', text(LEFT + 130 * index + 16, top + 56, label)]
    step = next(step for step in (0.2, 0.5, 1) if most / step <= 9)
    for mark in [step * index for index in range(int(most / step) + 1)]:
        parts.append(line(x(mark), top + HEAD, bottom + 2, "#333333" if mark == 1 else "#dddddd"))
        parts.append(text(x(mark), bottom + 16, f"{mark * 100:.0f} %", anchor="middle", colour="#555555"))
    y = top + HEAD + GAP / 2
    for (label, bars), height in zip(rows, heights):
        parts.append(text(LEFT - 10, y + (height - GAP) / 2 + 4, label, anchor="end"))
        for number, (ratio, colour) in enumerate(bars):
            begin = y + number * BAR
            parts.append(f'<rect x="{LEFT}" y="{begin:.1f}" width="{x(ratio) - LEFT:.1f}" height="{BAR - 2}" fill="{colour}"/>')
            parts.append(text(x(ratio) + 5, begin + 11, f"{ratio * 100:.0f} %", colour="#333333"))
        y += height
    return parts, HEAD + sum(heights) + FOOT


def text(x, y, words, anchor="start", size=12, colour="#000000"):
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" fill="{colour}">{escape(words)}</text>'


def line(x, top, bottom, colour):
    return f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{bottom}" stroke="{colour}"/>'

#!/usr/bin/env python3
"""Whether a measurement has lost against a committed one: `make bench-check`.

    check.py COMMITTED.json NEW.json

Ratios are compared, for they are formed within a round on one machine. One that is worse by more than LOSS is a loss, and so is one that
the committed table has and the new one has not, if its case was measured. Exit 1 when there is one.
"""
import json, sys

LOSS = 0.10
# Ratios of ours; what others do to each other is not ours to keep.
OTHERS = {"tgt/limit", "limit/tgt", "tgt with digests/tgt"}


def ratios(report):
    """(case, ratio) → its median, and whether less is better."""
    for name, result in [*report["cases"].items(), *report.get("beside", {}).items()]:
        for pair, found in result["ratio"].items():
            if pair not in OTHERS:
                yield (name, pair), (found["median"], result.get("better") == "less")


def compare(committed, new):
    """A line for each ratio, and the losses among them."""
    measured = {**new["cases"], **new.get("beside", {})}
    found = dict(ratios(new))
    lines, losses = [], []
    for (name, pair), (before, less) in ratios(committed):
        if name not in measured:
            continue
        now = found.get((name, pair), (None, less))[0]
        if now is None:
            lost, change = True, "missing"
        else:
            change = now / before - 1
            lost, change = (change if less else -change) > LOSS, f"{change:+.1%}{' (less is better)' if less else ''}"
        line = f"{'LOST' if lost else '  ok'}  {name:18s} {pair:28s} {before:8.3f} → {'–' if now is None else format(now, '8.3f')}  {change}"
        lines.append(line)
        if lost:
            losses.append(line)
    return lines, losses


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    committed, new = (json.load(open(name)) for name in sys.argv[1:])
    lines, losses = compare(committed, new)
    print("\n".join(lines))
    if not lines:
        sys.exit("nothing that both have measured")
    if losses:
        sys.exit(f"{len(losses)} of {len(lines)} ratios have lost more than {LOSS:.0%}")
    print(f"none of {len(lines)} ratios has lost more than {LOSS:.0%}")


if __name__ == "__main__":
    main()

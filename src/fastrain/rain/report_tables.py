"""The tables of the report: scores with their counts, by lead and threshold."""

from __future__ import annotations

import numpy as np

from fastrain.rain.pictures import NAMES
from fastrain.rain.verified import Verification
from fastrain.verification.wetness import KINDS


def scores(found: Verification) -> str:
    """Return the tables of scores with their counts, one for each threshold."""
    out = []
    for k, threshold in enumerate(found.thresholds):
        head = "".join(f"<th>{a}–{b}</th>" for a, b in found.periods)
        out.append(f"<h3>≥ {threshold:g} mm/h</h3><table><tr><th>minutes</th><td></td>{head}</tr>")
        for label, pick in (("Brier", "brier"), ("CSI", "csi")):
            best = _best(found, pick, k)
            for i, (name, words, tally) in enumerate(found.shown()):
                # Of other cells than the rest nothing is the best.
                shown = [
                    (v, " best" if name == best[p] and not words else "")
                    for p, v in enumerate(getattr(tally, pick)[:, k])
                ]
                cells = "".join(f"<td class='n{bold}'>{'–' if np.isnan(v) else f'{v:.3f}'}</td>" for v, bold in shown)
                said = NAMES[name] + words
                out.append(f"<tr><th>{label if i == 0 else ''}</th><td>{said}</td>{cells}</tr>")
        tally = found.tallies["network"]
        for name in found.tallies:
            if name != "network":
                skill, (low, high) = found.skill(name)[:, k], found.intervals[name]
                cells = "".join(
                    f"<td class='n'>{_skill(*of_period)}</td>"
                    for of_period in zip(skill, low[:, k], high[:, k], strict=True)
                )
                out.append(f"<tr><th></th><td>Brier skill over {NAMES[name]}</td>{cells}</tr>")
        for label, sums in (("cells judged", tally.cells), ("of which rain", tally.events)):
            cells = "".join(f"<td class='n'>{int(v):,}</td>" for v in sums[:, k])
            out.append(f"<tr class='counts'><th></th><td>{label}</td>{cells}</tr>")
        counts = zip(("hits", "false alarms", "misses", "correct no"), tally.contingency, strict=True)
        for label, sums in counts:
            cells = "".join(f"<td class='n'>{int(v):,}</td>" for v in sums[:, k])
            out.append(f"<tr class='counts'><th></th><td>network: {label}</td>{cells}</tr>")
        decide = "".join(f"<td class='n'>{v:.2f}</td>" for v in tally.decide[:, k])
        out.append(f"<tr class='counts'><th></th><td>network: yes from a chance of</td>{decide}</tr></table>")
    return "".join(out)


def _skill(value: float, low: float, high: float) -> str:
    if not np.isfinite(value):
        return "–"
    return f"{value:+.0%}" + ("" if np.isnan(low) else f" <small>{low:+.0%} to {high:+.0%}</small>")


def wetness(found: Verification) -> str:
    """Return the tables of scores apart by how much of the map is wet at issue, one for each threshold."""
    windows = found.wetness["network"].windows
    others = [name for name in ("lagrangian", "calibrated") if name in found.wetness]
    brier = {name: np.stack([t.brier for t in found.wetness[name].tallies]) for name in ("network", *others)}
    kinds = _WET if found.cell is None else _WET_THERE
    head = "".join(f"<th class='n'>{a}–{b}</th>" for a, b in found.periods)
    out = []
    for k, threshold in enumerate(found.thresholds):
        out.append(f"<h3>≥ {threshold:g} mm/h</h3><table><tr><th>minutes</th><td></td>{head}</tr>")
        for kind, words in enumerate(kinds):
            if not windows[kind]:
                continue
            label = f"{words}<br><small>{windows[kind]:,} issue times</small>"
            own = brier["network"][kind, :, k]
            rows = [("network, Brier", ["–" if np.isnan(v) else f"{v:.4f}" for v in own])]
            with np.errstate(invalid="ignore", divide="ignore"):
                skills = [(name, 1 - own / brier[name][kind, :, k]) for name in others]
            rows += [
                (f"skill over {NAMES[name]}", [_skill(v, np.nan, np.nan) for v in skill]) for name, skill in skills
            ]
            for i, (row, values) in enumerate(rows):
                cells = "".join(f"<td class='n'>{v}</td>" for v in values)
                first = f"<th rowspan='{len(rows) + 1}'>{label}</th>" if i == 0 else ""
                out.append(f"<tr>{first}<td>{row}</td>{cells}</tr>")
            sums = found.wetness["network"].tallies[kind]
            counts = "".join(
                f"<td class='n'>{int(e):,} of {int(c):,}</td>"
                for e, c in zip(sums.events[:, k], sums.cells[:, k], strict=True)
            )
            out.append(f"<tr class='counts'><td>cells reached, of those judged</td>{counts}</tr>")
        out.append("</table>")
    return "".join(out)


_WET = tuple(f"{a:.0%} to {b:.0%} of the map wet now" for a, b in KINDS)


_WET_THERE = ("dry there now", "", "wet there now")


def changes(found: Verification) -> str:
    """Return the table of warnings that rain starts or stops, of the lowest threshold."""
    shown = [name for name in ("network", "lagrangian", "advection") if name in found.changes]
    head = "".join(f"<th>{a}–{b}</th>" for a, b in found.periods)
    out = [f"<table><tr><th>minutes</th><td></td>{head}</tr>"]
    for kind, words in (("start", "dry now, rain comes"), ("stop", "rain now, it ends")):
        for name in shown:
            rows = [found.changes[name].row(p, 0)[kind] for p in range(len(found.periods))]
            cells = "".join(
                "<td class='n'>–</td>"
                if not row["changed"] or np.isnan(row["false_alarm_ratio"])
                else f"<td class='n'>{row['warned_of']:.0%}, {row['false_alarm_ratio']:.0%} false</td>"
                for row in rows
            )
            out.append(f"<tr><th>{words if name == shown[0] else ''}</th><td>{NAMES[name]}</td>{cells}</tr>")
        counts = "".join(f"<td class='n'>{row['changed']:,} of {row['cells']:,}</td>" for row in rows)
        out.append(f"<tr class='counts'><th></th><td>cells that changed</td>{counts}</tr>")
    return "".join(out) + "</table>"


def _best(found: Verification, pick: str, threshold: int) -> list[str]:
    names = [name for name in found.tallies if name not in found.beside]  # which are of other cells
    values = np.array([getattr(found.tallies[name], pick)[:, threshold] for name in names])
    values = np.nan_to_num(values, nan=np.inf if pick == "brier" else -np.inf)
    return [names[i] for i in (values.argmin(axis=0) if pick == "brier" else values.argmax(axis=0))]

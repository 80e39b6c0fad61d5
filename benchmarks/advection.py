"""Own optical flow and advection beside pysteps' Lucas-Kanade and extrapolation, on the real sequences, in one run.

    python benchmarks/advection.py [--issues 4] [--out records/advection.json]

CSI of the advected fields at 30 and 60 minutes (90 where the span allows) for 0.1, 1 and 5 mm/h, on the pixels where
both advections and the truth are defined; counts pooled over the issue times. CPU seconds of motion plus advection.
Needs pysteps (pip install pysteps); the tests do not.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import sequences
import torch
from machine import machine

from fastrain.rain.baselines import advected_rates

THRESHOLDS = (0.1, 1.0, 5.0)


def main() -> None:
    """Print the table and keep it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--issues", type=int, default=4)
    parser.add_argument("--events", nargs="*", default=sequences.EVENTS)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    own(np.ones((3, 64, 64), np.float32), 2, 4.0, 5)  # compiles what is kept compiled from then on
    rows = []
    for name in given.events:
        rows += compare(sequences.load(name), given.issues)
    worst = min(
        row["csi_own"] - row["csi_pysteps"] for row in rows if row["lead_min"] <= 60 and row["hits_any"] >= 1000
    )
    print(f"worst difference of CSI at 30 and 60 min: {worst:+.3f}")
    if given.out:
        record = {
            **machine(),
            "script": "benchmarks/advection.py",
            "threads": 1,
            "worst_difference": worst,
            "rows": rows,
        }
        given.out.write_text(json.dumps(record, indent=1) + "\n")


def compare(event: sequences.Sequence, issues: int) -> list[dict]:
    """Return a row for each lead and threshold of one event."""
    leads = [lead for lead in (30, 60, 90) if lead % event.cadence == 0]
    steps = [lead // event.cadence for lead in leads]
    last = len(event.rain_rate) - steps[-1] - 1
    times = np.linspace(3, last, issues).astype(int)
    table: dict[tuple[str, int, float], np.ndarray] = {}
    seconds = {"own": 0.0, "pysteps": 0.0}
    for t in times:
        history = event.rain_rate[max(0, t - 3) : t + 1]
        fields = {}
        for method, advected in (("own", own), ("pysteps", pysteps)):
            began = time.process_time()
            shown = history if method == "own" else history[-3:]
            fields[method] = advected(shown, max(steps), event.pixel_km, event.cadence)
            seconds[method] += time.process_time() - began
        for lead, step in zip(leads, steps, strict=True):
            truth = event.rain_rate[t + step]
            both = np.isfinite(truth) & np.isfinite(fields["own"][step - 1]) & np.isfinite(fields["pysteps"][step - 1])
            for threshold in THRESHOLDS:
                o = truth[both] >= threshold
                for method in fields:
                    f = fields[method][step - 1][both] >= threshold
                    counts = np.array([(f & o).sum(), (f & ~o).sum(), (~f & o).sum()])
                    key = (method, lead, threshold)
                    table[key] = table.get(key, 0) + counts
    rows = []
    print(
        f"{event.name}: CPU s a nowcast of {max(steps)} leads: own {seconds['own'] / issues:.2f}, "
        f"pysteps {seconds['pysteps'] / issues:.2f}, ratio {seconds['pysteps'] / seconds['own']:.1f}"
    )
    for lead in leads:
        for threshold in THRESHOLDS:
            csi = {}
            for method in ("own", "pysteps"):
                hits, false, missed = table[method, lead, threshold]
                csi[method] = float(hits / max(1, hits + false + missed))
            rows.append(
                {
                    "event": event.name, "lead_min": lead, "threshold": threshold, "issues": issues,
                    "csi_own": round(csi["own"], 4), "csi_pysteps": round(csi["pysteps"], 4),
                    "hits_any": int(sum(table["own", lead, threshold])),
                    "cpu_s_own": round(seconds["own"] / issues, 3),
                    "cpu_s_pysteps": round(seconds["pysteps"] / issues, 3),
                }
            )  # fmt: skip
            print(
                f"  {lead:3d} min >= {threshold:<4g} own {csi['own']:.3f}  pysteps {csi['pysteps']:.3f}  "
                f"{csi['own'] - csi['pysteps']:+.3f}  ({rows[-1]['hits_any']} pixels)"
            )
    return rows


def own(history: np.ndarray, steps: int, pixel_km: float, minutes: int) -> np.ndarray:
    """Return our advected rain rates, (steps, y, x)."""
    return advected_rates(torch.from_numpy(history), steps, cell_km=pixel_km, minutes=minutes).numpy()


def pysteps(history: np.ndarray, steps: int, pixel_km: float, minutes: int) -> np.ndarray:
    """Return pysteps' advected rain rates, (steps, y, x)."""
    import logging

    logging.disable(logging.WARNING)
    from pysteps import motion, nowcasts
    from pysteps.utils import transformation

    rate = history.astype(float)
    decibel, _meta = transformation.dB_transform(
        rate.copy(), {"transform": None, "zerovalue": 0, "threshold": 0.1}, threshold=0.1, zerovalue=-15.0
    )
    decibel[~np.isfinite(decibel)] = -15.0
    velocity = motion.get_method("LK")(decibel)
    return nowcasts.get_method("extrapolation")(rate[-1], velocity, steps)


if __name__ == "__main__":
    main()

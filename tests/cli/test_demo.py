"""The demo, whole: from the sample in the package to the report."""

from __future__ import annotations

import json
import subprocess

from program import SHORT


def test_the_demo_ends_in_a_report_one_can_look_at(tmp_path):
    program = [*SHORT, "demo", "--out", str(tmp_path / "demo")]
    done = subprocess.run(program, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr
    out = tmp_path / "demo"
    assert {"radar", "pictures", "archive", "franktown", "run", "report.html"} <= {p.name for p in out.iterdir()}
    page = (out / "report.html").read_text()
    facts = json.loads((out / "run" / "run.json").read_text())
    assert facts["issues"]["train"] in range(15, 19)
    for words in (
        "The last hour, and the chances ahead",
        "sure no",
        "What was done",
        "memory, peak so far",
        "Are the chances honest?",
        "of one night",
        "independent cases",
        "KNMI",
        "Environment Canada",
        facts["network"]["identity"],
    ):
        assert words in page

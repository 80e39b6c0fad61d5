"""The examples in the documentation run as they stand, in order, in a folder with pictures."""

from __future__ import annotations

import importlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = ["README.md", "docs/archive.md", "docs/rain.md", "docs/training.md", "docs/own-images.md"]
# Pages without examples to run.
TALK = [
    "docs/sources.md",
    "docs/your-radar.md",
    "docs/format.md",
    "docs/speedrun.md",
    "docs/how-it-got-fast.md",
    "docs/what-to-expect.md",
    "docs/coarse-graining.md",
    *sorted(str(page.relative_to(ROOT)) for page in (ROOT / "docs/sources").iterdir()),
]
# The program, which trains for a tenth of the time: the examples are to run, not to forecast well.
SHORT = """
import sys
from fastrain.cli.main import run
if {"train", "plan"} & set(sys.argv):  # for the others torch need not be loaded
    from dataclasses import replace
    from fastrain.rain import batches, train
    from fastrain.rain.place.recipes import RECIPES
    batches.CELLS_FEW = batches.CELLS_MOST = 400_000
    RECIPES["place"] = replace(RECIPES["place"], batch=32)
    train.give_large_memory_back = lambda: None  # page faults are a quarter of the time
run()
"""
BLOCK = re.compile(r"^```(sh|python)\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, knmi):
    """A user's folder; the README's commands come first and leave an archive and a run for the other pages."""
    path = tmp_path_factory.mktemp("user")
    shutil.copytree(knmi, path / "pictures")
    program = path / "bin" / "fastrain"
    program.parent.mkdir()
    program.write_text(f"#!{sys.executable}\n{SHORT}")
    program.chmod(0o755)
    return path


@pytest.mark.parametrize("page", PAGES)
def test_the_examples_of_a_page_run(page, folder):
    blocks = BLOCK.findall((ROOT / page).read_text(encoding="utf-8"))
    assert blocks
    path = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
    for language, text in blocks:
        command = ["bash", "-euc", text] if language == "sh" else [sys.executable, "-c", text]
        done = subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, "PATH": path},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, f"{page}:\n{text}\n{done.stderr}"


def test_links_between_pages_lead_somewhere():
    for page in PAGES + TALK:
        for target in re.findall(r"\]\((?!http)([^)#]+)", (ROOT / page).read_text(encoding="utf-8")):
            assert ((ROOT / page).parent / target).exists(), f"{page}: {target}"


def test_the_page_of_the_format_is_the_one_that_the_schema_makes():
    from fastrain.archive.describe import format_page

    assert (ROOT / "docs/format.md").read_text(encoding="utf-8") == format_page(), "run scripts/format_page.py"


def test_the_example_of_a_palette_is_one(tmp_path):
    from fastrain.sources.palette import read_palette

    (text,) = re.findall(r"^```toml\n(.*?)^```", (ROOT / "docs/your-radar.md").read_text(), re.MULTILINE | re.DOTALL)
    (tmp_path / "mine.toml").write_text(text)
    assert read_palette(tmp_path / "mine.toml").grid().pixel(45.04, -76.12) == (240, 240)


def test_every_format_has_its_line_among_the_sources_and_a_page_with_a_picture():
    from fastrain.sources import READERS

    index = (ROOT / "docs/sources.md").read_text()
    for name in (*READERS, "pysteps"):
        page = f"sources/{name}.md"
        assert f"]({page}) |" in index
        pictures = re.findall(r"!\[[^]]+\]\(([^)]+\.png)\)", (ROOT / "docs" / page).read_text(encoding="utf-8"))
        assert pictures, page


@pytest.mark.parametrize("name", ["archive", "rain", "speedrun", "ablation"])
def test_the_numbers_of_a_page_are_those_of_the_records(name, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "scripts")
    numbers = importlib.import_module(f"{name}_numbers")
    page = numbers.PAGE.read_text(encoding="utf-8")
    assert numbers.filled(page) == page, f"run scripts/{name}_numbers.py"


@pytest.mark.parametrize(("name", "record"), [("expect", "skill"), ("coarse", "coarse")])
def test_a_page_made_of_a_record_is_the_one_that_it_makes(name, record, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "scripts")
    script = importlib.import_module(f"{name}_page")
    page = script.page_of(script.record(record))
    assert script.PAGE.read_text(encoding="utf-8") == page, f"run scripts/{name}_page.py"

"""Write docs/format.md anew from the schema."""

from pathlib import Path

from fastrain.archive.describe import format_page

Path(__file__).parents[1].joinpath("docs", "format.md").write_text(format_page(), encoding="utf-8")

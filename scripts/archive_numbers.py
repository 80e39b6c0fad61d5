"""Write the measured numbers of docs/archive.md anew from records/, between their markers."""

from __future__ import annotations

from marks import ROOT, between_marks, record

PAGE = ROOT / "docs" / "archive.md"


def filled(page: str) -> str:
    """Return the page with the numbers of the records."""
    parts = {"ingest": _ingest(), "codec": _codec(), "kernel": _kernel(), "append": _append()}
    return between_marks(page, parts)


def _ingest() -> str:
    said = record("ingest")
    steps = said["milliseconds_per_picture"]
    shown = ", ".join(f"{name} {value:.2f}" for name, value in steps.items())
    return (
        f"A year of {said['pictures']:,} GIF pictures of 580×480 pixels goes in at {said['pictures_per_second']:.0f} "
        f"pictures a second on {said['cores']} cores, from\ndecoding to commit, all processes together within "
        f"{said['peak_memory_mib_of_all_processes']} MiB; the ancestor's algorithm, written plainly, takes "
        f"{said['ratio_of_cpu_seconds']:.0f} times the CPU.\nCPU milliseconds a picture: {shown}. What bounds it is "
        "decoding GIF."
    )


def _codec() -> str:
    rows = [
        "| frames | gzip -9 | zstd 1 (chosen) | zstd 5 | Blosc zstd 5, bit shuffle | an hour at coarseness 4 |",
        "|---|---|---|---|---|---|",
    ]
    won: list[float] = []
    for name, said in record("codec").items():
        if name == "date":
            continue
        codecs = said["codecs"]
        cells = [
            f"{codecs[codec]['bytes'] / 1000:.1f} kB, {codecs[codec]['write_ms']:.1f} ms"
            for codec in ("gzip -9, a frame (ancestor)", "zstd 1 (chosen)", "zstd 5", "Blosc zstd 5, bit shuffle")
        ]
        won.append(1 - codecs["zstd 9"]["bytes"] / codecs["zstd 1 (chosen)"]["bytes"])
        rows.append(f"| {name} | {' | '.join(cells)} | {said['read_one_hour_at_coarseness_4_ms']:.1f} ms |")
    return "\n".join(rows) + f"\n\nWhat zstd 9 would win is {min(won):.0%} to {max(won):.0%}."


def _kernel() -> str:
    said = record("coarsen")
    shown = ", ".join(f"{said[f'level, coarseness {c}']['share_of_memory_copy']:.2f} at {c}" for c in (2, 3, 4))
    return f"The coarse-graining kernel runs at a share of memory-copy speed, frames out of cache, of {shown}."


def _append() -> str:
    said = record("append")
    return (
        f"Over {said['frames']:,} frames appended one by one, each committed, the last {said['compared']:,} took "
        f"{said['ratio_of_seconds']:.2f} times as long ({said['ratio_of_cpu_seconds']:.2f} times\nthe CPU) "
        f"as the first {said['compared']:,} of another archive, appended in turns with them; the archive then takes "
        f"{said['ratio_of_bytes']:.2f} times\nwhat a bulk ingest of the same frames takes."
    )


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")

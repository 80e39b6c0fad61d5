"""Verification of a run: hindcasts over all issue times of held-out time, scored beside the baselines."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.util import find_spec

import numpy as np
from jaxtyping import Int
from numpy import ndarray

from fastrain.archive.store import Archive
from fastrain.core.errors import PlaceError, TooShort
from fastrain.core.time import parse_time
from fastrain.rain.hindcast import BASELINES, Hindcast, Network, Reference, hindcasts, known_names
from fastrain.rain.new_run import Progress, Say
from fastrain.rain.peers import MEMBERS, PEERS
from fastrain.rain.radar import Radar
from fastrain.rain.run import GRID, Run
from fastrain.rain.verified import Verification
from fastrain.samples.frames import Frames, stretches
from fastrain.samples.split import all_issues, evenly, sharing
from fastrain.verification.intervals import skill_interval
from fastrain.verification.tally import Tally
from fastrain.verification.wetness import ByWetness, wet_now

PEER_ISSUES = 200  # issue times, at most, at which pysteps is asked unasked: about a second each
FRAMES_BYTES = 2**28  # of memory for frames at once, unless a single window needs more


def verify(
    run: Run,
    archive: Archive,
    *,
    against: tuple[str, ...] | None = BASELINES,
    pixel: tuple[int, int] | None = None,
    most: int | None = None,
    progress: Progress = lambda *_: None,
    say: Say = lambda _: None,
) -> Verification:
    """Return the scores of a run and the baselines on time it was not trained on.

    Args:
        run: to be judged.
        archive: its own or another, of which all time is taken that the run has not seen.
        against: names of baselines; if None ours, and pysteps' Lagrangian probability where that is installed and the
            issue times are few.
        pixel: row and column of a place whose cell alone is judged; every cell if None, or that of a run of one place.
        most: issue times, evenly spaced; all if None.
        progress: called with issue times done, in all, and what is done.
        say: called with a line on what is left out.

    Raises:
        TooShort: no issue time is left to score, or nothing is observed that could be judged.
        PlaceError: the place lies outside the picture, or is not the one that the run speaks of.
        UsageError: a baseline is unknown, or the radar's cadence does not fit the run's periods.
    """
    every = issues = held_out(run, archive)
    if most is not None:
        issues = evenly(issues, most)
    against = _usual(len(issues), say) if against is None else against
    radar = run.radar(archive)
    reference = Reference.from_attributes(run.facts["reference"])
    shape = (len(radar.layout.periods), len(radar.thresholds))
    decide = {name: np.array(best) for name, best in run.facts["decide"].items()}
    # Peers have no calibration time of their own: their yes is that of the smoothed advection that they are most like.
    usual = decide.get("lagrangian", np.full(shape, 0.5))
    yes = {name: decide.get(name, usual) for name in ("network", *against)}
    absent = dict.fromkeys(against, 0)
    scores = {name: ByWetness(from_on, MEMBERS if name == "steps" else None) for name, from_on in yes.items()}
    beside = {name: Tally(yes["network"]) for name in against if name in PEERS}
    casts, cell, looked_at = _forecaster(run, archive, radar, reference, against, pixel, every, issues)
    done = 0
    for part, frames in stretches(archive, run.coarseness_on(archive), looked_at, radar.layout, FRAMES_BYTES):
        for cast in casts(frames, part):
            event, wet = cast.event(), wet_now(cast.now, cast.judged)
            for name in against:
                absent[name] += bool(np.isnan(cast.chances[name]).all())
            for name, chance in cast.chances.items():
                # Of what a peer does not know it is not judged; the network is, and once more without that beside it.
                scores[name].add(np.nan_to_num(chance), event, cast.judged_of(name), cast.now, wet)
                if name in beside:
                    beside[name].add(cast.chances["network"], event, cast.judged_of(name))
            done += 1
            progress(done, len(issues), "hindcasts")
    pooled = {name: one.together() for name, one in scores.items()}
    tallies = {name: tally for name, (tally, _, _) in pooled.items()}
    if not tallies["network"].cells.any():
        where = "at the place" if cell is not None else "anywhere"
        raise TooShort(
            f"{archive.path}: at none of {len(issues)} issue times is enough observed {where}, before and after, to "
            "judge a forecast; `fastrain info` says what the archive holds."
        )
    axis = archive.schema.axis
    together = sharing(issues, radar.layout.length)
    spanned = (int(issues[-1]) - int(issues[0]) + radar.layout.length) * radar.minutes / 60
    return Verification(
        run=str(run.path),
        network=run.identity,
        archive=archive.schema.identity,
        slots=issues,
        first=axis.time(int(issues[0])),
        last=axis.time(int(issues[-1])),
        periods=run.layout.periods,
        thresholds=radar.thresholds,
        truth=run.truth,
        absent={name: count for name, count in absent.items() if count},
        tallies=tallies,
        changes={name: changes for name, (_, changes, _) in pooled.items()},
        fractions={name: fractions for name, (_, _, fractions) in pooled.items()},
        wetness=scores,
        beside=beside,
        cell_km=radar.cell_km,
        cell=cell,
        intervals={
            # Windows that share frames are drawn together.
            name: skill_interval(
                np.array(beside.get(name, tallies["network"]).windows), np.array(tally.windows), together
            )
            for name, tally in tallies.items()
            if name != "network"
        },
        hours=spanned,
    )


def _usual(issues: int, say: Say) -> tuple[str, ...]:
    """Return who is scored where nobody is named."""
    if find_spec("pysteps") is None:
        return BASELINES
    if issues > PEER_ISSUES:
        say(
            f"pysteps' Lagrangian probability is left out: {issues} issue times would take it long. Name it with the "
            f"others by --against {','.join((*BASELINES, 'pysteps'))}, or take --issues {PEER_ISSUES}."
        )
        return BASELINES
    return (*BASELINES, "pysteps")


Casts = Callable[[Frames, ndarray], Iterator[Hindcast]]


def _forecaster(
    run: Run,
    archive: Archive,
    radar: Radar,
    reference: Reference,
    against: tuple[str, ...],
    pixel: tuple[int, int] | None,
    every: Int[ndarray, every],
    issues: Int[ndarray, issues],
) -> tuple[Casts, tuple[int, int] | None, Int[ndarray, slots]]:
    """Return what gives the hindcasts of some issue times out of all that there are.

    Returns:
        It, the one cell that they are of, if they are of one, and the slots that have to be looked at: those of the
        issue times, and those that a network which never saw the radar learns from, as its forecasts do.
    """
    known_names(against)
    coarseness = run.coarseness_on(archive)
    asked = None if pixel is None else (pixel[0] // coarseness, pixel[1] // coarseness)
    if pixel is not None:
        archive.schema.grid.require(pixel)
    if run.recipe == GRID:
        network = Network.of(run, radar)
        slots, scored = issues, frozenset(int(issue) for issue in issues)
        if network.adapter is not None:
            slots = np.union1d(issues, network.adapter.learned_from(every, issues))

        def of_map(frames: Frames, part: ndarray) -> Iterator[Hindcast]:
            for cast in hindcasts(frames, part, radar, reference, against=against, network=network, scored=scored):
                yield cast if asked is None else cast.at(asked)

        return of_map, asked, slots
    from fastrain.rain.place.hindcast import place_hindcasts
    from fastrain.rain.place.run import place_parts, view_of

    view = view_of(run, archive, radar)
    parts = place_parts(run, radar, view)
    cell = (int(view.nearby[0, 0]), int(view.nearby[0, 1]))
    if asked not in (None, cell):
        raise PlaceError(
            f"{run.path}: speaks of the cell in row {cell[0]}, column {cell[1]} alone, not of that in row {asked[0]}, "
            f"column {asked[1]}, where the place lies."
        )

    def of_place(frames: Frames, part: ndarray) -> Iterator[Hindcast]:
        return place_hindcasts(
            frames, part, view, radar, reference, against=against, parts=parts, calibration=run.calibration
        )

    return of_place, cell, issues


def held_out(run: Run, archive: Archive) -> Int[ndarray, issues]:
    """Return the issue slots whose whole window lies outside the time that the run was trained and calibrated on.

    The guard of half an hour counts with that time. A radar that sees none of the same ground has all its time to
    itself, but for frames that the run learned from by whatever name or time they came.

    Raises:
        TooShort: there is none.
    """
    axis = archive.schema.axis
    layout = run.layout.frames(axis.cadence)
    start, stop = archive.span or (0, 0)
    issues = all_issues(archive, layout)
    if len(issues) == 0:
        past, ahead = (frames * axis.cadence.total_seconds() / 60 for frames in (layout.history, layout.ahead))
        raise TooShort(
            f"{archive.path}: holds no {past:g} min of frames with {ahead:g} min after them, without a gap; ingest "
            "more pictures."
        )
    for grid, times in run.learned:
        if grid.overlaps(archive.schema.grid):
            # Of an archive whose time axis begins later, the slots are before its first.
            first, last = ((parse_time(time) - axis.time(0)) / axis.cadence for time in times)
            before = issues + layout.ahead < first - layout.guard
            after = issues - layout.history + 1 > last + layout.guard
            issues = issues[before | after]
    seen = run.frames_seen
    if seen:
        known = [digest.tobytes() in seen for digest in archive.slots("digest", start, stop)]
        among = np.concatenate([[0], np.cumsum(known)])  # how many of the frames before each slot
        before_window = np.clip(issues - layout.history + 1 - layout.guard - start, 0, stop - start)
        with_window = np.clip(issues + layout.ahead + layout.guard + 1 - start, 0, stop - start)
        issues = issues[among[with_window] == among[before_window]]
    if len(issues) == 0:
        raise TooShort(f"{archive.path}: no issue time is left that the run has not seen; ingest later pictures.")
    return issues

"""The verbs of the image task: train, predict and export, for people's own images; ablate."""

from __future__ import annotations

from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fastrain.cli.show import Json, clean, duration, listed, outlive_terminal, print_json, progress, say, size
from fastrain.cli.speedrun import Table, require_cores
from fastrain.core.errors import SettingError, UsageError

if TYPE_CHECKING:
    from fastrain.vision.judge import Judgement
    from fastrain.vision.plan import Plan
    from fastrain.vision.run import ImageRun

app = typer.Typer(
    name="vision",
    help="Train a small-image network on your own images, ask it, and take it elsewhere.",
    no_args_is_help=True,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

SMALLEST_EDGE = 4
MOST_LINES = 20  # of what a person reads at once
LARGEST_SEED = 2**32 - 1


def finite(value: float | None) -> float | None:
    """Refuse what is no number: a range lets it through."""
    if value is not None and not isfinite(value):
        raise typer.BadParameter(f"{value}: expected a number.")
    return value


Run = Annotated[Path, typer.Argument(metavar="RUN", help="The run's folder.")]


@app.command()
def train(
    data: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER|PARQUET",
            help="CLASS/ folders of images, alone or in train/ and test/; Parquet; CIFAR's batches.",
        ),
    ],
    run: Annotated[Path, typer.Option(metavar="RUN", help="Folder of the run; a killed one is gone on with.")],
    edge: Annotated[
        int | None,
        typer.Option(
            min=SMALLEST_EDGE, metavar="PIXELS", help="Cut every image to a square and bring it to this edge."
        ),
    ] = None,
    epochs: Annotated[
        float | None,
        typer.Option(min=0.1, callback=finite, help="Of the training (default: by the number of images)."),
    ] = None,
    hold_out: Annotated[
        float,
        typer.Option(
            min=0.01, max=0.9, callback=finite, metavar="SHARE", help="To test on, where there is no test part."
        ),
    ] = 0.2,
    mirror: Annotated[
        bool, typer.Option("--mirror/--no-mirror", help="Whether an image's mirror is of the same class.")
    ] = True,
    skip_broken: Annotated[bool, typer.Option("--skip-broken", help="Leave out images that cannot be read.")] = False,
    recipe: Annotated[str | None, typer.Option(metavar="NAME", help="As for speedrun (default: by device).")] = None,
    seed: Annotated[int, typer.Option(min=0, max=LARGEST_SEED, help="Of everything that is drawn.")] = 0,
    device: Annotated[str | None, typer.Option(metavar="D", help="cpu, cuda, cuda:1 (default: the fastest).")] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Of a CPU (default: measured, and kept with the run).")
    ] = None,
    json: Json = False,
) -> None:
    """Train a network to tell images apart, and write a report on it."""
    from fastrain.vision.datasets import open_dataset, some
    from fastrain.vision.images import LARGEST_EDGE, Reading
    from fastrain.vision.recipes import recipe_of
    from fastrain.vision.report import write_report
    from fastrain.vision.run import train_run
    from fastrain.vision.settle import settled, unmirrored
    from fastrain.vision.speedrun import default_recipe, device_of

    if edge is not None and edge > LARGEST_EDGE:
        raise SettingError(f"--edge {edge}: expected {SMALLEST_EDGE} to {LARGEST_EDGE} pixels.")
    on = device_of(device)
    require_cores(threads)
    name = recipe or default_recipe(on)
    chosen = recipe_of(name)
    held = open_dataset(data, Reading(edge=edge, hold_out=hold_out, skip_broken=skip_broken))
    for line in held.notes[:MOST_LINES]:
        say(line)
    for path, reason in held.broken[:MOST_LINES]:
        say(f"Left out: {path}: {reason}.")
    if len(held.broken) > MOST_LINES:
        say(f"… and {len(held.broken) - MOST_LINES} more; the run's {run / 'run.json'} lists all.")
    height, width, channels = held.train.images.shape[1:]
    say(
        f"{held.name}: {len(held.train.labels)} images to train on, {len(held.test.labels)} to test on"
        f"{' (held out)' if held.held_out else ''}, {len(held.classes)} classes, {width}×{height} pixels, "
        f"{'grey' if channels == 1 else 'colour'}; recipe {name}, {on}."
    )
    for line in held.doubles.lines(len(held.test.labels)):
        say(line)
    if none := held.without_images:
        count = len(held.classes)
        say(f"{len(none)} of {count} classes have no image to train on, and will not be found: {some(none)}.")
    recipe_here = settled(chosen, len(held.train.labels), (height, width), epochs=epochs)
    if not mirror:
        recipe_here = unmirrored(recipe_here)
    table = Table(recipe_here.epochs, seeds=False)

    def planned(plan: Plan) -> None:
        left = plan.steps - plan.done
        say(
            f"{left} step{'s' if left != 1 else ''} of {recipe_here.batch} images, {plan.weights:,} weights; about "
            f"{duration(plan.seconds)} and {size(plan.bytes)} of "
            f"{'memory of the device' if on.type == 'cuda' else 'memory, the libraries among it'}."
        )
        table.begin(seed)

    page = run / "report.html"
    outlive_terminal()
    made, found, _ = train_run(
        held,
        run,
        recipe_here,
        seed=seed,
        device=on,
        threads=threads,
        say=say,
        planned=planned,
        progress=table.row,
        ended=table.end,
        report=lambda *judged: write_report(page, judged[0], held, *judged[1:]),
    )
    say(f"Report: {page}")
    if json:
        print_json(made.facts)
    else:
        _show(made, found)


@app.command()
def predict(
    run: Run,
    pictures: Annotated[list[Path], typer.Argument(metavar="PICTURE...", help="Picture files, or folders of them.")],
    to: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a table (.csv) or all (.json).")] = None,
    json: Json = False,
) -> None:
    """Say of pictures which class they are of, with the chance of each."""
    from fastrain.core.files import require_writable, write_whole
    from fastrain.vision.images import not_read
    from fastrain.vision.predict import as_attributes, as_csv, pictures_under, refuse_none
    from fastrain.vision.predict import predict as ask
    from fastrain.vision.run import open_image_run

    if to is not None and to.suffix not in (".csv", ".json"):
        raise UsageError(f"--to {to}: expected a name that ends in .csv or .json.")
    if to is not None:
        require_writable(to, "--to")
    opened = open_image_run(run)
    files = pictures_under(pictures)
    for line in [line for path in pictures if path.is_dir() for line in not_read(path)][:MOST_LINES]:
        say(line)
    broken: list[dict[str, str]] = []

    def lost(file: Path, reason: str) -> None:
        broken.append({"file": str(file), "reason": reason})
        say(reason)

    with progress("predict") as move:
        found = list(ask(opened, files, broken=lost, progress=move))
    refuse_none(found, files)
    said = {
        "run": str(run),
        "classes": list(opened.classes),
        "pictures": [as_attributes(opened, one) for one in found],
        "broken": broken,
    }
    if to is not None and to.suffix == ".csv":
        write_whole(to, as_csv(opened, found))
    elif to is not None:
        from json import dumps

        write_whole(to, dumps(said, indent=1) + "\n")
    if scaled := sum(one.scaled for one in found):
        high, wide, _ = opened.shape
        say(f"{scaled} of {len(found)} pictures were cut and scaled to the run's {wide}×{high} pixels.")
    if json:
        print_json(said)
    elif to is None:
        for row in said["pictures"]:
            typer.echo(clean(f"{row['chance']:6.1%}  {row['class']}  {row['file']}"))  # type: ignore[index]
    else:
        typer.echo(f"{to}: {len(found)} pictures.")
    if broken:
        raise typer.Exit(1)


@app.command()
def export(
    run: Run,
    to: Annotated[Path, typer.Option(metavar="FOLDER", help="That gets the models and their card.")],
    format: Annotated[str, typer.Option(metavar="LIST", help="onnx, safetensors.")] = "onnx,safetensors",
    json: Json = False,
) -> None:
    """Write the network for other programs: ONNX and safetensors, with a model card."""
    from fastrain.vision.export import CHECKED, MODEL
    from fastrain.vision.export import export as write
    from fastrain.vision.run import open_image_run

    formats = tuple(dict.fromkeys(listed(format)))
    if not formats:
        raise SettingError("--format: expected onnx, safetensors, or both.")
    apart = write(open_image_run(run), to, formats)
    files = {name: to / MODEL[name] for name in formats}
    if json:
        print_json({"files": files, "apart": apart, "card": to / "README.md"})
        return
    for name, path in files.items():
        typer.echo(
            f"{path}: {size(path.stat().st_size)}; on {CHECKED} images its chances are within "
            f"{100 * apart[name].relative:.1g} % of the network's, and {100 * apart[name].from_predict:.2g} points of "
            "what `predict` says."
        )
    typer.echo(f"{to / 'README.md'}: the model card.")


@app.command()
def ablate(
    data: Annotated[Path, typer.Argument(metavar="DATA", help="As for speedrun.")],
    to: Annotated[Path, typer.Option(metavar="FOLDER", help="That gets table, picture and figures; resumes.")],
    switches: Annotated[
        str, typer.Option(metavar="LIST", help="Their names or beginnings, by commas (default: all).")
    ] = "",
    recipe: Annotated[str, typer.Option(metavar="NAME", help="The base.")] = "airbench94",
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each; intervals need two.")] = 3,
    images: Annotated[int, typer.Option(min=10, help="To train on.")] = 3000,
    tests: Annotated[int, typer.Option(min=10, help="To judge by.")] = 2000,
    epochs: Annotated[float, typer.Option(min=0.1, callback=finite, help="Of a run.")] = 4.0,
    batch: Annotated[int, typer.Option(min=2, help="Images of a step.")] = 150,
    width: Annotated[
        float, typer.Option(min=0.05, max=4.0, callback=finite, help="Of the network, a share of the recipe's.")
    ] = 0.5,
    device: Annotated[str | None, typer.Option(metavar="D", help="cpu, cuda, cuda:1 (default: the fastest).")] = None,
    json: Json = False,
) -> None:
    """Measure what each trick of a recipe is worth: accuracy won, and time."""
    from fastrain.vision.ablate import PICTURE, Scale, at_scale, fewer, table_of
    from fastrain.vision.ablate import ablate as measure
    from fastrain.vision.datasets import open_dataset
    from fastrain.vision.recipes import recipe_of
    from fastrain.vision.speedrun import device_of
    from fastrain.vision.switches import SWITCHES, switches_of

    scale = Scale(images=images, tests=tests, epochs=epochs, batch=batch, width=width)
    base = at_scale(recipe_of(recipe), scale)
    names = switches_of(listed(switches)) if switches else tuple(SWITCHES)
    on = device_of(device)
    held = fewer(open_dataset(data), scale)
    with progress("ablate") as move:
        found = measure(held, base, to, switches=names, seeds=seeds, device=on, progress=move)
    if json:
        print_json(found)
    else:
        typer.echo(table_of(found))
    say(f"Picture: {to / PICTURE}")


def _show(run: ImageRun, found: Judgement) -> None:
    facts = run.facts
    tests = int(found.confusion.sum())
    typer.echo(
        f"{run.path}: {found.accuracy:.2%} of {tests} test images told right, {found.balanced_accuracy:.2%} as the "
        f"mean over the classes; trained in {duration(facts['seconds'])}, {size(facts['peak_bytes'])} of memory at the "
        "peak."
    )

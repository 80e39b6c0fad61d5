"""Fixtures. Shapes in annotations are checked while testing: everywhere but in what numba compiles."""

from __future__ import annotations

import os
from pathlib import Path

# Beside another worker, a second thread of torch's or BLAS' only waits for its turn, spinning.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from jaxtyping import install_import_hook

PACKAGES = (
    "core",
    "sources",
    "motion.advect",
    "motion.flow",
    "motion.rows",
    "samples",
    "nets.ancestor_net",
    "nets.blocks",
    "nets.convolution",
    "nets.image_net",
    "nets.norm_gelu",
    "nets.place_net",
    "nets.rain_net",
    "nets.squeeze_excite",
    "nets.straight_line",
    "nets.whitening",
    "engine",
    "verification",
    "rain",
    "vision",
)
CHECKED = [f"fastrain.{name}" for name in PACKAGES]
install_import_hook(CHECKED, "checker.tower")

import matplotlib  # noqa: E402
import pytest  # noqa: E402

matplotlib.use("agg")


# By how long they take, so that none of them is what the last worker does alone while the others wait.
LONGEST = (
    "test_docs.py",
    "cli/test_plan.py",
    "vision/test_speedrun.py",
    "cli/test_together.py",
    "vision/test_own_images.py",
    "cli/test_demo.py",
    "rain/test_place.py",
    "cli/test_runs.py",
    "rain/test_training.py",
    "rain/test_ends.py",
    "rain/test_start.py",
    "rain/test_ablate.py",
    "ingest/test_kill.py",
    "ingest/test_beyond.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the files that take longest come first."""
    here = Path(__file__).parent

    def turn(item: pytest.Item) -> int:
        name = item.path.relative_to(here).as_posix()
        return LONGEST.index(name) if name in LONGEST else len(LONGEST)

    items.sort(key=turn)


@pytest.fixture(scope="session", autouse=True)
def kept_memory() -> None:
    """Trainings within a worker keep what they free: each page of it anew is a fault, a fifth of the suite's time.

    What a training takes of memory is tried on the program itself, which gives it back.
    """
    from fastrain.rain import train

    train.give_large_memory_back = lambda: None


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real data beside the checkout; a test that needs it skips aloud where it is missing."""
    path = Path(os.environ.get("FASTRAIN_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not (path / "radar").is_dir():
        pytest.skip(f"real data is not at {path}; set FASTRAIN_DATA")
    return path


@pytest.fixture(scope="session")
def franktown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pictures of Franktown in the package, as files."""
    from fastrain.sample import unpack_franktown

    folder = tmp_path_factory.mktemp("franktown")
    unpack_franktown(folder)
    return folder


@pytest.fixture(scope="session")
def knmi(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The KNMI night in the package, as files."""
    from fastrain.sample import unpack_knmi

    folder = tmp_path_factory.mktemp("knmi")
    unpack_knmi(folder)
    return folder


@pytest.fixture(scope="session")
def night(knmi: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive of the KNMI night."""
    from fastrain.ingest.ingest import IngestSettings, ingest

    path = tmp_path_factory.mktemp("night") / "archive"
    report = ingest([knmi], path, IngestSettings())
    assert report.counts["written"] == 92
    return path


@pytest.fixture
def one_thread():
    """Let one thread compute: what is ours on a CPU is for one."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def moving(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive of synthetic rain that moves, grows and decays."""
    import synthetic

    path = tmp_path_factory.mktemp("moving") / "archive"
    synthetic.write_archive(path, synthetic.moving_rain(frames=96, seed=3))
    return path


@pytest.fixture(scope="session")
def run(moving: Path, tmp_path_factory: pytest.TempPathFactory):
    """A run trained on the synthetic rain."""
    from fastrain.rain.new_run import TrainSettings
    from fastrain.rain.train import train

    said: list[str] = []
    made = train(
        moving, tmp_path_factory.mktemp("runs") / "run", TrainSettings(cells=900_000, width=12), say=said.append
    )
    assert any("periods" in line for line in said)
    return made

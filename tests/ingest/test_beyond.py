"""Beyond one machine: an object store and a Dask cluster give the archive that one machine gives."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time

import pytest
from compare import same

from fastrain.archive.repository import exists
from fastrain.archive.store import Archive
from fastrain.archive.writer import writing
from fastrain.core.errors import ArchiveBusy, ArchiveError, FastrainError
from fastrain.ingest.check import check
from fastrain.ingest.info import describe
from fastrain.ingest.ingest import IngestSettings, ingest


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def wait_for(port: int, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with socket.socket() as tried:
            if tried.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise TimeoutError(port)


@pytest.fixture(scope="module")
def bucket():
    """An S3-speaking server on loopback, in a process of its own, with a bucket named radar."""
    pytest.importorskip("moto", reason="moto is not installed")
    port = free_port()
    script = f"from moto.server import main; main(['-H', '127.0.0.1', '-p', '{port}'])"
    server = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    said = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1",
    }
    before = {name: os.environ.get(name) for name in said}
    os.environ.update(said)
    try:
        wait_for(port)
        import urllib.request

        made = urllib.request.Request(f"http://127.0.0.1:{port}/radar", method="PUT")
        with urllib.request.urlopen(made):
            pass
        yield "s3://radar"
    finally:
        server.terminate()
        server.wait()
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def test_an_archive_in_an_object_store_holds_what_a_local_one_does(bucket, knmi, night):
    from pathlib import Path

    path = Path(f"{bucket}/night")
    assert not exists(path)
    report = ingest([knmi], path, IngestSettings())
    assert report.counts["written"] == 92
    assert report.archive == "s3://radar/night"
    assert same(path, night)
    assert ingest([knmi], path, IngestSettings()).counts["unchanged"] == 92
    assert describe(path).frames == 92
    assert check(path).findings == []


def test_of_two_writers_to_an_object_store_the_second_is_refused_and_nothing_is_torn(bucket, moving):
    from pathlib import Path

    import synthetic

    path = Path(f"{bucket}/two")
    frames = synthetic.frames_of(synthetic.moving_rain(frames=4, size=20))
    schema = synthetic.schema(20, 20)
    with writing(path, schema) as first, writing(path) as second:
        first.write(frames[:2])
        second.write(frames[2:])
        first.commit("first")
        with pytest.raises(ArchiveBusy, match="another process wrote"):
            second.commit("second")
    archive = Archive.open(path)
    assert archive.span[1] - archive.span[0] == 2


def test_a_bucket_that_is_not_there_is_said_in_a_line(bucket):
    from pathlib import Path

    with pytest.raises(ArchiveError, match=r"s3://nobucket/a: The specified bucket does not exist"):
        Archive.open(Path("s3://nobucket/a"))
    with pytest.raises(ArchiveError, match=r"expected a folder, or an address like s3://bucket/name"):
        Archive.open(Path("gs://radar/a"))


@pytest.fixture
def cluster(tmp_path):
    """A Dask scheduler and two worker processes on loopback."""
    pytest.importorskip("distributed", reason="the extra dask is not installed")
    port = free_port()
    address = f"tcp://127.0.0.1:{port}"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": tmp_path}
    options = ["--host", "127.0.0.1", "--no-dashboard"]
    dask = [sys.executable, "-m", "dask"]
    processes = [subprocess.Popen([*dask, "scheduler", *options, "--port", str(port)], **quiet)]
    wait_for(port)
    for _ in range(2):
        worker = [*dask, "worker", address, *options, "--nthreads", "1", "--no-nanny"]
        processes.append(subprocess.Popen(worker, **quiet))
    yield address, processes
    for process in processes:
        process.kill()
        process.wait()


@pytest.mark.filterwarnings("ignore::Warning:distributed", "ignore::ResourceWarning", "ignore:.*:DeprecationWarning")
def test_a_cluster_gives_the_same_archive_though_a_worker_is_killed(cluster, knmi, night, tmp_path):
    address, processes = cluster
    killed = []

    def progress(done, total, text):
        if done >= 12 and not killed:
            os.kill(processes[1].pid, signal.SIGKILL)
            killed.append(done)

    report = ingest([knmi], tmp_path / "a", IngestSettings(scheduler=address), progress)
    assert killed
    assert report.counts["written"] == 92
    assert report.problems == []
    assert same(tmp_path / "a", night)


def test_a_scheduler_that_does_not_answer_is_said_in_a_line(knmi, tmp_path):
    pytest.importorskip("distributed", reason="the extra dask is not installed")
    with pytest.raises(FastrainError, match="no Dask scheduler answers"):
        ingest([knmi], tmp_path / "a", IngestSettings(scheduler=f"tcp://127.0.0.1:{free_port()}"))


def test_several_processes_give_the_same_archive(knmi, night, tmp_path):
    ingest([knmi], tmp_path / "a", IngestSettings(workers=2))
    assert same(tmp_path / "a", night)

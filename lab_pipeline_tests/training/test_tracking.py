"""A training is reported to the tools that teams have: here real ones, where their extras are installed."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab_pipeline.training.train import TrainingReport, train
from lab_pipeline_tests.training.runs import recipe, rows_to_validate_on, training_spec, twelve_rows

Points = list[tuple[int, float]]


def trained(tmp_path: Path, model: Path) -> TrainingReport:
    rows = [*twelve_rows(), *rows_to_validate_on()]
    report = train(training_spec(tmp_path / "run", model, rows, recipe(epochs=2)), lambda text: None)
    assert report
    return report


def points(report: TrainingReport) -> dict[str, Points]:
    """Each curve of the report by its name in transformers' reporters, as steps and values."""
    curves: dict[str, Points] = {
        name: [(int(point["step"]), point[name]) for point in report.curve] for name in ("loss", "learning_rate", "grad_norm")
    }
    for group in ("leaves", "general"):
        curves[f"eval_{group}"] = [(each["step"], each[group] or 0.0) for each in report.validation]
    assert [step for step, _ in curves["loss"]] == [1, 2, 3, 4, 5, 6]
    assert [step for step, _ in curves["eval_leaves"]] == [0, 3, 6]
    return curves


@pytest.fixture
def mlflow_server(tmp_path: Path) -> Iterator[str]:
    """Address of an MLflow server on this machine."""
    pytest.importorskip("mlflow", reason="the extra `mlflow`")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    stores = ["--backend-store-uri", f"sqlite:///{tmp_path / 'mlflow.db'}", "--artifacts-destination", str(tmp_path / "files")]
    command = [sys.executable, "-P", "-m", "mlflow", "server", *stores, "--host", "127.0.0.1", "--port", str(port)]
    log = (tmp_path / "mlflow.log").open("wb")
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    server = subprocess.Popen(
        [*command, "--workers", "1"], env=environment, stdout=log, stderr=log, cwd=tmp_path, start_new_session=True
    )
    address, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 300
    while True:
        assert server.poll() is None and time.monotonic() < deadline, (tmp_path / "mlflow.log").read_text()
        try:
            urllib.request.urlopen(f"{address}/health", timeout=5).close()
            break
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            time.sleep(0.5)
    yield address
    os.killpg(server.pid, signal.SIGKILL)  # its workers too
    server.wait(timeout=60)
    log.close()


@pytest.mark.long
def test_losses_and_held_out_curve_arrive_in_an_mlflow_server(tiny_model, tmp_path, monkeypatch, mlflow_server):
    import mlflow

    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_server)
    monkeypatch.setenv("LAB_TRACKING", "mlflow")
    report = trained(tmp_path, tiny_model)
    client = mlflow.MlflowClient(mlflow_server)
    (run,) = client.search_runs([each.experiment_id for each in client.search_experiments()])
    for name, expected in points(report).items():
        seen = sorted((each.step, each.value) for each in client.get_metric_history(run.info.run_id, name))
        assert [step for step, _ in seen] == [step for step, _ in expected], name
        assert [value for _, value in seen] == pytest.approx([value for _, value in expected]), name
    assert {"tokens_per_second", "peak_memory_mib"} <= run.data.metrics.keys()


@pytest.mark.long
def test_losses_and_held_out_curve_arrive_in_tensorboard(tiny_model, tmp_path, monkeypatch):
    pytest.importorskip("tensorboard", reason="the extra `tensorboard`")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "events"))
    monkeypatch.setenv("LAB_TRACKING", "tensorboard")
    report = trained(tmp_path, tiny_model)
    events = EventAccumulator(str(tmp_path / "events"))
    events.Reload()
    for name, expected in points(report).items():
        shown = f"eval/{name.removeprefix('eval_')}" if name.startswith("eval_") else f"train/{name}"
        seen = [(each.step, each.value) for each in events.Scalars(shown)]
        assert [step for step, _ in seen] == [step for step, _ in expected], name
        assert [value for _, value in seen] == pytest.approx([value for _, value in expected]), name


def records(data: bytes) -> Iterator[bytes]:
    """The records of wandb's file: after seven bytes a log of LevelDB, in blocks of 32 KiB, across which records may go on."""
    place, record = 7, b""
    while place + 7 <= len(data):
        if (left := 2**15 - place % 2**15) < 7:
            place += left
            continue
        length, kind = int.from_bytes(data[place + 4 : place + 6], "little"), data[place + 6]
        record += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield record
            record = b""


@pytest.mark.long
def test_losses_and_held_out_curve_arrive_in_wandb(tiny_model, tmp_path, monkeypatch):
    """In its offline mode, in which it writes what it would send to a file."""
    wandb = pytest.importorskip("wandb", reason="the extra `wandb`")
    from wandb.proto.wandb_internal_pb2 import Record

    for name, value in {"WANDB_MODE": "offline", "WANDB_DIR": str(tmp_path), "LAB_TRACKING": "wandb"}.items():
        monkeypatch.setenv(name, value)
    report = trained(tmp_path, tiny_model)
    wandb.finish()
    (file,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    seen = defaultdict[str, Points](list)
    for record in map(Record.FromString, records(file.read_bytes())):
        if record.HasField("history"):
            numbers = {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
            for name in numbers:
                seen[name].append((numbers.get("train/global_step", -1), numbers[name]))
    for name, expected in points(report).items():
        shown = f"eval/{name.removeprefix('eval_')}" if name.startswith("eval_") else f"train/{name}"
        assert [step for step, _ in seen[shown]] == [step for step, _ in expected], name
        assert [value for _, value in seen[shown]] == pytest.approx([value for _, value in expected]), name

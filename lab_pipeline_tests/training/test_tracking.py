from __future__ import annotations

import pytest

from lab_pipeline.training.train import train
from lab_pipeline_tests.training.runs import recipe, training_spec, twelve_rows


def test_each_step_is_reported_to_the_tracking_tool(tiny_model, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="the extra `mlflow`")
    address = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    monkeypatch.setenv("LAB_TRACKING", "mlflow")
    report = train(training_spec(tmp_path / "run", tiny_model, twelve_rows(), recipe(epochs=2)), lambda text: None)
    assert report
    client = mlflow.MlflowClient(address)
    (run,) = client.search_runs([each.experiment_id for each in client.search_experiments()])
    for name in ("loss", "learning_rate", "grad_norm"):
        seen = client.get_metric_history(run.info.run_id, name)
        assert [(each.step, each.value) for each in seen] == [(point["step"], point[name]) for point in report.curve], name

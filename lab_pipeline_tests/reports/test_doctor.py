from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from transformers import Lfm2Config

from lab_pipeline.reports import doctor
from lab_pipeline.reports.doctor import HealthCheck, examine
from lab_pipeline_tests import templates
from lab_pipeline_tests.builders import as_yaml, write_taxonomy
from lab_pipeline_tests.repositories import commit_files


@pytest.fixture
def home(tmp_path: Path) -> Path:
    write_taxonomy(tmp_path / "taxonomy")
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


def examined(home: Path, **settings: Any) -> dict[str, HealthCheck]:
    """Findings by what was looked at, under these settings."""
    settings = {"taxonomy": {"path": "../taxonomy"}, **settings}
    (home / "settings.yaml").write_text(as_yaml(settings), encoding="utf-8")
    return {finding.name: finding for finding in examine(home)}


@contextmanager
def model_list(body: str, status: int = 200) -> Iterator[tuple[str, list[str | None]]]:
    """The URL of a server that answers GET /v1/models with `body`, and the authorizations that it was given there.

    It answers chat completions with a word, but wants `max_completion_tokens` and gives no log-probabilities.
    """
    given: list[str | None] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            given.append(self.headers["Authorization"])
            self.send_response(status if self.path == "/v1/models" else 404)
            self.end_headers()
            self.wfile.write(body.encode())

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(400 if "max_tokens" in asked else 200)
            self.end_headers()
            said = '"Unsupported parameter: use max_completion_tokens"'
            choice = '{"message": {"content": "Yes"}, "finish_reason": "stop"}'
            self.wfile.write((f'{{"error": {said}}}' if "max_tokens" in asked else f'{{"choices": [{choice}]}}').encode())

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/v1", given
        finally:
            server.shutdown()


def test_without_a_home_the_machine_is_examined_and_nothing_is_made(tmp_path):
    findings = {finding.name: finding for finding in examine(tmp_path / "no" / "home")}
    for what in ("Python", "git", "torch", "transformers", "peft", "bitsandbytes", "dagster", "home"):
        assert findings[what].passed, findings[what].message
    assert {"memory", "disk"} <= findings.keys()
    assert "first retune" in findings["settings"].message
    assert not (tmp_path / "no").exists()


def test_everything_is_fine_with_the_defaults(home):
    findings = examined(home)
    machine = {"memory", "disk"}
    assert [finding for what, finding in findings.items() if not finding.passed and what not in machine] == []
    assert findings["taxonomy"].message.startswith("4 leaves in ")
    assert findings["general questions"].message == "150 to measure, 120 to replay"
    assert "SmolLM2-135M-Instruct" in findings["base model"].message
    assert findings["recipe"].message.startswith("smollm2_135m_cpu (nf4): it fits 0.1")


@pytest.mark.parametrize(
    ("what", "settings", "said"),
    [
        ("taxonomy", {"taxonomy": {"path": "nowhere"}}, "no leaf in"),
        ("recipe", {"recipe": "no_such_recipe"}, "no recipe 'no_such_recipe'"),
        ("general questions", {"general": "nowhere"}, "questions.jsonl"),
        ("custom data sets", {"mixing": {"skills": [{"path": "nowhere.jsonl"}]}}, "nowhere.jsonl: cannot be read"),
        ("flow for knowledge", {"flows": {"knowledge": "no_such_flow"}}, "no_such_flow"),
        ("flow for knowledge", {"flows": {"knowledge": "simple_freeform_skill"}}, "simple_freeform_skill"),
        ("flow for knowledge/places", {"flows": {"leaves": {"knowledge/places": "no_such_flow"}}}, "no_such_flow"),
        (
            "leaves in the settings",
            {"gate": {"allowed_regressions": ["knowledge/places"]}},
            "no leaf knowledge/places; did",
        ),
        ("leaves in the settings", {"rows_wanted": {"leaves": {"knowledge/place": 9}}}, "did you mean knowledge/places"),
        ("base model", {"base_model": "."}, "no *.safetensors"),
        ("teacher", {"teacher": {"kind": "embedded", "model": "."}}, "no *.safetensors"),
    ],
)
def test_a_wrong_setting_is_found_and_all_the_rest_is_still_examined(home, what, settings, said, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    fine, wrong = examined(home), examined(home, **settings)
    assert not wrong[what].passed
    assert said in wrong[what].message
    assert wrong.keys() == fine.keys() | {what}
    assert all(wrong[other].passed for other in wrong.keys() - {what, "memory", "disk"})


def test_a_base_model_that_cannot_be_trained_is_found(home, tiny_model, tmp_path):
    assert examined(home, base_model=str(tiny_model))["base model"].passed
    base = templates.with_template(tiny_model, tmp_path / "bare", None)
    finding = examined(home, base_model=str(base))["base model"]
    assert not finding.passed and "no chat template" in finding.message
    assert [path.name for path in home.iterdir()] == ["settings.yaml"]


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (None, "the model has no chat template"),
        (templates.NO_SYSTEM, "refuses a conversation of system, user, assistant, user"),
    ],
)
def test_an_embedded_teacher_that_cannot_be_asked_is_found_with_the_setting_that_mends_it(
    home, tiny_model, tmp_path, template, said
):
    assert examined(home, teacher={"kind": "embedded", "model": str(tiny_model)})["teacher"].passed
    folder = templates.with_template(tiny_model, tmp_path / "model", template)
    finding = examined(home, teacher={"kind": "embedded", "model": str(folder)})["teacher"]
    assert not finding.passed
    assert said in finding.message and "set teacher.model (or judge.model) to an instruct model" in finding.message
    (folder / "chat_template.jinja").write_text(templates.OWN_END, encoding="utf-8")
    mended = examined(home, judge={"kind": "embedded", "model": str(folder)})
    assert mended["teacher"].passed and mended["judge"].passed


def test_an_embedded_teacher_that_cannot_run_is_found(home, tiny_model, tmp_path):
    folder = templates.with_architecture(tiny_model, tmp_path / "model", Lfm2Config, layer_types=["conv", "full_attention"])
    finding = examined(home, teacher={"kind": "embedded", "model": str(folder)})["teacher"]
    assert not finding.passed and "layers of the kind conv" in finding.message and "kind: endpoint" in finding.message
    for tokenizer in folder.glob("tokenizer*"):
        tokenizer.unlink()
    finding = examined(home, teacher={"kind": "embedded", "model": str(folder)})["teacher"]
    assert not finding.passed and f"{folder} cannot be read" in finding.message


def test_a_taxonomy_in_git_is_fine_if_its_ref_can_be_had(home):
    commit = commit_files(home.parent / "taxonomy", {})
    finding = examined(home, taxonomy={"path": "../taxonomy", "ref": "main"})["taxonomy"]
    assert finding.passed and finding.message.endswith(f"main at {commit[:12]}")
    finding = examined(home, taxonomy={"path": "../taxonomy", "ref": "gone"})["taxonomy"]
    assert not finding.passed and "no branch or tag 'gone'" in finding.message
    finding = examined(home, taxonomy={"path": "https://127.0.0.1:1/t.git"})["taxonomy"]
    assert not finding.passed and "https://127.0.0.1:1/t.git cannot be reached" in finding.message
    assert [path.name for path in home.iterdir()] == ["settings.yaml"]


def test_a_wrong_deployment_is_found(home, monkeypatch):
    monkeypatch.setenv("LAB_DEPLOYMENT", "k9s")
    finding = examined(home)["deployment"]
    assert not finding.passed and "expected 'local' or 'k8s', found 'k9s'" in finding.message


def test_a_model_that_nobody_has_is_found(home):
    finding = examined(home, base_model="nosuch/model")["base model"]
    assert not finding.passed and "'nosuch/model' is neither 'packaged', nor a folder" in finding.message


def test_a_home_of_another_taxonomy_is_found(home):
    other = home.parent / "elsewhere"
    other.mkdir()
    (home / "home.json").write_text(json.dumps({"schema_version": 1, "taxonomy": str(other)}))
    finding = examined(home)["settings"]
    assert not finding.passed and f"belongs to the taxonomy {other}, not ../taxonomy" in finding.message


def test_unreadable_settings_are_a_finding(home):
    finding = examined(home, seeds=3)["settings"]
    assert not finding.passed and "seeds" in finding.message


def test_a_server_that_serves_the_teacher_is_fine_and_is_given_the_key(home, monkeypatch):
    monkeypatch.setenv("TEACHER_KEY", "secret")
    with model_list('{"data": [{"id": "granite"}, {"id": "other"}]}') as (url, given):
        teacher = {"kind": "endpoint", "url": f"{url}/", "model": "granite", "api_key_env": "TEACHER_KEY"}
        finding = examined(home, teacher=teacher)["teacher"]
        assert finding.passed
        assert finding.message == (
            "granite answers, states no log-probabilities: a judge's word decides, is asked with max_completion_tokens for the "
            "length"
        )
        assert given == ["Bearer secret"]
        del teacher["api_key_env"]
        assert examined(home, teacher=teacher)["teacher"].passed
        assert given[1] is None
        finding = examined(home, teacher={**teacher, "model": "absent"})["teacher"]
        assert not finding.passed and "granite, other" in finding.message and "absent" in finding.message


def test_a_judge_of_its_own_is_looked_at_too(home, monkeypatch):
    assert "judge" not in examined(home)
    with model_list('{"data": [{"id": "prometheus"}]}') as (url, _):
        judge = {"kind": "endpoint", "url": url, "model": "prometheus"}
        assert examined(home, judge=judge)["judge"].passed
        finding = examined(home, judge={**judge, "api_key_env": "JUDGE_KEY"})["judge"]
        assert not finding.passed and "JUDGE_KEY is not set" in finding.message


@pytest.mark.parametrize(
    ("body", "status"),
    [("{}", 200), ("not json", 200), ("{}", 401), ("[]", 200), ('{"data": null}', 200), ('{"data": ["granite"]}', 200)],
)
def test_a_server_of_another_kind_is_a_finding(home, body, status):
    with model_list(body, status) as (url, _):
        finding = examined(home, teacher={"kind": "endpoint", "url": url, "model": "granite"})["teacher"]
    assert not finding.passed
    assert url in finding.message and "OpenAI-compatible" in finding.message


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/v1", "localhost:8000", "http://[bad"])
def test_a_server_that_cannot_be_reached_is_a_finding(home, url):
    finding = examined(home, teacher={"kind": "endpoint", "url": url, "model": "granite"})["teacher"]
    assert not finding.passed and url in finding.message


def test_a_key_that_is_not_set_is_named(home, monkeypatch):
    monkeypatch.delenv("TEACHER_KEY", raising=False)
    teacher = {"kind": "endpoint", "url": "http://127.0.0.1:9/v1", "model": "granite", "api_key_env": "TEACHER_KEY"}
    finding = examined(home, teacher=teacher)["teacher"]
    assert not finding.passed and "TEACHER_KEY" in finding.message


def test_a_webhook_needs_its_variable_and_a_url_in_it(home, monkeypatch):
    monkeypatch.delenv("LAB_TEST_WEBHOOK", raising=False)
    assert examined(home)["notifications"] == HealthCheck("notifications", True, "off")
    named = {"webhook_env": "LAB_TEST_WEBHOOK"}
    finding = examined(home, notifications=named)["notifications"]
    assert not finding.passed and "LAB_TEST_WEBHOOK is not set" in finding.message
    monkeypatch.setenv("LAB_TEST_WEBHOOK", "hooks.example.org/secret")
    finding = examined(home, notifications=named)["notifications"]
    assert not finding.passed and "LAB_TEST_WEBHOOK holds no http(s) URL" in finding.message and "secret" not in finding.message
    monkeypatch.setenv("LAB_TEST_WEBHOOK", "https://hooks.example.org/secret")
    finding = examined(home, notifications=named)["notifications"]
    assert finding.passed and "secret" not in finding.message


def test_a_missing_package_says_how_to_install_it():
    finding = doctor._package("no-such-package")
    assert not finding.passed and "make install" in finding.message

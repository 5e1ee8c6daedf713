"""What ships opens elsewhere: hub folders, OCI layouts and GGUF files, and their way to hubs and registries."""

from __future__ import annotations

import base64
import hashlib
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import save_file

from lab_pipeline.core.errors import LabError
from lab_pipeline.core.home import Home
from lab_pipeline.core.storage import folder_digest, read_json, write_json
from lab_pipeline.registry import gguf
from lab_pipeline.registry.champion import Signed, current_champion, promote, rollback
from lab_pipeline.registry.export import export_model
from lab_pipeline.registry.oci import blob
from lab_pipeline.registry.push import push_to_hub, push_to_registry, require_repository
from lab_pipeline_tests.registry.promotions import evaluation
from lab_pipeline_tests.registry.stub_registry import SECRET, Stub, stub_hub, stub_registry


def promoted(home: Home, name: str, reference: str = "base") -> None:
    """Promote a model of one tensor, whose adapter names its base model by an absolute path, as peft does."""
    import numpy

    measured = evaluation(home, name, reference)
    model = home.root / "candidates" / name / "model"
    save_file({"weight": numpy.full((30, 40), len(name), numpy.float32)}, model / "model.safetensors")
    measured["digest"] = folder_digest(model)
    write_json(model.parent / "candidate.json", {"id": name, "digest": measured["digest"]})
    config = {"base_model_name_or_path": str(home.models / "base"), "r": 4}
    write_json(home.checkpoints / name / "adapter" / "adapter_config.json", config)
    promote(home, measured)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home.open(tmp_path / "home")
    base = home.models / "base"
    base.mkdir(parents=True)
    (base / "LICENSE").write_text("Do what you like.")
    from lab_pipeline.models.base_model import _record

    write_json(_record(home, "tiny"), {"identity": "tiny", "folder": str(base), "digest": "d"})
    promoted(home, "one")
    return home


def test_a_hub_folder_holds_weights_documents_and_licence_and_no_path_of_this_machine(home, tmp_path):
    to = tmp_path / "out"
    export_model(home, "champion", to, "hf")
    champion = current_champion(home)
    assert (to / "model.safetensors").read_bytes() == (champion.model / "model.safetensors").read_bytes()
    assert (to / "LICENSE").read_text() == "Do what you like."
    assert (to / "README.md").read_text().startswith("---")  # the hub's front matter
    assert read_json(to / "adapters" / "skills" / "adapter_config.json") == {"base_model_name_or_path": "tiny", "r": 4}
    files = [path for path in to.rglob("*") if path.is_file()]
    assert files and not [path for path in files if str(tmp_path).encode() in path.read_bytes()]
    (to / "config.json").write_text("changed by who got it")
    assert champion.verified


def test_an_earlier_champion_is_exported_by_its_id(home, tmp_path):
    promoted(home, "three", "one")
    export_model(home, "one", tmp_path / "one", "hf")
    export_model(home, "champion", tmp_path / "now", "hf")
    one, now = (read_json(tmp_path / name / "lineage.json")["model"] for name in ("one", "now"))
    assert (one, now) == ("one", "three")
    rollback(home, Signed("Anna", "it was better"))
    assert export_model(home, "champion", tmp_path / "back", "hf").id == "one"


def test_an_oci_layout_is_whole_and_has_the_same_digests_each_time(home, tmp_path):
    for name in ("first", "second"):
        export_model(home, "champion", tmp_path / name, "oci")
    to = tmp_path / "first"
    assert folder_digest(to) == folder_digest(tmp_path / "second")
    assert read_json(to / "oci-layout") == {"imageLayoutVersion": "1.0.0"}
    (described,) = read_json(to / "index.json")["manifests"]
    assert described["annotations"] == {"org.opencontainers.image.ref.name": "one"}
    manifest = read_json(blob(to, described))
    assert manifest["artifactType"] == described["artifactType"] == "application/vnd.cncf.model.manifest.v1+json"
    config = read_json(blob(to, manifest["config"]))
    assert config["modelfs"]["diffIds"] == [layer["digest"] for layer in manifest["layers"]]
    assert config["config"]["paramSize"] == "1.2K"
    types = {layer["annotations"]["org.cncf.model.filepath"]: layer["mediaType"] for layer in manifest["layers"]}
    assert types["model.safetensors"] == "application/vnd.cncf.model.weight.v1.raw"
    assert types["config.json"] == "application/vnd.cncf.model.weight.config.v1.raw"
    assert types["README.md"] == types["LICENSE"] == "application/vnd.cncf.model.doc.v1.raw"
    for each in (described, manifest["config"], *manifest["layers"]):
        content = blob(to, each).read_bytes()
        assert (each["digest"], each["size"]) == (f"sha256:{hashlib.sha256(content).hexdigest()}", len(content))
    export_model(home, "champion", tmp_path / "hub", "hf")
    assert sorted(types) == sorted(
        p.relative_to(tmp_path / "hub").as_posix() for p in (tmp_path / "hub").rglob("*") if p.is_file()
    )


def test_what_cannot_be_exported_is_refused_and_nothing_is_written(home, tmp_path):
    to = tmp_path / "out"
    with pytest.raises(LabError, match="two: no champion; there are: one"):
        export_model(home, "two", to, "hf")
    with pytest.raises(LabError, match="no champion yet"):
        export_model(Home.open(tmp_path / "empty"), "champion", to, "hf")
    (current_champion(home).model / "config.json").write_text("changed")
    with pytest.raises(LabError, match="its files are not those that were measured"):
        export_model(home, "champion", to, "hf")
    assert not to.exists()
    to.mkdir()
    (to / "notes.txt").write_text("mine")
    with pytest.raises(LabError, match="out: exists already and is not an empty folder"):
        export_model(home, "champion", to, "hf")
    assert [path.name for path in to.iterdir()] == ["notes.txt"]


@pytest.fixture
def logged_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    def log_in(registry: Stub) -> None:
        auth = base64.b64encode(f"anna:{SECRET}".encode()).decode()
        write_json(tmp_path / "docker" / "config.json", {"auths": {registry.host: {"auth": auth}}})

    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    monkeypatch.delenv("REGISTRY_AUTH_FILE", raising=False)
    return log_in


def test_an_image_is_pushed_to_a_registry_and_what_it_has_is_not_sent_again(home, tmp_path, logged_in, caplog):
    export_model(home, "champion", tmp_path / "out", "oci")
    described = read_json(tmp_path / "out" / "index.json")["manifests"][0]
    manifest = read_json(blob(tmp_path / "out", described))
    with stub_registry() as registry, caplog.at_level("DEBUG"):
        logged_in(registry)
        assert push_to_registry(tmp_path / "out", f"{registry.host}/me/model").endswith(f":one@{described['digest']}")
        assert registry.manifests == {"one": blob(tmp_path / "out", described).read_bytes()}
        assert registry.blobs.keys() == {each["digest"] for each in (manifest["config"], *manifest["layers"])}
        sent = len([each for each in registry.requests if each.startswith("POST")])
        push_to_registry(tmp_path / "out", f"{registry.host}/me/model:v2")
        assert len([each for each in registry.requests if each.startswith("POST")]) == sent
        assert registry.manifests.keys() == {"one", "v2"}
    assert SECRET not in caplog.text and base64.b64encode(f"anna:{SECRET}".encode()).decode() not in caplog.text


def test_a_registry_that_refuses_or_is_not_there_is_told_with_what_to_do(home, tmp_path, logged_in):
    export_model(home, "champion", tmp_path / "out", "oci")
    with stub_registry() as registry:
        with pytest.raises(LabError, match=rf"was not pushed \(HTTP 401; log in by docker login {registry.host}\)"):
            push_to_registry(tmp_path / "out", f"{registry.host}/me/model")
        assert not registry.blobs
    with pytest.raises(LabError, match="was not pushed .*skopeo copy oci:"):
        push_to_registry(tmp_path / "out", f"{registry.host}/me/model")


def test_a_folder_is_pushed_to_the_hub_as_a_private_repository(home, tmp_path, monkeypatch, caplog):
    export_model(home, "champion", tmp_path / "out", "hf")
    with stub_hub() as hub, caplog.at_level("DEBUG"):
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://{hub.host}")
        monkeypatch.setenv("HF_TOKEN", "wrong")
        with pytest.raises(LabError, match="me/model was not pushed .*hf upload me/model"):
            push_to_hub(tmp_path / "out", "me/model", "one")
        assert not hub.blobs
        monkeypatch.setenv("HF_TOKEN", SECRET)
        assert push_to_hub(tmp_path / "out", "me/model", "one").endswith("/commit/c0ffee")
    files = {path.relative_to(tmp_path / "out").as_posix(): path for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert hub.blobs == {name: path.read_bytes() for name, path in files.items()}
    assert SECRET not in caplog.text


@pytest.mark.parametrize(
    ("repository", "oci", "fine"),
    [
        ("me/model", False, True),
        ("me/model/more", False, False),
        ("ghcr.io/me/model:v1", True, True),
        ("localhost:5000/model", True, True),
        ("me/model", True, False),
        ("ghcr.io/Me/model", True, False),
    ],
)
def test_a_repository_that_cannot_be_is_refused_before_the_export(repository, oci, fine):
    if fine:
        require_repository(repository, oci)
    else:
        with pytest.raises(LabError, match="--push: expected"):
            require_repository(repository, oci)


CONVERTER = """
import pathlib, sys
from conversion import WORD
model, target = sys.argv[1], sys.argv[3]
if "unknown" in pathlib.Path(model, "config.json").read_text():
    print("ERROR:hf-to-gguf:Model UnknownForCausalLM is not supported", file=sys.stderr)
    sys.exit(1)
pathlib.Path(target).write_text(f"{WORD} {sys.argv[5]}")
"""


@pytest.fixture
def llama_cpp(tmp_path: Path) -> Path:
    """The converter's outer shape: a script that imports a package beside it."""
    folder = tmp_path / "llama.cpp"
    (folder / "conversion").mkdir(parents=True)
    (folder / "convert_hf_to_gguf.py").write_text(CONVERTER)
    (folder / "conversion" / "__init__.py").write_text("WORD = 'converted'\n")
    return folder


@pytest.mark.parametrize("packed", [False, True])
def test_a_gguf_file_is_made_by_the_llama_cpp_that_is_named(home, tmp_path, llama_cpp, packed, monkeypatch):
    named = llama_cpp
    if packed:
        named = tmp_path / "llama_cpp_python-1.tar.gz"
        with tarfile.open(named, "w:gz") as archive:
            archive.add(llama_cpp, "llama_cpp_python-1/vendor/llama.cpp")
        shutil.rmtree(llama_cpp)
    monkeypatch.setenv("PYTHONSAFEPATH", "1")  # as under `lab-pipeline ui`
    export_model(home, "champion", tmp_path / "out", "gguf", named)
    assert (tmp_path / "out" / "one.gguf").read_text() == "converted one"
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"one.gguf", "README.md", "lineage.json", "LICENSE"}


def test_a_model_that_the_converter_does_not_know_and_a_missing_converter_are_refused(home, tmp_path, llama_cpp, monkeypatch):
    with pytest.raises(LabError, match="cannot be unpacked .*name a llama.cpp folder or a source archive"):
        export_model(home, "champion", tmp_path / "out", "gguf", tmp_path / "none.tar.gz")
    with pytest.raises(LabError, match="no convert_hf_to_gguf.py"):
        export_model(home, "champion", tmp_path / "out", "gguf", tmp_path)
    monkeypatch.setattr(gguf, "PINNED", "llama-cpp-python==0.0.0")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(LabError, match="could not be downloaded .*--llama-cpp"):
        export_model(home, "champion", tmp_path / "out", "gguf")
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("unknown")
    with pytest.raises(LabError, match="refused model: .* UnknownForCausalLM is not supported; name a newer"):
        gguf.convert(llama_cpp / "convert_hf_to_gguf.py", model, tmp_path / "model.gguf")
    assert not (tmp_path / "out").exists()

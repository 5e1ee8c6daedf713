from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import yaml

from lab_pipeline.config.settings import Settings, SettingsError, TaxonomySettings, initial_settings, load_settings
from lab_pipeline.config.teachers import EmbeddedTeacherSettings, EndpointTeacherSettings
from lab_pipeline.core.home import Home


def written(folder: Path, text: str) -> Path:
    path = folder / "settings.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def said(folder: Path, text: str) -> list[str]:
    """The lines of the refusal that these settings meet, without the file's name."""
    path = written(folder, text)
    with pytest.raises(SettingsError) as caught:
        load_settings(path)
    lines = str(caught.value).splitlines()
    assert all(line.startswith(f"{path}: ") for line in lines)
    return [line.removeprefix(f"{path}: ") for line in lines]


@pytest.mark.parametrize("owner", ["../taxonomy", "{folder}/taxonomy"])
def test_a_home_keeps_its_taxonomy_wherever_both_are_moved(tmp_path, owner):
    home = Home.open(tmp_path / "home")
    path = written(home.root, "taxonomy: {path: ../taxonomy}")
    (tmp_path / "taxonomy").mkdir()
    home.claim(owner.format(folder=tmp_path))
    assert load_settings(path).taxonomy.path == str(tmp_path / "taxonomy")
    moved = shutil.copytree(home.root, tmp_path / "elsewhere" / "home") / "settings.yaml"
    if owner == "../taxonomy":
        assert load_settings(moved).taxonomy.path == str(tmp_path / "elsewhere" / "taxonomy")
    else:  # as earlier releases claimed homes
        with pytest.raises(SettingsError, match=rf"belongs to the taxonomy {tmp_path}/taxonomy, not ../taxonomy; .*home.json"):
            load_settings(moved)
        (tmp_path / "taxonomy").rmdir()  # so it was moved as well
        assert load_settings(moved).taxonomy.path == str(tmp_path / "elsewhere" / "taxonomy")


def test_only_the_taxonomy_is_required(tmp_path):
    settings = load_settings(written(tmp_path, "taxonomy: {path: /t}"))
    assert settings == Settings(taxonomy=TaxonomySettings(path="/t"))
    assert settings.teacher == EmbeddedTeacherSettings(kind="embedded", model="packaged", batch_size=32)


def test_the_taxonomy_starts_at_the_files_folder(tmp_path, monkeypatch):
    path = written(tmp_path, "taxonomy: {path: ../taxonomy}")
    monkeypatch.chdir("/")
    assert load_settings(path).taxonomy.path == str(tmp_path.parent / "taxonomy")


@pytest.mark.parametrize("url", ["https://example.org/t.git", "ssh://git@example.org/t", "git@example.org:t.git"])
def test_a_url_of_a_taxonomy_stays_as_it_is(tmp_path, url):
    settings = load_settings(written(tmp_path, initial_settings(url, "release")))
    assert settings.taxonomy == TaxonomySettings(path=url, ref="release")


@pytest.mark.parametrize("url", ["file:///t", "git://host/t", "ext::touch hacked", "-x", "https://[::1"])
def test_an_address_that_git_is_not_given_is_refused(tmp_path, url):
    (line,) = said(tmp_path, f"taxonomy: {{path: '{url}'}}")
    assert line.startswith("taxonomy.path: ") and url in line


def test_a_password_in_the_address_is_refused_and_not_shown(tmp_path):
    (line,) = said(tmp_path, "taxonomy: {path: 'https://me:secret@example.org/t.git'}")
    assert "password" in line and "example.org" in line and "secret" not in line


def test_every_path_starts_at_the_files_folder(tmp_path, monkeypatch):
    for folder in ("base/model", "teacher", "judge", "flow", "general"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "recipe.yaml").touch()
    text = (
        "{taxonomy: {path: t}, base_model: base/model, recipe: recipe.yaml, general: general, "
        "teacher: {kind: embedded, model: teacher}, judge: {kind: embedded, model: ./judge}, "
        "flows: {knowledge: flow, leaves: {knowledge/a/: flow, compositional_skills: freeform_skill}}}"
    )
    path = written(tmp_path, text)
    monkeypatch.chdir("/")
    settings = load_settings(path)
    assert settings.base_model == str(tmp_path / "base/model")
    assert settings.recipe == str(tmp_path / "recipe.yaml")
    assert settings.general == str(tmp_path / "general")
    assert settings.teacher.model == str(tmp_path / "teacher")
    assert settings.judge.model == str(tmp_path / "judge")
    assert settings.flows.knowledge == str(tmp_path / "flow")
    assert settings.flows.grounded_skill is None
    assert settings.flows.leaves == {"knowledge/a": str(tmp_path / "flow"), "compositional_skills": "freeform_skill"}


def test_data_sets_start_at_the_files_folder_and_their_sizes_keep_their_kind(tmp_path):
    text = "taxonomy: {path: .}\nmixing: {skills: [{path: a.jsonl, sampling_size: 1}, {path: /b.yaml, sampling_size: 1.0}]}\n"
    (tmp_path / "settings.yaml").write_text(text)
    one, other = load_settings(tmp_path / "settings.yaml").mixing.skills
    assert (one.path, one.sampling_size, type(one.sampling_size)) == (str(tmp_path / "a.jsonl"), 1, int)
    assert (other.path, other.sampling_size, type(other.sampling_size)) == ("/b.yaml", 1.0, float)
    for wrong in ("true", "-1", "-0.5", "half"):
        (tmp_path / "settings.yaml").write_text(text.replace("1.0", wrong))
        with pytest.raises(SettingsError, match="mixing.skills.1.sampling_size"):
            load_settings(tmp_path / "settings.yaml")


def test_names_that_are_no_paths_stay_as_they_are(tmp_path):
    (tmp_path / "served").mkdir()
    text = "{taxonomy: {path: t}, base_model: org/model, recipe: own, teacher: {kind: endpoint, url: u, model: served}}"
    settings = load_settings(written(tmp_path, text))
    assert (settings.base_model, settings.recipe) == ("org/model", "own")
    assert settings.teacher == EndpointTeacherSettings(kind="endpoint", url="u", model="served")


def test_a_missing_file_says_how_to_make_one(tmp_path):
    with pytest.raises(SettingsError, match=r"none\.yaml: not found; run `lab-pipeline retune"):
        load_settings(tmp_path / "none.yaml")


def test_a_folder_in_the_files_place_is_refused(tmp_path):
    with pytest.raises(SettingsError, match="cannot be read"):
        load_settings(tmp_path)


@pytest.mark.parametrize("raw", [b"a: [", b"\xff\xfe\x00", b"taxonomy: 2024-13-45", b"a: !!python/object:os.system x"])
def test_what_is_no_plain_yaml_is_refused(tmp_path, raw):
    path = tmp_path / "settings.yaml"
    path.write_bytes(raw)
    with pytest.raises(SettingsError, match=r"settings\.yaml: not valid YAML"):
        load_settings(path)


@pytest.mark.parametrize("text", ["", "just text", "[1, 2]"])
def test_a_file_without_keys_is_refused(tmp_path, text):
    assert len(said(tmp_path, text)) == 1


def test_a_missing_key_is_named(tmp_path):
    assert said(tmp_path, "taxonomy: {}") == ["taxonomy.path: Field required"]


def test_an_unknown_key_is_named_and_its_value_which_may_be_a_secret_is_not(tmp_path):
    lines = said(tmp_path, "taxonomy: {path: t}\nteacher: {kind: endpoint, url: u, model: m, api_key: sk-123}")
    assert len(lines) == 1
    assert lines[0].startswith("teacher.endpoint.api_key: ")
    assert "sk-123" not in lines[0]


@pytest.mark.parametrize(
    ("text", "key", "found"),
    [
        ("gate: {confidence: 2}", "gate.confidence", "2"),
        ("gate: {minimum_questions: 1}", "gate.minimum_questions", "1"),
        ("seed: many", "seed", "'many'"),
        ("documents: {timeout_seconds: 0}", "documents.timeout_seconds", "0"),
        ("budgets: {teacher_calls: -1}", "budgets.teacher_calls", "-1"),
        ("recipe: [a]", "recipe", "a list"),
        ("system_message: shout", "system_message", "'shout'"),
        ("packing: sometimes", "packing", "'sometimes'"),
        ("schedule: {cron: null}", "schedule.cron", "None"),
        ("teacher: {kind: embedded, batch_size: 0}", "teacher.embedded.batch_size", "0"),
        ("judge: {kind: endpoint, url: u, model: m, retries: 99}", "judge.endpoint.retries", "99"),
    ],
)
def test_a_wrong_value_is_shown_with_its_key(tmp_path, text, key, found):
    (line,) = said(tmp_path, f"taxonomy: {{path: t}}\n{text}")
    assert line.startswith(f"{key}: Input should be ")
    assert line.endswith(f", found {found}")


@pytest.mark.parametrize(
    ("schedule", "key"),
    [
        ("cron: every night", "cron"),
        ("cron: 0 2 * *", "cron"),
        ("cron: 60 2 * * *", "cron"),
        ("cron: 0 2 30 2 *", "cron"),
        ("cron: 0 5-2 * * *", "cron"),
        ("cron: 0 2 * * * *", "cron"),
        ("cron: 0 2 30 2 1", "cron"),
        ("cron: 0 2 LW * *", "cron"),
        ("cron: 0 2 1-7 * 1#2", "cron"),
        ("cron: 0 2 * * 5-5", "cron"),
        ("cron: 0 23/3 * * *", "cron"),
        ("cron: 0 2 */2 * MON", "cron"),
        ("cron: '@daily'", "cron"),
        ("timezone: Middle/Earth", "timezone"),
        ("timezone: /etc/passwd", "timezone"),
    ],
)
def test_a_schedule_that_no_clock_can_keep_is_refused(tmp_path, schedule, key):
    (line,) = said(tmp_path, f"taxonomy: {{path: t}}\nschedule: {{{schedule}}}")
    assert line.startswith(f"schedule.{key}: ") and line.endswith(f", found {yaml.safe_load(schedule)[key]!r}")


def test_an_unknown_teacher_is_told_which_there_are(tmp_path):
    (line,) = said(tmp_path, "taxonomy: {path: t}\nteacher: {kind: oracle}")
    assert line.startswith("teacher: ")
    assert all(word in line for word in ("oracle", "embedded", "endpoint"))


def test_all_wrong_keys_are_named_at_once(tmp_path):
    lines = said(tmp_path, "{taxonomy: {path: t, refs: x}, seed: -1, gate: {minimum_gain: -1}}")
    assert [line.split(": ")[0] for line in lines] == ["taxonomy.refs", "gate.minimum_gain", "seed"]


def uncommented(text: str) -> str:
    """The text with the '#' of every setting taken away; comments proper have a single blank after theirs."""
    return re.sub(r"^#(?! \S)", "", text, flags=re.MULTILINE)


def test_the_initial_settings_are_the_defaults(tmp_path):
    path = written(tmp_path, initial_settings(Path("/some/taxonomy")))
    assert load_settings(path) == Settings(taxonomy=TaxonomySettings(path="/some/taxonomy"))


def test_the_initial_settings_show_every_key_with_its_default(tmp_path):
    text = uncommented(initial_settings(Path("/t")))
    assert yaml.safe_load(text) == Settings(taxonomy=TaxonomySettings(path="/t")).model_dump()
    assert load_settings(written(tmp_path, text)) == Settings(taxonomy=TaxonomySettings(path="/t"))


@pytest.mark.parametrize("name", ["a: b #c", "'q\"", "日本 ü", "- dash", "word " * 40 + "end", "123", "null"])
def test_the_initial_settings_hold_any_folder_name(tmp_path, name):
    path = written(tmp_path, initial_settings(Path("/t") / name))
    assert load_settings(path).taxonomy.path == f"/t/{name}"


def test_settings_cannot_be_changed_after_loading(tmp_path):
    settings = load_settings(written(tmp_path, "taxonomy: {path: t}"))
    with pytest.raises(ValueError, match="frozen"):
        settings.gate.minimum_gain = 0.0


def test_packing_is_switched_as_the_documentation_writes_it(tmp_path):
    for text, on in (("packing: off", False), ("packing: on", True), ("seed: 1", True)):
        assert load_settings(written(tmp_path, f"taxonomy: {{path: t}}\n{text}")).packing is on


def test_a_template_file_is_found_beside_the_settings_and_a_shipped_one_by_name(tmp_path):
    (tmp_path / "own.jinja").write_text("{{ messages }}")
    for name, found in (("own.jinja", str(tmp_path / "own.jinja")), ("chatml", "chatml")):
        assert load_settings(written(tmp_path, f"taxonomy: {{path: t}}\nchat_template: {name}")).chat_template == found

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from lab_pipeline.config.settings import SettingsError, load_settings
from lab_pipeline.core.errors import LabError
from lab_pipeline.core.home import PROJECT, default_home
from lab_pipeline.runtime import launcher
from lab_pipeline.runtime.launcher import SAMPLE_TAXONOMY, home_of, prepare

SET = ("LAB_HOME", "DAGSTER_HOME", "DAGSTER_DISABLE_TELEMETRY", "GX_ANALYTICS_ENABLED", "TOKENIZERS_PARALLELISM")


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `prepare` sets is taken back after each test."""
    for name in SET:
        monkeypatch.setenv(name, "before")
        monkeypatch.delenv(name)


@pytest.fixture
def taxonomy(tmp_path: Path) -> Path:
    (tmp_path / "taxonomy").mkdir()
    return tmp_path / "taxonomy"


def test_the_sample_taxonomy_has_the_default_home_and_every_other_one_its_own(tmp_path):
    assert home_of(SAMPLE_TAXONOMY) == default_home() == PROJECT / "data" / "lab"
    one, other = home_of(tmp_path / "a" / "taxonomy"), home_of(tmp_path / "b" / "taxonomy")
    assert one != other and one.name.startswith("taxonomy-")
    assert home_of(tmp_path / "a" / ".." / "a" / "taxonomy") == one


def test_each_url_has_a_home_named_after_its_repository():
    homes = [home_of(url) for url in ("https://a.org/our/taxonomy.git", "https://b.org/our/taxonomy/", "git@a.org:taxonomy")]
    assert len(set(homes)) == 3
    assert all(home.name.startswith("taxonomy-") for home in homes)


def test_a_home_of_a_url_keeps_url_and_ref(tmp_path):
    url = "https://example.org/taxonomy.git"
    home = prepare(tmp_path / "home", url, "release")
    homes = [prepare(home.root, None), prepare(home.root, url), prepare(home.root, url, "release")]
    assert {each.root for each in homes} == {home.root}
    settings = load_settings(home.settings_file)
    assert (settings.taxonomy.path, settings.taxonomy.ref) == (url, "release")
    with pytest.raises(LabError, match=r"reads release .*, not main; .*edit taxonomy\.ref in .*settings\.yaml"):
        prepare(home.root, url, "main")
    assert load_settings(home.settings_file) == settings


@pytest.mark.parametrize("url", ["file:///t", "https://me:secret@example.org/t.git"])
def test_an_address_that_git_is_not_given_makes_no_home(tmp_path, url):
    with pytest.raises(LabError) as caught:
        prepare(tmp_path / "home", url)
    assert "secret" not in str(caught.value)
    assert not (tmp_path / "home").exists()


def test_lab_home_is_the_home_of_whatever_taxonomy(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LAB_HOME", "lab")
    assert default_home() == home_of(SAMPLE_TAXONOMY) == home_of(tmp_path / "other") == tmp_path / "lab"


def test_the_first_call_makes_home_and_settings(tmp_path, taxonomy):
    home = prepare(tmp_path / "home", taxonomy)
    assert load_settings(home.settings_file).taxonomy.path == str(taxonomy)
    assert (home.dagster / "dagster.yaml").read_bytes() == (PROJECT / "dagster.yaml").read_bytes()


def test_later_calls_need_no_taxonomy_and_keep_the_settings(tmp_path, taxonomy):
    home = prepare(tmp_path / "home", taxonomy)
    with home.settings_file.open("a", encoding="utf-8") as file:
        file.write("\nseed: 5\n")
    text = home.settings_file.read_text(encoding="utf-8")
    assert prepare(home.root, None).root == prepare(home.root, taxonomy).root == home.root
    assert home.settings_file.read_text(encoding="utf-8") == text


def test_the_environment_names_absolute_paths(tmp_path, taxonomy, monkeypatch):
    monkeypatch.chdir(tmp_path)
    home = prepare(Path("home"), Path("taxonomy"))
    assert os.environ["LAB_HOME"] == str(tmp_path / "home")
    assert os.environ["DAGSTER_HOME"] == str(home.dagster) == str(tmp_path / "home" / "dagster")
    assert load_settings(home.settings_file).taxonomy.path == str(taxonomy)
    assert os.environ["DAGSTER_DISABLE_TELEMETRY"] == "1"


def test_without_home_and_taxonomy_nothing_is_made(tmp_path):
    with pytest.raises(LabError, match=r"no home yet; run `lab-pipeline retune --home"):
        prepare(tmp_path / "home", None)
    assert not (tmp_path / "home").exists()


def test_a_home_is_refused_to_another_taxonomy_in_words_that_say_what_to_do(tmp_path, taxonomy):
    home = prepare(tmp_path / "home", taxonomy)
    os.environ["DAGSTER_HOME"] = "untouched"
    (tmp_path / "other").mkdir()
    with pytest.raises(LabError, match=re.escape(str(tmp_path / "other")) + r".*--home"):
        prepare(home.root, tmp_path / "other")
    assert os.environ["DAGSTER_HOME"] == "untouched"


def test_a_home_whose_settings_were_pointed_elsewhere_is_refused(tmp_path, taxonomy):
    home = prepare(tmp_path / "home", taxonomy)
    home.settings_file.write_text(f"taxonomy: {{path: {tmp_path / 'other'}}}\n", encoding="utf-8")
    with pytest.raises(LabError, match="belongs to the taxonomy"):
        prepare(home.root, None)


def test_wrong_settings_are_refused(tmp_path, taxonomy):
    home = prepare(tmp_path / "home", taxonomy)
    home.settings_file.write_text("taxonomy: {path: .}\nseeds: 1\n", encoding="utf-8")
    with pytest.raises(SettingsError, match="seeds"):
        prepare(home.root, None)


def test_what_the_launcher_takes_from_the_project_is_there():
    assert (launcher.PROJECT / "dagster.yaml").is_file()
    assert SAMPLE_TAXONOMY.is_dir()

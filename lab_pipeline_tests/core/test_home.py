from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab_pipeline.core.errors import LabError
from lab_pipeline.core.home import SCHEMA_VERSION, Home, file_name
from lab_pipeline.core.storage import read_json, write_json

# leaf folders


def test_a_key_with_commas_gives_a_flat_name_that_can_be_read_back():
    assert file_name("knowledge/a, b/c") == "knowledge%2Fa%2C b%2Fc"


def test_a_key_that_imitates_a_shortened_name_gets_another_folder():
    long = "knowledge/" + "a" * 300
    shortened = file_name(long)
    assert file_name(unquote(shortened)) != shortened


@pytest.mark.parametrize("key", ["knowledge/" + "ü" * 120, "knowledge/" + "a/" * 1000 + "b", "knowledge/" + "," * 67])
def test_a_long_key_gives_a_name_that_a_folder_can_have(tmp_path, key):
    (tmp_path / file_name(key)).mkdir()
    assert len(list(tmp_path.iterdir())) == 1


def test_long_keys_with_the_same_beginning_get_different_folders():
    assert file_name("knowledge/" + "a" * 300 + "b") != file_name("knowledge/" + "a" * 300 + "c")


keys = st.text(st.sampled_from("ab/~%,. é字\n") | st.characters(codec="utf-8"), max_size=40).map(
    lambda text: f"knowledge/{text}"
) | st.builds(lambda text, times: "knowledge/" + text * times, st.text(min_size=1, max_size=4), st.integers(1, 200))


@given(keys)
def test_a_folder_name_is_flat_short_and_reversible_where_it_is_not_shortened(key):
    name = file_name(key)
    assert len(name.encode()) <= 255
    assert not set("/\0,\n") & set(name)
    assert unquote(name) == key or "~" in name


@given(st.lists(keys, unique=True, min_size=2, max_size=8))
def test_different_keys_have_different_folder_names(several):
    names = [file_name(key) for key in several]
    imitations = [unquote(name) for name in names if unquote(name) not in several]
    assert len({*names, *(file_name(key) for key in set(imitations))}) == len(names) + len(set(imitations))


# the home


def test_a_home_is_created_where_there_is_none(tmp_path):
    home = Home.open(tmp_path / "deep/home")
    assert read_json(home.root / "home.json") == {"schema_version": SCHEMA_VERSION}


def test_a_home_keeps_its_state_when_opened_again(tmp_path):
    Home.open(tmp_path).claim("/taxonomy")
    Home.open(tmp_path).claim("/another")  # which `load_settings` refuses
    assert read_json(tmp_path / "home.json") == {"schema_version": SCHEMA_VERSION, "taxonomy": "/taxonomy"}


def test_a_home_of_a_newer_release_is_refused_and_left_as_it_is(tmp_path):
    write_json(tmp_path / "home.json", {"schema_version": SCHEMA_VERSION + 1})
    with pytest.raises(LabError, match=f"schema version {SCHEMA_VERSION + 1}"):
        Home.open(tmp_path)
    assert read_json(tmp_path / "home.json") == {"schema_version": SCHEMA_VERSION + 1}


def test_a_home_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(LabError, match="cannot be written"):
        Home.open(tmp_path / "file")
    with pytest.raises(LabError, match="cannot be written"):
        Home.open(tmp_path / "file/below")


def test_a_home_does_not_move_with_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    home = Home.open(Path("home"))
    monkeypatch.chdir("/")
    assert home.settings_file == tmp_path / "home/settings.yaml"


def test_every_leaf_has_its_own_folder_below_the_home(tmp_path):
    home = Home(tmp_path)
    assert home.leaf("knowledge/a/b").parent == home.leaf("knowledge/a").parent == tmp_path / "leaves"
    assert home.leaf("knowledge/../../etc").parent == tmp_path / "leaves"

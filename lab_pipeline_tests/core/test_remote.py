"""Folders in stores that fsspec reaches; its own store in memory stands for those."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from lab_pipeline.core.errors import LabError
from lab_pipeline.core.remote import download, upload, write_there
from lab_pipeline.core.storage import folder_digest

THERE = "memory://models/base"


@pytest.fixture(autouse=True)
def memory() -> Iterator[fsspec.AbstractFileSystem]:
    store = fsspec.filesystem("memory")
    store.store.clear()
    yield store
    store.store.clear()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "own" / "deep").mkdir(parents=True)
    (tmp_path / "own" / "weights").write_bytes(bytes(range(256)) * 100)
    (tmp_path / "own" / "deep" / "config").write_text("{}")
    return tmp_path / "own"


@pytest.mark.parametrize("scheme", ["memory://", "file://"])
def test_a_folder_comes_back_byte_for_byte(folder, tmp_path, scheme):
    there = f"{scheme}{tmp_path}/there"
    upload(folder, there)
    download(there, tmp_path / "back")
    assert folder_digest(tmp_path / "back") == folder_digest(folder)


def test_only_what_differs_is_sent_again(folder, memory, monkeypatch):
    upload(folder, THERE)
    sent: list[str] = []
    put = type(memory).put_file
    monkeypatch.setattr(type(memory), "put_file", lambda self, local, name: (sent.append(name), put(self, local, name)))
    (folder / "deep" / "config").write_text("{1}")
    upload(folder, THERE)
    assert [name.rpartition("/")[2] for name in sent] == ["config"]


def test_a_store_that_keeps_something_else_is_found_out(folder, memory, monkeypatch):
    monkeypatch.setattr(type(memory), "put_file", lambda self, local, name: self.pipe_file(name, b"half"))
    with pytest.raises(LabError, match=re.escape(f"{THERE}: deep/config: the store does not hold what it was given")):
        upload(folder, THERE)


def test_a_file_that_arrives_cut_short_is_refused(folder, memory, tmp_path, monkeypatch):
    upload(folder, THERE)
    monkeypatch.setattr(type(memory), "get_file", lambda self, name, local: Path(local).write_bytes(b"x"))
    with pytest.raises(LabError, match="1 of 2 bytes arrived"):
        download(THERE, tmp_path / "back")


def test_nothing_there_is_told(tmp_path):
    with pytest.raises(LabError, match="no files there"):
        download("memory://nowhere", tmp_path / "back")


def test_a_store_whose_package_is_missing_is_told_with_the_extra(tmp_path, monkeypatch):
    def missing(address: str) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec, "url_to_fs", missing)
    with pytest.raises(LabError, match=re.escape("s3://b/m: Install s3fs to access S3; install the extra")):
        download("s3://b/m", tmp_path / "back")


def test_a_refusal_of_the_store_is_told(tmp_path, memory, monkeypatch):
    def refused(*_: object, **__: object) -> None:
        raise PermissionError("Access Denied")

    monkeypatch.setattr(type(memory), "find", refused)
    with pytest.raises(LabError, match="Access Denied; credentials come from the environment"):
        download(THERE, tmp_path / "back")


def test_a_small_file_is_replaced(memory):
    write_there(THERE, "champion.json", "1")
    write_there(THERE, "champion.json", "2")
    assert memory.cat_file("/models/base/champion.json") == b"2"

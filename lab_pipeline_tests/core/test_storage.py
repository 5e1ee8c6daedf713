from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab_pipeline.core import storage
from lab_pipeline.core.storage import (
    append_line,
    clear_scratch,
    digest,
    file_digest,
    folder_digest,
    read_json,
    read_lines,
    read_rows,
    write_json,
    write_rows,
    write_text,
    written_whole,
)

SCHEMA = pa.schema([("name", pa.string()), ("size", pa.int32()), ("tags", pa.list_(pa.string()))])


def entries(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# digests


def test_a_digest_does_not_depend_on_the_order_of_keys():
    assert digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1})


def test_a_digest_tells_neighbouring_texts_apart():
    assert digest(["ab", "c"]) != digest(["a", "bc"])


def test_a_digest_stays_the_same_between_releases():
    assert digest({"leaf": "knowledge/é", "seeds": [1, None]}) == "23c162fa212f579090a5"


def test_a_folder_digest_sees_names_and_bytes(tmp_path):
    (tmp_path / "one/sub").mkdir(parents=True)
    (tmp_path / "one/sub/file").write_bytes(b"x")
    first = folder_digest(tmp_path / "one")
    (tmp_path / "one").rename(tmp_path / "two")
    assert folder_digest(tmp_path / "two") == first
    (tmp_path / "two/sub/file").write_bytes(b"y")
    assert folder_digest(tmp_path / "two") != first
    (tmp_path / "two/sub/file").write_bytes(b"x")
    (tmp_path / "two/sub/file").rename(tmp_path / "two/sub/renamed")
    assert folder_digest(tmp_path / "two") != first


def test_a_file_digest_is_the_sha256_of_the_bytes(tmp_path):
    (tmp_path / "file").write_bytes(b"abc")
    assert file_digest(tmp_path / "file").startswith("ba7816bf8f01cfea414140de5dae2223")


# whole or not at all


def test_a_failed_write_keeps_the_old_file_and_leaves_no_trace(tmp_path):
    path = tmp_path / "file.txt"
    write_text(path, "old")
    with pytest.raises(RuntimeError), written_whole(path) as scratch:
        scratch.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert entries(tmp_path) == ["file.txt"]


def test_a_file_does_not_appear_before_it_is_whole(tmp_path):
    with written_whole(tmp_path / "file.txt") as scratch:
        scratch.write_text("all of it")
        assert not (tmp_path / "file.txt").exists()
    assert (tmp_path / "file.txt").read_text() == "all of it"
    assert entries(tmp_path) == ["file.txt"]


def test_a_whole_folder_appears_at_once(tmp_path):
    with written_whole(tmp_path / "model") as scratch:
        (scratch / "deep").mkdir(parents=True)
        (scratch / "deep/weights").write_bytes(b"123")
    assert (tmp_path / "model/deep/weights").read_bytes() == b"123"
    assert entries(tmp_path) == ["model"]


def test_a_writer_that_writes_nothing_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError), written_whole(tmp_path / "file"):
        pass
    assert entries(tmp_path) == []


ELSEWHERE = """
import sys
from pathlib import Path
from lab_pipeline.core import storage

storage.this_process = lambda: "7@99.otherpod"
with storage.written_whole(Path(sys.argv[1])) as scratch:
    scratch.write_text("all of it")
    print("half-way", flush=True)
    sys.stdin.read()
"""
"""A writer under a name that no process of this machine has, as one in another pod, until its input ends."""


@contextmanager
def writer_elsewhere(path: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", ELSEWHERE, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout and writer.stdout.readline() == "half-way\n"
        yield writer


def test_what_a_writer_in_another_pod_is_writing_is_not_cleared(tmp_path):
    with writer_elsewhere(tmp_path / "deep/file.txt"):
        clear_scratch(tmp_path)
        assert len(entries(tmp_path / "deep")) == 1
    assert (tmp_path / "deep/file.txt").read_text() == "all of it"
    assert entries(tmp_path / "deep") == ["file.txt"]


def test_what_a_killed_writer_in_another_pod_left_is_cleared(tmp_path):
    with writer_elsewhere(tmp_path / "deep/file.txt") as writer:
        writer.kill()
    assert len(entries(tmp_path / "deep")) == 1
    clear_scratch(tmp_path)
    assert entries(tmp_path / "deep") == []


def test_what_a_release_without_locks_left_is_cleared(tmp_path):
    (tmp_path / ".writing-7@99.otherpod-abc").mkdir()
    (tmp_path / ".writing-7@99.otherpod-abc" / "file.txt").write_text("half")
    clear_scratch(tmp_path)
    assert entries(tmp_path) == []


def test_what_another_thread_of_this_process_is_writing_is_not_cleared(tmp_path):
    with written_whole(tmp_path / "file.txt") as scratch:
        scratch.write_text("all of it")
        thread = threading.Thread(target=clear_scratch, args=(tmp_path,))
        thread.start()
        thread.join()
    assert entries(tmp_path) == ["file.txt"]


@pytest.mark.parametrize("moment", ["before it has a lock", "before the lock is held"])
def test_a_writer_whose_folder_is_cleared_at_the_start_takes_another(tmp_path, monkeypatch, moment):
    monkeypatch.setattr(storage, "this_process", lambda: "7@99.otherpod")
    cleared = []

    def cleared_once(made):
        def make(*arguments, **named):
            found = made(*arguments, **named)
            if not cleared:
                cleared.append(True)
                clear_scratch(tmp_path)
            return found

        return make

    if moment == "before it has a lock":
        monkeypatch.setattr(tempfile, "mkdtemp", cleared_once(tempfile.mkdtemp))
    else:
        monkeypatch.setattr(Path, "open", cleared_once(Path.open))
    write_text(tmp_path / "file.txt", "all of it")
    assert cleared and entries(tmp_path) == ["file.txt"]


def test_json_comes_back_as_it_was_written(tmp_path):
    value = {"ü": [1, 2.5, None, True, "line\nbreak"]}
    write_json(tmp_path / "deep/er/value.json", value)
    assert read_json(tmp_path / "deep/er/value.json") == value


# rows


def test_rows_come_back_as_they_were_written(tmp_path):
    rows = [{"name": "a", "size": 1, "tags": ["x", "y"]}, {"name": None, "size": None, "tags": []}]
    write_rows(tmp_path / "rows.parquet", rows, SCHEMA)
    assert read_rows(tmp_path / "rows.parquet") == rows


def test_no_rows_keep_the_schema(tmp_path):
    write_rows(tmp_path / "rows.parquet", [], SCHEMA)
    assert read_rows(tmp_path / "rows.parquet") == []
    assert pa.parquet.read_schema(tmp_path / "rows.parquet").equals(SCHEMA)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"name": "a", "size": 1}, "row 1.*tags"),
        ({"name": "a", "size": 1, "tags": [], "more": 1}, "row 1.*more"),
        ({"name": "a", "size": "big", "tags": []}, "big"),
        ({"name": 7, "size": 1, "tags": []}, "int"),
        ({"name": "a", "size": 1, "tags": 5}, "rows.parquet"),
        ({"name": "a", "size": 2**40, "tags": []}, "rows.parquet"),
        ({"name": "a", "size": 2**70, "tags": []}, "rows.parquet"),
    ],
)
def test_a_row_that_breaks_the_schema_is_refused_and_nothing_is_written(tmp_path, row, said):
    with pytest.raises(ValueError, match=said):
        write_rows(tmp_path / "rows.parquet", [{"name": "a", "size": 1, "tags": []}, row], SCHEMA)
    assert entries(tmp_path) == []


# appended lines


def test_lines_come_back_in_order(tmp_path):
    for number in range(3):
        append_line(tmp_path / "deep/lines.jsonl", {"number": number, "text": "a\nb é"})
    assert read_lines(tmp_path / "deep/lines.jsonl") == [{"number": number, "text": "a\nb é"} for number in range(3)]


def test_a_missing_file_has_no_lines(tmp_path):
    assert read_lines(tmp_path / "none.jsonl") == []


def test_a_torn_last_line_is_passed_over(tmp_path):
    path = tmp_path / "lines.jsonl"
    path.write_bytes(b'{"n": 1}\n{"n": 2, "te')
    assert read_lines(path) == [{"n": 1}]


def test_a_line_appended_after_a_torn_one_is_read(tmp_path):
    path = tmp_path / "lines.jsonl"
    path.write_bytes(b'{"n": 1}\n{"n": 2, "te')
    append_line(path, {"n": 3})
    assert read_lines(path) == [{"n": 1}, {"n": 3}]


@given(st.lists(st.dictionaries(st.text(max_size=5), st.text(max_size=8), max_size=3), max_size=4), st.data())
def test_no_whole_line_is_lost_wherever_a_crash_tears_the_file(tmp_path_factory, values, data):
    path = tmp_path_factory.mktemp("torn") / "lines.jsonl"
    for value in values:
        append_line(path, value)
    raw = path.read_bytes() if values else b""
    kept = data.draw(st.integers(0, len(raw)))
    path.write_bytes(raw[:kept])
    append_line(path, {"new": 1})
    whole = raw[:kept].count(b"\n")
    if whole < len(values) and raw[:kept].split(b"\n")[-1] == json.dumps(values[whole], ensure_ascii=False).encode():
        whole += 1  # only the line break was torn away
    assert read_lines(path) == [*values[:whole], {"new": 1}]

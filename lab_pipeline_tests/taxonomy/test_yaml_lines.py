from __future__ import annotations

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from lab_pipeline.taxonomy.yaml_lines import MAX_BYTES, MAX_DEPTH, MAX_DIGITS, YamlProblem, load_located


def problem(raw: bytes | str) -> YamlProblem:
    with pytest.raises(YamlProblem) as caught:
        load_located(raw.encode() if isinstance(raw, str) else raw)
    return caught.value


def test_every_value_is_known_by_the_line_of_its_key():
    located = load_located(b"a: 1\nb:\n  - c: 2\n    d: |\n      text\n  - e\nf:\n\n  g: 3\n")
    assert located.value == {"a": 1, "b": [{"c": 2, "d": "text\n"}, "e"], "f": {"g": 3}}
    assert located.places == {
        (): (1, 1),
        ("a",): (1, 1),
        ("b",): (2, 1),
        ("b", 0): (3, 5),
        ("b", 0, "c"): (3, 5),
        ("b", 0, "d"): (4, 5),
        ("b", 1): (6, 5),
        ("f",): (7, 1),
        ("f", "g"): (9, 3),
    }


def test_a_value_that_is_missing_is_at_the_line_of_what_encloses_it():
    located = load_located(b"a: 1\nb:\n  - c: 2\n")
    assert located.line(("b", 0, "missing", "deeper")) == 3
    assert located.line(("b", 7)) == 2
    assert located.line(("missing",)) == 1


def test_an_empty_file_is_none_at_line_1():
    for raw in (b"", b"\n\n# only a comment\n", b"---"):
        located = load_located(raw)
        assert located.value is None
        assert located.line(("version",)) == 1


def test_a_byte_order_mark_is_no_part_of_the_first_key():
    assert load_located(b"\xef\xbb\xbfversion: 3").value == {"version": 3}


def test_text_that_is_not_utf_8_is_refused_at_its_line():
    found = problem("a: 1\nb: 2\nc: é\n".encode("latin-1"))
    assert (found.line, found.message) == (3, "not UTF-8 text; save the file as UTF-8")
    assert problem("a: 1".encode("utf-16")).line == 1


def test_a_file_of_the_largest_size_is_read_and_one_byte_more_is_not():
    raw = b"#" * (MAX_BYTES - 5) + b"\na: 1"
    assert load_located(raw).value == {"a": 1}
    assert "1,000,001 bytes" in problem(raw + b"2").message


def test_nesting_up_to_the_limit_is_read_and_deeper_is_not():
    assert load_located(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH).value is not None
    found = problem(b"a:\n  " + b"[" * MAX_DEPTH + b"]" * MAX_DEPTH)
    assert (found.line, found.message) == (2, f"nested deeper than {MAX_DEPTH} levels")


def test_nesting_of_any_depth_is_refused_without_a_crash():
    assert "nested deeper" in problem(b"[" * 500_000).message
    assert "nested deeper" in problem(b"{a: " * 100_000).message


def test_many_lists_beside_each_other_are_not_deep():
    assert load_located(b"- [[1]]\n" * 100).value == [[[1]]] * 100


def test_aliases_are_read_as_what_they_repeat():
    located = load_located(b"a: &name {x: 1}\nb: *name\nc:\n  <<: *name\n  y: [&t text, *t]\n")
    assert located.value == {"a": {"x": 1}, "b": {"x": 1}, "c": {"x": 1, "y": ["text", "text"]}}
    assert located.places["b",] == (2, 1)
    assert located.place(("b", "x")) == (1, 11)


def test_an_alias_bomb_is_refused_at_the_line_where_it_is_too_much():
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
    bomb += "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 10))
    found = problem(bomb)
    assert (found.line, found.rule) == (5, "too-many-values")
    merges = "a0: &a0 {x: 1}\n" + "".join(f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}], k{n}: 1}}\n" for n in range(1, 40))
    assert problem(merges).rule == "too-many-values"


@pytest.mark.parametrize("text", ["a: 1\nb: &x [1, *x]\n", "a: 1\nb: &x {y: {z: *x}}\n", "a: 1\nb: &x {<<: *x}\n"])
def test_an_alias_inside_of_what_it_repeats_is_refused_at_its_line(text):
    found = problem(text)
    assert (found.line, found.rule) == (2, "alias-recursive")


def test_an_anchor_alone_does_no_harm():
    assert load_located(b"a: &name text").value == {"a": "text"}


@pytest.mark.parametrize(
    ("text", "line", "key"),
    [
        ("a: 1\nb: 2\na: 3\n", 3, "a"),
        ("a:\n  - b: 1\n    c: 2\n    b: 3\n", 4, "b"),
        ("{a: 1, 'a': 2}", 1, "a"),
        ("1: x\n'1': y\n", 2, "1"),
    ],
)
def test_a_key_that_stands_twice_is_refused_at_its_second_line(text, line, key):
    found = problem(text)
    assert (found.line, found.message) == (line, f"the key '{key}' stands twice")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: 1\nb: [1, 2\n", 3),
        ("a: 1\n\tb: 2\n", 2),
        ("a: 'open\n\n", 3),
        ("a: b: c\n", 1),
        ("a: 1\n---\nb: 2\n", 2),
        ("a: 1\nb: @x\n", 2),
    ],
)
def test_what_is_no_yaml_is_refused_at_its_line(text, line):
    assert problem(text).line == line


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("a: 1\n\tb: 2\n", 2, "indent with blanks, not tabs"),
        ("a: At six: open\n", 1, "put a text that contains ': ' in quotes"),
        ("a:\n  - *.md\n", 2, "begins with '*' or '&' in quotes"),
        ("a: 1\nb: @x\n", 2, "put the text in quotes"),
        ("a:\n- b: 1\n  - c: 2\n", 3, "check the indentation"),
        ("a: 1\n<<<<<<< HEAD\nb: 2\n=======\nb: 3\n>>>>>>> other\n", 2, "the mark of a merge conflict"),
    ],
)
def test_common_slips_are_said_with_how_to_mend_them(text, line, said):
    found = problem(text)
    assert found.line == line and said in found.message


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.system [id]", "!!python/name:os.system", "!mine x"])
def test_a_tag_that_is_no_plain_type_is_refused_at_its_line(tag):
    found = problem(f"a: 1\nb: {tag}\n")
    assert found.line == 2
    assert "could not determine a constructor" in found.message


def test_a_control_character_is_refused_at_its_line():
    assert problem(b"a: 1\nb: x\x07y\n").line == 2


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        (r'a: "\ud83d\ude00"', 1, "the character U+D83D is not read"),
        ('a: 1\nb: "x\\0y"\n', 2, "the character U+0000 is not read"),
        ('a: 1\n"k\\ud800": 2\n', 2, "the character U+D800 is not read"),
        ('a:\n  - 1\n  - "\\e[31m"\n', 3, "the character U+001B is not read"),
    ],
)
def test_a_character_that_cannot_be_stored_is_refused_however_it_is_written(text, line, message):
    found = problem(text)
    assert (found.line, found.message) == (line, message)


@pytest.mark.parametrize("number", ["9" * (MAX_DIGITS + 1), "0x" + "f" * 5000, "0b" + "1" * 5000, "1" + ":59" * 2000])
def test_a_monstrous_number_is_refused_at_its_line_as_value_and_as_key(number):
    assert problem(f"a: 1\nb: {number}\n").line == 2
    assert problem(f"a: 1\n? {number}\n: 2\n").line == 2


def test_a_long_number_in_quotes_is_text():
    assert load_located(f"a: '{'9' * 5000}'".encode()).value == {"a": "9" * 5000}


@pytest.mark.parametrize(
    "raw",
    [
        b'!!int ""',
        b'!!int "+"',
        b'!!float ""',
        b"!!bool maybe",
        b"!!timestamp soon",
        b"!!timestamp {=: 1}",
        b"!!int {=: ''}",
        b'"\\UFFFFFFFF"',
        b'"\\U00FFFFFF"',
        b"a: 1" + b":1" * 400 + b".5",
        b"2024-13-45",
        b"2001-12-14t21:59:43.10-99:99",
        b"{[a]: 1}",
        b"{<<: 3}",
        b"? !!set {a}\n: 1",
        b"a: =",
        b"%YAML 99.1\n---\na",
    ],
)
def test_what_trips_the_yaml_library_is_an_ordinary_problem(raw):
    assert problem(raw).line == 1


TOKENS = (
    "a: §b: §- §\n§\n  §? §: §[§]§{§}§, §'§\"§&x §*x§<<: §---\n§...\n§%YAML 1.1\n§# c§\\ud800§\\x00§\\UFFFFFFFF§!!int "
    "§!!float §!!bool §!!timestamp §!!binary §!!set §!!omap §!!pairs §!!map §!!str §!!null §!e!x §!<x> §%41§=§>§>2-§~"
    "§1:1:1.5§0x§0b_§2024-13-45§.nan§1e999§+§_§\t§\r§\u2028§\ufeff§é§\x85§@§`§|§|+\n"
).split("§")


@settings(max_examples=400, deadline=None)
@given(st.lists(st.sampled_from(TOKENS), max_size=14).map("".join))
def test_yaml_of_any_shape_is_read_or_refused_at_a_line_of_the_file(text):
    try:
        located = load_located(text.encode())
    except YamlProblem as found:
        assert 1 <= found.line <= len(f"{text}.".splitlines()) + 1
        found.message.encode()
    else:
        assert all(line >= 1 and column >= 1 for line, column in located.places.values())
        repr(located.value).encode()


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60))
def test_bytes_of_any_kind_raise_nothing_else(raw):
    try:
        load_located(raw)
    except YamlProblem as found:
        assert found.line >= 1


texts = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cn", "Co"]), max_size=8)
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts
names = st.text("abcdef", min_size=1, max_size=6)
level = st.lists(scalars, max_size=3) | st.dictionaries(names, scalars, max_size=3) | scalars
values = st.dictionaries(names, st.lists(level, max_size=3) | st.dictionaries(names, level, max_size=3) | scalars)


@settings(deadline=None)
@given(values)
def test_what_yaml_wrote_comes_back_with_the_line_of_every_key(value):
    text = yaml.safe_dump(value, default_flow_style=False, allow_unicode=False)
    located = load_located(text.encode())
    assert located.value == value
    rows = text.splitlines()
    for path, (line, _) in located.places.items():
        if path and isinstance(path[-1], str):
            assert f"{path[-1]}:" in rows[line - 1]

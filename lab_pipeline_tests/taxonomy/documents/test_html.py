from __future__ import annotations

import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab_pipeline.taxonomy.documents.blocks import Block, DocumentError, LeftOut, visible
from lab_pipeline.taxonomy.documents.html import READER, blocks_of_html, read
from lab_pipeline_tests.taxonomy.documents.damage import COUNTS, read_or_refused, spliced


def shown(html: str) -> list[tuple[str, int, str]]:
    return [(block.kind, block.level, block.text) for block in blocks_of_html(html).blocks]


def texts(html: str) -> list[str]:
    return [block.text for block in blocks_of_html(html).blocks]


def left_out(html: str) -> list[tuple[str, int]]:
    return [(each.what, each.characters) for each in blocks_of_html(html).left_out]


BLOCKS = {
    "<h1>Inn</h1>a<h3>Rooms<br>above</h3>b": [
        ("heading", 1, "Inn"),
        ("text", 0, "a"),
        ("heading", 3, "Rooms above"),
        ("text", 0, "b"),
    ],
    "<h1>open<h2>inner</h2>": [("heading", 1, "open"), ("heading", 2, "inner")],
    "<p>one<p>two<div>three</div>four": [("text", 0, "one"), ("text", 0, "two"), ("text", 0, "three"), ("text", 0, "four")],
    "<p>a<h2>b</h2>c<div>d</div>e</p>f": [
        ("text", 0, "a"),
        ("heading", 2, "b"),
        *(("text", 0, each) for each in ("c", "d", "e f")),
    ],
    "<p>a</p></body>tail<p>end</html>": [("text", 0, "a"), ("text", 0, "tail"), ("text", 0, "end")],
    "Deep<br>wet, <b>bo</b>ld <code>x_y</code>": [("text", 0, "Deep wet, bold x_y")],
    "<blockquote>said</blockquote><figure><figcaption>Fig</figcaption></figure>": [("text", 0, "said"), ("note", 0, "Fig")],
    "<ul><li>a<ul><li>b</ul>c<li><p>d<p>e</ul>": [
        ("item", 1, "- a"),
        ("item", 2, "- b"),
        ("item", 1, "c"),
        ("item", 1, "- d"),
        ("item", 1, "e"),
    ],
    "<ol start=3><li>x<li>y<li value=9>z<li>q</ol>": [
        ("item", 1, "3. x"),
        ("item", 1, "4. y"),
        ("item", 1, "9. z"),
        ("item", 1, "10. q"),
    ],
    "<ol start=99999999999999999999><li>x</ol>": [("item", 1, "1. x")],
    "<dl><dt>Keeper<dd>Ilse<dd>Bram<dt>none</dl>after": [
        ("text", 0, "Keeper: Ilse"),
        ("text", 0, "Bram"),
        ("text", 0, "none"),
        ("text", 0, "after"),
    ],
    "<details><summary>Who?</summary>Ilse.</details>": [("text", 0, "Who?"), ("text", 0, "Ilse.")],
    "<pre>\n  if a &lt; b:\n      <b>go</b><br>on\n\n</pre>": [("code", 0, "  if a < b:\n      go\non")],
    "10<sup>6</sup> m<sup>-2</sup>, 1<sup>st</sup>, H<sub>2</sub>O": [("text", 0, "10⁶ m⁻², 1st, H2O")],
    "Ilse.<sup><a href='#f'>1</a></sup><div class=footnotes><ol><li>Since 1904. <a role=doc-backlink>↩</a></ol></div>": [
        ("text", 0, "Ilse.[1]"),
        ("note", 0, "1. Since 1904."),
    ],
    "Ilse.<a href='#f'><sup>1</sup></a><ol role=doc-endnotes><li role=doc-endnote><p>Since 1904.</ol>": [
        ("text", 0, "Ilse.[1]"),
        ("note", 0, "1. Since 1904."),
    ],
    "<aside role='doc-footnote'>kept</aside>": [("note", 0, "kept")],
    "co\xadop": [("text", 0, "coop")],
    "See <img alt='three ships'>, <svg><title>map</title><text>North</text></svg>.": [
        ("text", 0, "See [three ships], [map North].")
    ],
    "<math><mfrac><mi>a</mi><mi>b</mi></mfrac><msup><mi>x</mi><mn>2</mn></msup><annotation>tex</annotation></math>": [
        ("text", 0, "a/bx^2")
    ],
    "<!-- no -->a<!-- no -->b<?pi no?>c": [("text", 0, "abc")],
}


@pytest.mark.parametrize("html", BLOCKS)
def test_the_blocks_of(html):
    assert shown(html) == BLOCKS[html]
    assert not blocks_of_html(html).left_out


HIDDEN = (
    "<p hidden>no</p>",
    "<p aria-hidden=true>no</p>",
    "<p style='color:red; DISPLAY : none'>no</p>",
    "<p style='visibility:hidden'>no</p>",
    "<script>no</script><style>no</style><template>no</template><noscript>no</noscript>",
    "<title>no</title>",
    "<dialog>no</dialog>",
    "<input type=hidden value=no>",
    "<img alt=''>",
)


@pytest.mark.parametrize("html", HIDDEN)
def test_what_a_browser_does_not_show_is_no_loss(html):
    assert "".join(texts(f"a{html}b")).replace(" ", "") == "ab"
    assert not left_out(f"a{html}b")


def test_furniture_is_left_out_and_counted():
    html = """<header><a>Skip it</a><h1>Inn</h1></header><nav>Home</nav>
<main><header>Kept</header><p>The inn opens at six.</p><aside>See also</aside></main>out<footer>Imprint</footer>"""
    reading = blocks_of_html(html)
    assert list(reading.blocks) == [
        Block("heading", "Inn", 1, 1),
        Block("text", "Kept", line=2),
        Block("text", "The inn opens at six.", line=2),
    ]
    assert list(reading.left_out) == [
        LeftOut("text outside the main content", characters=3),
        LeftOut("page header", 1, "", 6),
        LeftOut("navigation", 1, "", 4),
        LeftOut("aside", 2, "", 7),
        LeftOut("page footer", 2, "", 7),
    ]


def test_main_is_read_alone_only_if_it_has_most_of_the_text():
    assert texts("<main>ab</main>cdef") == ["ab", "cdef"]
    assert texts("<div role=main>abcd</div>ef") == ["abcd"]
    assert texts("<article>abc</article><article>def</article>") == ["abc", "def"]
    assert left_out("<pre><p>ab<main><dl><dt>cde<dd>fgh</dl></main></pre>") == [("text outside the main content", 2)]


def test_controls_pictures_and_embedded_pages_are_counted():
    html = "<img><img><label>Name</label><input value=Ilse><button>Send</button><iframe>no</iframe><svg/>"
    assert texts(html) == ["Name"]
    assert left_out(html) == [
        ("3 pictures without alternative text", 0),
        ("2 form controls", 8),
        ("1 embedded page, recording or drawing", 0),
    ]


TABLES = {
    "<table><tr><th>H<th>K<tr><td>North<td>Ilse<tr><td>South<td></table>": ["H: North; K: Ilse", "H: South"],
    "<table><thead><tr><td>H<tbody><tr><td>x</table>": ["H: x"],
    "<table><tr><td><th>K<tr><th scope=row>North<td>Ilse</table>": ["North; K: Ilse"],
    "<table><tr><th rowspan=2>H<th colspan=2>N<tr><th>K<th>L<tr><td>a<td rowspan=2>b<td>c<tr><td>d<td>e</table>": [
        "H: a; N > K: b; N > L: c",
        "H: d; N > K: b; N > L: e",
    ],
    "<table><tr><th colspan=2>North</th></tr><tr><td>Keeper</td><td>Ilse</td></tr></table>": ["North: Keeper; North: Ilse"],
    "<table><tr><th>K<th>Empty<tr><td>x<td></table>": ["Empty", "K: x"],
    "<table><tr><th>only<th>heads</table>": ["only; heads"],
    "<table><caption>Keys</caption><tr><td>a<td>b</table>": ["Keys", "a; b"],
    "<table><tr><td>one<tr><td><p>two<p>three</table>": ["one", "two", "three"],
    "<table><tr><td>a<td><h2>b</h2></table>": ["a", "b"],
    "<table><tr><td>left<td><table><tr><th>K<tr><td>Ilse</table></table>": ["left", "K: Ilse"],
    "<table><tr><th>H<tr><td><table><tr><th>K<tr><td>Ilse</table></table>": ["H: K: Ilse"],
    "<table><tr><th>H<tr><td>a<ul><li>b</ul><br>c</table>": ["H: a - b c"],
    "<table><tr><th>H<tr><td rowspan=0>a<tr><td></table>": ["H: a", "H: a"],
    "<table><tbody><tr><td rowspan=9>a<td>x<tbody><tr><td>b<td>y</table>": ["a; x", "b; y"],
    "<table><td>a<td>b<tr><td>c</table>": ["a; b", "c"],
    "<table>loose<tr><td>a<td>b</table>": ["loose", "a; b"],
}


@pytest.mark.parametrize("html", TABLES)
def test_the_rows_of(html):
    assert texts(html) == TABLES[html]
    assert not left_out(html)


def test_the_html_of_the_markdown_case():
    html = """<details><summary>Who keeps it?</summary>

Ilse keeps it.[^1]

</details>
<div>
The harbour opens at six.
</div>"""
    assert list(blocks_of_html(html, first_line=11).blocks) == [
        Block("text", "Who keeps it?", line=11),
        Block("text", "Ilse keeps it.[^1]", line=13),
        Block("text", "The harbour opens at six.", line=17),
    ]


def test_lines_are_counted_in_text_and_beyond_what_the_parser_counts():
    assert [block.line for block in read(b"a\n<p>\n\nb\n</p>\nc\n<pre>\nd</pre>").blocks] == [1, 4, 6, 8]
    assert read(b"\n" * 70_000 + b"<p>a</p>\n<p>b").blocks[1].line >= 65_535


ENCODED = {
    "<p>Łódź".encode(): "Łódź",
    "\ufeff<p>Łódź".encode(): "Łódź",
    "\ufeff<p>Łódź".encode("utf-16-le"): "Łódź",
    "<meta charset='iso-8859-2'><p>Łódź".encode("iso-8859-2"): "Łódź",
    "<meta http-equiv=x content='text/html; charset=latin1'><p>“é”".encode("cp1252"): "“é”",
    "<meta charset=gbk><p>港口".encode("gbk"): "港口",
}


@pytest.mark.parametrize("raw", ENCODED)
def test_the_encoding_is_the_one_that_the_file_names(raw):
    assert [block.text for block in read(raw).blocks] == [ENCODED[raw]]


REFUSED = {
    b"a\nb\xff": ("UTF-8", 2),
    b"a\n\n\0": ("NUL", 3),
    b"<meta charset=ascii>\n\x81": ("not windows-1252", 2),
    b"<meta charset=gbk>\0": ("NUL", 1),
    b"<meta charset=rot13>a": ("unknown encoding", 1),
    b"<meta charset=punycode>a": ("unknown encoding", 1),
    b"\n" + b"<div>" * 100_000 + b"deep": ("nest too deeply", 2),
    b"<table>" + b"<tr>" + b"<td colspan=1000>x" * 5_000: ("beyond 30 million", 1),
    b"<table><tr>" + b"<td rowspan=65534 colspan=1000>x" * 4 + b"<tr><td>y" * 20_000: ("beyond 30 million", 1),
    b"<table><tr><th>" + b"h" * 50_000 + b"<tr><td>y" * 5_000: ("beyond 30 million", 1),
}


@pytest.mark.parametrize("raw", REFUSED, ids=[message for message, _ in REFUSED.values()])
def test_what_cannot_be_read_whole_is_refused(raw):
    message, line = REFUSED[raw]
    started = time.process_time()
    with pytest.raises(DocumentError, match=message) as error:
        read(raw)
    assert error.value.line == line
    assert time.process_time() - started < 5


def test_spans_have_the_limits_of_browsers():
    reading = read(b"<table><tr><th>H<td>x<tr><td colspan=1000000 rowspan=999999999999>a<tr><td>b</table>")
    assert [block.text for block in reading.blocks] == ["H; x", "a", "a; b"]


BIG = {
    "inline": b"<p>" + b"<b>x</b> " * 100_000,
    "headings": b"<header>" + b"<h1>x</h1>" * 50_000 + b"</header>",
    "articles": b"<article>" * 200 + b"<p>x" * 20_000,
    "lists": b"<ul><li>x" * 120 + b"<li>y" * 50_000,
    "unclosed": b"<" * 300_000,
}


@pytest.mark.parametrize("name", BIG)
def test_big_files_take_time_by_their_size(name):
    started = time.process_time()
    assert read(BIG[name]).reader == READER
    assert time.process_time() - started < 5


def test_nothing_is_read_of_nothing():
    assert [read(raw).blocks for raw in (b"", b" \n", b"<!-- only -->", b"\xef\xbb\xbf")] == [[]] * 4
    assert read(b"").reader == READER


def test_entities_and_other_files_stay_closed():
    raw = b"<!DOCTYPE html [<!ENTITY x SYSTEM 'file:///etc/passwd'>]><p>a&x;b<img alt=c src='http://127.0.0.1:9/'>"
    assert "root:" not in visible(read(raw).blocks)


@st.composite
def trees(draw: st.DrawFn, depth: int = 0) -> str:
    """A tree of visible text in which @ stands for a word of its own."""
    if depth == 4 or draw(st.integers(0, 3)) == 0:
        return draw(st.sampled_from(["@", " @ ", "@<br>@", "\n@ @"]))
    inner = "".join(draw(st.lists(trees(depth + 1), max_size=3)))
    frames = (
        "<p>{}</p> <div>{}</div> <ul><li>{}</li></ul> <h2>{}</h2> <pre>{}</pre> <blockquote>{}</blockquote> <span>{}</span>"
    )
    frames += " <ol><li>@<li>{}</ol> <dl><dt>@<dd>{}</dl> <nav>{}</nav> <aside>{}</aside> <article>{}</article>"
    frames += (
        " <details><summary>@</summary>{}</details> <table><tr><td>{}<td>@</table> <table><tr><th>@<th>@<tr><td><td>{}</table>"
    )
    return draw(st.sampled_from(frames.split(" <")).map(lambda frame: frame if frame.startswith("<") else f"<{frame}")).format(
        inner
    )


@settings(max_examples=200)
@given(trees())
def test_each_word_is_in_a_block_in_order_or_counted_as_left_out(tree):
    pieces = tree.split("@")
    words = [f"w{number}x" for number in range(len(pieces) - 1)]
    html = "".join(f" {word} {piece}" if word else piece for word, piece in zip(["", *words], pieces, strict=True))
    reading = blocks_of_html(html)
    text = " ".join(block.text for block in reading.blocks)
    found = [word for word in words if word in text]
    lost = sum(len(word) for word in words) - sum(map(len, found))
    assert lost <= sum(each.characters for each in reading.left_out)
    if "<th>" not in tree:  # a header stands before each of its cells
        places = [text.index(word) for word in found]
        assert places == sorted(places)


SEED = """<!DOCTYPE html><meta charset=utf-8><nav>Home</nav><main><h1>Inn</h1><p>a<b>b</b><sup><a href=#x>1</a></sup><ul>
<li>c<ol><li>d</ol></ul>
<table><caption>k</caption><thead><tr><th colspan=2>x<tbody><tr><td rowspan=2>y<td>z<tr><td>q</table><pre> p
</pre><dl><dt>t<dd>u</dl><svg><title>s</title></svg><img alt=i><math><msup><mi>x<mn>2</msup></math></main>é""".encode()


PIECES = [b"", b"<", b">", b"</", b"<table>", b"9"]


@COUNTS
def test_damaged_files_are_read_or_refused(count):
    chance = random.Random(count)
    read_or_refused(read, (spliced(SEED, chance, PIECES) for _ in range(count)))

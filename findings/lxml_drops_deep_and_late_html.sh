#!/usr/bin/env bash
# lxml (libxml2) loses text of HTML without raising: all that stands deeper than 255 elements, and with it everything after; and
# all that follows </html>. Only the parser's error_log says so, as one fatal entry for the depth and nothing for the end. It also
# glues the text on both sides of a stray end tag: "e</p>f" reads "ef". A reader must look into the log, and part block ends itself.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet lxml==6.1.3
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
from lxml import etree


def text_of(source):
    parser = etree.HTMLParser()
    root = etree.fromstring(source, parser)
    fatal = [entry.type_name for entry in parser.error_log if entry.level == etree.ErrorLevels.FATAL]
    return "".join(root.itertext()), fatal


print("lxml", etree.__version__, "libxml2", ".".join(map(str, etree.LIBXML_VERSION)))
deep = text_of("<p>first</p>" + "<div>" * 260 + "deep" + "</div>" * 260 + "<p>rest</p>")
late = text_of("<p>first</p></body></html>late<p>later</p>")
glued = text_of("<p>a<div>d</div>e</p>f")
print("260 nested elements:", deep)
print("text after </html>:", late)
print("a stray </p>:", glued)
assert deep == ("first", ["ERR_RESOURCE_LIMIT"]), "changed"
assert late == ("first", []), "changed"
assert glued == ("adef", []), "changed"
PYTHON

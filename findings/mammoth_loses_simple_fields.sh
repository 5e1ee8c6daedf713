#!/usr/bin/env bash
# mammoth drops the text of a Word field in its short form (w:fldSimple), such as the page number in "see page 12" or a date, and
# the line break w:cr, so that the words around are glued. Word writes both; the conversion returns messages, and raises nothing.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet mammoth==1.13.0 python-docx==1.2.0
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import io
from importlib.metadata import version

import docx
import mammoth
from docx.oxml import parse_xml
from docx.oxml.ns import nsdecls

document = docx.Document()
paragraph = document.add_paragraph("See page ")
field = f'<w:fldSimple {nsdecls("w")} w:instr=" PAGEREF tide "><w:r><w:t>12</w:t></w:r></w:fldSimple>'
paragraph._p.append(parse_xml(field))
run = paragraph.add_run(" of the guide")
run._r.append(parse_xml(f'<w:cr {nsdecls("w")}/>'))
paragraph.add_run("at low tide")
file = io.BytesIO()
document.save(file)
converted = mammoth.convert_to_html(file)
print("mammoth", version("mammoth"), converted.value, [message.message for message in converted.messages])
assert converted.value == "<p>See page  of the guideat low tide</p>", "changed"
PYTHON

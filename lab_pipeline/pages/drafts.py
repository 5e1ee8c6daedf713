"""Check and preview a leaf while it is written, and make a file or patch of it. The taxonomy itself is never written to."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lab_pipeline.config.settings import Settings
from lab_pipeline.core.errors import LabError
from lab_pipeline.core.home import Home
from lab_pipeline.core.rows import Passage
from lab_pipeline.taxonomy.documents.blocks import DocumentError
from lab_pipeline.taxonomy.documents.passages import PassageBudget, passages
from lab_pipeline.taxonomy.documents.reading import read_document
from lab_pipeline.taxonomy.documents.repository import fetch_files, local_path
from lab_pipeline.taxonomy.find import BRANCHES, QNA
from lab_pipeline.taxonomy.leaf import ATTRIBUTION, DocumentReference, LeafReading, check_leaf
from lab_pipeline.taxonomy.source import open_taxonomy

SKILL = """\
version: 3
created_by: YOUR-NAME
task_description: What a model learns to do here, in one sentence.
seed_examples:
  - question: A request as people would make it.
    answer: The answer that you would be glad to get.
  - question: Another request, which asks something else.
    answer: Its answer.
  - question: ""
    answer: ""
  - question: ""
    answer: ""
  - question: ""
    answer: ""
"""
KNOWLEDGE = """\
version: 3
created_by: YOUR-NAME
domain: the subject
document_outline: What the document is about, in one sentence.
seed_examples:
  - context: |
      A passage of the document, word for word.
    questions_and_answers:
      - question: What does the passage say?
        answer: What it says.
      - question: ""
        answer: ""
      - question: ""
        answer: ""
document:
  repo: documents
  commit: worktree
  patterns: ["*.md"]
"""
_ATTRIBUTION = "Title of work: -\nLink to work: -\nLicense of the work: Apache-2.0\nCreator names: YOUR-NAME\n"


@dataclass(frozen=True)
class Draft:
    """The two files of a leaf, and the key under which it is to stand; a file may be ''."""

    key: str
    qna: str
    attribution: str

    def files(self) -> Iterator[tuple[str, str]]:
        """Yield name and text of each file, with line ends as git has them and one at the end of the text."""
        for name, text in ((QNA, self.qna), (ATTRIBUTION, self.attribution)):
            text = text.replace("\r\n", "\n").replace("\r", "\n")
            yield name, text if text.endswith("\n") or not text else f"{text}\n"

    def check(self) -> LeafReading:
        """Check the leaf as `lab-pipeline validate` does; a key under which no leaf can stand is a problem of its own."""
        (_, qna), (_, attribution) = self.files()
        reading = check_leaf(self.key, qna.encode(), attribution.rstrip())
        if wrong := key_problem(self.key):
            reading.report(1, wrong, rule="key")
        return reading


def key_problem(key: str) -> str | None:
    """Say why no leaf can stand under a key; None if one can."""
    parts = key.split("/")
    if parts[0] not in BRANCHES or len(parts) < 2:
        return f"the key must begin with {', '.join(f'{branch}/' for branch in BRANCHES)}, found {key!r:.100}"
    if any(part in ("", ".", "..") or part != part.strip() or not part.isprintable() or "\\" in part for part in parts):
        return f"a folder in the key is empty, '.', '..', or has blanks at its ends or unprintable characters: {key!r:.200}"
    return None


def new_draft(kind: str) -> Draft:
    """Return the beginning of a leaf of this kind: 'knowledge', else a skill."""
    if kind == "knowledge":
        return Draft("knowledge/", KNOWLEDGE, _ATTRIBUTION)
    return Draft("compositional_skills/", SKILL, _ATTRIBUTION)


def present_draft(home: Home, settings: Settings, key: str) -> Draft:
    """Return a leaf's files as they are in the taxonomy now; '' for one that it lacks, or that is no regular file.

    Raises:
        LabError: No leaf can stand under this key, or the taxonomy cannot be read.
    """
    if wrong := key_problem(key):
        raise LabError(wrong)
    root = open_taxonomy(home, settings).folder.resolve()
    folder = root / key
    qna, attribution = (_text(root, folder / name) for name in (QNA, ATTRIBUTION))
    return Draft(key, qna, attribution)


def _text(root: Path, path: Path) -> str:
    if path.is_symlink() or not path.is_file() or not path.resolve().is_relative_to(root):
        return ""
    return path.read_bytes().decode("utf-8", errors="replace")


def as_patch(before: Draft, after: Draft) -> str:
    """Return a unified diff that `git apply` takes, from the leaf in the taxonomy to the draft; '' if nothing differs."""
    earlier = {QNA: before.qna, ATTRIBUTION: before.attribution}
    return "".join(_diff(f"{after.key}/{name}", earlier[name], text) for name, text in after.files())


def _diff(path: str, before: str, after: str) -> str:
    if before == after:
        return ""
    old, new = f"a/{path}" if before else "/dev/null", f"b/{path}" if after else "/dev/null"
    kind = "new file mode 100644\n" if not before else "deleted file mode 100644\n" if not after else ""
    lines = difflib.unified_diff(_lines(before), _lines(after), old, new)
    quoted = [line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines]
    return f"diff --git a/{path} b/{path}\n{kind}" + "".join(quoted)


def _lines(text: str) -> list[str]:
    """Split at line feeds alone, as git does, and keep them."""
    parts = text.split("\n")
    return [f"{part}\n" for part in parts[:-1]] + ([parts[-1]] if parts[-1] else [])


def draft_passages(home: Home, settings: Settings, reading: LeafReading) -> tuple[list[Passage], str]:
    """Read the documents of a knowledge leaf in writing; return the passages, and a sentence on what could not be read.

    Passages have the default budget of tokens, estimated. Of local paths, only those inside the taxonomy are read: who writes
    here need not be allowed to read this machine's other files.
    """
    reference = reading.leaf.document if reading.leaf else None
    if reference is None:
        return [], ""
    try:
        return _passages(home, settings, reference)
    except (LabError, DocumentError) as error:
        return [], str(error)
    except OSError as error:
        return [], f"{error.filename} cannot be read: {error.strerror}"


def _passages(home: Home, settings: Settings, reference: DocumentReference) -> tuple[list[Passage], str]:
    taxonomy = open_taxonomy(home, settings)
    local = local_path(reference.repo, taxonomy.folder, taxonomy.origin)
    inside = local is not None and local.is_relative_to(taxonomy.folder.resolve())
    if local and not inside:
        return [], f"{reference.repo} is outside the taxonomy; its documents are read by the next snapshot, not here"
    policy = settings.documents.model_copy(update={"allow_local": inside})
    files, unread = fetch_files(reference, taxonomy.folder, home.documents, policy, taxonomy.origin)
    budget = PassageBudget()
    found = [each for file in files for each in passages(read_document(file.path, file.commit, file.raw), budget)]
    return found, f"No reader takes {', '.join(unread[:3])}." if unread else ""

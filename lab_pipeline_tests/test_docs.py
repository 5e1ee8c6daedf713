"""The documentation: links resolve, commands and settings exist, error messages are those of the code."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest
import yaml
from typer.main import get_group

from lab_pipeline.cli.app import app
from lab_pipeline.config.settings import Settings

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "benchmarks" / "README.md", *sorted(ROOT.glob("docs/**/*.md"))]
NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]

_FENCED = re.compile(r"^ *```(\w*)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^]]*\]\(([^)\s]+)\)")
_COMMAND = re.compile(r"\blab-pipeline (?!-)([a-z][a-z-]*)")
_OPTION = re.compile(r" (--[a-z-]+)")
_QUOTED = re.compile(r"^\| `([^`]+)`[^|]*\|", re.MULTILINE)


def pages() -> pytest.MarkDecorator:
    return pytest.mark.parametrize("page", PAGES, ids=NAMES)


def prose(page: Path) -> str:
    """The page without its code blocks."""
    return _FENCED.sub("", page.read_text(encoding="utf-8"))


@cache
def anchors(page: Path) -> set[str]:
    """Anchors of the page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in headings}


@pages()
def test_links_resolve(page: Path) -> None:
    broken = []
    for link in _LINK.findall(prose(page)):
        if "://" in link or link.startswith("mailto:"):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


def test_every_page_and_picture_is_linked() -> None:
    links = [(page, link) for page in PAGES for link in _LINK.findall(prose(page)) if "://" not in link]
    linked = {(page.parent / link.partition("#")[0]).resolve() for page, link in links}
    shown = {*ROOT.glob("docs/**/*.md"), *ROOT.glob("docs/pictures/*")}
    assert sorted(path.relative_to(ROOT).as_posix() for path in shown - linked) == []


def test_paths_in_contributing_exist() -> None:
    """Those that begin with a folder of the project or of the package."""
    roots = (ROOT, ROOT / "lab_pipeline")
    folders = {folder.name for root in roots for folder in root.iterdir() if folder.is_dir()}
    named = re.findall(r"(?<![\w./-])([\w-]+)((?:/[\w.*-]+)+)", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))
    paths = [f"{folder}{rest}" for folder, rest in named if folder in folders]
    assert len(paths) > 20
    assert [path for path in paths if not any([*root.glob(path)] for root in roots)] == []


def test_the_readme_stays_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 120


@pages()
def test_commands_and_their_options_exist(page: Path) -> None:
    commands = get_group(app).commands
    unknown = []
    for line in page.read_text(encoding="utf-8").splitlines():
        for code in re.findall(r"`([^`]+)`", line) or [line]:
            for found in _COMMAND.finditer(code):
                name, rest = found.group(1), code[found.end() :].split("#")[0]
                if name not in commands:
                    unknown.append(name)
                    continue
                options = {option for each in commands[name].params for option in each.opts}
                unknown += [f"{name} {option}" for option in _OPTION.findall(rest) if option not in options]
    assert unknown == []


@pages()
def test_settings_are_accepted(page: Path) -> None:
    """All mappings in blocks of YAML, but for those of leaves, which have a document."""
    for language, text in _FENCED.findall(page.read_text(encoding="utf-8")):
        values = yaml.safe_load(text) if language == "yaml" else None
        if isinstance(values, dict) and "document" not in values:
            Settings.model_validate({"taxonomy": {"path": "."}, **values})


def test_the_hook_and_the_workflow_run_validate() -> None:
    text = (ROOT / "docs" / "taxonomy.md").read_text(encoding="utf-8")
    hook, workflow = (yaml.safe_load(block) for language, block in _FENCED.findall(text) if language == "yml")
    (shipped,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))
    assert hook["repos"][0]["hooks"] == [{"id": shipped["id"]}]
    assert workflow["jobs"]["validate"]["steps"][-1]["run"].startswith(shipped["entry"])


@cache
def texts_of_the_code() -> str:
    """All texts in the package; in one with placeholders, `…` stands for them."""
    texts = []
    for path in (ROOT / "lab_pipeline").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = [str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values]
                texts.append("".join(parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value)
    texts.append((ROOT / "Makefile").read_text(encoding="utf-8"))
    return "\n".join(texts)


def test_quoted_messages_are_those_of_the_code() -> None:
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8").split("## In the UI")[0]
    unknown = []
    for message in _QUOTED.findall(page):
        fragments = [fragment for fragment in re.split("…", message) if len(fragment.strip(" .;:,()'")) > 2]
        if not all(fragment in texts_of_the_code() for fragment in fragments):
            unknown.append(message)
    assert not unknown

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml
from instructlab.schema.taxonomy import TaxonomyParser

from lab_pipeline.config.settings import DocumentSettings
from lab_pipeline.core.errors import LabError, NotMaterialized
from lab_pipeline.core.home import Home
from lab_pipeline.core.storage import read_json, read_lines
from lab_pipeline.taxonomy.snapshot import Snapshot, current_snapshot, take_snapshot
from lab_pipeline_tests.builders import (
    FOUNDATIONAL,
    FREEFORM,
    GROUNDED,
    KNOWLEDGE,
    edit_yaml,
    settings_for,
    write_knowledge,
    write_skill,
    write_taxonomy,
)

SAMPLE = Path(__file__).parents[2] / "data" / "taxonomy"
ALL = [GROUNDED, FREEFORM, FOUNDATIONAL, KNOWLEDGE]


def take(root: Path, **sections) -> Snapshot:
    """A snapshot of the taxonomy at `root`/taxonomy in the home at `root`/home."""
    return take_snapshot(Home.open(root / "home"), settings_for(root / "taxonomy", **sections))


def row(snapshot: Snapshot, key: str) -> dict:
    (found,) = [each for each in snapshot.rows if each["leaf"] == key]
    return found


def source(root: Path, snapshot: Snapshot, key: str) -> dict:
    """The leaf's frozen content."""
    return read_json(Home.open(root / "home").leaf_source(snapshot.usable[key]))


def qna(root: Path, key: str) -> Path:
    return root / "taxonomy" / key / "qna.yaml"


def break_leaf(root: Path, key: str) -> str:
    """Make the leaf unreadable at line 2; returns its text as it was."""
    text = qna(root, key).read_text()
    qna(root, key).write_text("version: 3\nversion: 3\n")
    return text


def change_answer(root: Path, key: str, question: str) -> None:
    """Give another answer to one seed question of a leaf."""
    text = qna(root, key).read_text()
    edited = re.sub(rf"(question: {re.escape(question)}\n\s+answer: ).*", r"\1Something else.", text)
    assert edited != text
    qna(root, key).write_text(edited)


def fingerprints(snapshot: Snapshot) -> dict[str, str | None]:
    return {each["leaf"]: each["fingerprint"] for each in snapshot.rows}


def changed(before: Snapshot, after: Snapshot) -> set[str]:
    """Leaves whose fingerprint differs."""
    one, other = fingerprints(before), fingerprints(after)
    return {key for key in one.keys() | other.keys() if one.get(key) != other.get(key)}


# the whole


def test_every_leaf_has_a_row_and_its_content_is_frozen(tmp_path):
    write_taxonomy(tmp_path / "taxonomy")
    snapshot = take(tmp_path)
    assert [each["leaf"] for each in snapshot.rows] == ALL
    assert set(snapshot.usable) == set(ALL)
    assert not any(snapshot.problems.values())
    assert row(snapshot, GROUNDED)["kind"] == source(tmp_path, snapshot, GROUNDED)["kind"] == "grounded_skill"
    knowledge = row(snapshot, KNOWLEDGE)
    assert (knowledge["kind"], knowledge["version"], knowledge["schema_verdict"]) == ("knowledge", 3, "valid")
    assert (knowledge["seeds"], knowledge["held_out"], knowledge["contributor"]) == (15, 5, "tester")
    assert knowledge["documents"] == ["knowledge-places-islands.md"]
    assert knowledge["document_commit"].startswith("worktree:")
    passages = source(tmp_path, snapshot, KNOWLEDGE)["passages"]
    assert len(passages) == 5
    assert {passage["commit"] for passage in passages} == {knowledge["document_commit"]}


def test_the_current_snapshot_is_the_one_taken_last(tmp_path):
    write_taxonomy(tmp_path / "taxonomy")
    take(tmp_path)
    write_skill(tmp_path / "taxonomy", "compositional_skills/more")
    taken = take(tmp_path)
    assert current_snapshot(Home.open(tmp_path / "home")) == taken
    assert "compositional_skills/more" in taken.usable


def test_a_home_without_a_snapshot_says_what_to_do(tmp_path):
    with pytest.raises(NotMaterialized, match="materialize taxonomy_snapshot first"):
        current_snapshot(Home.open(tmp_path))


def test_a_taxonomy_without_a_leaf_is_refused_and_the_last_snapshot_stays(tmp_path):
    write_taxonomy(tmp_path / "taxonomy")
    taken = take(tmp_path)
    (tmp_path / "taxonomy").rename(tmp_path / "moved")
    with pytest.raises(LabError, match=r"check taxonomy\.path"):
        take(tmp_path)
    assert current_snapshot(Home.open(tmp_path / "home")) == taken


def test_progress_is_told_for_every_leaf(tmp_path):
    write_taxonomy(tmp_path / "taxonomy")
    told = []
    home = Home.open(tmp_path / "home")
    take_snapshot(home, settings_for(tmp_path / "taxonomy"), lambda *progress: told.append(progress))
    assert told == [(done, 4, key) for done, key in enumerate(ALL)]


# identity


def test_equal_taxonomies_have_equal_ids_in_any_home_and_folder(tmp_path):
    for place in ("one", "two"):
        write_taxonomy(tmp_path / place / "taxonomy")
    one, two = take(tmp_path / "one"), take(tmp_path / "two")
    assert one.id == two.id == take(tmp_path / "one").id
    assert one.rows == two.rows


def test_another_leaf_or_another_problem_gives_another_id(tmp_path):
    write_taxonomy(tmp_path / "taxonomy")
    ids = [take(tmp_path).id]
    write_skill(tmp_path / "taxonomy", "compositional_skills/more")
    ids.append(take(tmp_path).id)
    break_leaf(tmp_path, "compositional_skills/more")
    ids.append(take(tmp_path).id)
    assert len(set(ids)) == 3


def test_the_commit_of_the_taxonomy_says_whether_files_were_changed_since(tmp_path):
    taxonomy = write_taxonomy(tmp_path / "taxonomy")
    assert take(tmp_path).taxonomy_commit == ""
    git = ["git", "-C", str(taxonomy), "-c", "user.name=a", "-c", "user.email=a@example.org"]
    for command in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "--message", "x"]):
        subprocess.run([*git, *command], check=True)
    clean = take(tmp_path).taxonomy_commit
    assert re.fullmatch("[0-9a-f]{40}", clean)
    qna(tmp_path, FREEFORM).touch()
    assert take(tmp_path).taxonomy_commit == clean
    write_skill(taxonomy, "compositional_skills/more")
    assert take(tmp_path).taxonomy_commit == f"{clean}+changes"


# what changes a leaf's fingerprint


@pytest.mark.parametrize("key", ALL)
def test_an_edited_held_out_seed_changes_no_fingerprint(tmp_path, key):
    write_taxonomy(tmp_path / "taxonomy")
    before = take(tmp_path)
    question = row(before, key)["heldout_questions"][0]["question"]
    change_answer(tmp_path, key, question)
    after = take(tmp_path)
    assert changed(before, after) == set()
    answers = {each["question"]: each["answer"] for each in row(after, key)["heldout_questions"]}
    assert answers[question] == "Something else."
    assert after.id != before.id


@pytest.mark.parametrize("key", ALL)
def test_an_edited_used_seed_changes_its_leafs_fingerprint_only(tmp_path, key):
    write_taxonomy(tmp_path / "taxonomy")
    before = take(tmp_path)
    used = source(tmp_path, before, key)["seeds"][0]["question"]
    change_answer(tmp_path, key, used)
    after = take(tmp_path)
    assert changed(before, after) == {key}
    assert "Something else." in [seed["answer"] for seed in source(tmp_path, after, key)["seeds"]]


def test_an_edited_document_changes_the_fingerprint_of_the_leaf_that_refers_to_it(tmp_path):
    write_taxonomy(tmp_path / "taxonomy")
    write_knowledge(tmp_path / "taxonomy", "knowledge/other", "documents")
    before = take(tmp_path)
    document = tmp_path / "taxonomy/documents/knowledge-other.md"
    document.write_text(document.read_text().replace("was founded by", "was not founded by", 1))
    assert changed(before, take(tmp_path)) == {"knowledge/other"}


def test_a_document_of_the_leaf_that_no_pattern_matches_changes_nothing(tmp_path):
    write_taxonomy(tmp_path / "taxonomy")
    before = take(tmp_path)
    (tmp_path / "taxonomy/documents/unrelated.md").write_text("text")
    assert take(tmp_path).id == before.id


@pytest.mark.parametrize("key", ALL)
def test_an_edited_attribution_changes_no_fingerprint_but_stands_in_the_row(tmp_path, key):
    write_taxonomy(tmp_path / "taxonomy")
    before = take(tmp_path)
    (tmp_path / "taxonomy" / key / "attribution.txt").write_text("Title of work: another\n")
    after = take(tmp_path)
    assert changed(before, after) == set()
    assert row(after, key)["attribution"] == "Title of work: another"


@pytest.mark.parametrize(
    ("key", "name"), [(FREEFORM, "task_description"), (KNOWLEDGE, "domain"), (KNOWLEDGE, "document_outline")]
)
def test_an_edited_description_changes_the_fingerprint(tmp_path, key, name):
    write_taxonomy(tmp_path / "taxonomy")
    before = take(tmp_path)
    edit_yaml(qna(tmp_path, key), lambda value: value.update({name: "Another one."}))
    assert changed(before, take(tmp_path)) == {key}


@pytest.mark.parametrize("key", ALL)
def test_another_author_comment_or_layout_changes_no_fingerprint(tmp_path, key):
    write_taxonomy(tmp_path / "taxonomy")
    before = take(tmp_path)
    value = yaml.safe_load(qna(tmp_path, key).read_text())
    value["created_by"] = "somebody else"
    qna(tmp_path, key).write_text(f"# a comment\n\n{yaml.safe_dump(value, sort_keys=True, width=40)}")
    after = take(tmp_path)
    assert changed(before, after) == set()
    assert row(after, key)["contributor"] == "somebody else"


def test_documents_of_another_commit_with_the_same_text_change_no_fingerprint(tmp_path):
    write_taxonomy(tmp_path / "taxonomy")
    docs = tmp_path / "taxonomy/documents"
    git = ["git", "-C", str(docs), "-c", "user.name=a", "-c", "user.email=a@example.org"]

    def commit(message: str) -> str:
        subprocess.run([*git, "commit", "--quiet", "--allow-empty", "--message", message], check=True)
        name = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
        edit_yaml(qna(tmp_path, KNOWLEDGE), lambda value: value["document"].update(commit=name))
        return name

    subprocess.run([*git, "init", "--quiet"], check=True)
    subprocess.run([*git, "add", "."], check=True)
    first = commit("one")
    before = take(tmp_path)
    second = commit("two")
    after = take(tmp_path)
    assert (row(before, KNOWLEDGE)["document_commit"], row(after, KNOWLEDGE)["document_commit"]) == (first, second)
    assert changed(before, after) == set()


# held-out questions


def test_no_held_out_question_is_in_the_frozen_seeds_and_none_is_lost(tmp_path):
    write_taxonomy(tmp_path / "taxonomy")
    snapshot = take(tmp_path)
    for key in ALL:
        held_out = {each["question"] for each in row(snapshot, key)["heldout_questions"]}
        used = {seed["question"] for seed in source(tmp_path, snapshot, key)["seeds"]}
        assert held_out and used and not held_out & used
        assert len(held_out) + len(used) == row(snapshot, key)["seeds"]
        assert len(held_out) == row(snapshot, key)["held_out"]


def test_a_leaf_whose_seeds_cannot_be_held_out_says_that_it_is_not_measurable(tmp_path):
    write_taxonomy(tmp_path / "taxonomy")

    def alike(value):
        for place, seed in enumerate(value["seed_examples"]):
            seed["question"] = f"Tell me {'please ' * place}a joke."

    edit_yaml(qna(tmp_path, FREEFORM), alike)
    snapshot = take(tmp_path)
    (problem,) = row(snapshot, FREEFORM)["problems"]
    assert problem["severity"] == "warning" and "not measurable" in problem["message"] and problem["line"] > 1
    assert (row(snapshot, FREEFORM)["held_out"], len(source(tmp_path, snapshot, FREEFORM)["seeds"])) == (0, 6)


def test_a_leaf_whose_every_seed_repeats_a_held_out_one_says_that_none_is_left_to_generate_from(tmp_path):
    write_taxonomy(tmp_path / "taxonomy")
    asked = row(take(tmp_path), FREEFORM)["heldout_questions"][0]["question"]
    edit_yaml(qna(tmp_path, FREEFORM), lambda value: [each.update(question=asked) for each in value["seed_examples"]])
    snapshot = take(tmp_path)
    assert "no seed is left to generate from" in snapshot.problems[FREEFORM][0]
    assert source(tmp_path, snapshot, FREEFORM)["seeds"] == []


def test_a_held_out_question_carries_its_context_in_grounded_skills_only(tmp_path):
    write_taxonomy(tmp_path / "taxonomy")
    snapshot = take(tmp_path)
    for key in ALL:
        contexts = [each["context"] for each in row(snapshot, key)["heldout_questions"]]
        assert all(contexts) if key == GROUNDED else not any(contexts)


def test_the_same_questions_stay_held_out_when_the_seed_setting_changes(tmp_path):
    write_taxonomy(tmp_path / "taxonomy")
    assert take(tmp_path, seed=1).rows == take(tmp_path, seed=2).rows


# quarantine


@pytest.mark.parametrize("key", ALL)
def test_a_broken_leaf_is_quarantined_and_the_rest_stays_usable(tmp_path, key):
    write_taxonomy(tmp_path / "taxonomy")
    before = take(tmp_path)
    break_leaf(tmp_path, key)
    after = take(tmp_path)
    assert after.usable == {each: value for each, value in before.usable.items() if each != key}
    broken = row(after, key)
    assert (broken["usable"], broken["fingerprint"], broken["schema_verdict"]) == (False, None, "invalid")
    assert after.problems[key][0] == f"{key}/qna.yaml:2: the key 'version' stands twice"


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"repo": "missing"}, "needs a plain local folder"),
        ({"repo": "missing", "commit": "abc"}, "does not exist"),
        ({"repo": "ext::touch hacked"}, "is not allowed"),
        ({"repo": "https://[::1", "commit": "abc"}, "is no address"),
        ({"repo": "loop"}, "cannot be found"),
        ({"repo": "x" * 5000, "commit": "abc"}, "too long"),
        ({"commit": "0" * 40}, "git ls-remote failed"),
        ({"patterns": ["none.md"]}, "no readable file"),
        ({"patterns": ["headings.md"]}, "no paragraph of text"),
    ],
)
def test_a_leaf_without_its_documents_is_valid_and_quarantined_at_the_line_of_the_document(tmp_path, document, said):
    write_taxonomy(tmp_path / "taxonomy")
    (tmp_path / "taxonomy/documents/headings.md").write_text("# Nothing\n\n## but headings\n")
    (tmp_path / "taxonomy/loop").symlink_to("loop")
    edit_yaml(qna(tmp_path, KNOWLEDGE), lambda value: value["document"].update(document))
    snapshot = take(tmp_path)
    assert set(snapshot.usable) == {GROUNDED, FREEFORM, FOUNDATIONAL}
    assert row(snapshot, KNOWLEDGE)["schema_verdict"] == "valid"
    (problem,) = row(snapshot, KNOWLEDGE)["problems"]
    assert said in problem["message"]
    assert qna(tmp_path, KNOWLEDGE).read_text().splitlines()[problem["line"] - 1] == "document:"


def test_local_documents_are_refused_where_the_settings_say_so(tmp_path):
    write_taxonomy(tmp_path / "taxonomy")
    snapshot = take(tmp_path, documents=DocumentSettings(allow_local=False))
    assert set(snapshot.usable) == {GROUNDED, FREEFORM, FOUNDATIONAL}
    assert "documents.allow_local is false" in snapshot.problems[KNOWLEDGE][0]


def test_a_leaf_that_never_was_good_holds_nothing_out_and_enters_no_ledger(tmp_path):
    write_taxonomy(tmp_path / "taxonomy")
    text = break_leaf(tmp_path, KNOWLEDGE)
    broken = row(take(tmp_path), KNOWLEDGE)
    assert (broken["held_out"], broken["heldout_questions"]) == (0, [])
    leaves = {entry["leaf"] for entry in read_lines(Home.open(tmp_path / "home").heldout_ledger)}
    assert leaves == {GROUNDED, FREEFORM, FOUNDATIONAL}
    qna(tmp_path, KNOWLEDGE).write_text(text)
    assert row(take(tmp_path), KNOWLEDGE)["held_out"] == 5


@pytest.mark.parametrize("key", ALL)
def test_a_leaf_broken_after_being_good_stays_measurable_as_long_as_it_is_broken(tmp_path, key):
    write_taxonomy(tmp_path / "taxonomy")
    good = row(take(tmp_path), key)
    text = break_leaf(tmp_path, key)
    for _ in range(3):
        broken = row(take(tmp_path), key)
        assert broken["usable"] is False
        assert broken["heldout_questions"] == good["heldout_questions"] != []
        assert broken["held_out"] == good["held_out"]
    qna(tmp_path, key).write_text(text)
    assert row(take(tmp_path), key) == good


def test_a_leaf_whose_documents_went_away_stays_measurable(tmp_path):
    write_taxonomy(tmp_path / "taxonomy")
    good = row(take(tmp_path), KNOWLEDGE)
    (tmp_path / "taxonomy/documents").rename(tmp_path / "away")
    broken = row(take(tmp_path), KNOWLEDGE)
    assert broken["usable"] is False
    assert broken["heldout_questions"] == good["heldout_questions"]


def test_a_usable_leaf_takes_over_no_question_of_its_past(tmp_path):
    write_taxonomy(tmp_path / "taxonomy")
    question = row(take(tmp_path), FREEFORM)["heldout_questions"][0]["question"]

    def delete(value):
        value["seed_examples"] = [seed for seed in value["seed_examples"] if seed["question"] != question]

    edit_yaml(qna(tmp_path, FREEFORM), delete)
    after = row(take(tmp_path), FREEFORM)
    assert after["usable"]
    assert question not in [each["question"] for each in after["heldout_questions"]]


def test_a_removed_leaf_has_no_row(tmp_path):
    write_taxonomy(tmp_path / "taxonomy")
    take(tmp_path)
    qna(tmp_path, FREEFORM).unlink()
    assert [each["leaf"] for each in take(tmp_path).rows] == [GROUNDED, FOUNDATIONAL, KNOWLEDGE]


# the shipped sample


def test_the_sample_taxonomy_has_five_usable_leaves_without_a_problem(tmp_path):
    snapshot = take_snapshot(Home.open(tmp_path), settings_for(SAMPLE))
    assert len(snapshot.usable) == len(snapshot.rows) == 5
    assert not any(snapshot.problems.values())
    assert {each["kind"] for each in snapshot.rows} == {"knowledge", "grounded_skill", "freeform_skill"}
    for each in snapshot.rows:
        assert each["schema_verdict"] == "valid"
        assert 0 < each["held_out"] <= each["seeds"] / 3
        assert bool(each["documents"]) == (each["kind"] == "knowledge")


def test_the_sample_taxonomy_is_valid_by_the_public_schemas():
    files = sorted(SAMPLE.rglob("qna.yaml"))
    assert len(files) == 5
    for file in files:
        assert TaxonomyParser(schema_version=0, message_format="logging").parse(file).errors == 0

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from lab_pipeline.core.rows import GENERATED_SCHEMA
from lab_pipeline.flows.flow import SHIPPED, Flow, FlowError, load_flow, shipped_flows, variables_by_prompt
from lab_pipeline.flows.prompts import render_prompt
from lab_pipeline.instructions.generate import first_drafts
from lab_pipeline.taxonomy.leaf import Kind
from lab_pipeline_tests.builders import edit_yaml, judged_copy, rule

KINDS: tuple[Kind, ...] = get_args(Kind)
FACTS = {"name": "facts", "prompt": "answer.yaml", "max_tokens": 9, "instructions": ["List the facts."]}

SOURCE: dict[str, Any] = {
    "leaf": "a/leaf",
    "kind": "knowledge",
    "task": "TASK",
    "domain": "DOMAIN",
    "outline": "OUTLINE",
    "seeds": [
        {"context": f"First text {n} is here. Second one too.", "question": f"What is here {n}?", "answer": f"Text {n}"}
        for n in range(5)
    ],
    "passages": [
        {"document": "a.md", "commit": "c", "heading": "H", "start": 0, "end": 9, "text": "The loom is made of walnut."}
    ],
}


def shipped(kind: Kind) -> Flow:
    return load_flow(f"simple_{kind}", kind)


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A flow with two stages and a judge, to be changed."""
    return judged_copy("freeform_skill", tmp_path / "own")


@pytest.fixture
def answering(tmp_path: Path) -> Path:
    """A flow whose sentences are the answers, with a judge."""
    return judged_copy("knowledge", tmp_path / "own")


def changed(folder: Path, change: Callable[[dict[str, Any]], Any], file: str = "flow.yaml") -> Flow:
    edit_yaml(folder / file, change)
    return load_flow(str(folder))


def test_every_kind_of_leaf_has_a_shipped_flow() -> None:
    assert shipped_flows() == sorted([*KINDS, *(f"simple_{kind}" for kind in KINDS)])


@pytest.mark.parametrize("kind", KINDS)
def test_every_prompt_of_a_shipped_flow_renders_with_what_a_row_has(kind: Kind) -> None:
    flow = shipped(kind)
    row = first_drafts(SOURCE, flow, 17)[0].variables
    for stage in flow.file.stages:
        messages = flow.render(stage.prompt, row)
        assert messages[-1].role == "user"
        written = {message.content for message in messages if message.role == "assistant"}
        shown = [example[stage.output] for example in row["examples"]]
        assert len(shown) == min(flow.file.start.examples, len(SOURCE["seeds"]))
        assert written >= set(shown) or stage.output in row  # what is there already needs no examples to be revised
        row[stage.output] = f"WRITTEN {stage.output}"
    stored = {name: row.get(name, f"STORED {name}") for name in GENERATED_SCHEMA.names}
    for judge in flow.file.judges:
        (*_, last) = flow.render(judge.prompt, {**stored, "task": "TASK", "domain": "DOMAIN", "outline": "OUTLINE"})
        assert "WRITTEN question" in last.content and row["answer"] in last.content


@pytest.mark.parametrize("kind", KINDS)
def test_every_stage_sees_what_the_stages_before_it_wrote(kind: Kind) -> None:
    flow = shipped(kind)
    row = first_drafts(SOURCE, flow, 17)[0].variables
    before = row["support"]
    for stage in flow.file.stages:
        if before:
            assert before in flow.render(stage.prompt, row)[-1].content
        before = row[stage.output] = f"WRITTEN {stage.output}"


@pytest.mark.parametrize("name", shipped_flows())
def test_the_variables_that_prompts_are_checked_for_are_those_that_drafts_have(name: str) -> None:
    flow = load_flow(name)
    _, known = next(iter(variables_by_prompt(flow.file)))
    assert known - {"several"} == set(first_drafts(SOURCE, flow, 17)[0].variables)


def test_examples_are_filled_in_one_by_one_and_their_names_stay_inside(own: Path) -> None:
    prompt = [
        {"role": "system", "content": "{{ domain }}"},
        {"each": "examples", "messages": [{"role": "user", "content": "{{ question }} of {{ domain }}"}]},
        {"role": "user", "content": "  {{ question }}\n"},
    ]
    (own / "answer.yaml").write_text(yaml.safe_dump(prompt))
    row = {"domain": "D", "question": "own", "examples": [{"question": "one"}, {"question": "two"}]}
    messages = load_flow(str(own)).render("answer.yaml", row)
    assert [message.content for message in messages] == ["D", "one of D", "two of D", "own"]


def test_examples_may_stand_in_the_prompt_itself(own: Path) -> None:
    each = [{"question": "one", "verdict": "Yes"}, {"question": "two", "verdict": "No"}]
    messages = [{"role": "user", "content": "{{ question }}?"}, {"role": "assistant", "content": "{{ verdict }}"}]
    (own / "fits_instruction.yaml").write_text(yaml.safe_dump([{"each": each, "messages": messages}, messages[0]]))
    rendered = load_flow(str(own)).render("fits_instruction.yaml", {"question": "own"})
    assert [message.content for message in rendered] == ["one?", "Yes", "two?", "No", "own?"]


def gating(own: Path) -> None:
    edit_yaml(own / "flow.yaml", lambda file: file["judges"][0].update(gates=True))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda known: known.pop("good"), r"known_rows.yaml: good: Field required"),
        (lambda known: known.update(good=known["good"][:3]), r"known_rows.yaml: good: .* at least 8 items"),
        (lambda known: known["bad"].update(fits_instruction=[]), r"known_rows.yaml: bad.fits_instruction: .* at least 8 items"),
        (
            lambda known: known["bad"].update(true=known["bad"].pop("fits_instruction")),
            r"known_rows.yaml: bad: no rows for fits_instruction",
        ),
        (lambda known: known["good"][0].pop("question"), r"flow own, fits_instruction.yaml: 'question' is undefined"),
        (lambda known: known["good"][0].update(answer=3), r"known_rows.yaml: good.0.answer: "),
    ],
)
def test_a_judge_that_gates_needs_known_rows_which_its_prompt_can_show(
    own: Path, change: Callable[[Any], Any], said: str
) -> None:
    edit_yaml(own / "known_rows.yaml", change)
    load_flow(str(own))
    gating(own)
    with pytest.raises(FlowError, match=said):
        load_flow(str(own))


def test_a_judge_that_gates_without_a_file_of_known_rows_is_an_error(own: Path) -> None:
    (own / "known_rows.yaml").unlink()
    gating(own)
    with pytest.raises(FlowError, match=r"own/known_rows.yaml: cannot be read \(No such file"):
        load_flow(str(own))


def test_changed_known_rows_concern_only_judges_that_gate(own: Path) -> None:
    def another_answer(known: dict[str, Any]) -> None:
        known["good"][0]["answer"] = "Wide"

    before = digests(load_flow(str(own)))
    assert digests(changed(own, another_answer, "known_rows.yaml")) == before
    gating(own)
    before = digests(load_flow(str(own)))
    edit_yaml(own / "known_rows.yaml", lambda known: known["good"][0].update(answer="Wide, I say."))
    after = digests(load_flow(str(own)))
    assert [name for name in before if before[name] != after[name]] == ["curation"]


def test_what_a_text_holds_is_never_run_as_a_template(own: Path) -> None:
    row = {"task": "TASK", "question": "{{ 7 * 7 }} {% include 'x' %}", "examples": []}
    assert load_flow(str(own)).render("answer.yaml", row)[-1].content == row["question"]


def test_an_unknown_flow_is_an_error_that_names_the_known_ones() -> None:
    with pytest.raises(FlowError, match=r"no flow 'simple_knowlege': neither one of freeform_skill, .*simple_knowledge nor a"):
        load_flow("simple_knowlege", "knowledge")


def test_a_flow_of_another_kind_is_an_error() -> None:
    with pytest.raises(FlowError, match=r"serves knowledge leaves, not freeform_skill; see flows in settings.yaml"):
        load_flow("simple_knowledge", "freeform_skill")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda file: file.update(colour="red"), "flow.yaml: colour: unknown key; known are version, "),
        (lambda file: file["stages"][0].update(max_token=9), r"stages.0.max_token: unknown key; did you mean max_tokens"),
        (lambda file: rule(file, "length").update(answer_word=[1, 2]), r"rules.2.answer_word: unknown key"),
        (lambda file: rule(file, "length").pop("answer"), r"rules.2: question, answer: both are expected for length"),
        (lambda file: rule(file, "refusal").update(question=[1, 2], answer=[1, 2]), r"rules.4: question, answer: both are exp"),
        (lambda file: rule(file, "off_topic").pop("minimum"), r"rules.9: minimum: expected for off_topic"),
        (lambda file: rule(file, "refusal").update(minimum=0.5), r"rules.4: minimum: not expected for refusal"),
        (lambda file: rule(file, "off_topic").update(minimum=1.5), r"rules.9.minimum: "),
        (lambda file: rule(file, "duplicate").update(advises=True), r"rules.10: advises: duplicate cannot be advice only"),
        (lambda file: rule(file, "refusal").update(rule="refusals"), r"rules.4.rule: "),
        (
            lambda file: file["rules"].append(file["rules"][4]),
            r"rules: expected no_reply and incomplete first, and each rule once",
        ),
        (lambda file: file["rules"].pop(0), r"rules: expected no_reply and incomplete first"),
        (
            lambda file: file.update(rules={"answer_words": [1, 2]}),
            r"rules: .*expected a list of rules in order, such as `- {rule",
        ),
        (lambda file: file.pop("kind"), "flow.yaml: kind: Field required"),
        (lambda file: file.update(stages=[]), "flow.yaml: stages: "),
        (
            lambda file: file.update(stages=file["stages"][:1]),
            "stages: one must give the question, and the last one the answer",
        ),
        (lambda file: file["stages"].pop(0), "stages: one must give the question, and the last one the answer"),
        (lambda file: file["judges"][0].update(choices={"Yes": 1}), r"judges.0: choices: expected two or more"),
        (lambda file: file["judges"][0].update(choices={"Yes": 1, "Yet": 0}), r"judges.0: choices: .* different first letters"),
        (lambda file: file["judges"][0].update(choices={"Yes": 2, "No": 0}), r"judges.0.choices.Yes: "),
        (lambda file: file["judges"][0].update(before="context"), r"judges.0.before: "),
        (lambda file: file["judges"][0].update(before="answer", minimum=0.4), r"judges.0: minimum: .*; expected at least that"),
        (lambda file: file["judges"].append(file["judges"][0]), r"flow.yaml: judges: two have the same name"),
        (
            lambda file: file.update(augmentations=[FACTS]),
            r"flow.yaml: augmentations: expected none unless start.each is passage",
        ),
        (lambda file: file["stages"][0].update(several=0), r"stages.0.several: "),
        (lambda file: file["judges"][0].update(minimum=1.5), r"judges.0.minimum: "),
        (lambda file: file["start"].update(each="word"), r"start.each: "),
    ],
)
def test_a_wrong_key_is_an_error_that_names_file_and_key(own: Path, change: Callable[[Any], Any], said: str) -> None:
    with pytest.raises(FlowError, match=said) as error:
        changed(own, change)
    assert str(own) in str(error.value)


ANSWER = {"output": "answer", "prompt": "question.yaml", "max_tokens": 9}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda file: file["start"].update(each="seed"),
            "start: answers: a seed cannot be the answer; expected each: sentence or passage",
        ),
        (
            lambda file: file["stages"].append(ANSWER),
            "stages: one must give the question, .*with start.answers, none gives an answer",
        ),
        (lambda file: file["stages"].insert(0, ANSWER), "with start.answers, none gives an answer"),
        (lambda file: file["stages"][0].update(output="pairs"), "with start.answers, none gives an answer"),
        (lambda file: file["stages"][0].update(output="context"), "stages: one must give the question"),
        (lambda file: file["start"].update(answers=False), "stages: .* the last one the answer"),
        (lambda file: file["judges"][0].update(before="answer"), "judges: before: no stage gives the answer"),
    ],
)
def test_where_the_start_is_the_answer_no_seed_and_no_stage_can_be_another(
    answering: Path, change: Callable[[Any], Any], said: str
) -> None:
    with pytest.raises(FlowError, match=said):
        changed(answering, change)


@pytest.mark.parametrize("text", ["stages: [", "", "just words"])
def test_a_flow_file_that_holds_no_flow_is_an_error(own: Path, text: str) -> None:
    (own / "flow.yaml").write_text(text)
    with pytest.raises(FlowError, match=r"own/flow\.yaml: "):
        load_flow(str(own))


def test_a_missing_prompt_is_an_error_that_names_it(own: Path) -> None:
    (own / "fits_instruction.yaml").unlink()
    with pytest.raises(FlowError, match=r"own/fits_instruction.yaml: cannot be read \(No such file"):
        load_flow(str(own))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- role: [", "not valid YAML"),
        ("role: user", "expected a list of messages"),
        ("- just words", "every message needs a role"),
        ("- {role: user, content: a, colour: red}", "every message needs a role"),
        ("- {each: examples, role: user, content: a}", "every message needs a role"),
        ("- {messages: [{role: user, content: a}]}", "every message needs a role"),
        ("- {each: examples, messages: }", "every message needs a role"),
        ("- {role: owner, content: a}", "every message needs a role"),
        ("- {role: user, content: 3}", "every message needs a role"),
        ("- {each: examples, messages: [words]}", "every message needs a role"),
        ("- {each: [words], messages: [{role: user, content: a}]}", "each: expected the name of a list, or a list of items"),
        ("- {role: user, content: '{{ question '}", "unexpected end of template|expected token"),
        ("- {role: user, content: '{% if question %}'}", "Unexpected end of template"),
        ("- {each: examples, messages: [{role: user, content: '{{ a | nonsense }}'}]}", "No filter named 'nonsense'"),
    ],
)
def test_a_prompt_with_a_mistake_is_an_error_before_anything_runs(own: Path, text: str, said: str) -> None:
    (own / "answer.yaml").write_text(text)
    with pytest.raises(FlowError, match=f"own/answer.yaml: .*({said})"):
        load_flow(str(own))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- {role: user, content: '{{ sentense }}'}", "'sentense' is undefined; a row has examples, support"),
        ("- {each: examples, messages: [{role: user, content: '{{ contxt }}'}]}", "'contxt' is undefined"),
        ("- {each: exmples, messages: [{role: user, content: a}]}", "each: a row has no list 'exmples'"),
        ("- {each: support, messages: [{role: user, content: a}]}", "each: a row has no list 'support'"),
    ],
)
def test_an_undefined_variable_is_an_error_that_names_flow_and_prompt(text: str, said: str) -> None:
    with pytest.raises(FlowError, match=f"flow own, question.yaml: {said}"):
        render_prompt("flow own, question.yaml", yaml.safe_load(text), {"support": "S", "examples": [{"question": "one"}]})


@pytest.mark.parametrize(
    ("file", "text", "unknown"),
    [
        ("question.yaml", "- {role: user, content: '{{ tsak }}'}", "tsak"),
        ("question.yaml", "- {role: user, content: '{% if task %}{{ task }}{% else %}{{ answer }}{% endif %}'}", "answer"),
        ("question.yaml", "- {each: examples, messages: [{role: user, content: '{{ qestion }}'}]}", "qestion"),
        ("question.yaml", "- {each: exmples, messages: [{role: user, content: a}]}", "exmples"),
        ("answer.yaml", "- {role: user, content: '{{ context }}'}", "context"),
        (
            "fits_instruction.yaml",
            "- {each: [{a: x, b: y}, {a: x}], messages: [{role: user, content: '{{ a }} {{ b }}'}]}",
            "b",
        ),
        ("fits_instruction.yaml", "- {role: user, content: '{{ several }}'}", "several"),
    ],
)
def test_a_variable_that_no_row_will_have_is_found_before_the_teacher_is_asked(
    own: Path, file: str, text: str, unknown: str
) -> None:
    (own / file).write_text(text)
    with pytest.raises(FlowError, match=f"own/{file}: '{unknown}' is undefined; a row has .*task"):
        load_flow(str(own))


@pytest.mark.parametrize(
    "spared",
    [
        "{% if context is defined %}{{ context }}{% endif %}",
        "{{ context | default('none') }}",
        "{% for number in range(2) %}{{ number }}{% endfor %}",
    ],
)
def test_a_variable_that_a_prompt_provides_for_is_no_mistake(own: Path, spared: str) -> None:
    (own / "answer.yaml").write_text(yaml.safe_dump([{"role": "user", "content": f"{spared} {{{{ question }}}}"}]))
    assert load_flow(str(own)).render("answer.yaml", {"question": "Who?"})[-1].content.endswith("Who?")


def digests(flow: Flow) -> dict[str, str]:
    return {
        "generation": flow.generation_digest,
        "judging": flow.judging_digest,
        "curation": flow.curation_digest,
    }


def first_message(text: str) -> Callable[[Any], Any]:
    return lambda prompt: prompt[0].update(content=text)


@pytest.mark.parametrize(
    ("file", "change", "expected"),
    [
        ("flow.yaml", lambda file: None, set()),
        ("flow.yaml", lambda file: file.update(description="Other words."), set()),
        ("flow.yaml", lambda file: file["start"].update(examples=2), {"generation"}),
        ("flow.yaml", lambda file: file["start"].update(repeats=2), {"generation"}),
        ("flow.yaml", lambda file: file["stages"][0].update(temperatures=[0.0]), {"generation"}),
        ("flow.yaml", lambda file: file["stages"][1].update(max_tokens=41), {"generation"}),
        ("flow.yaml", lambda file: file["stages"][1].update(first_line=True), {"generation"}),
        ("question.yaml", first_message("Ask."), {"generation"}),
        ("answer.yaml", first_message("Answer."), {"generation"}),
        ("fits_instruction.yaml", lambda prompt: prompt[-1].update(content="Judge."), {"judging"}),
        ("flow.yaml", lambda file: file["judges"][0].update(choices={"Yes": 1, "No": 0, "Partly": 0.5}), {"judging"}),
        ("flow.yaml", lambda file: file["judges"][0].update(choices={"Yes": 0, "No": 1}), {"judging"}),
        (
            "flow.yaml",
            lambda file: file["judges"][0].update(before="answer", prompt="question.yaml"),
            {"generation", "judging"},
        ),
        ("flow.yaml", lambda file: file["judges"][0].update(name="true"), {"judging", "curation"}),
        ("flow.yaml", lambda file: file["judges"].pop(), {"judging", "curation"}),
        ("flow.yaml", lambda file: file["judges"][0].update(minimum=0.6), {"curation"}),
        ("flow.yaml", lambda file: file["judges"][0].update(gates=True), {"curation"}),
        ("flow.yaml", lambda file: rule(file, "off_topic").update(minimum=0.8), {"curation"}),
        ("flow.yaml", lambda file: rule(file, "off_topic").update(advises=True), {"curation"}),
        ("flow.yaml", lambda file: file["rules"].remove(rule(file, "refusal")), {"curation"}),
        ("flow.yaml", lambda file: file["rules"].insert(2, file["rules"].pop()), {"curation"}),
    ],
)
def test_a_change_alters_the_digests_of_what_it_invalidates_and_no_other(
    own: Path, file: str, change: Callable[[Any], Any], expected: set[str]
) -> None:
    before = digests(load_flow(str(own)))
    after = digests(changed(own, change, file))
    assert {name for name in before if before[name] != after[name]} == expected


def test_a_copy_of_a_flow_has_the_digests_of_the_original(tmp_path: Path) -> None:
    copy = shutil.copytree(SHIPPED / "freeform_skill", tmp_path / "own")
    assert digests(load_flow(str(copy))) == digests(load_flow("freeform_skill"))

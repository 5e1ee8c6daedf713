"""The pipeline in the Dagster UI, by clicking: the tests are steps of one home's life, in their order.

`LAB_PICTURES=docs/pictures pytest --basetemp /tmp/lab lab_pipeline_tests/runtime/test_ui.py` makes the README's pictures
anew (paths of the home are seen in them, hence the short one).
"""

import json
import os
import shutil
import time
from fnmatch import fnmatch
from pathlib import Path
from urllib.parse import urlsplit

import dagster as dg
import pytest

pytest.importorskip("playwright", reason="the browser tests need the package playwright")

from playwright.sync_api import expect

from lab_pipeline.datasets.general import SHIPPED
from lab_pipeline.definitions import defs
from lab_pipeline.runtime.command import retune
from lab_pipeline.runtime.launcher import SAMPLE_TAXONOMY
from lab_pipeline_tests.browser import CHROMIUM, open_ui
from lab_pipeline_tests.builders import edit_yaml
from lab_pipeline_tests.lab import OPEN_GATE, lab, obliging
from lab_pipeline_tests.stub_endpoint import Answer

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(CHROMIUM is None, reason="the browser tests need the program chromium"),
]

KNOWLEDGE = "knowledge/geography/thalveren"
REWORDING = "compositional_skills/freeform/writing/polite_rewording"
NOTES = "compositional_skills/grounded/extraction/meeting_notes"
NOTES_TASK = "Extract who will do what"

TAIL_SECONDS = 300


@pytest.fixture(scope="module")
def life(tmp_path_factory, tiny_model):
    """Three leaves of the sample taxonomy, a stub teacher, a tiny model; general questions that can be edited."""
    folder = tmp_path_factory.mktemp("life")
    for part in ("documents", KNOWLEDGE, REWORDING, NOTES):
        shutil.copytree(SAMPLE_TAXONOMY / part, folder / "taxonomy" / part)
    shutil.copytree(SHIPPED, folder / "general")
    with pytest.MonkeyPatch.context() as patch:
        with lab(folder, folder / "taxonomy", tiny_model, patch) as opened:
            # a learning rate at which even a random model gains, and a gate that does not mind what it forgets
            for phase in ("knowledge", "skills"):
                edit_yaml(folder / "recipe.yaml", lambda recipe, phase=phase: recipe[phase].update(learning_rate=0.02))
            opened.set(general=str(folder / "general"), gate=OPEN_GATE)
            # a teacher that wants a key leaves the sensor stale_leaves off: here leaves are refreshed by hand
            patch.setenv("STUB_KEY", "secret")
            teacher = {"kind": "endpoint", "url": opened.stub.url, "model": "stub", "retries": 0, "api_key_env": "STUB_KEY"}
            opened.set(teacher=teacher, sensors={"interval_seconds": 5})
            yield opened


@pytest.fixture(scope="module")
def ui(life, tmp_path_factory):
    pictures = os.environ.get("LAB_PICTURES")
    with open_ui(life.home, Path(pictures) if pictures else tmp_path_factory.mktemp("pictures")) as opened:
        yield opened


def test_the_graph_shows_its_five_groups_and_every_asset(ui):
    ui.open("/asset-groups")
    ui.shows("taxonomy", "instructions", "datasets", "checkpoints", "promotion")
    expand_all_groups(ui)
    ui.shows("taxonomy_snapshot", "heldout_questions", "champion_model")
    labels = ui.page.locator("svg foreignObject").all_text_contents()
    for key in defs.resolve_asset_graph().get_all_asset_keys():
        asset = key.to_user_string()
        assert any(fnmatch(asset, label.strip().replace("…", "*")) for label in labels), f"{asset} is not among {labels}"


def test_one_leaf_is_materialized_by_clicking(ui, life):
    ui.open("/assets/taxonomy_snapshot")
    ui.launch("Materialize", ends="Success")
    ui.open("/assets/taxonomy_snapshot?view=checks")
    ui.shows("every_leaf_is_usable", "Passed", "quarantined")

    ui.open("/locations/lab_pipeline/asset-groups/instructions")
    ui.button("Materialize all…").click()
    ui.choose_partition(KNOWLEDGE)
    ui.launch("Launch 1 run", ends="Success")
    ui.open(f"/assets/curated_instructions?view=partitions&partition={KNOWLEDGE}")
    ui.shows("Materialized (1)", "Missing (2)", "simple_knowledge", "kept_share")
    funnel = ui.page.locator("table table").filter(has_text="stage").last
    rows = dict(line.split("\t") for line in funnel.inner_text().splitlines()[1:])
    funnel.scroll_into_view_if_needed()
    ui.picture("leaf")
    assert int(rows["generated"]) == sum(int(number) for stage, number in rows.items() if stage != "generated")
    assert life.calls() > 0

    ui.open("/assets/curated_instructions?view=checks&checkDetail=funnels_add_up")
    ui.shows("Checks (2)", "leaves_keep_rows", "Passed")

    # what leaves have in common is checked where they come together
    ui.open("/assets/instruction_catalog")
    ui.launch("Materialize", ends="Success")
    ui.open("/assets/instruction_catalog?view=checks&checkDetail=leaves_are_current")
    ui.page.get_by_text("[Show Markdown]").click()
    ui.shows("Checks (8)", "ids_are_unique", f"{NOTES}: missing: not refreshed yet")


def test_materialize_all_leaves_exactly_the_refused_leaf_red(ui, life):
    life.stub.reply = lambda asked: Answer(status=400, body="no") if NOTES_TASK in json.dumps(asked.body) else obliging(asked)
    ui.open("/asset-groups")
    ui.launch_backfill(ends="Failed")
    ui.picture("backfill")
    ui.open(f"/assets/curated_instructions?view=partitions&partition={NOTES}")
    ui.shows("Failed (1)", "Materialized (2)", "Missing (0)")
    life.stub.reply = obliging


def test_after_materialize_all_the_rest_runs_though_one_leaf_failed(life):
    with dg.DagsterInstance.get() as instance:
        ended = instance.get_backfills()[0].backfill_end_timestamp
        deadline = time.monotonic() + TAIL_SECONDS
        while time.monotonic() < deadline:
            report = instance.get_latest_materialization_event(dg.AssetKey("evaluation_report"))
            if report and report.timestamp > ended and instance.get_run_by_id(report.run_id).is_success:
                return
            time.sleep(2)
    pytest.fail(f"no evaluation within {TAIL_SECONDS} s of the backfill's end")


def test_a_failed_expectation_stops_the_rest(ui, life):
    """Someone exports replay answers from a chat log, and the markup that ends a turn comes along."""
    replay = life.home.root.parent / "general" / "replay.jsonl"
    clean = replay.read_text()
    replay.write_text(clean.replace('"}\n', '<|im_end|>"}\n'))
    assert replay.read_text() != clean
    ui.open("/locations/lab_pipeline/jobs/retune")
    run = ui.launch("Materialize all", ends="Failure")
    ui.shows("1 blocking asset check failed with ERROR severity", "knowledge_dataset: no_markup_leaks_into_answers")
    ui.page.get_by_text("Not executed (").click()
    ui.page.locator("[aria-label=gantt_waterfall]").click()
    ui.page.locator("[aria-label=expand_arrows]").first.click()
    skipped = ui.page.get_by_text("Not executed (").locator("xpath=../../..").inner_text().splitlines()
    ui.picture("check", height=700)
    unchecked = {"knowledge_checkpoint", "skills_dataset", "skills_checkpoint", "evaluation_report", "champion_model"}
    assert unchecked <= set(skipped), skipped
    with dg.DagsterInstance.get() as instance:
        started = {step.step_key for step in instance.get_run_step_stats(run) if step.start_time}
    assert started & unchecked == set() and "knowledge_rows_meet_expectations" in started

    ui.open("/assets/knowledge_dataset?view=checks&checkDetail=no_markup_leaks_into_answers")
    ui.shows("This is a blocking asset check.", "rows unexpected")
    ui.page.locator(".BaseTag").get_by_text("Failed", exact=True).wait_for()
    replay.write_text(clean)


def test_scores_are_plotted_over_retunes(ui, life):
    for sentence in ("Move your car.", "Close the window.", "Answer me."):
        seed = {"question": f'Reword this sentence politely: "{sentence}"', "answer": f"Could you please do this: {sentence}"}
        edit_yaml(life.taxonomy / REWORDING / "qna.yaml", lambda leaf, seed=seed: leaf["seed_examples"].append(seed))
        retune(life.home, lambda said: None)
    ui.open("/assets/evaluation_report")
    ui.button("Plots").click()
    ui.shows("heldout_base", "heldout_candidate", "general_candidate")
    plots = ui.page.locator("canvas")
    plots.first.wait_for()
    ui.page.get_by_text("heldout_base", exact=True).evaluate("title => title.scrollIntoView()")
    ui.picture("scores")
    colors = """plot => {
        const pixels = plot.getContext("2d").getImageData(0, 0, plot.width, plot.height).data
        return new Set(new Uint32Array(pixels.buffer)).size
    }"""
    assert plots.count() >= 6 and all(plot.evaluate(colors) > 2 for plot in plots.all())

    ui.page.set_viewport_size({"width": 1500, "height": 650})
    ui.open("/asset-groups")
    expand_all_groups(ui)
    ui.shows("champion_model")
    ui.page.mouse.dblclick(500, 150)  # fits it into the window again
    ui.page.wait_for_timeout(1000)
    ui.page.mouse.move(500, 150)  # else the zoom buttons would cover the last asset
    ui.page.mouse.down()
    ui.page.mouse.move(470, 150, steps=5)
    ui.page.mouse.up()
    ui.picture("graph", 1500, 650)


def test_links_lead_from_the_graph_to_rows_checks_and_reports(ui):
    """By links alone: from an asset to its page, from there to a row and its passage, to the checks and to the report."""
    ui.open("/assets/evaluation_report")
    follow(ui, "/report?id=")
    ui.shows("Report alone")
    expect(ui.page.frame_locator("iframe.report").locator("h1")).to_be_visible()
    ui.open("/assets/knowledge_dataset?view=checks&checkDetail=no_markup_leaks_into_answers")
    follow(ui, "/quality")
    ui.shows("Training rows of phase 1, knowledge", "No markup leaks into answers")
    ui.open(f"/assets/curated_instructions?view=partitions&partition={KNOWLEDGE}")
    follow(ui, "/rows?leaf=")
    ui.page.get_by_role("link", name="Passage and origin").first.click()
    expect(ui.page.locator("mark.support")).to_be_visible()


def follow(ui, path):
    """Click the link to a page, and come to the pages of this UI, which are on the next port."""
    ui.page.locator(f"a[href*='{path}']").first.evaluate("link => link.removeAttribute('target')")
    ui.page.locator(f"a[href*='{path}']").first.click()
    ui.page.wait_for_url(f"**{path}*")
    assert urlsplit(ui.page.url).port == urlsplit(ui.url).port + 1


def test_the_launchpad_refuses_a_wrong_value(ui):
    said = ui.launchpad_errors("retune", "resources:\n  lab:\n    config:\n      this_run:\n        seed: many")
    ui.shows("Random seed of all random choices; at least 0")
    ui.picture("launchpad")
    assert "this_run:seed" in said and '"many"' in said and "Int" in said


def expand_all_groups(ui):
    """With room for the graph; the browser remembers what was expanded."""
    ui.page.locator("svg foreignObject").first.wait_for(state="attached")
    ui.page.locator("[aria-label=panel_show_right]").first.click()
    while not ui.page.get_by_text("heldout_questions", exact=True).count():
        ui.page.wait_for_timeout(2000)  # the shortcut is not heard before the graph is ready
        ui.page.keyboard.press("Alt+e")
        ui.page.wait_for_timeout(2000)

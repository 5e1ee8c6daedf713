from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, LlamaConfig, LlamaForCausalLM

from lab_pipeline.config.recipe import Lora
from lab_pipeline.core.errors import LabError
from lab_pipeline.core.home import Home
from lab_pipeline.core.storage import folder_digest, read_json, write_json
from lab_pipeline.models.apart import packs_rows
from lab_pipeline.models.base_model import base_identity, base_licence, fetch_base, fetch_model, hub_id, model_identity
from lab_pipeline.models.fitting import Fitting, new_tokens
from lab_pipeline.models.loader import load_model, load_tokenizer
from lab_pipeline.models.packing import encode
from lab_pipeline.models.template import render
from lab_pipeline.registry.candidate import merge_candidate
from lab_pipeline.training.checkpoint import Checkpoint
from lab_pipeline.training.quantized import load_base, with_adapter
from lab_pipeline.training.train import train
from lab_pipeline_tests import templates
from lab_pipeline_tests.builders import settings_for
from lab_pipeline_tests.training.runs import recipe, training_row, training_spec, twelve_rows

QUESTION = [{"role": "user", "content": "Who?"}]
ASKED_AS_A_WEAVER = [{"role": "system", "content": "You are a weaver."}, *QUESTION]
GRANITE = ["<|start_of_role|>", "<|end_of_role|>", "<|end_of_text|>"]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.open(tmp_path / "home")


def fetched(home: Home, model: Path, **settings: Any) -> Path:
    return fetch_base(home, settings_for(home.root, base_model=str(model), **settings)).folder


def test_a_model_that_fits_is_used_where_it_is(home, tiny_model):
    assert fetched(home, tiny_model).resolve() == tiny_model
    assert base_identity(settings_for(home.root, base_model=str(tiny_model))) == model_identity(str(tiny_model))


def test_a_template_made_of_known_tokens_takes_no_space_for_weights(home, tiny_model, tmp_path):
    bare = templates.with_template(tiny_model, tmp_path / "bare", None)
    folder = fetched(home, bare, chat_template="chatml")
    assert render(load_tokenizer(folder), QUESTION, prompt=True) == "<|im_start|>user\nWho?<|im_end|>\n<|im_start|>assistant\n"
    assert (folder / "model.safetensors").samefile(bare / "model.safetensors")
    assert not new_tokens(folder) and load_tokenizer(bare).chat_template is None
    assert fetched(home, bare, chat_template="chatml") == folder


@pytest.mark.parametrize("tied", [True, False])
def test_new_tokens_are_trained_and_ship_with_the_template(home, tiny_model, tmp_path, tied):
    config = LlamaConfig.from_pretrained(tiny_model, tie_word_embeddings=tied)
    bare = templates.with_template(tiny_model, tmp_path / "bare", None)
    torch.manual_seed(0)
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(bare)
    folder = fetched(home, bare, chat_template="granite")
    tokenizer = load_tokenizer(folder)
    ids = tokenizer.convert_tokens_to_ids(GRANITE)
    assert new_tokens(folder) == ids == list(range(config.vocab_size, config.vocab_size + 3))
    row = encode(training_row("Who?", "Anna."), tokenizer)
    assert row.labels[-2] == ids[2]  # the end of the turn

    spec = training_spec(tmp_path / "run", folder, twelve_rows(), recipe(epochs=2))
    assert train(spec, lambda text: None)
    base = fetch_base(home, settings_for(home.root, base_model=str(bare), chat_template="granite"))
    candidate = merge_candidate(home, base, Checkpoint("skills-1", tmp_path / "run", {"adapter_digest": "d"}))
    before, after = load_model(folder), load_model(candidate.model)
    for embeddings in ("get_input_embeddings", "get_output_embeddings"):
        old, new = (getattr(model, embeddings)().weight for model in (before, after))
        assert torch.equal(old[: config.vocab_size], new[: config.vocab_size])
        assert not torch.equal(old[ids], new[ids])
    shipped = load_tokenizer(candidate.model)
    assert shipped.convert_tokens_to_ids(GRANITE) == ids
    assert render(shipped, QUESTION) == render(tokenizer, QUESTION)
    assert ids[2] in GenerationConfig.from_pretrained(candidate.model).eos_token_id  # by which servers end a reply


def test_a_new_token_begins_as_the_mean_of_the_others(home, tiny_model, tmp_path):
    bare = templates.with_template(tiny_model, tmp_path / "bare", None)
    old, new = (load_file(folder / "model.safetensors") for folder in (bare, fetched(home, bare, chat_template="granite")))
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        assert torch.equal(new[name][-1], old[name].float().mean(0).to(torch.bfloat16))
        assert torch.equal(new[name][:-3], old[name])


def test_a_template_file_that_is_no_text_is_refused_by_name(home, tiny_model, tmp_path):
    (tmp_path / "own.jinja").write_bytes(b"\xff\xfe")
    with pytest.raises(LabError, match="settings.yaml: chat_template: .*own.jinja cannot be read as UTF-8 text"):
        fetched(home, tiny_model, chat_template=str(tmp_path / "own.jinja"))


def test_phase_2_trains_the_new_tokens_on(home, tiny_model, tmp_path):
    folder = fetched(home, templates.with_template(tiny_model, tmp_path / "bare", None), chat_template="granite")
    first = with_adapter(load_base(folder, recipe()), Lora(rank=2, alpha=2), None, new_tokens(folder))
    first.save_pretrained(tmp_path / "adapter")
    second = with_adapter(load_base(folder, recipe()), Lora(rank=2, alpha=2), tmp_path / "adapter", new_tokens(folder))
    trained = [name for name, each in second.named_parameters() if each.requires_grad and "trainable_tokens" in name]
    assert len(trained) == 2  # input and output


def test_a_template_with_a_beginning_of_text_begins_with_it(home, tiny_model, tmp_path):
    from tokenizers.processors import TemplateProcessing

    bare = templates.with_template(tiny_model, tmp_path / "bare", None)
    tokenizer: Any = AutoTokenizer.from_pretrained(bare)
    bos = tokenizer.bos_token
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{bos} $A", special_tokens=[(bos, tokenizer.bos_token_id)]
    )
    tokenizer.save_pretrained(bare)
    prompt = render(load_tokenizer(fetched(home, bare, chat_template="granite")), QUESTION)
    assert prompt == f"{bos}<|start_of_role|>user<|end_of_role|>Who?<|end_of_text|>\n"


@pytest.mark.parametrize(
    ("setting", "prompt"),
    [
        ("merge", "<|im_start|>user\nYou are a weaver.\n\nWho?<file_sep>\n"),
        ("drop", "<|im_start|>user\nWho?<file_sep>\n"),
    ],
)
def test_a_system_message_that_the_template_refuses_goes_where_the_setting_says(home, tiny_model, tmp_path, setting, prompt):
    model = templates.with_template(tiny_model, tmp_path / "model", templates.NO_SYSTEM)
    tokenizer = load_tokenizer(fetched(home, model, system_message=setting))
    assert render(tokenizer, ASKED_AS_A_WEAVER) == prompt
    assert render(tokenizer, QUESTION) == "<|im_start|>user\nWho?<file_sep>\n"
    row = encode(training_row("Who?", "Anna.", unmask=True, system="You are a weaver."), tokenizer)
    learned = tokenizer.decode([label for label in row.labels if label >= 0])
    assert "weaver" not in learned and "Who?" in learned and "Anna." in learned


def test_a_system_message_that_the_template_drops_is_put_in_or_refused(home, tiny_model, tmp_path):
    silent = templates.OWN_END.replace("in messages %}", "in messages if m.role != 'system' %}")
    model = templates.with_template(tiny_model, tmp_path / "model", silent)
    assert "weaver" in render(load_tokenizer(fetched(home, model)), ASKED_AS_A_WEAVER)
    with pytest.raises(LabError, match="system_message is set to refuse"):
        render(load_tokenizer(fetched(home, model, system_message="refuse")), ASKED_AS_A_WEAVER)


def test_a_teachers_model_gets_a_place_for_system_messages_too(home, tiny_model, tmp_path):
    model = templates.with_template(tiny_model, tmp_path / "model", templates.NO_SYSTEM)
    assert "weaver" in render(load_tokenizer(fetch_model(home, str(model)).folder), ASKED_AS_A_WEAVER)


@pytest.mark.parametrize("setting", [{"chat_template": "chatml"}, {"system_message": "drop"}, {"packing": False}])
def test_each_setting_makes_another_model(home, tiny_model, setting):
    plain, other = (settings_for(home.root, base_model=str(tiny_model), **each) for each in ({}, setting))
    assert base_identity(other) != base_identity(plain) and base_identity(other).startswith(base_identity(plain))
    assert hub_id("org/model" + Fitting.of(other).name) == "org/model"
    if setting != {"system_message": "drop"}:  # this model's template takes system messages
        assert fetch_base(home, other).digest != fetch_base(home, plain).digest


def test_a_template_of_ones_own_is_known_by_its_content_and_kept_by_the_model(home, tiny_model, tmp_path):
    own = tmp_path / "own.jinja"
    own.write_text(templates.EOS_AT_THE_END, encoding="utf-8")
    named = settings_for(home.root, base_model=str(tiny_model), chat_template=str(own))
    first, before = fetch_base(home, named), base_identity(named)
    assert load_tokenizer(first.folder).chat_template == templates.EOS_AT_THE_END
    own.write_text(templates.OWN_END, encoding="utf-8")
    assert base_identity(named) != before and fetch_base(home, named).folder != first.folder
    assert base_licence(home, base_identity(named)) == "other"
    own.unlink()
    with pytest.raises(LabError, match=f"settings.yaml: chat_template: expected chatml, granite or a Jinja file, found {own}"):
        base_identity(named)


def test_packing_that_is_off_stays_off_in_what_ships(home, tiny_model, tmp_path):
    folder = fetched(home, tiny_model, packing=False)
    assert read_json(folder / "config.json")["packing"] is False and "packing" not in read_json(tiny_model / "config.json")
    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    model.save_pretrained(tmp_path / "merged")
    assert not packs_rows(load_model(tmp_path / "merged").config)


def test_a_model_that_an_earlier_release_fetched_is_fitted_now(home, tiny_model, tmp_path):
    model = templates.with_template(tiny_model, tmp_path / "model", templates.NO_SYSTEM)
    fetch_model(home, str(model))
    (record,) = home.models.glob("*.json")
    write_json(record, {"identity": read_json(record)["identity"], "folder": str(model), "digest": folder_digest(model)})
    assert "weaver" in render(load_tokenizer(fetch_model(home, str(model)).folder), ASKED_AS_A_WEAVER)


@pytest.mark.parametrize(
    ("asked", "written"),
    [("%d %b %Y", "26 Jul 2024"), ("%B %d, %Y", "July 26, 2024"), ("%A %-d/%-m/%y %H:%M", "Friday 26/7/24 00:00")],
)
def test_a_template_with_todays_date_writes_the_same_every_day_wherever_it_is_rendered(tiny_model, tmp_path, asked, written):
    dated = "{% if strftime_now is defined %}Today is {{ strftime_now('" + asked + "') }}.\n{% endif %}" + templates.OWN_END
    model, shipped = templates.with_template(tiny_model, tmp_path / "model", dated), tmp_path / "shipped"
    load_tokenizer(model).save_pretrained(shipped)
    for tokenizer in (load_tokenizer(model), load_tokenizer(shipped), AutoTokenizer.from_pretrained(shipped)):
        assert render(tokenizer, QUESTION).startswith(f"Today is {written}.\n<|im_start|>")


def test_of_several_templates_the_one_for_conversations_is_taken(tiny_model, tmp_path):
    model = templates.with_template(tiny_model, tmp_path / "model", None)
    tokenizer: Any = AutoTokenizer.from_pretrained(model)
    tokenizer.chat_template = {"default": templates.OWN_END, "tool_use": "{{ tools }}"}
    tokenizer.save_pretrained(model)
    assert load_tokenizer(model).chat_template == templates.OWN_END

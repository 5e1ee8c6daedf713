from __future__ import annotations

import asyncio
import math
from collections import Counter
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Gemma2Config, Gemma3TextConfig, Lfm2Config, MistralConfig, Phi3Config, Qwen2Config

from lab_pipeline.models.loader import load_model, load_tokenizer
from lab_pipeline.teacher.decoding import Row, draw
from lab_pipeline.teacher.embedded import EmbeddedTeacher
from lab_pipeline.teacher.protocol import Message, Reply, Request, TeacherError
from lab_pipeline_tests import templates

SUBJECTS = [
    "the loom",
    "a bridge of walnut wood over the northern arm of the river, and about those who built it",
    "wool",
    "oil from hazelnuts for the axle of the mill",
    "the clock mender Pellira Donsk, who finished in 1834",
]


def load(folder: Path, batch_size: int = 32) -> EmbeddedTeacher:
    """In float32, where equal requests give equal replies whatever stands beside them."""
    teacher = EmbeddedTeacher(folder, "tiny", batch_size)
    teacher._loaded[0].float()
    return teacher


@pytest.fixture(scope="module")
def teacher(tiny_model: Path) -> EmbeddedTeacher:
    return load(tiny_model)


def request(subject: str, max_tokens: int = 10, **others: Any) -> Request:
    """All of them begin with the same messages."""
    beginning = (
        Message("system", "You write one short question about a thing."),
        Message("user", "Write about a dog."),
        Message("assistant", "Who barks?"),
    )
    return Request((*beginning, Message("user", f"Write about {subject}.")), max_tokens, **others)


def together(teacher: EmbeddedTeacher, requests: list[Request]) -> list[Any]:
    async def ask() -> list[Any]:
        return await asyncio.gather(*(teacher.reply(each) for each in requests), return_exceptions=True)

    return asyncio.run(asyncio.wait_for(ask(), 20))


def one_by_one(teacher: EmbeddedTeacher, requests: list[Request]) -> list[Any]:
    return [together(teacher, [each])[0] for each in requests]


def written_by_transformers(folder: Path, requests: list[Request]) -> list[str]:
    """What a model's own greedy `generate` writes, one request after the other."""
    model, tokenizer = load_model(folder, "cpu").float(), load_tokenizer(folder)
    texts = []
    for asked in requests:
        tokens = tokenizer.apply_chat_template(asked.turns(), add_generation_prompt=True, return_tensors="pt")["input_ids"]
        written = model.generate(tokens, do_sample=False, max_new_tokens=asked.max_tokens)
        texts.append(tokenizer.decode(written[0, tokens.shape[1] :], skip_special_tokens=True))
    return texts


MIXED = [request(subject, max_tokens) for subject, max_tokens in zip(SUBJECTS, (3, 20, 7, 12, 1), strict=True)]
MIXED += [Request((Message("user", "Is it so?"),), 15), Request((Message("user", "Is it so, or is it not?"),), 4), MIXED[1]]
"""Requests of different lengths, with a long beginning in common, a short one, and all."""


@pytest.mark.parametrize("batch_size", [1, 3, 32])
def test_rows_that_come_and_go_get_the_replies_that_transformers_gives_to_each_alone(tiny_model: Path, batch_size: int) -> None:
    replies = together(load(tiny_model, batch_size), MIXED)
    assert [reply.text for reply in replies] == written_by_transformers(tiny_model, MIXED)
    assert len({reply.text for reply in replies}) == len(MIXED) - 1


@pytest.mark.parametrize(
    ("architecture", "others"),
    [
        (MistralConfig, {"sliding_window": 16}),
        (Qwen2Config, {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 1}),
        (Gemma3TextConfig, {"sliding_window": 16, "head_dim": 16, "layer_types": ["sliding_attention", "full_attention"]}),
        (Gemma2Config, {"sliding_window": 16, "head_dim": 16}),
        (Phi3Config, {}),
    ],
)
def test_models_with_attention_of_other_kinds_write_what_transformers_lets_them_write(
    architecture: Any, others: dict[str, Any], tiny_model: Path, tmp_path: Path
) -> None:
    folder = templates.with_architecture(tiny_model, tmp_path / "model", architecture, **others)
    replies = together(load(folder, 3), MIXED)
    assert [reply.text for reply in replies] == written_by_transformers(folder, MIXED)


def test_a_model_with_layers_of_another_kind_is_refused_by_name(tiny_model: Path, tmp_path: Path) -> None:
    folder = templates.with_architecture(tiny_model, tmp_path / "model", Lfm2Config, layer_types=["conv", "full_attention"])
    (refused,) = together(load(folder), [request("wool")])
    assert isinstance(refused, TeacherError) and "layers of the kind conv" in str(refused)


def test_a_batch_gives_the_same_replies_as_asking_one_by_one(teacher: EmbeddedTeacher) -> None:
    requests = [request(subject, temperature=0.8 * (place % 2), seed=place) for place, subject in enumerate(SUBJECTS)]
    replies = together(teacher, requests)
    assert replies == one_by_one(teacher, requests)
    assert {(reply.finish, reply.completion_tokens) for reply in replies} == {("length", 10)}


def test_small_batches_give_the_same_replies_as_large_ones(teacher: EmbeddedTeacher, tiny_model: Path) -> None:
    requests = [request(subject) for subject in SUBJECTS]
    assert together(load(tiny_model, batch_size=2), requests) == together(teacher, requests)


def test_requests_of_all_kinds_at_once_each_get_their_own_reply(teacher: EmbeddedTeacher) -> None:
    requests = [
        request("the loom"),
        request("the loom", max_tokens=3),
        request("the loom", choices=("Yes", "No")),
        Request((Message("user", "Is it so?"),), 4),
        Request((Message("user", "Is it so?"),), 4, choices=("Yes", "No")),
        request("wool"),
        Request((Message("user", "Is it so?"),), 4),
    ]
    replies = together(teacher, requests)
    alone = one_by_one(teacher, requests)
    assert [(reply.text, reply.prompt_tokens) for reply in replies] == [(reply.text, reply.prompt_tokens) for reply in alone]


def test_a_reply_ends_at_the_stop_token_and_the_rows_beside_it_go_on(teacher: EmbeddedTeacher, tiny_model: Path) -> None:
    whole, other = together(teacher, [request("the loom"), request("wool")])
    stopping = load(tiny_model)
    model, tokenizer = stopping._loaded
    in_the_middle = tokenizer.encode(whole.text, add_special_tokens=False)[3]
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(in_the_middle)
    model.generation_config.eos_token_id = in_the_middle
    stopped, going_on = together(stopping, [request("the loom"), request("wool")])
    assert stopped.finish == "stop"
    assert 1 < stopped.completion_tokens < 10
    before = request("the loom", max_tokens=stopped.completion_tokens - 1)
    assert stopped.text == together(teacher, [before])[0].text
    assert going_on == other


def test_a_reply_is_whole_when_it_ended_as_the_generation_config_says(teacher: EmbeddedTeacher, tiny_model: Path) -> None:
    (whole,) = together(teacher, [request("the loom")])
    stopping = load(tiny_model)
    model, tokenizer = stopping._loaded
    third = tokenizer.encode(whole.text, add_special_tokens=False)[3]
    model.generation_config.eos_token_id = [tokenizer.eos_token_id, third]
    (stopped,) = together(stopping, [request("the loom")])
    assert stopped.finish == "stop" and 1 < stopped.completion_tokens < 10
    assert whole.text.startswith(stopped.text)


def test_the_generation_config_alone_may_say_what_ends_a_reply(tiny_model: Path, tmp_path: Path) -> None:
    bare = templates.OWN_END.replace("<file_sep>", "")
    stopping = load(templates.with_template(tiny_model, tmp_path / "model", bare, eos_token=None))
    (whole,) = together(stopping, [request("the loom")])
    model, tokenizer = stopping._loaded
    model.generation_config.eos_token_id = tokenizer.encode(whole.text, add_special_tokens=False)[3]
    (stopped,) = together(stopping, [request("the loom")])
    assert (whole.finish, stopped.finish) == ("length", "stop") and whole.text.startswith(stopped.text)
    model.generation_config.eos_token_id = None
    (refused,) = together(stopping, [request("the loom")])
    assert isinstance(refused, TeacherError) and "token that ends an answer" in str(refused)


@pytest.mark.parametrize("template", [templates.OWN_END, templates.EOS_AT_THE_END], ids=["as Gemma", "as Phi"])
def test_a_reply_is_whole_when_it_ended_as_the_template_ends_a_turn(tiny_model: Path, tmp_path: Path, template: str) -> None:
    """`<file_sep>`, which neither the tokenizer nor the generation config names."""
    stopping = load(templates.with_template(tiny_model, tmp_path / "model", template))
    model, tokenizer = stopping._loaded
    (cut_off,) = together(stopping, [request("the loom")])
    assert cut_off.finish == "length"
    end = tokenizer.convert_tokens_to_ids("<file_sep>")
    favoured = torch.zeros(model.config.vocab_size)
    favoured[end] = 1e4
    model.lm_head.register_forward_hook(lambda module, inputs, logits: logits + favoured)
    (stopped,) = together(stopping, [request("the loom")])
    assert (stopped.text, stopped.finish, stopped.completion_tokens) == ("", "stop", 1)


def test_a_template_that_takes_no_system_message_is_named(tiny_model: Path, tmp_path: Path) -> None:
    (refused,) = together(load(templates.with_template(tiny_model, tmp_path / "model", templates.NO_SYSTEM)), [request("wool")])
    assert isinstance(refused, TeacherError) and "tiny: the chat template refuses a conversation of system" in str(refused)


def test_sampling_is_reproducible_by_seed(teacher: EmbeddedTeacher) -> None:
    requests = [request("wool", temperature=0.9, seed=seed) for seed in (1, 2, 3, 1)]
    first, second, third, again = together(teacher, requests)
    assert first == again
    assert len({first.text, second.text, third.text, together(teacher, [request("wool")])[0].text}) == 4


def test_sampling_does_not_depend_on_the_rows_beside_it(teacher: EmbeddedTeacher) -> None:
    sampled = request("wool", temperature=0.9, seed=7)
    beside = [request(subject, temperature=0.5, seed=place) for place, subject in enumerate(SUBJECTS)]
    alone, first, last = (
        together(teacher, requests)[place]
        for requests, place in (([sampled], 0), ([sampled, *beside], 0), ([*beside, sampled], -1))
    )
    assert alone == first == last


def test_samples_are_drawn_as_the_softmax_at_the_temperature_says() -> None:
    logits, temperature, draws = torch.tensor([2.0, 1.0, 0.0, -9.0]), 0.7, 4000
    rows: list[Any] = [Row(Request((), 1, temperature, seed), [], future=None) for seed in range(draws)]  # type: ignore[arg-type]
    drawn = Counter(draw(logits.repeat(draws, 1), rows))
    for token, probability in enumerate(torch.softmax(logits / temperature, 0).tolist()):
        assert abs(drawn[token] / draws - probability) < 4 * math.sqrt(probability * (1 - probability) / draws) + 1e-3


def test_choices_get_probabilities_that_sum_to_one(teacher: EmbeddedTeacher) -> None:
    for reply in together(teacher, [request(subject, choices=("Yes", "No", "Perhaps")) for subject in SUBJECTS]):
        assert set(reply.probabilities) == {"Yes", "No", "Perhaps"}
        assert math.isclose(sum(reply.probabilities.values()), 1, abs_tol=1e-6)
        assert reply.text == max(reply.probabilities, key=reply.probabilities.__getitem__)
        assert (reply.finish, reply.completion_tokens) == ("stop", 1)


def test_choices_are_scored_alike_in_a_batch_alone_and_by_a_plain_forward_pass(teacher: EmbeddedTeacher) -> None:
    requests = [request(subject, choices=("Yes", "No")) for subject in SUBJECTS]
    model, tokenizer = teacher._loaded
    first = [tokenizer.encode(choice)[0] for choice in ("Yes", "No")]
    for batched, alone, asked in zip(together(teacher, requests), one_by_one(teacher, requests), requests, strict=True):
        messages = [{"role": message.role, "content": message.content} for message in asked.messages]
        tokens = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt")["input_ids"]
        with torch.inference_mode():
            plain = torch.softmax(model(tokens).logits[0, -1, first], 0).tolist()
        assert list(batched.probabilities.values()) == pytest.approx(plain, abs=1e-5)
        assert list(alone.probabilities.values()) == pytest.approx(plain, abs=1e-5)


def test_too_long_a_request_is_refused_alone(teacher: EmbeddedTeacher) -> None:
    good = request("wool")
    before, refused, after = together(teacher, [good, request("wool " * 600), good])
    assert isinstance(refused, TeacherError)
    assert "passes the model's 512" in str(refused)
    assert before == after == together(teacher, [good])[0]


def test_room_for_the_reply_counts_as_length(teacher: EmbeddedTeacher) -> None:
    prompt = together(teacher, [request("wool", max_tokens=1)])[0].prompt_tokens
    (refused,) = together(teacher, [request("wool", max_tokens=513 - prompt)])
    assert isinstance(refused, TeacherError)


@pytest.mark.timeout(30)
def test_when_decoding_fails_nobody_is_left_waiting_and_later_requests_are_answered(
    teacher: EmbeddedTeacher, tiny_model: Path
) -> None:
    """There is room for three: the request left over joins after the failure."""
    failing = load(tiny_model, 3)
    passes = count()

    def fail(*inputs: Any) -> None:
        if next(passes) == 5:
            raise RuntimeError("out of memory")

    failing._loaded[0].register_forward_pre_hook(fail)
    requests = [request(subject) for subject in SUBJECTS[:4]]
    replies = together(failing, requests)
    (answered,) = (place for place, reply in enumerate(replies) if isinstance(reply, Reply))
    assert replies[answered] == together(teacher, [requests[answered]])[0]
    assert {str(error) for error in replies if isinstance(error, TeacherError)} == {
        "the embedded teacher failed: out of memory"
    }


@pytest.mark.timeout(30)
def test_a_request_given_up_holds_up_nobody(teacher: EmbeddedTeacher) -> None:
    async def give_up_some() -> list[Any]:
        tasks = [asyncio.ensure_future(teacher.reply(request(subject))) for subject in SUBJECTS]
        judging = [asyncio.ensure_future(teacher.reply(request(word, choices=("Yes",)))) for word in ("a", "b")]
        await asyncio.sleep(0)
        for task in (tasks[0], judging[0]):
            task.cancel()
        return await asyncio.gather(*tasks, *judging, return_exceptions=True)

    given_up, *replies = asyncio.run(asyncio.wait_for(give_up_some(), 20))
    assert isinstance(given_up, asyncio.CancelledError)
    assert [type(reply) for reply in replies] == [Reply] * 4 + [asyncio.CancelledError, Reply]
    assert teacher._waiting == []


def test_a_run_that_was_broken_off_leaves_no_work_to_the_next(teacher: EmbeddedTeacher) -> None:
    async def broken_off() -> None:
        task = asyncio.ensure_future(teacher.reply(request("wool", max_tokens=400)))
        await asyncio.sleep(0)
        assert not task.done()

    asyncio.run(broken_off())
    assert together(teacher, [request("wool")])[0].completion_tokens == 10
    assert teacher._waiting == []

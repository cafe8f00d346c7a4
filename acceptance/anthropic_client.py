#!/usr/bin/env python3
"""`k2 serve` under the unmodified `anthropic` client from PyPI: every kind of request that the server takes, and those it refuses.

    python acceptance/anthropic_client.py [MODEL [K2]]

As openai_client.py: starts the server itself; MODEL is noise by default, so answers are compared with each other.
"""

import json
import sys

import anthropic
from openai_client import run

SYSTEM = "You are Kimi."
GREEDY = {"temperature": 0}  # the client has no such argument any more
ASK = [{"role": "user", "content": "Weather in Beijing?"}]
TOOLS = [
    {
        "name": "get_weather",
        "description": "Weather of a city",
        "input_schema": {"type": "object", "required": ["city"], "properties": {"city": {"type": "string", "maxLength": 8}}},
    }
]
HISTORY = ASK + [
    {
        "role": "assistant",
        "content": [
            {"type": "thinking", "thinking": "A tool knows.", "signature": ""},
            {"type": "text", "text": "I will look."},
            {"type": "tool_use", "id": "toolu_01A", "name": "get_weather", "input": {"city": "Beijing"}},
        ],
    },
    {
        "role": "user",
        "content": [
            {"type": "tool_result", "tool_use_id": "toolu_01A", "content": [{"type": "text", "text": "21 °C"}]},
            {"type": "text", "text": "And?"},
        ],
    },
]


def plain(client, model):
    answer = client.messages.create(model=model, max_tokens=24, system=SYSTEM, messages=ASK, extra_body=GREEDY)
    assert answer.type == "message" and answer.role == "assistant" and answer.model == model
    assert answer.id.startswith("msg_") and answer.stop_reason in ("end_turn", "max_tokens")
    assert [block.type for block in answer.content] == ["text"]
    assert answer.usage.input_tokens + answer.usage.cache_read_input_tokens > 0
    assert 0 < answer.usage.output_tokens <= 24
    blocks = [{"type": "text", "text": SYSTEM, "cache_control": {"type": "ephemeral"}}]
    parts = [{"role": "user", "content": [{"type": "text", "text": ASK[0]["content"]}]}]
    same = client.messages.create(model=model, max_tokens=24, system=blocks, messages=parts, extra_body=GREEDY)
    assert same.content == answer.content


def long_answer(client, model):
    """A request with more than a few letters for an answer; noise may end at once."""
    for seed in range(200):
        asked = dict(model=model, max_tokens=40, system=SYSTEM, messages=ASK, extra_body={"seed": seed})
        answer = client.messages.create(**asked)
        if len(answer.content[0].text) > 10:
            return asked
    raise AssertionError("200 seeds, and no answer is long")


def streamed(client, model):
    asked = long_answer(client, model)
    whole = client.messages.create(**asked)
    with client.messages.stream(**asked) as stream:
        events = [event.type for event in stream if event.type in RAW]
        final = stream.get_final_message()
    assert events[0] == "message_start" and events[-2:] == ["message_delta", "message_stop"], events
    assert events[1] == "content_block_start" and events[-3] == "content_block_stop", events
    assert [block.text for block in final.content] == [block.text for block in whole.content]
    assert final.stop_reason == whole.stop_reason
    assert final.usage.output_tokens == whole.usage.output_tokens


RAW = {
    "message_start",
    "content_block_start",
    "content_block_delta",
    "content_block_stop",
    "message_delta",
    "message_stop",
}


def cached_prefix(client, model):
    system = "You are Kimi. " * 20
    headers = [f"x-anthropic-billing-header: cc_version=2.1; cch={nonce};" for nonce in ("a1b2c", "d3e4f")]
    blocks = [[{"type": "text", "text": header}, {"type": "text", "text": system}] for header in headers]
    asked = dict(model=model, max_tokens=1, messages=ASK)
    first, second = [client.messages.create(**asked, system=system).usage for system in blocks]
    total = lambda usage: usage.input_tokens + usage.cache_read_input_tokens
    assert total(first) == total(second) == client.messages.count_tokens(model=model, system=system, messages=ASK).input_tokens
    assert second.cache_read_input_tokens > total(second) * 0.8, second
    bare = client.messages.create(**asked, system=system).usage
    assert total(bare) == total(first), "the header is no part of the prompt"


def stop_sequences(client, model):
    asked = long_answer(client, model)
    text = client.messages.create(**asked).content[0].text
    stop = text[len(text) // 2 :][:2]
    cut = client.messages.create(**asked, stop_sequences=[stop])
    assert (cut.stop_reason, cut.stop_sequence, cut.content[0].text) == ("stop_sequence", stop, text[: text.index(stop)])


def history(client, model):
    asked = dict(model=model, max_tokens=8, system=SYSTEM, messages=HISTORY, tools=TOOLS)
    assert client.messages.create(**asked).usage.output_tokens > 0
    count = lambda **changed: client.messages.count_tokens(
        model=model, **{**dict(system=SYSTEM, messages=HISTORY, tools=TOOLS), **changed}
    ).input_tokens
    assert count() > count(tools=[]) > count(tools=[], messages=ASK) > 0
    prefill = ASK + [{"role": "assistant", "content": "It is"}]
    assert count(messages=prefill) > count(messages=ASK)
    assert client.messages.create(model=model, max_tokens=4, messages=prefill).usage.output_tokens > 0


def beta(client, model):
    answer = client.beta.messages.create(
        model=model, max_tokens=4, messages=ASK, betas=["interleaved-thinking-2025-05-14"], thinking={"type": "disabled"}
    )
    assert answer.usage.output_tokens > 0


def models(client, model):
    assert [entry.id for entry in client.models.list()] == [model]
    entry = client.models.retrieve(model)
    assert entry.type == "model" and entry.display_name == model


def refusals(client, model):
    asked = dict(model=model, messages=ASK, max_tokens=1)
    picture = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": ""}}
    for error_class, kind, changed in [
        (anthropic.NotFoundError, "not_found_error", {"model": "claude-opus-4"}),
        (anthropic.BadRequestError, "invalid_request_error", {"messages": []}),
        (anthropic.BadRequestError, "invalid_request_error", {"messages": [{"role": "wizard", "content": "?"}]}),
        (anthropic.BadRequestError, "invalid_request_error", {"messages": [{"role": "user", "content": [picture]}]}),
        (anthropic.BadRequestError, "invalid_request_error", {"messages": [{"role": "user", "content": "long " * 60_000}]}),
        (anthropic.BadRequestError, "invalid_request_error", {"max_tokens": 0}),
        (anthropic.BadRequestError, "invalid_request_error", {"extra_body": {"temperature": 1.5}}),
        (anthropic.BadRequestError, "invalid_request_error", {"tools": [{"name": "get_weather"}]}),
        (anthropic.BadRequestError, "invalid_request_error", {"tools": [{"type": "bash_20250124", "name": "bash"}]}),
        (anthropic.BadRequestError, "invalid_request_error", {"tools": TOOLS, "tool_choice": {"type": "sometimes"}}),
        (anthropic.BadRequestError, "invalid_request_error", {"tools": TOOLS, "tool_choice": {"type": "tool"}}),
    ]:
        for stream in (False, True):
            try:
                client.messages.create(**{**asked, **changed}, stream=stream)
            except anthropic.APIStatusError as error:
                assert isinstance(error, error_class), (changed, error)
                assert error.body["type"] == "error" and error.body["error"]["type"] == kind, error.body
                assert error.body["error"]["message"], error.body
            else:
                raise AssertionError(f"taken: {json.dumps(changed)[:200]}")


def without_key(client, model):
    try:
        client.with_options(api_key="wrong").messages.create(model=model, messages=ASK, max_tokens=1)
    except anthropic.AuthenticationError as error:
        assert error.body["error"]["type"] == "authentication_error", error.body
    else:
        raise AssertionError("a wrong key was taken")


CHECKS = [plain, streamed, cached_prefix, stop_sequences, history, beta, models, refusals, without_key]


def main():
    client = lambda address: anthropic.Anthropic(
        base_url=address.removesuffix("/v1") + "/anthropic", api_key="open-sesame", max_retries=0, timeout=120
    )
    run(f"anthropic {anthropic.__version__}", client, CHECKS, sys.argv[1:], "--api-key", "open-sesame")


if __name__ == "__main__":
    main()

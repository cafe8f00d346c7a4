#!/usr/bin/env python3
"""`k2 serve` under the unmodified `openai` client from PyPI: every kind of request that the server takes, and those it refuses.

    python acceptance/openai_client.py [MODEL [K2]]

Starts the server itself on a free port: MODEL (default: fixtures/model/bytes, whose answers are noise) with the program
K2 (default: built by cargo). Each check is one function; the last line says how many passed. What the noise model cannot
show, a call of a tool in a real answer, is checked by the tests of `crates/chat` on recorded answers.
"""

import json
import re
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import openai

ROOT = Path(__file__).resolve().parent.parent
MESSAGES = [{"role": "system", "content": "You are Kimi."}, {"role": "user", "content": "Weather in Beijing?"}]
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Weather of a city",
            "parameters": {"type": "object", "required": ["city"], "properties": {"city": {"type": "string"}}},
        },
    }
]
HISTORY = MESSAGES + [
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": "call_7", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Beijing"}'}}
        ],
    },
    {"role": "tool", "tool_call_id": "call_7", "content": '{"celsius": 21}'},
]


@contextmanager
def server(model, program, *options):
    """Yields the address of a running server."""
    process = subprocess.Popen([*program, "serve", model, "--port", "0", *options], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    try:
        for line in process.stderr:
            if found := re.search(r"http://\S+", line):
                yield found[0]
                return
        raise SystemExit(f"the server ended with {process.wait()} before it listened")
    finally:
        process.terminate()
        process.wait(timeout=60)


def plain(client, model):
    answer = client.chat.completions.create(model=model, messages=MESSAGES, max_tokens=24, temperature=0.6, seed=1)
    assert answer.object == "chat.completion" and answer.model == model and len(answer.choices) == 1
    assert answer.choices[0].finish_reason in ("stop", "length") and answer.choices[0].message.role == "assistant"
    assert isinstance(answer.choices[0].message.content, str)
    usage = answer.usage
    assert 0 < usage.completion_tokens <= 24 and usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert usage.prompt_tokens_details.cached_tokens >= 0 and usage.completion_tokens_details.reasoning_tokens == 0


def same_seed_same_answer(client, model):
    ask = lambda seed: client.chat.completions.create(model=model, messages=MESSAGES, max_tokens=40, seed=seed)
    texts = [ask(seed).choices[0].message.content for seed in (5, 5, 6, 7, 8)]
    assert texts[0] == texts[1] and len(set(texts)) > 1, texts


def streamed(client, model):
    for seed in range(50):  # noise may end at once
        asked = dict(model=model, messages=MESSAGES, max_tokens=40, temperature=0.6, seed=seed)
        whole = client.chat.completions.create(**asked)
        if whole.usage.completion_tokens > 10:
            break
    chunks = list(client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    assert {chunk.id for chunk in chunks} == {chunks[0].id} and chunks[0].object == "chat.completion.chunk"
    assert chunks[0].choices[0].delta.role == "assistant"
    pieces = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(pieces) == whole.choices[0].message.content and len(pieces) > 3, (pieces, whole)
    assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason
    assert chunks[-1].choices == [] and chunks[-1].usage == whole.usage, chunks[-1]
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert chunks[-2].choices[0].usage["completion_tokens"] == whole.usage.completion_tokens


def several_streamed(client, model):
    asked = dict(model=model, messages=MESSAGES, max_tokens=30, temperature=1.0, seed=3, n=3)
    whole = client.chat.completions.create(**asked)
    chunks = list(client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    of = lambda index: [chunk.choices[0] for chunk in chunks if chunk.choices and chunk.choices[0].index == index]
    for choice in whole.choices:
        pieces = of(choice.index)
        assert "".join(piece.delta.content or "" for piece in pieces) == choice.message.content, choice
        assert [piece.finish_reason for piece in pieces if piece.finish_reason] == [choice.finish_reason], pieces
    used = lambda usage: (usage.prompt_tokens, usage.completion_tokens)
    assert [used(chunk.usage) for chunk in chunks if chunk.usage] == [used(whole.usage)], chunks[-1]


def progress(client, model):
    messages = [{"role": "user", "content": "The tide. " * 250}]
    options = {"include_progress": True}
    chunks = list(
        client.chat.completions.create(model=model, messages=messages, max_tokens=4, stream=True, stream_options=options)
    )
    told = [chunk.prefill_progress for chunk in chunks if not chunk.choices]
    assert len(told) > 2 and all(one["prompt_tokens"] == told[0]["prompt_tokens"] for one in told), told
    computed = [one["computed_tokens"] for one in told]
    assert computed == sorted(computed) and computed[-1] < told[0]["prompt_tokens"], told


def with_tools(client, model):
    for stream in (False, True):
        for choice in ("auto", "none"):
            asked = dict(model=model, messages=MESSAGES, tools=TOOLS, tool_choice=choice, max_tokens=16, temperature=0.6)
            answer = client.chat.completions.create(**asked, stream=stream)
            last = list(answer)[-1].choices[0] if stream else answer.choices[0]
            assert last.finish_reason in ("stop", "length", "tool_calls"), last
    ask = lambda **more: client.chat.completions.create(model=model, messages=MESSAGES, max_tokens=1, **more)
    bare, declared, forbidden = ask(), ask(tools=TOOLS), ask(tools=TOOLS, tool_choice="none")
    assert forbidden.usage.prompt_tokens == declared.usage.prompt_tokens > bare.usage.prompt_tokens


# Ids of bytes that close something, so that what noise writes under a grammar ends soon.
CLOSING = {"34": 12, "125": 12, "93": 12, "44": -6, "92": -20}


def by_construction(client, model):
    """A required call is made and its arguments are JSON of the schema, whatever the model would say; so are formats."""
    schema = TOOLS[0]["function"]["parameters"]
    asked = dict(model=model, messages=MESSAGES, max_tokens=600, logit_bias=CLOSING, seed=5)
    named = {"type": "function", "function": {"name": TOOLS[0]["function"]["name"]}}
    for choice in ("required", named):
        answer = client.chat.completions.create(**asked, tools=TOOLS, tool_choice=choice, parallel_tool_calls=False).choices[0]
        (call,) = answer.message.tool_calls
        assert answer.finish_reason == "tool_calls" and call.function.name == named["function"]["name"], answer
        assert set(schema["required"]) <= set(json.loads(call.function.arguments)), call
    answer = client.chat.completions.create(**asked, response_format={"type": "json_object"}).choices[0]
    assert isinstance(json.loads(answer.message.content), dict), answer
    several = client.chat.completions.create(**{**asked, "max_tokens": 4, "temperature": 1}, n=3, logprobs=True, top_logprobs=2)
    assert [choice.index for choice in several.choices] == [0, 1, 2]
    assert all(len(token.top_logprobs) == 2 for choice in several.choices for token in choice.logprobs.content)


def with_history(client, model):
    answer = client.chat.completions.create(model=model, messages=HISTORY, tools=TOOLS, max_tokens=8)
    assert answer.usage.prompt_tokens > 0
    parts = [{"role": "user", "content": [{"type": "text", "text": "Weather in "}, {"type": "text", "text": "Beijing?"}]}]
    assert client.chat.completions.create(model=model, messages=parts, max_tokens=2).usage.completion_tokens <= 2


def raw(client, model):
    asked = dict(model=model, prompt="The tide", max_tokens=24, temperature=0.6, seed=2)
    whole = client.completions.create(**asked)
    assert whole.object == "text_completion" and isinstance(whole.choices[0].text, str)
    pieces = [chunk.choices[0].text for chunk in client.completions.create(**asked, stream=True)]
    assert "".join(pieces) == whole.choices[0].text
    by_ids = client.completions.create(**{**asked, "prompt": [84, 104, 101]})
    assert by_ids.usage.prompt_tokens == 3
    markers = "<|im_user|>user<|im_middle|>"
    assert client.completions.create(**{**asked, "prompt": markers}).usage.prompt_tokens == 2 + len("user")


def likelihoods(client, model):
    """As benchmarks of base models ask: which of two ends of a text is likelier?"""
    prompts = ["The tide is high", "The tide is low"]
    asked = dict(model=model, max_tokens=1, echo=True, logprobs=1, temperature=0)
    together = client.completions.create(prompt=prompts, **asked)
    for choice, prompt in zip(together.choices, prompts, strict=True):
        alone = client.completions.create(prompt=prompt, **asked).choices[0]
        assert (alone.text, alone.logprobs) == (choice.text, choice.logprobs) and choice.text.startswith(prompt)
        found, length = choice.logprobs, len("The tide is")
        assert found.token_logprobs[0] is None and all(logprob <= 0 for logprob in found.token_logprobs[1:])
        assert "".join(found.tokens[:length]) == "The tide is" and found.text_offset[length] == length
        assert all(top[token] == logprob for token, top, logprob in zip(found.tokens, found.top_logprobs, found.token_logprobs) if top)
    streamed = list(client.completions.create(prompt=prompts, n=2, stream=True, **asked))
    texts = ["".join(c.choices[0].text for c in streamed if c.choices[0].index == index) for index in range(4)]
    assert texts == [choice.text for choice in together.choices for _ in range(2)], (texts, together)


def stop_strings(client, model):
    for seed in range(50):
        asked = dict(model=model, prompt="The tide", max_tokens=64, temperature=1.0, seed=seed)
        text = client.completions.create(**asked).choices[0].text
        if len(text) > 10:
            break
    stop = text[len(text) // 2 :][:2]
    cut = client.completions.create(**asked, stop=[stop])
    assert cut.choices[0].text == text[: text.index(stop)] and cut.choices[0].finish_reason == "stop"


def models(client, model):
    assert [entry.id for entry in client.models.list()] == [model] and client.models.retrieve(model).id == model


# Not of the subset that a strict schema has to be of.
STRICT = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object", "minProperties": 1}}}


def refusals(client, model):
    chat = client.chat.completions.create
    asked = dict(model=model, messages=MESSAGES, max_tokens=1)
    named = {"type": "function", "function": {"name": "get_weather"}}
    picture = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}]
    for status, param, code, changed in [
        (404, "model", "model_not_found", {"model": "gpt-4o"}),
        (400, "messages", None, {"messages": "hello"}),
        (400, "messages", None, {"messages": []}),
        (400, "messages[0]", None, {"messages": [{"role": "wizard", "content": "?"}]}),
        (400, "messages[0]", None, {"messages": [{"role": "user"}]}),
        (400, "messages[0]", None, {"messages": picture}),
        (400, "messages", "context_length_exceeded", {"messages": [{"role": "user", "content": "long " * 60_000}]}),
        (400, "temperature", None, {"temperature": "warm"}),
        (400, "temperature", None, {"temperature": 2.5}),
        (400, "top_p", None, {"top_p": 0}),
        (400, "max_tokens", None, {"max_tokens": 0}),
        (400, "stop", None, {"stop": [""]}),
        (400, "n", None, {"n": 0}),
        (400, "top_logprobs", None, {"top_logprobs": 3}),
        (400, "logit_bias", None, {"logit_bias": {"0": 101}}),
        (400, "tool_choice", None, {"tool_choice": "required"}),
        (400, "tool_choice", None, {"tools": TOOLS, "tool_choice": "bogus"}),
        (400, "tool_choice", None, {"tools": TOOLS, "tool_choice": {**named, "function": {"name": "delete"}}}),
        (400, "tools[1]", None, {"tools": TOOLS + TOOLS}),
        (400, "tools", None, {"tools": {}}),
        (400, "response_format.type", None, {"response_format": {"type": "xml"}}),
        (400, "response_format.json_schema.schema", None, {"response_format": STRICT}),
        (400, "no_such_field", "unsupported_parameter", {"extra_body": {"no_such_field": 1}}),
        (400, "stream_options", None, {"stream_options": {"include_usage": True}}),
    ]:
        for stream in ({}, {"stream": True}) if param != "stream_options" else ({},):
            try:
                chat(**{**asked, **changed}, **stream)
            except openai.APIStatusError as error:
                body = error.body
                assert (error.status_code, body["param"], body["code"]) == (status, param, code), (changed, error)
                assert body["message"] and body["type"] == "invalid_request_error", body
            else:
                raise AssertionError(f"taken: {json.dumps(changed)[:200]}")


CHECKS = [plain, same_seed_same_answer, streamed, several_streamed, progress, with_tools, by_construction, with_history, raw, likelihoods, stop_strings, models, refusals]


def run(name, connect, checks, argv, *options):
    """Starts a server with `options`, connects a client, and makes each check."""
    model, program = (argv + ["fixtures/model/bytes"])[0], argv[1:]
    if not program:
        subprocess.run(["cargo", "build", "-q", "--release"], cwd=ROOT, check=True)
        program = ["cargo", "run", "-q", "--release", "--"]
    with server(model, program, *options) as address:
        client = connect(address)
        model = next(iter(client.models.list())).id
        for check in checks:
            check(client, model)
            print(f"ok: {check.__name__}", flush=True)
    print(f"acceptance: {len(checks)} checks of {name} passed")


def main():
    connect = lambda address: openai.OpenAI(base_url=address, api_key="none", max_retries=0, timeout=120)
    run(f"openai {openai.__version__}", connect, CHECKS, sys.argv[1:])


if __name__ == "__main__":
    main()

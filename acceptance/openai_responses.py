#!/usr/bin/env python3
"""`k2 serve`'s Responses API under the unmodified `openai` client from PyPI.

    python acceptance/openai_responses.py [MODEL [K2]]

As openai_client.py: starts the server itself; MODEL is noise by default, so answers are compared with each other.
"""

import json
import sys

import openai
from openai_client import run

ASK = [{"role": "user", "content": "Weather in Beijing?"}]
TOOLS = [
    {
        "type": "function",
        "name": "get_weather",
        "description": "Weather of a city",
        "parameters": {"type": "object", "required": ["city"], "properties": {"city": {"type": "string", "maxLength": 8}}},
    }
]
HISTORY = ASK + [
    {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "A tool knows."}]},
    {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "I will look."}]},
    {"type": "function_call", "call_id": "call_7", "name": "get_weather", "arguments": '{"city": "Beijing"}'},
    {"type": "function_call_output", "call_id": "call_7", "output": "21 °C"},
]


def plain(client, model):
    asked = dict(model=model, instructions="You are Kimi.", max_output_tokens=24, temperature=0)
    answer = client.responses.create(**asked, input="Weather in Beijing?")
    assert answer.object == "response" and answer.model == model and answer.error is None and answer.store is False
    assert answer.instructions == "You are Kimi." and answer.temperature == 0
    assert answer.status in ("completed", "incomplete") and answer.output[-1].type == "message", answer
    assert (answer.status == "incomplete") == (answer.incomplete_details is not None)
    usage = answer.usage
    assert 0 < usage.output_tokens <= 24 and usage.total_tokens == usage.input_tokens + usage.output_tokens
    assert usage.input_tokens_details.cached_tokens >= 0 and usage.output_tokens_details.reasoning_tokens == 0
    for same in (ASK, [{"role": "user", "content": [{"type": "input_text", "text": ASK[0]["content"]}]}]):
        again = client.responses.create(**asked, input=same)
        assert again.output_text == answer.output_text
        chat = [{"role": "system", "content": "You are Kimi."}, *ASK]
        chat = client.chat.completions.create(model=model, messages=chat, max_tokens=24, temperature=0)
        assert chat.choices[0].message.content == answer.output_text


def streamed(client, model):
    asked = dict(model=model, input=ASK, max_output_tokens=40, temperature=0)
    whole = client.responses.create(**asked)
    events = list(client.responses.create(**asked, stream=True))
    kinds = [event.type for event in events]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert kinds[:4] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ], kinds
    assert kinds[-4:] == [
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        f"response.{whole.status}",
    ], kinds
    pieces = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    final = events[-1].response
    assert pieces == final.output_text == whole.output_text and final.usage.output_tokens == whole.usage.output_tokens
    for seed in range(50):  # the client's own reader of streams knows only answers that end by themselves
        asked = dict(model=model, input=ASK, max_output_tokens=400, temperature=1, extra_body={"seed": seed})
        whole = client.responses.create(**asked)
        if whole.status == "completed":
            break
    with client.responses.stream(**asked) as stream:
        for _ in stream:
            pass
        assert stream.get_final_response().output_text == whole.output_text


def history(client, model):
    asked = dict(model=model, max_output_tokens=8, temperature=0, tools=TOOLS)
    tokens = lambda messages, **more: client.responses.create(input=messages, **{**asked, **more}).usage.input_tokens
    assert tokens(HISTORY) > tokens(HISTORY, tools=[]) > tokens(ASK, tools=[])
    call = {"id": "call_7", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Beijing"}'}}
    chat = ASK + [
        {"role": "assistant", "content": "I will look.", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_7", "content": "21 °C"},
    ]
    same = client.chat.completions.create(model=model, messages=chat, max_tokens=8)
    assert tokens(HISTORY, tools=[]) == same.usage.prompt_tokens, "one turn of the model in three items"


def tool_loop(client, model):
    """Noise calls a tool if it must, and its arguments are valid."""
    for choice in ("required", {"type": "function", "name": "get_weather"}):
        asked = dict(model=model, max_output_tokens=400, tools=TOOLS, parallel_tool_calls=False, extra_body={"seed": 3})
        answer = client.responses.create(**asked, input=ASK, tool_choice=choice)
        call = answer.output[-1]
        assert call.type == "function_call" and call.name == "get_weather", answer
        assert isinstance(json.loads(call.arguments)["city"], str)
        events = list(client.responses.create(**asked, input=ASK, tool_choice=choice, stream=True))
        pieces = [event.delta for event in events if event.type == "response.function_call_arguments.delta"]
        assert "".join(pieces) == call.arguments == events[-1].response.output[-1].arguments
        output = {"type": "function_call_output", "call_id": call.call_id, "output": "21 °C"}
        done = client.responses.create(**asked, input=[*ASK, call, output], tool_choice="none")
        assert done.output[-1].type == "message" and done.usage.input_tokens > answer.usage.input_tokens


def structured(client, model):
    schema = {"type": "object", "required": ["ok"], "properties": {"ok": {"type": "boolean"}}, "additionalProperties": False}
    form = {"format": {"type": "json_schema", "name": "verdict", "schema": schema, "strict": True}}
    answer = client.responses.create(model=model, input=ASK, max_output_tokens=100, text=form)
    assert isinstance(json.loads(answer.output_text)["ok"], bool), answer.output_text


def refusals(client, model):
    asked = dict(model=model, input=ASK, max_output_tokens=1)
    for status, param, changed in [
        (404, "model", {"model": "gpt-5"}),
        (400, "previous_response_id", {"previous_response_id": "resp_1"}),
        (400, "store", {"store": True}),
        (400, "background", {"background": True}),
        (400, "truncation", {"truncation": "auto"}),
        (400, "include", {"include": ["message.output_text.logprobs"]}),
        (400, "tools[0]", {"tools": [{"type": "web_search"}]}),
        (400, "input[0]", {"input": [{"type": "item_reference", "id": "msg_1"}]}),
        (400, "input[0]", {"input": [{"role": "wizard", "content": "?"}]}),
        (400, "messages", {"input": "long " * 60_000}),
        (400, "temperature", {"temperature": 3}),
        (400, "no_such_field", {"extra_body": {"no_such_field": 1}}),
    ]:
        for stream in (False, True):
            try:
                client.responses.create(**{**asked, **changed}, stream=stream)
            except openai.APIStatusError as error:
                assert (error.status_code, error.body["param"]) == (status, param), (changed, error)
            else:
                raise AssertionError(f"taken: {json.dumps(changed)[:200]}")


def no_embeddings(client, model):
    try:
        client.embeddings.create(model=model, input="The tide")
    except openai.BadRequestError as error:
        assert "embeddings" in error.body["message"], error.body
    else:
        raise AssertionError("embeddings of a model that has none")


CHECKS = [plain, streamed, history, tool_loop, structured, refusals, no_embeddings]


def main():
    connect = lambda address: openai.OpenAI(base_url=address, api_key="none", max_retries=0, timeout=120)
    run(f"openai {openai.__version__}, responses", connect, CHECKS, sys.argv[1:])


if __name__ == "__main__":
    main()

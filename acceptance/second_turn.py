#!/usr/bin/env python3
"""When the second turn on a long history begins: the cache in memory, and the prefix store after a restart.

    python acceptance/second_turn.py MODEL [--k2 PROGRAM] [--tokens 16384] [-- --threads 2 ...]

Starts the server itself on a free port with an empty prefix store; what follows `--` are options of `k2 serve`. Passes if the
first token of a second turn comes within 2 % of the first turn's time from memory, and within 10 % from
disk after a restart, with the same answer. Needs nothing but Python, and a model of enough context.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time

from served import Connection, Server, events, metrics, model_of, program, split

STORY = "It was a dark and stormy night; the rain fell in torrents, except at occasional intervals. "
FROM_MEMORY, FROM_DISK = 0.02, 0.10


async def turn(address, messages):
    """Seconds to the first token, the answer, and how many tokens of how long a prompt were cached."""
    asked = {"messages": messages, "max_tokens": 32, "seed": 1, "stream": True, "ignore_eos": True}
    asked |= {"model": await model_of(address), "stream_options": {"include_usage": True}}
    began, first, text, usage = time.monotonic(), None, "", None
    async for event in events(address, "/v1/chat/completions", asked):
        usage = event.get("usage") or usage
        delta = "".join(choice["delta"].get("content") or "" for choice in event["choices"])
        first = first or (time.monotonic() if delta else None)
        text += delta
    return first - began, text, usage["prompt_tokens_details"]["cached_tokens"], usage["prompt_tokens"]


async def count(address, text):
    asked = {"model": await model_of(address), "messages": [{"role": "user", "content": text}]}
    async with Connection(address) as connection:
        connection.send("POST", "/v1/messages/count_tokens", json.dumps(asked).encode())
        status, body = await connection.answer()
    assert status == 200, (status, body[:300])
    return json.loads(body)["input_tokens"]


async def in_memory(address, tokens):
    """Both turns, and the messages of the second."""
    # So that the first turn pays for nothing that a second one would not.
    await turn(address, [{"role": "user", "content": "Hello"}])
    each = (await count(address, STORY * 20)) / 20
    messages = [{"role": "user", "content": "Read this. " + STORY * int(tokens / each)}]
    first = await turn(address, messages)
    # Not what it answered: a server remembers the tokens of its own answers, and one that was started anew does not, so
    # that the two would be asked for different things.
    messages += [{"role": "assistant", "content": "I have read it."}, {"role": "user", "content": "And then?"}]
    return first, await turn(address, messages), messages


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--k2", help="the program (default: built by cargo)")
    parser.add_argument("--tokens", type=int, default=16384)
    ours, more = split(sys.argv[1:])
    args = parser.parse_args(ours)
    k2 = program(args.k2)
    options = {"--port": "0", "--context": str(args.tokens + 1024), "--cache-tokens": str(args.tokens + 4096)}
    options |= more
    with tempfile.TemporaryDirectory() as directory:
        options["--prefix-store"] = directory
        with Server(k2, args.model, options) as server:
            first, second, messages = asyncio.run(in_memory(server.address, args.tokens))
            written = asyncio.run(metrics(server.address))["k2_prefix_store_bytes"]
        with Server(k2, args.model, options) as server:
            asyncio.run(turn(server.address, [{"role": "user", "content": "Hello"}]))
            third = asyncio.run(turn(server.address, messages))
    for name, (seconds, _, cached, prompt) in [("first turn", first), ("second, from memory", second), ("second, from disk", third)]:
        print(f"{name}: first token after {seconds:.3f} s ({seconds / first[0]:.2%}), {cached} of {prompt} tokens cached")
    print(f"{written / 1e6:.0f} MB in the prefix store")
    assert second[1] == third[1], (second[1], third[1])
    assert second[0] <= FROM_MEMORY * first[0], "too late from memory"
    assert third[0] <= FROM_DISK * first[0], "too late from disk"
    print("acceptance: second turn passed")


if __name__ == "__main__":
    main()

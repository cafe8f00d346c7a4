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
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from soak import ROOT, Connection, listening, metrics, split

STORY = "It was a dark and stormy night; the rain fell in torrents, except at occasional intervals. "
FROM_MEMORY, FROM_DISK = 0.02, 0.10


class Server:
    """`k2 serve` until the end of a block; the end must be in order."""

    def __init__(self, program, model, options):
        self.command = [program, "serve", model, *(part for option in options.items() for part in option)]

    def __enter__(self):
        self.log = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(self.command, cwd=ROOT, stderr=self.log)
        self.address = listening(self.process, self.log)
        return self

    def __exit__(self, failed, *_):
        self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(timeout=60)
        finally:
            self.process.kill()
        if failed or status:
            self.log.seek(0)
            sys.stderr.write(self.log.read()[-4000:])
        assert status == 0 or failed, f"the server ended with {status}"

    async def post(self, path, asked):
        async with Connection(self.address) as connection:
            connection.send("POST", path, json.dumps(asked).encode())
            status, body = await connection.answer()
        assert status == 200, (status, body[:300])
        return json.loads(body)

    async def turn(self, messages):
        """Seconds to the first token, the answer, and how many tokens of how long a prompt were cached."""
        asked = {"messages": messages, "max_tokens": 32, "seed": 1, "stream": True, "ignore_eos": True}
        asked |= {"model": await self.model(), "stream_options": {"include_usage": True}}
        began, first, text, usage = time.monotonic(), None, "", None
        async with Connection(self.address) as connection:
            connection.send("POST", "/v1/chat/completions", json.dumps(asked).encode())
            head = await connection.reader.readuntil(b"\r\n\r\n")
            assert head.split()[1] == b"200", head
            async for line in connection.reader:
                if not line.startswith(b"data: ") or line.startswith(b"data: [DONE]"):
                    continue
                event = json.loads(line[6:])
                assert "error" not in event, event
                usage = event.get("usage") or usage
                delta = "".join(choice["delta"].get("content") or "" for choice in event["choices"])
                first = first or (time.monotonic() if delta else None)
                text += delta
        return first - began, text, usage["prompt_tokens_details"]["cached_tokens"], usage["prompt_tokens"]

    async def model(self):
        async with Connection(self.address) as connection:
            connection.send("GET", "/v1/models")
            return json.loads((await connection.answer())[1])["data"][0]["id"]

    async def count(self, text):
        asked = {"model": await self.model(), "messages": [{"role": "user", "content": text}]}
        return (await self.post("/v1/messages/count_tokens", asked))["input_tokens"]


async def in_memory(server, tokens):
    """Both turns, and the messages of the second."""
    # So that the first turn pays for nothing that a second one would not.
    await server.turn([{"role": "user", "content": "Hello"}])
    each = (await server.count(STORY * 20)) / 20
    messages = [{"role": "user", "content": "Read this. " + STORY * int(tokens / each)}]
    first = await server.turn(messages)
    # Not what it answered: a server remembers the tokens of its own answers, and one that was started anew does not, so
    # that the two would be asked for different things.
    messages += [{"role": "assistant", "content": "I have read it."}, {"role": "user", "content": "And then?"}]
    return first, await server.turn(messages), messages


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--k2", help="the program (default: built by cargo)")
    parser.add_argument("--tokens", type=int, default=16384)
    ours, more = split(sys.argv[1:])
    args = parser.parse_args(ours)
    if not args.k2:
        subprocess.run(["cargo", "build", "-q", "--release"], cwd=ROOT, check=True)
        args.k2 = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release/k2"
    options = {"--port": "0", "--context": str(args.tokens + 1024), "--cache-tokens": str(args.tokens + 4096)}
    options |= more
    with tempfile.TemporaryDirectory() as directory:
        options["--prefix-store"] = directory
        with Server(args.k2, args.model, options) as server:
            first, second, messages = asyncio.run(in_memory(server, args.tokens))
            written = asyncio.run(metrics(server.address))["k2_prefix_store_bytes"]
        with Server(args.k2, args.model, options) as server:
            asyncio.run(server.turn([{"role": "user", "content": "Hello"}]))
            third = asyncio.run(server.turn(messages))
    for name, (seconds, _, cached, prompt) in [("first turn", first), ("second, from memory", second), ("second, from disk", third)]:
        print(f"{name}: first token after {seconds:.3f} s ({seconds / first[0]:.2%}), {cached} of {prompt} tokens cached")
    print(f"{written / 1e6:.0f} MB in the prefix store")
    assert second[1] == third[1], (second[1], third[1])
    assert second[0] <= FROM_MEMORY * first[0], "too late from memory"
    assert third[0] <= FROM_DISK * first[0], "too late from disk"
    print("acceptance: second turn passed")


if __name__ == "__main__":
    main()

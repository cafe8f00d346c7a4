#!/usr/bin/env python3
"""`k2 serve` under many clients at once: long and short prompts, streams and wholes, clients that go away, nonsense.

    python acceptance/soak.py [--seconds 20] [--clients 32] [--model MODEL] [--k2 PROGRAM] [-- --cache-tokens 3000 ...]

Starts the server itself on a free port, with a cache so small that sequences have to leave it; what follows `--` are options
of `k2 serve` that count more than those here. First each request is asked alone; then the clients ask the same ones in any order, and
each answer must be the one that it was alone. Passes if sequences did leave the cache and come back, no error was the server's,
all blocks of the cache came back, memory stayed flat after the first half, and the server ended when it was told to. Needs nothing
but Python.
"""

import argparse
import asyncio
import json
import os
import random
import re
import sys
import time
from collections import Counter
from pathlib import Path

from served import Connection, Server, metrics, model_of, program, split

TOOLS = [
    {
        "type": "function",
        "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
    }
]
# Memory may grow by so much between the middle of the run and its end: allocators keep what they had at the worst moment.
RSS_SHARE, RSS_BYTES = 0.05, 16 << 20
# Options of the server, by name.
SERVED = {"--port": "0", "--context": "2048", "--cache-tokens": "3000", "--max-sequences": "16"}
STORY = "It was a dark and stormy night; the rain fell in torrents. "
# Tokens of the long prompts; the others are up to about 650 characters long.
LONG = 1500


async def cases(address, model):
    """Requests with seeds, each as (path, body); several share beginnings."""
    story, found = STORY * 12, []
    for number in range(12):
        asked = {"model": model, "max_tokens": 8 + 7 * number, "seed": number, "temperature": 0.8}
        text = story[: 40 + 55 * number] + "?"
        messages = [{"role": "system", "content": "You are Kimi."}, {"role": "user", "content": text}]
        more = {"tools": TOOLS, "tool_choice": "auto"} if number % 3 == 0 else {}
        found.append(("/v1/chat/completions", {**asked, "messages": messages, **more}))
        found.append(("/v1/completions", {**asked, "prompt": text, "logprobs": 2}))
    probe = {"model": model, "prompt": STORY * 12, "max_tokens": 1}
    tokens = await usage(address, probe)
    for number in range(4):
        text = f"{number}. " + STORY * (12 * LONG // tokens)
        asked = {"model": model, "max_tokens": 4 + 40 * number, "seed": number, "temperature": 0.8}
        found.append(("/v1/completions", {**asked, "prompt": text, "logprobs": 0}))
    return found


async def usage(address, asked):
    """Tokens of a prompt."""
    async with Connection(address) as connection:
        connection.send("POST", "/v1/completions", json.dumps(asked).encode())
        status, body = await connection.answer()
    assert status == 200, (status, body[:300])
    return json.loads(body)["usage"]["prompt_tokens"]


NONSENSE = [
    ("POST", "/v1/chat/completions", b"{", 400),
    ("POST", "/v1/chat/completions", b'{"model": 7}', 400),
    ("POST", "/v1/chat/completions", b'{"model": "gpt-4o", "messages": []}', 404),
    ("POST", "/v1/completions", b"\xff\xfe", 400),
    ("POST", "/v1/completions", b"[" * 10_000, 400),
    ("GET", "/v1/chat/completions", b"", 405),
    ("GET", "/no/such/place", b"", 404),
]


async def ask(address, path, asked, stream=False):
    """The text of an answer, its calls, the probabilities of its tokens and why it ended."""
    async with Connection(address) as connection:
        connection.send("POST", path, json.dumps({**asked, "stream": stream}).encode())
        status, body = await connection.answer()
    assert status == 200, (status, body[:300])
    if not stream:
        choice = json.loads(body)["choices"][0]
        message = choice.get("message", {})
        calls = [(call["function"]["name"], call["function"]["arguments"]) for call in message.get("tool_calls") or []]
        text = choice.get("text", message.get("content") or "")
        return text, calls, probabilities(choice), choice["finish_reason"]
    events = body.decode().split("\n\n")
    data = [event.removeprefix("data: ") for event in events if event.startswith("data: ")]
    assert data[-1] == "[DONE]", body[-300:]
    text, calls, likely, reason = "", {}, [], None
    for choice in (choice for chunk in map(json.loads, data[:-1]) for choice in chunk["choices"]):
        delta = choice.get("delta", choice)
        text += delta.get("content") or delta.get("text") or ""
        for call in delta.get("tool_calls") or []:
            name, arguments = calls.get(call["index"], ("", ""))
            function = call["function"]
            calls[call["index"]] = (name + (function.get("name") or ""), arguments + (function.get("arguments") or ""))
        likely += probabilities(choice)
        reason = choice["finish_reason"] or reason
    return text, list(calls.values()), likely, reason


def probabilities(choice):
    return (choice.get("logprobs") or {}).get("token_logprobs") or []


class Soak:
    def __init__(self, address, expected):
        self.address, self.expected, self.counts = address, expected, Counter()

    async def client(self, number, end):
        rng = random.Random(number)
        while time.monotonic() < end:
            kind = rng.choices([self.same, self.leaves, self.nonsense, self.silent], [70, 18, 10, 2])[0]
            await kind(rng)
            self.counts[kind.__name__] += 1

    async def same(self, rng):
        """An answer must be the one that it was alone."""
        (path, asked), alone = rng.choice(self.expected)
        stream = rng.random() < 0.5
        found = await ask(self.address, path, asked, stream)
        assert found == alone, f"another answer (stream: {stream}) to {asked}:\n{found}\nalone:\n{alone}"

    async def leaves(self, rng):
        """A client that goes away: before the end of its request, before the answer, or in the middle of it."""
        (path, asked), _ = rng.choice(self.expected)
        body = json.dumps({**asked, "stream": rng.random() < 0.7, "max_tokens": 400}).encode()
        async with Connection(self.address) as connection:
            if rng.random() < 0.2:
                connection.send("POST", path, body[:-1], **{"content-length": len(body)})
                return
            connection.send("POST", path, body)
            await connection.writer.drain()
            if rng.random() < 0.7:
                await connection.reader.read(rng.randrange(1, 2000))

    async def nonsense(self, rng):
        method, path, body, expected = rng.choice(NONSENSE)
        async with Connection(self.address) as connection:
            connection.send(method, path, body)
            status, body = await connection.answer()
        assert status == expected, (method, path, status, body[:300])
        assert json.loads(body)["error"]["message"], body

    async def silent(self, rng):
        async with Connection(self.address) as connection:
            connection.writer.write(b"POST /v1/chat/comp"[: rng.randrange(18)])
            await asyncio.sleep(rng.random())


async def at_rest(address):
    """Metrics once nothing runs any more."""
    for _ in range(600):
        found = await metrics(address)
        if found["k2_sequences_running"] + found["k2_requests_waiting"] + found["k2_sequences_paused"] == 0:
            return found
        await asyncio.sleep(0.1)
    raise AssertionError(f"the engine never comes to rest: {found}")


def rss(pid):
    pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


async def watch(pid, seconds, samples):
    for _ in range(max(10, int(seconds * 2))):
        samples.append(rss(pid))
        await asyncio.sleep(seconds / max(10, int(seconds * 2)))


async def soak(address, pid, seconds, clients):
    model = await model_of(address)
    expected = [(case, await ask(address, *case)) for case in await cases(address, model)]
    run, memory, end = Soak(address, expected), [], time.monotonic() + seconds
    await asyncio.gather(watch(pid, seconds, memory), *(run.client(number, end) for number in range(clients)))
    found = await at_rest(address)
    assert found['k2_kv_blocks{state="used"}'] == 0, "blocks that did not come back"
    of_server = {name: count for name, count in found.items() if re.match(r'k2_requests_total.*status="5', name)}
    assert not of_server, of_server
    half, last = sorted(memory[len(memory) // 2 :][:3])[1], sorted(memory[-3:])[1]
    assert last <= half * (1 + RSS_SHARE) + RSS_BYTES, f"memory grew from {half} to {last} bytes: {memory}"
    assert found["k2_disconnects_total"] > 0 or not run.counts["leaves"]
    assert found["k2_preemptions_total"] > 0, "nobody had to leave the cache: give the server a smaller one"
    return run.counts, memory, found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--model", default="fixtures/model/bytes")
    parser.add_argument("--k2", help="the program (default: built by cargo)")
    ours, options = split(sys.argv[1:])
    args = parser.parse_args(ours)
    with Server(program(args.k2), args.model, SERVED | options) as server:
        found = soak(server.address, server.process.pid, args.seconds, args.clients)
        counts, memory, found = asyncio.run(found)
    done = ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items()))
    print(f"{args.clients} clients, {args.seconds:g} s: {done}")
    used, idle, free = (found[f'k2_kv_blocks{{state="{state}"}}'] for state in ("used", "idle", "free"))
    print(f"preemptions {found['k2_preemptions_total']:.0f}, disconnects {found['k2_disconnects_total']:.0f}, cached "
          f"{found['k2_cached_prompt_tokens_total']:.0f} of {found['k2_prompt_tokens_total']:.0f} prompt tokens")
    print(f"blocks used {used:.0f}, kept {idle:.0f}, free {free:.0f}; rss over time, MiB: "
          + " ".join(f"{memory[len(memory) * tenth // 10] / (1 << 20):.1f}" for tenth in range(10))
          + f" {memory[-1] / (1 << 20):.1f}")
    print("acceptance: soak passed")


if __name__ == "__main__":
    main()

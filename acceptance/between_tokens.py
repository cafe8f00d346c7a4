#!/usr/bin/env python3
"""How much running streams of `k2 serve` wait while somebody else's long prompt is read.

    python acceptance/between_tokens.py MODEL [--k2 PROGRAM] [--streams 4] [--prompt 8192] [--seconds 15] [-- --prefill-chunk 128 ...]

Starts the server itself on a free port; what follows `--` are options of `k2 serve`. Streams run alone for some seconds, then
beside a prompt of ids that nobody has sent before. Passes if the time between their tokens (99 of 100) is meanwhile at
most twice what it is without the prompt, plus the time of one chunk of that prompt, which is measured alone: at its
beginning, and at its end, where a chunk of the same length takes longest. Needs nothing but Python, and a model of more context
than the prompt.
"""

import argparse
import asyncio
import random
import statistics
import sys
import time

from served import Server, events, metrics, model_of, program, split

# Ids that every vocabulary has as plain tokens.
IDS = range(300, 2000)


class Stream:
    """One streamed completion and when its tokens came."""

    def __init__(self, address, asked):
        self.address, self.asked, self.times = address, {**asked, "stream": True, "ignore_eos": True}, []

    async def run(self):
        async for event in events(self.address, "/v1/completions", self.asked):
            for choice in event["choices"]:
                tokens = len((choice.get("logprobs") or {}).get("tokens") or [])
                self.times += [time.monotonic()] * tokens

    def gaps(self, begin, end):
        """Times between tokens of which the later came in this time."""
        return [b - a for a, b in zip(self.times, self.times[1:]) if begin <= b <= end]


def share(values, wanted):
    """The smallest value that so many do not exceed."""
    return sorted(values)[min(len(values) - 1, int(len(values) * wanted))]


async def first_token(address, asked):
    """Seconds until a prompt's first token."""
    began, stream = time.monotonic(), Stream(address, {**asked, "max_tokens": 1, "logprobs": 0})
    await stream.run()
    return stream.times[0] - began


async def measure(address, args, chunk):
    model = await model_of(address)
    rng = random.Random(0)

    def ids(count):
        return rng.choices(IDS, k=count)

    def asked(prompt, **more):
        return {"model": model, "prompt": prompt, "seed": 1, "logprobs": 0, **more}

    streams = [Stream(address, asked(ids(64), max_tokens=args.prompt // 2)) for _ in range(args.streams)]
    running = [asyncio.create_task(stream.run()) for stream in streams]
    while not all(len(stream.times) > 8 for stream in streams):
        await asyncio.sleep(0.1)
    began = time.monotonic()
    await asyncio.sleep(args.seconds)
    alone = [gap for stream in streams for gap in stream.gaps(began, time.monotonic())]
    prompt, began = ids(args.prompt), time.monotonic()
    taken = await first_token(address, asked(prompt))
    beside = [gap for stream in streams for gap in stream.gaps(began, began + taken)]
    assert not any(task.done() for task in running), "a stream ended too early"
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    while (await metrics(address))["k2_sequences_running"] > 0:
        await asyncio.sleep(0.1)
    # A chunk and the last token of the one before, which is computed for its logits in any case.
    early = [await first_token(address, asked(ids(chunk))) for _ in range(3)]
    late = [await first_token(address, asked(prompt[:-chunk] + ids(chunk))) for _ in range(3)]
    return alone, beside, taken, statistics.median(early), statistics.median(late)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--k2", help="the program (default: built by cargo)")
    parser.add_argument("--streams", type=int, default=4)
    parser.add_argument("--prompt", type=int, default=8192)
    parser.add_argument("--seconds", type=float, default=15)
    ours, options = split(sys.argv[1:])
    args = parser.parse_args(ours)
    served = {"--port": "0", "--context": str(args.prompt + 64), "--prefill-chunk": "256"}
    served["--cache-tokens"] = str((args.streams // 2 + 3) * args.prompt)
    served |= options
    chunk = int(served["--prefill-chunk"])
    with Server(program(args.k2), args.model, served) as server:
        alone, beside, taken, early, late = asyncio.run(measure(server.address, args, chunk))
    print(f"{args.streams} streams; {args.prompt} tokens of a prompt beside them took {taken:.1f} s; chunks of {chunk}")
    for name, gaps in [("alone", alone), ("beside the prompt", beside)]:
        print(f"between tokens {name}: median {share(gaps, 0.5) * 1e3:.0f} ms, 99 % {share(gaps, 0.99) * 1e3:.0f} ms, "
              f"most {max(gaps) * 1e3:.0f} ms ({len(gaps)})")
    print(f"one chunk alone: {early * 1e3:.0f} ms at the prompt's beginning, {late * 1e3:.0f} ms at its end")
    bound = 2 * share(alone, 0.99) + late
    assert share(beside, 0.99) <= bound, f"99 % within {share(beside, 0.99):.3f} s, more than {bound:.3f} s"
    print(f"acceptance: between tokens passed (99 % within {bound * 1e3:.0f} ms)")


if __name__ == "__main__":
    main()

"""`k2 serve` for the length of a check, and as much HTTP as the checks of it need: nothing but Python."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def split(argv):
    """What stands before `--`, and the options of the server behind it, each with a value."""
    end = argv.index("--") if "--" in argv else len(argv)
    behind = argv[end + 1 :]
    return argv[:end], dict(zip(behind[::2], behind[1::2], strict=True))


def program(named):
    """The program that was named; without a name the one that cargo builds."""
    if named:
        return named
    subprocess.run(["cargo", "build", "-q", "--release"], cwd=ROOT, check=True)
    return Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release/k2"


class Server:
    """A server until the end of a block; the end must be in order. `options` by name, each with a value."""

    def __init__(self, k2, model, options):
        self.command = [k2, "serve", model, *(part for option in options.items() for part in option)]

    def __enter__(self):
        self.log = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(self.command, cwd=ROOT, stderr=self.log)
        try:
            self.address = listening(self.process, self.log)
        except BaseException:
            self.process.kill()
            raise
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


def listening(server, log):
    """Where it listens."""
    for _ in range(600):
        log.seek(0)
        said = log.read()
        if found := re.search(r"http://([\d.]+):(\d+)", said):
            return found[1], int(found[2])
        assert server.poll() is None, f"the server ended with {server.returncode} before it listened: {said}"
        time.sleep(0.1)
    raise AssertionError("the server does not listen")


class Connection:
    """One HTTP/1.1 connection, as much of it as is needed here."""

    def __init__(self, address):
        self.host, self.port = address

    async def __aenter__(self):
        self.reader, self.writer = await asyncio.open_connection(self.host, self.port)
        return self

    async def __aexit__(self, *_):
        self.writer.close()

    def send(self, method, path, body=b"", **headers):
        headers = {"host": f"{self.host}:{self.port}", "content-length": len(body), "connection": "close", **headers}
        lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
        self.writer.write("\r\n".join(lines).encode() + body)

    async def answer(self):
        """Status and body."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode().lower()
        status, body = int(head.split()[1]), await self.reader.read()
        return status, unchunked(body) if "transfer-encoding: chunked" in head else body


def unchunked(body):
    found = b""
    while True:
        size, _, body = body.partition(b"\r\n")
        if int(size, 16) == 0:
            return found
        found, body = found + body[: int(size, 16)], body[int(size, 16) + 2 :]


async def model_of(address):
    """The name of the model that is served."""
    async with Connection(address) as connection:
        connection.send("GET", "/v1/models")
        return json.loads((await connection.answer())[1])["data"][0]["id"]


async def events(address, path, asked):
    """The events of a stream as they come."""
    async with Connection(address) as connection:
        connection.send("POST", path, json.dumps(asked).encode())
        head = await connection.reader.readuntil(b"\r\n\r\n")
        assert head.split()[1] == b"200", head
        async for line in connection.reader:
            if line.startswith(b"data: ") and not line.startswith(b"data: [DONE]"):
                event = json.loads(line[6:])
                assert "error" not in event, event
                yield event


async def metrics(address):
    async with Connection(address) as connection:
        connection.send("GET", "/metrics")
        status, body = await connection.answer()
    assert status == 200, status
    samples = (line.rsplit(" ", 1) for line in body.decode().splitlines() if not line.startswith("#"))
    return {re.sub(r'model="[^"]*",?', "", name).replace("{}", ""): float(value) for name, value in samples}

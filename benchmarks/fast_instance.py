"""A llama-server's protocol without a model, as fast as asyncio goes.

Each streamed event carries the moment at which it was written, by the machine's monotonic clock, so
that another process can tell how late it came.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time

EMBEDDING = json.dumps({"object": "list", "data": [{"embedding": [0.125] * 128}]}).encode()


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer the requests of one connection."""
    key = os.environ.get("LLAMA_API_KEY", "")
    try:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            request, *lines = head.split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in map(_split, lines)}
            body = await reader.readexactly(int(headers.get("content-length", 0)))
            path = request.split()[1].split("?")[0]
            if path in {"/health", "/v1/health"}:
                writer.write(_answer(b'{"status":"ok"}'))
            elif key and headers.get("authorization") != f"Bearer {key}":
                writer.write(_answer(b'{"error":{"message":"Invalid API Key"}}', 401))
            elif path == "/v1/chat/completions":
                await _stream(writer, json.loads(body))
            elif path == "/v1/embeddings":
                writer.write(_answer(EMBEDDING))
            else:
                writer.write(_answer(b'{"object":"list","data":[{"id":"fast"}]}'))
            await writer.drain()
            if headers.get("connection", "").lower() == "close":
                return
    except (asyncio.IncompleteReadError, ConnectionError):
        return
    finally:
        writer.close()


def _split(line: str) -> tuple[str, str, str]:
    return line.partition(":")


def _answer(body: bytes, status: int = 200) -> bytes:
    head = f"HTTP/1.1 {status} OK\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


async def _stream(writer: asyncio.StreamWriter, request: dict[str, float]) -> None:
    writer.write(
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    filler = "x" * 160
    for number in range(int(request["events"])):
        await asyncio.sleep(request["gap"])
        event = f'data: {{"n":{number},"at":{time.monotonic():.6f},"text":"{filler}"}}\n\n'.encode()
        writer.write(b"%x\r\n%b\r\n" % (len(event), event))
    writer.write(b"0\r\n\r\n")


async def main() -> None:
    """Serve on ``--port``."""
    port = int(sys.argv[sys.argv.index("--port") + 1])
    server = await asyncio.start_server(serve, "127.0.0.1", port, limit=1 << 20, backlog=1024)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())

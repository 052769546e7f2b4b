#!/usr/bin/env -S python3 -I -S
"""A llama-server that speaks the protocol over a real socket, and misbehaves when it is told to.

It takes llama-server's flags (those it does not know are accepted) and ``--fake-…`` flags, on its
command line or, as one shell-like string, in the variable ``FAKE_LLAMA``:

    --fake-record FILE        append one JSON object a line, with "event" one of start, listening,
                              grandchild, request, done, abort, stop
    --fake-load SECONDS       listens at once, answers 503 "Loading model" for so long, and for as
                              long as there is a file "loading" beside the record
    --fake-listen-after SECONDS   listens only then
    --fake-no-listen          never listens
    --fake-exit-after SECONDS --fake-exit-code N --fake-signal NAME    dies by itself
    --fake-fail TEXT          prints TEXT to stderr and exits with 1
    --fake-die-after N        exits with 1 once N inference requests were answered
    --fake-die-mid N          exits with 1 after N events of a stream
    --fake-ignore-term        SIGTERM does nothing
    --fake-fork               leaves a grandchild in its group that holds the output pipe
    --fake-daemon             leaves a grandchild in a session of its own that holds the pipe
    --fake-print TEXT --fake-spam BYTES    writes TEXT; writes so many bytes without a newline
    --fake-tokens N --fake-gap SECONDS --fake-prefill SECONDS    the shape of an answer
    --fake-hang               completions never answer; health goes on
    --fake-pings SECONDS      a ping so often while a stream is prepared
    --fake-slots HOW          /slots is "missing" (501), "silent" (no answer), or what stands here
    --fake-health-hang        health never answers; a file "hang" beside the record does the same
    --fake-foreign            no key is asked for, as another's server would
    --fake-models A,B --fake-loaded B   router mode: the models that /models lists

A request can change the answer's shape for itself: ``{"fake": {"tokens": 3, "gap": 0.1, "prefill":
1, "pings": 0.2, "die_mid": 2, "status": 500, "raw": "bytes to send as they are"}}``. ``GET
/fake/state`` tells ``{"active", "max_active", "requests", "aborts"}``. Only the standard library is
used, so that it starts in a few milliseconds.
"""

from __future__ import annotations

import base64
import contextlib
import http.server
import json
import os
import select
import shlex
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

VALUE_FLAGS = {"--host", "--port", "-m", "--model", "-a", "--alias", "--api-key", "-c", "-np"}
PUBLIC = {"/health", "/v1/health", "/models", "/v1/models", "/fake/state"}
HELP = """----- common params -----

-h,    --help, --usage                  print usage and exit
-c,    --ctx-size N                     size of the prompt context (default: 0)
-m,    --model FNAME                    model path to load
"""
INFERENCE = {
    "/v1/chat/completions": "chat",
    "/chat/completions": "chat",
    "/v1/completions": "text",
    "/completions": "text",
    "/completion": "text",
}


def embeddings(request: Any) -> dict[str, Any]:
    inputs = request.get("input", "")
    inputs = inputs if isinstance(inputs, list) else [inputs]
    entries = []
    for index, text in enumerate(inputs):
        vector: Any = [float(len(str(text))), 0.5, -0.5]
        if request.get("encoding_format") == "base64":
            vector = base64.b64encode(struct.pack("<3f", *vector)).decode()
        entries.append({"object": "embedding", "index": index, "embedding": vector})
    usage = {"prompt_tokens": 1, "total_tokens": 1}
    return {"object": "list", "model": request.get("model"), "data": entries, "usage": usage}


def rerank(request: Any) -> dict[str, Any]:
    scores = enumerate(1.0 / (index + 1) for index, _ in enumerate(request.get("documents", [])))
    return {"results": [{"index": index, "relevance_score": score} for index, score in scores]}


SIMPLE_ANSWERS: dict[str, Callable[[Any], dict[str, Any]]] = {
    "/embeddings": embeddings,
    "/v1/embeddings": embeddings,
    "/rerank": rerank,
    "/v1/rerank": rerank,
    "/v1/audio/transcriptions": lambda request: {"text": "hello"},
    "/v1/responses": lambda request: {"object": "response", "model": request.get("model")},
    "/v1/messages": lambda request: {"type": "message", "model": request.get("model")},
    "/tokenize": lambda request: {"tokens": list(str(request.get("content", "")).encode())},
    "/detokenize": lambda request: {"content": bytes(request.get("tokens", [])).decode()},
    "/apply-template": lambda request: {"prompt": json.dumps(request.get("messages"))},
    "/infill": lambda request: {"content": "filled"},
    "/props": lambda request: {"success": True},
    "/models/load": lambda request: {"success": True},
    "/models/unload": lambda request: {"success": True},
}


class Behaviour:
    """What the flags ask for."""

    def __init__(self, argv: list[str]) -> None:
        self.flags: dict[str, str] = {}
        words = [*argv, *shlex.split(os.environ.get("FAKE_LLAMA", ""))]
        while words:
            word = words.pop(0)
            takes_value = word in VALUE_FLAGS or word.startswith("--fake-")
            if takes_value and words and not words[0].startswith("--"):
                self.flags[word] = words.pop(0)
            elif word.startswith("-"):
                self.flags[word] = ""

    def has(self, name: str) -> bool:
        return f"--fake-{name}" in self.flags

    def number(self, name: str, default: float = 0.0) -> float:
        return float(self.flags.get(f"--fake-{name}") or default)

    def text(self, name: str, default: str = "") -> str:
        return self.flags.get(f"--fake-{name}", default)

    def flag(self, *names: str, default: str = "") -> str:
        return next((self.flags[name] for name in names if name in self.flags), default)


class Recorder:
    """Appends events to a file that the test reads; one write a line, so lines never mix."""

    def __init__(self, path: str) -> None:
        self.fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600) if path else -1

    def __call__(self, event: str, **fields: Any) -> None:
        if self.fd >= 0:
            line = {"event": event, "pid": os.getpid(), "at": time.time(), **fields}
            os.write(self.fd, json.dumps(line).encode() + b"\n")


class FakeServer(http.server.ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 512

    def __init__(self, address: tuple[str, int], behaviour: Behaviour, record: Recorder) -> None:
        self.behaviour = behaviour
        self.record = record
        self.started = time.monotonic()
        beside = Path(behaviour.text("record") or "none")
        self.hang_file, self.loading_file = (beside.with_name(name) for name in ("hang", "loading"))
        self.api_key = behaviour.flag("--api-key") or os.environ.get("LLAMA_API_KEY", "")
        self.model = behaviour.flag("-a", "--alias") or behaviour.flag("-m", "--model") or "router"
        self.lock = threading.Lock()
        self.active = self.max_active = self.requests = self.aborts = 0
        #: By thread: the number of its request, and the tokens that it has read and written.
        self.tasks: dict[int, list[int]] = {}
        super().__init__(address, FakeHandler)

    def models(self) -> list[dict[str, Any]]:
        if not self.behaviour.has("models"):
            return [{"id": self.model, "object": "model", "created": 1, "owned_by": "llamacpp"}]
        names = self.behaviour.text("models").split(",")
        loaded = self.behaviour.text("loaded").split(",")

        def status(name: str) -> dict[str, Any]:
            args = ["llama-server", "--port", "0", "--hf-repo", name]
            return {"value": "loaded" if name in loaded else "unloaded", "args": args}

        return [{"id": name, "object": "model", "status": status(name)} for name in names]

    def slots(self) -> list[dict[str, Any]]:
        """Two slots, as the server of today tells of them."""
        with self.lock:
            tasks = list(self.tasks.values())
        told: list[dict[str, Any]] = [{"id": n, "is_processing": False} for n in range(2)]
        for slot, (task, read, written) in zip(told, tasks, strict=False):
            progress = {"id_task": task, "n_prompt_tokens_processed": read}
            slot |= {"is_processing": True, **progress, "next_token": [{"n_decoded": written}]}
        return told

    def loading(self) -> bool:
        in_time = time.monotonic() - self.started < self.behaviour.number("load")
        return in_time or self.loading_file.exists()


class ClientLeft(Exception):
    """The client closed its connection before the answer was whole."""


class FakeHandler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakeServer

    def log_message(self, format: str, *args: Any) -> None:
        print(f"srv  log_server_r: {format % args}", file=sys.stderr, flush=True)

    def do_GET(self) -> None:
        self._answer(b"")

    def do_POST(self) -> None:
        self._answer(self.rfile.read(int(self.headers.get("Content-Length") or 0)))

    def _answer(self, body: bytes) -> None:
        path = self.path.split("?")[0]
        server = self.server
        hangs = server.behaviour.has("health-hang") or server.hang_file.exists()
        if hangs and path.endswith("/health"):
            time.sleep(3600)
        given = self.headers.get("Authorization", "").removeprefix("Bearer ")
        given = self.headers.get("X-Api-Key", given)
        wants_key = server.api_key and path not in PUBLIC and not server.behaviour.has("foreign")
        if wants_key and given != server.api_key:
            self._error(401, "Invalid API Key", "authentication_error")
        elif server.loading():
            self._error(503, "Loading model", "unavailable_error")
        else:
            if path not in {"/health", "/v1/health", "/props", "/fake/state"}:
                headers = [[name, value] for name, value in self.headers.items()]
                text = body[:65536].decode("utf-8", "replace")
                route = {"method": self.command, "path": self.path}
                server.record("request", **route, headers=headers, body=text)
            (self._get if self.command == "GET" else self._post)(path, body)

    def _get(self, path: str, _body: bytes) -> None:
        server = self.server
        counts = ("active", "max_active", "requests", "aborts")
        answers: dict[str, Any] = {
            "/health": {"status": "ok"},
            "/models": {"object": "list", "data": server.models()},
            "/props": {"total_slots": 1, "model_path": server.model, "build_info": "b0-fake"},
            "/slots": server.slots(),
            "/fake/state": {name: getattr(server, name) for name in counts},
        }
        path = path.removeprefix("/v1")
        how = server.behaviour.text("slots")
        if path == "/slots" and how == "missing":
            self._error(501, "This server does not support slots endpoint.", "not_supported_error")
        elif path == "/slots" and how == "silent":
            time.sleep(3600)
        elif path == "/slots" and how:
            self._send(200, how.encode(), "application/json")
        elif path == "/metrics":
            self._send(200, b"llamacpp:tokens_predicted_total 7\n", "text/plain")
        elif path in answers:
            self._json(200, answers[path])
        else:
            self._error(404, "File Not Found", "not_found_error")

    def _post(self, path: str, body: bytes) -> None:
        try:
            request = {} if path == "/v1/audio/transcriptions" else json.loads(body)
        except ValueError:
            self._error(400, "parse error", "invalid_request_error")
            return
        if path in INFERENCE or path in SIMPLE_ANSWERS:
            self._counted(path, request)
        else:
            self._error(404, "File Not Found", "not_found_error")

    def _counted(self, path: str, request: Any) -> None:
        """One inference request, counted from its beginning to its end or its abort."""
        server = self.server
        with server.lock:
            server.active += 1
            server.requests += 1
            server.max_active = max(server.max_active, server.active)
            self.task = server.tasks[threading.get_ident()] = [server.requests, 0, 0]
        self.began = False
        try:
            self._prefill(request)
            if path in INFERENCE:
                self._generate(INFERENCE[path], request)
            else:
                self._json(200, SIMPLE_ANSWERS[path](request))
            server.record("done", path=path)
        except (ClientLeft, OSError):
            with server.lock:
                server.aborts += 1
            server.record("abort", path=path)
            self.close_connection = True
        finally:
            with server.lock:
                server.active -= 1
                del server.tasks[threading.get_ident()]
            limit = server.behaviour.number("die-after")
            if limit and server.requests >= limit:
                os._exit(1)

    def _shape(self, request: Any, name: str, default: float = 0.0) -> float:
        own = request.get("fake", {}) if isinstance(request, dict) else {}
        return float(own.get(name, self.server.behaviour.number(name.replace("_", "-"), default)))

    def _prefill(self, request: Any) -> None:
        behaviour = self.server.behaviour
        seconds = 3600 if behaviour.has("hang") else self._shape(request, "prefill")
        pings = self._shape(request, "pings") if request.get("stream") else 0
        began = time.monotonic()
        while (left := began + seconds - time.monotonic()) > 0:
            self._wait(min(left, pings or 0.05))
            if not behaviour.has("hang"):
                self.task[1] += 32
            if pings:
                self._begin_stream()
                self._chunk(b":\n\n")

    def _generate(self, kind: str, request: Any) -> None:
        own = request.get("fake", {})
        count = int(self._shape(request, "tokens", 8))
        count = min(count, int(request.get("max_tokens") or count))
        words = [f"word{number} " for number in range(count)]
        if "raw" in own:
            self.wfile.write(own["raw"].encode("latin-1"))
            self.close_connection = True
        elif "status" in own:
            self._error(int(own["status"]), "as asked", "server_error")
        elif request.get("stream"):
            self._stream(kind, request, words)
        else:
            for _ in range(count):
                self._wait(self._shape(request, "gap"))
                self.task[2] += 1
            content: dict[str, Any] = {"text": "".join(words)}
            if kind == "chat":
                content = {"message": {"role": "assistant", "content": content["text"]}}
            choice = {"index": 0, "finish_reason": "stop", **content}
            usage = {"prompt_tokens": 3, "completion_tokens": count, "total_tokens": count + 3}
            self._json(200, {**self._head(kind, request), "choices": [choice], "usage": usage})

    def _head(self, kind: str, request: Any) -> dict[str, Any]:
        names = {"chat": "chat.completion", "text": "text_completion"}
        name = names[kind] + (".chunk" if request.get("stream") and kind == "chat" else "")
        model = request.get("model", self.server.model)
        return {"id": "fake-1", "object": name, "created": 1, "model": model}

    def _begin_stream(self) -> None:
        if not self.began:
            self.began = True
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()

    def _stream(self, kind: str, request: Any, words: list[str]) -> None:
        self._begin_stream()
        die_mid = self._shape(request, "die_mid", -1)
        gap = self._shape(request, "gap")
        for number, word in enumerate([*words, ""]):
            if number == die_mid:
                os._exit(1)
            last = number == len(words)
            choice: dict[str, Any] = {"index": 0, "finish_reason": "stop" if last else None}
            content = {} if last else {"content": word}
            choice |= {"delta": content} if kind == "chat" else {"text": word}
            event = {**self._head(kind, request), "choices": [choice]}
            self._chunk(b"data: " + json.dumps(event).encode() + b"\n\n")
            self.task[2] += 1
            if not last:
                self._wait(gap)
        self._chunk(b"data: [DONE]\n\n")
        self.wfile.write(b"0\r\n\r\n")

    def _chunk(self, block: bytes) -> None:
        self.wfile.write(f"{len(block):x}\r\n".encode() + block + b"\r\n")
        self.wfile.flush()

    def _wait(self, seconds: float) -> None:
        """Wait; a client that leaves meanwhile ends it."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            readable, _, _ = select.select([self.connection], [], [], min(left, 0.5))
            if readable:
                if not self.connection.recv(1, socket.MSG_PEEK):
                    raise ClientLeft
                time.sleep(min(left, 0.02))

    def _error(self, status: int, message: str, kind: str) -> None:
        self._json(status, {"error": {"code": status, "message": message, "type": kind}})

    def _json(self, status: int, value: Any) -> None:
        self._send(status, json.dumps(value).encode(), "application/json; charset=utf-8")

    def _send(self, status: int, body: bytes, content_type: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Access-Control-Allow-Origin", "*")
        self.end_headers()
        self.wfile.write(body)


def leave_grandchild(record: Recorder, *, own_session: bool) -> None:
    """Fork a process that outlives this one and keeps the output pipe open.

    Returns when it is there and recorded, and nothing else is left of its making.
    """
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        os.close(reading)
        if own_session:
            os.setsid()
            if os.fork() != 0:
                os._exit(0)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        record("grandchild")
        os.close(writing)
        time.sleep(3600)
        os._exit(0)
    os.close(writing)
    os.read(reading, 1)
    os.close(reading)
    if own_session:
        os.waitpid(child, 0)


def die_later(behaviour: Behaviour) -> None:
    def die() -> None:
        time.sleep(behaviour.number("exit-after"))
        if behaviour.has("signal"):
            os.kill(os.getpid(), getattr(signal, behaviour.text("signal")))
            time.sleep(5)
        os._exit(int(behaviour.number("exit-code")))

    threading.Thread(target=die, daemon=True).start()


def main() -> int:
    behaviour = Behaviour(sys.argv[1:])
    answers = {
        "--version": "version: 0 (fake)",
        "--help": HELP,
        "--list-devices": "Available devices:",
    }
    for flag, answer in answers.items():
        if flag in behaviour.flags:
            print(answer)
            return 0
    record = Recorder(behaviour.text("record"))
    stdin = Path("/proc/self/fd/0")
    record(
        "start",
        argv=sys.argv[1:],
        env=dict(os.environ),
        cwd=str(Path.cwd()),
        ppid=os.getppid(),
        pgid=os.getpgid(0),
        sid=os.getsid(0),
        stdin=str(stdin.readlink()) if stdin.exists() else "",
    )

    def stop(*_: Any) -> None:
        record("stop")
        os._exit(0)

    ignores = behaviour.has("ignore-term")
    signal.signal(signal.SIGTERM, signal.SIG_IGN if ignores else stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN if ignores else stop)
    print(behaviour.text("print", "build: 0 (fake)"), file=sys.stderr, flush=True)
    with contextlib.suppress(OSError):
        os.write(1, b"x" * int(behaviour.number("spam")))
    if behaviour.has("fail"):
        print(behaviour.text("fail"), file=sys.stderr, flush=True)
        return 1
    if behaviour.has("fork") or behaviour.has("daemon"):
        leave_grandchild(record, own_session=behaviour.has("daemon"))
    if behaviour.has("exit-after"):
        die_later(behaviour)
    time.sleep(behaviour.number("listen-after"))
    if behaviour.has("no-listen"):
        time.sleep(3600)
    host = behaviour.flag("--host", default="127.0.0.1")
    port = int(behaviour.flag("--port", default="8080"))
    try:
        server = FakeServer((host, port), behaviour, record)
    except OSError:
        where = f"couldn't bind HTTP server socket, hostname: {host}, port: {port}"
        print(f"start: {where}", file=sys.stderr, flush=True)
        return 1
    port = server.server_address[1]
    print(f"main: server is listening on http://{host}:{port}", file=sys.stderr, flush=True)
    record("listening", port=port)
    server.serve_forever(poll_interval=3600)
    return 0


if __name__ == "__main__":
    sys.exit(main())

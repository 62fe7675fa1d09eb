"""A server over HTTP that gives one sample as its answer, and tokens to whoever asks."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.support.canned_responses import PROJECTS_BODY, TOKEN_BODY


class SampleServer:
    """Answers each call with ``sample``: a row of a file in ``tests/wire``.

    Calls of IAM get a valid token or project, unless the sample is about IAM.

    :param sample: status, headers, and body (JSON) or raw text of the answer.
    :param about_iam: whether the sample answers the calls of IAM, and no others.
    :param requests: methods and paths of the requests that got the sample.
    """

    def __init__(self) -> None:
        self.sample: dict[str, Any] = {}
        self.about_iam = False
        self.requests: list[tuple[str, str]] = []
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def respond(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                owner._respond(self)

            do_GET = do_POST = do_PUT = do_DELETE = respond  # noqa: N815 - names of the library

            def log_message(self, *_: Any) -> None:
                """Print nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        """Stop."""
        self._server.shutdown()
        self._server.server_close()

    def _respond(self, handler: BaseHTTPRequestHandler) -> None:
        if ("/v3/" in handler.path) is self.about_iam:
            self.requests.append((handler.command, handler.path))
            answer = self.sample
        elif "/projects" in handler.path:
            answer = {"body": PROJECTS_BODY}
        else:
            answer = {"status": 201, "headers": {"x-subject-token": "MIIa"}, "body": TOKEN_BODY}
        body = answer["raw"] if "raw" in answer else json.dumps(answer["body"])
        handler.send_response(answer.get("status", 200))
        for name, value in answer.get("headers", {}).items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(body.encode())))
        handler.end_headers()
        handler.wfile.write(body.encode())

"""Serve the page of watched runs on the loopback interface: the page, its events, pictures and two requests, and nothing else.

The address contains a random token, without which nothing is answered. Requests of other pages are refused: the Host header must
name the loopback interface, and a request must come from the page itself.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import threading
import time
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from multiseg.errors import RunError, SettingsError, setting
from multiseg.files import json_text, parse_json, read_bytes, read_text
from multiseg.run.names import PICTURES
from multiseg.run.requests import REQUESTS, ask
from multiseg.watch.page import render
from multiseg.watch.state import ID_DIGITS
from multiseg.watch.watcher import Watcher

HOST = "127.0.0.1"
POLL_SECONDS = 0.4
KEEP_ALIVE_SECONDS = 10.0  # without a change, after which a comment shows whether the browser is still there
MOST_BYTES = 1000  # of a request
Part = tuple[str, str | int]
"""A group of values of the state, and a key or the position of a run in it."""
PICTURE = re.compile(rf"pictures/([0-9a-f]{{{ID_DIGITS}}})/(\d-(?:input|target|output)\.png)")


class WatchServer(ThreadingHTTPServer):
    """The server of one page. ``address`` is the page's, with the token."""

    daemon_threads = True

    def __init__(self, watcher: Watcher, port: int = 0) -> None:
        """Listen on ``port`` of the loopback interface, 0 for any free one. Raises SettingsError if it is in use."""
        self.watcher, self.token = watcher, token()
        self._state: dict[str, Any] = {}
        self._parts: dict[Part, Any] = {}
        self._texts: dict[Part, str] = {}
        self._read = 0.0
        self._reading = threading.Lock()
        try:
            super().__init__((HOST, port), _Handler)
        except OSError as error:
            raise SettingsError(
                f"{setting('port', port)}: cannot listen there: {error.strerror}; choose another one"
            ) from error

    @property
    def address(self) -> str:
        return f"http://{HOST}:{self.server_port}/{self.token}/"

    def state(self) -> dict[str, Any]:
        """Return the state of the runs; read at most once in POLL_SECONDS for all readers together."""
        with self._reading:
            if not self._texts or time.monotonic() - self._read >= POLL_SECONDS:
                parts = _parts(state := self.watcher.state())
                self._texts = {
                    # the watcher returns the same curves until they change
                    key: self._texts[key] if value is self._parts.get(key, ()) else json_text(value, indent=None)
                    for key, value in parts.items()
                }
                self._state, self._parts, self._read = state, parts, time.monotonic()
            return self._state

    def texts(self) -> dict[Part, str]:
        """Return the parts of the state as JSON."""
        self.state()
        return self._texts

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore connections that the browser has closed."""


def _parts(state: dict[str, Any]) -> dict[Part, Any]:
    """Return the parts of a state that are sent when they change: each run and its curves, and what concerns all runs."""
    curves = state["curves"]
    parts: dict[Part, Any] = {("runs", number): record for number, record in enumerate(state["runs"])}
    parts |= {("drawn", number): curve for number, curve in enumerate(curves["runs"])}
    parts |= {("curves", key): value for key, value in curves.items() if key != "runs"}
    return parts | {("all", key): state[key] for key in ("left", "active")} | {("all", "count"): len(state["runs"])}


def token() -> str:
    """Return the user's token, from a file that only the user can read; it is created if it does not exist.

    It stays the same, so that an open page continues when the server is started again on the same port.
    """
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "multiseg"
    path = folder / "watch-token"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(secrets.token_urlsafe(16))
        stored = read_text(path).strip()
    except OSError:
        stored = ""
    return stored if re.fullmatch(r"[\w-]{20,}", stored) else secrets.token_urlsafe(16)


class _Handler(BaseHTTPRequestHandler):
    server: WatchServer
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "multiseg", ""

    def do_GET(self) -> None:
        path = self._path()
        if path is None:
            return
        picture = PICTURE.fullmatch(path)
        if path == "":
            self._page()
        elif path == "events":
            self._events()
        elif picture:
            self._picture(picture[1], picture[2])
        else:
            self._refuse(HTTPStatus.NOT_FOUND)

    def do_POST(self) -> None:
        path = self._path()
        if path is None:
            return
        if path != "request" or self.headers.get("Origin") != f"http://{self.headers['Host']}":
            self._refuse(HTTPStatus.FORBIDDEN)
            return
        size = self.headers.get("Content-Length", "")
        if not size.isdecimal() or int(size) > MOST_BYTES:
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
            return
        try:
            values = parse_json(self.rfile.read(int(size)))
            run, request = values["run"], values["request"]
        except (ValueError, KeyError, TypeError):
            run = request = None
        if not isinstance(run, str) or request not in REQUESTS:
            self._refuse(HTTPStatus.BAD_REQUEST)
            return
        folder = self.server.watcher.folder(run)
        if folder is None:
            self._answer(
                {"error": "this run is no longer watched; use the rows of the runs that are"}, HTTPStatus.NOT_FOUND
            )
            return
        try:
            ask(folder, request)
        except RunError as error:
            self._answer({"error": str(error)})
        else:
            self._answer({})

    def _path(self) -> str | None:
        """Return the path after the token; None, with an answer sent, for a request without it or for another host."""
        host = self.headers.get("Host", "")
        token, slash, path = self.path.partition("?")[0].removeprefix("/").partition("/")
        port = self.server.server_port
        if host not in (f"{HOST}:{port}", f"localhost:{port}"):
            self._refuse(HTTPStatus.FORBIDDEN)
        elif not slash or not secrets.compare_digest(token.encode(), self.server.token.encode()):
            self._refuse(HTTPStatus.NOT_FOUND)
        else:
            return path
        return None

    def _page(self) -> None:
        nonce = secrets.token_urlsafe(16)
        policy = (
            f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'unsafe-inline'; img-src 'self' data:; "
            "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
        text = render(self.server.state(), live=True, nonce=nonce)
        self._send(text.encode(), "text/html; charset=utf-8", {"Content-Security-Policy": policy})

    def _picture(self, run: str, name: str) -> None:
        folder = self.server.watcher.folder(run)
        try:
            content = read_bytes(folder / PICTURES / name) if folder else None
        except OSError:
            content = None
        if content is None:
            self._refuse(HTTPStatus.NOT_FOUND)
        else:
            self._send(content, "image/png")

    def _events(self) -> None:
        """Send what has changed of the state, as server-sent events."""
        self.send_response(HTTPStatus.OK)
        self._headers({"Content-Type": "text/event-stream", "Connection": "close"})
        self.end_headers()
        self.close_connection = True
        sent: dict[Part, str] = {}
        written = time.monotonic()
        while True:
            parts = self.server.texts()
            changed = {key: text for key, text in parts.items() if sent.get(key) != text}
            if changed:
                groups: dict[str, list[str]] = {}
                for (group, key), text in changed.items():
                    groups.setdefault(group, []).append(f"{json.dumps(str(key))}: {text}")
                data = ", ".join(f'"{group}": {{{", ".join(values)}}}' for group, values in groups.items())
                self.wfile.write(f"event: state\ndata: {{{data}}}\n\n".encode())
            elif time.monotonic() - written > KEEP_ALIVE_SECONDS:
                self.wfile.write(b": no change\n\n")
            if changed or time.monotonic() - written > KEEP_ALIVE_SECONDS:
                self.wfile.flush()
                written = time.monotonic()
            sent = parts
            time.sleep(POLL_SECONDS)

    def _answer(self, answer: dict[str, str], status: HTTPStatus = HTTPStatus.OK) -> None:
        self._send(json_text(answer, indent=None).encode(), "application/json", status=status)

    def _send(
        self, content: bytes, kind: str, headers: dict[str, str] | None = None, status: HTTPStatus = HTTPStatus.OK
    ) -> None:
        self.send_response(status)
        self._headers({"Content-Type": kind, "Content-Length": str(len(content)), **(headers or {})})
        self.end_headers()
        self.wfile.write(content)

    def _refuse(self, status: HTTPStatus) -> None:
        self.send_response(status)
        self._headers({"Content-Length": "0", "Connection": "close"})
        self.end_headers()
        self.close_connection = True

    def _headers(self, headers: dict[str, str]) -> None:
        common = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}
        for key, value in (common | headers).items():
            self.send_header(key, value)

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing: the address with its token belongs into no log."""

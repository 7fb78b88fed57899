"""Stands between the database and its key server, and writes down every key that passes in the clear: what an attacker
in the memory of the database would look for."""

from __future__ import annotations

import base64
import http.client
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class RecordingProxy:
    def __init__(self, upstream_port: int) -> None:
        self.keys: dict[str, set[bytes]] = {}
        """Plaintext keys that the key server gave out, by the ARN of the root key."""
        self.is_answering = True
        """Whether anything comes back: a key server that cannot be reached, if not."""
        self._lock = threading.Lock()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                if not proxy.is_answering:
                    self.close_connection = True
                    return
                upstream = http.client.HTTPConnection("127.0.0.1", upstream_port, timeout=60)
                # As it came, host and all: the signature covers it.
                upstream.putrequest("POST", self.path, skip_host=True, skip_accept_encoding=True)
                for name, value in self.headers.items():
                    if name.lower() != "connection":
                        upstream.putheader(name, value)
                upstream.endheaders(body)
                answer = upstream.getresponse()
                text = answer.read()
                upstream.close()
                proxy.note(text)
                self.send_response(answer.status)
                for name, value in answer.getheaders():
                    if name.lower() not in ("connection", "content-length", "transfer-encoding", "date"):
                        self.send_header(name, value)
                self.send_header("content-length", str(len(text)))
                self.end_headers()
                try:
                    self.wfile.write(text)
                except BrokenPipeError:
                    # The database did not wait for the answer; it will ask again.
                    self.close_connection = True

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def note(self, text: bytes) -> None:
        try:
            answer = json.loads(text)
        except ValueError:
            return
        if isinstance(answer, dict) and "Plaintext" in answer:
            with self._lock:
                self.keys.setdefault(answer["KeyId"], set()).add(base64.b64decode(answer["Plaintext"]))

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

"""A local HTTP server that speaks as much of the hub's API as a snapshot download needs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from types import TracebackType
from urllib.parse import unquote, urlsplit

REVISION = "0123456789abcdef0123456789abcdef01234567"


class HubServer:
    """Serves ``files`` as the dataset ``repository``; ``url`` goes into HF_ENDPOINT, ``requests`` lists what was asked.

    listed_size_error: bytes added to every size in the repository's listing, to play a damaged download.
    """

    def __init__(self, repository: str, files: Mapping[str, bytes], listed_size_error: int = 0) -> None:
        self.requests: list[str] = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self) -> None:
                self.answer(body=False)

            def do_GET(self) -> None:
                self.answer(body=True)

            def answer(self, body: bool) -> None:
                path = unquote(urlsplit(self.path).path)
                hub.requests.append(f"{self.command} {path}")
                api, resolve = f"/api/datasets/{repository}", f"/datasets/{repository}/resolve/{REVISION}/"
                content, headers, status = b"", {}, 200
                if path in (api, f"{api}/revision/main"):
                    siblings = [
                        {"rfilename": name, "size": len(data) + listed_size_error} for name, data in files.items()
                    ]
                    content = json.dumps({"id": repository, "sha": REVISION, "siblings": siblings}).encode()
                elif path == f"{api}/tree/{REVISION}":
                    content = json.dumps(
                        [
                            {"type": "file", "path": name, "size": len(data), "oid": blob_id(data)}
                            for name, data in files.items()
                        ]
                    ).encode()
                elif path.startswith(resolve) and path.removeprefix(resolve) in files:
                    content = files[path.removeprefix(resolve)]
                    headers = {"ETag": f'"{blob_id(content)}"', "X-Repo-Commit": REVISION}
                else:
                    status = 404
                self.send_response(status)
                for key, value in {"Content-Type": "application/json", **headers}.items():
                    self.send_header(key, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                if body:
                    self.wfile.write(content)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> HubServer:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()


def blob_id(data: bytes) -> str:
    """Git's object id of a file."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()

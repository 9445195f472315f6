"""Google's storage on this machine: its JSON API over objects in memory, for both clients.

gcsfs asks STORAGE_EMULATOR_HOST instead of Google, as google-cloud-storage does, TensorStore
TENSORSTORE_GCS_HTTP_URL. Preconditions on generations hold, for TensorStore's manifests rest on
them, and listings are strongly consistent, as Google's are.
"""

import contextlib
import datetime
import email
import email.policy
import hashlib
import json
import re
import sys
import threading
import time
import urllib.parse
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count

BUCKET = "bucket"
_OBJECT = re.compile(r"(?:/download|/upload)?/storage/v1/b/([^/]+)(?:/o(?:/(.+))?)?")


@dataclass
class Storage:
    """One bucket. Tests read and change it while it is served.

    objects    name -> (generation, bytes)
    asked      (method, name) of every request so far
    refused    methods that are answered with 403
    touched    name -> when its object or what is told of it was changed last, Unix time
    """

    objects: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    refused: set[str] = field(default_factory=set)
    touched: dict[str, float] = field(default_factory=dict)
    uploads: dict[str, tuple[str, dict, bytearray]] = field(default_factory=dict)
    numbers: Iterator[int] = field(default_factory=lambda: count(1))
    lock: threading.RLock = field(default_factory=threading.RLock)

    def put(self, name: str, data: bytes) -> dict:
        with self.lock:
            self.objects[name] = (next(self.numbers), data)
            self.touched[name] = time.time()
        return self.facts(name)

    def facts(self, name: str) -> dict:
        generation, data = self.objects[name]
        when = datetime.datetime.fromtimestamp(self.touched[name], datetime.UTC)
        when = when.isoformat(timespec="milliseconds").replace("+00:00", "Z")  # as Google's
        return {
            "kind": "storage#object", "bucket": BUCKET, "name": name, "id": f"{BUCKET}/{name}",
            "generation": str(generation), "metageneration": "1", "size": str(len(data)),
            "timeCreated": when, "updated": when, "contentType": "application/octet-stream",
            "md5Hash": b64encode(hashlib.md5(data).digest()).decode(), "storageClass": "STANDARD",
        }  # fmt: skip

    def under(self, folder: str) -> list[str]:
        return sorted(name for name in self.objects if name.startswith(f"{folder}/"))


@contextlib.contextmanager
def serve() -> Iterator[tuple[Storage, dict[str, str]]]:
    """(storage, environment that leads both clients to it)."""
    storage = Storage()
    handler = type("Handler", (_Handler,), {"storage": storage})
    server = _Server(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}"
    environment = {
        "STORAGE_EMULATOR_HOST": address,
        "TENSORSTORE_GCS_HTTP_URL": address,
        # without an account; TensorStore would look for one at a Google machine's own server
        "FSSPEC_GCS_TOKEN": "anon",
        "GCE_METADATA_ROOT": address.removeprefix("http://"),
    }
    try:
        yield storage, environment
    finally:
        server.shutdown()
        server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        """Silent where a client has hung up: gcsfs asks two things and takes the first answer."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    storage: Storage
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        """Nothing: tests look at `Storage.asked`."""

    def _answer(self):
        url = urllib.parse.urlsplit(self.path)
        self.query = {k: v[0] for k, v in urllib.parse.parse_qs(url.query).items()}
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        found = _OBJECT.fullmatch(url.path)
        bucket, name = found.groups() if found else (None, None)
        name = urllib.parse.unquote(name or "")
        with self.storage.lock:
            self.storage.asked.append((self.command, name or self.query.get("name", "")))
            if bucket != BUCKET:
                self._error(404, f"The specified bucket does not exist: {bucket}")
            elif self.command in self.storage.refused:
                self._error(403, "the caller may not do that")
            elif self.command in ("POST", "PUT"):
                self._write()
            elif not name:
                self._json(self._listing() if url.path.endswith("/o") else {"name": BUCKET})
            elif name not in self.storage.objects:
                self._error(404, f"No such object: {BUCKET}/{name}")
            elif self._holds(name):
                {"DELETE": self._delete, "PATCH": self._touch}.get(self.command, self._read)(name)

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = _answer

    def _holds(self, name: str) -> bool:
        """Whether the request's preconditions hold of what there is; answers where they do not."""
        now = self.storage.objects.get(name, (0, b""))[0]
        wanted, other = (self.query.get(f"ifGeneration{k}") for k in ("Match", "NotMatch"))
        if wanted is not None and int(wanted) != now:
            self._error(412, "conditionNotMet")
        elif other is not None and int(other) == now:
            self._send(304, b"")
        else:
            return True
        return False

    def _listing(self) -> dict:
        prefix, cut = self.query.get("prefix", ""), self.query.get("delimiter", "")
        names, folders = [], set()
        for name in sorted(self.storage.objects):
            rest = name[len(prefix) :]
            if name.startswith(prefix) and cut and cut in rest:
                folders.add(prefix + rest.partition(cut)[0] + cut)
            elif name.startswith(prefix):
                names.append(name)
        # by pages, of a prefix or a name each
        low, most = self.query.get("pageToken", ""), int(self.query.get("maxResults", 1000))
        low = max(low, self.query.get("startOffset", ""))
        page = [one for one in sorted([*names, *folders]) if one >= low]
        more = {"nextPageToken": page[most]} if len(page) > most else {}
        page = page[:most]
        items = [self.storage.facts(one) for one in page if one not in folders]
        return {"items": items, "prefixes": [one for one in page if one in folders], **more}

    def _read(self, name: str) -> None:
        generation, data = self.storage.objects[name]
        if self.query.get("alt") != "media":
            self._json(self.storage.facts(name))
            return
        status, more = 200, {"X-Goog-Generation": str(generation)}
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked:
            first, last = int(asked[1]), int(asked[2] or len(data) - 1)
            if first >= len(data):
                self._error(416, "range not satisfiable")
                return
            part = data[first : last + 1]
            more["Content-Range"] = f"bytes {first}-{first + len(part) - 1}/{len(data)}"
            status, data = 206, part
        self._send(status, data, **more)

    def _write(self) -> None:
        kind, name = self.query.get("uploadType"), self.query.get("name", "")
        if "upload_id" in self.query:
            self._continue(self.query["upload_id"])
        elif kind == "resumable":
            name = name or json.loads(self.body)["name"]
            number = str(next(self.storage.numbers))
            self.storage.uploads[number] = (name, self.query, bytearray())
            host, path = self.headers["Host"], f"/upload/storage/v1/b/{BUCKET}/o"
            where = f"http://{host}{path}?uploadType=resumable&upload_id={number}"
            self._send(200, b"", Location=where)
        elif kind == "multipart":
            head = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
            message = email.message_from_bytes(head + self.body, policy=email.policy.HTTP)
            facts, content = message.iter_parts()
            self._put(json.loads(facts.get_content())["name"], content.get_payload(decode=True))
        elif kind == "media":
            self._put(name, self.body)
        else:
            self._error(501, f"{self.command} {self.path} is not served here")

    def _continue(self, number: str) -> None:
        name, query, have = self.storage.uploads[number]
        have += self.body
        total = self.headers.get("Content-Range", "").rpartition("/")[2]
        if total == "*":
            self._send(308, b"", Range=f"bytes=0-{len(have) - 1}")
            return
        self.query = query
        del self.storage.uploads[number]
        self._put(name, bytes(have))

    def _put(self, name: str, data: bytes) -> None:
        if self._holds(name):
            self._json(self.storage.put(name, data))

    def _touch(self, name: str) -> None:
        """What is told of an object is changed: its time, not its generation."""
        self.storage.touched[name] = time.time()
        self._json(self.storage.facts(name) | json.loads(self.body))

    def _delete(self, name: str) -> None:
        del self.storage.objects[name]
        self._send(204, b"")

    def _json(self, value: dict) -> None:
        self._send(200, json.dumps(value).encode())

    def _error(self, status: int, message: str) -> None:
        self._send(status, json.dumps({"error": {"code": status, "message": message}}).encode())

    def _send(self, status: int, data: bytes, **more: str) -> None:
        self.send_response(status)
        for name, value in more.items():
            self.send_header(name.replace("_", "-"), value)
        if status not in (204, 304):
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if status not in (204, 304):
            self.wfile.write(data)

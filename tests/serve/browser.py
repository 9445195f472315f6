"""The page in headless Chromium: a server that answers what the question says, and a script."""

import html
import json
import re
import shutil
import subprocess
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from dig_jax.serve.example import read_example
from tests import ROOT

PAGE = ROOT / "dig_jax" / "serve" / "page.html"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
QUESTION = "What has changed?"
KEY = "secret"

# What scripts of tests have; `out(value)` is what `Browser.run` gives back.
TOOLS = """
const wait = async (test, what) => {
  for (let n = 0; n < 400; n++) { if (test()) return; await new Promise(r => setTimeout(r, 25)); }
  throw new Error("waited for " + (what || test));
};
const file = async (name, width, height, color, type = "image/png") => {
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  const context = canvas.getContext("2d");
  context.fillStyle = color;
  context.fillRect(0, 0, width, height);
  const blob = await new Promise(done => canvas.toBlob(done, type));
  return new File([blob], name, { type });
};
const give = (kind, target, files) => {
  const data = new DataTransfer();
  files.forEach(one => data.items.add(one));
  const told = { bubbles: true, cancelable: true, dataTransfer: data, clipboardData: data };
  const Kind = kind === "drop" ? DragEvent : ClipboardEvent;
  target.dispatchEvent(new Kind(kind, told));
};
const text = id => at(id).innerText.trim().replace(/\\n+/g, "\\n");
const answered = async reply => {
  if (reply) at("question").value = JSON.stringify(reply);
  at("ask").click();
  await wait(() => asking === null, "an answer");
};
const cells = row => [...row.children].map(cell => cell.innerText);
const rows = () => [...document.querySelectorAll("#table tr")].map(cells);
const out = value => {
  const pre = document.createElement("pre");
  pre.id = "out";
  pre.textContent = JSON.stringify(value);
  document.body.append(pre);
};
"""


class Stub(ThreadingHTTPServer):
    """A loopback server with the page; `script` is appended to it, `seen` are the bodies asked.

    A question that is JSON says what is answered: content, thought, finish, status, message, wait.
    With `key` it wants one, and the first `starting` times it says that it is not ready.
    """

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.script, self.seen, self.key, self.starting = "", [], None, 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/"


class _Handler(BaseHTTPRequestHandler):
    def log_message(self, *args):
        """Nothing: a test's output is its own."""

    def do_GET(self):
        if self.path == "/":
            return self._send(PAGE.read_text() + self.server.script, kind="text/html")
        if self.path.startswith("/framed"):
            width = self.path.partition("?")[2]
            frame = f'<iframe src="/" style="border:0;width:{width}px;height:2400px"></iframe>'
            return self._send(f"<body style='margin:0'>{frame}<pre id=out></pre>", kind="text/html")
        if self.server.key and self.headers["Authorization"] != f"Bearer {self.server.key}":
            return self._refuse(401, "no key")
        if self.path == "/v1/models":
            self.server.starting -= 1
            if self.server.starting >= 0:
                return self._refuse(503, "programs are compiled")
            return self._send({"data": [{"id": "tiny"}]})
        return self._send(read_example(QUESTION))

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.seen.append(body)
        if self.server.key and self.headers["Authorization"] != f"Bearer {self.server.key}":
            return self._refuse(401, "no key")
        said = body["messages"][0]["content"][-1]["text"]
        told = json.loads(said) if said.startswith("{") else {"content": "[]"}
        if "status" in told:
            return self._refuse(told["status"], told["message"], told.get("wait"))
        message = {"content": told["content"], "reasoning_content": told.get("thought")}
        choice = {"message": message, "finish_reason": told.get("finish", "stop")}
        return self._send({"choices": [choice], "usage": {"completion_tokens": 7}})

    def _refuse(self, status: int, message: str, wait: str | None = None):
        self._send({"error": {"message": message}}, status=status, wait=wait)

    def _send(self, body, *, status: int = 200, kind: str = "application/json", wait=None):
        data = (body if isinstance(body, str) else json.dumps(body)).encode()
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(data)))
        if wait:
            self.send_header("Retry-After", wait)
        self.end_headers()
        self.wfile.write(data)


@contextmanager
def serving():
    """A `Stub` that runs."""
    stub = Stub()
    thread = threading.Thread(target=stub.serve_forever)
    thread.start()
    try:
        yield stub
    finally:
        stub.shutdown()
        thread.join()
        stub.server_close()


def chromium(url: str, profile: Path, *more: str) -> str:
    """The DOM of a page after its script has run, virtual seconds being free."""
    words = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    words += [f"--user-data-dir={profile}", "--virtual-time-budget=20000", "--dump-dom"]
    words += ["--no-first-run", "--disable-extensions", "--disable-background-networking"]
    done = subprocess.run([*words, *more, url], capture_output=True, text=True, timeout=120)
    return done.stdout


def run(stub: Stub, profile: Path, script: str, *more: str, path: str = ""):
    """What a script gives to `out`; it may await, and its exceptions are raised here."""
    stub.script = (
        f"<script>{TOOLS}(async () => {{ {script} }})()"
        f".catch(error => out('failed: ' + error.stack))</script>"
    )
    dom = chromium(stub.url + path, profile, *more)
    found = re.search(r'<pre id="out">(.*?)</pre>', dom, re.S)
    assert found, f"the script did not come to its end: {dom[-2000:]}"
    value = json.loads(html.unescape(found[1]))
    assert not str(value).startswith("failed: "), value
    return value

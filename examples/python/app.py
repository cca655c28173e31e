"""A pastebin: put text in, get a link out. Only the standard library."""

import html
import os
import secrets
import signal
import threading
from collections import OrderedDict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs

MAX_TEXT = 64 * 1024
MAX_PASTES = 1000

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
  body {{ font: 1rem/1.5 system-ui, sans-serif; max-width: 46rem; margin: 3rem auto; padding: 0 1rem; color: #1d2b26 }}
  h1 {{ color: #0b7a55 }}
  textarea {{ width: 100%; height: 16rem; font: .9rem ui-monospace, monospace; padding: .7rem; box-sizing: border-box }}
  pre {{ background: #eef6f2; padding: 1rem; overflow: auto; border-radius: .4rem }}
  button {{ font: inherit; padding: .5rem 1.5rem; background: #0b7a55; color: #fff; border: 0; border-radius: .4rem }}
</style>
<h1>{title}</h1>
{body}
</html>
"""

FORM = """<form method="post"><textarea name="text" required autofocus></textarea><p><button>Paste</button></form>"""


class Pastes:
    """The latest pastes by their key. Safe for use from many threads."""

    def __init__(self, limit=MAX_PASTES):
        self._lock = threading.Lock()
        self._texts = OrderedDict()
        self._limit = limit

    def add(self, text):
        key = secrets.token_urlsafe(6)
        with self._lock:
            self._texts[key] = text
            while len(self._texts) > self._limit:
                self._texts.popitem(last=False)
        return key

    def get(self, key):
        with self._lock:
            return self._texts.get(key)


class Handler(BaseHTTPRequestHandler):
    timeout = 60  # seconds that a client may take

    def do_GET(self):
        if self.path == "/healthz":
            self.reply(200, "ok\n", "text/plain")
        elif self.path == "/":
            self.page(200, FORM)
        elif (text := self.server.pastes.get(self.path[1:])) is not None:
            self.page(200, f"<pre>{html.escape(text)}</pre><a href='/'>another</a>")
        else:
            self.page(404, "<p>There is no such paste.</p>")

    def do_POST(self):
        try:
            length = int(self.headers.get("Content-Length", ""))
        except ValueError:
            length = -1
        if not 0 <= length <= 3 * MAX_TEXT:
            return self.page(413, "<p>That is too long.</p>")
        fields = parse_qs(self.rfile.read(length).decode("utf-8", "replace"))
        text = fields.get("text", [""])[0]
        if not text.strip() or len(text) > MAX_TEXT:
            return self.page(400, "<p>Paste something first, up to 64 KiB.</p>")
        self.send_response(303)
        self.send_header("Location", "/" + self.server.pastes.add(text))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def page(self, status, body):
        self.reply(status, PAGE.format(title=html.escape(self.server.title), body=body), "text/html; charset=utf-8")

    def reply(self, status, body, kind):
        raw = body.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)


def make_server(address, title):
    server = ThreadingHTTPServer(address, Handler)
    server.pastes, server.title = Pastes(), title
    server.daemon_threads = False
    return server


def main():
    port = int(os.environ.get("PORT", "8080"))
    server = make_server(("", port), os.environ.get("TITLE", "Pastebin"))

    def close(*_):
        print("pastebin closes", flush=True)
        threading.Thread(target=server.shutdown).start()

    signal.signal(signal.SIGTERM, close)
    signal.signal(signal.SIGINT, close)
    print(f"pastebin is open on port {port}", flush=True)
    server.serve_forever(poll_interval=0.1)
    server.server_close()  # waits for answers being given


if __name__ == "__main__":
    main()

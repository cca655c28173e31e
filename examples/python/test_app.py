import threading
import unittest
import urllib.error
import urllib.parse
import urllib.request

import app


class PastebinTest(unittest.TestCase):
    def setUp(self):
        self.server = app.make_server(("127.0.0.1", 0), "Test")
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.base = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.addCleanup(self.server.server_close)
        self.addCleanup(self.server.shutdown)

    def test_paste_and_read(self):
        body = urllib.parse.urlencode({"text": "<script>1 & 2</script>"}).encode()
        with urllib.request.urlopen(self.base + "/", body) as answer:
            self.assertIn("&lt;script&gt;1 &amp; 2", answer.read().decode())
            self.assertNotEqual(answer.url, self.base + "/")

    def test_refusals(self):
        for path, body, want in [("/nothing", None, 404), ("/", b"text=+", 400), ("/", b"text=" + b"x" * (4 * app.MAX_TEXT), 413)]:
            with self.subTest(path=path), self.assertRaises(urllib.error.HTTPError) as raised:
                urllib.request.urlopen(self.base + path, body)
            self.assertEqual(raised.exception.code, want)
            raised.exception.close()

    def test_oldest_is_forgotten(self):
        pastes = app.Pastes(limit=2)
        keys = [pastes.add(str(n)) for n in range(3)]
        self.assertEqual([pastes.get(k) for k in keys], [None, "1", "2"])


if __name__ == "__main__":
    unittest.main()

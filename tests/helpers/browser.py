"""A headless Chromium, driven over its DevTools pipe: no package needed."""

import base64
import json
import os
import shutil
import subprocess
import tempfile
import time
from contextlib import contextmanager

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-extensions"),
    *("--no-first-run", "--disable-background-networking", "--remote-debugging-pipe"),
)


class Tab:
    """A page in the browser.

    Attributes:
        messages: what the console said, and exceptions.
        requests: addresses that the page asked for.
    """

    def __init__(self, out, into):
        self._out, self._into, self._last, self._rest = out, into, 0, b""
        self._session = None
        self.messages, self.requests = [], []
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        session = self.send("Target.attachToTarget", targetId=target, flatten=True)
        self._session = session["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def send(self, method, **params):
        """Call a method of the DevTools protocol; returns its result."""
        self._last += 1
        call = {"id": self._last, "method": method, "params": params}
        call |= {"sessionId": self._session} if self._session else {}
        os.write(self._out, json.dumps(call).encode() + b"\0")
        while True:
            event = self._read()
            if event.get("id") == self._last:
                assert "error" not in event, event
                return event["result"]
            self._note(event)

    def _read(self):
        while b"\0" not in self._rest:
            self._rest += os.read(self._into, 2**20)
        first, self._rest = self._rest.split(b"\0", 1)
        return json.loads(first)

    def _note(self, event):
        name, params = event.get("method"), event.get("params", {})
        if name in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown"):
            self.messages.append(params)
        elif name == "Log.entryAdded":
            self.messages.append(params["entry"])
        elif name == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])

    def open(self, path, width=1280, height=900, dark=False, media=""):
        """Show a file, in a window of this size."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1}
        self.send("Emulation.setDeviceMetricsOverride", mobile=width < 600, **size)
        value = "dark" if dark else "light"
        scheme = [{"name": "prefers-color-scheme", "value": value}]
        self.send("Emulation.setEmulatedMedia", media=media, features=scheme)
        self.send("Page.navigate", url=f"file://{path}")
        self.wait("document.readyState === 'complete'")
        charts = "[...document.querySelectorAll('.chart')]"
        self.wait(f"{charts}.every(chart => chart.querySelector('svg'))")

    def evaluate(self, expression):
        """Return the value of an expression in the page."""
        found = self.send("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def wait(self, expression, seconds=20):
        """Wait until an expression is true."""
        end = time.monotonic() + seconds
        while not self.evaluate(expression):
            assert time.monotonic() < end, expression
            time.sleep(0.05)

    def point(self, selector, at=0, press=False):
        """Move the pointer to an element, and perhaps press it."""
        place = self.evaluate(
            f"(() => {{const e = document.querySelectorAll({selector!r})[{at}];"
            "e.scrollIntoView({block: 'center'}); const b = e.getBoundingClientRect();"
            "return [b.x + b.width / 2, b.y + b.height / 2]})()"
        )
        where = dict(zip("xy", place, strict=True))
        for x, y in ((1, 1), place):  # it may rest there already
            self.send("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        button = {"button": "left", "clickCount": 1}
        for kind in ("mousePressed", "mouseReleased") * press:
            self.send("Input.dispatchMouseEvent", type=kind, **where, **button)

    def screenshot(self, path, full=True):
        """Save a picture of the page."""
        found = self.send("Page.captureScreenshot", captureBeyondViewport=full)
        path.write_bytes(base64.b64decode(found["data"]))

    def print(self, path):
        """Save the page as it prints."""
        found = self.send("Page.printToPDF", printBackground=True)
        path.write_bytes(base64.b64decode(found["data"]))


@contextmanager
def open_tab():
    """Run a browser for the block."""
    mine, its = os.pipe(), os.pipe()

    def connect():  # Chromium reads from 3 and writes to 4
        reads, writes = os.dup(mine[0]), os.dup(its[1])
        os.dup2(reads, 3)
        os.dup2(writes, 4)

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            [CHROMIUM, *_FLAGS, f"--user-data-dir={profile}"],
            preexec_fn=connect,
            close_fds=False,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            yield Tab(mine[1], its[0])
        finally:
            process.kill()
            process.wait()
            for end in (*mine, *its):
                os.close(end)

#!/usr/bin/env python3
"""Opens a page of `bitpact report` in headless Chromium and clicks through it.

    python3 benchmarks/report_page.py PAGE.html RUN [--shots DIR] [--chromium NAME]

Fails on errors in the console, on any request but the page itself, on charts that are missing or do not hold the numbers
of RUN/records.jsonl, on pointers and keys that nothing answers, on a page of 3 MB or more, on a first paint after a second,
and on text with less contrast than WCAG AA asks for. --shots writes pictures in light, dark and phone width.
Speaks the DevTools protocol through a pipe; needs nothing but Python and Chromium.
"""
import argparse, base64, json, os, pathlib, subprocess, sys, tempfile, time


class Browser:
    def __init__(self, name):
        self.profile = tempfile.TemporaryDirectory()
        ours_in, theirs_out = os.pipe()
        theirs_in, ours_out = os.pipe()
        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "--no-first-run", "--hide-scrollbars",
                 "--disable-background-networking", "--disable-component-update", f"--user-data-dir={self.profile.name}"]

        def pipes():
            # Chromium reads from 3 and writes to 4.
            a, b = os.dup(theirs_in), os.dup(theirs_out)
            os.dup2(a, 3), os.dup2(b, 4)

        self.process = subprocess.Popen([name, *flags], preexec_fn=pipes, close_fds=False, stderr=subprocess.DEVNULL)
        os.close(theirs_in), os.close(theirs_out)
        self.read, self.write = os.fdopen(ours_in, "rb"), os.fdopen(ours_out, "wb")
        self.events, self.number, self.session = [], 0, None

    def message(self):
        data = bytearray()
        while (byte := self.read.read(1)) != b"\0":
            if not byte:
                raise SystemExit("Chromium has gone away")
            data += byte
        return json.loads(data)

    def call(self, method, **params):
        self.number += 1
        number = self.number
        message = {"id": number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        self.write.write(json.dumps(message).encode() + b"\0")
        self.write.flush()
        while True:
            answer = self.message()
            if answer.get("id") == number:
                if "error" in answer:
                    raise SystemExit(f"{method}: {answer['error']}")
                return answer["result"]
            self.events.append(answer)

    def wait(self, method):
        while not any(event.get("method") == method for event in self.events):
            self.events.append(self.message())

    def of(self, method):
        return [event["params"] for event in self.events if event.get("method") == method]

    def value(self, expression):
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise SystemExit(f"{expression}: {result['exceptionDetails']}")
        return result["result"].get("value")

    def close(self):
        self.session = None
        try:
            self.call("Browser.close")
        except (SystemExit, BrokenPipeError, OSError):
            pass
        self.process.wait(timeout=30)


CONTRAST = """(() => {
  const parse = text => { const n = text.match(/[\\d.]+/g).map(Number); return n.length < 4 ? [...n, 1] : n; };
  const probe = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
  const rgb = text => { probe.clearRect(0, 0, 1, 1); probe.fillStyle = text; probe.fillRect(0, 0, 1, 1);
    const d = probe.getImageData(0, 0, 1, 1).data; return [d[0], d[1], d[2], d[3] / 255]; };
  const over = (top, below) => [0, 1, 2].map(i => top[i] * top[3] + below[i] * (1 - top[3]));
  const light = c => { const [r, g, b] = c.map(v => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const behind = element => { const layers = [];
    for (let e = element; e; e = e.parentElement) layers.push(rgb(getComputedStyle(e).backgroundColor));
    return layers.reduceRight((below, top) => over(top, below), [255, 255, 255]); };
  const bad = [];
  for (const element of document.querySelectorAll('p, th, td, dt, dd, h1, h2, h3, h4, li, summary, figcaption strong, figcaption span, small, caption')) {
    if (!element.textContent.trim() || !element.getClientRects().length || element.closest('.tip')) continue;
    const below = behind(element), style = getComputedStyle(element), own = over(rgb(style.color), below);
    const [a, b] = [light(own), light(below)].sort((x, y) => y - x), ratio = (a + 0.05) / (b + 0.05);
    const large = parseFloat(style.fontSize) >= 24;
    if (ratio < (large ? 3 : 4.5)) bad.push(element.textContent.trim().slice(0, 40) + ': ' + ratio.toFixed(2));
  }
  return bad.slice(0, 8);
})()"""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=pathlib.Path)
    parser.add_argument("run", type=pathlib.Path)
    parser.add_argument("--shots", type=pathlib.Path)
    parser.add_argument("--chromium", default="chromium")
    args = parser.parse_args()
    faults = []

    def check(ok, text):
        print(("ok    " if ok else "FAIL  ") + text)
        if not ok:
            faults.append(text)

    records = [json.loads(line) for line in (args.run / "records.jsonl").open() if line.endswith("\n")]
    epochs = [record for record in records if record["kind"] == "epoch"]
    warnings = [record["message"] for record in records if record["kind"] == "warning"]
    size = args.page.stat().st_size
    check(size < 3_000_000, f"{size / 1e6:.2f} MB")
    browser = Browser(args.chromium)
    try:
        target = browser.call("Target.createTarget", url="about:blank")["targetId"]
        browser.session = browser.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ["Page", "Runtime", "Network", "Log", "DOM"]:
            browser.call(f"{domain}.enable")
        browser.call("Emulation.setDeviceMetricsOverride", width=1280, height=900, deviceScaleFactor=1, mobile=False)
        address = args.page.resolve().as_uri()
        browser.call("Page.navigate", url=address)
        browser.wait("Page.loadEventFired")
        time.sleep(0.3)
        paint = browser.value("(performance.getEntriesByType('paint')[0] || {startTime: -1}).startTime")
        check(0 <= paint < 1000, f"first paint after {paint:.0f} ms")
        charts = browser.value("document.querySelectorAll('figure.chart svg').length")
        check(charts >= 4, f"{charts} charts")
        data = browser.value("[...document.querySelectorAll('figure.chart')].map(f => [f.querySelector('strong').textContent, JSON.parse(f.dataset.chart)])")
        charts = {title: chart for title, chart in data}
        close = lambda a, b: abs(a - b) <= 1e-5 * max(1e-9, abs(a), abs(b))
        loss = charts["Loss in training"]["lines"][0]["points"]
        check(len(loss) == len(epochs) and all(close(p[1], e["loss"]) for p, e in zip(loss, epochs)), f"{len(loss)} losses are the run's")
        if "Clip values" in charts:
            wanted = {layer["name"]: layer["alpha"] for layer in epochs[-1]["layers"]}
            drawn = {line["name"]: line["points"][-1][1] for line in charts["Clip values"]["lines"]}
            check(wanted.keys() == drawn.keys() and all(close(wanted[n], drawn[n]) for n in wanted), f"{len(drawn)} clip values are the run's")
        text = browser.value("document.querySelector('main').textContent")
        for warning in warnings:
            check(warning in text, f"warning: {warning[:60]}")
        # The pointer.
        browser.value("document.querySelector('figure.chart').scrollIntoView({ block: 'center', behavior: 'instant' })")
        box = browser.value("(() => { const a = document.querySelector('figure.chart svg').getBoundingClientRect(); return [a.left, a.top, a.width, a.height]; })()")
        first = charts["Loss in training"]
        tip = ""
        for place in range(0, 11 * 21, 5):
            across, down = place % 21 / 20, place // 21 / 10
            browser.call("Input.dispatchMouseEvent", type="mouseMoved", x=box[0] + box[2] * across, y=box[1] + box[3] * down)
            tip = browser.value("document.querySelector('figure.chart .tip').hidden ? '' : document.querySelector('figure.chart .tip').textContent")
            if tip:
                break
        check("loss" in tip and first["labels"][0] in tip, f"the pointer shows: {tip}")
        # Keys.
        browser.value("document.querySelector('figure.chart').focus()")
        for _ in range(2):
            for kind in ["keyDown", "keyUp"]:
                browser.call("Input.dispatchKeyEvent", type=kind, key="ArrowRight", code="ArrowRight", windowsVirtualKeyCode=39)
        tip = browser.value("document.querySelector('figure.chart .tip').hidden ? '' : document.querySelector('figure.chart .tip').textContent")
        check("loss" in tip, f"arrow keys show: {tip}")
        # Everything that can be opened, and every link.
        opened = browser.value("(() => { const all = [...document.querySelectorAll('summary')]; all.forEach(s => { if (!s.parentElement.open) s.click(); }); return all.every(s => s.parentElement.open) ? all.length : -1; })()")
        check(opened > 0, f"{opened} parts open")
        links = browser.value("[...document.querySelectorAll('a[href^=\"#\"]')].every(a => document.querySelector(a.getAttribute('href')))")
        check(links, "every link leads somewhere")
        images = browser.value("[...document.images].every(i => i.complete && i.naturalWidth > 0 && i.alt)")
        check(images, f"{browser.value('document.images.length')} pictures, each with a text")
        titled = browser.value("[...document.querySelectorAll('svg')].every(s => s.getAttribute('aria-hidden') && s.closest('[aria-label], .example'))")
        check(titled, "every chart has a text")
        for scheme in ["light", "dark"]:
            browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
            bad = browser.value(CONTRAST)
            check(not bad, f"contrast in {scheme}: {bad or 'AA'}")
        widths = {}
        for name, width in [("phone", 390), ("desktop", 1280)]:
            browser.call("Emulation.setDeviceMetricsOverride", width=width, height=844, deviceScaleFactor=1, mobile=name == "phone")
            widths[name] = browser.value("document.documentElement.scrollWidth")
            check(widths[name] <= width, f"{name}: {widths[name]} of {width} pixels wide")
        pdf = browser.call("Page.printToPDF", printBackground=True)
        check(len(pdf["data"]) > 10_000, "prints")
        requests = [r["request"]["url"] for r in browser.of("Network.requestWillBeSent")]
        others = [url for url in requests if url != address and not url.startswith("data:")]
        check(not others, f"no request but the page: {others[:3]}")
        errors = [e["exceptionDetails"]["text"] for e in browser.of("Runtime.exceptionThrown")]
        errors += [str(e["args"]) for e in browser.of("Runtime.consoleAPICalled") if e["type"] in ("error", "assert")]
        errors += [e["entry"]["text"] for e in browser.of("Log.entryAdded") if e["entry"]["level"] == "error"]
        check(not errors, f"no errors in the console: {errors[:3]}")
        if args.shots:
            shots(browser, args.shots, address)
    finally:
        browser.close()
    sys.exit(f"{len(faults)} faults" if faults else 0)


def shots(browser, folder, address):
    folder.mkdir(parents=True, exist_ok=True)
    for name, width, scheme, mobile in [("light", 1280, "light", False), ("dark", 1280, "dark", False), ("phone", 390, "light", True)]:
        browser.events.clear()
        browser.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=mobile)
        browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        browser.call("Page.navigate", url=address)
        browser.wait("Page.loadEventFired")
        time.sleep(0.4)
        height = min(browser.value("document.documentElement.scrollHeight"), 16000)
        clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        shot = browser.call("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
        (folder / f"{name}.png").write_bytes(base64.b64decode(shot["data"]))


main()

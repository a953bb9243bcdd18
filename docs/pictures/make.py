#!/usr/bin/env python3
"""Makes the pictures of the README from a run: python3 docs/pictures/make.py BITPACT RUN [--data DIR]

dashboard.png is the screen of `bitpact watch RUN` in tmux, report.png a part of its page in headless Chromium.
"""
import argparse, html, pathlib, re, subprocess, tempfile, time

HERE = pathlib.Path(__file__).resolve().parent
COLUMNS, ROWS = 112, 34
BASIC = ["#1b1d21", "#cc4b4b", "#5fae57", "#d2a038", "#4f8fd0", "#a56cc1", "#3fa8b5", "#c9ced6"]
BRIGHT = ["#6b7280", "#ff6b6b", "#7ddf72", "#f3d35b", "#78b6f5", "#cf97ea", "#67d7e4", "#ffffff"]


def indexed(n):
    if n < 16:
        return (BASIC + BRIGHT)[n]
    if n >= 232:
        return "#" + f"{8 + 10 * (n - 232):02x}" * 3
    level = lambda v: 0 if v == 0 else 55 + 40 * v
    return "#%02x%02x%02x" % tuple(level((n - 16) // by % 6) for by in (36, 6, 1))


def spans(line, state):
    """The cells of a line of `tmux capture-pane -e` as HTML."""
    out = ""
    for part in re.split(r"(\x1b\[[\d;]*m)", line):
        code = re.fullmatch(r"\x1b\[([\d;]*)m", part)
        if not code:
            if part:
                style = f"color:{state.get('fg', '#c9ced6')}" + (";font-weight:700" if state.get("bold") else "") + (";opacity:.55" if state.get("dim") else "")
                # The font has no Braille: its cells are given the width of the others.
                text = re.sub("[\u2800-\u28ff]", lambda cell: f"<i>{cell[0]}</i>", html.escape(part))
                out += f'<span style="{style}">{text}</span>'
            continue
        codes = [int(c or 0) for c in code[1].split(";")]
        while codes:
            c = codes.pop(0)
            if c == 0:
                state.clear()
            elif c in (1, 2):
                state["bold" if c == 1 else "dim"] = True
            elif c == 22:
                state.pop("bold", None), state.pop("dim", None)
            elif 30 <= c <= 37:
                state["fg"] = BASIC[c - 30]
            elif 90 <= c <= 97:
                state["fg"] = BRIGHT[c - 90]
            elif c == 38 and codes[0] == 5:
                state["fg"] = indexed(codes[1])
                codes = codes[2:]
            elif c == 39:
                state.pop("fg", None)
    return out


def shoot(address, target, width, height):
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--force-prefers-reduced-motion", "--virtual-time-budget=2000", f"--window-size={width},{height}"]
    subprocess.run(["chromium", *flags, f"--screenshot={target}", address], check=True, stderr=subprocess.DEVNULL)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bitpact"), parser.add_argument("run"), parser.add_argument("--data")
    args = parser.parse_args()
    tmux = ["tmux", "-L", "bitpact-pictures"]
    subprocess.run([*tmux, "new-session", "-d", "-s", "w", "-x", str(COLUMNS), "-y", str(ROWS), args.bitpact, "watch", args.run], check=True)
    time.sleep(3)
    screen = subprocess.run([*tmux, "capture-pane", "-e", "-p", "-t", "w"], check=True, capture_output=True, text=True).stdout
    subprocess.run([*tmux, "send-keys", "-t", "w", "q"], check=True)
    state = {}
    lines = "\n".join(spans(line, state) for line in screen.rstrip("\n").split("\n"))
    with tempfile.TemporaryDirectory() as folder:
        page = pathlib.Path(folder) / "screen.html"
        page.write_text(f'<meta charset="utf-8"><style>i{{display:inline-block;width:1ch;font-style:normal}}</style><body style="margin:0;background:#14161a"><pre style="margin:14px;font:14px/17px DejaVu Sans Mono,monospace">{lines}</pre>')
        shoot(page.as_uri(), HERE / "dashboard.png", 28 + round(8.43 * COLUMNS), 28 + 17 * ROWS)
        report = pathlib.Path(folder) / "report.html"
        data = ["--data", args.data] if args.data else []
        subprocess.run([args.bitpact, "report", args.run, "-o", report, *data], check=True)
        hidden = "#summary, #warnings, #curves { display: none }"
        report.write_text(report.read_text().replace("</style>", f"{hidden}</style>", 1))
        shoot(report.as_uri(), HERE / "report.png", 1180, 1000)


main()

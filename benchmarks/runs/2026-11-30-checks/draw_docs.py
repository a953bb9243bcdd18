"""Draws twenty documented public items of a commit and writes their docs then and in the working tree as a table.

usage: draw_docs.py COMMIT > docs.md          in the root of the repository
"""

import random
import re
import subprocess
import sys
from pathlib import Path

SEED = 7
ITEM = re.compile(r"\s*pub (?:const |unsafe )*(?:fn|struct|enum|trait|type|const|static|mod)?\s*([A-Za-z_0-9]+)")
INNER = re.compile(r"\s+(?:fn )?([A-Za-z_0-9]+)\s*[({,:<]")


def git(*words):
    return subprocess.run(["git", *words], capture_output=True, text=True, check=True).stdout


def documented(text):
    """Name and first paragraph of every public item, field and variant before the tests of a file."""
    lines = text.split("#[cfg(test)]\nmod tests")[0].split("\n")
    inside, i = False, 0
    while i < len(lines):
        first = i
        while i < len(lines) and re.match(r"\s*///", lines[i]):
            i += 1
        doc = [re.sub(r"\s*/// ?", "", line) for line in lines[first:i]]
        while i < len(lines) and re.match(r"\s*#\[", lines[i]):
            i += 1
        if i == len(lines):
            return
        found = ITEM.match(lines[i]) or (INNER.match(lines[i]) if inside else None)
        if doc and found:
            end = doc.index("") if "" in doc else len(doc)
            yield found.group(1), " ".join(doc[:end])
        inside = bool(re.match(r"pub (enum|trait)", lines[i])) or (inside and lines[i] != "}")
        i += 1


def items(commit):
    """Items by crate and name, of a commit or of the working tree."""
    names = git("ls-tree", "-r", "--name-only", commit) if commit else git("ls-files")
    for name in sorted(names.split("\n")):
        in_library = re.match(r"crates/[^/]+/src/.*\.rs$", name) and "bitpact-cli" not in name
        if in_library and "tests" not in name and (commit or Path(name).exists()):
            text = git("show", f"{commit}:{name}") if commit else Path(name).read_text()
            for item, doc in documented(text):
                yield name, item, doc


def main():
    commit = sys.argv[1]
    before, now = sorted(set(items(commit))), sorted(set(items("")))
    drawn = random.Random(SEED).sample(before, 20)
    print("# Twenty docs, before and after\n")
    print(f"Of {len(before):,} documented public items of commit `{commit}`, drawn with seed {SEED} by `draw_docs.py`;")
    print(f"now there are {len(now):,}.\n\n| item | before | after |\n|---|---|---|")
    for name, item, doc in sorted(drawn):
        crate = name.split("/")[1]
        same = [(n, d) for n, i, d in now if i == item and n.split("/")[1] == crate]
        there = [d for n, d in same if n == name] or [d for n, d in same if Path(n).name == Path(name).name]
        after = "the same" if doc in there else there[0] if there else "no longer public"
        cell = lambda text: text.replace("|", "\\|")
        print(f"| `{item}`, {crate} `{name.split('/src/')[1]}` | {cell(doc)} | {cell(after)} |")


main()

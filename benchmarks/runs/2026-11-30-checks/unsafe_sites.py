"""Counts `unsafe` blocks, functions, impls and traits of Rust sources, without comments and strings:
python3 unsafe_sites.py FOLDER"""

import pathlib
import re
import sys

KINDS = {"blocks": r"\bunsafe\s*\{", "functions": r"\bunsafe\s+fn\b", "impls": r"\bunsafe\s+impl\b", "traits": r"\bunsafe\s+trait\b"}
TEXT = r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\])*"'

code = [re.sub(TEXT, "", path.read_text(), flags=re.S) for path in pathlib.Path(sys.argv[1]).rglob("*.rs")]
for name, pattern in KINDS.items():
    print(name, sum(len(re.findall(pattern, text)) for text in code))

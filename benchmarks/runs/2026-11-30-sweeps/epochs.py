#!/usr/bin/env python3
"""Prints the metrics of every epoch of every run in a folder of `bitpact sweep`, a line each: python3 epochs.py FOLDER"""
import json
import pathlib
import sys

for records in sorted(pathlib.Path(sys.argv[1]).glob("*/records.jsonl")):
    for line in records.open():
        record = json.loads(line)
        if record.pop("kind") == "epoch":
            metrics = {key: value for key, value in record.items() if key not in ("layers", "weights")}
            print(json.dumps({"run": records.parent.name, **metrics}, separators=(",", ":")))

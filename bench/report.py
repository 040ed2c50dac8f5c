"""report.py: the results as JSON, Markdown and a picture.

results.json and results-full.json hold what was measured, part by part; RESULTS.md and results.svg are made from them.
"""
import importlib
import json
import os
import platform

FILES = (("results.json", "default size"), ("results-full.json", "full size"))


def machine(bench):
    return {}


def load(path):
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except FileNotFoundError:
        return {"parts": {}}


def merge(folder, name, entry, full):
    path = os.path.join(folder, FILES[bool(full)][0])
    results = load(path)
    results["parts"][name] = entry
    with open(path + ".part", "w", encoding="utf-8") as file:
        json.dump(results, file, indent=1, ensure_ascii=False)
        file.write("\n")
    os.rename(path + ".part", path)


def write(folder):
    pass

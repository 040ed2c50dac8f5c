"""report.py: the results as JSON, Markdown and a picture.

results.json and results-full.json hold what was measured, part by part; RESULTS.md and results.svg are made from them
and can be made again without measuring:  python3 bench/report.py
"""
import importlib
import json
import os
import platform
import subprocess
import sys

import picture
from common import BUDGETS, HERE, REPOSITORY, say, text
from measure import Instructions

SIZES = (("results.json", "default size"), ("results-full.json", "full size"))
PARTS = ("bulk", "pipeline", "single", "growth", "staleness", "match", "route", "peers")
# In the picture's colour, and here in words.
MET = {True: "yes", False: "**no**", None: "could not be told"}

INTRODUCTION = """# Results

Written by `bench/run` (`make bench`, `make bench-full`); do not edit. What was found, tried and dropped on the way is in
[README.md](README.md). Every figure stands next to its reference from the same run on the same machine; ratios count, absolute figures
are this machine's.

![Ratios to the references](results.svg)
"""


def output_of(*command):
    try:
        return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL,
                              check=True).stdout.decode(errors="replace").strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def field(path, name):
    """What stands behind "name :" in a file of /proc."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return next((line.split(":", 1)[1].strip() for line in file if line.startswith(name)), "")
    except OSError:
        return ""


def machine(bench):
    """What a reader must know to judge the figures."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    commit = output_of("git", "-C", REPOSITORY, "rev-parse", "--short", "HEAD")
    if commit and output_of("git", "-C", REPOSITORY, "status", "--porcelain", "--untracked-files=no", "--", "src"):
        commit += " with changes"
    return {
        "processor": field("/proc/cpuinfo", "model name") or platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "memory": "%.0f GB" % (memory / 2 ** 30),
        "file system": output_of("stat", "-f", "-c", "%T", bench.work),
        "system": "%s %s" % (platform.system(), platform.release()),
        "PostgreSQL": bench.value("postgres", "SHOW server_version"),
        "hll": "yes" if bench.have("hll") else "no",
        "instructions counted": "yes" if Instructions.available() else "no",
        "commit": commit or "unknown",
    }


def load(folder, name):
    try:
        with open(os.path.join(folder, name), encoding="utf-8") as file:
            return json.load(file)
    except FileNotFoundError:
        return {"parts": {}}


def merge(folder, part, entry, full, only=None):
    """Replaces a part's results; with "only" the rows of these curves or cases, and the others stay with the runs that made them."""
    name = SIZES[bool(full)][0]
    results = load(folder, name)
    this = {key: entry[key] for key in ("date", "seconds", "load_average", "load_average_after")}
    entry["runs"] = [dict(this, only=sorted(only or ()), commit=entry["machine"]["commit"])]
    if only:
        earlier = results["parts"].get(part, {}).get("runs") or []
        entry["runs"] = [run for run in earlier if not set(run["only"]) <= set(only) or not run["only"]] + entry["runs"]
        entry["rows"] = [row for row in rows_of(results, part) if row.get("dimension", row.get("case")) not in only] + entry["rows"]
    results["parts"][part] = entry
    replace(folder, name, json.dumps(results, indent=1, ensure_ascii=False) + "\n")


def replace(folder, name, content):
    path = os.path.join(folder, name)
    with open(path + ".part", "w", encoding="utf-8") as file:
        file.write(content)
    os.rename(path + ".part", path)


def known_parts():
    return [(name, importlib.import_module(name)) for name in PARTS if os.path.exists(os.path.join(HERE, name + ".py"))]


def rows_of(results, name):
    return results["parts"].get(name, {}).get("rows") or []


def made(part, what, rows):
    """part.what(rows); nothing, with a line that says so, of rows that an older version of the part measured."""
    if not rows:
        return []
    try:
        return getattr(part, what)(rows)
    except (KeyError, TypeError, IndexError, ValueError) as error:
        say("%s of %s cannot be made of its results, measure it again: %r" % (what, part.__name__, error))
        return []


def table(head, lines):
    return "\n".join(["| %s |" % " | ".join(line) for line in [head, ["---"] * len(head)] + lines]) + "\n"


def budgets_table(all_results):
    """Every budget, with what each size measured."""
    measured = [{}, {}]
    for name, part in known_parts():
        for size, results in enumerate(all_results):
            rows = rows_of(results, name)
            for budget in made(part, "budgets", rows):
                measured[size][budget["name"]] = budget
    sizes = [size for size in (0, 1) if measured[size] or size == 0]
    head = ["what", "budget"]
    for size in sizes:
        head += [SIZES[size][1], "met"]
    lines = []
    for name, part, what, budget in BUDGETS:
        cells = [what, budget]
        for size in sizes:
            entry = measured[size].get(name)
            if entry:
                note = " (%s)" % entry["note"] if entry.get("note") else ""
                cells += [entry["measured"] + note, MET[entry["met"]]]
            else:
                cells += ["not measured", ""]
        lines.append(cells)
    return table(head, lines)


def runs_of(entry):
    """When a part was measured: once, or some of its curves or cases at a time."""
    return entry.get("runs") or [dict(entry, only=[], commit=entry["machine"]["commit"])]


def runs_table(all_results):
    lines = []
    for (_, size), results in zip(SIZES, all_results):
        entries = [results["parts"][name] for name, _ in known_parts() if name in results["parts"]]
        runs = [(entry["title"], run) for entry in entries for run in runs_of(entry)]
        for title, run in runs:
            what = ": " + ", ".join(run["only"]) if run["only"] else ""
            lines.append(["%s%s, %s" % (title, what, size), run["date"], duration(run["seconds"]),
                          "%s / %s" % (text(run["load_average"], 1), text(run["load_average_after"], 1)), run["commit"]])
        if len(runs) > 1:
            lines.append(["all of %s" % size, "", duration(sum(run["seconds"] for _, run in runs)), "", ""])
    return table(["part", "begun", "took", "load average before / after", "commit"], lines) if lines else ""


def duration(seconds):
    return "%d:%02d min" % divmod(round(seconds), 60)


def shared(entries, key):
    """One line for what all entries have in common, more where they differ."""
    found = {}
    for title, entry in entries:
        items = tuple((k, str(v)) for k, v in entry[key].items() if k != "commit")
        found.setdefault(items, []).append(title)
    lines = []
    for items, titles in found.items():
        who = "" if len(found) == 1 else "%s: " % ", ".join(dict.fromkeys(titles))
        lines.append("* %s%s" % (who, ", ".join("%s %s" % item if key == "machine" else "`%s = %s`" % item
                                              for item in items)))
    return "\n".join(lines) + "\n"


def markdown(all_results):
    entries = [(entry["title"], entry) for results in all_results for entry in results["parts"].values()]
    out = [INTRODUCTION]
    if not entries:
        return "\n".join(out + ["Nothing was measured yet.\n"])
    out += ["## Budgets\n", budgets_table(all_results), "## Machine and settings\n", shared(entries, "machine"),
            "Everything else is PostgreSQL's default, durability above all (fsync, full_page_writes, synchronous_commit "
            "where nothing else is said). The same server serves both sides:\n", shared(entries, "settings"),
            runs_table(all_results)]
    for name, part in known_parts():
        some = [(size, made(part, "tables", rows_of(results, name))) for (_, size), results in zip(SIZES, all_results)]
        if any(tables for _, tables in some):
            out.append("## %s\n" % part.TITLE)
        for size, tables in some:
            if tables:
                out += ["### %s, %s\n" % (part.TITLE, size), tables.rstrip("\n") + "\n"]
    return "\n".join(out)


def charts(all_results):
    out = []
    for name, part in known_parts():
        for (_, size), results in zip(SIZES, all_results):
            rows = rows_of(results, name)
            for chart in made(part, "chart", rows):
                out.append(dict(chart, title="%s (%s)" % (chart["title"], size)))
    return out


def write(folder):
    """Writes RESULTS.md and results.svg from the JSON files in a folder."""
    all_results = [load(folder, name) for name, _ in SIZES]
    replace(folder, "RESULTS.md", markdown(all_results).rstrip("\n") + "\n")
    replace(folder, "results.svg", picture.draw(charts(all_results)))


if __name__ == "__main__":
    write(sys.argv[1] if len(sys.argv) > 1 else HERE)

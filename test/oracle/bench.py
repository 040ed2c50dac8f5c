#!/usr/bin/env python3
"""The benchmark suite works: parts of it run in their smallest size, and count what they sent.

    bench.py --bindir BIN --folder FOLDER PART…

What is asserted is shape and counts, never a time.
"""
import argparse
import json
import os
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
BENCH = os.path.join(HERE, "..", "..", "bench")
sys.path.insert(0, BENCH)
sys.dont_write_bytecode = True

import common   # noqa: E402
import report   # noqa: E402

BULK_CASES = {"base": 4, "binary": 3, "20 % duplicates": 3, "two connections": 3, "from a client": 3}


def check(what, condition):
    if not condition:
        raise AssertionError(what)


def check_part(name, part, entry):
    """A part's rows go through all that is made of them."""
    rows = entry["rows"]
    check("%s has rows" % name, rows and all(isinstance(row, dict) for row in rows))
    check("%s has tables" % name, "|" in part.tables(rows))
    known = {budget for budget, of, _, _ in common.BUDGETS if of == name}
    for budget in part.budgets(rows):
        check("%s knows the budget %s" % (name, budget["name"]), budget["name"] in known)
        check("%s measured" % budget["name"], budget["measured"] and budget["met"] in (True, False, None))
    for chart in part.chart(rows):
        check("%s has bars" % name, chart["bars"] and len(chart["reference"]) == 2)


def check_bulk(rows):
    """Every case and side is there; bulk.py itself compares what arrived with what was sent."""
    for case, sides in BULK_CASES.items():
        some = [row for row in rows if row["case"] == case]
        check("%d sides of %s" % (sides, case), len(some) == sides)
        check("figures of %s" % case, all(row["wal_bytes_per_event"] > 0 and row["events_per_s"] > 0 for row in some))


def check_growth(rows):
    """Everything has grown while its twin has not, and each size has its figures."""
    for name in ("nothing", "keys", "partitions", "days", "cells", "sessions", "dead_letters", "snapshot"):
        some = [row for row in rows if row["dimension"] == name]
        sizes = [row["size"] for row in some]
        check("%s is measured" % name, sizes and sizes == sorted(set(sizes)))
        check("%s grows" % name, name == "nothing" or all(row["size"] > row["twin_size"] for row in some))
    for row in rows:
        whats = ("copy", "fold") + (("plain",) if row["dimension"] == "keys" else ())
        check("figures of each size", all(row[side + what + "_us"] for side in ("growth_", "twin_") for what in whats))
        check("both sides are compared", all(row[what + "_low"] <= row[what + "_times"] <= row[what + "_high"] for what in whats))
        if row["dimension"] in ("keys", "cells", "sessions", "dead_letters"):
            # The probes add as much to the one as to the other.
            check("%s are held" % row["dimension"], row["held"] - row["twin_held"] >= row["size"] - row["twin_size"])


def check_staleness(rows):
    """What was sent has arrived once, and is folded."""
    total = rows[-1]
    check("staleness was seen", all(row["staleness_p99_s"] is not None for row in rows[:-1]))
    check("all arrived", total["sent"] == total["arrived"] == sum(row["sent"] for row in rows[:-1]))
    check("all counted", total["stored"] == total["counted"])


def check_route(rows):
    """Every measurement and side is there; route.py itself counts what was accepted, matched and delivered."""
    for measurement, sides in (("validation", 2), ("alone", 3), ("routing", 4), ("delivery", 6), ("latency", 1)):
        check("%d rows of %s" % (sides, measurement), sum(row["measurement"] == measurement for row in rows) == sides)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--bindir", required=True)
    parser.add_argument("--folder", required=True)
    parser.add_argument("parts", nargs="+")
    arguments = parser.parse_args()
    parts = {name: part for name, part in report.known_parts() if name in arguments.parts}

    subprocess.run([sys.executable, os.path.join(BENCH, "run"), "--smoke", "--bindir", arguments.bindir,
                    "--folder", arguments.folder, *parts], check=True)

    with open(os.path.join(arguments.folder, "results.json"), encoding="utf-8") as file:
        results = json.load(file)
    check("all parts have results", set(results["parts"]) == set(parts))
    for name, part in parts.items():
        check_part(name, part, results["parts"][name])
    if "bulk" in parts:
        check_bulk(results["parts"]["bulk"]["rows"])
    if "route" in parts:
        check_route(results["parts"]["route"]["rows"])
    if "growth" in parts:
        check_growth(results["parts"]["growth"]["rows"])
    if "staleness" in parts:
        check_staleness(results["parts"]["staleness"]["rows"])
    with open(os.path.join(arguments.folder, "RESULTS.md"), encoding="utf-8") as file:
        text = file.read()
    check("the table names every budget", all(what in text for _, _, what, _ in common.BUDGETS))
    with open(os.path.join(arguments.folder, "results.svg"), encoding="utf-8") as file:
        check("there is a picture", file.read().count("<rect") > 1)
    check("nothing is left", not os.path.exists(os.path.join(arguments.folder, "bench")))


if __name__ == "__main__":
    main()

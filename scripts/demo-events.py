#!/usr/bin/env python3
"""Writes what the demo sends into a folder: every event twice, shuffled, split over the doors.

The events are the real ones of BEHAVIOR_DATA where that folder is there, else the generator's.
"""
import csv
import gzip
import itertools
import os
import random
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "..", "test", "data"), os.path.join(HERE, "..", "test", "oracle")]

import doors                            # noqa: E402
import real                             # noqa: E402
from events import as_json              # noqa: E402
from generate import Generator          # noqa: E402

# How much of the largest file (541909 is all of it), or of what is made: two cores take it in about a minute.
RETAIL = int(os.environ.get("DEMO_RETAIL", "300000"))
GENERATED = int(os.environ.get("DEMO_EVENTS", "200000"))
INSERTS = 4000          # sent one by one
COPY_ROWS = 4000        # in a file: what is flushed at once never deadlocks with another sender


def main():
    folder = sys.argv[1]
    data = os.environ.get("BEHAVIOR_DATA")
    rng = random.Random(2)
    generator = Generator(2)
    if data:
        events = []
        for name, limit in (("wikipedia-readers", None), ("apache-access", None), ("github-events", None),
                            ("cdnow", None), ("online-retail", RETAIL)):
            some = list(itertools.islice(real.DATASETS[name](data), limit))
            events += some
            print("  %7d real events of %s" % (len(some), name), flush=True)
    else:
        events = generator.events(GENERATED)
        print("  %7d events of the project's own generator: there is no folder of real ones here" % len(events))
    broken = [generator.broken_json(number)[0] for number in range(60)]
    print("  %7d broken ones of the generator, to have some dead letters" % len(broken), flush=True)

    items = events + events + broken
    rng.shuffle(items)
    lines = [e for e in items if isinstance(e, str)]
    rows = [e for e in items if not isinstance(e, str)]
    inserts, rows = rows[:INSERTS], rows[INSERTS:]
    # Half of it as rows through two connections, half as JSON through the inbox.
    inbox = lines + rows[:len(rows) // 3]
    rng.shuffle(inbox)
    rows = rows[len(rows) // 3:]

    with open(os.path.join(folder, "insert.sql"), "w", encoding="utf-8") as out:
        for e in inserts:
            out.write("INSERT INTO behavior.event (%s) VALUES %s;\n" % (doors.NAMES, doors.values(e)))
    for number in range(0, len(rows), COPY_ROWS):
        part = number // COPY_ROWS
        name = "copy-%d-%03d.csv" % (1 + part % 2, part)
        with open(os.path.join(folder, name), "w", encoding="utf-8", newline="") as out:
            csv.writer(out).writerows(doors.cells(e) for e in rows[number:number + COPY_ROWS])
    for number in range(0, len(inbox), COPY_ROWS):
        name = "inbox-%03d.ndjson.gz" % (number // COPY_ROWS)
        with gzip.open(os.path.join(folder, name), "wt", compresslevel=1, encoding="utf-8") as out:
            out.writelines((e if isinstance(e, str) else as_json(e)) + "\n" for e in inbox[number:number + COPY_ROWS])
    with open(os.path.join(folder, "total"), "w", encoding="utf-8") as out:
        out.write("%d\n" % len(items))


if __name__ == "__main__":
    main()

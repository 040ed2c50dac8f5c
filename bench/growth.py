"""growth.py: what an event costs as the database fills up.

Each dimension grows alone, in a database of its own: keys, partitions, rollup cells, sessions, dead letters, and what happens
while an old snapshot stays open.  At each size the same probe is run, in rounds: COPY of so many realistic events into
behavior.event, CALL behavior.tick(), and COPY of the same file into a small plain table, the control.  What counts is the
processor time of the backend an event next to the control's at that size: how even the machine runs is not asked.  A checkpoint comes before the first round, so that the probes of one size together are what the reference
load (579 events/s) sends in the five minutes between two checkpoints.

Filling is done with real events through the same door, made such that one event makes one of what is to grow; they are small
and, where sessions are not to grow, of a type that sessions ignore.  There are exceptions: partitions of days gone by are made by
the DDL that the extension makes them with, since it makes daily ones for the last 90 days only, and the plain table that is
filled with as many rows as behavior has keys gets them by INSERT in the order of its keys, all over its index.
"""
import collections
import csv
import hashlib
import json
import os
import statistics
import time

from common import COLUMNS, PLAIN, ratio, text
from measure import cpu_seconds, difference

TITLE = "Growth: what an event costs as the database fills up"

DAY = 86400
CHUNK = 1_050_000       # events a filling statement: a little more than a generation of keys takes
LIMIT = 1.3

ROLLUPS = (
    ("traffic", """SELECT behavior.time_bucket('1 minute', occurred_at) AS bucket, source, type, count(*) AS events
        FROM behavior.event GROUP BY 1, 2, 3"""),
    ("page_views", """SELECT behavior.time_bucket('1 hour', occurred_at) AS bucket, properties->>'page' AS page, count(*) AS views
        FROM behavior.event WHERE type = 'PageView' GROUP BY 1, 2"""),
    ("revenue", """SELECT behavior.time_bucket('1 day', occurred_at) AS day, properties->>'campaign' AS campaign, count(*) AS orders,
        sum(behavior.try_numeric(properties->>'price') * behavior.try_numeric(properties->>'quantity')) AS revenue
        FROM behavior.event WHERE type = 'Purchase' GROUP BY 1, 2"""),
)
# A cell for each person and day.
PER_ACTOR = ("per_actor", """SELECT behavior.time_bucket('1 day', occurred_at) AS day, actor, count(*) AS events,
    max(occurred_at) AS last FROM behavior.event GROUP BY 1, 2""")

DASHBOARD = "SELECT bucket, sum(events) FROM {relation} WHERE bucket >= to_timestamp({start}) GROUP BY 1 ORDER BY 1"
CELL = "SELECT sum(events) FROM {relation} WHERE day > to_timestamp({start})"

BYTES_PER_EVENT = 700       # on disk, filling included, of log, keys and plain table, or of a session

EVENT_FILL = """INSERT INTO behavior.event (event_id, source, type, anonymous_id, occurred_at)
    SELECT '{name}' || i, 'shop', {type}, {visitor}, to_timestamp({start}) + i * interval '{step}'
    FROM generate_series({first}::bigint, {last}) i"""

# The same for what differs in its key alone, as fast as it goes: 50 M of them.
KEY_FILL = """COPY behavior.event (event_id, source, type, anonymous_id, occurred_at)
    FROM PROGRAM 'seq -f "{name}%.0f,shop,identify,filler,{time}" {first} {last}' WITH (FORMAT csv)"""

# Keys that ascend over the whole index, so that it grows everywhere and is left as random ones would leave it.
PLAIN_FILL = """INSERT INTO filled (event_id, source, type, anonymous_id, occurred_at, properties)
    SELECT (lpad(to_hex((i - {first}) * (4611686018427387903 / {count})), 16, '0') || substr(md5(i::text), 1, 16))::uuid,
        'shop', 'identify', 'filler', to_timestamp({start}) + i * interval '1 ms', '{{}}'
    FROM generate_series({first}::bigint, {last}) i"""

PARTITION = """CREATE TABLE behavior.{name} (LIKE behavior.log INCLUDING ALL EXCLUDING INDEXES EXCLUDING STATISTICS
        EXCLUDING COMMENTS EXCLUDING IDENTITY);
    REVOKE ALL ON behavior.{name} FROM PUBLIC;
    CREATE INDEX ON behavior.{name} USING brin (batch_id, occurred_at) WITH (pages_per_range = 32);
    ALTER TABLE behavior.log ATTACH PARTITION behavior.{name} FOR VALUES FROM ('{day} 00:00:00+00') TO ('{next} 00:00:00+00')"""

# What is really there, probes included.
HELD = {
    "keys": "SELECT sum(accepted) FROM behavior.intake",
    "cells": "SELECT count(*) FROM per_actor_folded",
    "sessions": "SELECT count(*) FROM behavior.session",
    "dead_letters": "SELECT count(*) FROM behavior.dead_letter",
}

# How many there are, and the day of the first one, in days since 1970.
PARTITIONS = """SELECT count(*), extract(epoch FROM min(to_date(substring(relid::regclass::text FROM '[0-9]{8}$'), 'YYYYMMDD')))::bigint / 86400
    FROM pg_partition_tree('behavior.log') WHERE isleaf"""
ONE_A_DAY = """INSERT INTO behavior.event (event_id, source, type, occurred_at)
    SELECT 'day' || i, 'shop', 'identify', to_timestamp({start}) - i * interval '1 day' FROM generate_series(0, {days} - 1) i"""

INTRODUCTION = """Processor time of the one backend, in microseconds an event, as one thing grows; medians. The control is the COPY of the same
file into a small plain table with a primary key in the same database, at the same time: the columns beside it are what remains when the machine
runs unevenly. "Keys packed" is what sealing, packing and merging took for each event that was filled in on the way to that size, and is part
of the ratio. Times of queries are those of a dashboard with five seconds of events not folded yet; planning on a connection that asks again, and
on fresh ones.
"""


def statements(dimension, first, last, day):
    """SQL that makes numbers first to last (excluded) of what grows."""
    values = {"name": dimension.name, "first": first, "last": last - 1, "count": last - first, "start": day, "step": "1 ms",
              "type": "'identify'", "visitor": "'filler'"}
    values.update(dimension.fill or {})
    values["time"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(day))
    return (KEY_FILL if dimension.name == "keys" else EVENT_FILL).format(**values), PLAIN_FILL.format(**values)


# What grows.
#   name, budget   of the dimension, and of its budget
#   sizes          smoke, default, full
#   fill           what EVENT_FILL takes that is special
#   held           the visitors of every other device in the probes are among those that filling made
#   note           what is done, for the reader
Dimension = collections.namedtuple("Dimension", "name budget title sizes fill held note")

DIMENSIONS = (
    Dimension("keys", "growth-keys", "keys held",
              ((0, 20_000), (0, 3_000_000), (0, 1_000_000, 5_000_000, 10_000_000, 25_000_000, 50_000_000)),
              {}, False, "the plain table holds as many rows; packing and merging of keys is counted in"),
    Dimension("partitions", "growth-partitions", "partitions",
              ((6, 20), (6, 400), (6, 50, 100, 200, 400)),
              None, False, "the events are of one day"),
    Dimension("days", None, "days that the events are spread over",
              ((1, 10), (), (1, 10, 30, 60, 90)),
              None, False, "late events: one COPY with as many of each of so many days; the more days, the more cells and sessions they make, "
              "which is more to fold and no growth"),
    Dimension("cells", "growth-cells", "rollup cells",
              ((1_000, 5_000), (20_000, 1_000_000), (20_000, 500_000, 1_000_000, 2_500_000, 5_000_000)),
              {"visitor": "md5(i::text)"}, True,
              "a fourth rollup has a cell for each person and day; half of the people in the probe have one already, anywhere"),
    Dimension("sessions", "growth-sessions", "sessions",
              ((1_000, 5_000), (20_000, 1_000_000), (20_000, 1_000_000, 5_000_000, 10_000_000, 20_000_000)),
              {"visitor": "md5(i::text)", "type": "'Visit'", "step": "0.5 ms"}, True,
              "half of the visitors in the probe were there before, anywhere"),
    Dimension("dead_letters", "growth-dead-letters", "dead letters",
              ((0, 2_000), (0, 300_000), (0, 100_000, 300_000, 1_000_000)),
              {"name": "d", "type": "NULL"}, False, "one event in ten of the probe is a dead letter too"),
    Dimension("snapshot", "growth-snapshot", "ticks since a snapshot was taken",
              ((0, 5), (0, 180), (0, 180, 360, 720)),
              None, False, "720 ticks are an hour; each folds five seconds of the reference load"),
)


class Growing:
    """The database of one dimension, and how far it has grown."""

    def __init__(self, bench, dimension):
        self.bench = bench
        self.dimension = dimension
        self.sizes = bench.size(*dimension.sizes)
        self.day = (int(time.time()) // DAY - 2) * DAY      # events are of that day
        self.probe_events = bench.size(2_000, 60_000)
        self.filled = 0             # events
        self.serial = 0             # of the next event of a probe
        self.maintenance = None     # microseconds an event
        bench.behavior("growth", PLAIN)
        if dimension.name == "keys":
            bench.psql("growth", PLAIN.replace("plain", "filled"))
        self.session = bench.session("growth")
        self.second = bench.session("growth")
        self.old = bench.session("growth")      # whose snapshot gets old
        self.rollups = ROLLUPS + ((PER_ACTOR,) if dimension.name == "cells" else ())
        for name, query in self.rollups:
            self.session.run("SELECT behavior.create_rollup('%s', $q$%s$q$)" % (name, query))
        if dimension.name == "days":
            self.session.run(ONE_A_DAY.format(start=self.day, days=max(self.sizes)))
        self.session.run("CALL behavior.tick()")

    def close(self):
        for session in (self.session, self.second, self.old):
            session.close()
        self.bench.drop("growth")

    # Growing

    def grow(self, size):
        name = self.dimension.name
        if name == "partitions":
            self.make_partitions(size)
        elif name == "snapshot":
            self.grow_old(size)
        elif name != "days":
            self.fill(size)
        for name, _ in self.rollups:
            storage = self.session.run("SELECT storage FROM behavior.rollup WHERE name = '%s'" % name)
            self.session.run("ANALYZE " + storage)

    def fill(self, size):
        """Events until there are so many; each chunk is folded and its keys are packed."""
        seconds = 0.0
        begun = self.filled
        while self.filled < size:
            last = min(size, self.filled + CHUNK)
            events, plain = statements(self.dimension, self.filled, last, self.day)
            works = [(self.session, events)]
            if self.dimension.name == "keys":
                works.append((self.second, plain))
            self.bench.measure(*works)
            seconds += self.maintain()
            self.session.run("CALL behavior.tick()")
            self.filled = last
        self.maintenance = seconds / (self.filled - begun) * 1e6 if self.filled > begun else None

    def maintain(self):
        """Seals, packs and merges what is due; processor seconds."""
        before = cpu_seconds(self.session.pid)
        while self.session.run("SELECT behavior._key_maintain()") == "t":
            pass
        return difference(cpu_seconds(self.session.pid), before) or 0.0

    def make_partitions(self, count):
        there, first = self.session.run(PARTITIONS).split("|")
        first = int(first)
        for day in range(first - 1, first - 1 - count + int(there), -1):
            names = [time.strftime("%Y-%m-%d", time.gmtime(d * DAY)) for d in (day, day + 1)]
            self.session.run(PARTITION.format(name="log_" + names[0].replace("-", ""), day=names[0], next=names[1]))

    def grow_old(self, ticks):
        """Lets so many ticks pass since the snapshot was taken, each with five seconds of the reference load."""
        if ticks and self.filled == 0:
            self.old.run("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM behavior.tick")
        while self.filled < ticks:
            path = self.events(self.bench.size(100, 2895))
            self.session.run("COPY behavior.event (%s) FROM '%s' WITH (FORMAT csv)" % (COLUMNS, path))
            self.session.run("CALL behavior.tick()")
            self.bench.forget(path)
            self.filled += 1

    # Probing

    def events(self, count, size=0):
        """The path of a file with the next events, changed as the dimension asks for."""
        path = self.bench.events(count, first=self.serial, rate=579, start=self.day + DAY // 2)
        self.serial += count
        change = self.change(size)
        if change is None:
            return path
        other = path + ".changed"
        with open(path, encoding="utf-8", newline="") as source, open(other, "w", encoding="utf-8", newline="") as target:
            writer = csv.writer(target, lineterminator="\n")
            for number, row in enumerate(csv.reader(source)):
                change(row, number)
                writer.writerow(row)
        self.bench.forget(path)
        return other

    def change(self, size):
        """What changes a row of COLUMNS in place, or None."""
        def held(row, number):
            """One source, nobody logged in; of the devices half are known, the others are new with each size."""
            digest = hashlib.md5(("%d %s" % (size, row[4])).encode()).hexdigest()
            known = int(digest[:15], 16)
            row[1], row[3] = "shop", ""
            row[4] = hashlib.md5(b"%d" % (known // 2 % self.filled)).hexdigest() if known % 2 else digest

        def dead(row, number):
            if number % 10 == 0:
                row[2] = ""

        def days(row, number):
            """Among noon of so many days."""
            row[5] = time.strftime("%Y-%m-%d", time.gmtime(self.day - number % size * DAY)) + row[5][10:]

        if self.dimension.held:
            return held
        return {"dead_letters": dead, "days": days}.get(self.dimension.name)

    def probe(self, size):
        """One round: the figures of the COPY, of the fold and of the plain table's COPY, an event."""
        count = self.probe_events
        path = self.events(count, size)
        figures = {}
        copy = "COPY %s (%s) FROM '%s' WITH (FORMAT csv)"
        sides = [("copy", copy % ("behavior.event", COLUMNS, path)), ("fold", "CALL behavior.tick()"),
                 ("plain", copy % ("plain", COLUMNS, path))]
        if self.dimension.name == "keys":
            sides.append(("filled", copy % ("filled", COLUMNS, path)))
        for side, sql in sides:
            if side == "fold":
                self.maintain()     # so that it is not done by this tick
            measured = self.bench.measure((self.session, sql))
            for figure, name, unit in (("cpu", "us", 1e6), ("instructions", "instructions", 1), ("wal", "wal_bytes", 1)):
                value = measured[figure]
                figures[side + "_" + name] = None if value is None else value * unit / count
        self.bench.forget(path)
        return figures

    def measure(self, size):
        """The row of this size."""
        self.session.run("TRUNCATE plain")
        self.bench.checkpoint()
        rounds = [self.probe(size) for _ in range(self.bench.rounds)]
        row = {"dimension": self.dimension.name, "size": size, "probe_events": self.probe_events,
               "rounds": len(rounds), "maintenance_us": self.maintenance}
        for key in rounds[0]:
            values = [r[key] for r in rounds]
            row[key] = None if None in values else statistics.median(values)
        for side in ("copy", "fold", "filled"):
            row[side + "_of_plain"] = ratio(cost(row, side), row["plain_us"])
        row["held"] = int(self.session.run(HELD[self.dimension.name])) if self.dimension.name in HELD else size
        row.update(self.dashboards())
        if self.dimension.name == "keys":
            row["bytes_per_key"] = self.bytes_per_key()
        return row

    def dashboards(self):
        """Planning and execution of a dashboard query with five seconds of events not folded yet, in ms."""
        path = self.events(self.bench.size(100, 2895), self.sizes[-1])
        self.session.run("COPY behavior.event (%s) FROM '%s' WITH (FORMAT csv)" % (COLUMNS, path))
        self.bench.forget(path)
        row = {}
        relations = ["traffic", "traffic_folded"] + (["per_actor"] if self.dimension.name == "cells" else [])
        for relation in relations:
            query = (CELL if relation == "per_actor" else DASHBOARD).format(relation=relation, start=self.day + DAY // 2)
            explain = "EXPLAIN (ANALYZE, TIMING OFF, SUMMARY, FORMAT JSON) " + query
            fresh = [timing(self.bench.psql("growth", explain)) for _ in range(3)]
            self.session.run(explain)
            warm = [timing(self.session.run(explain)) for _ in range(9)]
            row[relation + "_fresh_ms"] = statistics.median(planning for planning, _ in fresh)
            row[relation + "_planning_ms"] = statistics.median(planning for planning, _ in warm)
            row[relation + "_query_ms"] = statistics.median(execution for _, execution in warm)
        self.session.run("CALL behavior.tick()")
        return row

    def bytes_per_key(self):
        keys = int(self.session.run("SELECT coalesce(sum(keys), 0) FROM behavior._key_generation WHERE state = 'packed'"))
        return self.bench.disk("growth", "behavior._key_page", "behavior._key_filter") / keys if keys else None


def timing(explained):
    """Planning and execution time, in ms."""
    plan = json.loads(explained)[0]
    return plan["Planning Time"], plan["Execution Time"]


def run(bench):
    rows = []
    for dimension in DIMENSIONS:
        if bench.only and dimension.name not in bench.only:
            continue
        largest = max(bench.size(*dimension.sizes), default=None)
        if largest is None:     # left to the large size
            continue
        if dimension.fill is not None and not bench.room(largest * BYTES_PER_EVENT, "growth: " + dimension.title):
            continue
        growing = Growing(bench, dimension)
        try:
            for size in growing.sizes:
                if bench.deadline and time.time() > bench.deadline:
                    bench.say("%s: no further than this, the time is over" % dimension.title)
                    break
                growing.grow(size)
                if not rows or rows[-1]["dimension"] != dimension.name:
                    growing.probe(size)     # what only the first one pays: caches, partitions
                row = growing.measure(size)
                rows.append(row)
                bench.say("%s: %s: COPY %.2f us, fold %.2f us, plain table %.2f us an event"
                          % (dimension.title, text(size), row["copy_us"], row["fold_us"], row["plain_us"]))
        finally:
            growing.close()
    return rows


# Results

def curve(rows, name):
    return [row for row in rows if row["dimension"] == name]


def cost(row, what):
    """Microseconds an event: of a COPY, behavior's with the maintenance of its keys, or of the fold."""
    if row.get(what + "_us") is None:
        return None
    return row[what + "_us"] + (row["maintenance_us"] or 0.0 if what == "copy" else 0.0)


def growth(rows, name, what):
    """The last size's cost next to that of the first, each next to the control's."""
    points = curve(rows, name)
    return ratio(points[-1].get(what + "_of_plain"), points[0].get(what + "_of_plain")) if points else None


HEAD = """| {title} | control: plain COPY µs | COPY µs | keys packed µs | of control | fold µs | of control | WAL bytes |{more} planning warm, fresh ms | query live, folded ms |
|---|---|---|---|---|---|---|---|{line}---|---|
"""
FILLED = " filled plain table µs | of control |"


def table(dimension, points):
    keys = dimension.name == "keys"
    lines = [HEAD.format(title=dimension.title, more=FILLED if keys else "", line="---|---|" if keys else "")]
    for row in points:
        wal = None if row["copy_wal_bytes"] is None else row["copy_wal_bytes"] + row["fold_wal_bytes"]
        cells = [text(row["size"])]
        cells += [text(row[key], 2) for key in ("plain_us", "copy_us", "maintenance_us", "copy_of_plain", "fold_us", "fold_of_plain")]
        cells += [text(wal)] + ([text(row["filled_us"], 2), text(row["filled_of_plain"], 2)] if keys else [])
        cells += ["%s, %s" % (text(row["traffic_planning_ms"], 2), text(row["traffic_fresh_ms"], 2)),
                  "%s, %s" % (text(row["traffic_query_ms"], 1), text(row["traffic_folded_query_ms"], 2))]
        lines.append("| " + " | ".join(cells) + " |\n")
    grown = ["%s %s" % (label, text(growth(points, dimension.name, what), 2))
             for what, label in (("copy", "COPY"), ("fold", "fold")) + ((("filled", "filled plain table"),) if keys else ())]
    lines.append("\nFrom first to last, times: %s. %s.\n" % (", ".join(grown), dimension.note[0].upper() + dimension.note[1:]))
    return "".join(lines)


def tables(rows):
    return "\n".join([INTRODUCTION] + [table(dimension, curve(rows, dimension.name)) for dimension in DIMENSIONS
                                       if curve(rows, dimension.name)])


def budgets(rows):
    found = []
    for dimension in DIMENSIONS:
        if dimension.budget is None or not curve(rows, dimension.name):
            continue
        copy, fold, filled = (growth(rows, dimension.name, what) for what in ("copy", "fold", "filled"))
        note = "at %s %s" % (text(curve(rows, dimension.name)[-1]["size"]), dimension.title)
        found.append({"name": dimension.budget, "measured": "COPY %s, fold %s times" % (text(copy, 2), text(fold, 2)),
                      "met": None if copy is None or fold is None else max(copy, fold) <= LIMIT,
                      "note": note + ("" if filled is None else "; a plain table: %s times" % text(filled, 2))})
    sizes = [row["bytes_per_key"] for row in rows if row.get("bytes_per_key")]
    if sizes:
        found.append({"name": "key-bytes", "measured": "%.1f bytes" % sizes[-1], "met": sizes[-1] <= 32,
                      "note": "pages and filters of packed generations, with their indexes"})
    if rows:
        warm = max(row[key] for row in rows for key in row if key.endswith("_planning_ms"))
        fresh = max(row[key] for row in rows for key in row if key.endswith("_fresh_ms"))
        found.append({"name": "planning", "measured": "%.2f ms" % warm, "met": warm <= 2,
                      "note": "the slowest of all sizes; the first query of a fresh connection, which fills its caches of the "
                              "catalog: %.2f ms" % fresh})
    return found


def chart(rows):
    bars = []
    for dimension in DIMENSIONS:
        points = curve(rows, dimension.name)
        if points:
            for what in ("copy", "fold"):
                bars.append({"label": "%s %s, %s" % (text(points[-1]["size"]), dimension.title, "COPY" if what == "copy" else what),
                             "value": growth(rows, dimension.name, what)})
    return [{"title": "Cost of an event, full database next to empty", "reference": ("budget", LIMIT), "better": "lower",
             "unit": "", "bars": bars}]

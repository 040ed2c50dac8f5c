"""growth.py: what an event costs as the database fills up.

Each dimension grows alone, in a database of its own: keys, partitions, rollup cells, sessions, dead letters, and what happens
while an old snapshot stays open.  What has grown is measured next to a twin: a second database in the same server, made the same
way with the first size, afresh for each size.  Both are probed on connections of the same age, in many small rounds: COPY of so
many realistic events into behavior.event on the one and on the other, then CALL behavior.tick() on both, another side first in
each round, both on the same core.  The figure is the median of the rounds' ratios of processor time: two probes that lie a tenth of
a second apart meet the same machine, which two that lie minutes apart do not.  One curve has nothing growing: it tells how far to
trust the others.

Before the rounds both databases are vacuumed, since what has long been there has been, and a checkpoint is made; the first two
rounds, in which visits begin and caches fill, are not counted.  The rounds of one size together are what the reference load
(579 events/s) sends in eight minutes.  A probe is as many events as COPY gathers before it writes.

Filling is done with real events through the same door, made such that one event makes one of what is to grow; they are small
and, where sessions are not to grow, of a type that sessions ignore.  There are exceptions: partitions of days gone by are made by
the DDL that the extension makes them with, since it makes daily ones for the last 90 days only, and the plain table that is
filled with as many rows as behavior has keys gets them by INSERT in the order of its keys, all over its index.

Packing of keys is background work that is due once in a million events, so it cannot be part of each round.  Its processor time is
taken in units of a fixed query that runs next to it (PACE), divided by the events so far, and counts in a round as much as that
query takes then.
"""
import collections
import csv
import hashlib
import json
import os
import statistics
import time

from common import COLUMNS, PLAIN, ratio, text
from measure import cpu_seconds, difference, total

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
PLAIN_FILL = """INSERT INTO plain (event_id, source, type, anonymous_id, occurred_at, properties)
    SELECT (lpad(to_hex((i - {first}) * (4611686018427387903 / {count})), 16, '0') || substr(md5(i::text), 1, 16))::uuid,
        'shop', 'identify', 'filler', to_timestamp({start}) + i * interval '1 ms', '{{}}'
    FROM generate_series({first}::bigint, {last}) i"""

PARTITION = """CREATE TABLE behavior.{name} (LIKE behavior.log INCLUDING ALL EXCLUDING INDEXES EXCLUDING STATISTICS
        EXCLUDING COMMENTS EXCLUDING IDENTITY);
    REVOKE ALL ON behavior.{name} FROM PUBLIC;
    CREATE INDEX ON behavior.{name} USING brin (batch_id, occurred_at) WITH (pages_per_range = 32);
    ALTER TABLE behavior.log ATTACH PARTITION behavior.{name} FOR VALUES FROM ('{day} 00:00:00+00') TO ('{next} 00:00:00+00')"""

COPY = "COPY %s (%s) FROM '%s' WITH (FORMAT csv)"
MAINTAIN = "SELECT behavior._key_maintain()"      # answers t when it has done something
# Does the same whenever it runs, in a tenth of a second: how fast the machine is just then.
PACE = "SELECT count(DISTINCT md5(i::text)) FROM generate_series(1, 30000) i"
STRIDE = 2654435761     # prime: takes numbers in a row to members all over a pool

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

INTRODUCTION = """Processor time of the one backend, in microseconds an event, as one thing grows, next to a twin: a second
database in the same server, made afresh for each size with the first size of what grows. Both get their events in turn, in many small rounds. "Times" is
the median of the rounds' ratios, in brackets their quartiles; by instructions beside it. "Keys packed" is what sealing, packing and merging took for
each event that was filled in so far, and is part of the ratios of COPY; filling makes keys whatever it is to grow. Times of queries are those of a dashboard of
the grown database with five seconds of events not folded yet; planning on a connection that asks again, and on fresh ones.
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
#   sizes          smoke, default, full; the first is the twin's, the others are measured
#   fill           what EVENT_FILL takes that is special
#   held           the visitors of every other device in the probes are among those that filling made
#   note           what is done, for the reader
Dimension = collections.namedtuple("Dimension", "name budget title sizes fill held note")

DIMENSIONS = (
    Dimension("nothing", None, "nothing",
              ((0,), (0,), (0,)),
              None, False, "two databases of the same size: how far the others can be told apart"),
    Dimension("keys", "growth-keys", "keys held",
              ((0, 20_000), (0, 3_000_000), (0, 1_000_000, 5_000_000, 10_000_000, 25_000_000, 50_000_000)),
              {}, False, "the plain table holds as many rows"),
    Dimension("partitions", "growth-partitions", "partitions",
              ((6, 20), (6, 400), (6, 50, 100, 200, 400)),
              None, False, "the events are of one day"),
    Dimension("days", None, "days that the events are spread over",
              ((1, 10), (), (1, 10, 30, 60, 90)),
              None, False, "late events: one COPY with as many of each of so many days; the more days, the more cells and sessions they make, "
              "which is more to fold and no growth"),
    Dimension("cells", "growth-cells", "rollup cells",
              ((1_000, 5_000), (40_000, 1_000_000), (40_000, 500_000, 1_000_000, 2_500_000, 5_000_000)),
              {"visitor": "md5(i::text)"}, True,
              "a fourth rollup has a cell for each person and day; half of the people in the probe have one already, anywhere"),
    Dimension("sessions", "growth-sessions", "sessions",
              ((1_000, 5_000), (40_000, 1_000_000), (40_000, 1_000_000, 5_000_000, 10_000_000, 20_000_000)),
              {"visitor": "md5(i::text)", "type": "'Visit'", "step": "0.5 ms"}, True,
              "half of the visitors in the probe were there before, anywhere"),
    Dimension("dead_letters", "growth-dead-letters", "dead letters",
              ((0, 2_000), (0, 300_000), (0, 100_000, 300_000, 1_000_000)),
              {"name": "d", "type": "NULL"}, False, "one event in ten of the probe is a dead letter too"),
    Dimension("snapshot", "growth-snapshot", "ticks since a snapshot was taken",
              ((0, 5), (0, 180), (0, 180, 360, 720)),
              None, False, "720 ticks are an hour; each folds five seconds of the reference load; the twin folds the same ticks, and nobody "
              "keeps a snapshot of it"),
)


class Side:
    """A database that is probed: the one that grows, or its twin."""

    def __init__(self, bench, dimension, name, sizes, day):
        self.bench = bench
        self.dimension = dimension
        self.name = name
        self.day = day
        self.size = None
        self.filled = 0             # events
        self.sent = 0               # those and the probes'
        self.kept = 0.0             # sealing, packing and merging for what was sent: in PACEs, and in instructions
        self.kept_instructions = 0
        self.met = 0                # visitors that earlier probes took from the pool
        bench.behavior(name, PLAIN if dimension.name == "keys" else "")
        self.session = bench.session(name)
        self.rollups = ROLLUPS + ((PER_ACTOR,) if dimension.name == "cells" else ())
        for rollup, query in self.rollups:
            self.session.run("SELECT behavior.create_rollup('%s', $q$%s$q$)" % (rollup, query))
        if dimension.name == "days":
            self.session.run(ONE_A_DAY.format(start=day, days=max(sizes)))
        self.session.run("CALL behavior.tick()")

    def close(self):
        self.session.close()
        self.bench.drop(self.name)

    def grow(self, size):
        self.size = size
        if self.dimension.name == "partitions":
            self.make_partitions(size)
        elif self.dimension.fill is not None:
            self.fill(size)

    def fill(self, size):
        """Events until there are so many; each chunk is folded and its keys are packed."""
        while self.filled < size:
            last = min(size, self.filled + CHUNK)
            events, plain = statements(self.dimension, self.filled, last, self.day)
            if self.dimension.name == "keys":
                with self.bench.session(self.name) as second:
                    self.bench.measure((self.session, events), (second, plain))
            else:
                self.session.run(events)
            self.sent += last - self.filled
            self.filled = last
            self.maintain()
            self.session.run("CALL behavior.tick()")

    def maintain(self):
        """Seals, packs and merges what is due, so that a tick has not to, and remembers what it took."""
        while True:
            done = self.bench.measure((self.session, MAINTAIN))
            if done["output"] != ["t"]:
                return
            self.kept = total([self.kept, ratio(done["cpu"], self.pace())])
            self.kept_instructions = total([self.kept_instructions, done["instructions"]])

    def pace(self):
        """Processor seconds of PACE."""
        before = cpu_seconds(self.session.pid)
        self.session.run(PACE)
        return difference(cpu_seconds(self.session.pid), before)

    def make_partitions(self, count):
        there, first = self.session.run(PARTITIONS).split("|")
        first = int(first)
        for day in range(first - 1, first - 1 - count + int(there), -1):
            names = [time.strftime("%Y-%m-%d", time.gmtime(d * DAY)) for d in (day, day + 1)]
            self.session.run(PARTITION.format(name="log_" + names[0].replace("-", ""), day=names[0], next=names[1]))

    def settle(self):
        """As if it had long been like this: vacuumed, and on a new connection."""
        self.session.run("VACUUM (ANALYZE)")
        self.session.close()
        self.session = self.bench.session(self.name)

    def run_on(self, cores):
        """Keeps the backend on these, where the system can."""
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(self.session.pid, cores)

    def copy(self, path, table="behavior.event"):
        return self.bench.measure((self.session, COPY % (table, COLUMNS, path)))

    def fold(self):
        return self.bench.measure((self.session, "CALL behavior.tick()"))

    def held(self):
        query = HELD.get(self.dimension.name)
        return int(self.session.run(query)) if query else self.size


class Growing:
    """The database of one dimension, how far it has grown, and its twin."""

    def __init__(self, bench, dimension):
        self.bench = bench
        self.dimension = dimension
        self.sizes = bench.size(*dimension.sizes)
        self.day = (int(time.time()) // DAY - 2) * DAY      # events are of that day
        self.probe_events = bench.size(2_000, 16_384)
        self.rounds = bench.size(2, 5) * bench.rounds
        self.cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]
        self.serial = 0             # of the next event of a probe
        self.ticks = 0
        self.known = {}             # number of each device in the probes of this size that is a visitor who was there
        self.grown = Side(bench, dimension, "growth", self.sizes, self.day)
        self.twin = None
        self.old = bench.session("growth")      # whose snapshot gets old

    def close(self):
        self.old.close()
        for side in (self.grown, self.twin):
            if side:
                side.close()

    # Growing

    def grow(self, size):
        self.grown.grow(size)
        if self.dimension.name != "snapshot" or not self.twin:
            if self.twin:
                self.twin.close()
            self.twin = Side(self.bench, self.dimension, "twin", self.sizes, self.day)
            self.twin.grow(self.sizes[0])
        if self.dimension.name == "snapshot":
            self.grow_old(size)
        self.known = {}
        for side in (self.grown, self.twin):
            side.settle()

    def grow_old(self, ticks):
        """Lets so many ticks pass since the snapshot was taken, each with five seconds of the reference load."""
        if ticks and self.ticks == 0:
            self.old.run("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM behavior.tick")
        count = self.bench.size(100, 2895)
        while self.ticks < ticks:
            paths = self.events(count)
            for side, path in paths.items():
                side.session.run(COPY % ("behavior.event", COLUMNS, path))
                side.session.run("CALL behavior.tick()")
                side.sent += count
            self.forget(paths)
            self.ticks += 1

    # Probing

    def events(self, count):
        """The paths of files with the next events, by side; changed as the dimension asks for."""
        path = self.bench.events(count, first=self.serial, rate=579, start=self.day + DAY // 2)
        self.serial += count
        paths = {}
        for side in (self.grown, self.twin):
            change = self.change(side)
            paths[side] = path
            if change:
                paths[side] = path + "." + side.name
                with open(path, encoding="utf-8", newline="") as source, \
                        open(paths[side], "w", encoding="utf-8", newline="") as target:
                    writer = csv.writer(target, lineterminator="\n")
                    for number, row in enumerate(csv.reader(source)):
                        change(row, number)
                        writer.writerow(row)
        if path not in paths.values():
            self.bench.forget(path)
        return paths

    def forget(self, paths):
        for path in set(paths.values()):
            self.bench.forget(path)

    def change(self, side):
        """What changes a row of COLUMNS in place for that side, or None."""
        def held(row, _):
            """One source, nobody logged in; of the devices half are known, the others are new with each size.  Each known one is
            another visitor, so that both sides have as much to do, however small their pools are."""
            digest = hashlib.md5(("%d %s" % (self.grown.size, row[4])).encode()).hexdigest()
            if int(digest[0], 16) % 2:
                number = side.met + self.known.setdefault(row[4], len(self.known))
                digest = hashlib.md5(b"%d" % (number * STRIDE % side.filled)).hexdigest()
            row[1], row[3], row[4] = "shop", "", digest

        def dead(row, number):
            if number % 10 == 0:
                row[2] = ""

        def days(row, number):
            """Among noon of so many days."""
            row[5] = time.strftime("%Y-%m-%d", time.gmtime(self.day - number % side.size * DAY)) + row[5][10:]

        if self.dimension.held:
            return held
        return {"dead_letters": dead, "days": days}.get(self.dimension.name)

    def probe(self, number):
        """One round: {what: {side's name: figures of an event}}, and seconds of the pace."""
        sides = [self.grown, self.twin]
        if number % 2:
            sides.reverse()
        for side in sides:
            side.run_on([self.cores[number // 2 % len(self.cores)]])
        paths = self.events(self.probe_events)
        found = {"copy": {side.name: side.copy(paths[side]) for side in sides}}
        pace = self.grown.pace()
        for side in sides:
            side.sent += self.probe_events
            side.maintain()
        found["fold"] = {side.name: side.fold() for side in sides}
        if self.dimension.name == "keys":
            found["plain"] = {side.name: side.copy(paths[side], "plain") for side in sides}
        self.forget(paths)
        for what, unit in (("cpu", 1e6), ("instructions", 1), ("wal", 1)):
            for by_side in found.values():
                for measured in by_side.values():
                    measured[what] = None if measured[what] is None else measured[what] * unit / self.probe_events
        return found, pace

    def rounds_of(self):
        """All rounds of a size, with the packing of keys in the cost of COPY, at the speed that the machine had in that round."""
        self.bench.checkpoint()
        for number in range(2):
            self.probe(number)      # what only the first ones pay
        rounds = [self.probe(number) for number in range(self.rounds)]
        for side in (self.grown, self.twin):
            side.run_on(self.cores)
            for found, pace in rounds:
                measured = found["copy"][side.name]
                kept = side.kept and ratio(side.kept, side.sent)
                measured["kept"] = 0.0 if kept == 0 else None if None in (kept, pace) else kept * pace * 1e6
                measured["cpu"] = total([measured["cpu"], measured["kept"]])
                measured["instructions"] = total([measured["instructions"], ratio(side.kept_instructions, side.sent)])
        return [found for found, _ in rounds]

    def measure(self):
        """The row of this size."""
        rounds = self.rounds_of()
        row = {"dimension": self.dimension.name, "size": self.grown.size, "twin_size": self.twin.size,
               "probe_events": self.probe_events, "rounds": len(rounds),
               "held": self.grown.held(), "twin_held": self.twin.held(),
               "maintenance_us": median([found["copy"]["growth"]["kept"] for found in rounds])}
        for what in rounds[0]:
            for side in ("growth", "twin"):
                for figure, unit in (("cpu", "us"), ("instructions", "instructions"), ("wal", "wal_bytes")):
                    row["%s_%s_%s" % (side, what, unit)] = median([found[what][side][figure] for found in rounds])
            for figure, suffix in (("cpu", ""), ("instructions", "_instructions")):
                times = [ratio(found[what]["growth"][figure], found[what]["twin"][figure]) for found in rounds]
                low, middle, high = quartiles(times)
                row.update({what + "_times" + suffix: middle, what + "_low" + suffix: low, what + "_high" + suffix: high})
        row.update(self.dashboards())
        if self.dimension.name == "keys":
            row["bytes_per_key"] = self.bytes_per_key()
        self.grown.met += len(self.known)
        return row

    def dashboards(self):
        """Planning and execution of a dashboard query with five seconds of events not folded yet, in ms."""
        session = self.grown.session
        paths = self.events(self.bench.size(100, 2895))
        session.run(COPY % ("behavior.event", COLUMNS, paths[self.grown]))
        self.forget(paths)
        row = {}
        relations = ["traffic", "traffic_folded"] + (["per_actor"] if self.dimension.name == "cells" else [])
        for relation in relations:
            query = (CELL if relation == "per_actor" else DASHBOARD).format(relation=relation, start=self.day + DAY // 2)
            explain = "EXPLAIN (ANALYZE, TIMING OFF, SUMMARY, FORMAT JSON) " + query
            fresh = [timing(self.bench.psql("growth", explain)) for _ in range(3)]
            session.run(explain)
            warm = [timing(session.run(explain)) for _ in range(9)]
            row[relation + "_fresh_ms"] = statistics.median(planning for planning, _ in fresh)
            row[relation + "_planning_ms"] = statistics.median(planning for planning, _ in warm)
            row[relation + "_query_ms"] = statistics.median(execution for _, execution in warm)
        session.run("CALL behavior.tick()")
        return row

    def bytes_per_key(self):
        keys = int(self.grown.session.run("SELECT coalesce(sum(keys), 0) FROM behavior._key_generation WHERE state = 'packed'"))
        return self.bench.disk("growth", "behavior._key_page", "behavior._key_filter") / keys if keys else None


def median(values):
    return None if None in values else statistics.median(values)


def quartiles(values):
    """Lower quartile, median and upper quartile."""
    if None in values:
        return None, None, None
    return tuple(statistics.quantiles(values, n=4, method="inclusive")) if len(values) > 1 else (values[0],) * 3


def timing(explained):
    """Planning and execution time, in ms."""
    plan = json.loads(explained)[0]
    return plan["Planning Time"], plan["Execution Time"]


def run(bench):
    rows = []
    for dimension in DIMENSIONS:
        if bench.only and dimension.name not in bench.only:
            continue
        sizes = bench.size(*dimension.sizes)
        if not sizes:       # left to the large size
            continue
        if dimension.fill is not None and not bench.room(max(sizes) * BYTES_PER_EVENT, "growth: " + dimension.title):
            continue
        growing = Growing(bench, dimension)
        try:
            for size in sizes[1:] or sizes:
                if bench.deadline and time.time() > bench.deadline:
                    bench.say("%s: no further than this, the time is over" % dimension.title)
                    break
                growing.grow(size)
                row = growing.measure()
                rows.append(row)
                bench.say("%s: %s: COPY %s, fold %s" % (dimension.title, text(size), times(row, "copy"), times(row, "fold")))
        finally:
            growing.close()
    return rows


# Results

def curve(rows, name):
    """Rows that were measured next to a twin: results may have older ones."""
    return [row for row in rows if row["dimension"] == name and "copy_times" in row]


def times(row, what):
    """How many times the twin's, in words."""
    return "%s times (%s–%s), by instructions %s" % tuple(
        text(row[what + key], 2) for key in ("_times", "_low", "_high", "_times_instructions"))


def head(dimension):
    names = ["COPY µs: twin", "grown", "of which keys packed", "times (quartiles)", "by instructions",
             "fold µs: twin", "grown", "times (quartiles)", "by instructions", "WAL bytes: twin", "grown"]
    if dimension.name == "keys":
        names += ["plain table µs: small", "filled", "times (quartiles)", "by instructions"]
    return [dimension.title] + names + ["planning warm, fresh ms", "query live, folded ms"]


def cells_of(row, what):
    """Next to each other: both sides' time, how many times that is, and by instructions."""
    spread = "**%s** (%s–%s)" % tuple(text(row[what + key], 2) for key in ("_times", "_low", "_high"))
    return [text(row["twin_%s_us" % what], 2), text(row["growth_%s_us" % what], 2), spread,
            text(row[what + "_times_instructions"], 2)]


def table(dimension, points):
    names = head(dimension)
    lines = ["| " + " | ".join(names) + " |\n", "|" + "---|" * len(names) + "\n"]
    for row in points:
        copy = cells_of(row, "copy")
        cells = [text(row["size"])] + copy[:2] + [text(row["maintenance_us"], 2)] + copy[2:] + cells_of(row, "fold")
        cells += [text(row["%s_copy_wal_bytes" % side] + row["%s_fold_wal_bytes" % side]) for side in ("twin", "growth")]
        cells += cells_of(row, "plain") if dimension.name == "keys" else []
        cells += ["%s, %s" % (text(row["traffic_planning_ms"], 2), text(row["traffic_fresh_ms"], 2)),
                  "%s, %s" % (text(row["traffic_query_ms"], 1), text(row["traffic_folded_query_ms"], 2))]
        lines.append("| " + " | ".join(cells) + " |\n")
    small = "" if points[0]["twin_size"] == points[0]["size"] else "The twin: %s. " % text(points[0]["twin_size"])
    lines.append("\n%s%s.\n" % (small, dimension.note[0].upper() + dimension.note[1:]))
    return "".join(lines)


def tables(rows):
    found = [table(dimension, curve(rows, dimension.name)) for dimension in DIMENSIONS if curve(rows, dimension.name)]
    return "\n".join([INTRODUCTION] + found) if found else ""


def budgets(rows):
    found = []
    for dimension in DIMENSIONS:
        if dimension.budget is None or not curve(rows, dimension.name):
            continue
        row = curve(rows, dimension.name)[-1]
        both = [row["copy_times"], row["fold_times"]]
        note = "at %s %s; by instructions %s and %s" % (
            text(row["size"]), dimension.title, text(row["copy_times_instructions"], 2), text(row["fold_times_instructions"], 2))
        if "plain_times" in row:
            note += "; a plain table: %s times" % text(row["plain_times"], 2)
        found.append({"name": dimension.budget, "measured": "COPY %s, fold %s times" % tuple(text(value, 2) for value in both),
                      "met": None if None in both else max(both) <= LIMIT, "note": note})
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
        if points and dimension.budget:
            for what, name in (("copy", "COPY"), ("fold", "fold")):
                row = points[-1]
                bars.append({"label": "%s %s, %s" % (text(row["size"]), dimension.title, name), "value": row[what + "_times"],
                             "text": "by instructions " + text(row[what + "_times_instructions"], 2)})
    return [{"title": "Cost of an event, full database next to empty", "reference": ("budget", LIMIT), "better": "lower",
             "unit": "", "bars": bars}]

"""staleness.py: how old dashboards are, and how fast, while events come in and the worker folds them.

One collector sends at a steady rate, then ten times the higher one for some seconds: a COPY of what a tenth of a second
brought, ten times a second, in transactions of their own, from events whose occurred_at is when they are sent.  When a COPY takes
longer than that the next one brings more.  The worker runs as shipped: a tick every five seconds, sooner when more than
behavior.tick_events wait.  Meanwhile ten dashboards are open: each asks its query once a second of the live relation and
once of the folded one, at random moments (pgbench --rate: latency counts from the planned moment, so waiting is not left
out), in simple protocol, so that each is planned each time.

Staleness, sampled ten times a second: the age of the oldest committed event that the projection which is furthest behind has not
folded, counted from when its batch was received; nothing waiting is 0.  The fold is the time from a cut of a tick (ticked_at) until the sample
that sees every projection at it.
"""
import glob
import json
import os
import shutil
import statistics
import subprocess
import threading
import time

from common import COLUMNS, Failed, percentile, text
from measure import cpu_seconds

TITLE = "Staleness and dashboards"
SETTINGS = {"behavior.worker": "on"}

STEADY = (579, 5787)
SPIKE = 10 * STEADY[-1]
BATCH = 0.1             # seconds between the starts of two COPYs
SAMPLE = 0.1
PAST = 600_000          # events that are there before: the day's dashboards are not empty

ROLLUPS = (
    ("traffic", """SELECT behavior.time_bucket('1 minute', occurred_at) AS bucket, source, type, count(*) AS events
        FROM behavior.event GROUP BY 1, 2, 3"""),
    ("page_views", """SELECT behavior.time_bucket('1 hour', occurred_at) AS bucket, properties->>'page' AS page, count(*) AS views,
        {visitors} AS visitors FROM behavior.event WHERE type = 'PageView' GROUP BY 1, 2"""),
    ("revenue", """SELECT behavior.time_bucket('1 day', occurred_at) AS day, properties->>'campaign' AS campaign, count(*) AS orders,
        sum(behavior.try_numeric(properties->>'price') * behavior.try_numeric(properties->>'quantity')) AS revenue
        FROM behavior.event WHERE type = 'Purchase' GROUP BY 1, 2"""),
)

# Ten dashboards; {x} is '' or '_folded'.  The last two read sessions, which are as of the last tick either way.
DASHBOARDS = (
    ("events by minute", "SELECT bucket, sum(events) FROM traffic{x} WHERE bucket > now() - interval '1 hour' GROUP BY 1 ORDER BY 1"),
    ("events by source", "SELECT source, sum(events) FROM traffic{x} WHERE bucket > now() - interval '15 minutes' GROUP BY 1"),
    ("events by type", "SELECT type, sum(events) FROM traffic{x} WHERE bucket > now() - interval '1 day' GROUP BY 1"),
    ("top pages", "SELECT page, sum(views) FROM page_views{x} WHERE bucket > now() - interval '2 hours' GROUP BY 1 ORDER BY 2 DESC LIMIT 10"),
    ("one page", "SELECT bucket, views FROM page_views{x} WHERE page = '/p/1' AND bucket > now() - interval '1 day' ORDER BY 1"),
    ("visitors of top pages", "SELECT page, views, {cardinality} FROM page_views{x} WHERE bucket = behavior.time_bucket('1 hour', now())"
     " ORDER BY views DESC LIMIT 10"),
    ("revenue today", "SELECT sum(revenue), sum(orders) FROM revenue{x} WHERE day = behavior.time_bucket('1 day', now())"),
    ("revenue by campaign", "SELECT day, campaign, revenue FROM revenue{x} WHERE day > now() - interval '7 days' ORDER BY 1, 2"),
    ("activity now", "SELECT bucket, sum(events) FROM behavior.activity{x} WHERE bucket > now() - interval '1 minute' GROUP BY 1 ORDER BY 1"),
    ("sessions", "SELECT count(*), avg(events), avg(duration) FROM behavior.session WHERE started_at > now() - interval '2 minutes'"),
)

# now, how old the oldest unfolded event is (s), the tick that every projection has folded.
STALENESS = """WITH p AS MATERIALIZED (SELECT min(behavior._projection_tick_id(name)) AS tick_id FROM behavior._projection),
    w AS (SELECT min(received_at) AS at FROM behavior._batch_waiting WHERE accepted > 0),
    f AS (SELECT min(b.received_at) AS at FROM p, behavior._tick_range r, LATERAL (SELECT received_at FROM behavior._batch
        WHERE batch_id BETWEEN r.first_batch AND r.last_batch AND accepted > 0 ORDER BY batch_id LIMIT 1) b
        WHERE r.tick_id > p.tick_id AND r.tick_id < 9223372036854775807)
    SELECT extract(epoch FROM clock_timestamp()), coalesce(extract(epoch FROM clock_timestamp() - least(w.at, f.at)), 0), p.tick_id
    FROM p, w, f"""


class Samples(threading.Thread):
    """Looks at staleness ten times a second until told to end; seen: (when, staleness, tick folded by all)."""

    def __init__(self, bench):
        super().__init__(daemon=True)
        self.bench = bench
        self.session = bench.session("staleness")       # the thread's own
        self.session.run("PREPARE staleness AS " + STALENESS)
        self.seen = []
        self.failure = None
        self.over = threading.Event()

    def run(self):
        try:
            while not self.over.wait(max(0.0, SAMPLE - time.time() % SAMPLE)):
                self.seen.append(tuple(float(value) for value in self.session.run("EXECUTE staleness").split("|")))
        except (Failed, ValueError) as failure:
            self.failure = failure

    def end(self):
        self.over.set()
        self.join()
        if self.failure:
            raise self.failure

    def between(self, begin, end):
        return sorted(staleness for when, staleness, _ in self.seen if begin <= when < end)

    def calm_after(self, moment, limit=5.0):
        """Seconds from that moment until staleness stays under the limit; None when it never does."""
        last = max((when for when, staleness, _ in self.seen if when >= moment and staleness >= limit), default=moment)
        return None if self.seen[-1][0] - last < 1 else last - moment

    def folds(self, begin, end):
        """How long the folds of the ticks cut in that time took: ticks come as (ticked_at, tick_id)."""
        ticks = self.bench.psql("staleness", "SELECT extract(epoch FROM ticked_at), tick_id FROM behavior.tick ORDER BY tick_id").split()
        found = []
        for ticked_at, tick in (line.split("|") for line in ticks):
            if begin <= float(ticked_at) < end:
                found.append(next((when - float(ticked_at) for when, _, folded in self.seen
                                   if folded >= int(tick) and when >= float(ticked_at)), None))
        return sorted(seconds for seconds in found if seconds is not None)


class Collector:
    """Sends files of events at the pace at which they occur."""

    def __init__(self, bench):
        self.bench = bench
        self.session = bench.session("staleness")
        self.session.run("SET application_name = 'collector'")
        self.serial = PAST * 10     # of the next event
        self.sent = 0

    def prepare(self, rates):
        """The events of (rate, seconds) after (rate, seconds), as [(rate, lines)]; they begin shortly."""
        self.begin = int(time.time() + 3 + sum(rate * seconds for rate, seconds in rates) / 500_000)
        begin = self.begin
        parts = []
        for rate, seconds in rates:
            # Event number 0 would have occurred so long before: the generator counts from there.
            path = self.bench.events(rate * seconds, first=self.serial, rate=rate, start=begin - self.serial // rate)
            with open(path, "rb") as file:
                parts.append((rate, file.readlines()))
            self.bench.forget(path)
            self.serial += rate * seconds
            begin += seconds
        time.sleep(max(0.0, self.begin - time.time()))
        return parts

    def send(self, rate, lines):
        """Answers with (begin, end, sorted seconds that COPYs took, most seconds that one began late)."""
        begin = time.time()
        took, late, done, turn = [], 0.0, 0, 0
        while done < len(lines):
            turn += 1
            wait = begin + turn * BATCH - time.time()
            if wait > 0:
                time.sleep(wait)
            else:
                late = max(late, -wait)
                turn = int((time.time() - begin) / BATCH)
            due = min(len(lines), int((time.time() - begin) * rate))
            start = time.time()
            self.session.run("COPY behavior.event (%s) FROM STDIN WITH (FORMAT csv);\n%s\\.\nSELECT 1"
                             % (COLUMNS, b"".join(lines[done:due]).decode()))
            took.append(time.time() - start)
            done = due
        self.sent += len(lines)
        return begin, time.time(), sorted(took), late


class Dashboards:
    """pgbench that asks every dashboard's query, live and folded, once a second."""

    def __init__(self, bench, queries):
        self.queries = queries          # [(name, side, sql)]
        self.folder = os.path.join(bench.work, "dashboards")
        shutil.rmtree(self.folder, ignore_errors=True)
        os.makedirs(self.folder)
        self.command = [os.path.join(bench.bindir, "pgbench"), "-n", "-M", "simple", "-c", "10", "-j", "2",
                        "-R", str(len(queries)), "-l", "--log-prefix", os.path.join(self.folder, "log")]
        for number, (_, _, sql) in enumerate(queries):
            path = os.path.join(self.folder, "%d.sql" % number)
            with open(path, "w", encoding="utf-8") as file:
                file.write(sql + ";\n")
            self.command += ["-f", path]
        self.environment = bench.client("staleness")

    def begin(self, seconds):
        self.process = subprocess.Popen(self.command + ["-T", str(int(seconds))], env=self.environment, stdin=subprocess.DEVNULL,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    def end(self):
        """{(name, side): sorted latencies in ms}."""
        messages = self.process.communicate()[1].decode(errors="replace")
        if self.process.returncode:
            raise Failed(messages.strip())
        found = {(name, side): [] for name, side, _ in self.queries}
        for path in glob.glob(os.path.join(self.folder, "log.*")):
            with open(path, encoding="ascii") as file:
                for line in file:
                    fields = line.split()
                    name, side, _ = self.queries[int(fields[3])]
                    found[name, side].append(int(fields[2]) / 1000)
            os.unlink(path)
        return {key: sorted(values) for key, values in found.items()}


class Workers:
    """Processor time of the extension's processes, as a share of one core."""

    QUERY = "SELECT pid FROM pg_stat_activity WHERE backend_type LIKE 'behavior %'"

    def __init__(self, bench):
        self.bench = bench
        self.before = self.look()
        self.since = time.time()

    def look(self):
        return {pid: cpu_seconds(int(pid)) for pid in self.bench.value("postgres", self.QUERY).split()}

    def share(self):
        after = self.look()
        if any(value is None for value in after.values()):
            return None
        return sum(value - (self.before.get(pid) or 0.0) for pid, value in after.items()) / (time.time() - self.since)


def percentiles(name, values, unit):
    row = {"%s_p%d_%s" % (name, share, unit): percentile(values, share / 100) for share in (50, 95, 99)}
    row["%s_most_%s" % (name, unit)] = values[-1] if values else None
    return row


def prepare(bench):
    """The database with a day of events in it; answers with the dashboards' queries."""
    hll = bench.have("hll")
    bench.behavior("staleness", "CREATE EXTENSION hll" if hll else "")
    for name, query in ROLLUPS:
        query = query.format(visitors="hll_add_agg(hll_hash_text(actor))" if hll else "count(user_id)")
        bench.psql("staleness", "SELECT behavior.create_rollup('%s', $q$%s$q$)" % (name, query))
    past = bench.size(20_000, PAST)
    path = bench.events(past, rate=7, start=int(time.time()) - past // 7 - 60)
    bench.psql("staleness", "COPY behavior.event (%s) FROM '%s' WITH (FORMAT csv)" % (COLUMNS, path), "CALL behavior.tick()",
               "VACUUM ANALYZE")
    bench.forget(path)
    queries = []
    for name, sql in DASHBOARDS:
        sql = sql.replace("{cardinality}", "hll_cardinality(visitors)" if hll else "visitors")
        if "{x}" in sql:
            queries.append((name, "live", sql.replace("{x}", "")))
        queries.append((name, "folded", sql.replace("{x}", "_folded")))
    return queries


def planning(bench, queries):
    """Slowest planning of any of the queries, asked again and first in a connection, in ms."""
    warm = fresh = 0.0
    for _, _, sql in queries:
        explain = "EXPLAIN (SUMMARY, FORMAT JSON) " + sql
        fresh = max(fresh, statistics.median(planned(bench.psql("staleness", explain)) for _ in range(3)))
        with bench.session("staleness") as session:
            warm = max(warm, statistics.median([planned(session.run(explain)) for _ in range(6)][1:]))
    return {"planning_ms": warm, "planning_fresh_ms": fresh}


def planned(explained):
    return json.loads(explained)[0]["Planning Time"]


def phase(bench, collector, samples, dashboards, title, rates):
    """Sends at each rate for so many seconds while the dashboards ask; the rows."""
    parts = collector.prepare(rates)
    dashboards.begin(sum(seconds for _, seconds in rates))
    workers = Workers(bench)
    rows, spans = [], []
    for rate, lines in parts:
        begin, end, took, late = collector.send(rate, lines)
        spans.append((begin, end))
        row = {"phase": title, "rate": rate, "seconds": end - begin, "sent": len(lines), "late_s": late}
        row.update(percentiles("copy", [t * 1000 for t in took], "ms"))
        rows.append(row)
    share = workers.share()
    latencies = dashboards.end()
    time.sleep(1)
    for row, (begin, end) in zip(rows, spans):
        row.update(percentiles("staleness", samples.between(begin, end), "s"))
        row.update(percentiles("fold", samples.folds(begin, end), "s"))
    row = rows[0]
    row["workers_of_a_core"] = share
    for side in ("live", "folded"):
        row.update(percentiles(side, sorted(v for (_, s), values in latencies.items() if s == side for v in values), "ms"))
        worst = max((percentile(values, 0.95), name) for (name, s), values in latencies.items() if s == side and values)
        row[side + "_slowest_p95_ms"], row[side + "_slowest"] = worst
    if len(rates) > 1:
        row["calm_after_s"] = samples.calm_after(spans[0][1])
    bench.say("%s: staleness p99 %s s, live p95 %s ms, folded p95 %s ms" % (
        title, text(row["staleness_p99_s"], 2), text(row["live_p95_ms"], 1), text(row["folded_p95_ms"], 1)))
    return rows


def run(bench):
    queries = prepare(bench)
    collector, samples, dashboards = Collector(bench), Samples(bench), Dashboards(bench, queries)
    samples.start()
    try:
        seconds = bench.size(3, 30, 300)
        rows = []
        for rate in STEADY:
            rows += phase(bench, collector, samples, dashboards, "%s events/s" % text(rate), [(rate, seconds)])
            rows[-1].update(planning(bench, queries))
        rows += phase(bench, collector, samples, dashboards, "%s events/s, then %s" % (text(SPIKE), text(STEADY[-1])),
                      [(SPIKE, bench.size(1, 5, 10)), (STEADY[-1], bench.size(3, 30, 60))])
        samples.end()
    finally:
        samples.over.set()
    rows.append(arrived(bench, collector.sent))
    for session in (samples.session, collector.session):
        session.close()
    return rows


def arrived(bench, sent):
    """What was sent next to what is there, once all is folded."""
    bench.psql("staleness", "CALL behavior.tick()")
    names = ("arrived", "stored", "counted")
    values = bench.value("staleness", """SELECT (SELECT sum(received) FROM behavior.intake WHERE application_name = 'collector'),
        (SELECT count(*) FROM behavior.log), (SELECT sum(events) FROM traffic_folded)""").split("|")
    row = {"phase": "all", "sent": sent}
    row.update((name, int(value)) for name, value in zip(names, values))
    return row


# Results

def steady(rows, rate):
    return next((row for row in rows if row["phase"] == "%s events/s" % text(rate)), None)


INTRODUCTION = """A collector sends a COPY every tenth of a second; the worker runs as shipped; ten dashboards ask their query once a second of
the live relation and once of the folded one, at random moments. Staleness: age of the oldest committed event that some projection has
not folded, sampled ten times a second. Fold: from the cut of a tick to the sample that sees it folded everywhere.
"""


def three(row, name, unit, digits):
    return " / ".join(text(row.get("%s_p%d_%s" % (name, share, unit)), digits) for share in (50, 95, 99))


def tables(rows):
    lines = [INTRODUCTION, "\n| events/s | staleness s, p50 / p95 / p99 | fold s | live query ms | folded query ms | COPY ms "
             "| planning warm, fresh ms | workers, of a core |\n|---|---|---|---|---|---|---|---|\n"]
    for row in rows:
        if "rate" not in row:
            continue
        rate = text(row["rate"]) + (" after the spike" if "live_p50_ms" not in row else " for %.0f s" % row["seconds"])
        lines.append("| %s | %s | %s | %s | %s | %s | %s, %s | %s |\n" % (
            rate, three(row, "staleness", "s", 2), three(row, "fold", "s", 2), three(row, "live", "ms", 1),
            three(row, "folded", "ms", 1), three(row, "copy", "ms", 1), text(row.get("planning_ms"), 2),
            text(row.get("planning_fresh_ms"), 2), text(row.get("workers_of_a_core"), 2)))
    for row in rows:
        if "calm_after_s" in row:
            after = row["calm_after_s"]
            lines.append("\nAfter the spike staleness is under 5 s again %s. The most: %s s. The collector was up to %s s late: "
                         "one connection takes what the disk and the dashboards leave. Queries of both lines are in the spike's.\n"
                         % ("never in the time measured" if after is None else "after %.1f s" % after,
                            text(row["staleness_most_s"], 1), text(row["late_s"], 1)))
        if "arrived" in row:
            lines.append("\nSent %s events, arrived %s; stored %s with those of the day before, counted by the rollup %s.\n"
                         % tuple(text(row[key]) for key in ("sent", "arrived", "stored", "counted")))
    return "".join(lines)


def budgets(rows):
    found = []
    low, high = steady(rows, STEADY[0]), steady(rows, STEADY[1])
    if high and high["staleness_p99_s"] is not None:
        limit = 5 + (high["fold_p99_s"] or 0.0)
        found.append({"name": "staleness", "measured": "p99 %.2f s" % high["staleness_p99_s"], "met": high["staleness_p99_s"] <= limit,
                      "note": "the fold: p99 %s s" % text(high["fold_p99_s"], 2)})
    for name, side, row in (("dashboard-live", "live", low), ("dashboard-folded", "folded", high)):
        if row and row[side + "_p95_ms"] is not None:
            found.append({"name": name, "measured": "p95 %.1f ms" % row[side + "_p95_ms"], "met": row[side + "_p95_ms"] <= 50,
                          "note": "slowest of the ten: %s, p95 %.1f ms" % (row[side + "_slowest"], row[side + "_slowest_p95_ms"])})
    return found


def chart(rows):
    bars = [{"label": "%s, %s events/s" % (side, text(row["rate"])), "value": row[side + "_p95_ms"]}
            for row in rows if "live_p95_ms" in row for side in ("live", "folded")]
    return [{"title": "Dashboard query, p95", "reference": ("budget", 50), "better": "lower", "unit": "ms", "bars": bars}]

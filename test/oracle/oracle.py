#!/usr/bin/env python3
"""Sends random traffic through every door, shuffled, doubled, split into random batches from several
connections, while backends, workers and the server are killed; then compares every table, row by row, with what
model.py computes from the raw events.

    oracle.py --bindir BIN --folder FOLDER [--seed N] [--events N]

The same seed makes the same events and the same plan; the moments of the kills differ.
"""
import argparse
import collections
import decimal
import itertools
import os
import queue
import random
import sys
import threading
import time
import traceback

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "data"))

import doors        # noqa: E402
import model        # noqa: E402
import real         # noqa: E402
from generate import Generator      # noqa: E402
from server import Failed, Server   # noqa: E402

US = "(extract(epoch FROM %s) * 1000000)::bigint"
ROLLUPS = {
    "o_pages": ("""SELECT behavior.time_bucket('1 hour', occurred_at) AS bucket,
                          coalesce(properties->>'page', properties->>'path', properties->>'url') AS page,
                          count(*) AS views, count(*) FILTER (WHERE user_id IS NOT NULL) AS known,
                          min(occurred_at) AS first, max(occurred_at) AS last, bool_or(user_id IS NOT NULL) AS any_user
                     FROM behavior.event WHERE type = 'PageView' GROUP BY 1, 2""",
                "SELECT " + US % "bucket" + " AS bucket, page, views, known, " + US % "first" + " AS first, " +
                US % "last" + " AS last, any_user FROM %s", model.pages_rollup),
    "o_sales": ("""SELECT source, properties->>'item' AS item, count(*) AS purchases,
                          sum(behavior.try_numeric(properties->>'quantity') * behavior.try_numeric(properties->>'price'))
                              AS amount,
                          count(*) FILTER (WHERE behavior.try_numeric(properties->>'price') > 2) AS dear,
                          avg(behavior.try_numeric(properties->>'price')) AS price,
                          max(behavior.try_numeric(properties->>'price')) AS most
                     FROM behavior.event WHERE type = 'Purchase' GROUP BY source, properties->>'item'""",
                "SELECT source, item, purchases, amount, dear, round(price, 6) AS price, most FROM %s",
                model.sales_rollup),
    "o_total": ("SELECT count(*) AS events, max(sequence) AS sequence, count(actor) AS people FROM behavior.event",
                "SELECT * FROM %s", model.total_rollup),
    "o_quantity": ("""SELECT source, sum((properties->>'quantity')::numeric) AS quantity FROM behavior.event
                       WHERE type = 'Purchase' GROUP BY source""",
                   "SELECT * FROM %s", model.quantity_rollup),
}
LATE = "o_quantity"     # made while events come in: backfilled


def rounded(row):
    return {k: v.quantize(decimal.Decimal("0.000001"), decimal.ROUND_HALF_UP)
            if k == "price" and isinstance(v, decimal.Decimal) else v for k, v in row.items()}


class Oracle:
    def __init__(self, arguments, settings=()):
        self.seed = arguments.seed
        self.rng = random.Random("oracle %d" % self.seed)
        self.count = arguments.events
        self.problems = []
        self.attempts = {}          # correlation id -> (rows, door, acknowledged)
        self.lock = threading.Lock()
        self.kills = collections.Counter()
        self.done = threading.Event()
        # One in three without the library preloaded: then nothing runs in the background.
        self.workers = self.rng.random() < 0.67
        settings = ["max_connections = 60", "behavior.tick_interval = '500ms'", "behavior.tick_events = 300", *settings]
        if self.workers:
            settings.append("shared_preload_libraries = 'behavior'")
        else:
            settings.append("session_preload_libraries = 'behavior'")
        self.server = Server(arguments.bindir, arguments.folder, settings)

    def say(self, text):
        print("seed %d: %s" % (self.seed, text), flush=True)

    def problem(self, text):
        self.problems.append(text)
        self.say("WRONG: " + text)

    def thread(self, target, *arguments):
        """Starts a thread; what it raises is a problem like any other."""
        def body():
            try:
                target(*arguments)
            except Exception:
                self.problem(traceback.format_exc())
        started = threading.Thread(target=body)
        started.start()
        return started

    # --- sending -------------------------------------------------------------------------------------------

    def make_traffic(self):
        rng = self.rng
        generator = Generator(self.seed)
        self.events = generator.events(self.count)
        if real.default_folder() and os.path.isdir(real.default_folder()):
            # A slice of something real, from anywhere in it.
            name = rng.choice(["wikipedia-readers", "apache-access", "github-events", "cdnow"])
            start = rng.randrange(1500)
            some = itertools.islice(real.DATASETS[name](real.default_folder()), start, start + self.count // 4)
            self.events += [e for e in some if not isinstance(e, str)]
            self.say("%d events made, and some of %s" % (self.count, name))
        else:
            self.say("%d events made; no folder of real ones" % self.count)
        self.broken = {}            # marker -> reason
        items = self.events + self.events
        for number in range(self.count // 100):
            line, reason, name = generator.broken_json(number)
            self.broken[name] = reason
            items.append((line, name))
            row, reason, name = generator.broken_row(number)
            self.broken[name] = reason
            items.append((row, name))
        rng.shuffle(items)
        self.expected = model.accepted(self.events)
        conflicts = [generator.conflict(e) for e in rng.sample(self.expected, self.count // 50)]
        return items, conflicts

    def batches(self, items):
        """Splits items, which keep their order within a batch, into (door, items)."""
        rng = self.rng
        at = 0
        while at < len(items):
            size = rng.choice([1, 1, 2, 5, 20, 100, 300, 700])
            some = items[at:at + size]
            at += size
            jsons = [i for i in some if isinstance(i, tuple) and isinstance(i[0], str)]
            rows = [i for i in some if isinstance(i, tuple) and not isinstance(i[0], str)]
            events = [i for i in some if not isinstance(i, tuple)]
            if jsons:
                yield rng.choice(doors.JSON), jsons + events
                events = []
            if rows:
                yield rng.choice(doors.ROWS), rows + events
                events = []
            if events:
                yield rng.choice(doors.EVENTS), events

    def send(self, batch, number, rng):
        door, items = batch
        markers = [i[1] for i in items if isinstance(i, tuple)]
        plain = [i[0] if isinstance(i, tuple) else i for i in items]
        for attempt in range(1, 200):
            correlation = "%d.%d" % (number, attempt)
            with self.lock:
                self.attempts[correlation] = [len(items), door, False, markers]
            try:
                door(self.server, plain, rng, attempt, "-c behavior.correlation_id=" + correlation)
                self.attempts[correlation][2] = True
                return
            except Failed as failure:
                # A deadlock is healed by a retry; 25006 and 55000 would be none of a sender's business.
                if not failure.gone and failure.state != "40P01":
                    self.problem("%s raised: %s" % (door.__name__, str(failure)[:600]))
                    return
                self.kills["retries"] += 1
                time.sleep(0.05 + rng.random() * 0.2)
        self.problem("%s could not be sent" % door.__name__)

    def send_all(self, items, connections):
        work = queue.Queue()
        for number, batch in enumerate(self.batches(items), len(self.attempts)):
            work.put((number, batch))

        def sender(rng):
            while True:
                try:
                    number, batch = work.get_nowait()
                except queue.Empty:
                    return
                self.send(batch, number, rng)
        return [self.thread(sender, random.Random("%d %d" % (self.seed, i))) for i in range(connections)]

    # --- disturbing ----------------------------------------------------------------------------------------

    def chaos(self, times):
        rng = random.Random("chaos %d" % self.seed)
        for _ in range(times):
            if self.done.wait(0.5 + rng.random() * 2):
                return
            try:
                what = rng.choice(["backend", "worker", "stop"])
                if what == "stop":
                    self.server.stop("immediate")
                    self.server.start()
                elif not self.server.kill(rng, "client backend" if what == "backend" else "behavior"):
                    continue
                self.kills[what] += 1
            except Failed:
                pass            # it was already being restarted

    def watch(self):
        """While events come in: the live rollup is exact in any snapshot, and everything can be asked to tick."""
        rng = random.Random("watch %d" % self.seed)
        rebuilt = False
        while not self.done.wait(0.3):
            try:
                level = rng.choice(["READ COMMITTED", "REPEATABLE READ"])
                if not self.workers or rng.random() < 0.2:
                    self.server.run("CALL behavior.tick()")
                # At READ COMMITTED a query is planned before its snapshot is taken: a partition attached in between
                # would be missing from the count of behavior.event, as of any partitioned table.
                lock = "LOCK TABLE behavior.log IN SHARE UPDATE EXCLUSIVE MODE;" if level == "READ COMMITTED" else ""
                got = self.server.psql(stdin=("""BEGIN ISOLATION LEVEL %s; %s
                    SELECT (SELECT sum(events) FROM o_total) - (SELECT count(*) FROM behavior.event);
                    COMMIT;""" % (level, lock)).encode()).strip()
                self.kills["looks"] += 1
                if got not in ("0", ""):
                    self.problem("a live rollup is off by %s at %s" % (got, level))
                ids = self.server.rows("SELECT session_id, source, visitor, " + US % "started_at" +
                                       " AS started_at FROM behavior.session LIMIT 200")
                self.seen_sessions.update((r["session_id"], r["source"], r["visitor"], int(r["started_at"])) for r in ids)
                if self.late is None and self.kills["looks"] > 2:
                    self.server.run("SELECT behavior.create_rollup('%s', $$%s$$, true)" % (LATE, ROLLUPS[LATE][0]))
                    self.late = True
                elif self.late and not rebuilt:
                    self.server.run("SELECT behavior.rebuild('%s')" % rng.choice(["sessions", "o_pages", "activity"]))
                    rebuilt = True
            except Failed as failure:
                if not failure.gone and failure.state != "40P01":
                    self.problem("watching: " + str(failure)[:600])
                    return

    # --- comparing -----------------------------------------------------------------------------------------

    def compare(self, name, query, expected):
        """EXCEPT ALL both ways."""
        found = collections.Counter(model.frozen(rounded(r)) for r in self.server.rows(query))
        wanted = collections.Counter(model.frozen(rounded(model.normal_row(r))) for r in expected)
        lacking, extra = wanted - found, found - wanted
        if lacking or extra:
            self.problem("%s: %d rows lack and %d are too many, of %d" % (
                name, sum(lacking.values()), sum(extra.values()), len(expected)))
            for label, rows in (("lacks", lacking), ("extra", extra)):
                for row in sorted(rows, key=str)[:3]:
                    self.say("    %s %s" % (label, str(row)[:900]))
        else:
            self.checked[name] = len(expected)

    def equal(self, name, query, expected):
        found = self.server.value(query)
        if found != str(expected):
            self.problem("%s: %s instead of %s" % (name, found, expected))

    def compare_all(self):
        events = self.expected
        self.checked = {}
        self.compare("events", "SELECT event_id, source, type, user_id, anonymous_id, " + US % "occurred_at" +
                     " AS occurred_at, sequence, properties, actor FROM behavior.event",
                     [dict({k: e[k] for k in ("event_id", "source", "type", "user_id", "anonymous_id", "occurred_at",
                                              "sequence", "properties")}, actor=model.actor(e)) for e in events])
        rows, session_of = model.sessions(events)
        self.compare("sessions", "SELECT session_id, source, visitor, user_id, " + US % "started_at" +
                     " AS started_at, " + US % "ended_at" + " AS ended_at, " + US % "duration" +
                     " AS duration, events, page_views, entry_type, entry_page, exit_type, exit_page, "
                     "nullif(entry_properties, '{}') AS entry_properties, type_counts FROM behavior.session", rows)
        self.compare("session of each event", "SELECT source, event_id, session_id FROM behavior.event_session",
                     [{"source": e["source"], "event_id": e["event_id"],
                       "session_id": session_of.get((e["source"], e["event_id"]))} for e in events])
        self.compare_aliases(rows)
        for name, (_, read, compute) in ROLLUPS.items():
            expected = compute(events)
            for relation in (name, name + "_folded"):
                self.compare(relation, read % relation, expected)
        self.compare("activity", "SELECT " + US % "bucket" + " AS bucket, source, type, events FROM behavior.activity",
                     model.activity(events))
        self.equal("events set aside", "SELECT events_set_aside FROM behavior.projection WHERE name = '%s'" % LATE,
                   model.set_aside(events))
        self.equal("events without a tick", "SELECT count(*) FROM behavior.event WHERE tick_id IS NULL", 0)
        self.equal("ticks have no gap", "SELECT max(tick_id) = count(*) AND sum(events) = %d FROM behavior.tick"
                   % len(events), "t")
        self.compare("projections that are not current", "SELECT * FROM behavior.projection WHERE state <> 'current' OR "
                     "tick_id <> (SELECT max(tick_id) FROM behavior.tick) OR lag_events <> 0", [])
        for e in self.rng.sample(events, 5):
            # Beside it stands what conflicted with it, if that was sent.
            self.equal("find_event", "SELECT status FROM behavior.find_event(%s, %s) WHERE status <> 'conflict'" % (
                doors.literal(e["event_id"]), doors.literal(e["source"])), "accepted")
        self.equal("verify()", "SELECT count(*) FROM behavior.verify()", 0)

    def compare_aliases(self, rows):
        """Every session id that was ever seen leads to the session that its first event is in now."""
        living = {r["session_id"] for r in rows}
        aliases = {r["session_id"]: r["merged_into"] for r in self.server.rows("SELECT * FROM behavior.session_alias")}
        for old, new in aliases.items():
            if old in living or new not in living:
                self.problem("session_alias %s to %s" % (old, new))
                break
        by_visitor = model.grouped(rows, lambda r: (r["source"], r["visitor"]))
        for identity, source, visitor, started_at in sorted(self.seen_sessions):
            now = [r["session_id"] for r in by_visitor[source, visitor]
                   if r["started_at"] <= started_at <= r["ended_at"]]
            if aliases.get(identity, identity) not in now:
                self.problem("session %s of %s, once seen, leads nowhere" % (identity, visitor))
                break

    def compare_counts(self, conflicts):
        """Each batch is there once or not at all, and whatever was acknowledged is there."""
        got = {r["correlation_id"]: r for r in self.server.rows("""
            SELECT correlation_id, sum(received) AS received, sum(accepted) AS accepted, sum(duplicates) AS duplicates,
                   sum(conflicts) AS conflicts, sum(dead_letters) AS dead_letters FROM behavior.batch GROUP BY 1""")}
        for unknown in set(got) - set(self.attempts):
            self.problem("a batch that nobody sent: %s" % got[unknown])
        broken = collections.Counter()
        for correlation, (sent, door, acknowledged, markers) in self.attempts.items():
            received = int(got[correlation]["received"]) if correlation in got else 0
            if received > sent or (received < sent and (acknowledged or (received and door not in doors.PARTIAL))):
                self.problem("%s: %d received of %d sent through %s" % (correlation, received, sent, door.__name__))
            if correlation in got and received == sent:
                broken.update(markers)
            elif received:
                # Statements that were committed one by one, in order; the broken ones come first.
                broken.update(markers[:received])
        sums = collections.Counter()
        for row in got.values():
            sums.update({k: int(v) for k, v in row.items() if k != "correlation_id"})
        if sums["received"] != sums["accepted"] + sums["duplicates"] + sums["conflicts"] + sums["dead_letters"]:
            self.problem("counts do not add up: %s" % sums)
        if sums["accepted"] != len(self.expected) or sums["conflicts"] != conflicts or \
                sums["dead_letters"] != sum(broken.values()):
            self.problem("counts: %s instead of accepted %d, conflicts %d, dead letters %d" % (
                dict(sums), len(self.expected), conflicts, sum(broken.values())))
        columns = ("received", "accepted", "duplicates", "conflicts", "dead_letters")
        self.equal("intake", "SELECT " + " || ',' || ".join("sum(%s)" % c for c in columns) + " FROM behavior.intake",
                   ",".join(str(sums[c]) for c in columns))
        self.equal("conflicts kept", "SELECT count(*) FROM behavior.dead_letter WHERE reason = 'id_conflict'",
                   conflicts)
        self.compare("dead letters", """SELECT reason, substring(payload FROM '(broken|row)-%d-(\\d+)') AS kind,
                substring(payload FROM '(?:broken|row)-%d-(\\d+)') AS number FROM behavior.dead_letter
            WHERE stage = 'ingest' AND reason <> 'id_conflict'""" % (self.seed, self.seed),
                     [{"reason": self.broken[m], "kind": m.split("-")[0], "number": m.split("-")[-1]}
                      for m in broken.elements()])
        self.compare("dead letters of a fold", """SELECT source, event_id FROM behavior.dead_letter
            WHERE stage = 'fold' AND reason = 'evaluation_error' AND projection = '%s'""" % LATE,
                     [{"source": e["source"], "event_id": e["event_id"]} for e in self.expected if model.set_aside([e])])

    # --- all of it -----------------------------------------------------------------------------------------

    def run(self):
        begin = time.monotonic()
        self.seen_sessions = set()
        self.late = None
        self.server.run("CREATE DATABASE oracle", database="postgres")
        self.server.run("CREATE EXTENSION behavior")
        for name, (query, _, _) in ROLLUPS.items():
            if name != LATE:
                self.server.run("SELECT behavior.create_rollup('%s', $$%s$$)" % (name, query))
        self.server.run("CALL behavior.tick()")
        items, conflicts = self.make_traffic()

        senders = self.send_all(items, connections=4)
        others = [self.thread(self.chaos, 3 + self.count // 5000), self.thread(self.watch)]
        for thread in senders:
            thread.join()
        self.done.set()
        for thread in others:
            thread.join()

        # Known keys with another payload: only now is it certain which came first.
        self.server.patiently(lambda: self.server.value("SELECT 1"))
        if self.late is None:
            self.server.run("SELECT behavior.create_rollup('%s', $$%s$$, true)" % (LATE, ROLLUPS[LATE][0]))
        for thread in self.send_all(conflicts, connections=2):
            thread.join()
        if self.problems:
            return False        # the rest could only say what follows from it
        self.server.run("CALL behavior.tick()")
        self.compare_all()
        self.compare_counts(len(conflicts))

        if self.rng.random() < 0.5:
            # The same once more, rebuilt from the log.
            for name in ("sessions", "o_sales"):
                self.server.run("SELECT behavior.rebuild('%s')" % name)
            self.server.run("CALL behavior.tick()")
            self.compare_all()
        self.say("%d events in %d batches, %s, %s, %.1f s: %s" % (
            len(self.expected), len(self.attempts), "with workers" if self.workers else "without preload",
            ", ".join("%d %s" % (n, k) for k, n in sorted(self.kills.items())), time.monotonic() - begin,
            "%d WRONG" % len(self.problems) if self.problems else "equal"))
        return not self.problems


def main(description, kind, events):
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bindir", required=True)
    parser.add_argument("--folder", required=True)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1000000))
    parser.add_argument("--events", type=int, default=events)
    oracle = kind(parser.parse_args())
    good = False
    try:
        good = oracle.run()
    finally:
        if good:
            oracle.server.remove()
        else:
            # The log stays for whoever looks; the same seed makes the rest again.
            oracle.server.stop("immediate")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main(__doc__, Oracle, 6000)

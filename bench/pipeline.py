"""pipeline.py: the whole way from COPY to folded tables, next to hand-written SQL with the same answers.

The other side is bench/pipeline/*.sql: an unlogged stage, INSERT ... ON CONFLICT, GROUP BY upserts for three rollups (one of
them with hll, when that is installed) and a set-based session merge.  A feeder sends files by COPY, one after the other, on
one connection.  Meanwhile the derived tables are kept up to date: by behavior's worker, and by procedures that are called
again as soon as the last call has ended, from one other connection or, split in two, from two.  What is sent last is folded at
once on either side.  Events a second count from the first COPY until all that was sent is in the folded tables.

Then both sides are sent some of it again, and late events in random order, and every derived table is compared by EXCEPT ALL,
both ways: sides that disagree are a failure, not a result.
"""
import os
import random
import threading
import time
import uuid

from common import COLUMNS, HERE, Failed, alternate, flat, ratio, text
from measure import cpu_seconds, difference, total

TITLE = "The whole pipeline"
ROLLUPS = {
    # behavior.activity is there without asking.
    "page_views": """SELECT behavior.time_bucket('1 minute', occurred_at) AS bucket, properties->>'page' AS page, count(*) AS views%s
        FROM behavior.event WHERE type = 'PageView' GROUP BY 1, 2""",
    "revenue": """SELECT behavior.time_bucket('1 day', occurred_at) AS day, properties->>'campaign' AS campaign, count(*) AS orders,
        sum(behavior.try_numeric(properties->>'price') * behavior.try_numeric(properties->>'quantity')) AS revenue
        FROM behavior.event WHERE type = 'Purchase' GROUP BY 1, 2""",
}
SESSION = "source, visitor, user_id, started_at, ended_at, duration, events, page_views, entry_type, entry_page, exit_type, exit_page"
# What is compared: behavior's query, and the one of the hand-written tables.
ANSWERS = {
    "events": ("SELECT event_id::uuid, source, type, user_id, anonymous_id, occurred_at, properties FROM behavior.event WHERE type <> 'First'",
               "SELECT event_id, source, type, user_id, anonymous_id, occurred_at, properties FROM hand.event"),
    "sessions": ("SELECT %s, entry_properties ->> 'referrer' AS referrer FROM behavior.session" % SESSION,
                 "SELECT %s, referrer FROM hand.session" % SESSION),
    "activity": ("SELECT bucket, source, type, events FROM behavior.activity_folded WHERE type <> 'First'",
                 "SELECT bucket, source, type, events FROM hand.activity"),
    "page_views": ("SELECT bucket, page, views%s FROM page_views_folded", "SELECT bucket, page, views%s FROM hand.page_views"),
    "revenue": ("SELECT day, campaign, orders, revenue FROM revenue_folded", "SELECT day, campaign, orders, revenue FROM hand.revenue"),
}
EVERY = 2
LAGGING = "SELECT count(*) FROM behavior.projection WHERE lag_events > 0 OR state <> 'current'"


def sketch(bench, query, column):
    """A query of page_views, with the column for unique visitors when hll is installed."""
    return query % (column if bench.have("hll") else "")


def make_behavior(bench, name, rollups=tuple(ROLLUPS)):
    bench.behavior(name)
    if bench.have("hll"):
        bench.psql(name, "CREATE EXTENSION hll")
    for rollup in rollups:
        query = ROLLUPS[rollup]
        if "%s" in query:
            query = sketch(bench, query, ", hll_add_agg(hll_hash_text(actor)) AS visitors")
        bench.psql(name, "SELECT behavior.create_rollup('%s', $rollup$%s$rollup$)" % (rollup, query))
    bench.psql(name, "CALL behavior.tick()")
    if bench.value(name, LAGGING) != "0":
        raise Failed("a rollup is not live: " + bench.value(name, "SELECT string_agg(name || ' ' || state, ', ') FROM behavior.projection"))
    return name


def make_hand(bench, name):
    """Runs bench/pipeline/*.sql; their \\if takes a variable, which psql takes from a file only."""
    bench.database(name, "CREATE EXTENSION hll" if bench.have("hll") else "")
    script = "\\set hll %s\n" % ("on" if bench.have("hll") else "off")
    for file in ("schema", "move", "fold"):
        script += "\\i %s\n" % os.path.join(HERE, "pipeline", file + ".sql")
    path = os.path.join(bench.work, "hand.psql")
    with open(path, "w", encoding="utf-8") as file:
        file.write(script)
    with bench.session(name) as session:
        session.run("\\i " + path + "\nSELECT 1")
    return name


class Beat(threading.Thread):
    """Calls procedures again and again on a connection of its own, so many seconds after the last time or as soon as they have
    ended, and once more after finish()."""

    def __init__(self, session, every, *calls):
        super().__init__(daemon=True)
        self.session = session
        self.every = every
        self.calls = calls
        self.over = threading.Event()
        self.failure = None

    def run(self):
        try:
            last = False
            while not last:
                last = self.over.is_set()
                start = time.monotonic()
                for call in self.calls:
                    self.session.run(call)
                self.over.wait(max(0, start + self.every - time.monotonic()))
        except Failed as failure:
            self.failure = failure

    def finish(self):
        self.over.set()
        self.join()
        if self.failure:
            raise self.failure


def feed(session, table, files):
    for path in files:
        session.run("COPY %s (%s) FROM '%s' WITH (FORMAT csv)" % (table, COLUMNS, path))


def figures(count, start, wal, feeder, others):
    seconds = time.monotonic() - start
    return {"seconds": seconds, "events_per_s": count / seconds, "feeder_cpu": feeder, "folding_cpu": total(others), "wal": wal}


def run_hand(bench, files, count, beats, stage="UNLOGGED"):
    """beats: for each connection, how many seconds there are between calls, and what it calls."""
    name = make_hand(bench, "hand")
    if stage == "LOGGED":
        bench.psql(name, "ALTER TABLE hand.stage SET LOGGED", "ALTER TABLE hand.stage_spare SET LOGGED")
    sessions = [bench.session(name) for _ in range(len(beats) + 1)]
    try:
        before = [cpu_seconds(s.pid) for s in sessions]
        wal, start = bench.position(), time.monotonic()
        threads = [Beat(session, *calls) for session, calls in zip(sessions[1:], beats)]
        for thread in threads:
            thread.start()
        feed(sessions[0], "hand.stage", files)
        for thread in threads:
            thread.finish()
        cpu = [difference(cpu_seconds(s.pid), b) for s, b in zip(sessions, before)]
        result = figures(count, start, bench.position() - wal, cpu[0], cpu[1:])
    finally:
        for session in sessions:
            session.close()
    return result


def workers(bench):
    return [int(pid) for pid in bench.value(
        "postgres", "SELECT pid FROM pg_stat_activity WHERE backend_type = 'behavior worker' AND datname = 'whole'").split()]


def switch_worker(bench, on):
    bench.psql("postgres", "ALTER SYSTEM SET behavior.worker = %s" % ("on" if on else "off"), "SELECT pg_reload_conf()")
    deadline = time.monotonic() + 30
    while bool(workers(bench)) != on:
        if time.monotonic() > deadline:
            raise Failed("behavior's worker does not %s" % ("start" if on else "stop"))
        time.sleep(0.1)


def run_behavior(bench, files, count):
    name = make_behavior(bench, "whole")
    switch_worker(bench, True)
    try:
        with bench.session(name) as session:
            processes = [session.pid] + workers(bench)
            before = [cpu_seconds(pid) for pid in processes]
            wal, start = bench.position(), time.monotonic()
            feed(session, "behavior.event", files)
            fed = cpu_seconds(session.pid)
            # Waits for the worker's fold, then folds the rest.
            session.run("CALL behavior.tick()")
            cpu = [difference(cpu_seconds(pid), b) for pid, b in zip(processes, before)]
            feeder = difference(fed, before[0])
            result = figures(count, start, bench.position() - wal, feeder, [difference(cpu[0], feeder)] + cpu[1:])
            if session.run(LAGGING) != "0":
                raise Failed("behavior has not folded all that was sent")
    finally:
        switch_worker(bench, False)
    return result


MOVE, FOLD = "CALL hand.move()", "CALL hand.fold()"
ONE = [[EVERY, MOVE, FOLD]]
TWO = [[EVERY / 4, MOVE], [EVERY, FOLD]]
SIDES = {
    "behavior": run_behavior,
    "hand-written, two procedures at a time": lambda *arguments: run_hand(*arguments, TWO),
}
# For comparison only: one round each.
ONE_PROCEDURE = "hand-written, one procedure"
LOGGED = "the same, with a stage that survives a crash"


def whole(bench, files, count):
    """Every side in turn, each in a database of its own."""
    sides = {side: lambda _, run=run: run(bench, files, count) for side, run in SIDES.items()}
    once = {ONE_PROCEDURE: lambda _: run_hand(bench, files, count, ONE),
            LOGGED: lambda _: run_hand(bench, files, count, TWO, "LOGGED")}
    results = alternate(once, 1, bench)
    results = dict(alternate(sides, min(2, bench.rounds), bench), **results)
    return [dict(flat(row), measure="whole", side=side, events=count) for side, row in results.items()]


def agree(bench, what):
    """Compares every answer of the databases whole and hand, both ways; a row for each."""
    rows = []
    for name, (ours, theirs) in ANSWERS.items():
        if "%s" in ours:
            ours = sketch(bench, ours, ", round(hll_cardinality(visitors)::numeric, 3) AS visitors")
            theirs = sketch(bench, theirs, ", round(hll_cardinality(visitors)::numeric, 3) AS visitors")
        path = os.path.join(bench.work, name + ".answer")
        bench.psql("whole", "\\copy (%s) TO '%s' WITH (FORMAT csv)" % (ours, path))
        os.chmod(path, 0o644)
        bench.psql("hand", "DROP TABLE IF EXISTS public.theirs, public.ours", "CREATE UNLOGGED TABLE public.theirs AS " + theirs,
                   "CREATE UNLOGGED TABLE public.ours (LIKE public.theirs)", "COPY public.ours FROM '%s' WITH (FORMAT csv)" % path)
        os.unlink(path)
        count, missing, extra = bench.value("hand", """SELECT (SELECT count(*) FROM public.ours),
            (SELECT count(*) FROM (TABLE public.theirs EXCEPT ALL TABLE public.ours) t),
            (SELECT count(*) FROM (TABLE public.ours EXCEPT ALL TABLE public.theirs) t)""", {"work_mem": "256MB"}).split("|")
        rows.append({"measure": "agree", "what": what, "answer": name, "rows": int(count),
                     "only_hand": int(missing), "only_behavior": int(extra)})
    bench.psql("hand", "DROP TABLE public.theirs, public.ours")
    wrong = [row for row in rows if row["only_hand"] or row["only_behavior"]]
    if wrong:
        raise Failed("behavior and the hand-written pipeline disagree (%s): %s" % (
            what, ", ".join("%(answer)s: %(only_behavior)d and %(only_hand)d rows" % row for row in wrong)))
    return rows


def send_both(bench, files):
    """The same files to both sides, folded after each."""
    for name, table, calls in (("whole", "behavior.event", ["CALL behavior.tick()"]), ("hand", "hand.stage", [MOVE, FOLD])):
        with bench.session(name) as session:
            for path in files:
                feed(session, table, [path])
                for call in calls:
                    session.run(call)


def counts(bench):
    """How many events each side has, in the log and in the derived tables."""
    rows = []
    for side, database, queries in (
            ("behavior", "whole", ("count(*) FROM behavior.event WHERE type <> 'First'", "sum(events) FROM behavior.session",
                                   "sum(events) FROM behavior.activity_folded WHERE type <> 'First'")),
            ("hand-written", "hand", ("count(*) FROM hand.event", "sum(events) FROM hand.session", "sum(events) FROM hand.activity"))):
        stored, sessions, rollup = [int(bench.value(database, "SELECT " + query)) for query in queries]
        rows.append({"measure": "counts", "side": side, "stored": stored, "in_sessions": sessions, "in_rollup": rollup})
    return rows


def late_files(bench, start, count):
    """Events spread over a day in random order, about half an hour apart for each visitor, one in ten sent twice: they
    open, extend and bridge sessions.  Times are whole seconds, so that there are ties."""
    chance = random.Random(1)
    lines = []
    for _ in range(count):
        visitor = chance.randrange(max(1, count // 50))
        moment = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(start + chance.randrange(86400)))
        page = '""page"": ""/%d"", ' % chance.randrange(20) if chance.random() < 0.8 else ""
        referrer = '""referrer"": ""r%d"", ' % chance.randrange(5) if chance.random() < 0.2 else ""
        lines.append('%s,late,%s,%s,visitor-%d,%s,"{%s%s""price"": %d.50, ""quantity"": 2}"\n' % (
            uuid.UUID(int=chance.getrandbits(128), version=4), chance.choice(("PageView", "Click", "Purchase")),
            "user-%d" % chance.randrange(9) if chance.random() < 0.3 else "", visitor, moment, page, referrer, chance.randrange(100)))
    lines += chance.sample(lines, count // 10)
    chance.shuffle(lines)
    files = []
    for part in range(4):
        path = os.path.join(bench.work, "late-%d.csv" % part)
        with open(path, "w", encoding="utf-8") as file:
            file.writelines(lines[part::4])
        os.chmod(path, 0o644)
        files.append(path)
    return files


def tick_cost(bench, name, files, calls):
    """Loads a backlog and folds it in one backend."""
    with bench.session(name) as session:
        feed(session, "hand.stage" if name == "hand" else "behavior.event", files)
        if name == "hand":
            session.run("CALL hand.move()")
        bench.checkpoint()
        return flat(bench.measure((session, calls)))


def fold_alone(bench, files, count, part, part_count):
    """A backlog folded by one backend; and what each projection adds, from a smaller backlog."""
    def behavior(rollups, files):
        return tick_cost(bench, make_behavior(bench, "backlog", rollups), files, "CALL behavior.tick()")

    def hand(_):
        return tick_cost(bench, make_hand(bench, "hand"), files, "CALL hand.fold()")

    both = alternate({"behavior": lambda _: behavior(tuple(ROLLUPS), files), "hand-written": hand}, 1, bench)
    rows = [dict(flat(row), measure="fold", side=side, events=count) for side, row in both.items()]
    before = None
    for name, rollups in (("sessions and activity", ()), ("page_views", ("page_views",)), ("revenue", ("page_views", "revenue"))):
        figures_now = behavior(rollups, part)
        row = {"measure": "split", "projection": name, "events": part_count}
        for figure in ("cpu", "instructions"):
            row[figure] = difference(figures_now[figure], before[figure] if before else 0)
        rows.append(row)
        before = figures_now
    bench.drop("backlog")
    return rows


def run(bench):
    chunk = bench.size(2_500, 20_000, 50_000)
    count = bench.size(10_000, 1_000_000, 10_000_000)
    if not bench.room(count * 2500, "The whole pipeline with %d events" % count):
        count = 200_000
    # One start for all files, of whole past days.
    start = (int(time.time()) // 86400 - 2 - count // 579 // 86400) * 86400
    files = [bench.events(chunk, first=first, start=start) for first in range(0, count, chunk)]
    bench.say("  behavior and the hand-written pipelines, in turn")
    rows = whole(bench, files, count)

    again = files[:max(2, len(files) // 10)]
    bench.say("  comparing answers")
    send_both(bench, again)
    rows += [dict(row, sent=count + len(again) * chunk, right=count) for row in counts(bench)]
    send_both(bench, late_files(bench, start, bench.size(4_000, 60_000, 200_000)))
    rows += agree(bench, "all, a tenth of it again, and late, shuffled and repeated events")
    bench.drop("whole")

    bench.say("  folding alone")
    most = min(count, 1_000_000)
    part = files[:max(1, min(count, 300_000) // chunk)]
    rows += fold_alone(bench, files[:most // chunk], most, part, len(part) * chunk)
    return rows


def pick(rows, measure):
    return [row for row in rows if row["measure"] == measure]


def by_side(rows, measure):
    return {row["side"]: row for row in pick(rows, measure)}


def best_hand(rows):
    """The fastest of the sides that promise what the issue asks of the reference."""
    return max((row for side, row in by_side(rows, "whole").items() if side.startswith("hand")), key=lambda row: row["events_per_s"])


def per_event(row, name, scale):
    return None if row.get(name) is None else row[name] / row["events"] * scale


def tables(rows):
    best = best_hand(rows)
    out = ["""One connection COPYs %s events in chunks as fast as it can; meanwhile the derived tables (sessions and three rollups) are kept
up to date. Events a second until everything sent is in the folded tables. The reference is the fastest hand-written side with an
unlogged stage, which a crash empties; no side but behavior keeps type_counts, the session's id with its aliases, and dead letters.
""" % text(best["events"])]
    out.append("| | events/s | from–to | next to the fastest hand-written | processor, feeding | processor, moving and folding | "
               "WAL an event |\n|---|---|---|---|---|---|---|")
    for row in pick(rows, "whole"):
        out.append("| %s | %s | %s–%s | %s | %s µs | %s µs | %s |" % (
            row["side"], text(row["events_per_s"]), text(row["events_per_s_low"]), text(row["events_per_s_high"]),
            text(ratio(row["events_per_s"], best["events_per_s"]), 2), text(per_event(row, "feeder_cpu", 1e6), 1),
            text(per_event(row, "folding_cpu", 1e6), 1), text(per_event(row, "wal", 1))))
    out.append("\nA backlog folded by one backend, nothing else running:\n\n"
               "| | events | events/s | events/s of processor | instructions an event |\n|---|---|---|---|---|")
    for row in pick(rows, "fold"):
        out.append("| %s | %s | %s | %s | %s |" % (row["side"], text(row["events"]), text(row["events"] / row["seconds"]),
                                                 text(ratio(row["events"], row["cpu"])), text(per_event(row, "instructions", 1))))
    out.append("\nWhat each projection adds to behavior's fold:\n\n| | processor an event | instructions an event |\n|---|---|---|")
    for row in pick(rows, "split"):
        out.append("| %s | %s µs | %s |" % (row["projection"], text(per_event(row, "cpu", 1e6), 2), text(per_event(row, "instructions", 1))))
    out.append("\nThe answers of both sides, compared by EXCEPT ALL both ways:\n\n| | %s |\n|---|%s" % (
        " | ".join(ANSWERS), "---|" * len(ANSWERS)))
    agreed = pick(rows, "agree")
    for what in dict.fromkeys(row["what"] for row in agreed):
        out.append("| %s | %s |" % (what, " | ".join(
            "%s rows, %d differ" % (text(row["rows"]), row["only_hand"] + row["only_behavior"]) for row in agreed if row["what"] == what)))
    for row in pick(rows, "counts"):
        out.append("\n%s, sent %s rows of %s events: %s stored, %s in sessions, %s in a rollup%s" % (
            row["side"], text(row["sent"]), text(row["right"]), text(row["stored"]), text(row["in_sessions"]),
            text(row["in_rollup"]),
            ": right." if row["stored"] == row["in_sessions"] == row["in_rollup"] == row["right"] else ": WRONG."))
    return "\n".join(out)


def budgets(rows):
    best, behavior = best_hand(rows), by_side(rows, "whole")["behavior"]
    fold = by_side(rows, "fold")["behavior"]
    speed = ratio(fold["events"], fold["cpu"]) or fold["events"] / fold["seconds"]
    times = behavior["events_per_s"] / best["events_per_s"]
    return [
        {"name": "pipeline", "measured": "%.2f times" % times, "met": times >= 3,
         "note": "%s events/s next to %s (%s)" % (text(behavior["events_per_s"]), text(best["events_per_s"]), best["side"])},
        {"name": "fold", "measured": text(speed) + " events/s", "met": speed >= 150_000,
         "note": "of processor time; %s by the clock" % text(fold["events"] / fold["seconds"])},
    ]


def chart(rows):
    best = best_hand(rows)["events_per_s"]
    return [{"title": TITLE, "reference": ("fastest hand-written", 1.0), "better": "higher", "unit": "",
             "bars": [{"label": row["side"], "value": row["events_per_s"] / best, "text": text(row["events_per_s"]) + "/s"}
                      for row in pick(rows, "whole")]}]

"""route.py: what refusing, routing and delivering cost.

Validation: COPY into behavior.event without event types, and with a schema of five properties for each type; beside it the
schema alone, over stored events.
Routing: the tick of the same events with 0, 1, 10 and 1,000 subscriptions, of which each asks for another page, and one pattern alone.
Delivery: what waits for one subscription, through a handler that inserts what it is given, next to a hand-written queue: the same events
in a table, taken by DELETE of FOR UPDATE SKIP LOCKED LIMIT n and inserted, a transaction for each n.
Latency: from a client's INSERT to the handler's first statement, one event at a time, while rollups fold every 5 seconds.
"""
import json
import time

from common import COLUMNS, alternate, flat, percentile, ratio, text

TITLE = "Validation, routing and delivery"

TYPES = ("PageView", "Click", "Search", "Purchase")
SCHEMA = json.dumps({
    "type": "object", "required": ["page", "mobile"],
    "properties": {"page": {"type": "string", "maxLength": 2000}, "mobile": {"type": "boolean"}, "campaign": {"type": "string"},
                   "ms": {"type": "integer", "minimum": 0}, "referrer": {"type": ["string", "null"]}}})
SUBSCRIPTIONS = (0, 1, 10, 1000)
BATCH_SIZES = (1, 100, 1000)
LATENCY_BUDGET = 0.5        # seconds

HANDLER = """CREATE TABLE done (event_id text, type text, user_id text, occurred_at timestamptz, properties jsonb);
    CREATE FUNCTION handle(events behavior.event[]) RETURNS void LANGUAGE sql SET search_path = public, pg_temp AS $$
        INSERT INTO done SELECT event_id, type, user_id, occurred_at, properties FROM unnest(events) $$"""
# The queue that one would write by hand.
QUEUE = """CREATE TABLE queue (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, event_id text, type text, user_id text,
        occurred_at timestamptz, properties jsonb);
    CREATE PROCEDURE work(size int) LANGUAGE plpgsql AS $$
    BEGIN
        LOOP
            WITH taken AS (
                DELETE FROM queue WHERE id IN (SELECT id FROM queue ORDER BY id LIMIT size FOR UPDATE SKIP LOCKED)
                RETURNING event_id, type, user_id, occurred_at, properties)
            INSERT INTO done SELECT * FROM taken;
            EXIT WHEN NOT FOUND;
            COMMIT;
        END LOOP;
    END $$"""


def figures_of(bench, session, sql, count):
    """A statement's cost for each of so many events."""
    figures = flat(bench.measure((session, sql)))
    return {"seconds": figures["seconds"], "us_per_event": figures["seconds"] * 1e6 / count,
            "cpu_us_per_event": ratio(figures["cpu"], count / 1e6),
            "instructions_per_event": ratio(figures["instructions"], count), "wal_bytes_per_event": figures["wal"] / count}


def measured(bench, database, sql, count, settings=None):
    with bench.session(database, settings) as session:
        session.run("SELECT count(*) FROM behavior.event LIMIT 0")     # catalogs
        bench.checkpoint()
        return figures_of(bench, session, sql, count)


def row_of(measurement, side, count, figures, base):
    """A row; what it costs over its base, by instructions where they are counted."""
    over = {name: None if figures.get(name) is None or base.get(name) is None else figures[name] - base[name]
            for name in ("us_per_event", "cpu_us_per_event", "instructions_per_event")}
    return dict(measurement=measurement, side=side, events=count, **figures,
                **{"over_" + name: value for name, value in over.items()})


# Validation

def copy(bench, side, path, count):
    bench.behavior("route")
    if side == "schema":
        for name in TYPES:
            bench.psql("route", "SELECT behavior.create_event_type('%s', '%s')" % (name, SCHEMA))
    figures = measured(bench, "route", "COPY behavior.event (%s) FROM '%s' WITH (FORMAT csv)" % (COLUMNS, path), count)
    found = bench.value("route", "SELECT sum(accepted) FROM behavior.batch WHERE tick_id IS NULL")
    if found != str(count):
        raise AssertionError("%s of %d events are valid" % (found, count))
    return figures


def validation(bench):
    count = bench.size(2000, 200_000, 2_000_000)
    path = bench.events(count)
    sides = alternate({side: lambda _, side=side: copy(bench, side, path, count) for side in ("none", "schema")}, bench.rounds)
    rows = [row_of("validation", side, count, figures, sides["none"]) for side, figures in sides.items()]
    # The last database has the events: the schema alone, and the pattern alone.
    alone = {
        "read": "SELECT count(*) FROM behavior.event WHERE properties IS NOT NULL AND type IS NOT NULL",
        "json_schema_valid": "SELECT count(*) FROM behavior.event WHERE behavior.json_schema_valid('%s', properties)" % SCHEMA,
        "event_json": "SELECT count(behavior.event_json(e)) FROM behavior.event e",
        "event_matches": "SELECT count(*) FROM behavior.event e WHERE behavior.event_matches('%s', behavior.event_json(e))" % pattern(1)}
    results = alternate({side: lambda _, sql=sql: measured(bench, "route", sql, count, {"max_parallel_workers_per_gather": 0})
                         for side, sql in alone.items()}, bench.rounds)
    for side, base in (("json_schema_valid", "read"), ("event_json", "read"), ("event_matches", "event_json")):
        rows.append(row_of("alone", side, count, results[side], results[base]))
    return rows


# Routing

def pattern(number):
    return json.dumps({"source": ["web", "app", "shop"], "detail-type": ["PageView"], "detail": {"page": ["/p/%d" % number]}})


def tick(bench, subscriptions, path, count):
    bench.behavior("route")
    if subscriptions:
        bench.psql("route", "SELECT count(behavior.create_subscription('s' || i, replace('%s', '/p/0', '/p/' || i)::jsonb)) "
                            "FROM generate_series(1, %d) i" % (pattern(0), subscriptions), "CALL behavior.tick()")
    bench.psql("route", "COPY behavior.event (%s) FROM '%s' WITH (FORMAT csv)" % (COLUMNS, path))
    figures = measured(bench, "route", "CALL behavior.tick()", count)
    found = int(bench.value("route", "SELECT coalesce(sum(matched), 0) FROM behavior.subscription"))
    wanted = int(bench.value("route", "SELECT count(*) FROM behavior.event WHERE source IN ('web', 'app', 'shop') AND type = 'PageView' "
                                      "AND properties->>'page' ~ '^/p/[0-9]+$' AND substr(properties->>'page', 4)::int BETWEEN 1 AND %d"
                             % subscriptions))
    if found != wanted:
        raise AssertionError("%d subscriptions: %d matched instead of %d" % (subscriptions, found, wanted))
    return dict(figures, matched=found)


def routing(bench):
    count = bench.size(2000, 60_000, 1_000_000)
    path = bench.events(count)
    sides = alternate({n: lambda _, n=n: tick(bench, n, path, count) for n in SUBSCRIPTIONS}, min(bench.rounds, 2))
    return [row_of("routing", str(n), count, figures, sides[0]) for n, figures in sides.items()]


# Delivery

def deliver(bench, path, size, count):
    bench.behavior("route", HANDLER)
    bench.psql("route", "SELECT behavior.create_subscription('all', '{\"source\": [{\"anything-but\": \"bench\"}]}', 'handle', batch_size => %d)" % size,
               "CALL behavior.tick()", "SELECT behavior.pause_subscription('all')",
               "COPY behavior.event (%s) FROM '%s' WITH (FORMAT csv)" % (COLUMNS, path), "CALL behavior.tick()",
               "SELECT behavior.resume_subscription('all')")
    figures = measured(bench, "route", "CALL behavior.tick()", count)
    check_done(bench, count)
    return figures


def by_hand(bench, path, size, count):
    bench.behavior("route", HANDLER + ";" + QUEUE)
    bench.psql("route", "COPY behavior.event (%s) FROM '%s' WITH (FORMAT csv)" % (COLUMNS, path),
               "INSERT INTO queue (event_id, type, user_id, occurred_at, properties) SELECT event_id, type, user_id, occurred_at, properties "
               "FROM behavior.event WHERE source <> 'bench'", "VACUUM ANALYZE queue")
    figures = measured(bench, "route", "CALL work(%d)" % size, count)
    check_done(bench, count)
    return figures


def check_done(bench, count):
    found = bench.value("route", "SELECT count(*) || ' ' || count(DISTINCT event_id) FROM done")
    if found != "%d %d" % (count, count):
        raise AssertionError("%s of %d events took effect" % (found, count))


def delivery(bench):
    rows = []
    for size in BATCH_SIZES:
        count = bench.size(500, 2000 if size == 1 else 30_000, 20_000 if size == 1 else 500_000)
        path = bench.events(count)
        sides = alternate({side: lambda _, f=f: f(bench, path, size, count)
                           for side, f in (("queue", by_hand), ("subscription", deliver))}, min(bench.rounds, 2))
        for side, figures in sides.items():
            rows.append(dict(row_of("delivery", side, count, figures, sides["queue"]), batch_size=size,
                             events_per_s=count / figures["seconds"], ratio=sides["queue"]["seconds"] / figures["seconds"],
                             ratio_cpu=ratio(sides["queue"]["cpu_us_per_event"], figures["cpu_us_per_event"])))
    return rows


# Latency

def latency(bench):
    seconds = bench.size(2, 8, 60)
    bench.behavior("route", """CREATE TABLE done (sent timestamptz, begun timestamptz);
        CREATE FUNCTION handle(events behavior.event[]) RETURNS void LANGUAGE sql SET search_path = public, pg_temp AS $$
            INSERT INTO done SELECT (properties->>'sent')::timestamptz, clock_timestamp() FROM unnest(events) $$;
        SELECT behavior.create_rollup('by_type', 'SELECT type, count(*) AS n FROM behavior.event GROUP BY 1');
        SELECT behavior.create_subscription('all', '{"detail-type": ["Ping"]}', 'handle')""")
    bench.psql("route", "CALL behavior.tick()", "ALTER SYSTEM SET behavior.worker = on", "SELECT pg_reload_conf()")
    sent = 0
    try:
        with bench.session("route") as session:
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                session.run("INSERT INTO behavior.event (event_id, type, user_id, properties) VALUES ('ping-%d', 'Ping', 'u', "
                            "jsonb_build_object('sent', clock_timestamp()))" % sent)
                sent += 1
                time.sleep(0.1 + 0.05 * (sent % 3))
        for _ in range(300):
            if bench.value("route", "SELECT count(*) FROM done") == str(sent):
                break
            time.sleep(0.1)
        values = [float(v) for v in bench.psql("route", "SELECT extract(epoch FROM begun - sent) FROM done ORDER BY 1").split()]
    finally:
        bench.psql("postgres", "ALTER SYSTEM RESET behavior.worker", "SELECT pg_reload_conf()")
    if len(values) != sent:
        raise AssertionError("%d of %d events were delivered" % (len(values), sent))
    return [{"measurement": "latency", "side": "handler", "events": sent,
             "p50_ms": percentile(values, 0.5) * 1000, "p95_ms": percentile(values, 0.95) * 1000,
             "p99_ms": percentile(values, 0.99) * 1000, "slowest_ms": values[-1] * 1000}]


def run(bench):
    rows = []
    for part in (validation, routing, delivery, latency):
        begin = time.monotonic()
        rows += part(bench)
        bench.say("  %s: %.0f s" % (part.__name__, time.monotonic() - begin))
    return rows


def some(rows, measurement, side=None):
    return [row for row in rows if row["measurement"] == measurement and side in (None, row["side"])]


def per_second(us):
    """Events a second of what takes so many microseconds; what is lost in the noise has none."""
    return text(1e6 / us) if us is not None and us > 0.01 else "–"


NAMES = {"none": "no event types", "schema": "a schema of five properties for each type", "json_schema_valid": "`json_schema_valid()`",
         "event_json": "`event_json()`", "event_matches": "`event_matches()`, one pattern"}


def tables(rows):
    out = ["""COPY of the same events without event types, and with a schema of five properties for every type that occurs; then functions over the stored
events, next to reading them (for `event_matches()`: next to `event_json()`). What something costs is the difference of processor time; medians.

| | events | µs of processor an event | cost, µs of processor | cost, instructions | events/s of that alone |
|---|---|---|---|---|---|"""]
    for row in some(rows, "validation") + some(rows, "alone"):
        base = row["side"] == "none"
        out.append("| %s | %s | %s | %s | %s | %s |" % (
            NAMES[row["side"]], text(row["events"]), text(row["cpu_us_per_event"], 2),
            "–" if base else text(row["over_cpu_us_per_event"], 2), "–" if base else text(row["over_instructions_per_event"]),
            "–" if base else per_second(row["over_cpu_us_per_event"])))
    out.append("""
The tick of %s events (sessions, the built-in rollup, routing) by the number of subscriptions, each of which asks for another page.

| subscriptions | matched | µs of processor an event | routing, µs of processor | routing, instructions | events/s of routing alone |
|---|---|---|---|---|---|""" % text(some(rows, "routing")[0]["events"]))
    for row in some(rows, "routing"):
        base = row["side"] == "0"
        out.append("| %s | %s | %s | %s | %s | %s |" % (
            text(int(row["side"])), text(row["matched"]), text(row["cpu_us_per_event"], 2),
            "–" if base else text(row["over_cpu_us_per_event"], 2), "–" if base else text(row["over_instructions_per_event"]),
            "–" if base else per_second(row["over_cpu_us_per_event"])))
    out.append("""
Delivery of what waits, one process: a handler that inserts what it is given, next to a queue written by hand (DELETE of FOR UPDATE SKIP LOCKED
LIMIT n, INSERT, COMMIT) with the same effect. Ratios are of speed (above 1: faster).

| batch_size | | events | events/s | ratio | by processor | µs of processor an event | WAL bytes an event |
|---|---|---|---|---|---|---|---|""")
    for row in some(rows, "delivery"):
        out.append("| %s | %s | %s | %s | %s | %s | %s | %s |" % (
            text(row["batch_size"]), "queue by hand" if row["side"] == "queue" else "subscription", text(row["events"]),
            text(row["events_per_s"]), text(row["ratio"], 2), text(row["ratio_cpu"], 2), text(row["cpu_us_per_event"], 1),
            text(row["wal_bytes_per_event"])))
    for row in some(rows, "latency"):
        out.append("""
From the INSERT of one event (its commit included) to the handler's first statement, seven events a second, workers as shipped, a rollup
beside: p50 %s ms, p95 %s ms, p99 %s ms, slowest %s ms of %s.""" % (
            text(row["p50_ms"], 1), text(row["p95_ms"], 1), text(row["p99_ms"], 1), text(row["slowest_ms"], 1), text(row["events"])))
    return "\n".join(out) + "\n"


def budgets(rows):
    out = []
    for row in some(rows, "alone", "json_schema_valid"):
        cost = row["over_cpu_us_per_event"]
        out.append({"name": "validate", "measured": "%s µs" % text(cost, 2), "met": None if cost is None else cost <= 1.25,
                    "note": "as a part of COPY %s µs" % text(some(rows, "validation", "schema")[0]["over_cpu_us_per_event"], 2)})
    one, many = some(rows, "routing", "1"), some(rows, "routing", "1000")
    if one and many:
        kind = "over_instructions_per_event" if one[0]["over_instructions_per_event"] else "over_cpu_us_per_event"
        unit, digits = ("instructions", 0) if kind == "over_instructions_per_event" else ("µs", 2)
        times = ratio(many[0][kind], one[0][kind])
        out.append({"name": "route-many", "measured": "%s times" % text(times, 1), "met": None if times is None else times <= 10,
                    "note": "%s and %s %s an event" % (text(many[0][kind], digits), text(one[0][kind], digits), unit)})
    best = [row for row in some(rows, "delivery", "subscription") if row["batch_size"] == max(BATCH_SIZES)]
    for row in best:
        out.append({"name": "deliver", "measured": text(row["ratio"], 2), "met": row["ratio"] >= 1,
                    "note": "by processor %s; %s events/s" % (text(row["ratio_cpu"], 2), text(row["events_per_s"]))})
    for row in some(rows, "latency"):
        out.append({"name": "latency", "measured": "p95 %s ms" % text(row["p95_ms"], 1), "met": row["p95_ms"] <= LATENCY_BUDGET * 1000,
                    "note": "slowest %s ms" % text(row["slowest_ms"], 1)})
    return out


def chart(rows):
    bars = [{"label": "batch_size %s" % text(row["batch_size"]), "value": row["ratio"], "text": "%s events/s" % text(row["events_per_s"])}
            for row in some(rows, "delivery", "subscription")]
    return [{"title": "Delivery to a handler: speed next to a queue written by hand", "better": "higher", "unit": "",
             "reference": ("queue by hand", 1.0), "bars": bars}]

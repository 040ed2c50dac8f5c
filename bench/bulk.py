"""bulk.py: the same events by COPY into a plain table, one with a primary key, behavior.event and behavior.inbox.

One factor at a time is varied from a base case: one connection, CSV, random ids in the order of time, no duplicates.
Files are read by the server, so that a side is one process a connection, but for one case, in which psql sends them.
Every run fills a database made afresh, and counts what arrived.
"""
from common import COLUMNS, JSON_LINES, NOKEY, PLAIN, alternate, distinct, flat, ratio, text

TITLE = "Bulk ingest"

BASE = {"connections": 1, "format": "text", "ids": "random", "duplicates": 0, "sender": "server"}
CASES = (
    ("base", {}),
    ("binary", {"format": "binary"}),
    ("time-ordered ids", {"ids": "time"}),
    ("20 % duplicates", {"duplicates": 20}),
    ("two connections", {"connections": 2}),
    ("from a client", {"sender": "psql"}),
)
SIDES = {"nokey": "table without a key", "key": "table with a primary key", "event": "`behavior.event`",
         "inbox": "`behavior.inbox`"}
FILES = {"text": {"nokey": "csv", "key": "csv", "event": "csv", "inbox": "ndjson"},
         "binary": {"nokey": "binary", "key": "binary", "event": "binary-text", "inbox": "binary-json"}}
BYTES_PER_EVENT = 2000      # of disk, for files, tables and WAL together


def copy(side, path, case):
    """The statements that a side is timed with."""
    verb = "\\copy" if case["sender"] == "psql" else "COPY"
    options = "FORMAT binary" if case["format"] == "binary" else JSON_LINES if side == "inbox" else "FORMAT csv"
    if side == "inbox":
        return "%s behavior.inbox FROM '%s' WITH (%s)" % (verb, path, options)
    if side == "event":
        return "%s behavior.event (%s) FROM '%s' WITH (%s)" % (verb, COLUMNS, path, options)
    if side == "key" and case["duplicates"]:
        return """BEGIN; COPY pg_temp.stage (%s) FROM '%s' WITH (%s);
            INSERT INTO plain SELECT * FROM pg_temp.stage ON CONFLICT DO NOTHING; TRUNCATE pg_temp.stage; COMMIT""" % (
                COLUMNS, path, options)
    return "%s plain (%s) FROM '%s' WITH (%s)" % (verb, COLUMNS, path, options)


def check(bench, side, count, case):
    """Raises when not exactly the events that were sent are there."""
    if side in ("nokey", "key"):
        found = bench.value("bulk", "SELECT count(*) FROM plain")
        expected = str(count if side == "nokey" else distinct(count, case["duplicates"]))
    else:
        found = bench.value("bulk", "SELECT concat_ws('|', sum(received), sum(accepted), sum(duplicates), sum(conflicts), "
                                    "sum(dead_letters)) FROM behavior.batch WHERE tick_id IS NULL")
        accepted = distinct(count, case["duplicates"])
        expected = "%d|%d|%d|0|0" % (count, accepted, count - accepted)
    if found != expected:
        raise AssertionError("%s: %s where %s was sent" % (side, found, expected))


def fill(bench, side, paths, count, case):
    """Fills a fresh database by one side; answers with its figures."""
    if side in ("nokey", "key"):
        bench.database("bulk", NOKEY if side == "nokey" else PLAIN)
    else:
        bench.behavior("bulk")
    size = "SELECT pg_database_size('bulk')"
    before = int(bench.value("bulk", size))
    sessions = [bench.session("bulk") for _ in paths]
    try:
        for session in sessions:
            if side == "key" and case["duplicates"]:
                session.run("CREATE TEMP TABLE stage (LIKE plain INCLUDING DEFAULTS)")
        bench.checkpoint()
        figures = flat(bench.measure(*((s, copy(side, p, case)) for s, p in zip(sessions, paths))))
    finally:
        for session in sessions:
            session.close()
    disk = int(bench.value("bulk", size)) - before
    check(bench, side, count, case)
    bench.drop("bulk")
    return {"seconds": figures["seconds"], "cpu_us_per_event": ratio(figures["cpu"], count / 1e6),
            "instructions_per_event": ratio(figures["instructions"], count),
            "wal_bytes_per_event": figures["wal"] / count, "disk_bytes_per_event": disk / count,
            "memory_mb": ratio(figures["memory"], 2 ** 20)}


def run_case(bench, name, change, sides, count, rounds):
    case = dict(BASE, **change)
    share = count // case["connections"]
    needed = count * BYTES_PER_EVENT
    if not bench.room(needed, "bulk ingest, %s, of %d events" % (name, count)):
        return []
    paths = {side: [bench.events(share, FILES[case["format"]][side], first=number * share, ids=case["ids"],
                                 duplicates=case["duplicates"]) for number in range(case["connections"])]
             for side in sides}
    bench.say("%s: %d events, %d rounds" % (name, count, rounds))
    results = alternate({side: lambda _, side=side: fill(bench, side, paths[side], count, case) for side in sides}, rounds)
    rows = []
    for side, figures in results.items():
        key = results["key"]
        rows.append(dict(case=name, side=side, events=count, **case, **figures,
                         events_per_s=count / figures["seconds"], ratio=key["seconds"] / figures["seconds"],
                         ratio_low=key["seconds_low"] / figures["seconds_high"],
                         ratio_high=key["seconds_high"] / figures["seconds_low"],
                         ratio_cpu=ratio(key["cpu_us_per_event"], figures["cpu_us_per_event"]),
                         ratio_instructions=ratio(key["instructions_per_event"], figures["instructions_per_event"])))
        bench.say("  %-6s %9.0f events/s, %.2f of the table with a key" % (side, rows[-1]["events_per_s"], rows[-1]["ratio"]))
    for path in {path for some in paths.values() for path in some}:
        if bench.full or name != "base":      # whose files may serve other parts
            bench.forget(path)
    return rows


def run(bench):
    rows = []
    for name, change in CASES:
        if (bench.smoke and "ids" in change) or (bench.only and name not in bench.only):
            continue
        base = name == "base"
        sides = list(SIDES) if base else ["key", "event", "inbox"]
        count = bench.size(2000, 1_000_000 if base else 300_000 * change.get("connections", 1), 10_000_000)
        # The base case is what budgets are about.
        rounds = bench.rounds if base else 1
        rows += run_case(bench, name, change, sides, count, rounds)
    return rows


def find(rows, case, side):
    return next((row for row in rows if row["case"] == case and row["side"] == side), None)


def tables(rows):
    out = ["""The same events by COPY, each run into a database made afresh, the sides in turn; medians. Ratios are of speed, next to the
table with a uuid primary key in the same case (above 1: faster); in brackets the worst and the best that any two rounds give.
A plain COPY fails on the first duplicate, so with 20 % duplicates the table is filled through a temporary stage and
INSERT … ON CONFLICT DO NOTHING. Processor and instructions are those of the backends. Disk is the growth of the
database. Memory is the most private memory of one backend over what it had when idle. In binary format
`event_id` is 16 bytes for the table, and a text for `behavior.event`, whose column is one.
"""]
    for name, _ in CASES:
        some = [row for row in rows if row["case"] == name]
        if not some:
            continue
        first = some[0]
        out.append("**%s**: %s events, %d connection%s, %s, %s ids, %d %% duplicates, %s, rounds: %d\n" % (
            name, text(first["events"]), first["connections"], "s" if first["connections"] > 1 else "", first["format"],
            first["ids"], first["duplicates"],
            "sent by psql" if first["sender"] == "psql" else "read by the server", first["rounds"]))
        out.append("| | events/s | ratio | by processor | by instructions | µs of processor an event | instructions an event "
                   "| WAL bytes an event | disk bytes an event | memory MB |\n|---|---|---|---|---|---|---|---|---|---|")
        for row in some:
            out.append("| %s | %s | **%s** (%s–%s) | %s | %s | %s | %s | %s | %s | %s |" % (
                SIDES[row["side"]], text(row["events_per_s"]), text(row["ratio"], 2), text(row["ratio_low"], 2),
                text(row["ratio_high"], 2), text(row["ratio_cpu"], 2), text(row["ratio_instructions"], 2),
                text(row["cpu_us_per_event"], 2), text(row["instructions_per_event"]), text(row["wal_bytes_per_event"]),
                text(row["disk_bytes_per_event"]), text(row["memory_mb"], 1)))
        out.append("")
    return "\n".join(out)


def budgets(rows):
    key, event, inbox = (find(rows, "base", side) for side in ("key", "event", "inbox"))
    if not key:
        return []
    against_event = event["seconds"] / inbox["seconds"]
    memory = [row["memory_mb"] for row in rows if row["side"] in ("event", "inbox")]
    memory = None if None in memory else max(memory)
    wal = {row["case"]: row["wal_bytes_per_event"] / find(rows, row["case"], "key")["wal_bytes_per_event"]
           for row in rows if row["side"] == "event" and not row["duplicates"]}
    by_instructions = "by instructions %s"
    return [
        {"name": "copy-event", "measured": text(event["ratio"], 2), "met": event["ratio"] >= 1,
         "note": by_instructions % text(event["ratio_instructions"], 2)},
        {"name": "copy-event-aim", "measured": text(event["ratio"], 2), "met": event["ratio"] >= 1.1, "note": ""},
        {"name": "copy-inbox", "measured": text(against_event, 2), "met": against_event >= 1, "note": ""},
        {"name": "copy-inbox-aim", "measured": text(inbox["ratio"], 2), "met": inbox["ratio"] >= 1.5,
         "note": by_instructions % text(inbox["ratio_instructions"], 2)},
        {"name": "memory", "measured": "–" if memory is None else text(memory, 1) + " MB",
         "met": None if memory is None else memory <= 64,
         "note": "in a COPY of %s events" % text(max(row["events"] for row in rows))},
        {"name": "wal-bulk", "measured": text(max(wal.values()), 2), "met": max(wal.values()) <= 1.3,
         "note": ", ".join("%s %s" % (name, text(value, 2)) for name, value in wal.items())},
    ]


def chart(rows):
    bars = []
    for name, _ in CASES:
        for side in ("nokey", "event", "inbox"):
            row = find(rows, name, side)
            if row:
                label = SIDES[side].strip("`") if name == "base" else "%s, %s" % (SIDES[side].strip("`"), name)
                bars.append({"label": label, "value": row["ratio"], "text": "%s events/s" % text(row["events_per_s"])})
    return [{"title": "COPY: speed next to a table with a uuid primary key", "better": "higher", "unit": "",
             "reference": ("table with a primary key", 1.0), "bars": bars}]

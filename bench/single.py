"""single.py: one event a statement, prepared, next to a table with a primary key.

The event comes as a driver sends it: its properties are a parameter in text form, parsed at every execution on both sides.
Ids are made in the statement, since pgbench has no uuids.  No CHECKPOINT between rounds: how many full page images a
run of a few seconds writes after one says nothing about hours.
"""
from common import PLAIN, alternate, ratio, text

TITLE = "Single rows"

PROPERTIES = '{"page": "/p/84", "ms": 489, "mobile": true, "referrer": "mail", "campaign": "spring", "test": "B"}'
SCRIPT = """\\set device random(1, 500000)
INSERT INTO %s (event_id, source, type, anonymous_id, occurred_at, properties)
VALUES (%s, 'web', 'PageView', 'device-' || :device::int, now(), :properties);
"""
SCRIPTS = {"plain": SCRIPT % ("plain", "gen_random_uuid()"),
           "event": SCRIPT % ("behavior.event", "gen_random_uuid()::text")}
COUNT = {"plain": "SELECT count(*) FROM plain", "event": "SELECT sum(accepted) - 1 FROM behavior.intake"}
CLIENTS = (1, 2, 8, 32)
LEAST = {"on": 0.8, "off": 0.5}     # the budgets, by synchronous_commit


def size_of(bench, side):
    return int(bench.value(side, "SELECT pg_database_size(current_database())"))


def insert(bench, side, clients, commit, seconds):
    """One run of pgbench; its figures."""
    rows = int(bench.value(side, COUNT[side]))
    figures = bench.pgbench(side, SCRIPTS[side], clients, seconds, settings={"synchronous_commit": commit},
                            variables={"properties": PROPERTIES}, latencies=True)
    count = figures["transactions"]
    rows = int(bench.value(side, COUNT[side])) - rows
    if rows != count:
        raise AssertionError("%s: %d rows where %d were sent" % (side, rows, count))
    return {"tps": figures["tps"], "p50_ms": figures["p50"], "p99_ms": figures["p99"],
            "cpu_us_per_row": ratio(figures["cpu"], count / 1e6), "wal_bytes_per_row": figures["wal"] / count,
            "transactions": count}


def run(bench):
    rows = []
    seconds = bench.size(1, 2, 10)
    for commit in ("on", "off"):
        bench.database("plain", PLAIN)
        bench.behavior("event")
        for side in SCRIPTS if not bench.smoke else ():     # caches, catalogs, the first pages
            insert(bench, side, 2, commit, 1)
        for clients in bench.size((2,), CLIENTS):
            empty = {side: (size_of(bench, side), int(bench.value(side, COUNT[side]))) for side in SCRIPTS}
            bench.checkpoint()
            results = alternate({side: lambda _, side=side: insert(bench, side, clients, commit, seconds)
                                 for side in SCRIPTS}, bench.rounds)
            for side, figures in results.items():
                plain = results["plain"]
                # Of all rounds: files grow in steps.
                size, count = empty[side]
                disk = (size_of(bench, side) - size) / (int(bench.value(side, COUNT[side])) - count)
                rows.append(dict(synchronous_commit=commit, side=side, **figures, clients=clients, disk_bytes_per_row=disk,
                                 ratio=figures["tps"] / plain["tps"],
                                 ratio_cpu=ratio(plain["cpu_us_per_row"], figures["cpu_us_per_row"]),
                                 ratio_wal=figures["wal_bytes_per_row"] / plain["wal_bytes_per_row"]))
            bench.say("synchronous_commit %-3s %2d clients: %6.0f rows/s, %.2f of the table" % (
                commit, clients, rows[-1]["tps"], rows[-1]["ratio"]))
    return rows


def tables(rows):
    out = ["""pgbench, INSERT of one event with its properties as a parameter, prepared, into a table with a uuid primary key and into
`behavior.event`; medians of the rounds, the sides in turn. Nothing folds meanwhile.
Ratios are of rows a second (above 1: faster), and of WAL bytes a row (below 1: less).

| synchronous_commit | clients | | rows/s (spread) | ratio | by processor | p50 ms | p99 ms | µs of processor a row | WAL bytes a row | WAL ratio | disk bytes a row |
|---|---|---|---|---|---|---|---|---|---|---|---|"""]
    for row in rows:
        out.append("| %s | %d | %s | %s (%s–%s) | %s | %s | %s | %s | %s | %s | %s | %s |" % (
            row["synchronous_commit"], row["clients"],
            "table with a primary key" if row["side"] == "plain" else "`behavior.event`",
            text(row["tps"]), text(row["tps_low"]), text(row["tps_high"]), text(row["ratio"], 2), text(row["ratio_cpu"], 2),
            text(row["p50_ms"], 2), text(row["p99_ms"], 2), text(row["cpu_us_per_row"], 1), text(row["wal_bytes_per_row"]),
            text(row["ratio_wal"], 2), text(row["disk_bytes_per_row"])))
    return "\n".join(out) + "\n"


def budgets(rows):
    out = []
    for commit, least in LEAST.items():
        some = [row for row in rows if row["side"] == "event" and row["synchronous_commit"] == commit]
        if some:
            out.append({"name": "insert-sync-" + commit, "met": min(row["ratio"] for row in some) >= least,
                        "measured": " / ".join(text(row["ratio"], 2) for row in some),
                        "note": "with %s clients; met when each is" % " / ".join(str(row["clients"]) for row in some)})
    wal = [row["ratio_wal"] for row in rows if row["side"] == "event"]
    if wal:
        out.append({"name": "wal-single", "measured": "%s–%s" % (text(min(wal), 2), text(max(wal), 2)),
                    "met": max(wal) <= 2.5, "note": ""})
    return out


def chart(rows):
    bars = [{"label": "%d client%s, synchronous_commit %s" % (row["clients"], "s" if row["clients"] > 1 else "",
                                                             row["synchronous_commit"]),
             "value": row["ratio"], "text": "%s rows/s" % text(row["tps"]), "budget": LEAST[row["synchronous_commit"]]} for row in rows if row["side"] == "event"]
    return [{"title": "INSERT of one event: rows a second next to a table with a primary key", "better": "higher",
             "unit": "", "reference": ("table with a primary key", 1.0), "bars": bars}]

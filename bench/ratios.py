#!/usr/bin/env python3
"""ratios.py: what behavior costs next to a plain table with a primary key, as ratios in one run.

Connects with libpq's environment (PGHOST, PGPORT, ...) to a server that has the extension
installed, makes databases of its own, alternates the two sides in rounds and prints medians.
The server's settings are left as they are: run it with PostgreSQL's defaults.

  ratios.py [--events 1000000] [--held 10000000] [--rounds 3] [--seconds 5]
"""
import argparse
import os
import statistics
import subprocess
import tempfile
import time

PLAIN = """CREATE TABLE plain (event_id uuid PRIMARY KEY, source text, type text, user_id text,
  anonymous_id text, occurred_at timestamptz, properties jsonb, received_at timestamptz DEFAULT now())"""
COLUMNS = "event_id, source, type, user_id, anonymous_id, occurred_at, properties"


def psql(database, sql):
    run = subprocess.run(["psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", database, "-c", sql],
                         check=True, capture_output=True, text=True)
    return run.stdout.strip()


def timed(database, sql):
    start = time.monotonic()
    psql(database, sql)
    return time.monotonic() - start


def fresh(database, setup):
    psql("postgres", f"DROP DATABASE IF EXISTS {database}")
    psql("postgres", f"CREATE DATABASE {database} TEMPLATE template0 ENCODING 'UTF8'")
    psql(database, setup)


def make_files(directory, first, count):
    """The same events as CSV for the columns and as JSON lines; random uuids, about 190 bytes."""
    query = f"""SELECT md5('e' || i)::uuid AS event_id, 'web' AS source,
      (array['PageView','Click','Purchase','Search'])[1 + i % 4] AS type,
      CASE WHEN i % 3 = 0 THEN 'user-' || (i * 7919) % 50000 END AS user_id,
      'device-' || (i * 104729) % 100000 AS anonymous_id,
      timestamptz '2026-01-05 00:00+00' + i * interval '60 milliseconds' AS occurred_at,
      jsonb_build_object('page', '/product/' || i % 997, 'price', (i % 1000) / 10.0, 'quantity', i % 5,
        'campaign', 'spring', 'referrer', 'search') AS properties
      FROM generate_series({first}::bigint, {first + count - 1}) i"""
    names = []
    for name, body, options in (("csv", query, "FORMAT csv"),
                                ("ndjson", f"SELECT row_to_json(t) FROM ({query}) t",
                                 "FORMAT csv, QUOTE E'\\x01', DELIMITER E'\\x02'")):
        path = os.path.join(directory, f"events-{first}.{name}")
        psql("postgres", f"\\copy ({' '.join(body.split())}) TO '{path}' WITH ({options})")
        names.append(path)
    return names


def copies(csv, ndjson):
    return {
        "plain": f"\\copy plain ({COLUMNS}) FROM '{csv}' WITH (FORMAT csv)",
        "event": f"\\copy behavior.event ({COLUMNS}) FROM '{csv}' WITH (FORMAT csv)",
        "inbox": f"\\copy behavior.inbox FROM '{ndjson}' WITH (FORMAT csv, QUOTE E'\\x01', DELIMITER E'\\x02')",
    }


SETUP = {"plain": PLAIN, "event": "CREATE EXTENSION behavior", "inbox": "CREATE EXTENSION behavior"}


def report(title, times, count):
    plain = statistics.median(times["plain"])
    for side in times:
        median = statistics.median(times[side])
        print(f"{title:28} {side:6} {median:7.2f} s {count / median:10.0f} events/s   speed {plain / median:5.2f} of plain", flush=True)


def bulk(files, rounds, count):
    times = {side: [] for side in SETUP}
    for _ in range(rounds):
        for side in times:
            fresh(f"bench_{side}", SETUP[side])
            if side != "plain":     # first use makes partitions and the first key generation
                psql(f"bench_{side}", "INSERT INTO behavior.event (event_id, type) VALUES ('first', 'First')")
            times[side].append(timed(f"bench_{side}", copies(*files)[side]))
    report("COPY, empty database", times, count)


def held(directory, files, held_count, rounds, count):
    big = make_files(directory, 100_000_000, held_count)
    times = {side: [] for side in SETUP}
    for side in times:
        fresh(f"bench_{side}", SETUP[side])
        psql(f"bench_{side}", copies(*big)[side])
        if side != "plain":
            psql(f"bench_{side}", "CALL behavior.tick()")
    for number in range(rounds):
        more = make_files(directory, 200_000_000 + number * count, count)
        for side in times:
            times[side].append(timed(f"bench_{side}", copies(*more)[side]))
    report(f"COPY, {held_count} keys held", times, count)


def singles(seconds, rounds):
    scripts = {
        "plain": "INSERT INTO plain (event_id, source, type, anonymous_id, occurred_at, properties) VALUES (gen_random_uuid(), 'web', 'PageView', 'device-1', now(), '{\"page\": \"/\", \"n\": 1}');",
        "event": "INSERT INTO behavior.event (event_id, source, type, anonymous_id, occurred_at, properties) VALUES (gen_random_uuid()::text, 'web', 'PageView', 'device-1', now(), '{\"page\": \"/\", \"n\": 1}');",
    }
    for commit in ("on", "off"):
        rates = {side: [] for side in scripts}
        for side in scripts:
            fresh(f"bench_{side}", SETUP[side])
        for _ in range(rounds):
            for side, script in scripts.items():
                with tempfile.NamedTemporaryFile("w", suffix=".sql") as file:
                    file.write(script)
                    file.flush()
                    out = subprocess.run(["pgbench", "-n", "-M", "prepared", "-f", file.name, "-T", str(seconds), f"bench_{side}"],
                                         check=True, capture_output=True, text=True,
                                         env={**os.environ, "PGOPTIONS": f"-c synchronous_commit={commit}"}).stdout
                rates[side].append(float(next(line for line in out.splitlines() if line.startswith("tps")).split()[2]))
        plain = statistics.median(rates["plain"])
        for side in rates:
            median = statistics.median(rates[side])
            print(f"{'INSERT, synchronous_commit ' + commit:28} {side:6} {median:10.0f} rows/s   speed {median / plain:5.2f} of plain", flush=True)


def folding(files, count):
    fresh("bench_event", SETUP["event"])
    psql("bench_event", "CALL behavior.tick()")
    for name, query in (
            ("by_page", "SELECT behavior.time_bucket('1 minute', occurred_at) AS bucket, properties->>'page' AS page, count(*) AS n FROM behavior.event GROUP BY 1, 2"),
            ("by_type", "SELECT behavior.time_bucket('5 seconds', occurred_at) AS bucket, type, count(*) AS n, count(user_id) AS users FROM behavior.event GROUP BY 1, 2"),
            ("revenue", "SELECT behavior.time_bucket('1 hour', occurred_at) AS bucket, sum((properties->>'price')::numeric) AS revenue FROM behavior.event WHERE type = 'Purchase' GROUP BY 1")):
        psql("bench_event", f"SET client_min_messages = error; SELECT behavior.create_rollup('{name}', $q${query}$q$)")
    psql("bench_event", copies(*files)["event"])
    elapsed = timed("bench_event", "CALL behavior.tick()")
    print(f"fold: sessions, activity and three rollups: {count / elapsed:.0f} events/s in {elapsed:.2f} s", flush=True)
    print("verify:", psql("bench_event", "SELECT count(*) FROM behavior.verify()"), "differences", flush=True)
    print("bytes an event in the log:", psql("bench_event", "SELECT round(sum(pg_total_relation_size(relid)) / (SELECT count(*) FROM behavior.log)::numeric, 1) FROM pg_partition_tree('behavior.log')"))
    print("bytes a key:", psql("bench_event", "SELECT round(sum(pg_total_relation_size(relid)) / (SELECT count(*) FROM behavior.log)::numeric, 1) FROM (SELECT relid FROM pg_partition_tree('behavior._key') UNION ALL SELECT relid FROM pg_partition_tree('behavior._key_page') UNION ALL SELECT relid FROM pg_partition_tree('behavior._key_filter')) t"))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--held", type=int, default=10_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        files = make_files(directory, 0, arguments.events)
        bulk(files, arguments.rounds, arguments.events)
        folding(files, arguments.events)
        singles(arguments.seconds, arguments.rounds)
        print("bytes a batch row (single-row batches):", psql("bench_event", "SELECT round(pg_total_relation_size('behavior._batch') / count(*)::numeric, 1) FROM behavior._batch"))
        if arguments.held:
            held(directory, files, arguments.held, arguments.rounds, arguments.events)


main()

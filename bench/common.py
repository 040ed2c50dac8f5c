"""common.py: what every part of the benchmark works with.

The interface of a part
-----------------------
A part is a module bench/NAME.py that the driver (bench/run) imports and calls:

    TITLE = "Bulk ingest"               # of its section in RESULTS.md
    SETTINGS = {"behavior.worker": "on"}    # optional: more lines for postgresql.conf of the part's server
    def run(bench): ...                 # measures; answers with a list of flat dicts (JSON: str, int, float, bool, None)
    def tables(rows): ...               # those rows as Markdown: an introduction and tables
    def budgets(rows): ...              # list of dict(name=, measured=, met=, note=): see BUDGETS for the names;
                                        # measured is a string, met True/False/None (None: could not be told)
    def chart(rows): ...                # list of charts: dict(title=, reference=(label, value), better="higher"|"lower",
                                        # unit="" or "ms", bars=[dict(label=, value=, text=, budget=)]), the last two
                                        # optional; bars whose value is None are left out.  A ratio's reference is
                                        # ("plain table", 1.0).  Drawn by picture.py.

Each part gets a server of its own: fresh, private, with PostgreSQL's default durability, stopped and removed when the
part ends, however it ends.  behavior.worker is off unless SETTINGS says otherwise, so that nothing folds between runs.
rows should hold every figure that tables() shows, under names with their unit where it is not obvious
(events_per_s, wal_bytes_per_event).

What a part may use of a Bench
------------------------------
    bench.smoke, bench.full             size of the run; bench.size(smoke, normal, full) chooses among three values
    bench.rounds                        1, 3 or 3: hand it to alternate()
    bench.say(text)                     a line of progress
    bench.work                          a folder for files; the server can read (not write) it
    bench.data                          the server's data folder
    bench.room(bytes, what)             is there so much disk space left (and 2 GB more)?  Says so when not.
    bench.have("hll")                   can that extension be created here?
    bench.database("plain", setup)      makes that database afresh and runs SQL in it; answers with the name
    bench.behavior("event", setup)      the same with CREATE EXTENSION behavior, and its first partitions and keys made
    bench.drop("plain")
    bench.psql(database, sql, ...)      runs statements in a psql of its own, each in its transaction; answers with the
                                        output; set settings={"work_mem": "64MB"} for the connection
    bench.value(database, query)        the same, one value, as str
    bench.session(database, settings)   a Session (measure.py): a psql that stays; .run(sql), .pid, .close(); `with` works
    bench.measure((session, sql), ...)  runs them at the same time; dict(seconds, cpu, instructions, wal, memory, output)
    bench.checkpoint()                  before each measurement, outside of the timing (alternate() does it)
    bench.position()                    the WAL's insert position, in bytes
    bench.disk(database, "a", "b")      bytes on disk of relations with indexes, toast and, of partitioned ones, partitions
    bench.pgbench(database, script, …)  runs pgbench; dict(tps, transactions, seconds, wal, cpu, p50, p95, p99, …) in ms
    bench.events(count, …)              a file of generated events; see there
    alternate(sides, rounds, bench)     runs the sides in turn; medians and spread: see there
    flat(figures)                       the figures that belong into a row
    ratio(a, b), text(value, digits)    None-safe

Everything is measured next to its reference in the same run.  Clients run on the same machine, so files are read by the
server (COPY FROM 'file'): both sides then have the same one process, the backend.
"""
import glob
import os
import shutil
import statistics
import subprocess
import sys
import time

from measure import Failed, Sampler, Session, percentile, together, total   # noqa: F401 (for the parts)

HERE = os.path.dirname(os.path.abspath(__file__))
REPOSITORY = os.path.dirname(HERE)
COLUMNS = "event_id, source, type, user_id, anonymous_id, occurred_at, properties"
JSON_LINES = "FORMAT csv, QUOTE E'\\x01', DELIMITER E'\\x02'"
# The plain table that everything is compared with; PLAIN has the primary key, NOKEY has not.
NOKEY = """CREATE TABLE plain (event_id uuid, source text, type text, user_id text, anonymous_id text,
    occurred_at timestamptz, properties jsonb, received_at timestamptz DEFAULT now())"""
PLAIN = NOKEY + "; ALTER TABLE plain ADD PRIMARY KEY (event_id)"

# Every budget: name, part that measures it, what, how much.  Shown in this order; "not measured" where no part did.
BUDGETS = (
    ("copy-event", "bulk", "COPY into behavior.event, one connection, next to a table with a uuid primary key", "at least 1.0 times as fast"),
    ("copy-event-aim", "bulk", "the same, the aim", "1.1 times"),
    ("copy-inbox", "bulk", "COPY into behavior.inbox next to COPY into behavior.event", "at least 1.0 times as fast"),
    ("copy-inbox-aim", "bulk", "COPY into behavior.inbox next to a table with a uuid primary key, the aim", "1.5 times"),
    ("memory", "bulk", "private memory of a backend in a COPY of 10 M events, over an idle one", "at most 64 MB"),
    ("wal-bulk", "bulk", "WAL per event, batches of 1,000 and more, next to the plain table", "at most 1.3 times"),
    ("pipeline", "pipeline", "the whole pipeline, two cores, next to hand-written SQL with the same answers", "at least 3 times as fast"),
    ("fold", "pipeline", "folding sessions plus three rollups, one core", "150,000 events/s"),
    ("insert-sync-on", "single", "single-row INSERT, synchronous_commit on, next to a table with a primary key", "at least 0.8"),
    ("insert-sync-off", "single", "single-row INSERT, synchronous_commit off, next to a table with a primary key", "at least 0.5"),
    ("wal-single", "single", "WAL per event, single rows, next to the plain table", "at most 2.5 times"),
    ("growth-keys", "growth", "cost per event with 50 M keys held, next to an empty database", "at most 1.3 times"),
    ("growth-partitions", "growth", "cost per event with 400 partitions", "at most 1.3 times"),
    ("growth-cells", "growth", "cost per event with 5 M rollup cells", "at most 1.3 times"),
    ("growth-sessions", "growth", "cost per event with 20 M sessions", "at most 1.3 times"),
    ("growth-dead-letters", "growth", "cost per event with 1 M dead letters", "at most 1.3 times"),
    ("growth-snapshot", "growth", "cost per event with an hour-old snapshot open", "at most 1.3 times"),
    ("key-bytes", "growth", "a sealed key on disk", "at most 32 bytes"),
    ("planning", "growth", "planning a dashboard query", "at most 2 ms"),
    ("staleness", "staleness", "staleness of folded state at 5,787 events/s, p99", "at most 5 s plus the fold"),
    ("dashboard-live", "staleness", "dashboard query on the live relation at 579 events/s, p95", "at most 50 ms"),
    ("match-set", "match", "matching against 1,000 typical rules, next to one", "at most 20 times the time"),
    ("match-operators", "match", "matching by operator, five rules, next to event-ruler's stated events/s", "at least 1 times as fast"),
    ("dashboard-folded", "staleness", "dashboard query on the folded relation at 5,787 events/s, p95", "at most 50 ms"),
    ("validate", "route", "checking an event against a schema of five properties", "about 1 µs"),
    ("route-many", "route", "routing an event to 1,000 subscriptions, next to one", "at most 10 times"),
    ("deliver", "route", "delivery in batches of 1,000, next to a queue written by hand", "at least 1.0 times as fast"),
    ("latency", "route", "from a client's INSERT to the handler's start at low load, p95", "at most 500 ms"),
)


def say(line):
    print(time.strftime("%H:%M:%S ") + line, file=sys.stderr, flush=True)


def ratio(a, b):
    return None if a is None or not b else a / b


def text(value, digits=0):
    """A number for a table: thousands separated, None as a dash."""
    return "–" if value is None else format(value, ",.%df" % digits)


def flat(figures):
    """What belongs into a row: no lists and no output."""
    return {k: v for k, v in figures.items() if v is None or isinstance(v, (str, int, float, bool))}


def summary(results):
    """Medians of every number of a list of dicts, and its spread as NAME_low and NAME_high."""
    row = {"rounds": len(results)}
    for key in results[0]:
        values = [r.get(key) for r in results]
        if all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values):
            row[key] = statistics.median(values)
            row[key + "_low"], row[key + "_high"] = min(values), max(values)
        elif all(v is None for v in values):
            row[key] = None
        elif not isinstance(values[0], (list, dict)):
            row[key] = values[0]
    return row


def alternate(sides, rounds, bench=None):
    """Runs sides = {name: function(round) -> dict of figures} in turn, another one first in each round,
    each after a CHECKPOINT.  Answers with {name: medians}, where figure NAME has its spread beside it in
    NAME_low and NAME_high.  A function may prepare what it likes, only its own figures are timed."""
    names = list(sides)
    results = {name: [] for name in names}
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            if bench:
                bench.checkpoint()
            results[name].append(sides[name](number))
    return {name: summary(results[name]) for name in names}


class Bench:
    def __init__(self, place, settings=None, full=False, smoke=False, rounds=None):
        """place: where PostgreSQL is and who runs it (place.py)."""
        self.place = place
        self.full = full
        self.smoke = smoke
        self.deadline = None        # set: when part growth should not go on to a larger size
        self.only = None            # set: the curves of growth, or cases of bulk, to measure
        self.rounds = rounds or (1 if smoke else 3)
        self.bindir = place.bindir
        self.work = place.folder
        self.data = os.path.join(place.server, "data")
        self.settings = dict(place.settings(smoke))
        self.settings.update(settings or {})
        self.say = say
        self.control = None

    def __enter__(self):
        try:
            self.environment = self.place.start(self.settings)
            self.control = self.session("postgres")
        except BaseException:
            self.place.remove()
            raise
        return self

    def __exit__(self, *_):
        if self.control:
            self.control.close()
        self.place.remove()

    def size(self, smoke, normal, full=None):
        if self.smoke:
            return smoke
        return full if self.full and full is not None else normal

    def room(self, size, what):
        """Whether so many bytes can be written, leaving 2 GB."""
        free = shutil.disk_usage(self.work).free
        if free > size + 2 * 1024 ** 3:
            return True
        say("%s skipped: it needs %.0f GB of disk, and %.0f GB are free" % (what, size / 1e9 + 2, free / 1e9))
        return False

    # Databases and psql

    def have(self, extension):
        return self.value("postgres", "SELECT count(*) FROM pg_available_extensions WHERE name = '%s'" % extension) == "1"

    def database(self, name, setup=""):
        self.drop(name)
        self.psql("postgres", "CREATE DATABASE %s TEMPLATE template0 ENCODING 'UTF8'" % name)
        if setup:
            self.psql(name, setup)
        return name

    def behavior(self, name, setup=""):
        self.database(name, "CREATE EXTENSION behavior")
        # First use makes the partitions and the first generation of keys.
        self.psql(name, "INSERT INTO behavior.event (event_id, source, type) VALUES ('first', 'bench', 'First')",
                  "CALL behavior.tick()")
        if setup:
            self.psql(name, setup)
        return name

    def drop(self, name):
        self.psql("postgres", "DROP DATABASE IF EXISTS %s WITH (FORCE)" % name)

    def client(self, database, settings=None):
        """The environment in which a client program connects."""
        environment = dict(self.environment, PGDATABASE=database)
        options = {"client_min_messages": "warning"}
        options.update(settings or {})
        environment["PGOPTIONS"] = " ".join("-c %s=%s" % (k, str(v).replace("\\", "\\\\").replace(" ", "\\ "))
                                            for k, v in options.items())
        return environment

    def psql(self, database, *statements, settings=None):
        command = [os.path.join(self.bindir, "psql"), "-XAtq", "-v", "ON_ERROR_STOP=1"]
        for statement in statements:
            command += ["-c", statement]
        done = subprocess.run(command, env=self.client(database, settings), stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
        if done.returncode:
            raise Failed(done.stderr.decode(errors="replace").strip())
        return done.stdout.decode().rstrip("\n")

    def value(self, database, query, settings=None):
        return self.psql(database, query, settings=settings).strip()

    def session(self, database, settings=None):
        return Session([os.path.join(self.bindir, "psql"), "-XAtq", "-v", "ON_ERROR_STOP=1"],
                       self.client(database, settings))

    # Measuring

    def checkpoint(self):
        self.control.run("CHECKPOINT")

    def position(self):
        return int(self.control.run("SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')"))

    def measure(self, *works):
        return together(works, self.position)

    def disk(self, database, *relations):
        names = ", ".join("('%s')" % r.replace("'", "''") for r in relations)
        return int(self.value(database, """SELECT coalesce(sum(pg_total_relation_size(t.relid)), 0)
            FROM (VALUES %s) v (name), LATERAL (SELECT relid FROM pg_partition_tree(v.name::regclass)
                UNION SELECT v.name::regclass) t""" % names))

    def pgbench(self, database, script, clients=1, seconds=5, threads=None, settings=None, rate=None, latencies=False,
                transactions=None, mode="prepared", variables=None):
        """Runs a script, given as text: for so many seconds, or so many transactions a client; with rate a second
        for all clients together (then latency counts from the planned start).  variables: -D, sent as
        parameters, also texts (write `:name`, not in quotes).

        tps, transactions, seconds, wal (bytes), cpu (seconds of all backends); with latencies also p50, p95, p99 and
        slowest in ms, from pgbench's log of every transaction.
        """
        folder = os.path.join(self.work, "pgbench")
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(folder)
        path = os.path.join(folder, "script.sql")
        with open(path, "w", encoding="utf-8") as file:
            file.write(script)
        command = [os.path.join(self.bindir, "pgbench"), "-n", "-M", mode, "-f", path, "-c", str(clients),
                   "-j", str(threads or min(clients, 2))]
        command += ["-t", str(transactions)] if transactions else ["-T", str(seconds)]
        command += ["-R", str(rate)] if rate else []
        for item in (variables or {}).items():
            command += ["-D", "%s=%s" % item]
        command += ["-l", "--log-prefix", os.path.join(folder, "log")] if latencies else []
        backends = "SELECT pid FROM pg_stat_activity WHERE application_name = 'pgbench'"
        with self.session("postgres") as watcher:
            sampler = Sampler(lambda: [int(pid) for pid in watcher.run(backends).split()], follow=True, interval=0.1)
            wal = self.position()
            sampler.start()
            start = time.monotonic()
            done = subprocess.run(command, env=self.client(database, settings), stdin=subprocess.DEVNULL,
                                  stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
            elapsed = time.monotonic() - start
            sampler.end()
            wal = self.position() - wal
        output = done.stdout.decode(errors="replace")
        if done.returncode:
            raise Failed(done.stderr.decode(errors="replace").strip())
        figures = {"clients": clients, "seconds": elapsed, "wal": wal, "cpu": total(sampler.cpu.values())}
        for line in output.splitlines():
            if line.startswith("tps"):
                figures["tps"] = float(line.split()[2])
            elif line.startswith("number of transactions actually processed"):
                figures["transactions"] = int(line.split(":")[1].split("/")[0])
        if latencies:
            figures.update(read_latencies(folder))
        shutil.rmtree(folder, ignore_errors=True)
        return figures

    # Events

    def events(self, count, format="csv", first=0, seed=1, rate=579, order="time", duplicates=0, ids="random", start=None):
        """The path of a file of `count` generated events (bench/generate.c), made once a run.

        format      csv, binary (event_id a uuid), binary-text (event_id a text, as behavior.event's is), ndjson
                    (COPY behavior.inbox … WITH (JSON_LINES)), binary-json (the same lines as one text column)
        first       number of the first event: files of other ranges have other events of the same visitors
        rate        events a second of occurred_at
        order       time, or random: events in no order
        duplicates  so many percent of the rows repeat an earlier event of the file; distinct(count, duplicates)
                    is the number of events then
        ids         random uuids, or time: ordered by time (version 7)
        start       occurred_at of event number 0, seconds since 1970; default: such that all are of whole past days
        """
        if start is None:
            span = (first + count) / rate
            start = (self.place.today - 1 - int(span // 86400)) * 86400
        name = "-".join(str(x) for x in (format, count, first, seed, rate, order, duplicates, ids, start))
        return self.place.events(name, [
            "--count", count, "--first", first, "--seed", seed, "--rate", rate, "--order", order,
            "--duplicates", duplicates, "--ids", ids, "--format", format, "--start", start])

    def forget(self, path):
        """Removes a file of events that is large and not needed again."""
        os.unlink(path)


def distinct(count, duplicates):
    """How many different events a file of `count` rows has."""
    return count - count * duplicates // 100


def read_latencies(folder):
    values = []
    for name in glob.glob(os.path.join(folder, "log.*")):
        with open(name, encoding="ascii") as file:
            values += [int(line.split()[2]) / 1000 for line in file if line.split()[2].isdigit()]
    values.sort()
    return {"p50": percentile(values, 0.5), "p95": percentile(values, 0.95), "p99": percentile(values, 0.99),
            "slowest": values[-1] if values else None}

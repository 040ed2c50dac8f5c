"""peers.py: the same events in other databases, when they are installed, and who counts right after a retry.

Each side loads one file in the way it is best loaded, answers a dashboard query (ten pages with the most views in the last
quarter of an hour, with unique visitors; from a rollup where the side has one), and is sent the whole file again, as a
sender does that got no answer.

ClickHouse: clickhouse-server and clickhouse-client, as the Debian packages have them (18.16).  DuckDB: node and the npm package
@duckdb/node-api, below the folder in DUCKDB_NODE_PATH or where npm keeps global packages.  Nothing is downloaded; what
is not there is skipped with a line that says so.
"""
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import time

import pipeline
from common import COLUMNS, HERE, NOKEY, PLAIN, Failed, ratio, text

TITLE = "Peers"
RAW = """SELECT properties ->> 'page' AS page, count(*) AS views, count(DISTINCT coalesce(user_id, anonymous_id)) AS visitors
    FROM plain WHERE type = 'PageView' AND occurred_at >= '%s' GROUP BY 1 ORDER BY views DESC, page LIMIT 10"""
ROLLUP = """SELECT page, sum(views) AS views%s
    FROM {} WHERE bucket >= '%%s' GROUP BY 1 ORDER BY views DESC, page LIMIT 10"""
VISITORS = ", hll_cardinality(hll_union_agg(visitors)) AS visitors"
CLICKHOUSE = """SELECT page, countMerge(views) AS views, uniqMerge(visitors) AS visitors
    FROM page_views WHERE bucket >= '%s' GROUP BY page ORDER BY views DESC, page LIMIT 10"""


class Postgres:
    """A PostgreSQL database: what to send to, what to call afterwards, what to ask."""

    def __init__(self, bench, name, table, calls, query, counts, refuses=False):
        self.bench, self.name, self.table, self.calls = bench, name, table, calls
        self.query_text, self.counts, self.refuses = query, counts, refuses
        self.empty = self.size()

    def load(self, path):
        with self.bench.session(self.name) as session:
            start = time.monotonic()
            pipeline.feed(session, self.table, [path])
            for call in self.calls:
                session.run(call)
            return time.monotonic() - start

    def again(self, path):
        if not self.refuses:
            self.load(path)
            return ""
        try:
            self.load(path)
        except Failed as failure:
            if "duplicate key" not in str(failure):
                raise
            return "the COPY fails as a whole, new events in it too"
        raise Failed("a table with a primary key took the same events twice")

    def query(self, since):
        times = []
        with self.bench.session(self.name) as session:
            for _ in range(5):
                start = time.monotonic()
                answer = session.run(self.query_text % since)
                times.append(time.monotonic() - start)
        return statistics.median(times), [line.split("|")[:2] for line in answer.splitlines()]

    def count(self):
        return [None if query is None else int(self.bench.value(self.name, query)) for query in self.counts]

    def size(self):
        return int(self.bench.value(self.name, "SELECT pg_database_size(current_database())"))

    def disk(self):
        return self.size() - self.empty

    def close(self):
        self.bench.drop(self.name)


def postgres_sides(bench):
    """Makes each database when its turn comes."""
    visitors = VISITORS if bench.have("hll") else ""
    rollup = ROLLUP % visitors
    views = "SELECT sum(views) FROM %s"

    def plain(setup, refuses):
        return Postgres(bench, bench.database("plain", setup), "plain", [], RAW, ["SELECT count(*) FROM plain", None], refuses)

    return {
        "behavior": lambda: Postgres(
            bench, pipeline.make_behavior(bench, "whole"), "behavior.event", ["CALL behavior.tick()"], rollup.format("page_views"),
            ["SELECT count(*) FROM behavior.event WHERE type <> 'First'", views % "page_views"]),
        "PostgreSQL, hand-written pipeline": lambda: Postgres(
            bench, pipeline.make_hand(bench, "hand"), "hand.stage", ["CALL hand.move()", "CALL hand.fold()"],
            rollup.format("hand.page_views"), ["SELECT count(*) FROM hand.event", views % "hand.page_views"]),
        "PostgreSQL, table without a key": lambda: plain(NOKEY, False),
        "PostgreSQL, table with a primary key": lambda: plain(PLAIN, True),
    }


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


class ClickHouse:
    """A private server in the work folder, run by whoever runs us."""

    @staticmethod
    def find():
        path = os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin"
        server, client = shutil.which("clickhouse-server", path=path), shutil.which("clickhouse-client", path=path)
        return [server, client] if server and client else None

    def __init__(self, bench, engine):
        self.server, client = self.find()
        self.final = " FINAL" if engine.startswith("Replacing") else ""
        self.folder = os.path.join(bench.work, "clickhouse")
        shutil.rmtree(self.folder, ignore_errors=True)
        for name in ("data", "tmp", "files"):
            os.makedirs(os.path.join(self.folder, name))
        ports = {"HTTP": str(free_port()), "TCP": str(free_port())}
        with open(os.path.join(HERE, "peers", "clickhouse.xml"), encoding="utf-8") as file:
            config = file.read().split("-->", 1)
        for word, value in dict(ports, FOLDER=self.folder).items():
            config[1] = config[1].replace(word, value)
        self.config = os.path.join(self.folder, "clickhouse.xml")
        with open(self.config, "w", encoding="utf-8") as file:
            file.write(config[1].lstrip())
        self.command = [client, "--host", "127.0.0.1", "--port", ports["TCP"]]
        self.log = open(os.path.join(self.folder, "out"), "wb")
        self.process = subprocess.Popen([self.server, "--config-file", self.config], stdin=subprocess.DEVNULL, stdout=self.log,
                                        stderr=self.log, cwd=self.folder)
        try:
            self.wait()
            with open(os.path.join(HERE, "peers", "clickhouse.sql"), encoding="utf-8") as file:
                self.run("--multiquery", "--query", file.read().replace("ENGINE = ENGINE", "ENGINE = " + engine))
        except BaseException:
            self.close()
            raise

    def wait(self):
        deadline = time.monotonic() + 30
        while True:
            try:
                return self.run("--query", "SELECT 1")
            except Failed:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise
            time.sleep(0.2)

    def run(self, *arguments, path=os.devnull):
        """Answers with stdout and stderr of the client, which is given a file to read."""
        with open(path, "rb") as file:
            done = subprocess.run(self.command + list(arguments), stdin=file, stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
        if done.returncode:
            raise Failed("clickhouse: " + done.stderr.decode(errors="replace").strip())
        return done.stdout.decode(), done.stderr.decode()

    def prepare(self, path):
        """The same file with times as this version reads them fastest; not timed."""
        ours = os.path.join(self.folder, "events.csv")
        if not os.path.exists(ours):
            moment = re.compile(rb"T(\d\d:\d\d:\d\d)\.\d+Z,")
            with open(path, "rb") as source, open(ours, "wb") as file:
                file.writelines(moment.sub(rb" \1,", line, 1) for line in source)
        return ours

    def load(self, path):
        ours = self.prepare(path)
        start = time.monotonic()
        self.run("--query", "INSERT INTO event FORMAT CSV", path=ours)
        return time.monotonic() - start

    def again(self, path):
        self.load(path)
        return "read with FINAL; the view has seen every insert" if self.final else ""

    def query(self, since):
        times = []
        for _ in range(5):
            answer, elapsed = self.run("--time", "--query", CLICKHOUSE % since)
            times.append(float(elapsed.split()[-1]))
        return statistics.median(times), [line.split("\t")[:2] for line in answer.splitlines()]

    def count(self):
        return [int(self.run("--query", query)[0]) for query in
                ("SELECT count() FROM event" + self.final, "SELECT countMerge(views) FROM page_views")]

    def disk(self):
        return int(self.run("--query", "SELECT sum(bytes_on_disk) FROM system.parts WHERE active AND database = 'default'")[0])

    def version(self):
        return self.run("--query", "SELECT version()")[0].strip()

    def close(self):
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()
        shutil.rmtree(self.folder, ignore_errors=True)


class DuckDB:
    """A database file, opened by a node process for each step."""

    @staticmethod
    def find():
        """[node, folder of modules], or None."""
        node, npm = shutil.which("node"), shutil.which("npm")
        if not node:
            return None
        folders = []
        given = os.environ.get("DUCKDB_NODE_PATH")
        if given:
            folders = [given, os.path.join(given, "node_modules")]
        elif npm:
            folders = [subprocess.run([npm, "root", "-g"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                                      check=False).stdout.decode().strip()]
        for folder in folders:
            if os.path.isdir(os.path.join(folder, "@duckdb", "node-api")):
                return [node, os.path.abspath(folder)]
        return None

    def __init__(self, bench):
        self.node, self.modules = self.find()
        self.folder = os.path.join(bench.work, "duckdb")
        shutil.rmtree(self.folder, ignore_errors=True)
        os.makedirs(self.folder)
        self.file = os.path.join(self.folder, "events.db")

    def step(self, name, argument=""):
        done = subprocess.run([self.node, os.path.join(HERE, "peers", "duckdb.js"), self.modules, self.file, name, argument],
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
        if done.returncode:
            raise Failed("duckdb: " + done.stderr.decode(errors="replace").strip())
        return json.loads(done.stdout.decode())

    def load(self, path):
        return self.step("load", path)["seconds"]

    def again(self, path):
        self.load(path)
        return ""

    def query(self, since):
        answer = self.step("query", since)
        return answer["seconds"], [[row[0], str(row[1])] for row in answer["rows"]]

    def count(self):
        return [self.step("count")["rows"][0][0], None]

    def disk(self):
        return sum(os.path.getsize(os.path.join(self.folder, name)) for name in os.listdir(self.folder))

    def version(self):
        return self.step("version")["rows"][0][0]

    def close(self):
        shutil.rmtree(self.folder, ignore_errors=True)


def one_side(bench, name, make, path, count, since):
    side = make()
    try:
        bench.checkpoint()
        row = {"side": name, "events": count, "seconds": side.load(path)}
        row["version"] = side.version() if hasattr(side, "version") else None
        row["disk"] = side.disk()
        row["query_ms"], answer = side.query(since)
        row["query_ms"] *= 1000
        row["answer"] = json.dumps(answer)
        row["rollup_once"] = side.count()[1]
        row["note"] = side.again(path)
        row["events_twice"], row["rollup_twice"] = side.count()
        row["events_right"] = row["events_twice"] == count
        row["rollup_right"] = None if row["rollup_twice"] is None else row["rollup_twice"] == row["rollup_once"]
        return row
    finally:
        side.close()


def run(bench):
    count = bench.size(10_000, 500_000, 10_000_000)
    start = (int(time.time()) // 86400 - 2 - count // 579 // 86400) * 86400
    path = bench.events(count, start=start)
    since = time.strftime("%Y-%m-%d %H:%M:00", time.gmtime(start + count // 579 - 900))
    sides = postgres_sides(bench)
    rows = []
    if ClickHouse.find():
        sides["ClickHouse, MergeTree"] = lambda: ClickHouse(bench, "MergeTree")
        sides["ClickHouse, ReplacingMergeTree"] = lambda: ClickHouse(bench, "ReplacingMergeTree")
    else:
        rows.append({"skipped": "ClickHouse is not installed here: clickhouse-server and clickhouse-client are not in the path."})
    if DuckDB.find():
        sides["DuckDB"] = lambda: DuckDB(bench)
    else:
        rows.append({"skipped": "DuckDB is not installed here: no @duckdb/node-api in DUCKDB_NODE_PATH or among npm's global packages."})
    for row in rows:
        bench.say("  " + row["skipped"])
    for name, make in sides.items():
        bench.say("  " + name)
        rows.append(one_side(bench, name, make, path, count, since))
    answers = {row["answer"]: row["side"] for row in rows if "answer" in row}
    if len(answers) > 1:
        raise Failed("the dashboard has different answers: %s" % answers)
    return rows


def verdict(right):
    return "–" if right is None else "right" if right else "**wrong**"


def tables(rows):
    measured = [row for row in rows if "side" in row]
    ours = measured[0]
    out = ["""The same %s events from one file, loaded by one connection; the query is ten pages with their views and unique visitors over the
last quarter of an hour, from a rollup where there is one (median of five, all answers alike). Seconds to load include the rollup. ClickHouse and
DuckDB use all cores and compress; ClickHouse has seconds only in its times, no unique key and no durable write (it does not fsync);
the hand-written pipeline and behavior keep two more rollups and sessions. Then the whole file is sent again.
""" % text(ours["events"])]
    out.append("| | load | events/s | next to behavior | query | bytes an event | events after sending twice | "
               "rollup after sending twice |\n|---|---|---|---|---|---|---|---|")
    for row in measured:
        rate = row["events"] / row["seconds"]
        note = " (%s)" % row["note"] if row["note"] else ""
        out.append("| %s%s | %s s | %s | %s | %s ms | %s | %s: %s%s | %s |" % (
            row["side"], " " + row["version"] if row["version"] else "", text(row["seconds"], 1), text(rate),
            text(ratio(rate, ours["events"] / ours["seconds"]), 2), text(row["query_ms"], 1), text(row["disk"] / row["events"]),
            text(row["events_twice"]), verdict(row["events_right"]), note, verdict(row["rollup_right"])))
    out += ["\n" + row["skipped"] for row in rows if "skipped" in row]
    return "\n".join(out)


def budgets(_):
    return []


def chart(rows):
    measured = [row for row in rows if "side" in row]
    ours = measured[0]["events"] / measured[0]["seconds"]
    return [{"title": "Loading, next to peers", "reference": ("behavior", 1.0), "better": "higher", "unit": "",
             "bars": [{"label": row["side"], "value": row["events"] / row["seconds"] / ours,
                       "text": "counts %s after a retry" % ("right" if row["events_right"] and row["rollup_right"] is not False else "wrong")}
                      for row in measured]}]

"""Sends events through the drivers that Debian packages, and compares what each one was told and what is stored.

psycopg2, psycopg 3 and JDBC (with and without rewriting of batches).  A driver that is not installed is
skipped with a line that says so.

    drivers.py --bindir DIR --folder DIR
"""
import argparse
import glob
import json
import os
import shutil
import socket
import socketserver
import subprocess
import sys
import threading

from server import Server

EVENTS = [{"event_id": "e%d" % i, "source": "driver", "type": "T%d" % (i % 3), "user_id": None if i % 4 == 0 else "u%d" % (i % 50),
           "occurred_at": "2024-05-%02d 10:00:00.%06d+00" % (1 + i % 28, i), "sequence": None if i % 5 == 0 else i,
           "properties": {"n": i, "price": i / 4, "text": "tab\there, quote\" and \\ and é", "nested": {"list": [1, "2", None, True]}}}
          for i in range(1, 1201)]
COLUMNS = ("event_id", "source", "type", "user_id", "occurred_at", "sequence", "properties")
INSERT = "INSERT INTO behavior.event (event_id, source, type, user_id, occurred_at, sequence, properties) VALUES "

failures = []


def check(what, got, expected):
    if got != expected:
        failures.append("%s: got %r, expected %r" % (what, got, expected))
        print("not ok", what, "got", repr(got)[:500], "expected", repr(expected)[:500])
    else:
        print("ok", what)


def fresh(server):
    """A database of its own for each way to send."""
    server.psql("-c", "DROP DATABASE IF EXISTS drivers WITH (FORCE)", "-c", "CREATE DATABASE drivers", database="postgres")
    server.psql("-c", "CREATE EXTENSION behavior", database="drivers")


def verify(server, what, sent, statements=None):
    """Everything was sent "sent" times: stored once, a duplicate otherwise; in "statements" batches."""
    rows = server.psql("-c", "SELECT json_build_object('event_id', event_id, 'source', source, 'type', type, 'user_id', user_id,"
                       " 'occurred_at', to_char(occurred_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US') || '+00', 'sequence', sequence,"
                       " 'properties', properties) FROM behavior.event ORDER BY sequence NULLS FIRST", database="drivers")
    stored = sorted((json.loads(line) for line in rows.splitlines()), key=lambda e: e["event_id"])
    check(what + ": stored", stored, sorted(EVENTS, key=lambda e: e["event_id"]))
    counts = server.psql("-c", "SELECT sum(received), sum(accepted), sum(duplicates), sum(conflicts), sum(dead_letters) FROM behavior.batch",
                         database="drivers").strip()
    check(what + ": counted", counts, "%d|%d|%d|0|0" % (sent * len(EVENTS), len(EVENTS), (sent - 1) * len(EVENTS)))
    if statements is not None:
        check(what + ": batches", server.psql("-c", "SELECT count(*) FROM behavior.batch", database="drivers").strip(), str(statements))


def rows(dump):
    return [tuple(dump(e[c]) if c == "properties" else e[c] for c in COLUMNS) for e in EVENTS]


def psycopg2_ways(server):
    try:
        import psycopg2
        import psycopg2.extras
    except ImportError:
        print("skipped: psycopg2 is not installed")
        return
    import io
    placeholders = "(%s, %s, %s, %s, %s, %s, %s)"
    data = rows(lambda p: psycopg2.extras.Json(p))

    def connect():
        return psycopg2.connect(host=server.socket, user="postgres", dbname="drivers")

    fresh(server)
    with connect() as connection, connection.cursor() as cursor:
        for row in data[:600]:
            cursor.execute(INSERT + placeholders + " RETURNING event_id", row)
            if cursor.fetchone()[0] != row[0]:
                failures.append("psycopg2 execute: RETURNING")
        check("psycopg2 execute: rowcount", cursor.rowcount, 1)
        cursor.executemany(INSERT + placeholders, data[600:])
    verify(server, "psycopg2 execute and executemany", 1, len(data))
    with connect() as connection, connection.cursor() as cursor:
        returned = psycopg2.extras.execute_values(cursor, INSERT + "%s ON CONFLICT DO NOTHING RETURNING event_id", data, page_size=500, fetch=True)
        check("psycopg2 execute_values: returned", [r[0] for r in returned], [r[0] for r in data])
        psycopg2.extras.execute_batch(cursor, INSERT + placeholders, data)
    verify(server, "psycopg2 execute_values and execute_batch", 3)

    fresh(server)
    text = io.StringIO("".join("\t".join("\\N" if v is None else str(v).replace("\\", "\\\\").replace("\t", "\\t") for v in row) + "\n"
                               for row in rows(json.dumps)))
    with connect() as connection, connection.cursor() as cursor:
        cursor.copy_expert("COPY behavior.event (%s) FROM STDIN" % ", ".join(COLUMNS), text)
        check("psycopg2 copy_expert: rowcount", cursor.rowcount, len(data))
    verify(server, "psycopg2 copy_expert", 1, 1)


def psycopg3_ways(server):
    try:
        import psycopg
        from psycopg.types.json import Jsonb
    except ImportError:
        print("skipped: psycopg 3 is not installed")
        return
    import datetime
    placeholders = "(%s, %s, %s, %s, %s, %s, %s)"
    data = [row[:4] + (datetime.datetime.fromisoformat(row[4] + ":00"),) + row[5:] for row in rows(Jsonb)]

    def connect():
        return psycopg.connect(host=server.socket, user="postgres", dbname="drivers")

    fresh(server)
    with connect() as connection, connection.cursor() as cursor:
        # psycopg prepares a statement on the server from its fifth use on
        for row in data[:100]:
            cursor.execute(INSERT + placeholders + " RETURNING event_id, batch_id", row)
            if cursor.fetchone()[0] != row[0]:
                failures.append("psycopg 3 execute: RETURNING")
        cursor.executemany(INSERT + placeholders, data[100:])
        check("psycopg 3 executemany: rowcount", cursor.rowcount, len(data) - 100)
    verify(server, "psycopg 3 execute and executemany (pipeline)", 1, len(data))
    with connect() as connection, connection.cursor() as cursor:
        cursor.executemany(INSERT + placeholders + " RETURNING event_id", data, returning=True)
        returned = [cursor.fetchone()[0]]
        while cursor.nextset():
            returned.append(cursor.fetchone()[0])
        check("psycopg 3 executemany returning", returned, [r[0] for r in data])
    verify(server, "psycopg 3 executemany returning", 2)

    fresh(server)
    with connect() as connection, connection.cursor() as cursor:
        with cursor.copy("COPY behavior.event (%s) FROM STDIN" % ", ".join(COLUMNS)) as copy:
            for row in data:
                copy.write_row(row)
    verify(server, "psycopg 3 COPY, text", 1, 1)
    with connect() as connection, connection.cursor() as cursor:
        # as pgx does: describe a SELECT of the columns, then send a binary COPY of those types
        cursor.execute("SELECT %s FROM behavior.event LIMIT 0" % ", ".join(COLUMNS))
        types = [c.type_code for c in cursor.description]
        with cursor.copy("COPY behavior.event (%s) FROM STDIN (FORMAT binary)" % ", ".join(COLUMNS)) as copy:
            copy.set_types(types)
            for row in data:
                copy.write_row(row)
    verify(server, "psycopg 3 COPY, binary", 2, 2)
    with connect() as connection, connection.cursor() as cursor:
        try:
            with cursor.copy("COPY behavior.event (%s) FROM STDIN" % ", ".join(COLUMNS)) as copy:
                copy.write_row(data[0])
                raise KeyError("the sender gave up")
        except (KeyError, psycopg.errors.QueryCanceled):
            connection.rollback()
    verify(server, "psycopg 3 COPY given up", 2, 2)


class Forward(socketserver.BaseRequestHandler):
    """JDBC speaks TCP only; the server listens on a socket in the file system only."""

    def handle(self):
        inner = socket.socket(socket.AF_UNIX)
        inner.connect(self.server.target)

        def pump(source, sink):
            try:
                while True:
                    data = source.recv(65536)
                    if not data:
                        break
                    sink.sendall(data)
            except OSError:
                pass
            for end in (source, sink):
                try:
                    end.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass

        thread = threading.Thread(target=pump, args=(inner, self.request), daemon=True)
        thread.start()
        pump(self.request, inner)
        thread.join()
        inner.close()


JAVA = r"""
import java.io.*;
import java.sql.*;
import java.time.*;
import java.util.*;

public class Send
{
	public static void main(String[] args) throws Exception
	{
		String way = args[1];
		try (Connection connection = DriverManager.getConnection(args[0]);
			 BufferedReader in = new BufferedReader(new InputStreamReader(System.in, "UTF-8")))
		{
			connection.setAutoCommit(false);
			if (way.equals("copy"))
			{
				org.postgresql.copy.CopyManager copy = connection.unwrap(org.postgresql.PGConnection.class).getCopyAPI();
				long n = copy.copyIn("COPY behavior.event (event_id, source, type, user_id, occurred_at, sequence, properties) FROM STDIN", in);
				connection.commit();
				System.out.println(n);
				return;
			}
			PreparedStatement insert = connection.prepareStatement(
				"INSERT INTO behavior.event (event_id, source, type, user_id, occurred_at, sequence, properties)"
				+ " VALUES (?, ?, ?, ?, ?::timestamptz, ?, ?::jsonb)",
				way.equals("keys") ? new String[] {"event_id", "batch_id"} : new String[0]);
			String line;
			int n = 0, reported = 0, keys = 0;
			while ((line = in.readLine()) != null)
			{
				String[] f = line.split("\u0001", -1);
				for (int i = 0; i < 7; i++)
				{
					if (f[i].equals("\u0002"))
						insert.setNull(i + 1, i == 5 ? Types.BIGINT : Types.VARCHAR);
					else if (i == 5)
						insert.setLong(i + 1, Long.parseLong(f[i]));
					else
						insert.setString(i + 1, f[i]);
				}
				insert.addBatch();
				if (++n % 400 == 0)
				{
					for (int count : insert.executeBatch())
						reported += count == Statement.SUCCESS_NO_INFO ? 1 : count;
					if (way.equals("keys"))
					{
						ResultSet returned = insert.getGeneratedKeys();
						while (returned.next())
							keys += returned.getString("event_id") != null && returned.getLong("batch_id") > 0 ? 1 : 0;
					}
				}
			}
			connection.commit();
			System.out.println(reported + (way.equals("keys") ? " " + keys : ""));
		}
	}
}
"""


def jdbc_ways(server, folder):
    jars = glob.glob("/usr/share/java/postgresql.jar") + glob.glob("/usr/share/java/postgresql-4*.jar")
    if not shutil.which("javac") or not shutil.which("java") or not jars:
        print("skipped: JDBC needs a JDK and libpostgresql-jdbc-java")
        return
    classes = os.path.join(folder, "java")
    os.makedirs(classes, exist_ok=True)
    with open(os.path.join(classes, "Send.java"), "w", encoding="utf-8") as source:
        source.write(JAVA)
    path = os.pathsep.join([classes] + glob.glob("/usr/share/java/postgresql.jar") + jars[-1:] + glob.glob("/usr/share/java/scram*.jar"))
    subprocess.run(["javac", "-encoding", "UTF-8", "-cp", path, "-d", classes, os.path.join(classes, "Send.java")], check=True)

    socketserver.ThreadingTCPServer.daemon_threads = True
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Forward) as proxy:
        proxy.target = os.path.join(server.socket, ".s.PGSQL.5432")
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        url = "jdbc:postgresql://127.0.0.1:%d/drivers?user=postgres&sslmode=disable&gssEncMode=disable" % proxy.server_address[1]

        def send(way, options, stdin):
            done = subprocess.run(["java", "-Xmx128m", "-XX:TieredStopAtLevel=1", "-cp", path, "Send", url + options, way],
                                  input=stdin.encode(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
            return done.stdout.decode().strip()

        lines = "".join("\x01".join("\x02" if v is None else str(v) for v in row) + "\n" for row in rows(json.dumps))
        text = "".join("\t".join("\\N" if v is None else str(v).replace("\\", "\\\\").replace("\t", "\\t") for v in row) + "\n" for row in rows(json.dumps))
        n = len(EVENTS)
        fresh(server)
        check("JDBC batch: reported", send("batch", "", lines), str(n))
        verify(server, "JDBC batch", 1, n)
        check("JDBC batch, rewritten: reported", send("batch", "&reWriteBatchedInserts=true", lines), str(n))
        verify(server, "JDBC batch, rewritten", 2)
        check("JDBC batch with generated keys: reported", send("keys", "", lines), "%d %d" % (n, n))
        verify(server, "JDBC batch with generated keys", 3)
        check("JDBC simple query mode: reported", send("batch", "&preferQueryMode=simple", lines), str(n))
        verify(server, "JDBC simple query mode", 4)
        fresh(server)
        check("JDBC CopyManager: reported", send("copy", "", text), str(n))
        verify(server, "JDBC CopyManager", 1, 1)
        check("JDBC batch after COPY: reported", send("batch", "&reWriteBatchedInserts=true&prepareThreshold=1", lines), str(n))
        verify(server, "JDBC batch after COPY", 2)
        proxy.shutdown()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bindir", required=True)
    parser.add_argument("--folder", required=True)
    arguments = parser.parse_args()
    server = Server(arguments.bindir, arguments.folder, ["shared_preload_libraries = 'behavior'", "behavior.worker = off"])
    try:
        psycopg2_ways(server)
        psycopg3_ways(server)
        jdbc_ways(server, arguments.folder)
    finally:
        server.remove()
    print("%d failures" % len(failures))
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()

"""The ways in.  A door takes (server, items, rng, attempt, options) and returns when all of them are committed.

Items are events (dicts), broken rows (events that are refused), or lines for the inbox (str).
"""
import gzip
import os
import struct
import tempfile

from events import COLUMNS, as_json, dumps, timestamp

NAMES = ", ".join(COLUMNS)
# PostgreSQL counts from 2000.
EPOCH_2000 = 946684800 * 1000000


def cells(e):
    """The columns as text, None for NULL."""
    out = []
    for name in COLUMNS:
        value = e[name]
        if value is not None:
            if name in ("properties", "context"):
                value = dumps(value)
            elif name == "occurred_at":
                value = timestamp(value)
            else:
                value = str(value)
        out.append(value)
    return out


def literal(value):
    return "NULL" if value is None else "'" + value.replace("'", "''") + "'"


def values(e):
    return "(" + ", ".join(literal(c) for c in cells(e)) + ")"


def copy_csv(server, items, rng, attempt, options):
    quoted = "\n".join(",".join("" if c is None else '"' + c.replace('"', '""') + '"' for c in cells(e))
                       for e in items) + "\n"
    server.psql("-c", "\\copy behavior.event (%s) FROM pstdin WITH (FORMAT csv)" % NAMES,
                stdin=quoted.encode(), options=options)


def copy_text(server, items, rng, attempt, options):
    def cell(c):
        if c is None:
            return "\\N"
        return c.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")
    text = "".join("\t".join(cell(c) for c in cells(e)) + "\n" for e in items)
    server.psql("-c", "\\copy behavior.event (%s) FROM pstdin" % NAMES, stdin=text.encode(), options=options)


def copy_binary(server, items, rng, attempt, options):
    out = [b"PGCOPY\n\xff\r\n\0" + struct.pack("!ii", 0, 0)]
    for e in items:
        out.append(struct.pack("!h", len(COLUMNS)))
        for name, text in zip(COLUMNS, cells(e)):
            if text is None:
                out.append(struct.pack("!i", -1))
                continue
            if name == "occurred_at":
                field = struct.pack("!q", e[name] - EPOCH_2000)
            elif name == "sequence":
                field = struct.pack("!q", e[name])
            elif name in ("properties", "context"):
                field = b"\x01" + text.encode()
            else:
                field = text.encode()
            out.append(struct.pack("!i", len(field)) + field)
    out.append(struct.pack("!h", -1))
    server.psql("-c", "\\copy behavior.event (%s) FROM pstdin WITH (FORMAT binary)" % NAMES,
                stdin=b"".join(out), options=options)


def insert_rows(server, items, rng, attempt, options):
    script = "INSERT INTO behavior.event (%s) VALUES %s;\n" % (NAMES, ",\n".join(values(e) for e in items))
    server.psql(stdin=script.encode(), options=options)


def insert_each(server, items, rng, attempt, options):
    """One statement an event, each committed by itself."""
    script = "".join("INSERT INTO behavior.event (%s) VALUES %s;\n" % (NAMES, values(e)) for e in items)
    server.psql(stdin=script.encode(), options=options)


def insert_transaction(server, items, rng, attempt, options):
    """One transaction with savepoints: what is rolled back to them is sent again, or it would be lost."""
    script = ["BEGIN ISOLATION LEVEL %s;" % rng.choice(["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"])]
    at = 0
    while at < len(items):
        some = items[at:at + rng.randrange(1, 20)]
        at += len(some)
        statement = "INSERT INTO behavior.event (%s) VALUES %s;" % (NAMES, ",\n".join(values(e) for e in some))
        if rng.random() < 0.3:
            script += ["SAVEPOINT s;", statement, "ROLLBACK TO s;"]
        if rng.random() < 0.3:
            script += ["SAVEPOINT s;", statement, "RELEASE s;"]
        else:
            script.append(statement)
    script.append("COMMIT;\n")
    server.psql(stdin="\n".join(script).encode(), options=options)


def insert_select(server, items, rng, attempt, options):
    rows = dumps([dict(zip(COLUMNS, cells(e))) for e in items])
    casts = ", ".join("(r->>'%s')::%s" % (name, {"occurred_at": "timestamptz", "sequence": "bigint",
                                                "properties": "jsonb", "context": "jsonb"}.get(name, "text"))
                      for name in COLUMNS)
    script = "INSERT INTO behavior.event (%s) SELECT %s FROM jsonb_array_elements(%s) r;\n" % (
        NAMES, casts, literal(rows))
    server.psql(stdin=script.encode(), options=options)


def lines(items, rng, attempt):
    retry = attempt if rng.random() < 0.5 else None
    return [item if isinstance(item, str) else as_json(item, rng, retry) for item in items]


def inbox_copy(server, items, rng, attempt, options):
    out = []
    for line in lines(items, rng, attempt):
        out.append(line)
        if rng.random() < 0.02:
            out.append(rng.choice(["", "  "]))      # blank lines are no events
    server.psql("-c", "\\copy behavior.inbox FROM pstdin WITH (FORMAT csv, QUOTE E'\\x01', DELIMITER E'\\x02')",
                stdin=("\n".join(out) + "\n").encode(), options=options)


def inbox_insert(server, items, rng, attempt, options):
    script = "INSERT INTO behavior.inbox VALUES %s;\n" % ",\n".join(
        "(%s)" % literal(line) for line in lines(items, rng, attempt))
    server.psql(stdin=script.encode(), options=options)


def ingest(server, items, rng, attempt, options):
    script = "SELECT count(*) FROM behavior.ingest(%s);\n" % literal("[%s]" % ",".join(lines(items, rng, attempt)))
    server.psql(stdin=script.encode(), options=options)


def load(server, items, rng, attempt, options):
    """behavior-load, which is installed beside psql."""
    text = ("\n".join(lines(items, rng, attempt)) + "\n").encode()
    if rng.random() < 0.5:
        server.psql("-", program="behavior-load", stdin=text, options=options)
        return
    handle, path = tempfile.mkstemp(suffix=".gz")
    try:
        with os.fdopen(handle, "wb") as raw, gzip.open(raw, "wb") as file:
            file.write(text)
        server.psql(path, program="behavior-load", options=options)
    finally:
        os.unlink(path)


ROWS = [copy_csv, copy_text, copy_binary, insert_rows, insert_each, insert_transaction, insert_select]
JSON = [inbox_copy, inbox_insert, load]
# Doors that commit in parts.
PARTIAL = [insert_each]
# Doors that may write more than one batch row, or send rows that are rolled back and sent again.
EVENTS = ROWS + JSON + [ingest]

"""match.py: events matched against event patterns, by operator and by the number of rules.

One backend, no disk: a set of patterns and a hundred events of about 900 bytes in memory, matched again and again
(behavior._pattern_set_matches with a repeat count).  What compiling and parsing takes is measured with no repeats and
subtracted.
"""
import json
import random

from common import ratio, text

TITLE = "Matching event patterns"

# Events a second of the matcher that EventBridge runs, one thread, five rules, events of this size, as its authors state them (2026-07): another machine.
REFERENCE = {"exact": 220e3, "prefix": 220e3, "suffix": 220e3, "equals-ignore-case": 200e3, "wildcard": 170e3, "100 wildcards in a pattern": 1.25e3,
             "anything-but": 150e3, "numeric": 120e3, "arrays of objects": 35e3}
SIZES = (1, 10, 100, 1000)
EVENTS = 100


def make_event(rng, number):
    properties = {
        "page": "/products/%04d/%s" % (rng.randrange(1000), rng.choice(["details", "reviews", "pictures"])), "referrer": "https://www.example.com/search?q=shoes&page=%d" % rng.randrange(9),
        "title": "Running shoes, model %04d" % rng.randrange(1000), "amount": rng.randrange(100000) / 100, "quantity": rng.randrange(1, 9), "currency": rng.choice(["EUR", "USD", "GBP"]),
        "campaign": "Spring-%03d" % rng.randrange(1000), "mobile": rng.random() < 0.5, "coupon": None, "ip": "10.%d.%d.%d" % (rng.randrange(16), rng.randrange(256), rng.randrange(256)),
        "tags": ["t%03d" % rng.randrange(1000) for _ in range(3)],
        "items": [{"sku": "sku-%03d" % rng.randrange(1000), "price": rng.randrange(10000) / 100, "gift": rng.random() < 0.1} for _ in range(3)]}
    return {"version": "0", "id": "%032x" % rng.getrandbits(128), "detail-type": "Type%d" % rng.randrange(20), "source": rng.choice(["shop", "web", "app"]), "account": "123456789012",
            "region": "eu-central-1", "time": "2024-05-06T07:08:%02dZ" % (number % 60), "resources": [], "user_id": "user-%06d" % rng.randrange(10**6), "anonymous_id": "device-%06d" % rng.randrange(10**6),
            "detail": properties, "context": {"library": "web 1.2.3", "locale": "de-DE", "agent": "Mozilla/5.0 (X11; Linux x86_64) " + "x" * 100}}


RULES = {
    "exact": lambda n: {"detail": {"campaign": ["Spring-%03d" % n]}},
    "prefix": lambda n: {"detail": {"page": [{"prefix": "/products/%04d/" % n}]}},
    "suffix": lambda n: {"detail": {"title": [{"suffix": "model %04d" % n}]}},
    "equals-ignore-case": lambda n: {"detail": {"campaign": [{"equals-ignore-case": "sPRING-%03d" % n}]}},
    "wildcard": lambda n: {"detail": {"page": [{"wildcard": "/products/%04d/*view*" % n}]}},
    "wildcard in the middle": lambda n: {"detail": {"page": [{"wildcard": "*/%04d/*" % n}]}},
    "anything-but": lambda n: {"detail-type": ["Type%d" % (n % 20)], "detail": {"campaign": [{"anything-but": ["Spring-%03d" % n, "Spring-%03d" % (999 - n)]}]}},
    "numeric": lambda n: {"detail": {"amount": [{"numeric": [">=", n, "<", n + 1]}]}},
    "cidr": lambda n: {"detail": {"ip": [{"cidr": "10.%d.%d.0/24" % (n % 16, n // 16)}]}},
    "arrays of objects": lambda n: {"detail": {"items": {"sku": ["sku-%03d" % n], "gift": [False], "price": [{"numeric": [">", 1]}]}}},
    "exists false": lambda n: {"detail": {"campaign": ["Spring-%03d" % n], "missing": [{"exists": False}]}},
    "$or": lambda n: {"$or": [{"detail": {"campaign": ["Spring-%03d" % n]}}, {"detail": {"tags": ["t%03d" % n]}}]},
}


def typical(n):
    """What subscriptions look like: who and what, and mostly a condition of their own."""
    rule = {"source": [["shop", "web", "app"][n % 3]], "detail-type": ["Type%d" % (n % 20)]}
    if n % 4:
        rule.update(RULES[KINDS[n % len(KINDS)]](n))
    else:
        rule["user_id"] = [{"prefix": "user-%04d" % n}]
    return rule


KINDS = list(RULES)
RULES["typical, mixed"] = typical
MANY_WILDCARDS = {"context": {"agent": [{"wildcard": "*" + "x*" * 99}]}}


def quote(value):
    return "'%s'" % json.dumps(value).replace("'", "''")


def least(bench, session, query):
    """The cheapest of some runs: there is nothing in them that varies but the machine."""
    session.run(query)
    runs = [bench.measure((session, query)) for _ in range(bench.size(1, 3))]
    return min(runs, key=lambda run: run["cpu"])


def measure(bench, session, rules, events, repeat):
    """Processor seconds and instructions for one event, and how many rules matched it on average."""
    query = "SELECT avg(cardinality(matched)) FROM behavior._pattern_set_matches(%s, %s, %%d)" % (quote(rules), quote(events))
    none = least(bench, session, query % 1)
    some = least(bench, session, query % (repeat + 1))
    count = repeat * len(events)
    # In a smoke test the difference is less than the noise.
    out = {"cpu_us": max(some["cpu"] - none["cpu"], 1e-6) / count * 1e6,
           "instructions": None if some["instructions"] is None else (some["instructions"] - none["instructions"]) / count,
           "matched": float(some["output"][0])}
    out["events_per_s"] = 1e6 / out["cpu_us"]
    return out


def run(bench):
    rng = random.Random(1)
    events = [make_event(rng, n) for n in range(EVENTS)]
    size = sum(len(json.dumps(event)) for event in events) // EVENTS
    rows = []
    repeat = bench.size(20, 4000)
    bench.behavior("match")
    with bench.session("match") as session:
        for name, rule in RULES.items():
            for count in SIZES:
                order = list(range(1000))
                random.Random(2).shuffle(order)
                rows.append(dict(kind="set", name=name, rules=count, event_bytes=size, **measure(bench, session, [rule(n) for n in order[:count]], events, repeat)))
            bench.say("%-24s %s" % (name, "  ".join("%4d: %8.0f events/s %s i" % (row["rules"], row["events_per_s"], text(row["instructions"])) for row in rows[-len(SIZES):])))
        for name, reference in REFERENCE.items():
            rules = [MANY_WILDCARDS] if name not in RULES else [RULES[name](n) for n in range(5)]
            row = dict(kind="operator", name=name, rules=len(rules), event_bytes=size, reference_events_per_s=reference, **measure(bench, session, rules, events, repeat))
            row["ratio"] = row["events_per_s"] / reference
            rows.append(row)
            bench.say("%-28s %8.0f events/s, %.1f times" % (name, row["events_per_s"], row["ratio"]))
        rows.append(dict(kind="call", event_bytes=size, **measure_calls(bench, session, events, bench.size(1, 100))))
    return rows


def measure_calls(bench, session, events, repeat):
    """One pattern by the operator in WHERE, row by row."""
    session.run("CREATE TABLE sample AS SELECT e FROM jsonb_array_elements(%s) e, generate_series(1, %d)" % (quote(events), repeat))
    session.run("VACUUM ANALYZE sample")
    count = "SELECT count(*) FROM sample"
    where = "SELECT count(*) FROM sample WHERE e OPERATOR(behavior.@~) %s"
    pattern = quote({"source": ["shop"], "detail": {"amount": [{"numeric": [">", 500]}]}})
    out = {}
    total = int(session.run(count))
    session.run("SET max_parallel_workers_per_gather = 0")
    by_hand = "SELECT count(*) FROM sample WHERE e->>'source' = 'shop' AND (e->'detail'->>'amount')::numeric > 500"
    session.run("CREATE TABLE sample_text AS SELECT e::text AS e FROM sample")
    session.run("VACUUM ANALYZE sample_text")
    parse = "SELECT count(e::jsonb) FROM sample_text"
    for name, query in (("nothing", count), ("pattern", where % pattern), ("by hand", by_hand), ("parse", parse)):
        out[name] = least(bench, session, query)["cpu"] / total * 1e6
    return {"operator_us": out["pattern"] - out["nothing"], "by_hand_us": out["by hand"] - out["nothing"], "parse_us": out["parse"] - out["nothing"]}


def tables(rows):
    sets = [row for row in rows if row["kind"] == "set"]
    out = ["""One backend; a set of patterns and %d events of %d bytes in memory, as jsonb; by processor time. Each rule of a set has values of its own.
The lookup takes an event's paths and values to the rules that may match, so that the cost follows what matches and not how many rules there are.

| rules | %s | µs an event with 1,000 | rules that match, of 1,000 |
|---|%s---|---|""" % (EVENTS, sets[0]["event_bytes"], " | ".join("events/s with %s" % format(n, ",d") for n in SIZES), "---|" * len(SIZES))]
    for name in dict.fromkeys(row["name"] for row in sets):
        some = [row for row in sets if row["name"] == name]
        out.append("| %s | %s | %s | %s |" % (name, " | ".join(text(row["events_per_s"]) for row in some), text(some[-1]["cpu_us"], 2), text(some[-1]["matched"], 1)))
    out.append("""
Next to the matcher that EventBridge runs (event-ruler), as its authors state its speed: one thread, five rules, events of this size, on
another machine.

| rules | events/s | its events/s | times | instructions an event |
|---|---|---|---|---|""")
    for row in rows:
        if row["kind"] == "operator":
            out.append("| %s | %s | %s | %s | %s |" % (row["name"], text(row["events_per_s"]), text(row["reference_events_per_s"]), text(row["ratio"], 1), text(row["instructions"])))
    for row in rows:
        if row["kind"] == "call":
            out.append("""
Its figures include parsing the event's JSON, which here has been done when the event was sent (PostgreSQL's parser takes %s µs for it).
In SQL, row by row: `e @~ pattern` takes %s µs an event, the same condition written with `->>` and casts %s µs.""" % (
                text(row["parse_us"], 1), text(row["operator_us"], 2), text(row["by_hand_us"], 2)))
    return "\n".join(out) + "\n"


def budgets(rows):
    sets = {(row["name"], row["rules"]): row for row in rows if row["kind"] == "set"}
    mixed = ratio(sets["typical, mixed", 1000]["cpu_us"], sets["typical, mixed", 1]["cpu_us"])
    worst = min((row for row in rows if row["kind"] == "operator"), key=lambda row: row["ratio"])
    return [{"name": "match-set", "measured": "%s times" % text(mixed, 1), "met": mixed <= 20, "note": "%s and %s µs an event" % (
                text(sets["typical, mixed", 1000]["cpu_us"], 2), text(sets["typical, mixed", 1]["cpu_us"], 2))},
            {"name": "match-operators", "measured": "%s times" % text(worst["ratio"], 1), "met": worst["ratio"] >= 1, "note": "the least: %s" % worst["name"]}]


def chart(rows):
    bars = [{"label": row["name"], "value": row["ratio"], "text": "%s events/s" % text(row["events_per_s"]), "budget": 1.0} for row in rows
            if row["kind"] == "operator" and row["ratio"] < 100]
    return [{"title": "Matching: events a second next to event-ruler's stated figures", "better": "higher", "unit": "",
             "reference": ("event-ruler", 1.0), "bars": bars}]

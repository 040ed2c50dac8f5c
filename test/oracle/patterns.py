#!/usr/bin/env python3
"""Random event patterns and events: the extension against a naive implementation, and against itself.

    patterns.py --bindir BIN --folder FOLDER [--seed N] [--rounds N] [--calls N]

Each round makes patterns and events and asks of each pair: does event_matches() say what the naive implementation
says (test/oracle/naive_pattern.py)?  Do the operator, a set of all patterns, and the row of the log?  Is the answer the same with alternatives
in another order, with unrelated fields in the event, and with $or multiplied out?  Patterns that the naive
implementation refuses have to raise 22023.  Then mutated patterns and events, FUZZ_CALLS of them: nothing but
22023 may come, and memory must not grow.
"""
import argparse
import copy
import os
import random
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
sys.dont_write_bytecode = True

import naive_pattern as naive          # noqa: E402
from naive_pattern import Number       # noqa: E402
from server import Server              # noqa: E402

KEYS = ["a", "b", "c", "d", "a.b", "b.c", "x", "", "é", "detail", "source"]
TEXTS = ["", "a", "b", "ab", "abc", "abcabc", "ABC", "Abc", "bc", "xbc", "a*c", "a\\c", "ß", "SS", "straße", "STRASSE", "İ", "i̇", "ΰ", "ǅ", "𐐀",
         "中文", "文", "10.0.0.1", "10.0.0.2", "10.0.1.1", "10.1.0.1", "::1", "0:0::1", "2001:db8::1", "2001:DB8::1", "1", "true", "null", "x" * 70,
         "x" * 70 + "abc", "/p/1", "/p/12", "/p/2", "/q/1"]
NUMBERS = ["0", "-0.0", "1", "1.0", "1e0", "2", "-1", "0.5", "300", "3e2", "299.99", "12345678901234567890", "1e-7", "1e300"]
GLOBS = ["*", "a*", "*c", "*b*", "a*c", "*abc*abc", "\\*", "a\\*c", "a\\\\c", "*/1*", "/p/*", "", "ab*c*", "*文*", "*x*x*a*"]
NETS = ["10.0.0.0/24", "10.0.0.0/16", "10.0.0.3/31", "0.0.0.0/0", "::/0", "2001:db8::/32", "::1/127"]


class Maker:
    def __init__(self, seed):
        self.rng = random.Random(seed)

    def number(self):
        return Number(self.rng.choice(NUMBERS))

    def text(self):
        return self.rng.choice(TEXTS)

    def scalar(self):
        return self.rng.choice([self.text, self.text, self.number, lambda: self.rng.choice([True, False, None])])()

    def event(self, depth=0):
        rng = self.rng
        return {rng.choice(KEYS): self.value(depth) for _ in range(rng.randrange(4 if depth else 6))}

    def value(self, depth):
        kind = self.rng.random()
        if depth > 3 or kind < 0.5:
            return self.scalar()
        if kind < 0.75:
            return self.event(depth + 1)
        return [self.value(depth + 1) for _ in range(self.rng.randrange(4))]

    def several(self, make):
        return [make() for _ in range(self.rng.choice([1, 1, 2, 3]))]

    def one_or_more(self, make):
        return make() if self.rng.random() < 0.5 else self.several(make)

    def numeric(self):
        rng = self.rng
        if rng.random() < 0.5:
            return [rng.choice(["=", "<", "<=", ">", ">="]), self.number()]
        low, high = sorted((self.number(), self.number()), key=lambda n: n.value)
        return [rng.choice([">", ">="]), low, rng.choice(["<", "<="]), high]

    def alternative(self):
        rng = self.rng
        kind = rng.randrange(14)
        if kind < 5:
            return self.scalar()
        if kind == 5:
            return {rng.choice(["prefix", "suffix"]): self.text()}
        if kind == 6:
            return {rng.choice(["prefix", "suffix"]): {"equals-ignore-case": self.text()[:8]}}
        if kind == 7:
            return {rng.choice(["equals-ignore-case", "exactly"]): self.text()[:8]}
        if kind == 8:
            return {"wildcard": rng.choice(GLOBS)}
        if kind == 9:
            return {"numeric": self.numeric()}
        if kind == 10:
            return {"exists": rng.random() < 0.4}
        if kind == 11:
            return {"cidr": rng.choice(NETS)}
        if kind == 12:
            return {"anything-but": self.one_or_more(self.text if rng.random() < 0.7 else self.number)}
        inner = rng.choice(["prefix", "suffix", "equals-ignore-case", "wildcard"])
        return {"anything-but": {inner: self.one_or_more(lambda: rng.choice(GLOBS) if inner == "wildcard" else self.text()[:8])}}

    def pattern(self, depth=0):
        rng = self.rng
        out = {}
        for _ in range(rng.choice([1, 1, 2, 2, 3])):
            kind = rng.random()
            if kind < 0.15 and depth < 3:
                out["$or"] = [self.pattern(depth + 1) for _ in range(rng.choice([2, 2, 3]))]
            elif kind < 0.45 and depth < 3:
                out[rng.choice(KEYS)] = self.pattern(depth + 1)
            else:
                out[rng.choice(KEYS)] = [self.alternative() for _ in range(rng.choice([1, 1, 2, 3]))]
        return out

    def pattern_of(self, event):
        """One that has a chance to match: made of leaves of the event."""
        some = list(naive.leaves(event))
        if not some:
            return self.pattern()
        out = {}
        for path, value, _ in self.rng.sample(some, min(len(some), self.rng.choice([1, 2, 3]))):
            out[path] = [self.alternative(), value]
            if isinstance(value, str) and self.rng.random() < 0.5:
                cut = self.rng.randrange(len(value) + 1)
                out[path] = [self.rng.choice([{"prefix": value[:cut]}, {"suffix": value[cut:]}, {"equals-ignore-case": value[:8]},
                                              {"prefix": {"equals-ignore-case": value[:min(cut, 8)]}}, {"anything-but": [value[:cut]]}])]
        return out

    def mutate(self, value):
        """Something like it, valid or not."""
        rng = self.rng
        value = copy.deepcopy(value)
        nodes = []

        def collect(node):
            if isinstance(node, dict):
                nodes.extend((node, k) for k in node)
                for inner in node.values():
                    collect(inner)
            elif isinstance(node, list):
                nodes.extend((node, k) for k in range(len(node)))
                for inner in node:
                    collect(inner)
        collect(value)
        for _ in range(rng.choice([1, 1, 2, 4])):
            if not nodes:
                return rng.choice([[], {}, self.scalar()])
            node, key = rng.choice(nodes)
            new = rng.choice([self.scalar, lambda: [], lambda: {}, self.alternative, lambda: [self.alternative()], self.pattern, self.numeric,
                              lambda: "*" * rng.randrange(4), lambda: {rng.choice(naive.RESERVED): self.scalar()}, lambda: Number("1e309")])()
            if isinstance(node, dict) and rng.random() < 0.3:
                node[rng.choice(naive.RESERVED + KEYS + ["$or"])] = new
            elif isinstance(node, list) or key in node:
                node[key] = new
        return value

    def shuffled(self, pattern):
        """Alternatives, branches and keys in another order."""
        rng = self.rng
        if isinstance(pattern, dict):
            items = [(k, self.shuffled(v)) for k, v in pattern.items()]
            rng.shuffle(items)
            return dict(items)
        if isinstance(pattern, list) and not (len(pattern) in (2, 4) and pattern[0] in ("=", "<", "<=", ">", ">=")):
            items = [self.shuffled(v) for v in pattern]
            rng.shuffle(items)
            return items
        return pattern


def quote(text):
    return "'%s'" % text.replace("'", "''")


SETUP = """
CREATE EXTENSION behavior;
CREATE FUNCTION public.answer(pattern jsonb, event jsonb) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    RETURN behavior.event_matches(pattern, event);
EXCEPTION WHEN OTHERS THEN
    RETURN sqlstate;
END $$;
CREATE TABLE public.pattern (n int PRIMARY KEY, p jsonb);
CREATE TABLE public.event (n int PRIMARY KEY, e jsonb);
"""
ALONE = """SELECT p.n AS p, e.n AS e, public.answer(p, e) AS answer FROM public.pattern p, public.event e"""
SET = """SELECT event, matched FROM behavior._pattern_set_matches((SELECT jsonb_agg(p ORDER BY n) FROM public.pattern),
    (SELECT jsonb_agg(e ORDER BY n) FROM public.event), 2)"""


class Oracle:
    def __init__(self, server, seed):
        self.server = server
        self.seed = seed
        self.compared = 0

    def load(self, patterns, events):
        sql = "TRUNCATE public.pattern, public.event;\n"
        for table, values in (("pattern", patterns), ("event", events)):
            for number, value in enumerate(values):
                sql += "INSERT INTO public.%s VALUES (%d, %s);\n" % (table, number, quote(naive.dump(value)))
        self.server.psql("-f", "-", stdin=("BEGIN;\n%s\nCOMMIT;" % sql).encode())

    def answers(self, patterns, events):
        self.load(patterns, events)
        return {(int(r["p"]), int(r["e"])): r["answer"] for r in self.server.rows(ALONE)}

    def expect(self, what, condition, pattern, event):
        self.compared += 1
        if not condition:
            raise AssertionError("seed %d: %s\npattern: %s\nevent: %s" % (self.seed, what, naive.dump(pattern), naive.dump(event)))

    def round(self, maker, count):
        rng = maker.rng
        events = [maker.event() for _ in range(count)]
        patterns = [maker.pattern() if rng.random() < 0.5 else maker.pattern_of(rng.choice(events)) for _ in range(count)]
        patterns += [maker.mutate(p) for p in rng.sample(patterns, count // 4)]
        got = self.answers(patterns, events)
        valid = []
        matched = 0
        for i, pattern in enumerate(patterns):
            try:
                naive.rules(pattern)
                valid.append(i)
            except naive.Refused as refused:
                self.expect("%s is refused: %s" % (got[i, 0], refused), got[i, 0] == "22023", pattern, events[0])
                continue
            for j, event in enumerate(events):
                want = "true" if naive.matches(pattern, event) else "false"
                matched += want == "true"
                self.expect("event_matches says %s, not %s" % (got[i, j], want), got[i, j] == want, pattern, event)
        # The same in other words.
        good = [patterns[i] for i in valid]
        unrelated = [dict(e, **{"other": {"a": maker.value(0)}, "zz": maker.scalar()}) for e in events]
        again = self.answers([maker.shuffled(p) for p in good], unrelated)
        for n, i in enumerate(valid):
            for j, event in enumerate(unrelated):
                self.expect("in another order, among other fields: %s" % again[n, j], again[n, j] == got[i, j], patterns[i], event)
        some = [i for i in valid if len(naive.rules(patterns[i])) in range(2, 40)][:20]
        expanded = [(i, p) for i in some for p in naive.expand(patterns[i])]
        parts = self.answers([p for _, p in expanded], events)
        for i in some:
            for j, event in enumerate(events):
                any_part = any(parts[n, j] == "true" for n, (k, _) in enumerate(expanded) if k == i)
                self.expect("$or multiplied out: %s" % any_part, (got[i, j] == "true") == any_part, patterns[i], event)
        # All at once.
        self.load(good, events)
        sets = {int(r["event"]): set(map(int, r["matched"])) for r in self.server.rows(SET)}
        for j, event in enumerate(events):
            for n, i in enumerate(valid):
                self.expect("a set says %s" % (n in sets[j]), (n in sets[j]) == (got[i, j] == "true"), patterns[i], event)
        return matched

    def rows(self, maker, count):
        """Rows of the log: a set sees what event_json() shows."""
        events = []
        for number in range(count):
            rng = maker.rng
            events.append("(%s, %s, %s, %s, %s, '2024-05-06 07:08:09Z'::timestamptz + %d * interval '1.7 s', %s, %s, %s)" % (
                quote("e%d-%d" % (self.seed, number)), quote(rng.choice(["web", "shop"])), quote(rng.choice(["PageView", "Purchase"])),
                rng.choice(["NULL", "'u1'", "'u2'"]), rng.choice(["NULL", "'d1'"]), number, rng.choice(["NULL", "7", "-1"]),
                quote(naive.dump(maker.event())), rng.choice(["NULL", quote(naive.dump(maker.event()))])))
        self.server.run("""INSERT INTO behavior.event (event_id, source, type, user_id, anonymous_id, occurred_at, sequence, properties, context)
            VALUES %s""" % ", ".join(events))
        patterns = []
        for _ in range(count):
            rng = maker.rng
            pattern = {"detail": maker.pattern()} if rng.random() < 0.6 else {"context": maker.pattern()}
            key = rng.choice(["version", "id", "detail-type", "source", "time", "resources", "user_id", "anonymous_id", "actor", "sequence", "received_at", "hops"])
            pattern[key] = [maker.alternative(), rng.choice(["web", "PageView", "u1", "d1", "0", Number("7"), {"prefix": "2024"}, {"exists": True}, {"exists": False}])]
            try:
                naive.rules(pattern)
                patterns.append(pattern)
            except naive.Refused:
                pass
        self.load(patterns, [])
        wrong = self.server.rows("""SELECT v.event_id, p.p FROM behavior.event v, public.pattern p, behavior._pattern_set_log((SELECT jsonb_agg(p ORDER BY n) FROM public.pattern)) s
            WHERE s.event_id = v.event_id AND (n = ANY (s.matched)) <> behavior.event_matches(p.p, behavior.event_json(v)) LIMIT 1""")
        self.expect("rows of the log: %s" % wrong, not wrong, None, None)

    def fuzz(self, maker, calls):
        """One session that makes so many calls; what it may raise, and how its memory grows."""
        patterns = [maker.pattern() for _ in range(400)]
        patterns += [maker.mutate(maker.rng.choice(patterns)) for _ in range(1600)]
        events = [maker.event() for _ in range(80)]
        events += [maker.mutate(maker.rng.choice(events)) for _ in range(20)]
        self.load(patterns, events)
        turns = max(1, calls // (len(patterns) * len(events)))
        memory = "SELECT sum(total_bytes) FROM pg_backend_memory_contexts"
        turn = """SELECT count(*), count(*) FILTER (WHERE answer NOT IN ('true', 'false', '22023')) AS other FROM (%s) q""" % ALONE
        explain = """SELECT count(*) FROM public.pattern p, public.event e, behavior.explain_match(p, e)
            WHERE p.n % 50 = 0 AND public.answer(p, '{}') <> '22023'"""
        out = self.server.run("SET client_min_messages = error", turn, explain, memory, *([turn] * (turns - 1)), explain, memory, turn)
        lines = [line for line in out.split("\n") if line]
        counts = [line.split("|") for line in lines if "|" in line]
        others = [int(line) for line in lines if "|" not in line]
        self.expect("nothing but 22023 is raised", all(int(other) == 0 for _, other in counts), None, None)
        self.expect("memory: %d bytes, then %d" % (others[1], others[3]), others[3] < others[1] + 4000000, None, None)
        return sum(int(count) for count, _ in counts), others[1], others[3]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--bindir", required=True)
    parser.add_argument("--folder", required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calls", type=int, default=int(os.environ.get("FUZZ_CALLS") or 200000))
    arguments = parser.parse_args()
    server = Server(arguments.bindir, arguments.folder, ["shared_preload_libraries = 'behavior'", "behavior.worker = off"])
    try:
        server.run("CREATE DATABASE oracle", database="postgres")
        server.psql("-f", "-", stdin=SETUP.encode())
        matched = 0
        for number in range(arguments.rounds):
            oracle = Oracle(server, arguments.seed + number)
            maker = Maker(arguments.seed + number)
            matched += oracle.round(maker, 80)
            oracle.rows(maker, 60)
            print("seed %d: %d comparisons" % (oracle.seed, oracle.compared), flush=True)
        # A test that compares nothing but "no" is none.
        if matched < 100 * arguments.rounds:
            raise AssertionError("only %d pairs match" % matched)
        print("%d calls; %d bytes, then %d" % Oracle(server, arguments.seed).fuzz(Maker(arguments.seed), arguments.calls))
    finally:
        server.remove()


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Sends random events while subscriptions of every kind are routed, delivered and received; handlers fail at random and for
certain events, subscriptions are made, altered, paused and dropped, backends, workers and the server are killed.  In the
end each event must have taken effect exactly once for each subscription that wants it, or be a dead letter, which is
redriven once the handler is mended.

    delivery.py --bindir BIN --folder FOLDER [--seed N] [--events N]

The same seed makes the same events and subscriptions; the moments of the kills differ.
"""
import collections
import json
import os
import random
import sys
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "data"))

import delivery_patterns                # noqa: E402
import naive_pattern                    # noqa: E402
from doors import literal               # noqa: E402
from generate import SECOND, Generator  # noqa: E402
from oracle import Oracle, main         # noqa: E402
from server import Failed               # noqa: E402
from subscriber import EFFECT, OF_DELIVERY, TABLES, Subscriber, is_poison   # noqa: E402

SETTINGS = ("behavior.handler_timeout = '2s'", "behavior.max_hops = 4", "max_worker_processes = 24")
PATIENCE = 240      # seconds until everything must be delivered
ECHOES = 3          # events whose handler sends another one of the same type
WAITING = """SELECT (SELECT count(*) FROM behavior.event WHERE tick_id IS NULL)
    + (SELECT coalesce(max(tick_id), 0) FROM behavior.tick) - (SELECT coalesce(max(tick_id), 0) FROM behavior._route_progress)
    + (SELECT coalesce(sum(lag_events), 0) FROM behavior.subscription) + (SELECT count(*) FROM behavior._delivery)"""


class Delivery(Oracle):
    def __init__(self, arguments):
        super().__init__(arguments, SETTINGS)
        self.subscribers = []
        self.drained = threading.Event()

    # --- events --------------------------------------------------------------------------------------------

    def make_traffic(self):
        """Half of the events occur while they are sent, with some jitter and ties; the others long before."""
        rng = self.rng
        generator = Generator(self.seed)
        events = generator.events(self.count)
        begin = int(time.time() * 1000000)
        pace = 10 * SECOND // len(events)
        for number, e in enumerate(events):
            if e["form"] == "native":
                delivery_patterns.add_properties(rng, e["properties"])
            if rng.random() < 0.5:
                e["occurred_at"] = begin + number * pace + rng.randrange(-1500, 1500) * 1000
                if rng.random() < 0.3:
                    e["occurred_at"] -= e["occurred_at"] % (SECOND // 2)
        # Repeats and conflicts come a little later, so do some of the events.
        items = [(number + (rng.randrange(200) if rng.random() < 0.2 else rng.randrange(5)), e) for number, e in enumerate(events)]
        items += [(number + rng.randrange(400), e) for number, e in enumerate(events) if rng.random() < 0.3]
        items += [(number + rng.randrange(400), generator.conflict(e)) for number, e in enumerate(events) if rng.random() < 0.02]
        items.sort(key=lambda item: item[0])
        self.say("%d events, %d sent" % (len(events), len(items)))
        return [e for _, e in items], begin

    def chosen_subscribers(self, begin):
        """The first of them; others come while events do."""
        rng = self.rng

        def size():
            return rng.choice([1, 2, 7, 50, 100, 1000])

        def some():
            return delivery_patterns.random_pattern(rng)

        everything = {"source": [{"exists": True}]}
        return [
            Subscriber("plain", some(), takes="event", batch_size=size(), flaky=rng.choice([0, 0.02])),
            Subscriber("owned", some(), owner="consumer", batch_size=size(), batch_window=rng.choice(["'0'", "'400 ms'"])),
            Subscriber("poison", some(), fails=True, batch_size=size(), max_attempts=rng.choice([1, 2])),
            Subscriber("poison_all", everything, takes=rng.choice(["event", "delivery"]), fails=True, batch_size=size(),
                       max_attempts=2),
            Subscriber("ordered", rng.choice([everything, some()]), ordered="true", batch_size=size(),
                       reorder_window=rng.choice(["'1 s'", "'3 s'"])),
            Subscriber("ordered_flaky", rng.choice([everything, some()]), ordered="true", batch_size=size(), fails=True,
                       max_attempts=2, reorder_window=rng.choice(["'500 ms'", "'2 s'"])),
            Subscriber("chain", {"detail-type": ["Purchase"]}, emits="Receipt", batch_size=size(), flaky=0.1),
            Subscriber("echo", {"detail-type": ["Echo"]}, emits="Echo", batch_size=size()),
            Subscriber("paused", some(), batch_size=size()),
            Subscriber("altered", some(), batch_size=size()),
            Subscriber("doomed", everything, batch_size=size()),
            Subscriber("pull", some(), way="pull"),
            Subscriber("pull_ordered", some(), way="pull", ordered="true", reorder_window="'1 s'"),
            Subscriber("visible", some(), way="visible"),
            Subscriber("replayed", some(), batch_size=size(), ordered=rng.choice(["true", "false"]), reorder_window="'1 s'",
                       start_at="to_timestamp(%d)" % (begin // SECOND - rng.choice([0, 86400, 10 * 365 * 86400]))),
        ]

    def prepare(self, subscriber):
        options = "-c role=%s" % subscriber.owner if subscriber.owner else ""
        if subscriber.way == "push":
            self.insist(subscriber.handler(), ("42723",), options=options)
        self.insist("INSERT INTO public.control VALUES (%s)" % literal(subscriber.name), ("23505",))
        if "start_at" not in subscriber.options:
            subscriber.not_these = {r["batch_id"] for r in self.rows("SELECT batch_id FROM behavior.batch")}
        self.insist(subscriber.create(), ("42710",), options=options)
        subscriber.since = self.rows("SELECT extract(epoch FROM clock_timestamp()) AS now")[0]["now"]
        self.subscribers.append(subscriber)

    def rows(self, query):
        return self.server.patiently(lambda: self.server.rows(query))

    def insist(self, statement, done_before=(), **options):
        """Runs it until it is known to be done; "done_before": what it says when it had been done but nobody knew."""
        def once():
            try:
                return self.server.run(statement, **options)
            except Failed as failure:
                if failure.state in done_before and known[0]:
                    return ""
                known[0] = known[0] or failure.gone
                raise
        known = [False]
        return self.server.patiently(once)

    # --- consumers -----------------------------------------------------------------------------------------

    def consume(self, subscriber, number):
        """A consumer of a pull subscription, until all is drained."""
        rng = random.Random("consumer %s %d %d" % (subscriber.name, number, self.seed))
        one = self.receive if subscriber.way == "pull" else self.receive_visible
        while not self.drained.is_set():
            try:
                one(subscriber, rng)
            except Failed as failure:
                if not failure.gone:
                    self.problem("receive: " + str(failure)[:600])
                    return
                time.sleep(0.1)

    def receive(self, subscriber, rng):
        """The cursor moves with the transaction; one in four is rolled back."""
        self.server.psql(stdin=("BEGIN; INSERT INTO public.effect %s SELECT %s FROM behavior.receive(%s, %d, wait => '%d ms') d; %s;" % (
            EFFECT, OF_DELIVERY, literal(subscriber.name), rng.choice([1, 10, 100, 400]), rng.choice([0, 300]),
            rng.choice(["COMMIT", "COMMIT", "COMMIT", "ROLLBACK"]))).encode())

    def receive_visible(self, subscriber, rng):
        """At least once: some are acknowledged, some handed back, some forgotten."""
        name = literal(subscriber.name)
        got = self.server.run("""INSERT INTO public.received (subscription, source, event_id, delivery_id, attempt)
            SELECT d.subscription, (d.event).source, (d.event).event_id, d.delivery_id, d.attempt
            FROM behavior.receive(%s, %d, %s, '200 ms') d RETURNING delivery_id""" % (
                name, rng.choice([1, 10, 100]), rng.choice(["'1 s'", "'1 s'", "'5 s'"]))).split()
        if not got:
            return
        if rng.random() < 0.05:
            time.sleep(1.2)     # too late for some of them
        kept = [i for i in got if rng.random() < 0.85]
        back = [i for i in got if i not in kept and rng.random() < 0.7]
        self.server.psql(stdin=("""BEGIN; SELECT behavior.ack('{%s}'); INSERT INTO public.acked (subscription, delivery_id)
            SELECT %s, unnest('{%s}'::bigint[]); %s;""" % (
                ",".join(kept), name, ",".join(kept), rng.choice(["COMMIT"] * 9 + ["ROLLBACK"]))).encode())
        self.server.run("SELECT behavior.nack('{%s}', '%d ms')" % (",".join(back), rng.choice([0, 500])))

    # --- whoever alters subscriptions meanwhile --------------------------------------------------------------

    def operate(self, begin):
        rng = random.Random("operator %d" % self.seed)
        by_name = {s.name: s for s in self.subscribers}
        steps = [
            lambda: self.pause(by_name["paused"], rng),
            lambda: self.alter(by_name["altered"], rng),
            lambda: self.prepare(Subscriber("late_start", delivery_patterns.random_pattern(rng), batch_size=20,
                                            start_at="to_timestamp(%d)" % (begin // SECOND + 2))),
            lambda: self.prepare(Subscriber("fresh", delivery_patterns.random_pattern(rng), takes="event", batch_size=20)),
            lambda: self.drop(by_name["doomed"]),
            lambda: self.pause(by_name["ordered"], rng),
            lambda: self.alter(by_name["altered"], rng),
            lambda: self.pause(by_name["poison"], rng),
        ]
        rng.shuffle(steps)
        for step in steps:
            time.sleep(rng.random())
            step()

    def effects(self, name):
        return self.insist("SELECT count(*) FROM public.effect WHERE subscription = %s" % literal(name)).strip()

    def pause(self, subscriber, rng):
        name = literal(subscriber.name)
        self.insist("SELECT behavior.pause_subscription(%s)" % name)
        before = self.effects(subscriber.name)
        if not self.workers:
            self.insist("CALL behavior.tick()")
        time.sleep(0.3 + rng.random())
        if self.effects(subscriber.name) != before:
            self.problem("%s was delivered while it was paused" % subscriber.name)
        self.insist("SELECT behavior.resume_subscription(%s)" % name)

    def alter(self, subscriber, rng):
        if rng.random() < 0.5:
            subscriber.patterns.append(delivery_patterns.random_pattern(rng))
            change = "pattern => %s" % literal(json.dumps(subscriber.patterns[-1], ensure_ascii=False))
        else:
            change = "batch_size => %d, batch_window => '%d ms'" % (rng.choice([1, 30]), rng.choice([0, 200]))
        self.insist("SELECT behavior.alter_subscription(%s, %s)" % (literal(subscriber.name), change))

    def drop(self, subscriber):
        identity = self.insist("SELECT subscription_id FROM behavior._subscription WHERE name = %s" % literal(subscriber.name)).strip()
        self.insist("SELECT behavior.drop_subscription(%s)" % literal(subscriber.name), ("42704",))
        subscriber.dropped = True
        before = self.effects(subscriber.name)
        time.sleep(1)
        if self.effects(subscriber.name) != before:
            self.problem("%s was delivered after it was dropped" % subscriber.name)
        self.left_behind = identity

    # --- the end -------------------------------------------------------------------------------------------

    def drain(self):
        """Until nothing waits; without workers by tick()."""
        end = time.monotonic() + PATIENCE
        calm = 0
        while calm < 2:
            if time.monotonic() > end:
                self.problem("not delivered after %d s: %s" % (PATIENCE, self.server.run(
                    "SELECT name, state, lag_events, failed, dead_letters, last_error FROM behavior.subscription WHERE lag_events > 0",
                    "SELECT subscription_id, state, count(*), min(due_at), max(attempts) FROM behavior._delivery GROUP BY 1, 2")))
                return False
            if not self.workers:
                self.server.patiently(lambda: self.server.run("CALL behavior.tick()"))
            calm = calm + 1 if self.server.patiently(lambda: self.server.value(WAITING)) == "0" else 0
            time.sleep(0.2)
        return True

    def keys(self, query):
        return collections.Counter((r["source"], r["event_id"]) for r in self.server.rows(query))

    def check(self):
        """Effects, acknowledgements and dead letters of every subscription against the log."""
        log = self.rows("SELECT source, event_id, type, properties, batch_id, extract(epoch FROM received_at) AS received, "
                        "extract(epoch FROM occurred_at) AS at FROM behavior.event")
        starts = {r["name"]: r["at"] for r in self.rows("SELECT name, extract(epoch FROM start_at) AS at FROM behavior._subscription")}
        self.delivered = {}
        for s in self.subscribers:
            effects = self.keys("SELECT source, event_id FROM public.%s WHERE subscription = %s" % (
                "received JOIN public.acked USING (subscription, delivery_id)" if s.way == "visible" else "effect", literal(s.name)))
            if s.way == "visible":
                effects = collections.Counter(set(effects))     # two consumers may have acknowledged at the same time
            dead = self.keys("SELECT source, event_id FROM behavior.dead_letter WHERE stage = 'delivery' AND redriven_at IS NULL "
                             "AND projection = %s" % literal(s.name))
            must, may = set(), set()
            for row in log:
                certain, possible = s.wants(row)
                if "start_at" in s.options:
                    certain = possible = certain and row["at"] >= starts[s.name]
                else:
                    # From now on: what was to be seen before is not delivered, what was sent after is.
                    certain = certain and row["received"] > s.since
                    possible = possible and row["batch_id"] not in s.not_these
                if certain:
                    must.add((row["source"], row["event_id"]))
                if possible:
                    may.add((row["source"], row["event_id"]))
            s.dead = {key for key in must if s.fails and is_poison(key[1]) and not s.mended}
            if s.dropped:
                s.dead, must = set(), set()
            found = effects + dead
            self.say_wrong(s.name, "took effect twice", [key for key, n in effects.items() if n > 1])
            self.say_wrong(s.name, "is lost", must - set(found))
            self.say_wrong(s.name, "is too much", set(found) - may)
            self.say_wrong(s.name, "is no dead letter", s.dead - set(dead))
            self.say_wrong(s.name, "is a dead letter", set(dead) - s.dead)
            self.say_wrong(s.name, "is a dead letter twice", [key for key, n in dead.items() if n > 1])
            self.delivered[s.name] = len(effects)
            if s.ordered:
                self.check_order(s)
            if not s.dropped:
                self.check_counts(s, len(effects), len(dead))

    def say_wrong(self, name, what, keys):
        if keys:
            self.problem("%s: %d events, of which each %s, as %s" % (name, len(keys), what, sorted(keys)[:3]))

    def check_counts(self, s, delivered, dead):
        row = self.server.rows("SELECT * FROM behavior.subscription WHERE name = %s" % literal(s.name))[0]
        if row["matched"] != row["delivered"] + row["dead_letters"] + row["lag_events"] or row["lag_events"] != 0 or \
                row["delivered"] != delivered or row["dead_letters"] != dead:
            self.problem("%s: matched %s, delivered %s, dead letters %s, waiting %s; found %d delivered, %d dead letters" % (
                s.name, row["matched"], row["delivered"], row["dead_letters"], row["lag_events"], delivered, dead))
        if s.ordered and not s.fails:
            late = self.server.value("SELECT count(*) FROM public.effect WHERE late AND subscription = %s" % literal(s.name))
            if str(row["late"]) != late:
                self.problem("%s: counts %s late events, delivered %s" % (s.name, row["late"], late))

    def check_order(self, s):
        """In one order, but for late events; where some failed, in the order of each actor."""
        rows = self.server.rows("""SELECT source, event_id, actor, occurred_at, (extract(epoch FROM occurred_at) * 1000000)::bigint AS us, sequence
            FROM public.effect WHERE subscription = %s AND NOT late AND n <= %d ORDER BY n""" % (literal(s.name), self.before_redrive))
        last = {}
        for row in rows:
            actor = (row["source"], row["actor"]) if s.fails else None
            if s.fails and row["actor"] is None:
                continue
            place = (row["us"], row["sequence"] is not None, row["sequence"] or 0, row["event_id"].encode(), row["source"].encode())
            if actor in last and place < last[actor]:
                self.problem("%s: %s came after a later one" % (s.name, row))
                return
            last[actor] = place

    def check_patterns(self):
        """Each pattern by itself, asked in SQL, says what the router said of all together."""
        log = self.rows("SELECT source, event_id, type, properties FROM behavior.event")
        for s in self.subscribers:
            for pattern in s.patterns:
                self.compare("pattern %s" % json.dumps(pattern, ensure_ascii=False), """SELECT source, event_id FROM behavior.event e
                    WHERE behavior.event_matches(%s, behavior.event_json(e))""" % literal(json.dumps(pattern, ensure_ascii=False)),
                             [{"source": row["source"], "event_id": row["event_id"]} for row in log
                              if naive_pattern.matches(delivery_patterns.parsed(pattern), delivery_patterns.event_json(row))])

    def check_rest(self):
        """What is not about one subscription."""
        # What a handler was given is what the log has; tick_id and the like are filled in.
        self.equal("events as delivered", "SELECT count(*) FROM public.effect x JOIN behavior.event e USING (source, event_id) "
                   "WHERE x.event <> to_jsonb(e)", 0)
        # Nobody gets what he has acknowledged.
        self.equal("acknowledged, and received again", """SELECT count(*) FROM public.received r JOIN (SELECT delivery_id, min(n) AS n
            FROM public.acked GROUP BY 1) a USING (delivery_id) WHERE r.n > a.n""", 0)
        self.equal("delivery ids", "SELECT count(*) FROM (SELECT delivery_id FROM public.received GROUP BY 1 "
                   "HAVING count(DISTINCT (source, event_id)) > 1) x", 0)
        # Events that handlers send have no id of their own that could hide a repetition.
        self.compare("receipts", "SELECT properties->>'of' AS of, properties->>'in' AS source FROM behavior.event WHERE type = 'Receipt'",
                     self.rows("SELECT event_id AS of, source FROM public.effect WHERE subscription = 'chain'"))
        self.equal("echoes", "SELECT count(*) || ' ' || max(hops) FROM behavior.log WHERE type = 'Echo'", "%d 4" % (ECHOES * 5))
        self.equal("echoes that went on for too long", "SELECT count(*) FROM behavior.dead_letter WHERE reason = 'loop'", ECHOES)
        self.equal("left by the dropped one", "SELECT (SELECT count(*) FROM behavior._delivery_chunk WHERE subscription_id = %s) + "
                   "(SELECT count(*) FROM behavior._subscription_progress WHERE subscription_id = %s)" % (
                       self.left_behind, self.left_behind), 0)
        self.equal("dead letters of other reasons", "SELECT count(*) FROM behavior.dead_letter WHERE stage = 'delivery' AND "
                   "(reason <> 'handler_error' OR attempts IS NULL OR detail IS NULL)", 0)
        self.equal("waits", "SELECT count(*) FROM behavior._delivery_chunk", 0)
        self.equal("verify()", "SELECT count(*) FROM behavior.verify()", 0)

    def redrive(self):
        """The handlers are mended; two sessions redrive the same letters, and a process is killed meanwhile."""
        self.insist("UPDATE public.control SET mended = true")
        for s in self.subscribers:
            s.mended = True
        threads = []
        for s in self.subscribers:
            if s.fails:
                redrive = "SELECT count(*) FROM behavior.redrive(projection => %s)" % literal(s.name)
                threads += [self.thread(lambda q=redrive: self.insist(q)) for _ in range(2)]
        if self.workers:
            threads.append(self.thread(self.chaos, 1))
        for thread in threads:
            thread.join()

    def run(self):
        try:
            return self.run_all()
        finally:
            self.done.set()
            self.drained.set()

    def run_all(self):
        begin = time.monotonic()
        self.server.run("CREATE DATABASE oracle", database="postgres")
        self.server.run("CREATE EXTENSION behavior")
        self.server.psql(stdin=TABLES.encode())
        self.server.run("GRANT EXECUTE ON FUNCTION behavior.create_subscription TO consumer")
        items, start = self.make_traffic()
        # Events that were there before anybody asked for them.
        before = len(items) // 5
        for thread in self.send_all(items[:before], connections=2):
            thread.join()
        self.server.run("CALL behavior.tick()")
        for subscriber in self.chosen_subscribers(start):
            self.prepare(subscriber)
        self.server.run("CALL behavior.tick()")
        self.server.run("INSERT INTO behavior.event (event_id, type) SELECT 'echo' || i, 'Echo' FROM generate_series(1, %d) i" % ECHOES)

        consumers = [self.thread(self.consume, s, i) for s in self.subscribers if s.way != "push" for i in range(2)]
        senders = self.send_all(items[before:], connections=3)
        others = [self.thread(self.operate, start), self.thread(self.chaos, 3 + self.count // 3000)]
        ticker = None if self.workers else self.thread(self.tick)
        for thread in senders + others[:1]:
            thread.join()
        self.done.set()
        for thread in others + ([ticker] if ticker else []):
            thread.join()
        self.server.patiently(lambda: self.server.value("SELECT 1"))
        good = not self.problems and self.drain()
        if good:
            self.before_redrive = int(self.server.value("SELECT coalesce(max(n), 0) FROM public.effect"))
            self.check()
            first = dict(self.delivered)
            dead = sum(len(s.dead) for s in self.subscribers)
            self.done.clear()
            self.redrive()
            good = not self.problems and self.drain()
        self.drained.set()
        for thread in consumers:
            thread.join()
        if not good:
            return False
        self.check()
        self.checked = {}
        self.check_patterns()
        self.check_rest()
        self.say("%d deliveries of %d subscriptions, %d dead letters redriven, %s, %s, %.1f s: %s" % (
            sum(first.values()), len(self.subscribers), dead, "with workers" if self.workers else "without preload",
            ", ".join("%d %s" % (n, k) for k, n in sorted(self.kills.items())), time.monotonic() - begin,
            "%d WRONG" % len(self.problems) if self.problems else "each once"))
        return not self.problems

    def tick(self):
        """Without the library preloaded, somebody has to call this."""
        while not self.done.wait(0.3):
            try:
                self.server.run("CALL behavior.tick()")
            except Failed as failure:
                if not failure.gone and failure.state != "40P01":
                    self.problem("tick: " + str(failure)[:600])


if __name__ == "__main__":
    main(__doc__, Delivery, 3000)

#!/usr/bin/env python3
"""Makes traffic of a web shop: visits with a login in the middle, several sources, ties, odd characters,
events that come late, twice or broken.  The same seed makes the same events.

    generate.py --seed 1 --events 1000          JSON lines, in the order in which they arrive
"""
import argparse
import datetime
import random
import sys

from events import as_json, dumps, event, microseconds

SECOND = 1000000
MINUTE = 60 * SECOND
DAY = 86400 * SECOND

PAGES = ["/", "/about", "/blog", "/blog/première", "/cart", "/checkout", "/search?q=%20tea", "/péché\\mignon",
         "/\u65e5\u672c\u8a9e", "/quote\"d", "/tab\there", "/\U0001f600", "/a'b"]
PRODUCTS = ["tea-%02d" % i for i in range(20)]
CAMPAIGNS = ["spring", "søndag", "retarget"]
SOURCES = ["default", "default", "app", "shop.eu", "Läden"]


def default_until():
    now = datetime.datetime.now(datetime.timezone.utc)
    return microseconds(now.replace(hour=0, minute=0, second=0, microsecond=0))


class Generator:
    def __init__(self, seed, until=None, days=2):
        self.rng = random.Random(seed)
        self.seed = seed
        self.until = until if until is not None else default_until()
        self.days = days
        self.number = 0

    def next_id(self):
        rng = self.rng
        self.number += 1
        # Ids whose order depends on the collation, and one in a while as long as it may be.
        prefix = rng.choice(["e", "E", "_", "é", "Z", "z-", "10", "9"])
        name = "%s%d-%d" % (prefix, self.seed, self.number)
        if rng.random() < 0.002:
            name += "x" * (255 - len(name.encode()))
        return name

    def start(self):
        rng = self.rng
        if rng.random() < 0.02:
            # A wrong clock: anywhere in thirty years.
            return self.until - rng.randrange(1, 30 * 365) * DAY - rng.randrange(DAY)
        return self.until - rng.randrange(1, self.days * DAY)

    def visit(self, visitor):
        """Events of one visit."""
        rng = self.rng
        source, anonymous, user = visitor
        at = self.start()
        logged_in = anonymous is None or rng.random() < 0.2
        sequence = rng.choice([None, 1])
        first = True
        for _ in range(min(40, 1 + int(rng.expovariate(0.3)))):
            properties = {}
            context = None
            if first and rng.random() < 0.3:
                campaign = {"utm_source": rng.choice(["mail", "search"]), "utm_campaign": rng.choice(CAMPAIGNS)}
                if rng.random() < 0.5:
                    properties.update(campaign)
                else:
                    context = {"campaign": campaign}
            if rng.random() < 0.1:
                context = dict(context or {}, device=rng.choice(["phone", "desktop"]))
            kind = rng.random()
            if not logged_in and user and kind < 0.08:
                type = "identify"
                logged_in = True
            elif kind < 0.6:
                type = "PageView"
                properties[rng.choice(["page", "page", "path", "url"])] = rng.choice(PAGES)
            elif kind < 0.85:
                type = "Click"
                properties["item"] = rng.choice(PRODUCTS)
                if rng.random() < 0.2:
                    properties["page"] = rng.choice(PAGES)
            else:
                type = "Purchase"
                properties["item"] = rng.choice(PRODUCTS)
                # Now and then a number that is none.
                properties["quantity"] = rng.choice([1, 2, 3, "4", 1.5, "many"]) if rng.random() < 0.2 \
                    else rng.randrange(1, 9)
                properties["price"] = rng.choice([1.10, 2.25, "3.30", 1e3, 0.1, 19.999])
            if rng.random() < 0.05:
                properties["note"] = rng.choice(["back\\slash", "line\nbreak", "\\.", "\\N", "a,b;\"c\"", "\u2028",
                                                 {"deep": [1, {"er": None}]}, True, None, ""])
            yield self.wrap(event(self.next_id(), type, at, source, user if logged_in else None, anonymous,
                                  sequence, properties, context))
            first = False
            if sequence is not None:
                sequence += 1
            # Gaps around the session timeout, exactly on it, and none at all.
            at += rng.choice([0, 1, SECOND, rng.randrange(MINUTE), rng.randrange(MINUTE), rng.randrange(10 * MINUTE),
                              rng.choice([30 * MINUTE, 30 * MINUTE + 1, 30 * MINUTE - 1, 50 * MINUTE])])
            # Nothing beyond the end: it could lie in the future.
            at = min(at, self.until)

    def wrap(self, e):
        """Chooses the envelope that the event travels in, and makes it fit in there."""
        rng = self.rng
        form = rng.choice(["native"] * 4 + ["segment", "cloudevents", "eventbridge"])
        properties = e["properties"]
        if form == "segment":
            if e["user_id"] is None and e["anonymous_id"] is None:
                return e
            e["source"] = "default"
            e["sequence"] = None
        elif form == "cloudevents":
            if e["anonymous_id"] is not None:
                properties["anonymousId"] = e["anonymous_id"]
            if e["user_id"] is not None and rng.random() < 0.5:
                properties["userId"] = e["user_id"]
            e["context"] = None
        elif form == "eventbridge":
            properties[rng.choice(["event_id", "eventId", "idempotency_key"])] = e["event_id"]
            if e["anonymous_id"] is not None:
                properties["anonymousId"] = e["anonymous_id"]
            if e["user_id"] is not None:
                if rng.random() < 0.5:
                    properties["userId"] = e["user_id"]
                else:
                    properties["customer"] = {"id": e["user_id"]}
            if e["sequence"] is not None:
                properties["sequence"] = e["sequence"]
            e["context"] = None
        e["form"] = form
        return e

    def events(self, count):
        """So many events, each once, by visit."""
        rng = self.rng
        visitors = []
        for i in range(max(3, count // 25)):
            source = rng.choice(SOURCES)
            anonymous = "device-%d" % i if rng.random() < 0.9 else None
            user = "user-%d" % rng.randrange(1 + count // 50) if rng.random() < 0.5 else None
            if anonymous is None and user is None and rng.random() < 0.7:
                user = "7" * rng.randrange(1, 5)
            visitors.append((source, anonymous, user))
        out = []
        while len(out) < count:
            out.extend(self.visit(rng.choice(visitors)))
        return out[:count]

    def conflict(self, e):
        """The same key with another payload."""
        rng = self.rng
        other = dict(e, properties=dict(e["properties"]))
        change = rng.randrange(3)
        if change == 0:
            other["type"] = e["type"] + "!"
        elif change == 1:
            other["occurred_at"] = e["occurred_at"] - 1
        else:
            other["properties"]["changed"] = True
        other["form"] = "native"
        return other

    def broken_json(self, number):
        """(line, reason): a line for the inbox that makes one dead letter."""
        name = "broken-%d-%d" % (self.seed, number)
        good = {"event_id": name, "type": "PageView", "user_id": "u"}
        lines = [
            ('{"event_id": "%s", "type": "PageView"' % name, "malformed_json"),
            ('{"event_id": "%s", "type": "Page\\qView"}' % name, "malformed_json"),
            ('{"event_id": "%s", "type": PageView}' % name, "malformed_json"),
            ('%s, this is a log line' % name, "malformed_json"),
            ('"%s"' % name, "not_an_object"),
            (dumps(dict(good, properties=[1])), "not_an_object"),
            (dumps(dict(good, colour="red")), "unknown_field"),
            (dumps({"event_id": name, "user_id": "u"}), "missing_field"),
            (dumps({"event_id": "", "type": "PageView", "user_id": name}), "missing_field"),
            (dumps(dict(good, type=["PageView"])), "invalid_type"),
            (dumps(dict(good, sequence="first")), "invalid_type"),
            (dumps(dict(good, occurred_at="yesterday evening")), "invalid_timestamp"),
            (dumps(dict(good, occurred_at="2024-02-30T00:00:00Z")), "invalid_timestamp"),
            (dumps(dict(good, occurred_at="2999-01-01T00:00:00Z")), "in_future"),
            (dumps(dict(good, user_id="u" * 256)), "too_large"),
            (dumps(dict(good, properties={"blob": "x" * 300000})), "too_large"),
            ('{"event_id": "%s", "type": "PageView", "properties": {"a": "\\u0000"}}' % name, "unstorable"),
            ('{"event_id": "%s", "type": "PageView", "properties": {"a": "\\ud800"}}' % name, "unstorable"),
        ]
        line, reason = self.rng.choice(lines)
        return line, reason, name

    def broken_row(self, number):
        """(columns, reason): a row for behavior.event that makes one dead letter."""
        rng = self.rng
        name = "row-%d-%d" % (self.seed, number)
        good = event(name, "PageView", self.until - DAY, user_id="u")
        change, reason = rng.choice([
            ({"type": ""}, "missing_field"),
            ({"type": None}, "missing_field"),
            ({"event_id": "", "user_id": name}, "missing_field"),
            ({"user_id": "é" * 128}, "too_large"),
            ({"properties": [name]}, "not_an_object"),
            ({"occurred_at": self.until + 400 * DAY}, "in_future"),
        ])
        good.update(change)
        return good, reason, name


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--events", type=int, default=1000)
    arguments = parser.parse_args()
    generator = Generator(arguments.seed)
    rng = generator.rng
    arrivals = []
    for e in generator.events(arguments.events):
        delay = rng.randrange(3 * SECOND) if rng.random() < 0.97 else rng.randrange(6 * 3600 * SECOND)
        arrivals.append((e["occurred_at"] + delay, as_json(e, rng)))
        if rng.random() < 0.03:
            arrivals.append((e["occurred_at"] + delay + rng.randrange(MINUTE), as_json(e, rng, retry=1)))
    for i in range(arguments.events // 200):
        arrivals.append((rng.choice(arrivals)[0], generator.broken_json(i)[0]))
    for _, line in sorted(arrivals):
        sys.stdout.write(line + "\n")


if __name__ == "__main__":
    main()

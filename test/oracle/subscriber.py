"""Subscriptions of the delivery oracle: how each is made, what its handler does, and which events it must get.

A handler writes what it was given into public.effect, which has no unique constraint: an event that took effect twice
stands there twice.  It raises after that, when it does, so that what is rolled back would show as well.
"""
import json

from doors import literal
from naive_pattern import matches
from delivery_patterns import event_json, parsed

# Events whose handler raises, and hangs, until public.control says that it is mended.
POISON = ("13", "57")
HANGS = "901"

TABLES = """
CREATE TABLE public.effect (n bigint GENERATED ALWAYS AS IDENTITY, subscription text, source text, event_id text, actor text,
    occurred_at timestamptz, sequence bigint, late boolean, attempt int, delivery_id bigint, event jsonb,
    at timestamptz DEFAULT clock_timestamp());
CREATE SEQUENCE public.moment;
CREATE TABLE public.received (n bigint DEFAULT nextval('public.moment'), subscription text, source text, event_id text,
    delivery_id bigint, attempt int);
CREATE TABLE public.acked (n bigint DEFAULT nextval('public.moment'), subscription text, delivery_id bigint);
CREATE TABLE public.control (subscription text PRIMARY KEY, mended boolean NOT NULL DEFAULT false);
CREATE ROLE consumer;
GRANT INSERT ON public.effect TO consumer;
GRANT SELECT ON public.control, behavior.event TO consumer;
GRANT CREATE ON SCHEMA public TO consumer;
"""

EFFECT = "(subscription, source, event_id, actor, occurred_at, sequence, late, attempt, delivery_id, event)"
OF_DELIVERY = """d.subscription, (d.event).source, (d.event).event_id, (d.event).actor, (d.event).occurred_at,
    (d.event).sequence, d.late, d.attempt, d.delivery_id, to_jsonb(d.event)"""
OF_EVENT = """%s, d.source, d.event_id, d.actor, d.occurred_at, d.sequence, NULL, NULL, NULL, to_jsonb(d) - 'ordinality'"""


def is_poison(event_id):
    return event_id.endswith(POISON) or event_id.endswith(HANGS)


class Subscriber:
    """One subscription.  Options are arguments of create_subscription() as SQL text."""

    def __init__(self, name, pattern, way="push", takes="delivery", fails=False, flaky=0.0, emits=None, owner=None,
                 **options):
        self.name = name
        self.patterns = [pattern]       # all that it ever had
        self.way = way                  # push, pull, or visible: receive() with a visibility timeout
        self.takes = takes
        self.fails = fails              # poison events make the handler raise
        self.flaky = flaky              # and any call does, with this probability
        self.emits = emits              # the type of an event that is sent for each
        self.owner = owner
        self.options = options
        self.dropped = False
        self.mended = False
        self.dead = set()               # keys of dead letters, once it is known

    @property
    def ordered(self):
        return self.options.get("ordered") == "true"

    def handler(self):
        """The statement that makes the handler."""
        if self.takes == "delivery":
            select, event = OF_DELIVERY, "(d.event)"
        else:
            select, event = OF_EVENT % literal(self.name), "d"
        given = "FROM unnest(events) WITH ORDINALITY d"
        body = ["INSERT INTO public.effect %s SELECT %s %s ORDER BY d.ordinality;" % (EFFECT, select, given)]
        if self.emits:
            body.append("INSERT INTO behavior.event (type, source, user_id, properties) SELECT %s, 'handler', 'nobody',"
                        " jsonb_build_object('of', %s.event_id, 'in', %s.source) %s;" % (
                            literal(self.emits), event, event, given))
        if self.fails:
            body.append("ids := ARRAY(SELECT %s.event_id %s);" % (event, given))
            body.append("IF NOT (SELECT mended FROM public.control WHERE subscription = %s) THEN" % literal(self.name))
            body.append("IF EXISTS (SELECT FROM unnest(ids) id WHERE id LIKE '%%%s') THEN PERFORM pg_sleep(60); END IF;" % HANGS)
            for ending in POISON:
                body.append("IF EXISTS (SELECT FROM unnest(ids) id WHERE id LIKE '%%%s') THEN RAISE 'poison'; END IF;" % ending)
            body.append("END IF;")
        if self.flaky:
            body.append("IF random() < %f THEN RAISE 'flaky' USING ERRCODE = '40001'; END IF;" % self.flaky)
        return ("CREATE FUNCTION public.handle_%s(events behavior.%s[]) RETURNS void LANGUAGE plpgsql AS $body$\n"
                "DECLARE ids text[]; BEGIN\n%s\nEND $body$" % (self.name, self.takes, "\n".join(body)))

    def create(self):
        """The statement that makes it; its handler exists."""
        options = dict(self.options)
        if self.way == "push":
            options["handler"] = literal("public.handle_" + self.name)
        return "SELECT behavior.create_subscription(%s, %s%s)" % (
            literal(self.name), literal(json.dumps(self.patterns[0], ensure_ascii=False)),
            "".join(", %s => %s" % item for item in options.items()))

    def wants(self, row):
        """(certainly, possibly): by each pattern that it had, by any."""
        event = event_json(row)
        found = [matches(parsed(pattern), event) for pattern in self.patterns]
        return all(found), any(found)

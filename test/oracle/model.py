"""What the tables must hold, computed from the raw events alone.

Shares no code with the extension: it is written from the documentation.
"""
import collections
import decimal
import json
import re
import uuid

MINUTE = 60 * 1000000
TIMEOUT = 30 * MINUTE
PAGES = ("page", "path", "url")
ENTRY = ("utm_source", "utm_medium", "utm_campaign", "utm_term", "utm_content", "referrer")
IGNORED = ("identify", "group", "alias")
# The namespace of session ids.
NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "behavior.session")
NUMBER = re.compile(r"^\s*[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?\s*$")


def normal(value):
    """JSON with exact numbers: 1.50 and 1.5 are one value, as in jsonb."""
    return json.loads(json.dumps(value), parse_float=decimal.Decimal, parse_int=decimal.Decimal)


def normal_row(row):
    return {k: normal(v) if isinstance(v, (dict, list, float)) else v for k, v in row.items()}


def frozen(value):
    """A hashable form in which equal values are equal."""
    if isinstance(value, dict):
        return ("{}",) + tuple(sorted((k, frozen(v)) for k, v in value.items()))
    if isinstance(value, list):
        return ("[]",) + tuple(frozen(v) for v in value)
    if isinstance(value, bool) or value is None:
        return (str(value),)
    if isinstance(value, (int, float)):
        return decimal.Decimal(str(value))
    return value


def text_of(properties, name):
    """properties->>name"""
    value = properties.get(name)
    if value is None:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float, decimal.Decimal)):
        return str(decimal.Decimal(str(value)))
    return value if isinstance(value, str) else json.dumps(value)


def number(text):
    """behavior.try_numeric() of what occurs here"""
    return decimal.Decimal(text.strip()) if text is not None and NUMBER.match(text) else None


def order(e):
    """The one order of events; UTF-8 bytes are what COLLATE "C" compares."""
    return (e["occurred_at"], e["sequence"] is not None, e["sequence"] or 0, e["event_id"].encode())


def visitor(e):
    return e["anonymous_id"] if e["anonymous_id"] is not None else e["user_id"]


def actor(e):
    return e["user_id"] if e["user_id"] is not None else e["anonymous_id"]


def accepted(events):
    """The events that are stored: the first of each key.  All with one key are equal here."""
    out = {}
    for e in events:
        out.setdefault((e["source"], e["event_id"]), e)
    return list(out.values())


def page_of(e):
    for name in PAGES:
        page = text_of(e["properties"], name)
        if page is not None:
            return page
    return None


def entry_of(e):
    campaign = (e["context"] or {}).get("campaign")
    for place in (e["properties"], campaign if isinstance(campaign, dict) else {}):
        found = {name: place[name] for name in ENTRY if place.get(name) is not None}
        if found:
            return found
    return None


def session_id(source, who, first):
    """The UUIDv5 of the netstrings of source, visitor and the first event's id."""
    return uuid.uuid5(NAMESPACE, "".join("%d:%s," % (len(s.encode()), s) for s in (source, who, first["event_id"])))


def sessions(events):
    """(rows of behavior.session, session_id by key of event)"""
    by_visitor = collections.defaultdict(list)
    for e in events:
        if visitor(e) is not None and e["type"] not in IGNORED:
            by_visitor[e["source"], visitor(e)].append(e)
    rows = []
    session_of = {}
    for (source, who), visits in by_visitor.items():
        visits.sort(key=order)
        runs = []
        for e in visits:
            if runs and e["occurred_at"] - runs[-1][-1]["occurred_at"] <= TIMEOUT:
                runs[-1].append(e)
            else:
                runs.append([e])
        for run in runs:
            first, last = run[0], run[-1]
            pages = [p for p in map(page_of, run) if p is not None]
            entries = [p for p in map(entry_of, run) if p is not None]
            users = [e["user_id"] for e in run if e["user_id"] is not None]
            identity = str(session_id(source, who, first))
            for e in run:
                session_of[e["source"], e["event_id"]] = identity
            rows.append({
                "session_id": identity, "source": source, "visitor": who, "user_id": users[-1] if users else None,
                "started_at": first["occurred_at"], "ended_at": last["occurred_at"],
                "duration": last["occurred_at"] - first["occurred_at"], "events": len(run),
                "page_views": len(pages), "entry_type": first["type"], "entry_page": pages[0] if pages else None,
                "exit_type": last["type"], "exit_page": pages[-1] if pages else None,
                "entry_properties": entries[0] if entries else None,
                "type_counts": dict(collections.Counter(e["type"] for e in run))})
    return rows, session_of


def grouped(events, key):
    groups = collections.defaultdict(list)
    for e in events:
        groups[key(e)].append(e)
    return groups


def least(values, pick=min):
    values = [v for v in values if v is not None]
    return pick(values) if values else None


def total(values):
    values = [v for v in values if v is not None]
    return sum(values, decimal.Decimal(0)) if values else None


def quantity(e):
    return text_of(e["properties"], "quantity")


def price(e):
    return number(text_of(e["properties"], "price"))


def pages_rollup(events):
    hour = 3600 * 1000000
    groups = grouped([e for e in events if e["type"] == "PageView"],
                     lambda e: (e["occurred_at"] - e["occurred_at"] % hour, page_of(e)))
    return [{"bucket": bucket, "page": page, "views": len(g),
             "known": sum(e["user_id"] is not None for e in g),
             "first": min(e["occurred_at"] for e in g), "last": max(e["occurred_at"] for e in g),
             "any_user": any(e["user_id"] is not None for e in g)}
            for (bucket, page), g in groups.items()]


def sales_rollup(events):
    groups = grouped([e for e in events if e["type"] == "Purchase"],
                     lambda e: (e["source"], text_of(e["properties"], "item")))
    rows = []
    for (source, item), g in groups.items():
        prices = [price(e) for e in g if price(e) is not None]
        amounts = [None if number(quantity(e)) is None or price(e) is None else number(quantity(e)) * price(e)
                   for e in g]
        rows.append({"source": source, "item": item, "purchases": len(g), "amount": total(amounts),
                     "dear": sum(p > 2 for p in prices), "price": total(prices) / len(prices) if prices else None,
                     "most": least(prices, max)})
    return rows


def total_rollup(events):
    return [{"events": len(events), "sequence": least((e["sequence"] for e in events), max),
             "people": sum(actor(e) is not None for e in events)}]


def quantity_rollup(events):
    """Raises on a quantity that is no number: those events are set aside, and only here."""
    groups = grouped([e for e in events if e["type"] == "Purchase" and
                      (quantity(e) is None or number(quantity(e)) is not None)], lambda e: e["source"])
    return [{"source": source, "quantity": total(number(quantity(e)) for e in g)} for source, g in groups.items()]


def set_aside(events):
    return sum(e["type"] == "Purchase" and quantity(e) is not None and number(quantity(e)) is None for e in events)


def activity(events):
    width = 5 * 1000000
    groups = grouped(events, lambda e: (e["occurred_at"] - e["occurred_at"] % width, e["source"], e["type"]))
    return [{"bucket": bucket, "source": source, "type": type, "events": len(g)}
            for (bucket, source, type), g in groups.items()]

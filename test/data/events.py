"""What generator and readers make: events as behavior.event has them, and their JSON forms.

An event is a dict with the columns event_id, source, type, user_id, anonymous_id, occurred_at
(microseconds since 1970), sequence, properties, context, and "form", the envelope it travels in as JSON.
"""
import datetime
import json

COLUMNS = ("event_id", "source", "type", "user_id", "anonymous_id", "occurred_at", "sequence",
           "properties", "context")
EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)


def event(event_id, type, occurred_at, source="default", user_id=None, anonymous_id=None, sequence=None,
          properties=None, context=None, form="native"):
    return {"event_id": event_id, "source": source, "type": type, "user_id": user_id,
            "anonymous_id": anonymous_id, "occurred_at": occurred_at, "sequence": sequence,
            "properties": properties if properties is not None else {}, "context": context,
            "form": form}


def microseconds(moment):
    """Microseconds since 1970 of a datetime with a time zone, exactly."""
    delta = moment - EPOCH
    return (delta.days * 86400 + delta.seconds) * 1000000 + delta.microseconds


def timestamp(us):
    """RFC 3339, in UTC."""
    moment = EPOCH + datetime.timedelta(microseconds=us)
    text = moment.strftime("%Y-%m-%dT%H:%M:%S")
    if us % 1000000:
        text += ".%06d" % (us % 1000000)
    return text.rjust(len(text), "0") + "Z"


def dumps(value, rng=None):
    """JSON in one line; sometimes with escapes instead of characters when there is an rng."""
    escape = rng is not None and rng.random() < 0.3
    return json.dumps(value, ensure_ascii=escape, separators=(",", ":"))


def as_json(e, rng=None, retry=None):
    """The event as its producer would send it; retry: an attempt number that says nothing about the event."""
    form = e["form"]
    if form == "native":
        out = {k: e[k] for k in COLUMNS if e[k] is not None}
        out["occurred_at"] = timestamp(e["occurred_at"])
        if retry is not None:
            out["context"] = dict(e["context"] or {}, attempt=retry)
    elif form == "segment":
        out = {"type": "track", "event": e["type"], "messageId": e["event_id"],
               "userId": e["user_id"], "anonymousId": e["anonymous_id"],
               "timestamp": timestamp(e["occurred_at"]), "properties": e["properties"],
               "context": dict(e["context"] or {}, library={"name": "analytics.js"})}
        if retry is not None:
            out["sentAt"] = timestamp(e["occurred_at"] + retry * 1000000)
        out = {k: v for k, v in out.items() if v is not None}
    elif form == "cloudevents":
        out = {"specversion": "1.0", "id": e["event_id"], "source": e["source"], "type": e["type"],
               "time": timestamp(e["occurred_at"]), "datacontenttype": "application/json",
               "data": e["properties"]}
        if e["sequence"] is not None:
            out["sequence"] = e["sequence"]
        if e["user_id"] is not None and "userId" not in e["properties"]:
            out["subject"] = e["user_id"]
    elif form == "eventbridge":
        # The service gives a new id on every call.
        out = {"version": "0", "id": "%032x" % (rng.getrandbits(128) if rng else 0),
               "detail-type": e["type"], "source": e["source"], "account": "123456789012",
               "time": timestamp(e["occurred_at"]), "region": "eu-central-1", "resources": [],
               "detail": e["properties"]}
    else:
        raise ValueError(form)
    if rng is not None and rng.random() < 0.5:
        items = list(out.items())
        rng.shuffle(items)
        out = dict(items)
    return dumps(out, rng)

"""Random patterns of which a good part of the delivery oracle's events match some, and events for them."""
import decimal
import json

from naive_pattern import Number

ACTIONS = ("PageView", "Click", "Purchase", "identify")


def numbered(value):
    """With the numbers that naive_pattern takes."""
    if isinstance(value, dict):
        return {k: numbered(v) for k, v in value.items()}
    if isinstance(value, list):
        return [numbered(v) for v in value]
    return Number(str(value)) if isinstance(value, decimal.Decimal) else value


def parsed(pattern):
    return json.loads(json.dumps(pattern), parse_int=Number, parse_float=Number)


def event_json(row):
    """What a pattern sees of a row of behavior.event, as far as the patterns below look."""
    return {"source": row["source"], "detail-type": row["type"], "detail": numbered(row["properties"])}


def random_pattern(rng):
    """Something that a good part of the oracle's events match."""
    detail_choices = [
        {"item": [{"prefix": "tea-0"}]},
        {"item": ["tea-01", "tea-02", {"suffix": "9"}]},
        {"item": [{"wildcard": "t*-1*"}, {"exists": False}]},
        {"item": [{"exists": True}]},
        {"page": [{"anything-but": ["/", "/about", "/cart"]}]},
        {"page": [{"exists": False}]},
        {"page": [{"equals-ignore-case": "/ABOUT"}, {"prefix": "/b"}, {"exists": False}]},
        {"amount": [{"numeric": [">", 10, "<=", 60.5]}]},
        {"amount": [{"numeric": ["<", 30]}, 77]},
        {"amount": [{"anything-but": [1, 2, 3]}]},
        {"flag": [True, None]},
        {"flag": [{"anything-but": "yes"}]},
        {"tags": ["red", {"prefix": "bl"}]},
        {"tags": [{"anything-but": "red"}, {"exists": False}]},
        {"who": {"country": ["de", "fr"], "age": [{"numeric": [">=", 30]}]}},
        {"$or": [{"who": {"country": ["de"]}}, {"tags": ["green"]}, {"amount": [{"numeric": ["<=", 5]}]}]},
    ]
    pattern = {}
    if rng.random() < 0.4:
        pattern["detail-type"] = rng.sample(ACTIONS, rng.randrange(1, 4))
    if rng.random() < 0.3:
        pattern["source"] = rng.choice([["default", "app"], [{"anything-but": "app"}], [{"prefix": "s"}, "Läden", "default"]])
    if rng.random() < 0.7 or not pattern:
        pattern["detail"] = dict(rng.choice(detail_choices))
    return pattern


def add_properties(rng, properties):
    """What the patterns above look at, in an event of the generator."""
    if rng.random() < 0.7:
        properties["amount"] = rng.choice([1, 2, 3, 5.0, 10, 12.5, 60.5, 77, 1e2, "12", rng.randrange(100)])
    if rng.random() < 0.5:
        properties["flag"] = rng.choice([True, False, None, "yes", "no"])
    if rng.random() < 0.5:
        properties["tags"] = rng.sample(["red", "green", "blue", "black", 7], rng.randrange(4))
    if rng.random() < 0.4:
        properties["who"] = {"country": rng.choice(["de", "fr", "it"]), "age": rng.randrange(80)}
        if rng.random() < 0.2:
            del properties["who"]["age"]

"""EventBridge event patterns, naively: an independent reading of doc/routing.md to compare the extension with.

Values are what JSON has: str, Number, True, False, None, list and dict.  Everything is tried in turn, nothing is
compiled, sorted for speed or remembered.
"""
import decimal
import ipaddress

RESERVED = ("exactly equals-ignore-case prefix suffix anything-but exists wildcard numeric cidr = < <= > >= regex not-wildcard "
            "not-equals-ignore-case date-after date-on-or-after date-before date-on-or-before in-date-range ip-address-in-range "
            "ip-address-not-in-range").split()


class Refused(Exception):
    pass


class Number:
    """A number with the text that it is written as."""

    def __init__(self, text):
        self.text = text
        self.value = decimal.Decimal(text)


def refuse_unless(condition, reason):
    if not condition:
        raise Refused(reason)


def dump(value):
    """As JSON."""
    if isinstance(value, Number):
        return value.text
    if isinstance(value, str):
        out = ""
        for c in value:
            out += "\\u%04x" % ord(c) if ord(c) < 32 or c in '"\\' else c
        return '"%s"' % out
    if isinstance(value, list):
        return "[%s]" % ", ".join(map(dump, value))
    if isinstance(value, dict):
        return "{%s}" % ", ".join("%s: %s" % (dump(k), dump(v)) for k, v in value.items())
    return {True: "true", False: "false", None: "null"}[value]


# Events

def leaves(value, path=None, where=()):
    """(path, value, {array: index}) of each scalar; an array is told by where it stands."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, key if path is None else path + "." + key, where + (key,))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            for p, v, m in leaves(inner, path, where + (index,)):
                yield p, v, dict(m, **{repr(where): index}) if isinstance(inner, (dict, list)) else m
    else:
        yield path, value, {}


# Patterns

def jsonb_order(key):
    return len(key.encode()), key.encode()


def utf16(text):
    return text.encode("utf-16-be")


def rules(pattern, path=None, depth=0):
    """All conjunctions: lists of (path, depth, alternatives)."""
    refuse_unless(isinstance(pattern, dict), "Filter is not an object")
    refuse_unless(pattern, "Empty objects are not allowed")
    out = [[]]
    for key in sorted(pattern, key=jsonb_order):
        value = pattern[key]
        if key == "$or":
            refuse_unless(isinstance(value, list) and len(value) > 1, "$or")
            more = []
            for branch in value:
                refuse_unless(isinstance(branch, dict), "$or")
                more += rules(branch, path, depth + 1)
        else:
            refuse_unless(depth == 0 or key not in RESERVED, "reserved")
            name = key if path is None else path + "." + key
            if isinstance(value, dict):
                more = rules(value, name, depth)
            else:
                refuse_unless(isinstance(value, list), "must be an object or an array")
                refuse_unless(value, "Empty arrays are not allowed")
                for alternative in value:
                    check(alternative)
                more = [[(name, depth, value)]]
        out = [a + b for a in out for b in more]
        refuse_unless(len(out) <= 1000, "too complex")
    return out


def fields(rule):
    """{path: alternatives}: of the same path the one inside more $or, else the last."""
    best = {}
    for path, depth, alternatives in rule:
        if path not in best or depth >= best[path][0]:
            best[path] = depth, alternatives
    return {path: alternatives for path, (_, alternatives) in best.items()}


def survives(number):
    try:
        binary = float(number.value)
    except OverflowError:
        return False
    return abs(binary) != float("inf") and decimal.Decimal(repr(binary)) == number.value


def only(value):
    refuse_unless(isinstance(value, dict) and len(value) == 1, "one key")
    return next(iter(value.items()))


def check(alternative):
    """Raises when an alternative is none."""
    refuse_unless(not isinstance(alternative, list), "Match value")
    if not isinstance(alternative, dict):
        return
    op, arg = only(alternative)
    if op in ("prefix", "suffix") and isinstance(arg, dict):
        inner, text = only(arg)
        refuse_unless(inner == "equals-ignore-case" and isinstance(text, str), op)
    elif op in ("exactly", "prefix", "suffix", "equals-ignore-case"):
        refuse_unless(isinstance(arg, str), op)
    elif op == "wildcard":
        pieces(arg)
    elif op == "exists":
        refuse_unless(isinstance(arg, bool), op)
    elif op == "cidr":
        network(arg)
    elif op == "numeric":
        check_numeric(arg)
    elif op == "anything-but":
        if isinstance(arg, dict):
            inner, texts = only(arg)
            texts = texts if isinstance(texts, list) else [texts]
            refuse_unless(inner in ("prefix", "suffix", "equals-ignore-case", "wildcard") and texts, op)
            for text in texts:
                refuse_unless(isinstance(text, str) and (text or inner not in ("prefix", "suffix")), op)
                check({inner: text})
        else:
            values = arg if isinstance(arg, list) else [arg]
            refuse_unless(values and (all(isinstance(v, str) for v in values) or all(isinstance(v, Number) for v in values)), op)
            refuse_unless(all(isinstance(v, str) or survives(v) for v in values), "Cannot compare number")
    else:
        raise Refused("Unrecognized match type")


def check_numeric(arg):
    refuse_unless(isinstance(arg, list) and len(arg) in (2, 4), "numeric")
    refuse_unless(all(isinstance(op, str) for op in arg[::2]), "operator")
    refuse_unless(all(isinstance(n, Number) and survives(n) for n in arg[1::2]), "number")
    if len(arg) == 2:
        refuse_unless(arg[0] in ("=", "<", "<=", ">", ">="), "operator")
    else:
        refuse_unless(arg[0] in (">", ">=") and arg[2] in ("<", "<="), "range")
        refuse_unless(arg[1].value < arg[3].value, "Bottom must be less than top")


def pieces(text):
    """A wildcard as a list of characters, None for an asterisk."""
    refuse_unless(isinstance(text, str), "wildcard")
    out = []
    escaped = False
    for c in text:
        if escaped:
            refuse_unless(c in "*\\", "escape")
            out.append(c)
            escaped = False
        elif c == "\\":
            escaped = True
        elif c == "*":
            refuse_unless(not out or out[-1] is not None, "consecutive")
            out.append(None)
        else:
            out.append(c)
    refuse_unless(not escaped, "escape")
    return out


def address(text):
    """An address, None when the text is none."""
    if not isinstance(text, str) or (":" in text and not set(text) <= set("0123456789abcdefABCDEF:")):
        return None
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def network(text):
    refuse_unless(isinstance(text, str) and text.count("/") == 1, "one '/'")
    ip, bits = text.split("/")
    refuse_unless(bits.lstrip("+-").isdecimal() and len(bits) < 9 and int(bits) >= 0, "bits")
    refuse_unless(address(ip) is not None, "address")
    refuse_unless(int(bits) < (32 if address(ip).version == 4 else 128), "bits")
    return ipaddress.ip_network("%s/%d" % (ip, int(bits)), strict=False)


# Matching

def glob(wanted, text):
    """Both lists of characters: which prefixes of the pattern can end here?"""
    states = {0}
    if wanted and wanted[0] is None:
        states.add(1)
    for c in text:
        after = set()
        for s in states:
            if s < len(wanted) and wanted[s] is None:
                after.add(s)
            elif s < len(wanted) and wanted[s] == c:
                after.add(s + 1)
            if s > 0 and wanted[s - 1] is None:
                after.add(s)
        for s in list(after):
            if s < len(wanted) and wanted[s] is None:
                after.add(s + 1)
        states = after
    return len(wanted) in states


def accepted_forms(text):
    """All strings that the text accepts without regard to case."""
    out = [""]
    for c in text:
        forms = {c.lower(), c.upper()} if ord(c) < 0x10000 else {c}
        out = [a + b for a in out for b in forms]
    return out


def accepts(alternative, value):
    if isinstance(alternative, str):
        if address(alternative) is not None:
            return isinstance(value, str) and address(value) == address(alternative)
        return isinstance(value, str) and value == alternative
    if isinstance(alternative, Number):
        return isinstance(value, Number) and value.value == alternative.value
    if alternative is None or isinstance(alternative, bool):
        return value is alternative
    op, arg = only(alternative)
    if op == "exists":
        return arg
    if op == "anything-but":
        if isinstance(arg, dict):
            inner, texts = only(arg)
            return not any(accepts({inner: t}, value) for t in (texts if isinstance(texts, list) else [texts]))
        return not any(accepts({"exactly": v} if isinstance(v, str) else v, value) for v in (arg if isinstance(arg, list) else [arg]))
    if op == "numeric":
        tests = {"=": "__eq__", "<": "__lt__", "<=": "__le__", ">": "__gt__", ">=": "__ge__"}
        return isinstance(value, Number) and all(getattr(value.value, tests[o])(n.value) for o, n in zip(arg[::2], arg[1::2]))
    if not isinstance(value, str):
        return False
    if op == "cidr":
        return address(value) is not None and address(value).version == network(arg).version and address(value) in network(arg)
    if op == "exactly":
        return value == arg
    if op == "wildcard":
        return glob(pieces(arg), list(value))
    if op == "equals-ignore-case":
        return value in accepted_forms(arg)
    if isinstance(arg, dict):
        forms = accepted_forms(arg["equals-ignore-case"])
    else:
        forms = [arg]
    return any(value.startswith(f) if op == "prefix" else value.endswith(f) for f in forms)


def satisfies(rule, paths, event, chosen):
    """The fields of the rule, from paths[0] on, against the leaves, under the elements chosen before."""
    if not paths:
        return True
    alternatives = rule[paths[0]]
    present = False
    for path, value, elements in event:
        if path != paths[0] or any(chosen.get(array, index) != index for array, index in elements.items()):
            continue
        present = True
        if any(accepts(a, value) for a in alternatives) and satisfies(rule, paths[1:], event, dict(chosen, **elements)):
            return True
    absence = any(isinstance(a, dict) and a.get("exists") is False for a in alternatives)
    return absence and not present and satisfies(rule, paths[1:], event, chosen)


def matches(pattern, event):
    """Raises Refused for a pattern that is not valid."""
    expanded = rules(pattern)
    if not isinstance(event, dict):
        return False
    all_leaves = list(leaves(event))
    for rule in expanded:
        one = fields(rule)
        if satisfies(one, sorted(one, key=utf16), all_leaves, {}):
            return True
    return False


def expand(pattern):
    """Patterns without $or, any of which matches what the pattern does."""
    return [fields(rule) for rule in rules(pattern)]

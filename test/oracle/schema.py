#!/usr/bin/env python3
"""The public JSON Schema test suite against behavior.json_schema_valid, and random schemas.

    schema.py --bindir BIN --folder FOLDER [--seed N] [--calls N]

The cases are those of shared/data (both drafts) and of Debian's package json-schema-test-suite
(draft 7, with optional ones), as far as they are there.  schema_skipped.txt lists the cases that are
not run, with the reason; the test fails when another one cannot be run, and when one of the list
can.  Of the package, whose numbering differs between versions, it lists files.  Random schemas and instances are made of those of the cases.
"""
import argparse
import glob
import gzip
import json
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
sys.dont_write_bytecode = True

from server import Server   # noqa: E402

PACKAGE = "/usr/share/json-schema-test-suite/tests/draft7"
FORMATS = ("date-time", "date", "time", "duration", "email", "hostname", "ipv4", "ipv6", "uri", "uuid", "json-pointer",
           "regex")
# The suite's schemas of draft 7 do not say so; a case is run with formats asserted where it is about one.
RUN = r"""
CREATE FUNCTION run_case(draft text, schema_text text, data_text text, assert_format boolean, OUT valid boolean, OUT reason text)
LANGUAGE plpgsql AS $$
DECLARE
	schema jsonb;
	data jsonb;
	detailed boolean;
BEGIN
	BEGIN
		schema := schema_text;
		data := data_text;
	EXCEPTION WHEN untranslatable_character THEN
		reason := 'jsonb has no \u0000';
		RETURN;
	END;
	IF draft = 'draft7' AND jsonb_typeof(schema) = 'object' AND NOT schema ? '$schema' THEN
		schema := schema || '{"$schema": "http://json-schema.org/draft-07/schema#"}';
	END IF;
	valid := behavior.json_schema_valid(schema, data, assert_format);
	SELECT count(*) = 0 INTO detailed FROM behavior.json_schema_errors(schema, data, assert_format);
	IF valid <> detailed THEN
		RAISE EXCEPTION 'json_schema_valid and json_schema_errors differ';
	END IF;
EXCEPTION WHEN invalid_parameter_value THEN
	IF SQLERRM LIKE '%nothing is fetched' OR SQLERRM LIKE '%is not a draft that is supported%' THEN
		reason := 'needs a document from elsewhere';
	ELSE
		reason := SQLERRM;
	END IF;
END $$;
CREATE TABLE cases (id text PRIMARY KEY, draft text, description text, schema text, data text, valid boolean, assert_format boolean);
"""


def cases_of_shared():
    folder = os.environ.get("BEHAVIOR_DATA") or os.path.join(HERE, "..", "..", "..", "shared", "data")
    path = os.path.join(folder, "json-schema-cases.jsonl.gz")
    if not os.path.exists(path):
        print("no %s: the cases of both drafts are left out" % path)
        return []
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [dict(json.loads(line), assert_format=False) for line in lines]


def cases_of_package():
    """Those of Debian's package; optional ones about what is only a remark are left out by name."""
    cases = []
    files = sorted(glob.glob(os.path.join(PACKAGE, "*.json")) + glob.glob(os.path.join(PACKAGE, "optional", "*.json")) +
                   glob.glob(os.path.join(PACKAGE, "optional", "format", "*.json")))
    if not files:
        print("Debian's package json-schema-test-suite is not there: its cases are left out")
    for path in files:
        name = os.path.relpath(path, PACKAGE)[:-len(".json")]
        of_format = os.path.dirname(name) == "optional/format"
        if of_format and os.path.basename(name) not in FORMATS:
            print("%s: a format that is a remark only" % name)
            continue
        if name == "optional/content":
            print("%s: remarks only" % name)
            continue
        with open(path, encoding="utf-8") as file:
            groups = json.load(file)
        for i, group in enumerate(groups):
            for j, test in enumerate(group["tests"]):
                cases.append({"id": "package/%s/%d/%d" % (name, i, j), "draft": "draft7",
                              "desc": group["description"] + " :: " + test["description"],
                              "schema": json.dumps(group["schema"]), "data": json.dumps(test["data"]),
                              "valid": test["valid"],
                              "assert_format": of_format or name == "optional/ecmascript-regex"})
    return cases


def skipped_cases():
    with open(os.path.join(HERE, "schema_skipped.txt"), encoding="utf-8") as file:
        return dict(line.rstrip("\n").split("\t") for line in file if line.strip() and not line.startswith("#"))


def csv_cell(value):
    return '"' + str(value).replace('"', '""') + '"'


def run_cases(server, cases):
    """Prints and counts; returns whether all is as it should be."""
    names = ("id", "draft", "desc", "schema", "data", "valid", "assert_format")
    server.psql("-c", "\\copy cases FROM pstdin WITH (FORMAT csv)",
                stdin="".join(",".join(csv_cell(case[name]) for name in names) + "\n" for case in cases).encode())
    results = server.rows("SELECT c.id, c.draft, c.description, c.valid AS expected, r.valid, r.reason "
                          "FROM cases c, run_case(c.draft, c.schema, c.data, c.assert_format) r ORDER BY c.id")
    known = skipped_cases()
    good = True
    passed = 0
    for row in results:
        name = row["id"]
        if name.startswith("package/"):
            name = name.rsplit("/", 2)[0]
        if row["reason"] is not None:
            print("skipped %s (%s): %s" % (row["id"], row["description"], row["reason"]))
            if known.get(name) != row["reason"]:
                print("    which schema_skipped.txt does not say")
                good = False
        elif row["valid"] != row["expected"]:
            print("FAILED %s (%s): %s" % (row["id"], row["description"], "valid" if row["valid"] else "not valid"))
            good = False
        else:
            passed += 1
            if row["id"] in known:
                print("passed %s, which schema_skipped.txt lists" % row["id"])
                good = False
    here = {row["id"] for row in results}
    drafts = {name.split("/")[0] for name in here} - {"package"}
    for name in known:
        if name.split("/")[0] in drafts and name not in here:
            print("%s of schema_skipped.txt is not there" % name)
            good = False
    print("%d cases: %d passed, %d not run or not passed" % (len(results), passed, len(results) - passed))
    return good and len(results) == len(cases)


def fuzz(server, seed, calls):
    """Random schemas and instances: a part at a time, so that a crash is near what caused it."""
    total = 0
    while total < calls:
        part = min(calls - total, 50000)
        row = server.rows("SELECT * FROM behavior._json_schema_fuzz("
                          "(SELECT array_agg(schema ORDER BY id) FROM cases), (SELECT array_agg(data ORDER BY id) FROM cases), "
                          "%d, %d)" % (seed, part))[0]
        print("seed %d: %s" % (seed, ", ".join("%s %s" % item for item in row.items())))
        if row["compiled"] == 0 or row["refused"] == 0 or row["valid"] == 0 or row["invalid"] == 0:
            print("the generator is one-sided")
            return False
        if row["growth"] > 1024 * 1024:
            print("memory has grown")
            return False
        total += part
        seed += 1
    return True


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--bindir", required=True)
    parser.add_argument("--folder", required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--calls", type=int, default=int(os.environ.get("FUZZ_CALLS") or 20000))
    arguments = parser.parse_args()

    cases = cases_of_shared() + cases_of_package()
    if not cases:
        print("skipped: there are no cases")
        return 0
    server = Server(arguments.bindir, arguments.folder, [])
    try:
        server.run("CREATE DATABASE oracle", database="postgres")
        server.run("CREATE EXTENSION behavior", RUN)
        good = run_cases(server, cases)
        good = fuzz(server, arguments.seed, arguments.calls) and good
    finally:
        server.remove()
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())

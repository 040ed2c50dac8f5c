#!/usr/bin/env python3
"""Reads the real events of shared/data as events of behavior.  They are read in place.

    real.py DATASET [--folder FOLDER] [--limit N]       JSON lines

What each file is, and where it comes from, says the README beside the files.  Event ids:
online-retail, wikipedia-readers and cdnow derive them from the row's content, so that an exact repeat is a duplicate;
apache-access takes the line number, so that it is not (a page can be asked for twice in one second);
github-events brings its own.
"""
import argparse
import csv
import datetime
import gzip
import hashlib
import itertools
import json
import os
import re
import sys

from events import as_json, event, microseconds

UTC = datetime.timezone.utc
LINE = re.compile(r'^(\S+) \S+ (\S+) \[([^\]]+)\] "(\S+) (.*?)(?: HTTP/[\d.]+)?" (\d{3}) (\d+|-) "(.*?)" "(.*)"$')
ASSET = re.compile(r"\.(png|jpe?g|gif|ico|css|js|svg|woff2?|ttf|txt|xml|pdf|zip|gz|tar|rb|deb|rpm|mp4)$")


def content_id(*cells):
    return hashlib.md5("\x1f".join(cells).encode()).hexdigest()


def open_text(folder, name, **options):
    return gzip.open(os.path.join(folder, name), "rt", encoding="utf-8", **options)


def online_retail(folder):
    with open_text(folder, "online-retail.csv.gz", newline="") as lines:
        for row in csv.DictReader(lines):
            customer = row["CustomerID"].split(".")[0] or None
            cancelled = row["InvoiceNo"].startswith("C")
            at = datetime.datetime.strptime(row["InvoiceDate"], "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC)
            yield event(content_id(*row.values()), "Cancellation" if cancelled else "Purchase", microseconds(at),
                        "retail", user_id=customer,
                        properties={"invoice": row["InvoiceNo"], "item": row["StockCode"],
                                    "description": row["Description"], "quantity": int(row["Quantity"]),
                                    "price": float(row["UnitPrice"]), "country": row["Country"]})


def wikipedia_readers(folder):
    with open_text(folder, "wikipedia-readers.csv.gz", newline="") as lines:
        for row in csv.DictReader(lines):
            at = datetime.datetime.strptime(row["timestamp"], "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC)
            yield event(content_id(*row.values()), "PageView", microseconds(at), "wikipedia",
                        anonymous_id=row["uuid"], properties={"url": row["url"]})


def apache_access(folder):
    """A line that does not parse is handed on as it is (a str): the inbox makes a dead letter of it."""
    with open_text(folder, "apache-access.log.gz") as lines:
        for number, line in enumerate(lines, 1):
            match = LINE.match(line)
            if not match:
                yield line.rstrip("\n")
                continue
            address, user, at, method, path, status, size, referrer, agent = match.groups()
            at = datetime.datetime.strptime(at, "%d/%b/%Y:%H:%M:%S %z")
            page = path.split("?")[0]
            properties = {"path": page, "method": method, "status": int(status)}
            if size != "-":
                properties["bytes"] = int(size)
            if referrer != "-":
                properties["referrer"] = referrer
            seen = method == "GET" and status == "200" and not ASSET.search(page)
            if not seen:
                properties["file"] = properties.pop("path")
            yield event(str(number), "PageView" if seen else "Request", microseconds(at), "apache",
                        user_id=None if user == "-" else user, anonymous_id=address, sequence=number,
                        properties=properties, context={"agent": agent})


def github_events(folder):
    with open_text(folder, "github-events-2016.jsonl.gz") as lines:
        for line in lines:
            row = json.loads(line)
            at = datetime.datetime.strptime(row["created_at"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
            properties = {"repository": row["repo"]["name"], "payload": row["payload"]}
            if "org" in row:
                properties["organisation"] = row["org"]["login"]
            yield event(row["id"], row["type"], microseconds(at), "github", user_id=row["actor"]["login"],
                        properties=properties)


def cdnow(folder):
    with open_text(folder, "cdnow.txt.gz") as lines:
        next(lines)
        for line in lines:
            customer, day, discs, dollars = line.split()
            at = datetime.datetime.strptime(day, "%Y%m%d").replace(tzinfo=UTC)
            yield event(content_id(customer, day, discs, dollars), "Purchase", microseconds(at), "cdnow",
                        user_id=customer, properties={"item": "disc", "quantity": int(discs), "total": float(dollars)})


DATASETS = {"online-retail": online_retail, "wikipedia-readers": wikipedia_readers,
            "apache-access": apache_access, "github-events": github_events, "cdnow": cdnow}


def default_folder():
    here = os.path.dirname(os.path.abspath(__file__))
    return os.environ.get("BEHAVIOR_DATA") or os.path.join(here, "..", "..", "..", "shared", "data")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", choices=sorted(DATASETS))
    parser.add_argument("--folder", default=default_folder())
    parser.add_argument("--limit", type=int)
    arguments = parser.parse_args()
    for e in itertools.islice(DATASETS[arguments.dataset](arguments.folder), arguments.limit):
        sys.stdout.write((e if isinstance(e, str) else as_json(e)) + "\n")


if __name__ == "__main__":
    main()

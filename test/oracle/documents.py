#!/usr/bin/env python3
"""Runs the SQL of doc/routing.md, block by block in one database: what the page shows must work.

    documents.py --bindir BIN --folder FOLDER
"""
import argparse
import os
import re

from server import Server

PAGE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "doc", "routing.md")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--bindir", required=True)
    parser.add_argument("--folder", required=True)
    arguments = parser.parse_args()
    with open(PAGE, encoding="utf-8") as file:
        blocks = re.findall(r"^```(\w+)\n(.*?)^```$", file.read(), re.S | re.M)
    server = Server(arguments.bindir, arguments.folder, ["shared_preload_libraries = 'behavior'", "behavior.worker = off"])
    try:
        with open(os.path.join(arguments.folder, "rules.json"), "w", encoding="utf-8") as file:
            file.write(next(text for kind, text in blocks if kind == "json" and text.startswith('{"Rules"')))
        os.chdir(arguments.folder)
        server.run("CREATE DATABASE oracle", database="postgres")
        server.run("CREATE EXTENSION behavior")
        script = "".join(text for kind, text in blocks if kind == "sql")
        print(server.psql("-e", stdin=script.encode()))
    finally:
        server.remove()


if __name__ == "__main__":
    main()

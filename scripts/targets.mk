# Targets that need no PGXS: tests, demo, formatting.  Included by the Makefile.

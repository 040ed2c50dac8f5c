# Targets that need no PGXS: tests, demo, formatting.  Included by the Makefile.
#
# All of them work as root (servers then run as an unprivileged user) and as anybody else, and install
# nothing into the system.  Variables: TESTS="event copy" runs some, SEED=n, PG_CONFIG=….

.DEFAULT_GOAL := all

TEST_KINDS = regress isolation pgtap tap oracle
C_FILES = $(sort $(wildcard src/*.[ch] src/*/*.[ch] bench/*.c))
CLANG_FORMAT ?= clang-format
SCRIPT_ENV = PG_CONFIG='$(PG_CONFIG)' TESTS='$(TESTS)' SEED='$(SEED)' MAKE='$(MAKE)'

BENCH_PARTS = bulk pipeline single growth staleness match route peers

.PHONY: test $(TEST_KINDS) soak demo demo-stop bench bench-full $(BENCH_PARTS:%=bench-%) format check-format cppcheck help clean-work

test:				## every test, with one summary at the end
	+@$(SCRIPT_ENV) scripts/test test

regress:			## pg_regress: sql/ and expected/
isolation:			## races: test/isolation
pgtap:				## the catalog as a contract: test/pgtap
tap:				## lifecycle, crash, dump, standby: test/tap
oracle:				## random traffic against an independent computation: test/oracle
$(TEST_KINDS):
	+@$(SCRIPT_ENV) scripts/test $@

SECONDS ?= 600
soak:				## the oracle with ever new seeds, for SECONDS=600
	+@$(SCRIPT_ENV) SOAK_SECONDS='$(SECONDS)' scripts/test soak

demo:				## a private server with real events and live dashboards
	+@$(SCRIPT_ENV) scripts/demo

demo-stop:			## stops and removes the demo's server
	@$(SCRIPT_ENV) scripts/demo stop

BENCH ?=
bench:				## measures everything next to its reference: bench/RESULTS.md, results.svg
	+@$(SCRIPT_ENV) bench/run $(BENCH)
bench-full:			## the same in the large sizes: takes hours, and 60 GB of disk
	+@$(SCRIPT_ENV) bench/run --full $(BENCH)
bench-bulk:			## COPY next to a plain table; one part alone, BENCH=--full for its large size
bench-pipeline:			## ingest and fold next to hand-written SQL
bench-single:			## single-row INSERTs
bench-growth:			## cost an event as the database fills
bench-staleness:		## dashboards and lag under a steady load and a spike
bench-match:			## event patterns: by operator, and 1 to 1,000 rules
bench-route:			## validation, routing and delivery
bench-peers:			## ClickHouse and DuckDB, when installed
$(BENCH_PARTS:%=bench-%):
	+@$(SCRIPT_ENV) bench/run $(BENCH) $(@:bench-%=%)

format:				## clang-format, in place
	$(CLANG_FORMAT) -i $(C_FILES)

check-format:			## fails where clang-format would change something
	$(CLANG_FORMAT) --dry-run --Werror $(C_FILES)

cppcheck:			## static analysis
	cppcheck --quiet --error-exitcode=1 --enable=warning,portability --inline-suppr \
		--suppress=missingInclude --suppress=unknownMacro -DPG_VERSION_NUM=150000 \
		'-Dereport(level,...)=ereport_##level()' '-Dereport_ERROR()=exit(1)' -Isrc -j2 $(filter %.c,$(C_FILES))

help:				## this list
	@echo "make                 build"
	@echo "make install         install for the PostgreSQL of PG_CONFIG ($(PG_CONFIG))"
	@sed -n 's/^\([a-z-]*\):[^#]*## */\1|/p' scripts/targets.mk | \
		while IFS='|' read -r target text; do printf 'make %-15s %s\n' "$$target" "$$text"; done

clean: clean-work
clean-work:
	@scripts/clean-work

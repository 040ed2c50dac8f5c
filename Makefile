# behavior: customer analytics inside PostgreSQL.
#
#   make            build the library and the install script
#   make install    install them (and behavior-load, beside psql)
#   make test       every test, on private servers; `make help` lists one target per kind

EXTENSION = behavior
# The control file is the one source of the version.
EXTVERSION := $(shell sed -n "s/^default_version *= *'\(.*\)'/\1/p" behavior.control)

MODULE_big = behavior
OBJS = $(patsubst %.c,%.o,$(sort $(wildcard src/*.c src/*/*.c)))

# The install script is the modules' SQL faces, in the order in which they depend on each other.
SQL_MODULES = \
	src/core/schema.sql \
	src/core/functions.sql \
	src/gate/json_schema.sql \
	src/log/log.sql \
	src/log/batch.sql \
	src/ingest/event_key.sql \
	src/gate/event_type.sql \
	src/ingest/dead_letter.sql \
	src/fold/tick.sql \
	src/log/batch_views.sql \
	src/ingest/event.sql \
	src/ingest/inbox.sql \
	src/fold/projection.sql \
	src/fold/session.sql \
	src/fold/rollup.sql \
	src/fold/matview.sql \
	src/fold/verify.sql \
	src/route/redrive.sql \
	src/route/event_pattern.sql \
	src/route/subscription.sql \
	src/route/subscription_api.sql \
	src/route/receive.sql \
	src/worker/worker.sql

DATA_built = behavior--$(EXTVERSION).sql
SCRIPTS = scripts/behavior-load
EXTRA_CLEAN = $(DATA_built) .build

# No bitcode: the functions here are not of the kind that inlining into a plan helps.
override with_llvm := no

PG_CPPFLAGS = -I$(CURDIR)/src -DBEHAVIOR_VERSION='"$(EXTVERSION)"'
PG_CFLAGS = -Wall -Wextra -Wno-unused-parameter -Wno-sign-compare -Wno-missing-field-initializers \
	-Wno-clobbered

SHLIB_LINK += -lpcre2-8

PG_CONFIG ?= pg_config

include scripts/targets.mk
PGXS := $(wildcard $(shell $(PG_CONFIG) --pgxs 2>/dev/null))
ifneq ($(PGXS),)
include $(PGXS)
else
all install:
	@echo "No PGXS: install PostgreSQL's development package, for instance postgresql-server-dev-15,"
	@echo "or say PG_CONFIG=/path/to/pg_config. make test and make demo install what is missing when run as root."
	@false
endif

behavior--$(EXTVERSION).sql: $(SQL_MODULES) behavior.control
	cat $(SQL_MODULES) > $@

# PGXS tracks no headers: a change in any of them rebuilds all.
$(OBJS): $(wildcard src/*/*.h)

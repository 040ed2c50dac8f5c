-- Subscriptions: which events go to whom.
CREATE TABLE behavior._subscription (
	subscription_id	bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	name			text NOT NULL UNIQUE,
	owner			text COLLATE "C" NOT NULL,	-- a role's name; there may be no such role (any more): then it rests
	pattern			jsonb NOT NULL,
	handler			text,				-- schema-qualified and quoted; NULL: consumers call receive()
	takes_delivery	boolean NOT NULL DEFAULT false,	-- the handler takes behavior.delivery[], else behavior.event[]
	batch_size		int NOT NULL,
	batch_window	interval NOT NULL,
	ordered			boolean NOT NULL,
	reorder_window	interval NOT NULL,
	max_attempts	int NOT NULL,
	max_age			interval NOT NULL,
	start_at		timestamptz,		-- events that occurred before are not delivered
	reserved_worker	boolean NOT NULL DEFAULT false,
	paused			boolean NOT NULL DEFAULT false,
	created_tick	bigint NOT NULL,	-- the last one when it was created; what came before is not routed,
	skip_batches	bigint[],			-- nor what had been sent by then without being in a tick: runs (first, last, ...); NULL: none, or start_at
	created_at		timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
);
SELECT pg_catalog.pg_extension_config_dump('behavior._subscription', '');
SELECT pg_catalog.pg_extension_config_dump('behavior._subscription_subscription_id_seq', '');
COMMENT ON TABLE behavior._subscription IS 'definitions of subscriptions';

-- Written by the router when it routes for a subscription for the first time.  A table of its own, so that the
-- router waits for nobody who is changing the subscription.
CREATE TABLE behavior._subscription_join (
	subscription_id	bigint PRIMARY KEY,
	joined_tick		bigint NOT NULL,	-- events of later ticks are routed, those up to it replayed
	failing_since	timestamptz,		-- nothing is routed to it since then, because
	error			text				-- its pattern does not compile
);
SELECT pg_catalog.pg_extension_config_dump('behavior._subscription_join', '');
COMMENT ON TABLE behavior._subscription_join IS 'since when each subscription is routed for';

-- How far each has come: one row a subscription, made with it and never updated.  Each step inserts its own and deletes
-- the one before it; see route/subscription_progress.c.  consumed = delivered + dead_letters + its rows in behavior._delivery.
CREATE TABLE behavior._subscription_progress (
	subscription_id	bigint NOT NULL,
	step			bigint NOT NULL,
	replaying		boolean NOT NULL,
	replay_at		timestamptz,
	live			boolean NOT NULL,
	position		bigint NOT NULL,
	poison			int NOT NULL,
	failures		int NOT NULL,
	resume_at		timestamptz,
	watermark		timestamptz,
	consumed		bigint NOT NULL,
	delivered		bigint NOT NULL,
	failed			bigint NOT NULL,
	dead_letters	bigint NOT NULL,
	late			bigint NOT NULL,
	failing_since	timestamptz,
	last_error		text,
	due_from		timestamptz,		-- nothing that waits to be tried again or is in flight was due before; NULL: not known
	PRIMARY KEY (subscription_id, step)
);
SELECT pg_catalog.pg_extension_config_dump('behavior._subscription_progress', '');
COMMENT ON TABLE behavior._subscription_progress IS 'progress of each subscription';

-- Routed up to and including this tick: one row, never updated.
CREATE TABLE behavior._route_progress (
	tick_id			bigint PRIMARY KEY
);
SELECT pg_catalog.pg_extension_config_dump('behavior._route_progress', '');
COMMENT ON TABLE behavior._route_progress IS 'progress of routing';

-- Each row below takes as many ids as it can have events.
CREATE SEQUENCE behavior._delivery_id_seq INCREMENT BY 250;
SELECT pg_catalog.pg_extension_config_dump('behavior._delivery_id_seq', '');
COMMENT ON SEQUENCE behavior._delivery_id_seq IS 'delivery ids, given out by the row of behavior._delivery_chunk';

-- References to the events that were routed to a subscription and that it has not consumed, in the order of delivery.
CREATE TABLE behavior._delivery_chunk (
	subscription_id		bigint NOT NULL,
	live				boolean NOT NULL,	-- false: queued by a replay, which comes before the rest
	first_delivery_id	bigint NOT NULL,
	events				int NOT NULL,
	queued				bigint NOT NULL,	-- events of this part up to and including this row, counted from where it was last empty
	tick_id				bigint NOT NULL,	-- of the events; of those replayed: the last one replayed
	queued_at			timestamptz NOT NULL,
	refs				bytea NOT NULL,		-- EventRef of route/queue.h
	PRIMARY KEY (subscription_id, live, first_delivery_id)
);
ALTER TABLE behavior._delivery_chunk ALTER refs SET STORAGE PLAIN;
SELECT pg_catalog.pg_extension_config_dump('behavior._delivery_chunk', '');
COMMENT ON TABLE behavior._delivery_chunk IS 'what has been routed and not been consumed';

-- Events of a subscription that have a state of their own.
CREATE TABLE behavior._delivery (
	delivery_id			bigint PRIMARY KEY,
	subscription_id		bigint NOT NULL,
	state				"char" NOT NULL CHECK (state IN ('h', 'r', 'f')),	-- held until it is its turn; to be tried at due_at; in flight: received, given out again at due_at
	due_at				timestamptz NOT NULL,	-- held: occurred_at; infinity: behind an earlier one of its actor
	attempts			int NOT NULL,		-- so far
	late				boolean NOT NULL,
	first_attempt_at	timestamptz,
	error				text,
	ref					bytea NOT NULL,		-- EventRef
	occurred_at			timestamptz NOT NULL,
	sequence			bigint,
	event_id			text COLLATE "C" NOT NULL,
	source				text COLLATE "C" NOT NULL,
	actor				text COLLATE "C"
) WITH (fillfactor = 80);
CREATE INDEX _delivery_due ON behavior._delivery (subscription_id, state, due_at);
CREATE INDEX _delivery_order ON behavior._delivery
	(subscription_id, state, occurred_at, sequence NULLS FIRST, event_id, source);
CREATE INDEX _delivery_actor ON behavior._delivery
	(subscription_id, actor, source, state, occurred_at, sequence NULLS FIRST, event_id);
SELECT pg_catalog.pg_extension_config_dump('behavior._delivery', '');
COMMENT ON TABLE behavior._delivery IS 'events that are held, to be tried again, or received and not acknowledged';
REVOKE ALL ON behavior._subscription, behavior._subscription_join, behavior._subscription_progress, behavior._route_progress,
	behavior._delivery_chunk, behavior._delivery FROM PUBLIC;
REVOKE ALL ON SEQUENCE behavior._delivery_id_seq FROM PUBLIC;

CREATE TYPE behavior.delivery AS (
	delivery_id		bigint,
	subscription	text,
	attempt			int,
	late			boolean,
	hops			int,
	event			behavior.event
);
COMMENT ON TYPE behavior.delivery IS 'an event on its way to a consumer';

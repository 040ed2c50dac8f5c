-- schema.sql: the tables of the hand-written pipeline.  psql variable "hll": whether page_views counts unique
-- visitors.  Text is COLLATE "C": nobody sorts event types by language, and comparing bytes is what min, max, GROUP BY
-- and the indexes below do all day.
CREATE SCHEMA hand;
SET search_path = hand, public;

-- Where senders COPY to.  Unlogged: a crash loses what has been sent and not been moved, unlike behavior's log.
-- There are two of them, swapped by name, so that senders go on while one is being emptied.
CREATE UNLOGGED TABLE stage (
	event_id uuid NOT NULL,
	source text COLLATE "C" NOT NULL,
	type text COLLATE "C" NOT NULL,
	user_id text COLLATE "C",
	anonymous_id text COLLATE "C",
	occurred_at timestamptz NOT NULL,
	properties jsonb
) WITH (autovacuum_enabled = off);
CREATE UNLOGGED TABLE stage_spare (LIKE stage) WITH (autovacuum_enabled = off);

-- The unique key is (source, event_id), written the other way around: one comparison of 16 bytes decides.
-- batch_id says which call moved an event; BRIN finds the events of a batch without a B-tree.
CREATE TABLE event (
	event_id uuid NOT NULL,
	source text COLLATE "C" NOT NULL,
	type text COLLATE "C" NOT NULL,
	user_id text COLLATE "C",
	anonymous_id text COLLATE "C",
	occurred_at timestamptz NOT NULL,
	properties jsonb,
	received_at timestamptz NOT NULL DEFAULT now(),
	batch_id bigint NOT NULL,
	PRIMARY KEY (event_id, source)
);
CREATE INDEX event_batch ON event USING brin (batch_id) WITH (pages_per_range = 16);

-- One row each, so that movers and folders have their own to lock: the last batch moved, the last one folded.
CREATE TABLE moved (batch_id bigint NOT NULL, hopeful boolean NOT NULL);
CREATE TABLE folded (batch_id bigint NOT NULL);
INSERT INTO moved VALUES (0, true);
INSERT INTO folded VALUES (0);

-- Three rollups.
CREATE TABLE activity (
	bucket timestamptz NOT NULL,
	source text COLLATE "C" NOT NULL,
	type text COLLATE "C" NOT NULL,
	events bigint NOT NULL,
	PRIMARY KEY (bucket, source, type)
) WITH (fillfactor = 50);
CREATE TABLE page_views (
	bucket timestamptz NOT NULL,
	page text COLLATE "C",
	views bigint NOT NULL,
	UNIQUE NULLS NOT DISTINCT (bucket, page)
) WITH (fillfactor = 50);
CREATE TABLE revenue (
	day timestamptz NOT NULL,
	campaign text COLLATE "C",
	orders bigint NOT NULL,
	revenue numeric,
	UNIQUE NULLS NOT DISTINCT (day, campaign)
) WITH (fillfactor = 50);
\if :hll
ALTER TABLE page_views ADD visitors hll;
\endif

-- Sessions.  A column first_ or last_ holds the value with the order of its event in front (52 characters: the time
-- as hexadecimal digits, then the event id), so that the first and the last are plain min and max, when events are
-- grouped as well as when sessions merge.  The order is right for times from 2000 on.
CREATE TABLE session_state (
	source text COLLATE "C" NOT NULL,
	visitor text COLLATE "C" NOT NULL,
	started_at timestamptz NOT NULL,
	ended_at timestamptz NOT NULL,
	events bigint NOT NULL,
	page_views bigint NOT NULL,
	first_type text COLLATE "C" NOT NULL,
	last_type text COLLATE "C" NOT NULL,
	first_page text COLLATE "C",
	last_page text COLLATE "C",
	last_user text COLLATE "C",
	first_referrer text COLLATE "C",
	PRIMARY KEY (visitor, source, started_at)
) WITH (fillfactor = 70);
CREATE VIEW session AS
	SELECT source, visitor, substr(last_user, 53) AS user_id, started_at, ended_at, ended_at - started_at AS duration, events, page_views,
		substr(first_type, 53) AS entry_type, substr(first_page, 53) AS entry_page, substr(last_type, 53) AS exit_type,
		substr(last_page, 53) AS exit_page, substr(first_referrer, 53) AS referrer
	FROM session_state;

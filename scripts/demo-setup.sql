-- What the demo keeps: three rollups, event types and two subscriptions, made before the first event comes.  :real is 1 when
-- real events are to be loaded.
\set ON_ERROR_STOP on
CREATE EXTENSION behavior;
SELECT count(*) > 0 AS hll FROM pg_available_extensions WHERE name = 'hll' \gset
\if :hll
CREATE EXTENSION hll;
\set visitors ', hll_add_agg(hll_hash_text(coalesce(anonymous_id, user_id))) AS visitors'
\else
\set visitors ''
\endif

SELECT behavior.create_rollup('traffic', format($$
	SELECT behavior.time_bucket('1 hour', occurred_at) AS bucket, source, type, count(*) AS events %s
	FROM behavior.event GROUP BY 1, 2, 3 $$, :'visitors')) \g /dev/null
SELECT behavior.create_rollup('pages', format($$
	SELECT source, coalesce(properties->>'page', properties->>'path', properties->>'url') AS page, count(*) AS views %s
	FROM behavior.event
	WHERE type = 'PageView' AND coalesce(properties->>'page', properties->>'path', properties->>'url') !~ '\.(gif|jpg|xbm)$'
	GROUP BY 1, 2 $$, :'visitors')) \g /dev/null
SELECT behavior.create_rollup('items', format($$
	SELECT source, properties->>'item' AS item,
		max(properties->>'description') FILTER (WHERE properties->>'description' ~ '^[^a-z]+$') AS description,
		count(*) FILTER (WHERE type = 'Purchase') AS orders,
		sum(behavior.try_numeric(properties->>'quantity')) AS pieces,
		sum(behavior.try_numeric(properties->>'quantity') * behavior.try_numeric(properties->>'price')) AS revenue %s
	FROM behavior.event WHERE type IN ('Purchase', 'Cancellation') GROUP BY 1, 2 $$, :'visitors')) \g /dev/null

-- Which properties an event must have; one that has others is kept as a dead letter, and says why.
SELECT behavior.create_event_type('PageView', '{"type": "object", "anyOf": [
	{"required": ["page"]}, {"required": ["path"]}, {"required": ["url"]}],
	"properties": {"page": {"type": "string"}, "path": {"type": "string"}, "url": {"type": "string"}}}') \g /dev/null
SELECT behavior.create_event_type('Purchase', '{"type": "object", "required": ["item", "quantity"],
	"properties": {"item": {"type": "string"}, "quantity": {"type": "number", "minimum": 1}}}') \g /dev/null
SELECT behavior.create_event_type('PushEvent', '{"type": "object", "required": ["repository"],
	"properties": {"repository": {"type": "string", "pattern": "^[^/]+/[^/]+$"}, "payload": {"type": "object"}}}', 'github') \g /dev/null

-- Purchases, a thousand at a time, keep what each customer has bought.
CREATE TABLE customer (source text, customer text, purchases bigint NOT NULL, PRIMARY KEY (source, customer));
CREATE FUNCTION count_purchases(events behavior.event[]) RETURNS void LANGUAGE sql SET search_path = public, pg_temp AS $$
	INSERT INTO customer AS c
	SELECT source, coalesce(actor, ''), count(*) FROM unnest(events) GROUP BY 1, 2
	ON CONFLICT (source, customer) DO UPDATE SET purchases = c.purchases + excluded.purchases $$;
SELECT behavior.create_subscription('purchases', '{"detail-type": ["Purchase"]}', 'count_purchases', batch_size => 1000) \g /dev/null

-- Returns, and a handler with a mistake: its column is too short for some of them.
\if :real
	\set returns '{"detail-type": ["Cancellation"]}'
	\set short 'numeric(3)'
	\set note 'INSERT INTO returned SELECT source, event_id, (properties->>''quantity'')::int FROM unnest(events)'
\else
	\set returns '{"detail-type": ["Click"], "detail": {"item": ["tea-07"], "page": [{"exists": true}]}}'
	\set short 'varchar(15)'
	\set note 'INSERT INTO returned SELECT source, event_id, properties->>''page'' FROM unnest(events)'
\endif
CREATE TABLE returned (source text, event_id text, what :short);
CREATE FUNCTION note_returns(events behavior.event[]) RETURNS void LANGUAGE sql SET search_path = public, pg_temp AS :'note';
SELECT behavior.create_subscription('returns', :'returns', 'note_returns', max_attempts => 1) \g /dev/null

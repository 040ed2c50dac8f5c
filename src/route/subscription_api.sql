-- Making and changing subscriptions.
CREATE FUNCTION behavior.create_subscription(name text, pattern jsonb, handler regproc DEFAULT NULL, batch_size int DEFAULT 100,
		batch_window interval DEFAULT '0', ordered boolean DEFAULT false, reorder_window interval DEFAULT '30 seconds',
		max_attempts int DEFAULT 185, max_age interval DEFAULT '24 hours', start_at timestamptz DEFAULT NULL,
		reserved_worker boolean DEFAULT false)
	RETURNS void LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'behavior_create_subscription';
COMMENT ON FUNCTION behavior.create_subscription(text, jsonb, regproc, int, interval, boolean, interval, int, interval, timestamptz, boolean) IS
	'events that match the pattern go to the handler, as the caller, or without one to behavior.receive(); name: at most 40 bytes; start_at: events that occurred from then on, NULL: those committed from now on; 42710 the name is taken, 22023 a bad pattern or value, 42P13 not a handler, 42501 no EXECUTE on the handler or no SELECT on behavior.event';

CREATE FUNCTION behavior.alter_subscription(name text, pattern jsonb DEFAULT NULL, handler regproc DEFAULT NULL, batch_size int DEFAULT NULL,
		batch_window interval DEFAULT NULL, ordered boolean DEFAULT NULL, reorder_window interval DEFAULT NULL,
		max_attempts int DEFAULT NULL, max_age interval DEFAULT NULL, reserved_worker boolean DEFAULT NULL)
	RETURNS void LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'behavior_alter_subscription';
COMMENT ON FUNCTION behavior.alter_subscription(text, jsonb, regproc, int, interval, boolean, interval, int, interval, boolean) IS
	'changes what is not NULL, for the owner; another pattern holds for what is routed from then on; waits for a step of delivery that is under way; errors as create_subscription(), and 42704 for an unknown name, 42501 for somebody else''s';

CREATE FUNCTION behavior.drop_subscription(name text, if_exists boolean DEFAULT false)
	RETURNS void LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'behavior_drop_subscription';
COMMENT ON FUNCTION behavior.drop_subscription(text, boolean) IS
	'drops a subscription with what waits for it, for the owner; its dead letters stay; waits for a step of delivery that is under way; 42704 for an unknown name without if_exists, 42501 for somebody else''s';

CREATE FUNCTION behavior.pause_subscription(name text)
	RETURNS void LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'behavior_pause_subscription';
COMMENT ON FUNCTION behavior.pause_subscription(text) IS
	'nothing is delivered from then on, events wait; waits for a step of delivery that is under way; for the owner: 42501, 42704 for an unknown name';

CREATE FUNCTION behavior.resume_subscription(name text)
	RETURNS void LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'behavior_resume_subscription';
COMMENT ON FUNCTION behavior.resume_subscription(text) IS
	'ends pause_subscription(), and the rest that failures have brought; for the owner: 42501, 42704 for an unknown name';

-- Whoever may write the two tables may do it: the extension's owner.
CREATE FUNCTION behavior.reassign_owned(old_owner name, new_owner name) RETURNS bigint
	LANGUAGE sql VOLATILE STRICT PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
	AS $$
		WITH role AS (SELECT rolname::text AS name FROM pg_roles WHERE oid = quote_ident(new_owner)::regrole),
			types AS (UPDATE behavior._event_type t SET owner = r.name FROM role r WHERE t.owner = old_owner RETURNING t.retired_at),
			subscriptions AS (UPDATE behavior._subscription s SET owner = r.name FROM role r WHERE s.owner = old_owner RETURNING 1)
		SELECT (SELECT count(*) FROM types WHERE retired_at IS NULL) + (SELECT count(*) FROM subscriptions)
	$$;
COMMENT ON FUNCTION behavior.reassign_owned(name, name) IS
	'gives the event types and subscriptions of one role to another, and returns how many; they know their owners by name, so that a role may be gone or have been renamed; for the extension''s owner: 42501, 42704 when there is no role new_owner';
REVOKE ALL ON FUNCTION behavior.reassign_owned(name, name) FROM PUBLIC;
REVOKE ALL ON FUNCTION
	behavior.create_subscription(text, jsonb, regproc, int, interval, boolean, interval, int, interval, timestamptz, boolean),
	behavior.alter_subscription(text, jsonb, regproc, int, interval, boolean, interval, int, interval, boolean),
	behavior.drop_subscription(text, boolean), behavior.pause_subscription(text), behavior.resume_subscription(text) FROM PUBLIC;

-- Open to everybody, since a view's functions run as its reader; tells nothing but a number and a time.
CREATE FUNCTION behavior._delivery_waiting(subscription_id bigint, held boolean, OUT events bigint, OUT since timestamptz)
	LANGUAGE c STABLE STRICT PARALLEL SAFE COST 10
	AS 'MODULE_PATHNAME', 'behavior__delivery_waiting';
COMMENT ON FUNCTION behavior._delivery_waiting(bigint, boolean) IS
	'events of a subscription that wait to be tried again or are in flight, with those held for their turn or without, and when the first was tried first';

-- What the two views below say of a subscription, from the ends of its queue alone: each row says how many events had been
-- queued up to it.  replay_first to live_last: first and last rows of the two parts, from its position on.
CREATE VIEW behavior._subscription_status AS
	SELECT s.subscription_id, s.name, s.pattern, s.handler, s.owner, h.handled AS delivered, p.failed, p.dead_letters, p.late,
		p.failures, COALESCE(j.error, o.error, p.last_error) AS last_error, LEAST(j.failing_since, p.failing_since) AS failing_since,
		CASE WHEN s.paused THEN 'paused'
			WHEN j.joined_tick IS NULL THEN 'starting'
			WHEN j.error IS NOT NULL OR o.error IS NOT NULL OR p.failing_since IS NOT NULL THEN 'failing'
			WHEN p.replaying OR rf.queued IS NOT NULL THEN 'replaying'
			ELSE 'current' END AS state,
		CASE WHEN p.replaying OR rf.queued IS NOT NULL THEN 0
			WHEN lf.queued IS NOT NULL THEN lf.tick_id - 1
			ELSE GREATEST(j.joined_tick, r.tick_id, s.created_tick) END AS tick_id,
		p.consumed + q.waiting AS matched,
		p.consumed - h.handled - p.dead_letters + q.waiting AS lag_events,
		GREATEST(pg_catalog.clock_timestamp() - LEAST(rf.queued_at, lf.queued_at, h.since,
			CASE WHEN j.joined_tick IS NOT NULL THEN u.since END), interval '0') AS lag
	FROM behavior._subscription s
		LEFT JOIN behavior._subscription_join j ON j.subscription_id = s.subscription_id
		-- Said at once, also of one that has nothing to deliver, or no handler.
		CROSS JOIN LATERAL (SELECT CASE WHEN NOT EXISTS (SELECT FROM pg_catalog.pg_roles r WHERE r.rolname = s.owner)
			THEN pg_catalog.format('its owner, role "%s", does not exist (42704)', s.owner) END AS error) o
		CROSS JOIN LATERAL (SELECT * FROM behavior._subscription_progress p
			WHERE p.subscription_id = s.subscription_id ORDER BY p.step DESC LIMIT 1) p
		LEFT JOIN LATERAL (SELECT c.first_delivery_id, c.events, c.queued, c.queued_at FROM behavior._delivery_chunk c
			WHERE c.subscription_id = s.subscription_id AND NOT c.live AND NOT p.live AND c.first_delivery_id > p.position - 250
			ORDER BY c.first_delivery_id LIMIT 1) rf ON true
		LEFT JOIN LATERAL (SELECT c.queued FROM behavior._delivery_chunk c
			WHERE c.subscription_id = s.subscription_id AND NOT c.live AND NOT p.live AND c.first_delivery_id > p.position - 250
			ORDER BY c.first_delivery_id DESC LIMIT 1) rl ON true
		CROSS JOIN LATERAL (SELECT CASE WHEN p.live THEN p.position ELSE 0 END AS position) l
		LEFT JOIN LATERAL (SELECT c.first_delivery_id, c.events, c.queued, c.queued_at, c.tick_id FROM behavior._delivery_chunk c
			WHERE c.subscription_id = s.subscription_id AND c.live AND c.first_delivery_id > l.position - 250
			ORDER BY c.first_delivery_id LIMIT 1) lf ON true
		LEFT JOIN LATERAL (SELECT c.queued FROM behavior._delivery_chunk c
			WHERE c.subscription_id = s.subscription_id AND c.live AND c.first_delivery_id > l.position - 250
			ORDER BY c.first_delivery_id DESC LIMIT 1) ll ON true
		CROSS JOIN LATERAL (SELECT
			COALESCE(rl.queued - rf.queued + rf.events - GREATEST(p.position - rf.first_delivery_id, 0), 0)
			+ COALESCE(ll.queued - lf.queued + lf.events - GREATEST(l.position - lf.first_delivery_id, 0), 0) AS waiting) q
		-- What consumers have acknowledged is not counted: it is what has gone.
		CROSS JOIN LATERAL (SELECT CASE WHEN s.handler IS NULL THEN p.consumed - p.dead_letters - w.events
				ELSE p.delivered END AS handled, w.since
			FROM behavior._delivery_waiting(CASE WHEN s.handler IS NULL OR p.consumed > p.delivered + p.dead_letters
				THEN s.subscription_id END, s.handler IS NULL) w OFFSET 0) h
		LEFT JOIN (SELECT t.tick_id FROM behavior._route_progress t ORDER BY t.tick_id DESC LIMIT 1) r ON true
		LEFT JOIN LATERAL (SELECT t.ticked_at AS since FROM behavior.tick t WHERE t.tick_id > r.tick_id
			ORDER BY t.tick_id LIMIT 1) u ON true;
COMMENT ON VIEW behavior._subscription_status IS 'what behavior.subscription and behavior.projection say of subscriptions';

CREATE VIEW behavior.subscription AS
	SELECT name, pattern, handler, owner::pg_catalog.name AS owner, state, matched, delivered, failed, dead_letters,
		late, lag_events, lag, last_error, failing_since
	FROM behavior._subscription_status;
COMMENT ON VIEW behavior.subscription IS
	'who gets which events, and how far they have come: matched = delivered + dead_letters + lag_events; failed counts attempts; lag is the age of the oldest that waits';

-- lag_events and lag count what has been accepted and not folded, numbered or not; of subscriptions, what
-- was routed and not delivered.
CREATE VIEW behavior.projection AS
	SELECT p.name, p.kind,
		CASE WHEN p.kind = 'session' AND p.state = 'current'
				AND p.settings - 'next' - 'building' - 'table' IS DISTINCT FROM behavior._session_settings()
			THEN 'settings_changed' ELSE p.state END AS state,
		g.tick_id,
		(t.events + w.events)::bigint AS lag_events,
		GREATEST(pg_catalog.clock_timestamp() - LEAST(t.since, w.since), interval '0') AS lag,
		p.events_set_aside, p.failed_at, p.error, p.attempts
	FROM behavior._projection p,
		LATERAL (SELECT behavior._projection_tick_id(p.name) AS tick_id OFFSET 0) g,
		LATERAL (SELECT COALESCE(pg_catalog.sum(t.events), 0) AS events, pg_catalog.min(t.ticked_at) AS since
			FROM behavior.tick t
			WHERE t.tick_id > g.tick_id AND t.tick_id < 9223372036854775807) t,
		(SELECT COALESCE(pg_catalog.sum(b.accepted), 0) AS events,
				pg_catalog.min(b.received_at) FILTER (WHERE b.accepted > 0) AS since
			FROM behavior._batch_waiting b) w
	UNION ALL
	SELECT s.name, 'subscription', s.state, s.tick_id, s.lag_events, s.lag, s.dead_letters, s.failing_since, s.last_error, s.failures
	FROM behavior._subscription_status s;
COMMENT ON VIEW behavior.projection IS 'progress of everything folded from the log; lag is the age of the oldest event not folded';
REVOKE ALL ON behavior._subscription_status, behavior.subscription, behavior.projection FROM PUBLIC;
GRANT SELECT ON behavior.subscription, behavior.projection TO pg_monitor;

CREATE FUNCTION behavior._queue(subscription text, max int DEFAULT 10000)
	RETURNS TABLE (delivery_id bigint, live boolean, event_id text, source text)
	LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'behavior__queue';
COMMENT ON FUNCTION behavior._queue(text, int) IS 'what waits for a subscription, in the order of delivery; event_id is NULL when the event is gone';
CREATE FUNCTION behavior._queue_pass(subscription text, events int) RETURNS int
	LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'behavior__queue_pass';
COMMENT ON FUNCTION behavior._queue_pass(text, int) IS 'passes over so many events as if they were delivered; returns how many there were';
CREATE FUNCTION behavior._replay_step(subscription text) RETURNS boolean
	LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'behavior__replay_step';
COMMENT ON FUNCTION behavior._replay_step(text) IS 'queues some more of the past; true: there is more';
REVOKE ALL ON FUNCTION behavior._queue(text, int), behavior._queue_pass(text, int), behavior._replay_step(text) FROM PUBLIC;

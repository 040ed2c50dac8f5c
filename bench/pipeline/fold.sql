-- fold.sql: brings the three rollups and the sessions up to the last batch that has been moved.
CREATE PROCEDURE hand.fold() LANGUAGE plpgsql AS $$
DECLARE
	timeout CONSTANT interval := '30 minutes';
	done bigint;
	until bigint;
	runs bigint;
	narrow_runs bigint;
	rows bigint;
BEGIN
	SELECT batch_id INTO done FROM hand.folded FOR UPDATE;
	SELECT batch_id INTO until FROM hand.moved;
	IF until <= done THEN
		RETURN;
	END IF;
	SET LOCAL work_mem = '128MB';
	SET LOCAL jit = off;
	SET LOCAL client_min_messages = warning;

	-- What is new, read once and without its JSON.  Not analysed: the size of the file tells the planner enough.  Flags
	-- in place of types keep it from expecting one row in 200, and from sorting where hashing is cheaper.
	PERFORM brin_summarize_new_values('hand.event_batch');
	DROP TABLE IF EXISTS pg_temp.fresh, pg_temp.run, pg_temp.merged;
	CREATE TEMP TABLE fresh ON COMMIT DROP AS
		SELECT source, type, type = 'PageView' AS is_page_view, type = 'Purchase' AS is_purchase,
			coalesce(anonymous_id, user_id) AS visitor, user_id, occurred_at, event_id,
			(properties ->> 'page') COLLATE "C" AS page,
			(properties ->> 'referrer') COLLATE "C" AS referrer,
			CASE WHEN type = 'Purchase' THEN (properties ->> 'campaign') COLLATE "C" END AS campaign,
			CASE WHEN type = 'Purchase' THEN (properties ->> 'price')::numeric * (properties ->> 'quantity')::numeric END AS amount
		FROM hand.event
		WHERE batch_id > done AND batch_id <= until;

	INSERT INTO hand.activity AS a
		SELECT date_bin('5 seconds', occurred_at, '2000-01-03 00:00+00'), source, type, count(*)
		FROM fresh
		GROUP BY 1, 2, 3
		ON CONFLICT (bucket, source, type) DO UPDATE SET events = a.events + excluded.events;
	CALL hand.fold_page_views();
	INSERT INTO hand.revenue AS r
		SELECT date_bin('1 day', occurred_at, '2000-01-03 00:00+00'), campaign, count(*), sum(amount)
		FROM fresh
		WHERE is_purchase
		GROUP BY 1, 2
		ON CONFLICT (day, campaign) DO UPDATE SET orders = r.orders + excluded.orders,
			revenue = CASE WHEN r.revenue IS NULL THEN excluded.revenue ELSE r.revenue + coalesce(excluded.revenue, 0) END;

	-- Runs of the new events.  A visitor whose new events lie within one timeout has one run, which hashing finds;
	-- only the others need their gaps looked at in order.
	CREATE TEMP TABLE run ON COMMIT DROP AS
		SELECT source, visitor, min(occurred_at) AS started_at, max(occurred_at) AS ended_at, count(*) AS events,
			count(page_at) AS page_views, min(type_at) AS first_type, max(type_at) AS last_type, min(page_at) AS first_page,
			max(page_at) AS last_page, max(user_at) AS last_user, min(referrer_at) AS first_referrer
		FROM (SELECT source, visitor, occurred_at, at || type AS type_at, at || page AS page_at, at || user_id AS user_at,
				at || referrer AS referrer_at
			FROM (SELECT *, (encode(timestamptz_send(occurred_at), 'hex') || event_id) COLLATE "C" AS at
				FROM fresh
				WHERE visitor IS NOT NULL
				OFFSET 0) f
			OFFSET 0) g
		GROUP BY source, visitor;
	GET DIAGNOSTICS runs = ROW_COUNT;
	WITH wide AS (DELETE FROM run WHERE ended_at - started_at > timeout RETURNING visitor, source)
	INSERT INTO run
		SELECT source, visitor, min(occurred_at), max(occurred_at), count(*), count(page), min(at || type), max(at || type),
			min(at || page), max(at || page), max(at || user_id), min(at || referrer)
		FROM (SELECT *, count(*) FILTER (WHERE gap) OVER (PARTITION BY visitor, source ORDER BY occurred_at, event_id) AS island
			FROM (SELECT f.*, (encode(timestamptz_send(occurred_at), 'hex') || event_id) COLLATE "C" AS at,
					occurred_at - lag(occurred_at) OVER (PARTITION BY visitor, source ORDER BY occurred_at, event_id) > timeout AS gap
				FROM fresh f JOIN wide USING (visitor, source)) g) i
		GROUP BY source, visitor, island;
	GET DIAGNOSTICS narrow_runs = ROW_COUNT;

	-- Merged with the session that each touches.
	CREATE TEMP TABLE merged ON COMMIT DROP AS
		SELECT s.ctid AS place, r.source, r.visitor, least(r.started_at, s.started_at) AS started_at,
			greatest(r.ended_at, s.ended_at) AS ended_at, r.events + coalesce(s.events, 0) AS events,
			r.page_views + coalesce(s.page_views, 0) AS page_views, least(r.first_type, s.first_type) AS first_type,
			greatest(r.last_type, s.last_type) AS last_type, least(r.first_page, s.first_page) AS first_page,
			greatest(r.last_page, s.last_page) AS last_page, greatest(r.last_user, s.last_user) AS last_user,
			least(r.first_referrer, s.first_referrer) AS first_referrer
		FROM run r
			LEFT JOIN hand.session_state s ON s.visitor = r.visitor AND s.source = r.source
				AND s.started_at <= r.ended_at + timeout AND s.ended_at >= r.started_at - timeout;
	GET DIAGNOSTICS rows = ROW_COUNT;

	-- Unless every visitor has one run that touches at most one session, those that do not are done with care: a late
	-- event may bridge sessions, a session may have several runs on either side.
	IF narrow_runs > 0 OR rows > runs THEN
		CREATE TEMP TABLE several ON COMMIT DROP AS
			SELECT visitor, source FROM merged GROUP BY visitor, source HAVING count(*) > 1;
		DELETE FROM merged m USING several v WHERE m.visitor = v.visitor AND m.source = v.source;
		CREATE TEMP TABLE part ON COMMIT DROP AS
			SELECT NULL::tid AS place, r.*
			FROM run r JOIN several v ON r.visitor = v.visitor AND r.source = v.source
			UNION ALL
			SELECT s.ctid, s.*
			FROM hand.session_state s JOIN several v ON s.visitor = v.visitor AND s.source = v.source
			WHERE EXISTS (SELECT FROM run r WHERE r.visitor = s.visitor AND r.source = s.source
				AND s.started_at <= r.ended_at + timeout AND s.ended_at >= r.started_at - timeout);
		INSERT INTO merged
			SELECT min(place), source, visitor, min(started_at), max(ended_at), sum(events), sum(page_views), min(first_type),
				max(last_type), min(first_page), max(last_page), max(last_user), min(first_referrer)
			FROM (SELECT *, count(*) FILTER (WHERE gap) OVER (PARTITION BY visitor, source ORDER BY started_at, ended_at, place) AS island
				FROM (SELECT *, started_at > timeout + max(ended_at) OVER (PARTITION BY visitor, source
						ORDER BY started_at, ended_at, place ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS gap
					FROM part) g) i
			GROUP BY source, visitor, island;
		DELETE FROM hand.session_state s USING part p
			WHERE s.ctid = p.place AND NOT EXISTS (SELECT FROM merged m WHERE m.place = p.place);
		DROP TABLE several, part;
	END IF;
	UPDATE hand.session_state s
		SET started_at = m.started_at, ended_at = m.ended_at, events = m.events, page_views = m.page_views, first_type = m.first_type,
			last_type = m.last_type, first_page = m.first_page, last_page = m.last_page, last_user = m.last_user,
			first_referrer = m.first_referrer
		FROM merged m
		WHERE s.ctid = m.place;
	INSERT INTO hand.session_state
		SELECT source, visitor, started_at, ended_at, events, page_views, first_type, last_type, first_page, last_page, last_user,
			first_referrer
		FROM merged
		WHERE place IS NULL;

	UPDATE hand.folded SET batch_id = until;
END
$$;

-- \if stands outside of a function's body.
\if :hll
CREATE PROCEDURE hand.fold_page_views() LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO hand.page_views AS p
		SELECT date_bin('1 minute', occurred_at, '2000-01-03 00:00+00'), page, count(*), hll_add_agg(hll_hash_text(coalesce(user_id, visitor)))
		FROM fresh
		WHERE is_page_view
		GROUP BY 1, 2
		ON CONFLICT (bucket, page) DO UPDATE SET views = p.views + excluded.views, visitors = hll_union(p.visitors, excluded.visitors);
END
$$;
\else
CREATE PROCEDURE hand.fold_page_views() LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO hand.page_views AS p
		SELECT date_bin('1 minute', occurred_at, '2000-01-03 00:00+00'), page, count(*)
		FROM fresh
		WHERE is_page_view
		GROUP BY 1, 2
		ON CONFLICT (bucket, page) DO UPDATE SET views = p.views + excluded.views;
END
$$;
\endif

-- clickhouse.sql: the tables of the ClickHouse side; ENGINE is filled in by peers.py.  Of version 18.16: DateTime has no fractions,
-- and JSON is text.
CREATE TABLE event (
	event_id UUID,
	source String,
	type String,
	user_id String,
	anonymous_id String,
	occurred_at DateTime,
	properties String
) ENGINE = ENGINE PARTITION BY toYYYYMM(occurred_at) ORDER BY (source, type, occurred_at, event_id);

CREATE MATERIALIZED VIEW page_views ENGINE = AggregatingMergeTree PARTITION BY toYYYYMM(bucket) ORDER BY (bucket, page) AS
	SELECT toStartOfMinute(occurred_at) AS bucket, extract(properties, '"page": "([^"]*)"') AS page, countState() AS views,
		uniqState(if(user_id = '', anonymous_id, user_id)) AS visitors
	FROM event
	WHERE type = 'PageView'
	GROUP BY bucket, page;

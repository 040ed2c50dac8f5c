-- What users see of batches.  The sources of one batch share role, application and correlation.
CREATE VIEW behavior.batch AS
SELECT b.batch_id, b.received_at, s.role, s.application_name, s.correlation_id,
	b.received, b.accepted,
	coalesce(c.duplicates, 0) AS duplicates,
	coalesce(c.conflicts, 0) AS conflicts,
	coalesce(c.dead_letters, 0) AS dead_letters,
	behavior._tick_id(b.batch_id) AS tick_id
FROM behavior._batch b
LEFT JOIN behavior._sender s ON s.sender_id = b.sender_id
LEFT JOIN LATERAL (
	SELECT pg_catalog.sum(b.by_sender[i][4])::bigint AS duplicates,
		pg_catalog.sum(b.by_sender[i][5])::bigint AS conflicts,
		pg_catalog.sum(b.by_sender[i][6])::bigint AS dead_letters
	FROM pg_catalog.generate_subscripts(b.by_sender, 1) i) c ON b.by_sender IS NOT NULL;
COMMENT ON VIEW behavior.batch IS
	'what each sending statement did: received = accepted + duplicates + conflicts + dead_letters; kept for behavior.batch_retention';

-- Those numbered are summed in _intake; the others are added here.
CREATE VIEW behavior.intake AS
SELECT hour, source, role, application_name,
	pg_catalog.sum(received)::bigint AS received, pg_catalog.sum(accepted)::bigint AS accepted,
	pg_catalog.sum(duplicates)::bigint AS duplicates, pg_catalog.sum(conflicts)::bigint AS conflicts,
	pg_catalog.sum(dead_letters)::bigint AS dead_letters, pg_catalog.sum(generated_ids)::bigint AS generated_ids
FROM (
	SELECT hour, source, role, application_name, received, accepted, duplicates, conflicts, dead_letters, generated_ids
	FROM behavior._intake
	UNION ALL
	SELECT pg_catalog.date_trunc('hour', b.received_at, 'UTC'), s.source, s.role, s.application_name,
		c.received, c.accepted, c.duplicates, c.conflicts, c.dead_letters, c.generated_ids
	FROM behavior._batch_waiting b
	CROSS JOIN LATERAL (
		SELECT b.sender_id, b.received, b.accepted, 0::bigint AS duplicates, 0::bigint AS conflicts,
			0::bigint AS dead_letters, coalesce(b.generated_ids, 0)::bigint AS generated_ids
		WHERE b.by_sender IS NULL
		UNION ALL
		SELECT b.by_sender[i][1], b.by_sender[i][2], b.by_sender[i][3], b.by_sender[i][4],
			b.by_sender[i][5], b.by_sender[i][6], b.by_sender[i][7]
		FROM pg_catalog.generate_subscripts(b.by_sender, 1) i
	) c
	LEFT JOIN behavior._sender s ON s.sender_id = c.sender_id
) i
GROUP BY hour, source, role, application_name;
COMMENT ON VIEW behavior.intake IS 'counts of received events by hour, source, role and application, for ever';

REVOKE ALL ON behavior.batch, behavior.intake FROM PUBLIC;
GRANT SELECT ON behavior.batch, behavior.intake TO pg_monitor;

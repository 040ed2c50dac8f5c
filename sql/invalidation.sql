-- A backend ends when it asks PostgreSQL for an eleventh callback for changed relations: one that has done all
-- that we do must have room for others.
CREATE FUNCTION take_all(events behavior.event[]) RETURNS void LANGUAGE plpgsql AS $$ BEGIN PERFORM count(*) FROM unnest(events); END $$;
SELECT behavior.create_event_type('A');
SELECT behavior.create_subscription('all', '{"detail-type": ["A"]}', 'take_all');
SELECT behavior.create_rollup('by_type', $$SELECT type, count(*) AS n FROM behavior.event GROUP BY 1$$);
CALL behavior.tick();
INSERT INTO behavior.event (type) VALUES ('A');
CALL behavior.tick();
INSERT INTO behavior.event (type) VALUES ('A');
SELECT * FROM by_type;
SELECT pg_filenode_relation(0, pg_relation_filenode('pg_proc'));

-- move.sql: from the stage into the events table, each event once.
--
-- Rows go in in the order of their keys, so that neighbours share index pages: the larger the index, the more this saves.
-- ON CONFLICT costs a look into the index, a lock and a WAL record a row, a third of the instructions.  So the rows are
-- first inserted without it; when that fails, and from then on until a batch without duplicates has been seen, with it.
CREATE PROCEDURE hand.move() LANGUAGE plpgsql AS $$
DECLARE
	batch bigint;
	hope boolean;
	rows bigint;
BEGIN
	-- Waits for the COPY that is under way, and makes the next one wait for as long as it takes to swap two names.
	LOCK TABLE hand.stage IN ACCESS EXCLUSIVE MODE;
	ALTER TABLE hand.stage RENAME TO stage_full;
	ALTER TABLE hand.stage_spare RENAME TO stage;
	ALTER TABLE hand.stage_full RENAME TO stage_spare;
	COMMIT;

	SET LOCAL work_mem = '128MB';
	SET LOCAL jit = off;
	UPDATE hand.moved SET batch_id = batch_id + 1 RETURNING batch_id, hopeful INTO batch, hope;
	IF hope THEN
		BEGIN
			INSERT INTO hand.event (event_id, source, type, user_id, anonymous_id, occurred_at, properties, batch_id)
				SELECT event_id, source, type, user_id, anonymous_id, occurred_at, properties, batch
				FROM hand.stage_spare
				ORDER BY event_id;
		EXCEPTION WHEN unique_violation THEN
			hope := false;
		END;
	END IF;
	IF NOT hope THEN
		INSERT INTO hand.event (event_id, source, type, user_id, anonymous_id, occurred_at, properties, batch_id)
			SELECT event_id, source, type, user_id, anonymous_id, occurred_at, properties, batch
			FROM hand.stage_spare
			ORDER BY event_id
			ON CONFLICT DO NOTHING;
		GET DIAGNOSTICS rows = ROW_COUNT;
		UPDATE hand.moved SET hopeful = rows = (SELECT count(*) FROM hand.stage_spare);
	END IF;
	TRUNCATE hand.stage_spare;
	COMMIT;
END
$$;

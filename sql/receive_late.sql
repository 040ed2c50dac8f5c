-- Late events of an ordered subscription that is received from: they come first, and do not make the rest of their actor
-- wait behind everybody else.
SET client_min_messages = warning;
SELECT behavior.create_subscription('ordered', '{"detail-type": ["x"]}', ordered => true, reorder_window => '0');
CALL behavior.tick();
INSERT INTO behavior.event (event_id, type, user_id) VALUES ('first', 'x', 'nobody');
CALL behavior.tick();
-- The watermark is now the clock.
SELECT (event).event_id FROM behavior.receive('ordered');
INSERT INTO behavior.event (event_id, type, user_id) VALUES ('ann 1', 'x', 'ann');
INSERT INTO behavior.event (event_id, type, user_id) VALUES ('bob 1', 'x', 'bob');
CALL behavior.tick();
INSERT INTO behavior.event (event_id, type, user_id, occurred_at) VALUES
	('ann late', 'x', 'ann', '2024-05-01 10:00Z'), ('bob late', 'x', 'bob', '2024-05-01 11:00Z');
CALL behavior.tick();
SELECT (event).event_id FROM behavior.receive('ordered');
SELECT matched, delivered, lag_events FROM behavior.subscription;

-- Settings: defaults, and which values are refused.
SELECT name, setting, unit, context FROM pg_settings WHERE name LIKE 'behavior.%' ORDER BY name;
\set VERBOSITY sqlstate
SET behavior.default_source = '';
SET behavior.on_invalid = 'maybe';
SET behavior.correlation_id = 'order 17';
SHOW behavior.correlation_id;
SET behavior.no_such_setting = 1;
CREATE ROLE regress_settings_role;
SET ROLE regress_settings_role;
SET behavior.max_past = '1d';
SET behavior.default_source = 'shop';
SHOW behavior.default_source;
RESET ROLE;
DROP ROLE regress_settings_role;

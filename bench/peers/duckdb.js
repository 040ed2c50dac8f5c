// duckdb.js: one step with DuckDB, as JSON on stdout.  Arguments: folder of node modules, database file, step, and a file of
// events (load) or the first minute of the dashboard (query).
const path = require('path');
const [modules, file, step, argument] = process.argv.slice(2);
const { DuckDBInstance } = require(path.join(modules, '@duckdb', 'node-api'));

const columns = `{'event_id': 'UUID', 'source': 'VARCHAR', 'type': 'VARCHAR', 'user_id': 'VARCHAR', 'anonymous_id': 'VARCHAR',
	'occurred_at': 'TIMESTAMPTZ', 'properties': 'JSON'}`;
const steps = {
	// One statement for a whole file is how DuckDB wants to be loaded; OR IGNORE is its way to send again.
	load: `INSERT OR IGNORE INTO event SELECT * FROM read_csv('${argument}', header = false, columns = ${columns})`,
	query: `SELECT properties ->> '$.page' AS page, count(*)::INTEGER AS views,
			approx_count_distinct(coalesce(user_id, anonymous_id))::INTEGER AS visitors
		FROM event WHERE type = 'PageView' AND occurred_at >= '${argument}'
		GROUP BY 1 ORDER BY views DESC, page LIMIT 10`,
	count: 'SELECT count(*)::INTEGER FROM event',
	version: 'SELECT version()',
};

async function main() {
	const instance = await DuckDBInstance.create(file);
	const connection = await instance.connect();
	await connection.run(`SET TimeZone = 'UTC'`);
	if (step === 'load')
		await connection.run(`CREATE TABLE IF NOT EXISTS event (event_id UUID, source VARCHAR, type VARCHAR, user_id VARCHAR,
			anonymous_id VARCHAR, occurred_at TIMESTAMPTZ, properties JSON, PRIMARY KEY (event_id, source))`);
	const times = [];
	let rows;
	for (let i = 0; i < (step === 'query' ? 5 : 1); i++) {
		const start = performance.now();
		rows = (await connection.runAndReadAll(steps[step])).getRows();
		times.push((performance.now() - start) / 1000);
	}
	times.sort((a, b) => a - b);
	if (step === 'load')
		await connection.run('CHECKPOINT');
	console.log(JSON.stringify({ seconds: times[times.length >> 1], rows }, (_, value) => typeof value === 'bigint' ? Number(value) : value));
}

main().catch(error => {
	console.error(error.message);
	process.exit(1);
});

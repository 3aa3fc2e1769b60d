// Runs the SQL statements that come as a JSON array on standard input and prints
// for each the rows of its last result, as an array of arrays of strings.
import { createRequire } from 'node:module';
import { readFileSync } from 'node:fs';

const require = createRequire(process.argv[2] + '/');
const { DuckDBInstance } = require('@duckdb/node-api');

const connection = await (await DuckDBInstance.create(':memory:', { threads: '2' })).connect();
const results = [];
for (const sql of JSON.parse(readFileSync(0, 'utf8'))) {
  try {
    const reader = await connection.runAndReadAll(sql);
    results.push({ rows: reader.getRows().map((row) => row.map((value) => (value === null ? null : String(value)))) });
  } catch (error) {
    results.push({ error: String(error) });
  }
}
process.stdout.write(JSON.stringify(results));

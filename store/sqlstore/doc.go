// Package sqlstore keeps Remit's state in SQLite or in PostgreSQL. It
// implements the contracts of the store in the root package
// ([remit.InventoryWriter], [remit.InventoryReader], [remit.FindingStore],
// [remit.ActivityWriter], [remit.ActivityReader], [remit.ResponseStore]) once,
// over database/sql; package storetest is the suite that both engines pass.
//
// # Layout
//
// Each kind of record has a table of its current versions and a table of its
// former ones. The record itself is the JSON in "doc"; beside it stand only the
// columns that a filter, an order or a join needs. A record is written once
// when it is first seen. When it changes or goes, the former version moves to
// the history; so the first load costs one row a record, and the tables that
// everyday questions read do not grow with time.
//
// Counts are kept as counters, changed by the difference that each write makes
// and in its transaction; they are never counted by scanning.
//
// A response is one row that is written over. Its version is a column, which
// every write tests in the statement that writes.
//
// # Reading
//
// A list is the merge of ordered walks, one a system, each along an index in
// the order of the page, so that a page costs the same at the beginning of the
// list and at its end. A filter that chooses few rows is better served by its
// own index and a sort; which it is, is found by counting up to a bound in the
// index of the filter (see [probeLimit]), because the answer must not depend
// on statistics that a bulk load has just made stale. A question about the past
// adds walks over the history.
//
// # Text from outside
//
// Names are hostile. Text that is not UTF-8 is kept with U+FFFD in the place of
// each bad byte, as every JSON document that leaves Remit would show it; the
// ID, made of the raw bytes, still tells two such names apart. NUL, which
// PostgreSQL cannot store, and text too long for an index are encoded in the
// columns (see columnText) and whole in the record.
package sqlstore

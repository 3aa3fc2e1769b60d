package sqlstore

import (
	"bytes"
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"
	"text/template"

	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"

	"remit"
)

//go:embed migrations/*.sql
var migrationFiles embed.FS

// schemaKind is what a migration needs to know of a kind of record.
type schemaKind struct {
	schemaWords
	Table   string
	Columns []schemaColumn
}

type schemaColumn struct {
	Name, Type, Index, Where string
	Reference                bool
}

func newSchemaKind[T any](w schemaWords, k *kind[T]) schemaKind {
	out := schemaKind{schemaWords: w, Table: k.table()}
	for _, c := range k.shapes() {
		typ := map[columnType]string{textColumn: w.Text, intColumn: w.Int, smallColumn: w.Small, blobColumn: w.Blob}[c.typ]
		out.Columns = append(out.Columns, schemaColumn{Name: c.name, Type: typ, Index: c.index, Where: c.where, Reference: c.reference})
	}
	return out
}

// migrations renders the embedded files for an engine: each is a template of
// one schema, so that the two cannot drift apart.
func migrations(e engine) ([]*goose.Migration, error) {
	words := e.schema()
	data := struct {
		schemaWords
		Kinds []schemaKind
	}{words, []schemaKind{
		newSchemaKind(words, identities),
		newSchemaKind(words, credentials),
		newSchemaKind(words, roles),
		newSchemaKind(words, grants),
		newSchemaKind(words, relations),
		newSchemaKind(words, resources),
	}}
	files, err := fs.Glob(migrationFiles, "migrations/*.sql")
	if err != nil {
		return nil, err
	}
	var out []*goose.Migration
	for _, file := range files {
		number, _, _ := strings.Cut(path.Base(file), "_")
		version, err := strconv.ParseInt(number, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("migration %s has no number: %w", file, err)
		}
		t, err := template.ParseFS(migrationFiles, file)
		if err != nil {
			return nil, err
		}
		var rendered bytes.Buffer
		if err := t.Execute(&rendered, data); err != nil {
			return nil, err
		}
		statements := splitStatements(rendered.String())
		out = append(out, goose.NewGoMigration(version, &goose.GoFunc{
			RunTx: func(ctx context.Context, tx *sql.Tx) error {
				for _, s := range statements {
					if _, err := tx.ExecContext(ctx, s); err != nil {
						first, _, _ := strings.Cut(s, "\n")
						return fmt.Errorf("%w in %s", err, first)
					}
				}
				return nil
			},
		}, nil))
	}
	return out, nil
}

// splitStatements splits at semicolons that end a line and drops comments.
func splitStatements(script string) []string {
	var out []string
	var b strings.Builder
	for line := range strings.Lines(script) {
		if code, _, _ := strings.Cut(line, "--"); strings.TrimSpace(code) == "" {
			continue
		}
		b.WriteString(line)
		if strings.HasSuffix(strings.TrimSpace(line), ";") {
			out = append(out, b.String())
			b.Reset()
		}
	}
	return out
}

// migrate brings the schema to the version of this binary. One process does it
// at a time; the caller, or locker, sees to that.
func migrate(ctx context.Context, db *sql.DB, e engine, locker lock.SessionLocker) error {
	const op = "migrate store"
	list, err := migrations(e)
	if err != nil {
		return remit.Errorf(remit.Internal, op, "%w", err)
	}
	options := []goose.ProviderOption{
		goose.WithGoMigrations(list...),
		goose.WithDisableGlobalRegistry(true),
		goose.WithLogger(goose.NopLogger()),
		goose.WithTableName("schema_version"),
	}
	if locker != nil {
		options = append(options, goose.WithSessionLocker(locker))
	}
	p, err := goose.NewProvider(e.dialect(), db, nil, options...)
	if err != nil {
		return remit.Errorf(remit.Internal, op, "%w", err)
	}
	if _, err := p.Up(ctx); err != nil {
		var partial *goose.PartialError
		if errors.As(err, &partial) {
			err = partial.Err
		}
		return e.failure(op, err)
	}
	have, err := p.GetDBVersion(ctx)
	if err != nil {
		return e.failure(op, err)
	}
	if known := list[len(list)-1].Version; have > known {
		return remit.Errorf(remit.Conflict, op,
			"the store has schema version %d and this binary knows versions up to %d: use the newer binary that wrote it, or restore a backup taken before", have, known)
	}
	return nil
}

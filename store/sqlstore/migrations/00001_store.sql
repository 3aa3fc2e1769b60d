-- The first schema. It is a template, because the two engines differ in the
-- names of a few column types and in how they index words; see schema.go for
-- what the placeholders stand for. Statements end with a semicolon at the end
-- of a line.
--
-- Times are microseconds since 1970 in UTC; 0 is "not known", except in
-- "expires", where what never ends sorts last. Text columns hold the form that
-- text.go describes: ordered by bytes, bounded in length, free of NUL. Only
-- "doc" holds the record itself.

{{define "record" -}}
	id          {{.Text}} NOT NULL,
	system      {{.Int}} NOT NULL REFERENCES systems (key),
	section     {{.Text}} NOT NULL,
	valid_from  {{.Int}} NOT NULL,
	learned_at  {{.Int}} NOT NULL,
	kind        {{.Text}} NOT NULL,
	namespace   {{.Text}} NOT NULL,
	name        {{.Text}} NOT NULL,
	environment {{.Text}} NOT NULL,
	built_in    {{.Small}} NOT NULL,
	created     {{.Int}} NOT NULL,
{{- range .Columns}}
	{{.Name}} {{.Type}} NOT NULL,
{{- end}}
{{- end}}

CREATE TABLE systems (
	key       {{.Key}},
	id        {{.Text}} NOT NULL UNIQUE,
	connector {{.Text}},
	name      {{.Text}} UNIQUE, -- NULL: findings speak of it, and it was never put
	doc       {{.Text}}
);

-- How many current records of a kind have each value of each facet. facet_key
-- bounds what the primary key holds; value is the whole of it.
CREATE TABLE facet_counts (
	system    {{.Int}} NOT NULL REFERENCES systems (key),
	kind      {{.Text}} NOT NULL,
	facet     {{.Text}} NOT NULL,
	facet_key {{.Text}} NOT NULL,
	value     {{.Text}} NOT NULL,
	n         {{.Int}} NOT NULL,
	PRIMARY KEY (system, kind, facet, facet_key)
){{.WithoutRowid}};

{{range .Kinds}}{{$table := .Table}}
CREATE TABLE {{.Table}} (
	key         {{.Key}},
{{template "record" .}}
{{- if .WordsColumn}}
	words {{.WordsColumn}} NOT NULL,
{{- end}}
	hash {{.Blob}} NOT NULL,
	doc  {{.Text}} NOT NULL
);

-- The identity of a record. The uniqueness also settles a race of two writers.
CREATE UNIQUE INDEX {{.Table}}_by_id ON {{.Table}} (id);

-- The default order, and the answer to a page of it. valid_from lets a question
-- about the past pass over what is younger without reading the row.
CREATE INDEX {{.Table}}_by_name ON {{.Table}} (system, namespace, name, id, valid_from);
CREATE INDEX {{.Table}}_by_kind ON {{.Table}} (system, kind, namespace, name, id);
CREATE INDEX {{.Table}}_by_created ON {{.Table}} (system, created, id);

-- A completed listing walks its section in the order of the keys.
CREATE INDEX {{.Table}}_by_section ON {{.Table}} (system, section, key);

-- Where one value is the rule, only the exceptions are indexed: whoever asks
-- for the rule finds it on every page of the default order.
CREATE INDEX {{.Table}}_by_environment ON {{.Table}} (environment) WHERE environment <> '';
CREATE INDEX {{.Table}}_by_built_in ON {{.Table}} (system) WHERE built_in = 1;
{{- range .Columns}}{{if .Index}}
CREATE INDEX {{$table}}_by_{{.Name}} ON {{$table}} ({{.Index}}){{if .Where}} WHERE {{.Where}}{{end}};
{{- end}}{{end}}

{{call .CreateWords .Table}}

-- Former versions, written when a record changes or goes. The indexes serve
-- the history of one record, the state at a recent time, the default order at
-- any time (without reading rows that lie outside it), and the references.
CREATE TABLE {{.Table}}_history (
	key {{.Key}},

{{template "record" .}}
	valid_to {{.Int}} NOT NULL,
	removed  {{.Small}} NOT NULL,
	doc      {{.Text}} NOT NULL
);

CREATE INDEX {{.Table}}_history_by_id ON {{.Table}}_history (id, valid_to);
CREATE INDEX {{.Table}}_history_by_valid_to ON {{.Table}}_history (valid_to);
CREATE INDEX {{.Table}}_history_by_name ON {{.Table}}_history (system, namespace, name, id, valid_from, valid_to);
{{- range .Columns}}{{if .Reference}}
CREATE INDEX {{$table}}_history_by_{{.Name}} ON {{$table}}_history ({{.Name}});
{{- end}}{{end}}
{{end}}

-- Who answers for an identity, a row a name.
CREATE TABLE identity_owners (
	owner    {{.Text}} NOT NULL,
	identity {{.Int}} NOT NULL REFERENCES identities (key) ON DELETE CASCADE,
	PRIMARY KEY (owner, identity)
){{.WithoutRowid}};

CREATE INDEX identity_owner_by_identity ON identity_owners (identity);

CREATE TABLE findings (
	key        {{.Key}},
	id         {{.Text}} NOT NULL UNIQUE,
	system     {{.Int}} NOT NULL REFERENCES systems (key),
	policy     {{.Text}} NOT NULL,
	state      {{.Text}} NOT NULL,
	weight     {{.Small}} NOT NULL, -- the worst severity is the least
	subject    {{.Text}} NOT NULL,
	identity   {{.Text}} NOT NULL,
	kind       {{.Text}} NOT NULL,
	namespace  {{.Text}} NOT NULL,
	name       {{.Text}} NOT NULL,
	created    {{.Int}} NOT NULL,
	put_at     {{.Int}} NOT NULL, -- when an evaluation last found it
{{- if .WordsColumn}}
	words      {{.WordsColumn}} NOT NULL,
{{- end}}
	doc        {{.Text}} NOT NULL
);

-- Every order begins with the state: there are four, so a list merges at most
-- four walks, and the resolved ones, in time nearly all, cost the others nothing.
CREATE INDEX findings_by_weight ON findings (state, weight, namespace, name, id);
CREATE INDEX findings_by_name ON findings (state, namespace, name, id);
CREATE INDEX findings_by_kind ON findings (state, kind, namespace, name, id);
CREATE INDEX findings_by_created ON findings (state, created, id);
CREATE INDEX findings_by_system ON findings (system, state, policy);
CREATE INDEX findings_by_policy ON findings (policy);
CREATE INDEX findings_by_subject ON findings (subject);
CREATE INDEX findings_by_identity ON findings (identity) WHERE identity <> '';

{{call .CreateWords "findings"}}

CREATE TABLE finding_risks (
	risk    {{.Text}} NOT NULL,
	finding {{.Int}} NOT NULL REFERENCES findings (key) ON DELETE CASCADE,
	PRIMARY KEY (risk, finding)
){{.WithoutRowid}};

CREATE INDEX finding_risk_by_finding ON finding_risks (finding);

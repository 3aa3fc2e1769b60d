-- What is aggregated from activity. Events themselves are in the archive, never
-- here. Every table but the positions and the manifest belongs to one system.

CREATE TABLE activity_positions (
	source   {{.Text}} NOT NULL PRIMARY KEY,
	position {{.Int}} NOT NULL,
	detail   {{.Blob}} NOT NULL,
	updated  {{.Int}} NOT NULL
);

CREATE TABLE presences (
	id     {{.Text}} NOT NULL PRIMARY KEY, -- the identity's
	system {{.Text}} NOT NULL,
	last   {{.Int}} NOT NULL,
	doc    {{.Text}} NOT NULL
);

CREATE INDEX presences_by_system ON presences (system, id);

-- One row for each combination that was seen; id is a hash of it.
CREATE TABLE usage_counts (
	id        {{.Text}} NOT NULL PRIMARY KEY,
	system    {{.Text}} NOT NULL,
	identity  {{.Text}} NOT NULL,
	root      {{.Text}} NOT NULL,
	binding   {{.Text}} NOT NULL, -- kind namespace/name
	first     {{.Int}} NOT NULL,
	last      {{.Int}} NOT NULL,
	n         {{.Int}} NOT NULL,
	doc       {{.Text}} NOT NULL
);

CREATE INDEX usage_by_identity ON usage_counts (identity, id);
CREATE INDEX usage_by_binding ON usage_counts (system, binding, id) WHERE binding <> '';
CREATE INDEX usage_by_root ON usage_counts (root, id);

CREATE TABLE lineage (
	id         {{.Text}} NOT NULL PRIMARY KEY, -- a hash of system and credential
	system     {{.Text}} NOT NULL,
	credential {{.Text}} NOT NULL,
	identity   {{.Text}} NOT NULL,
	parent     {{.Text}} NOT NULL,
	root       {{.Text}} NOT NULL,
	forked     {{.Small}} NOT NULL,
	selfminted {{.Small}} NOT NULL,
	last       {{.Int}} NOT NULL,
	doc        {{.Text}} NOT NULL
);

CREATE INDEX lineage_by_system ON lineage (system, id);
CREATE INDEX lineage_by_credential ON lineage (credential);
CREATE INDEX lineage_by_identity ON lineage (identity, id);
CREATE INDEX lineage_by_parent ON lineage (parent, id) WHERE parent <> '';
CREATE INDEX lineage_by_root ON lineage (root, id);

-- Which events were counted: hashes of their IDs, a set an hour and checkpoint.
CREATE TABLE activity_seen (
	key     {{.Key}},
	system  {{.Text}} NOT NULL,
	hour    {{.Int}} NOT NULL,
	learned {{.Int}} NOT NULL,
	ids     {{.Blob}} NOT NULL
);

CREATE INDEX activity_seen_by_hour ON activity_seen (system, hour);

CREATE TABLE activity_states (
	system {{.Text}} NOT NULL,
	kind   {{.Text}} NOT NULL,
	name   {{.Text}} NOT NULL,
	data   {{.Blob}} NOT NULL,
	PRIMARY KEY (system, kind, name)
){{.WithoutRowid}};

-- The manifest of the archive: only files that it lists are read.
CREATE TABLE archive_files (
	path   {{.Text}} NOT NULL PRIMARY KEY,
	system {{.Text}} NOT NULL,
	hour   {{.Int}} NOT NULL,
	doc    {{.Text}} NOT NULL
);

CREATE INDEX archive_files_by_hour ON archive_files (system, hour);

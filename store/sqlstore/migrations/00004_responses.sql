-- Plans to change systems. version counts the writes of a row, and a write names
-- the one that it was made from. The whole of a response is in doc.
CREATE TABLE responses (
	id      {{.Text}} NOT NULL PRIMARY KEY,
	system  {{.Text}} NOT NULL,
	subject {{.Text}} NOT NULL, -- its ID
	state   {{.Text}} NOT NULL,
	made    {{.Int}} NOT NULL,
	version {{.Int}} NOT NULL,
	doc     {{.Text}} NOT NULL
);

-- The order of a list, of all and of one system; and what chooses few: in time
-- nearly all responses have come to an end, and workers ask for the others.
CREATE INDEX responses_by_made ON responses (made, id);
CREATE INDEX responses_by_system ON responses (system, made, id);
CREATE INDEX responses_by_subject ON responses (subject);
CREATE INDEX responses_by_state ON responses (state);

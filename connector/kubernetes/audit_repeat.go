package kubernetes

import (
	"bytes"

	"remit"
	"remit/connector"
)

// What of an audit event is its own.
const (
	ownID = iota
	ownReceived
	ownStaged
	ownVersion // of the object, which changes with every write to it
)

// ownMarks stand before those values, in the order in which an API server writes
// them. The text of a JSON string has no quote that is not escaped, so a mark is
// always a key and what follows its value; but not always one of the event
// itself, which the pipeline finds out when it decodes the first of its kind.
var ownMarks = [...]struct {
	text  []byte
	field int
}{
	{[]byte(`"auditID":"`), ownID},
	{[]byte(`"requestReceivedTimestamp":"`), ownReceived},
	{[]byte(`"stageTimestamp":"`), ownStaged},
}

var (
	plainEvent  = []byte(`{"kind":"Event","apiVersion":"audit.k8s.io/v1"`)
	objectRef   = []byte(`"objectRef":{`)
	versionMark = []byte(`"resourceVersion":"`)
)

// The longest values of their own: an API server takes 64 characters of an ID
// from a client.
const ownLongest = 64

// Own implements [connector.Repeater] for plain events on a line.
func (audit) Own(raw []byte, spans []connector.Span) ([]connector.Span, bool) {
	if !bytes.HasPrefix(raw, plainEvent) {
		return spans, false
	}
	at := len(plainEvent)
	for i := range ownMarks {
		m := &ownMarks[i]
		n := bytes.Index(raw[at:], m.text)
		if n < 0 {
			return spans, false
		}
		if m.field == ownReceived {
			if s, ok := ownValue(raw[:at+n], versionIn(raw, at, at+n), ownVersion); ok {
				spans = append(spans, s)
			}
		}
		s, ok := ownValue(raw, at+n+len(m.text), m.field)
		// What has a point in it might be a token.
		if !ok || m.field == ownID && bytes.IndexByte(raw[s.Start:s.End], '.') >= 0 {
			return spans, false
		}
		spans = append(spans, s)
		at = s.End
	}
	return spans, true
}

// versionIn is where the version of the object begins between two places, 0 when
// it has none.
func versionIn(raw []byte, from, to int) int {
	n := bytes.Index(raw[from:to], objectRef)
	if n < 0 {
		return 0
	}
	from += n + len(objectRef)
	if n = bytes.IndexByte(raw[from:to], '}'); n < 0 {
		return 0
	}
	to = from + n
	if n = bytes.Index(raw[from:to], versionMark); n < 0 {
		return 0
	}
	return from + n + len(versionMark)
}

// ownValue is the value that begins there, up to its quote.
func ownValue(raw []byte, start, field int) (connector.Span, bool) {
	end := start
	for end < len(raw) && plainByte[raw[end]] {
		end++
	}
	ok := start > 0 && end > start && end-start <= ownLongest && end < len(raw) && raw[end] == '"'
	return connector.Span{Start: start, End: end, Field: field}, ok
}

var plainByte = func() (plain [256]bool) {
	for c := range plain {
		plain[c] = c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '-' || c == ':' || c == '.' || c == '+'
	}
	return plain
}()

// OwnFields implements [connector.Repeater].
func (audit) OwnFields() []string { return ownFields }

var ownFields = []string{"auditID", "objectRef.resourceVersion", "requestReceivedTimestamp", "stageTimestamp"}

// Again implements [connector.Repeater].
func (audit) Again(raw []byte, spans []connector.Span, a *remit.Activity) bool {
	for _, s := range spans {
		switch s.Field {
		case ownID:
			a.ID = string(raw[s.Start:s.End])
		case ownReceived:
			if a.Time = connector.ParseTime(raw[s.Start:s.End]); a.Time.IsZero() {
				return false
			}
		}
	}
	return true
}

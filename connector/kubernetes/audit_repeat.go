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

// What stands around those values, in the order in which an API server writes it.
// The text of a JSON string has no quote that is not escaped, so a mark is always
// a key and what follows its value; but not always one of the event itself, which
// the pipeline finds out when it decodes the first of its kind.
var (
	plainEvent   = []byte(`{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"`)
	auditIDMark  = []byte(`","auditID":"`)
	receivedMark = []byte(`"requestReceivedTimestamp":"`)
	stagedMark   = []byte(`"stageTimestamp":"`)
	objectRef    = []byte(`"objectRef":{`)
	versionMark  = []byte(`"resourceVersion":"`)
)

// The longest values of their own: an API server takes 64 characters of an ID
// from a client.
const ownLongest = 64

// Own implements [connector.Repeater] for plain events on a line.
func (audit) Own(raw []byte, spans []connector.Span) ([]connector.Span, bool) {
	if !bytes.HasPrefix(raw, plainEvent) {
		return spans, false
	}
	level := len(plainEvent)
	n := bytes.IndexByte(raw[level:], '"')
	if n < 0 || !bytes.HasPrefix(raw[level+n:], auditIDMark) {
		return spans, false
	}
	id, ok := ownValue(raw, level+n+len(auditIDMark), ownID)
	// What has a point in it might be a token.
	if !ok || bytes.IndexByte(raw[id.Start:id.End], '.') >= 0 {
		return spans, false
	}
	at := index(raw, id.End, receivedMark, 'T')
	received, ok := ownValue(raw, at, ownReceived)
	if !ok {
		return spans, false
	}
	spans = append(spans, id)
	if version, ok := ownValue(raw[:at], versionIn(raw[:at], id.End), ownVersion); ok {
		spans = append(spans, version)
	}
	staged, ok := ownValue(raw, index(raw, received.End, stagedMark, 'T'), ownStaged)
	return append(spans, received, staged), ok
}

// index is where what follows a mark begins, 0 when it is not there. It looks for
// a letter of the mark that is rare in events, which is much faster than to look
// for the mark.
func index(raw []byte, from int, mark []byte, rare byte) int {
	before := bytes.IndexByte(mark, rare)
	for at := from; ; at++ {
		n := bytes.IndexByte(raw[at:], rare)
		if n < 0 {
			return 0
		}
		at += n
		if start := at - before; start >= from && bytes.HasPrefix(raw[start:], mark) {
			return start + len(mark)
		}
	}
}

// versionIn is where the version of the object begins, 0 when it has none.
func versionIn(raw []byte, from int) int {
	if from = index(raw, from, objectRef, 'R'); from == 0 {
		return 0
	}
	n := bytes.IndexByte(raw[from:], '}')
	if n < 0 {
		return 0
	}
	return index(raw[:from+n], from, versionMark, 'V')
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

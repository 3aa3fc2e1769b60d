package connector

import "remit"

// Repeater is a decoder that can tell, without parsing, in what a raw event
// differs from others like it. Machines do the same few things again and again:
// what was decoded of one of their events holds for the next.
type Repeater interface {
	Decoder

	// Own finds the values in the text of one raw event that are its own, as
	// its ID and its times are, and appends where they begin and end, in the
	// order of the text. Each is a string of letters, digits and "-:.+" only. ok
	// is false for text in which they do not stand where they usually do.
	//
	// Two texts that are equal but for these values are decoded to activities
	// that are equal but for what Again sets, and both, or neither, are changed
	// by Strip.
	Own(raw []byte, spans []Span) (_ []Span, ok bool)

	// OwnFields are the paths of those values, as rules name them.
	OwnFields() []string

	// Again sets in a, which was decoded from an event of the same text, what is
	// raw's own. false when raw's values are of another form than they should be.
	Again(raw []byte, spans []Span, a *remit.Activity) bool
}

// Span is a part of a text, from Start to before End; Field is for the decoder.
type Span struct{ Start, End, Field int }

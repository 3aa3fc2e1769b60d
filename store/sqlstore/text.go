package sqlstore

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"unicode/utf8"
)

// maxColumnText bounds a text column, in bytes. The widest index holds
// three such texts, an ID and three integers, and PostgreSQL refuses an index entry
// of more than 2704 bytes.
const maxColumnText = 512

// cutMark stands before the hash of a text that was cut. storedText never
// writes it.
const cutMark = "\x01\x03"

// cleanText returns s with U+FFFD in the place of each byte that is not part of
// valid UTF-8: exactly what encoding/json writes for it.
func cleanText(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	return string([]rune(s))
}

var (
	escapeText   = strings.NewReplacer("\x00", "\x01\x01", "\x01", "\x01\x02")
	unescapeText = strings.NewReplacer("\x01\x01", "\x00", "\x01\x02", "\x01")
)

// storedText returns s in a form that both engines hold: valid UTF-8 without
// NUL. The order of two texts by their bytes stays.
func storedText(s string) string {
	s = cleanText(s)
	if strings.IndexByte(s, 0) < 0 && strings.IndexByte(s, 1) < 0 {
		return s
	}
	return escapeText.Replace(s)
}

// originalText undoes storedText.
func originalText(s string) string {
	if strings.IndexByte(s, 1) < 0 {
		return s
	}
	return unescapeText.Replace(s)
}

// columnText returns s as the columns hold it: storedText, and of a text longer
// than maxColumnText its beginning and a hash of all of it, so that equal
// columns still mean equal texts.
func columnText(s string) string { return columnTextOf(storedText(s)) }

// columnTextOf is columnText of what is already stored text.
func columnTextOf(s string) string {
	if len(s) <= maxColumnText {
		return s
	}
	sum := sha256.Sum256([]byte(s))
	const tail = len(cutMark) + 2*16
	cut := maxColumnText - tail
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + cutMark + hex.EncodeToString(sum[:16])
}

// columnTexts is columnText of each, of any type that is text.
func columnTexts[S ~string](list []S) []string {
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = columnText(string(s))
	}
	return out
}

// wholeText undoes columnText where the text was not cut.
func wholeText(column string) (s string, whole bool) {
	if strings.Contains(column, cutMark) {
		return "", false
	}
	return originalText(column), true
}

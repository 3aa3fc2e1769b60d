package sqlstore

import (
	"fmt"
	"strings"
	"unicode"
)

// Names are searched by word, and both engines must find the same. So neither
// engine's own idea of a word, of case or of a language takes part: names are
// split and lowered here, and each word is written in ASCII before an engine
// sees it. The engines only compare bytes.

const (
	// maxWordRunes bounds an indexed word (a PostgreSQL lexeme holds 2 KB).
	maxWordRunes = 128
	// maxWords bounds how many words of one name are indexed. Words beyond it
	// are not found; a name has a handful.
	maxWords = 256
)

// searchWords returns the words of s: runs of letters and digits in lower case.
func searchWords(s string) []string {
	return strings.FieldsFunc(strings.Map(unicode.ToLower, cleanText(s)), func(r rune) bool {
		return !unicode.IsLetter(r) && !unicode.IsDigit(r)
	})
}

// indexedWords returns the words of a name as the engines index them: each
// once, bounded, encoded, with a space between.
func indexedWords(name string) string {
	words := searchWords(name)
	if len(words) == 0 {
		return ""
	}
	var b strings.Builder
	seen := make(map[string]bool, len(words))
	for _, w := range words {
		if seen[w] {
			continue
		}
		seen[w] = true
		if b.Len() > 0 {
			b.WriteByte(' ')
		}
		writeWord(&b, w)
		if len(seen) == maxWords {
			break
		}
	}
	return b.String()
}

// writeWord writes a word in ASCII. Letters and digits of ASCII stand for
// themselves and any other rune is "_" and six hexadecimal digits: no code is
// the beginning of another, so a prefix of a word is a prefix of what is
// written.
func writeWord(b *strings.Builder, word string) {
	n := 0
	for _, r := range word {
		if n++; n > maxWordRunes {
			return
		}
		if r < 0x80 {
			b.WriteByte(byte(r))
			continue
		}
		fmt.Fprintf(b, "_%06x", r)
	}
}

// encodedWord is writeWord into a string.
func encodedWord(word string) string {
	var b strings.Builder
	writeWord(&b, word)
	return b.String()
}

// nameMatcher returns a test for names in which every word of the search begins
// some word. A search without words asks for nothing, so every name passes.
func nameMatcher(search string) func(name string) bool {
	wanted := searchWords(search)
	return func(name string) bool {
		words := searchWords(name)
		for _, w := range wanted {
			found := false
			for _, have := range words {
				if strings.HasPrefix(have, w) {
					found = true
					break
				}
			}
			if !found {
				return false
			}
		}
		return true
	}
}

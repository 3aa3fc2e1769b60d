package sqlstore

import (
	"cmp"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"
)

// anyText draws texts in which bytes that matter are frequent.
func anyText() *rapid.Generator[string] {
	return rapid.Custom(func(t *rapid.T) string {
		return strings.Join(rapid.SliceOf(rapid.SampledFrom([]string{
			"\x00", "\x01", "\x02", "\x03", "a", "Z", "9", "é", "東", "_", "-", "\xff", "\xc3", "�", strings.Repeat("x", 300),
		})).Draw(t, "parts"), "")
	})
}

func TestStoredText(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := cleanText(anyText().Draw(t, "a")), cleanText(anyText().Draw(t, "b"))
		stored := storedText(a)
		if strings.Contains(stored, "\x00") || !utf8.ValidString(stored) {
			t.Fatalf("%q is stored as %q", a, stored)
		}
		if back := originalText(stored); back != a {
			t.Fatalf("%q comes back as %q", a, back)
		}
		if cmp.Compare(a, b) != cmp.Compare(stored, storedText(b)) {
			t.Fatalf("the order of %q and %q changes", a, b)
		}
		column := columnText(a)
		if len(column) > maxColumnText || !utf8.ValidString(column) {
			t.Fatalf("%q has the column %q", a, column)
		}
		if (column == columnText(b)) != (a == b) {
			t.Fatalf("the columns of %q and %q are %q and %q", a, b, column, columnText(b))
		}
		if column == columnText(column) && a != column && len(a) > maxColumnText {
			t.Fatalf("%q and its column %q are one", a, column)
		}
	})
}

// TestWords: what the engines compare agrees with what is meant.
func TestWords(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		name, search := anyText().Draw(t, "name"), anyText().Draw(t, "search")
		indexed := strings.Fields(indexedWords(name))
		for _, w := range indexed {
			for _, r := range w {
				if r != '_' && (r < '0' || r > '9') && (r < 'a' || r > 'z') {
					t.Fatalf("%q has the word %q", name, w)
				}
			}
		}
		if !nameMatcher(search)(name) {
			return
		}
		for _, w := range searchWords(search) {
			found := false
			for _, have := range indexed {
				found = found || strings.HasPrefix(have, encodedWord(w))
			}
			if !found {
				t.Fatalf("%q is in %q and not in its words %q", w, name, indexed)
			}
		}
	})
}

func TestKeySet(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		keys := rapid.SliceOf(rapid.OneOf(rapid.Int64Range(1, 200_000), rapid.Int64Range(1, 1<<62))).Draw(t, "keys")
		var set keySet
		has := make(map[int64]bool)
		for _, k := range keys {
			set.add(k)
			has[k] = true
		}
		for _, k := range keys {
			for _, near := range []int64{k - 1, k, k + 1, k + 64, k + 32768} {
				if set.has(near) != has[near] {
					t.Fatalf("%d: %t", near, set.has(near))
				}
			}
		}
	})
}

package report

import (
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestVisible(t *testing.T) {
	for text, want := range map[string]string{
		"":                       "",
		"payments/api":           "payments/api",
		"Zürich 日本 עברית 🔑":      "Zürich 日本 עברית 🔑",
		"a\x1b[31mb":             `a\x1b[31mb`,
		"a\nb\rc\td":             `a\nb\rc\td`,
		"a\u202eb":               `a\u202eb`,
		"a\u200bb\ufeffc":        `a\u200bb\ufeffc`,
		"a\u00a0b":               `a\xa0b`,
		"a\u009bb":               `a\x9bb`,
		"a\xffb\xc3":             `a\xffb\xc3`,
		"\U000e0041":             `\U000e0041`,
		"e\u0301":                "e\u0301",
		"\u0301e":                `\u0301e`,
		"e" + mark(3):            "e" + mark(3),
		"e" + mark(5):            "e" + mark(3) + `\u0301\u0301`,
		"\u3164\u2800\ufe0f":     `\u3164\u2800\ufe0f`,
		"back\\slash 'quotes' $": "back\\slash 'quotes' $",
	} {
		if got := Visible(text); got != want {
			t.Errorf("Visible(%q) = %q, want %q", text, got, want)
		}
	}
}

func mark(n int) string { return strings.Repeat("\u0301", n) }

func TestVisibleTwiceIsOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		once := Visible(hostileText.Draw(t, "text"))
		if twice := Visible(once); twice != once {
			t.Fatalf("%q became %q", once, twice)
		}
	})
}

func TestColumns(t *testing.T) {
	for text, want := range map[string]int{"": 0, "abc": 3, "日本": 4, "e\u0301": 1, "🔑": 2, "é": 1, "…": 1} {
		if got := columns(text); got != want {
			t.Errorf("columns(%q) = %d, want %d", text, got, want)
		}
	}
}

func TestCutAndWrap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := Visible(hostileText.Draw(t, "text"))
		limit := rapid.IntRange(0, 60).Draw(t, "limit")
		if n := columns(cut(text, limit)); n > limit {
			t.Fatalf("cut to %d columns it has %d", limit, n)
		}
		if n := columns(pad(text, limit)); n != limit {
			t.Fatalf("padded to %d columns it has %d", limit, n)
		}
		limit = max(limit, 8)
		lines := wrap(text, limit)
		for _, line := range lines {
			if n := columns(line); n > limit {
				t.Fatalf("a line of %d columns, wrapped at %d", n, limit)
			}
		}
		if got, want := strings.Join(strings.Fields(strings.Join(lines, "")), ""), strings.Join(strings.Fields(text), ""); got != want {
			t.Fatalf("wrapping lost text: %q of %q", got, want)
		}
	})
}

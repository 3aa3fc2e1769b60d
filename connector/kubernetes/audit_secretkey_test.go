package kubernetes

import (
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// TestSecretKey says that the fast look at a name says what the plain rule does.
func TestSecretKey(t *testing.T) {
	plain := func(name string) bool {
		return len(name) <= 256 && secretName(strings.ToLower(withoutSeparators.Replace(name)), name == strings.ToUpper(name))
	}
	words := []string{
		"token", "Token", "TOKEN", "secret", "SECRET", "key", "KEY", "access", "api", "password", "pwd", "PWD", "passwd", "private", "client",
		"data", "id", "_", "-", ".", "ref", "Name", "\u212a", "é", "", "0", strings.Repeat("x", 250),
	}
	rapid.Check(t, func(t *rapid.T) {
		name := strings.Join(rapid.SliceOfN(rapid.OneOf(rapid.SampledFrom(words), rapid.String()), 0, 5).Draw(t, "name"), "")
		if got, want := secretKey(name), plain(name); got != want {
			t.Fatalf("%q: %t, want %t", name, got, want)
		}
	})
}

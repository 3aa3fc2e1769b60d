package policy

import (
	"io/fs"
	"testing"
	"testing/fstest"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"remit"
)

// FuzzDocuments: whatever stands in a file, it is a policy, an override or a
// problem with a place in that file, and never a panic.
func FuzzDocuments(f *testing.F) {
	source := Pack()
	files, err := policyFiles(source.FS)
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		content, err := fs.ReadFile(source.FS, file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(content[:min(len(content), 4000)])
	}
	f.Add([]byte("override: [a, \"*\"]\nparameters: {x: [1, 2]}\nscope: {except: [{labels: {a: b}}]}\n"))
	f.Add([]byte("&a [*a, *a]\n---\n? {a: b}\n: c\n"))
	f.Fuzz(func(t *testing.T, content []byte) {
		set, err := load([]Source{{FS: fstest.MapFS{"f.yaml": {Data: content}}}})
		if err != nil {
			t.Fatal(err)
		}
		lines := len(splitLines(string(content)))
		for _, p := range set.Problems() {
			// A file that ends too early is at fault behind its end.
			if p.Line < 1 || p.Line > lines+1 || p.Column < 1 || p.Message == "" {
				t.Errorf("problem without a place: %s (the file has %d lines)", p, lines)
			}
		}
		for _, p := range set.Policies() {
			if p.ID == "" || p.Severity.Rank() == 0 {
				t.Errorf("a policy without id or severity: %+v", p)
			}
		}
	})
}

// FuzzExpression: whatever an author writes as a condition and a message, it
// is a problem, an error, or a result.
func FuzzExpression(f *testing.F) {
	for _, p := range pack(f).Policies() {
		f.Add(p.Match, p.Message)
	}
	f.Add(`[1].map(x, [x, x]).map(x, x + x)`, `{"a".matches("(a+)+$")} {{ }}`)
	f.Add(`credential.labels.exists(k, credential.labels[k] == k)`, `{credential.labels}{credential}{now - duration("1s")}`)
	all := records(f, shop)
	f.Fuzz(func(t *testing.T, match, message string) {
		if !utf8.ValidString(match) || !utf8.ValidString(message) || match == "" || message == "" {
			t.Skip()
		}
		for _, kind := range []remit.RecordKind{remit.KindIdentity, remit.KindCredential, remit.KindGrant} {
			set, err := load([]Source{{FS: fstest.MapFS{"f.yaml": {Data: policyFile(kind, match, message)}}}})
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range set.Policies() {
				if !p.Runs() {
					continue
				}
				e := NewEvaluator(set, newMemory(all, nil), nil)
				if _, err := e.Check(t.Context(), systemOfCase(caseSystem), func(remit.Finding) error { return nil }); err != nil {
					t.Fatal(err)
				}
			}
		}
	})
}

// policyFile is a policy with the given texts, whatever they hold.
func policyFile(kind remit.RecordKind, match, message string) []byte {
	out, err := yaml.Marshal(map[string]string{
		"id": "f", "title": "t", "description": "d", "subject": string(kind), "severity": "low", "remedy": "{now}",
		"match": match, "message": message,
	})
	if err != nil {
		panic(err)
	}
	return out
}

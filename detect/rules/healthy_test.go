package rules_test

import (
	"bufio"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/valyala/fastjson"

	"remit"
	"remit/connector"
	"remit/detect"
	"remit/detect/rules"
	"remit/detect/sigma"
)

// TestHealthySystemsAreQuiet plays what control planes, operators, deployments
// and people do all day: nothing of it may give a signal of medium or worse,
// be it alone or counted.
func TestHealthySystemsAreQuiet(t *testing.T) {
	files, err := filepath.Glob("testdata/healthy/*.jsonl")
	if err != nil || len(files) == 0 {
		t.Fatalf("no events: %v", err)
	}
	engine, _ := sigma.Compile(builtIn(t), sigma.Options{Attributed: detect.Attributed, Aliases: aliases()})
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			f, err := os.Open(file)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			detector, err := detect.New(t.Context(), detect.Options{Engine: engine, BaselineOff: true})
			if err != nil {
				t.Fatal(err)
			}
			events := 0
			for lines := bufio.NewScanner(f); lines.Scan(); events++ {
				v, err := fastjson.ParseBytes(lines.Bytes())
				if err != nil {
					t.Fatal(err)
				}
				d := decoderOf(v)
				if d == nil {
					t.Fatalf("no decoder knows %s", lines.Text())
				}
				var e connector.Event
				if err := d.Decode(v, &connector.Interner{}, &e); err != nil {
					t.Fatalf("%s: %v", lines.Text(), err)
				}
				signals, err := detector.Match(t.Context(), &e, false)
				if err != nil {
					t.Fatal(err)
				}
				for _, s := range signals {
					if s.Severity.Rank() >= remit.Medium.Rank() {
						t.Errorf("%s (%s): %s", s.Rule, s.Severity, lines.Text())
					}
				}
			}
			t.Logf("%d events", events)
		})
	}
}

// FuzzOf reads rules of users: whatever their block says, it is refused or its
// tests run to an end.
func FuzzOf(f *testing.F) {
	all, err := rules.Load()
	if err != nil {
		f.Fatal(err)
	}
	for _, r := range all[:20] {
		text, err := os.ReadFile(r.Path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Add([]byte("title: A\nlogsource: {product: a}\ndetection: {s: {a: 1}, condition: s}\nremit: {tests: [{name: a, event: [], times: 3, vary: '.'}]}\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		parsed, err := sigma.Parse("fuzz.yml", text)
		if err != nil {
			return
		}
		for _, r := range parsed {
			if _, err := rules.Of(r); err != nil && !isInvalid(err) {
				t.Fatalf("%v is of kind %q", err, remit.KindOf(err))
			}
		}
		rules.Test(parsed, sigma.Options{Attributed: detect.Attributed})
	})
}

func isInvalid(err error) bool {
	var e *remit.Error
	return errors.As(err, &e) && e.Kind == remit.Invalid
}

package report

import (
	"bytes"
	"os"
	"testing"
)

func TestHTML(t *testing.T) {
	var b bytes.Buffer
	if err := WriteHTML(&b, sample().Source()); err != nil {
		t.Fatal(err)
	}
	golden(t, "report.html", b.Bytes())
	if p := os.Getenv("BIG"); p != "" {
		f, _ := os.Create(p)
		if err := WriteHTML(f, made{identities: 3000, findings: 4000}); err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
}

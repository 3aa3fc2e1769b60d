package report

import (
	"bytes"
	"testing"

	"remit"
)

func TestExplain(t *testing.T) {
	d := sample()
	e, err := Explain(d.Source(), d.Identities[0].ID)
	if err != nil {
		t.Fatal(err)
	}
	before := d.Identities[0]
	before.Labels = nil
	before.Owners = []remit.Owner{{Name: "carol", Source: "label owner"}}
	e.History = []remit.Version{
		{From: ago(30), Learned: ago(30), Record: d.Identities[0]},
		{From: ago(500), To: ago(30), Learned: ago(90), Record: before},
	}
	var b bytes.Buffer
	if err := WriteExplain(&b, e, TableOptions{Width: 80}); err != nil {
		t.Fatal(err)
	}
	golden(t, "explain.txt", b.Bytes())

	if _, err := Explain(d.Source(), "idn_nobody"); remit.KindOf(err) != remit.NotFound {
		t.Errorf("an unknown identity: %v", err)
	}
}

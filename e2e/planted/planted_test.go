package planted

import "testing"

// Every template renders to objects that a cluster takes, and every problem's
// subject is among them or named by them.
func TestNew(t *testing.T) {
	c, err := New()
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Problems) < 50 {
		t.Errorf("%d problems: want at least 50", len(c.Problems))
	}
	for i, p := range c.Problems {
		found := p.Subject.Kind == "User" // has no object of its own
		for _, o := range c.objects[i] {
			found = found || o.GetKind() == p.Subject.Kind && o.GetName() == p.Subject.Name && o.GetNamespace() == p.Subject.Namespace
		}
		if !found && p.Subject.Name != "default" {
			t.Errorf("%s: no object is %s", p.Problem, p.Subject)
		}
	}
	if len(c.Canaries()) < 20 {
		t.Errorf("%d canaries: want at least 20", len(c.Canaries()))
	}
}

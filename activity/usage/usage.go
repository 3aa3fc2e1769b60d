// Package usage counts what identities exercise of what they were given: per
// identity, root credential, binding, action, resource and outcome, exactly.
package usage

import (
	"cmp"
	"slices"
	"time"
	"unsafe"

	"remit"
)

// MaxNames is how many resources of one kind and namespace an identity's use of
// one action is counted by name; all further ones are counted together under
// the name "*". Pods and events come and go by the thousand, and the table must
// not grow with them.
const MaxNames = 32

// Rest is the name under which further resources are counted.
const Rest = "*"

// key is a combination, without the system, which a table has one of.
type key struct {
	identity                remit.ID
	root                    string
	bindingKind, bindingSpc string
	bindingName             string
	action, kind, namespace string
	name                    string
	outcome                 remit.Outcome
}

// Table counts for one system. It holds what has not been written yet and, of
// what has, only which names each combination has used up. It is not safe for
// concurrent use.
type Table struct {
	system remit.ID
	rows   map[key]*row
	names  map[key]*names // by the combination without its name
	recent [1 << recentBits]recent
	epoch  uint64 // counts what Changed has taken
}

// Counted is where something was counted. The zero value is nowhere.
type Counted struct {
	row   *row
	epoch uint64
}

// Again counts the same once more. It says false, and counts nothing, when what
// was counted has been taken since, or descends from another root.
func (t *Table) Again(c Counted, root string, at time.Time) bool {
	if c.row == nil || c.epoch != t.epoch || c.row.key.root != root {
		return false
	}
	c.row.add(at)
	return true
}

type row struct {
	key         key
	first, last time.Time
	count       int64
}

// recent is a slot of a direct-mapped cache in front of the maps: a machine does
// the same thing again and again. name is the one that was asked for, where the
// row's own may be [Rest].
type recent struct {
	name string
	row  *row
}

const recentBits = 16

type names struct {
	known []string // up to MaxNames
}

// New returns an empty table.
func New(system remit.ID) *Table {
	return &Table{system: system, rows: make(map[key]*row), names: make(map[key]*names)}
}

// Load tells what of an identity was counted before, so that its names go on
// where they ended.
func (t *Table) Load(all []remit.Usage) {
	for _, u := range all {
		if u.Resource.Name == "" || u.Resource.Name == Rest {
			continue
		}
		k := keyOf(&u)
		name := k.name
		k.name = ""
		n := t.names[k]
		if n == nil {
			n = new(names)
			t.names[k] = n
		}
		if len(n.known) < MaxNames && !slices.Contains(n.known, name) {
			n.known = append(n.known, name)
		}
	}
}

func keyOf(u *remit.Usage) key {
	return key{
		identity: u.Identity, root: u.Root,
		bindingKind: u.Binding.Kind, bindingSpc: u.Binding.Namespace, bindingName: u.Binding.Name,
		action: u.Action, kind: u.Resource.Kind, namespace: u.Resource.Namespace, name: u.Resource.Name, outcome: u.Outcome,
	}
}

// Observe counts an event for an identity, which is a.As's when it acts as
// another: its rights are the ones exercised.
func (t *Table) Observe(a *remit.Activity, identity remit.ID) Counted {
	k := key{
		identity: identity, root: a.Root,
		bindingKind: a.Binding.Kind, bindingSpc: a.Binding.Namespace, bindingName: a.Binding.Name,
		action: a.Action, kind: a.Resource.Kind, namespace: a.Resource.Namespace, name: a.Resource.Name, outcome: a.Outcome,
	}
	slot := &t.recent[k.places()>>(64-recentBits)]
	if slot.row != nil && slot.name == k.name {
		k.name = slot.row.key.name
		if slot.row.key == k {
			slot.row.add(a.Time)
			return Counted{slot.row, t.epoch}
		}
		k.name = slot.name
	}
	asked := k.name
	if asked != "" {
		k.name = t.name(k)
	}
	r := t.rows[k]
	if r == nil {
		r = &row{key: k}
		t.rows[k] = r
	}
	r.add(a.Time)
	*slot = recent{asked, r}
	return Counted{r, t.epoch}
}

func (r *row) add(at time.Time) {
	if r.count == 0 || at.Before(r.first) {
		r.first = at
	}
	if r.count == 0 || at.After(r.last) {
		r.last = at
	}
	r.count++
}

// name returns the name under which a combination is counted.
func (t *Table) name(k key) string {
	name := k.name
	k.name = ""
	n := t.names[k]
	if n == nil {
		n = new(names)
		t.names[k] = n
	}
	if slices.Contains(n.known, name) {
		return name
	}
	if len(n.known) >= MaxNames {
		return Rest
	}
	n.known = append(n.known, name)
	return name
}

// places mixes where the texts of a combination are in memory, which reads none
// of them: equal texts of a log are one text, as its decoder interned them. When
// they are not, the combination is only found the long way.
func (k *key) places() uint64 {
	h := uint64(0)
	for _, s := range [...]string{k.name, k.action, k.kind, k.namespace, string(k.identity), k.root, string(k.outcome), k.bindingName} {
		h = (h ^ uint64(uintptr(unsafe.Pointer(unsafe.StringData(s))))) * 0x9E3779B97F4A7C15
		h ^= h >> 32
	}
	return h * 0x9E3779B97F4A7C15
}

// Len is the number of combinations that were counted since the last Changed.
func (t *Table) Len() int { return len(t.rows) }

// Changed appends the counts since it was last called to a checkpoint.
func (t *Table) Changed(c *remit.Checkpoint) {
	at := len(c.Usage)
	for k, r := range t.rows {
		c.Usage = append(c.Usage, remit.Usage{
			System: t.system, Identity: k.identity, Root: k.root,
			Binding: remit.Ref{Kind: k.bindingKind, Namespace: k.bindingSpc, Name: k.bindingName},
			Action:  k.action, Resource: remit.Ref{Kind: k.kind, Namespace: k.namespace, Name: k.name},
			Outcome: k.outcome, First: r.first, Last: r.last, Count: r.count,
		})
	}
	t.epoch++
	clear(t.rows)
	clear(t.recent[:])
	slices.SortFunc(c.Usage[at:], func(a, b remit.Usage) int {
		return cmp.Or(
			cmp.Compare(a.Identity, b.Identity), cmp.Compare(a.Root, b.Root), cmp.Compare(a.Action, b.Action),
			cmp.Compare(a.Resource.Kind, b.Resource.Kind), cmp.Compare(a.Resource.Namespace, b.Resource.Namespace),
			cmp.Compare(a.Resource.Name, b.Resource.Name),
		)
	})
}

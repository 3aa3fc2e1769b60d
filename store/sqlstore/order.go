package sqlstore

import (
	"cmp"
	"strings"

	"remit"
)

// order is a total order of a list. Its columns are those of an index, behind
// the column that the walks are split by.
type order struct {
	name    string
	columns []orderColumn

	// scoped says that the index of the order begins with the column of the
	// scope, so that there is a walk for each of its values, not one for all.
	scoped bool

	// ends says that the index of the order leaves out the rows without an
	// end, which come last and are walked by ID.
	ends bool
}

type orderColumn struct {
	name   string
	number bool
}

var (
	idColumn   = orderColumn{name: "id"}
	nameOrder  = []orderColumn{{name: "namespace"}, {name: "name"}, idColumn}
	orderNames = order{name: "name", columns: nameOrder, scoped: true}
	orderKinds = order{name: "kind", columns: append([]orderColumn{{name: "kind"}}, nameOrder...), scoped: true}
	orderAge   = order{name: "created", columns: []orderColumn{{name: "created", number: true}, idColumn}, scoped: true}
	orderEnd   = order{name: "expires", columns: []orderColumn{{name: "expires", number: true}, idColumn}, scoped: true, ends: true}
	orderIDs   = order{name: "id", columns: []orderColumn{idColumn}}
	orderWorst = order{name: "severity", columns: append([]orderColumn{{name: "weight", number: true}}, nameOrder...), scoped: true}
)

// recordOrder returns the order that a page of records asks for. What has no
// end is ordered by ID where an order by expiry is asked.
func recordOrder(sort string, expires bool) (order, error) {
	switch sort {
	case "", "name":
		return orderNames, nil
	case "kind":
		return orderKinds, nil
	case "created":
		return orderAge, nil
	case "expires":
		if expires {
			return orderEnd, nil
		}
		return order{name: "expires", columns: orderIDs.columns}, nil
	case "id":
		return orderIDs, nil
	}
	return order{}, remit.Errorf(remit.Invalid, "", "no order %q: use name, kind, created, expires or id", sort)
}

// list writes the columns, each as the function names it.
func (o order) list(column func(string) string) string {
	var b strings.Builder
	for i, c := range o.columns {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(column(c.name))
	}
	return b.String()
}

// hit is one row of a list: where it stands in the order, and its record.
type hit struct {
	position []any // string or int64, as the order's columns
	doc      []byte
}

// compareHits orders rows as the engines do: text by its bytes.
func compareHits(a, b hit) int {
	for i := range a.position {
		var n int
		if x, ok := a.position[i].(int64); ok {
			n = cmp.Compare(x, b.position[i].(int64))
		} else {
			n = strings.Compare(a.position[i].(string), b.position[i].(string))
		}
		if n != 0 {
			return n
		}
	}
	return 0
}

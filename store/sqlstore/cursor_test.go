package sqlstore

import (
	"reflect"
	"testing"

	"remit"
)

// FuzzCursor: whatever a caller sends, it is a position of the order asked for
// or refused.
func FuzzCursor(f *testing.F) {
	filter := remit.Filter{Search: "a"}
	orders := []order{orderNames, orderKinds, orderAge, orderEnd, orderIDs, orderWorst}
	for i, o := range orders {
		position := make([]any, len(o.columns))
		for j, c := range o.columns {
			if position[j] = "text\x01\x02"; c.number {
				position[j] = int64(forever)
			}
		}
		text := writeCursor("identity", filter, o, position)
		if back, err := readCursor(text, "identity", filter, o); err != nil || !reflect.DeepEqual(back, position) {
			f.Fatalf("%v comes back as %v, %v", position, back, err)
		}
		f.Add(text, i)
	}
	f.Add("e30", 0)
	f.Fuzz(func(t *testing.T, text string, i int) {
		o := orders[((i%len(orders))+len(orders))%len(orders)]
		position, err := readCursor(text, "identity", filter, o)
		if err != nil {
			if remit.KindOf(err) != remit.Invalid {
				t.Fatal(err)
			}
			return
		}
		if text == "" {
			return
		}
		for j, c := range o.columns {
			if _, number := position[j].(int64); number != c.number {
				t.Fatalf("%v is no position of %s", position, o.name)
			}
		}
	})
}

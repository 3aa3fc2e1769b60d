package report

import (
	"bytes"
	"testing"
)

func TestTable(t *testing.T) {
	for name, o := range map[string]TableOptions{
		"table.txt":         {Width: 100},
		"table-narrow.txt":  {Width: 60},
		"table-color.txt":   {Width: 100, Color: true},
		"table-verbose.txt": {Width: 100, Verbose: true},
	} {
		t.Run(name, func(t *testing.T) {
			var b bytes.Buffer
			if err := WriteTable(&b, sample().Source(), o); err != nil {
				t.Fatal(err)
			}
			golden(t, name, b.Bytes())
		})
	}
}

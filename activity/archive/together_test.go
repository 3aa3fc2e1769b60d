package archive

import (
	"testing"
)

// TestTogether takes no sorted file alone, and goes on behind one that nothing
// fits to: such a file once kept all larger ones of its hour from being merged.
func TestTogether(t *testing.T) {
	const most = maxRuns * runRows
	file := func(rows int64, compacted bool) File { return File{Rows: rows, Compacted: compacted} }
	for _, c := range []struct {
		name        string
		files       []File // by their rows
		first, rows int64  // of the first file that is taken, and of all
		n           int
	}{
		{"nothing", nil, 0, 0, 0},
		{"one unsorted", []File{file(5, false)}, 5, 5, 1},
		{"one sorted", []File{file(5, true)}, 0, 0, 0},
		{"all that fit", []File{file(5, false), file(6, true), file(most, false)}, 5, 11, 2},
		{"a sorted one in front", []File{file(most/2, true), file(most/2+1, false), file(most/2+2, false)}, most/2 + 1, most/2 + 1, 1},
		{"sorted ones that fit", []File{file(most/2, true), file(most/2, true), file(most, true)}, most / 2, most, 2},
		{"sorted ones that are full", []File{file(most/2+1, true), file(most/2+2, true)}, 0, 0, 0},
		{"a large one", []File{file(2*most, false)}, 2 * most, 2 * most, 1},
	} {
		got := together(c.files)
		var rows, first int64
		for i, f := range got {
			if rows += f.Rows; i == 0 {
				first = f.Rows
			}
		}
		if len(got) != c.n || rows != c.rows || first != c.first {
			t.Errorf("%s: %d files from %d rows, %d rows in all; want %d from %d, %d", c.name, len(got), first, rows, c.n, c.first, c.rows)
		}
	}
}

package policy

import (
	"fmt"
	"strings"
	"unicode"

	"go.yaml.in/yaml/v3"
)

// Problem is a fault in a policy document: where, and what. A policy with a
// problem does not run; all others do.
type Problem struct {
	File    string `json:"file"`
	Line    int    `json:"line"`   // from 1
	Column  int    `json:"column"` // from 1, in characters
	Policy  string `json:"policy,omitempty"`
	Message string `json:"message"`
}

// String writes file:line:column: message, as compilers do. It does not escape.
func (p Problem) String() string {
	return fmt.Sprintf("%s:%d:%d: %s", p.File, p.Line, p.Column, p.Message)
}

// text is a scalar of a document, which knows where in the file each of its
// characters came from.
type text struct {
	value string
	node  *yaml.Node
	file  string
	lines []string // of the file
}

// problem is a fault at a character of the text.
func (t text) problem(offset int, policy, message string) Problem {
	line, column := t.at(offset)
	return Problem{File: t.file, Line: line, Column: column, Policy: policy, Message: message}
}

// fault reports something at a character of a text.
type fault func(t text, offset int, message string)

// at finds the position in the file of a character of the value, counted in
// runes. It walks the value and the source side by side: a character of the
// value is the next such character of the source, except for what YAML adds
// (indentation, folding, quotes, escapes). Positions on white space may be off
// by some white space; all others are exact.
func (t text) at(offset int) (line, column int) {
	line, column = t.node.Line, t.node.Column
	var source [][]rune
	row, col := line-1, column-1
	rune_ := func() (rune, bool) { // at row, col; '\n' at the end of a line
		for len(source) <= row {
			if len(source) >= len(t.lines) {
				return 0, false
			}
			source = append(source, []rune(t.lines[len(source)]))
		}
		if col < len(source[row]) {
			return source[row][col], true
		}
		return '\n', true
	}
	step := func() {
		if r, ok := rune_(); ok && r == '\n' {
			row, col = row+1, 0
		} else {
			col++
		}
	}
	style := t.node.Style &^ yaml.TaggedStyle
	switch style {
	case yaml.LiteralStyle, yaml.FoldedStyle:
		row, col = row+1, 0 // the text begins below its indicator
	case yaml.SingleQuotedStyle, yaml.DoubleQuotedStyle:
		col++
	}
	for i, want := range []rune(t.value) {
		for {
			r, ok := rune_()
			if !ok {
				return line, column
			}
			if r == want || !unicode.IsSpace(r) || unicode.IsSpace(want) {
				break
			}
			step()
		}
		if style == yaml.DoubleQuotedStyle {
			// A backslash at the end of a line folds it without a space.
			for {
				r, _ := rune_()
				if r != '\\' || col+1 < len(source[row]) {
					break
				}
				step()
				step()
				for r, ok := rune_(); ok && unicode.IsSpace(r) && !unicode.IsSpace(want); r, ok = rune_() {
					step()
				}
			}
		}
		line, column = row+1, col+1
		if i >= offset {
			return line, column
		}
		r, _ := rune_()
		switch {
		case style == yaml.DoubleQuotedStyle && r == '\\':
			step()
			length := 1
			switch e, _ := rune_(); e {
			case 'x':
				length = 3
			case 'u':
				length = 5
			case 'U':
				length = 9
			}
			for ; length > 0; length-- {
				step()
			}
		case style == yaml.SingleQuotedStyle && r == '\'':
			step()
			step()
		case unicode.IsSpace(want) && !unicode.IsSpace(r):
			// Folding made this space out of nothing that is still here.
		default:
			step()
		}
	}
	return line, column + 1
}

// splitLines cuts a file as YAML does.
func splitLines(file string) []string {
	return strings.Split(strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(file), "\n")
}

// nearest finds the known word that a misspelt one was meant to be, or "".
func nearest(word string, known []string) string {
	best, distance := "", max(1, min(3, len(word)/3))
	for _, k := range known {
		if d := edits(word, k); d < distance || d == distance && best == "" {
			best, distance = k, d
		}
	}
	return best
}

// edits is the Levenshtein distance, which is cheap for words.
func edits(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return 64
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		corner := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			change := corner
			if a[i-1] != b[j-1] {
				change++
			}
			corner = row[j]
			row[j] = min(change, row[j]+1, row[j-1]+1)
		}
	}
	return row[len(b)]
}

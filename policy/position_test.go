package policy

import (
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
	"pgregory.net/rapid"
)

const head = `id: mine
title: Mine
description: why
subject: credential
severity: low
`

// TestErrorPositions: an error is where its author has to look, in the file,
// whatever YAML made of the text.
func TestErrorPositions(t *testing.T) {
	for name, test := range map[string]struct {
		content string
		want    []string
	}{
		"plain": {
			head + "message: m\nremedy: r\nmatch: credential.nme == \"x\"\n",
			[]string{"my.yaml:8:19: no field “nme” (did you mean “name”?)"},
		},
		"literal block": {
			head + "message: m\nremedy: r\nmatch: |\n  credential.type == \"password\" &&\n  credential.envronment == \"production\"\n",
			[]string{"my.yaml:10:14: no field “envronment” (did you mean “environment”?)"},
		},
		"literal block with deeper lines and blank ones": {
			head + "message: m\nremedy: r\nmatch: |-\n\n     credential.type == \"x\" &&\n\n         credential.foo\n",
			[]string{"my.yaml:12:21: no field “foo”"},
		},
		"folded block": {
			head + "message: m\nremedy: r\nmatch: >-\n  credential.type == \"x\" &&\n  credential.built_inn\n",
			[]string{"my.yaml:10:14: no field “built_inn” (did you mean “built_in”?)"},
		},
		"single quotes": {
			head + "message: m\nremedy: r\nmatch: 'credential.name == ''x'' && credential.foo == \"\"'\n",
			[]string{"my.yaml:8:48: no field “foo”"},
		},
		"double quotes with escapes": {
			head + "message: m\nremedy: r\nmatch: \"credential.name == \\\"\\u00e9\\\" && credential.foo\"\n",
			[]string{"my.yaml:8:53: no field “foo”"},
		},
		"plain over two lines": {
			head + "message: m\nremedy: r\nmatch: credential.name == \"x\" ||\n    credential.foo == \"y\"\n",
			[]string{"my.yaml:9:16: no field “foo”"},
		},
		"wide characters before it": {
			head + "message: m\nremedy: r\nmatch: credential.name == \"日本語🙂\" && credential.foo\n",
			[]string{"my.yaml:8:48: no field “foo”"},
		},
		"in a message": {
			head + "match: credential.built_in\nremedy: r\nmessage: >-\n  The {credential.name} of\n  {credential.holder.nam} is old\n",
			[]string{"my.yaml:10:22: no field “nam” (did you mean “name”?)"},
		},
		"an open brace": {
			head + "match: credential.built_in\nremedy: r\nmessage: \"a {credential.name\"\n",
			[]string{"my.yaml:8:13: a { without its }: write {{ for a brace"},
		},
		"in evidence, severity and related": {
			head + "match: credential.built_in\nremedy: r\nmessage: m\nseverity_when:\n  high: credential.created\nevidence:\n  Bits: credential.bits\nrelated:\n  - credential.users\n  - credential.name\n",
			[]string{
				"my.yaml:10:9: the expression gives timestamp, where true or false is needed",
				"my.yaml:12:20: no field “bits”",
				"my.yaml:15:5: related gives string, where a record or a list of records is needed",
			},
		},
		"a parameter that is not there": {
			head + "match: older_than(credential.created, params.max_ag)\nremedy: r\nmessage: m\nparameters:\n  max_age: {default: 90d}\n",
			[]string{"my.yaml:6:46: no field “max_ag”"},
		},
		"an unknown function": {
			head + "match: oldr_than(credential.created, duration(\"1h\"))\nremedy: r\nmessage: m\n",
			[]string{"my.yaml:6:8: unknown name “oldr_than” (did you mean “older_than”?)"},
		},
		"another subject's variable": {
			head + "match: identity.built_in\nremedy: r\nmessage: m\n",
			[]string{"my.yaml:6:8: “identity” is not the subject of this policy"},
		},
		"an unknown field of the format": {
			head + "match: credential.built_in\nremedy: r\nmesage: m\n",
			[]string{"my.yaml:8:1: unknown field “mesage” (did you mean “message”?)", "my.yaml:1:1: the policy has no message"},
		},
		"a field twice": {
			head + "match: credential.built_in\nremedy: r\nmessage: m\nmessage: m\n",
			[]string{"my.yaml:9:1: “message” stands here twice"},
		},
		"a wrong severity": {
			strings.Replace(head, "severity: low", "severity: severe", 1) + "match: credential.built_in\nremedy: r\nmessage: m\n",
			[]string{"my.yaml:5:11: a severity is info, low, medium, high or critical"},
		},
		"no YAML": {
			head + "match: [\nremedy: r\n",
			[]string{"my.yaml:6:1: not valid YAML: did not find expected ',' or ']'"},
		},
		"an alias": {
			head + "match: &m credential.built_in\nremedy: r\nmessage: *m\n",
			[]string{"my.yaml:8:10: aliases (*name) are not used in policies"},
		},
		"the second document": {
			"# comment\n---\n" + head + "match: credential.built_in\nremedy: r\nmessage: m\n---\n" + strings.Replace(head, "mine", "other", 1) + "match: credential.foo\nremedy: r\nmessage: m\n",
			[]string{"my.yaml:17:19: no field “foo”"},
		},
		"a test's record": {
			head + "match: credential.built_in\nremedy: r\nmessage: m\ntests:\n- match: true\n  credential: {kind: Secret, nam: x}\n",
			[]string{"my.yaml:11:15: the record has no kind or no name", "my.yaml:11:30: unknown field “nam” (did you mean “name”?)"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, p := range loadFaulty(t, test.content).Problems() {
				s := p.String()
				if i := strings.Index(s, ": known are"); i > 0 {
					s = s[:i]
				}
				got = append(got, s)
			}
			slices.Sort(got)
			want := slices.Clone(test.want)
			slices.Sort(want)
			if !slices.Equal(got, want) {
				t.Errorf("got\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
			}
		})
	}
}

// TestPositionsAreExact: whatever the style and the text, the place of each
// visible character is a place at which the file has that character.
func TestPositionsAreExact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		value := rapid.StringMatching(`[a-z"'#:é日{}]([a-z "'#:é日{}\n]{0,40}[a-z"'é日{}])?`).Draw(t, "value")
		style := rapid.SampledFrom([]yaml.Style{0, yaml.LiteralStyle, yaml.FoldedStyle, yaml.SingleQuotedStyle, yaml.DoubleQuotedStyle}).Draw(t, "style")
		out, err := yaml.Marshal(&yaml.Node{Kind: yaml.MappingNode, Content: []*yaml.Node{
			{Kind: yaml.ScalarNode, Value: "k"}, {Kind: yaml.ScalarNode, Value: value, Style: style, Tag: "!!str"},
		}})
		if err != nil {
			t.Skip()
		}
		var root yaml.Node
		if err := yaml.Unmarshal(out, &root); err != nil {
			t.Skip() // the writer has faults of its own
		}
		node := root.Content[0].Content[1]
		lines := splitLines(string(out))
		tx := text{value: node.Value, node: node, lines: lines}
		for i, r := range []rune(node.Value) {
			if r == ' ' || r == '\n' {
				continue
			}
			line, column := tx.at(i)
			source := []rune(lines[line-1])
			if column > len(source) {
				t.Fatalf("%q in %q: character %d is placed at %d:%d, behind the line", node.Value, out, i, line, column)
			}
			if at := source[column-1]; at != r && at != '\\' {
				t.Fatalf("%q in %q: character %d (%c) is placed at %d:%d, where there is %c", node.Value, out, i, r, line, column, at)
			}
		}
	})
}

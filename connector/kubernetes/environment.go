package kubernetes

import (
	"slices"
	"strings"
	"unicode"
)

// environmentKeys are the labels and annotations in which the environment is
// written, the strongest first. Those without a slash also match behind a
// prefix.
var environmentKeys = []string{
	"remit.dev/environment",
	"app.kubernetes.io/environment",
	"environment", "env", "deployment-environment", "stage",
	"tags.datadoghq.com/env",
}

// environmentWords maps the ways in which the usual environments are written to
// one word each.
var environmentWords = map[string]string{
	"production": "production", "prod": "production", "prd": "production",
	"staging": "staging", "stage": "staging", "stg": "staging", "preprod": "staging", "preproduction": "staging", "uat": "staging", "acceptance": "staging",
	"development": "development", "develop": "development", "dev": "development", "sandbox": "development",
	"test": "test", "testing": "test", "qa": "test",
}

// environmentReader finds the environment in labels, annotations and names.
type environmentReader struct {
	keys     []string
	fallback string
}

func newEnvironmentReader(keys []string, fallback string) environmentReader {
	all := slices.Concat(keys, environmentKeys)
	for i, key := range all {
		all[i] = strings.ToLower(key)
	}
	return environmentReader{keys: all, fallback: environmentWord(fallback)}
}

// named returns the environment that labels or annotations name, or "".
func (r environmentReader) named(sets ...map[string]string) string {
	best, word := len(r.keys), ""
	for _, set := range sets {
		for _, key := range sortedKeys(set) {
			lower := strings.ToLower(key)
			for i, want := range r.keys[:best] {
				if lower == want || !strings.Contains(want, "/") && strings.HasSuffix(lower, "/"+want) {
					if w := environmentWord(set[key]); w != "" {
						best, word = i, w
					}
					break
				}
			}
		}
	}
	return word
}

// environmentWord returns the usual word for an environment, or the user's own.
func environmentWord(value string) string {
	value = strings.ToLower(strings.TrimSpace(value))
	if usual, ok := environmentWords[strings.ReplaceAll(value, "-", "")]; ok {
		return usual
	}
	return truncate(value, maxMeaning)
}

// environmentOfName takes the environment from a word of a namespace's name:
// payments-prod is production, product is nothing.
func environmentOfName(name string) string {
	if len(name) > maxLabel {
		return ""
	}
	for word := range strings.FieldsFuncSeq(strings.ToLower(name), func(c rune) bool { return !unicode.IsLetter(c) && !unicode.IsDigit(c) }) {
		if env, ok := environmentWords[word]; ok {
			return env
		}
	}
	return ""
}

// environment settles the environment of an object: its own labels, its
// namespace's, a word of the namespace's name, what the user set for all.
func (p *projection) environment(own string, namespace string) string {
	if own != "" {
		return own
	}
	if namespace != "" {
		if ns := p.object("Namespace", "", namespace); ns != nil && ns.meta.environment != "" {
			return ns.meta.environment
		}
		if env := environmentOfName(namespace); env != "" {
			return env
		}
	}
	return p.model.environments.fallback
}

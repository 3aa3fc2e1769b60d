package lifecycle

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/parser"

	"remit"
)

// fault is something wrong in a document: at which path of it, and what.
type fault struct{ path, message string }

// Complete checks what was read from a document and reads the files that it names,
// whose paths are relative to the document's directory. Path is the document's,
// text its content and at where in it c stands ("$.lifecycle"). Errors are
// [remit.Invalid] and give file, line and field.
func (c *Config) Complete(path string, text []byte, at string) error {
	const op = "read lifecycle policies"
	names := map[string]string{}
	if f := check(c.Policies, names, path, at); f != nil {
		return f.in(op, path, text)
	}
	if f := c.Offboarding.check(at + ".offboarding"); f != nil {
		return f.in(op, path, text)
	}
	for i, name := range c.Files {
		if name == "" {
			return (&fault{fmt.Sprintf("%s.files[%d]", at, i), "it is empty: name a file or a directory"}).in(op, path, text)
		}
		if !filepath.IsAbs(name) {
			name = filepath.Join(filepath.Dir(path), name)
		}
		files, err := policyFiles(name)
		if err != nil {
			return remit.Errorf(remit.Invalid, op, "%w", err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				return remit.Errorf(remit.Invalid, op, "%w", err)
			}
			policies, err := readPolicies(file, text, names)
			if err != nil {
				return err
			}
			c.Policies = append(c.Policies, policies...)
		}
	}
	return nil
}

// policyFiles are the file of that name, or the files of policies in the directory
// of that name, in the order of their names.
func policyFiles(name string) ([]string, error) {
	info, err := os.Stat(name)
	if err != nil || !info.IsDir() {
		return []string{name}, err
	}
	entries, err := os.ReadDir(name)
	var files []string
	for _, e := range entries {
		if extension := filepath.Ext(e.Name()); !e.IsDir() && (extension == ".yaml" || extension == ".yml") {
			files = append(files, filepath.Join(name, e.Name()))
		}
	}
	return files, err
}

// readPolicies reads a file of policies. names are those that are taken, and by
// which file.
func readPolicies(path string, text []byte, names map[string]string) ([]Policy, error) {
	const op = "read lifecycle policies"
	var file struct {
		Policies []Policy `yaml:"policies"`
	}
	if err := decode(path, text, &file); err != nil {
		return nil, remit.Errorf(remit.Invalid, op, "%w", err)
	}
	if f := check(file.Policies, names, path, "$"); f != nil {
		return nil, f.in(op, path, text)
	}
	return file.Policies, nil
}

// decode reads a YAML document strictly: a key that into does not have is refused
// with its line, as everything is that does not fit. An empty document changes
// nothing. Path is what errors, which are [remit.Invalid], call the document.
func decode(path string, text []byte, into any) (err error) {
	defer func() {
		// github.com/goccy/go-yaml stumbles over some nodes that are empty and
		// yet have a tag; that is no reason to fall.
		if broken := recover(); broken != nil {
			err = remit.Errorf(remit.Invalid, "", "%s: it is no YAML that can be read: %v", path, broken)
		}
	}()
	err = yaml.NewDecoder(bytes.NewReader(text), yaml.Strict()).Decode(into)
	if err != nil && !errors.Is(err, io.EOF) {
		return remit.Errorf(remit.Invalid, "", "%s: %s", path, yaml.FormatError(err, false, false))
	}
	return nil
}

// in makes it an error that names the line.
func (f *fault) in(op, path string, text []byte) error {
	field := strings.TrimPrefix(f.path, "$.")
	return remit.Errorf(remit.Invalid, op, "%s:%d: %s: %s", path, lineOf(text, f.path), field, f.message)
}

// lineOf is the line on which a path of a document stands, or else the nearest
// path around it.
func lineOf(text []byte, path string) (line int) {
	line = 1
	document, err := parser.ParseBytes(text, 0)
	if err != nil {
		return line
	}
	defer func() { _ = recover() }() // as in decode
	for path != "$" && path != "" {
		if p, err := yaml.PathString(path); err == nil {
			if node, err := p.FilterFile(document); err == nil && node != nil && node.GetToken() != nil {
				return node.GetToken().Position.Line
			}
		}
		path = path[:max(strings.LastIndexAny(path, ".["), 0)]
	}
	return line
}

// check finds the first thing that is wrong with policies; nil when there is none.
func check(policies []Policy, names map[string]string, file, at string) *fault {
	for i := range policies {
		p := &policies[i]
		here := fmt.Sprintf("%s.policies[%d]", at, i)
		wrong := func(field, format string, args ...any) *fault {
			return &fault{here + field, fmt.Sprintf(format, args...)}
		}
		if p.Name == "" {
			return wrong("", "a policy needs a name: findings tell by it which one holds")
		}
		if other, taken := names[p.Name]; taken {
			return wrong(".name", "a policy of the name %q is in %s already", p.Name, other)
		}
		names[p.Name] = file
		switch {
		case p.Exempt && p.demanding():
			return wrong(".exempt", "a policy that exempts demands nothing: leave exempt out, or the demands")
		case !p.Exempt && !p.demanding():
			return wrong("", "it demands nothing: give it rotate_every, max_age, max_idle, max_lifetime or expiry_required, or exempt: true")
		case p.RotateEvery > 0 && p.MaxAge > 0 && p.RotateEvery > p.MaxAge:
			return wrong(".rotate_every", "%s is longer than max_age, %s: what is to be rotated would be too old first", p.RotateEvery, p.MaxAge)
		}
		if p.Notices != nil {
			for n, notice := range *p.Notices {
				if notice == 0 {
					return wrong(fmt.Sprintf(".notices[%d]", n), "0 is no time before: leave it out")
				}
			}
		}
		if f := p.Select.check(here + ".select"); f != nil {
			return f
		}
	}
	return nil
}

var (
	credentialTypes = []string{
		string(remit.APIKey), string(remit.StaticToken), string(remit.ShortLivedToken), string(remit.ClientSecret), string(remit.Certificate),
		string(remit.SSHKey), string(remit.PrivateKey), string(remit.Password), string(remit.FederatedTrust),
	}
	identityTypes = []string{
		string(remit.Human), string(remit.ServiceAccount), string(remit.Workload), string(remit.Application), string(remit.Agent),
		string(remit.AssumableRole), string(remit.Group),
	}
)

// check refuses words of Remit's own that do not exist: a policy that chooses by
// them would hold for nothing, and nobody would notice.
func (s *Selector) check(at string) *fault {
	for _, field := range []struct {
		name   string
		values []string
		known  []string
	}{{"types", s.Types, credentialTypes}, {"identity_types", s.IdentityTypes, identityTypes}} {
		for i, v := range field.values {
			if !slices.ContainsFunc(field.known, func(k string) bool { return glob(v, k) }) {
				return &fault{fmt.Sprintf("%s.%s[%d]", at, field.name, i), fmt.Sprintf("there is no %q: use %s", v, strings.Join(field.known, ", "))}
			}
		}
	}
	for i := range s.Except {
		if f := s.Except[i].check(fmt.Sprintf("%s.except[%d]", at, i)); f != nil {
			return f
		}
	}
	return nil
}

package policy

import (
	"embed"
	"io/fs"
	"os"
	"path"
	"slices"
	"sort"
	"strings"
	"sync"

	"cel.dev/cel-go/cel"

	"remit"
)

//go:embed pack/*.yaml
var packFiles embed.FS

// Source is a place that policies are read from: all files of it that end in
// .yaml or .yml, in the order of their paths. Name stands before the paths in
// messages; it may be "".
type Source struct {
	Name string
	FS   fs.FS

	builtIn bool
}

// Dir is the source of a directory.
func Dir(name string) Source { return Source{Name: name, FS: os.DirFS(name)} }

// Pack is the source of the built-in policies.
func Pack() Source {
	sub, err := fs.Sub(packFiles, "pack")
	if err != nil {
		panic(err) // the directory is compiled in
	}
	return Source{Name: "pack", FS: sub, builtIn: true}
}

// Set is what policies are loaded, with their overrides applied. It does not
// change and is safe for concurrent use.
type Set struct {
	policies []*Policy // in the order of their groups: the pack's first
	byID     map[string]*Policy
	problems []Problem
}

// Load reads the built-in pack and then the given sources in their order. A
// policy with an id that is there already takes its place; an override changes
// the policies that it names.
//
// A faulty document does not stop anything: it is in Problems of the set, its
// policy does not run, and all others do. The error is for a source that
// cannot be read ([remit.NotFound] when it is not there).
func Load(sources ...Source) (*Set, error) {
	return load(append([]Source{Pack()}, sources...))
}

var sharedEnv = sync.OnceValues(newEnv)

func load(sources []Source) (*Set, error) {
	env, err := sharedEnv()
	if err != nil {
		return nil, remit.Errorf(remit.Internal, "load policies", "%w", err)
	}
	s := &Set{byID: map[string]*Policy{}}
	var changes []*override
	for _, source := range sources {
		files, err := policyFiles(source.FS)
		if err != nil {
			kind := remit.Invalid
			if os.IsNotExist(err) {
				kind = remit.NotFound
			}
			return nil, remit.Errorf(kind, "load policies", "%s: %w", source.Name, err)
		}
		for _, file := range files {
			content, err := fs.ReadFile(source.FS, file)
			if err != nil {
				return nil, remit.Errorf(remit.Invalid, "load policies", "%s: %w", path.Join(source.Name, file), err)
			}
			docs, problems := readDocuments(path.Join(source.Name, file), content)
			s.problems = append(s.problems, problems...)
			inFile := map[string]bool{}
			for _, doc := range docs {
				if doc.override != nil {
					changes = append(changes, doc.override)
					continue
				}
				p := doc.policy
				p.Group = groupOf(file)
				p.BuiltIn = source.builtIn
				if inFile[p.ID] {
					s.problems = append(s.problems, p.texts.id.problem(0, p.ID, "the id stands in this file twice"))
					continue
				}
				inFile[p.ID] = true
				s.put(p)
			}
		}
	}
	// Overrides last: they may stand in any file, before or after what they
	// change.
	for _, c := range changes {
		s.apply(c)
	}
	s.compile(env)
	sort.SliceStable(s.problems, func(i, j int) bool {
		a, b := s.problems[i], s.problems[j]
		if a.File != b.File {
			return a.File < b.File
		}
		if a.Line != b.Line {
			return a.Line < b.Line
		}
		return a.Column < b.Column
	})
	return s, nil
}

func policyFiles(f fs.FS) ([]string, error) {
	var files []string
	err := fs.WalkDir(f, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		// Kubernetes mounts ConfigMaps through hidden directories of links.
		if entry.IsDir() && name != "." && strings.HasPrefix(path.Base(name), ".") {
			return fs.SkipDir
		}
		if !entry.IsDir() && (strings.HasSuffix(name, ".yaml") || strings.HasSuffix(name, ".yml")) {
			files = append(files, name)
		}
		return nil
	})
	return files, err
}

// groupOf names a file's policies: its name, without what orders the files.
func groupOf(file string) string {
	name := strings.TrimSuffix(strings.TrimSuffix(path.Base(file), ".yml"), ".yaml")
	if number, rest, ok := strings.Cut(name, "-"); ok && strings.Trim(number, "0123456789") == "" {
		return rest
	}
	return name
}

// put adds a policy, or gives it the place of the one that had its id.
func (s *Set) put(p *Policy) {
	if old := s.byID[p.ID]; old != nil {
		p.order = old.order
		p.Overridden = append(old.Overridden, p.File)
		s.policies[old.order] = p
	} else {
		p.order = len(s.policies)
		s.policies = append(s.policies, p)
	}
	s.byID[p.ID] = p
}

// apply changes the policies that an override names.
func (s *Set) apply(o *override) {
	report := func(t text, policy, message string) {
		s.problems = append(s.problems, t.problem(0, policy, message))
	}
	for _, id := range o.ids {
		pattern := strings.Contains(id.value, "*")
		found := false
		for _, p := range s.policies {
			if !glob(id.value, p.ID) {
				continue
			}
			found = true
			if p.written == nil {
				as := *p
				as.Parameters = slices.Clone(p.Parameters)
				p.written = &as
			}
			p.Overridden = append(p.Overridden, id.file)
			if o.severity != "" {
				// One severity for all: what the user says counts, whatever
				// the policy makes of the circumstances.
				p.Severity, p.SeverityWhen, p.texts.severity = o.severity, nil, nil
			}
			if o.disabled != nil {
				p.Disabled = *o.disabled
			}
			if o.remedy != nil {
				p.Remedy, p.texts.remedy = o.remedy.value, *o.remedy
			}
			if o.scope != nil {
				p.Scope = o.scope
			}
			for _, set := range o.parameters {
				if err := p.set(set); err != nil && !(pattern && err.missing) {
					report(set.name, p.ID, err.message)
				}
			}
		}
		if !found {
			known := make([]string, 0, len(s.policies))
			for _, p := range s.policies {
				known = append(known, p.ID)
			}
			report(id, "", "no policy "+quote(id.value)+meant(id.value, known))
		}
	}
}

type setError struct {
	message string
	missing bool
}

// set gives a parameter another value of the same type.
func (p *Policy) set(s setting) *setError {
	for i := range p.Parameters {
		par := &p.Parameters[i]
		if par.Name != s.name.value {
			continue
		}
		d := &decoder{file: s.name.file}
		v := d.value(s.node)
		if d.failed || celTypeOf(v).String() != celTypeOf(par.value).String() {
			return &setError{message: "parameter " + quote(par.Name) + " of " + p.ID + " is a " + par.Type + ", as in " + par.Default}
		}
		par.value, par.Value = v, writeValue(v)
		return nil
	}
	var known []string
	for _, par := range p.Parameters {
		known = append(known, par.Name)
	}
	hint := meant(s.name.value, known)
	switch {
	case len(known) == 0:
		hint = ": it has none"
	case hint == "":
		hint = ": it has " + strings.Join(known, ", ")
	}
	return &setError{message: p.ID + " has no parameter " + quote(s.name.value) + hint, missing: true}
}

func (s *Set) compile(env *cel.Env) {
	for _, p := range s.policies {
		p.compileAll(env, func(t text, offset int, message string) {
			s.problems = append(s.problems, t.problem(offset, p.ID, message))
		})
	}
}

// Policies lists the policies, the pack's groups first, each in the order of
// its file. Those that are disabled or did not compile are among them.
func (s *Set) Policies() []*Policy { return append([]*Policy(nil), s.policies...) }

// Policy finds one by its id; nil when there is none.
func (s *Set) Policy(id string) *Policy { return s.byID[id] }

// Problems lists what is wrong with the documents, in the order of the files.
func (s *Set) Problems() []Problem { return append([]Problem(nil), s.problems...) }

// Runs says whether the policy is evaluated: not disabled, and without fault.
func (p *Policy) Runs() bool { return p.program != nil && !p.Disabled }

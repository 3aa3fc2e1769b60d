package kubernetes

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	sigsjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"

	"remit"
	"remit/connector"
)

// The bounds on what files may hold. A document is what one object takes; a
// List is taken apart into its items first.
const (
	maxDocument  = 16 << 20
	maxFileGaps  = 100
	maxExtracted = 8 << 30 // of one compressed file
)

// files are the places from which a cluster is read offline.
type files struct {
	open  []fileOpener
	names []string

	mu      sync.Mutex
	ignored map[string]int
}

// fileOpener opens one file; its name is what messages call it.
type fileOpener struct {
	name string
	open func() (io.ReadCloser, error)
}

// OpenFiles reads a cluster from files: manifests, several in one file or not,
// YAML or JSON, what kubectl get -o yaml or -o json writes, and all of that
// compressed with gzip. A directory is read with everything below it that is
// called .yaml, .yml, .json, or one of these with .gz; a path that names a file
// is read whatever it is called; "-" is standard input. It fails with
// [remit.NotFound] when a path does not exist and with [remit.Invalid] when
// there is nothing to read in a directory.
//
// What cannot be read becomes a Gap that gives file and line, and the rest goes
// on.
func OpenFiles(paths []string, cfg Config) (*Connector, error) {
	const op = "read files"
	f := &files{names: paths}
	for _, path := range paths {
		if path == "-" {
			data, err := io.ReadAll(os.Stdin)
			if err != nil {
				return nil, remit.Errorf(remit.Invalid, op, "standard input: %w", err)
			}
			f.open = append(f.open, fileOpener{"standard input", func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }})
			continue
		}
		info, err := os.Stat(path)
		if err != nil {
			return nil, remit.Errorf(remit.NotFound, op, "%w", err)
		}
		if !info.IsDir() {
			f.open = append(f.open, fileOpener{path, func() (io.ReadCloser, error) { return os.Open(path) }})
			continue
		}
		before := len(f.open)
		if err := f.addDir(os.DirFS(path), path); err != nil {
			return nil, remit.Errorf(remit.Invalid, op, "%w", err)
		}
		if len(f.open) == before {
			return nil, remit.Errorf(remit.Invalid, op, "%s holds no file called .yaml, .yml, .json or one of these with .gz", path)
		}
	}
	if len(f.open) == 0 {
		return nil, remit.Errorf(remit.Invalid, op, "no path is given")
	}
	if cfg.Name == "" {
		cfg.Name = baseName(paths[0])
	}
	return openFiles(f, cfg)
}

// OpenFS is [OpenFiles] for a file system: everything in it that is called as a
// manifest is. name stands before the paths in messages.
func OpenFS(fsys fs.FS, name string, cfg Config) (*Connector, error) {
	f := &files{names: []string{name}}
	if err := f.addDir(fsys, name); err != nil {
		return nil, remit.Errorf(remit.Invalid, "read files", "%w", err)
	}
	if cfg.Name == "" {
		cfg.Name = name
	}
	return openFiles(f, cfg)
}

func openFiles(f *files, cfg Config) (*Connector, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	return &Connector{cfg: cfg, agents: newAgentMatcher(cfg.AgentRules), files: f, name: cfg.Name, login: strings.Join(f.names, ", "), extend: true}, nil
}

// addDir adds the manifests below a directory, but nothing hidden.
func (f *files) addDir(fsys fs.FS, name string) error {
	return fs.WalkDir(fsys, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return fmt.Errorf("%s: %w", filepath.Join(name, path), err)
		}
		if strings.HasPrefix(d.Name(), ".") && path != "." {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if !d.Type().IsRegular() || !manifestName(d.Name()) {
			return nil
		}
		f.open = append(f.open, fileOpener{filepath.Join(name, path), func() (io.ReadCloser, error) { return fsys.Open(path) }})
		return nil
	})
}

func manifestName(name string) bool {
	switch filepath.Ext(strings.TrimSuffix(strings.ToLower(name), ".gz")) {
	case ".yaml", ".yml", ".json":
		return true
	}
	return false
}

// Ignored counts the objects of the last inventory from files that are of no
// kind that the connector reads, by kind. It is empty for a live cluster.
func (c *Connector) Ignored() map[string]int {
	if c.files == nil {
		return nil
	}
	c.files.mu.Lock()
	defer c.files.mu.Unlock()
	return maps.Clone(c.files.ignored)
}

// system looks for what identifies the cluster: the namespace kube-system and
// the flags of its API server. Only documents that can be one of them are
// decoded.
func (f *files) system(ctx context.Context, c *Connector) (remit.System, flags, error) {
	system := remit.System{Recorded: true}
	var seen flags
	err := f.each(ctx, func(d document) error {
		if !bytes.Contains(d.data, []byte("kube-system")) {
			return nil
		}
		o, _, err := d.decode()
		if err != nil {
			return nil // told when the inventory is read
		}
		switch o := o.(type) {
		case *corev1.Namespace:
			if o.Name == "kube-system" && o.UID != "" {
				system.Native = string(o.UID)
			}
		case *corev1.Pod:
			if found := apiServerFlags(o); found != nil && seen == nil {
				seen = found
				for i := range o.Spec.Containers {
					if _, tag, ok := strings.Cut(o.Spec.Containers[i].Image, "kube-apiserver:"); ok {
						system.Version = truncate(tag, maxMeaning)
					}
				}
			}
		}
		return nil
	}, func(badDocument) {})
	if err != nil {
		return system, nil, err
	}
	if system.Native == "" {
		system.Native = "files:" + c.name
	}
	return system, seen, nil
}

// inventoryFiles reads the files once and hands over what they hold.
func (c *Connector) inventoryFiles(ctx context.Context, emit connector.Emit) error {
	system, err := c.System(ctx)
	if err != nil {
		return err
	}
	reducer, err := c.newReducer(system)
	if err != nil {
		return err
	}
	m := newModel(system.ID, c.cfg, c.agents, true, false)
	gaps := map[string][]*remit.Gap{}
	bad := 0
	ignored := map[string]int{}
	custom := c.agents.resources()
	collections := map[string]bool{}
	for _, l := range c.collections() {
		collections[l.kind] = true
	}
	err = c.files.each(ctx, func(d document) error {
		o, l, err := d.decode()
		if err != nil {
			return err
		}
		if o == nil { // of a kind that is not read, unless an agent rule names it
			kind := d.kind()
			group := kind.Group
			if !slices.Contains(custom[group], kind.Kind) {
				if len(ignored) < 1000 {
					ignored[truncate(kind.Kind, maxMeaning)]++
				}
				return nil
			}
			var p metav1.PartialObjectMetadata
			if err := json.Unmarshal(d.data, &p); err != nil {
				return err
			}
			o = &p
			l = &listing{group: group, kind: customKind(group, kind.Kind), namespaced: p.Namespace != "", metadataOnly: true, custom: true}
		} else if !collections[l.kind] {
			return nil
		} else if c.cfg.Secrets == SecretMetadata && l.kind == "Secret" {
			s, _ := o.(*corev1.Secret)
			o = &metav1.PartialObjectMetadata{ObjectMeta: s.ObjectMeta}
			only := *l
			only.secretType = string(s.Type)
			l = &only
		}
		acc, ok := o.(metav1.Object)
		if !ok {
			return nil
		}
		assumed := false
		if l.namespaced && acc.GetNamespace() == "" {
			acc.SetNamespace(c.cfg.FileNamespace)
			assumed = true
		}
		if acc.GetName() == "" {
			if acc.GetGenerateName() == "" {
				return errors.New("the object has no name")
			}
			acc.SetName(acc.GetGenerateName())
		}
		if l.namespaced && !m.scope.includes(acc.GetNamespace()) || l.kind == "Namespace" && !m.scope.includes(acc.GetName()) {
			return nil
		}
		reduced := reducer.reduce(l, o)
		if reduced == nil {
			return nil
		}
		reduced.meta.assumed = assumed
		m.put(reduced)
		return nil
	}, func(b badDocument) {
		bad++
		if bad <= maxFileGaps {
			gaps[sectionFiles] = append(gaps[sectionFiles], &remit.Gap{
				Section: sectionFiles,
				Reason:  fmt.Sprintf("%s:%d: %s", b.file, b.line, reason(b.err)),
			})
		}
	})
	if err != nil {
		return err
	}
	if bad > maxFileGaps {
		gaps[sectionFiles] = append(gaps[sectionFiles], &remit.Gap{
			Section: sectionFiles, Reason: fmt.Sprintf("%d more documents cannot be read", bad-maxFileGaps),
		})
	}
	for _, gap := range c.notRead() {
		gaps[gap.Section] = append(gaps[gap.Section], &gap)
	}
	c.files.mu.Lock()
	c.files.ignored = ignored
	c.files.mu.Unlock()

	whole := map[string]bool{}
	for _, section := range sectionOrder {
		whole[section] = true
	}
	// Whether something is listed completely decides what counts as absent, and
	// a file that cannot be read does not change what the others mean. But
	// nothing may be removed because of it: what it holds is not known.
	for _, l := range listings {
		m.complete[l.resource] = true
	}
	m.complete[sectionAgents], m.complete[sectionFiles] = true, true
	if bad > 0 {
		emit = neverComplete(emit)
	}
	return handOver(ctx, m, emit, whole, gaps)
}

// neverComplete hands pages on without the word that a section is complete.
func neverComplete(emit connector.Emit) connector.Emit {
	return func(ctx context.Context, page connector.Page) error {
		if page.Complete {
			page.Complete = false
			if !page.Begin && page.Records.Len() == 0 && len(page.Deleted) == 0 && page.Gap == nil {
				return nil
			}
		}
		return emit(ctx, page)
	}
}

// document is one object of a file, as JSON.
type document struct {
	data []byte
	file string
	line int

	// list is the kind of the typed list that it was an item of, such as
	// PodList, whose items do not name their own.
	list schema.GroupVersionKind
}

// badDocument is one that cannot be read.
type badDocument struct {
	file string
	line int
	err  error
}

// each calls use for every object of every file, and bad for what cannot be
// read, be it the syntax or what use says. It stops only when ctx ends.
func (f *files) each(ctx context.Context, use func(document) error, bad func(badDocument)) error {
	for _, file := range f.open {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := file.each(ctx, use, bad); err != nil {
			return err
		}
	}
	return nil
}

func (f fileOpener) each(ctx context.Context, use func(document) error, bad func(badDocument)) error {
	raw, err := f.open()
	if err != nil {
		bad(badDocument{f.name, 0, err})
		return nil
	}
	defer raw.Close()
	in := bufio.NewReaderSize(raw, 64<<10)
	if magic, _ := in.Peek(2); bytes.Equal(magic, []byte{0x1f, 0x8b}) {
		z, err := gzip.NewReader(in)
		if err != nil {
			bad(badDocument{f.name, 0, err})
			return nil
		}
		defer z.Close()
		in = bufio.NewReaderSize(io.LimitReader(z, maxExtracted), 64<<10)
	}
	return readDocuments(in, f.name, func(d document) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		err := use(d)
		if err != nil && ctx.Err() == nil {
			bad(badDocument{d.file, d.line, err})
			err = nil
		}
		return err
	}, func(line int, err error) { bad(badDocument{f.name, line, err}) })
}

// readDocuments takes a file apart into objects. It fails only with use's
// error.
func readDocuments(in *bufio.Reader, name string, use func(document) error, bad func(line int, err error)) error {
	// A byte order mark, white space and comments say nothing about the format.
	if mark, _ := in.Peek(3); bytes.Equal(mark, []byte{0xEF, 0xBB, 0xBF}) {
		_, _ = in.Discard(3) // was peeked
	}
	lines := 0
	for {
		b, err := in.Peek(1)
		if err != nil {
			if !errors.Is(err, io.EOF) {
				bad(1, err)
			}
			return nil
		}
		switch b[0] {
		case '\n':
			lines++
			fallthrough
		case ' ', '\t', '\r':
			_, _ = in.Discard(1) // was peeked
			continue
		case '{', '[':
			if looksJSON(in) {
				return readJSON(in, name, lines, use, bad)
			}
		}
		return readYAML(in, name, lines, use, bad)
	}
}

// looksJSON tells JSON from YAML in flow style: what follows the first bracket
// is a string, or another bracket of either.
func looksJSON(in *bufio.Reader) bool {
	ahead, _ := in.Peek(4096) // less than that is all there is
	depth := 0
	for _, b := range ahead {
		switch b {
		case ' ', '\t', '\r', '\n':
		case '{', '[':
			// YAML nests flow collections too, but not this deep for nothing.
			if depth++; depth > 64 {
				return true
			}
		case '"', '}', ']':
			return true
		default:
			return false
		}
	}
	return true
}

// kind reads the type of a document without the rest of it.
func (d document) kind() schema.GroupVersionKind {
	var t metav1.TypeMeta
	if err := json.Unmarshal(d.data, &t); err != nil || t.Kind == "" {
		gvk := d.list
		gvk.Kind = strings.TrimSuffix(gvk.Kind, "List")
		return gvk
	}
	return schema.FromAPIVersionAndKind(t.APIVersion, t.Kind)
}

// decode makes the typed object of a document; nil for a kind that is not read.
func (d document) decode() (runtime.Object, *listing, error) {
	gvk := d.kind()
	if gvk.Kind == "" {
		return nil, nil, errors.New("the document has no kind: it is no object of Kubernetes")
	}
	l := listingOf[gvk.Kind]
	if l == nil || !sameGroup(l.group, gvk.Group) {
		return nil, nil, nil
	}
	o := l.newObject()
	if err := sigsjson.UnmarshalCaseSensitivePreserveInts(d.data, o); err != nil {
		return nil, nil, fmt.Errorf("%s: %w", gvk.Kind, err)
	}
	return o, l, nil
}

// sameGroup compares API groups; extensions is where the workloads were before
// 2020, with the same form as far as it is read.
func sameGroup(want, have string) bool {
	return want == have || want == "apps" && have == "extensions"
}

// toJSON turns one YAML document into JSON. Aliases that would multiply are
// refused by the YAML library, and deep nesting by both.
func toJSON(data []byte) ([]byte, error) {
	j, err := yaml.YAMLToJSON(data)
	if err != nil {
		return nil, plainYAMLError(err)
	}
	return j, nil
}

// plainYAMLError drops what may quote the document: a Secret may be in it.
func plainYAMLError(err error) error {
	text := err.Error()
	for _, quote := range []string{"`", "invalid map key: "} {
		if i := strings.Index(text, quote); i >= 0 {
			text = strings.TrimSpace(text[:i+len(strings.TrimRight(quote, "` "))]) + " …"
		}
	}
	return errors.New(truncate(text, 300))
}

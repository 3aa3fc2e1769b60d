package kubernetes

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"remit"
	"remit/connector"
)

const (
	// pageRecords is how many records are handed over at once.
	pageRecords = 500

	// coalesce is how long the first change of a burst waits for the others.
	coalesce = 60 * time.Millisecond

	// listers is how many collections are listed at once: enough to keep both
	// sides busy, few enough that their pages stay small in sum.
	listers = 4

	// rediscover is how often a watch looks for new kinds of custom resource.
	rediscover = time.Minute
)

// secretTypes are those that can be told apart without reading values: each has
// a listing of its own where only metadata is read.
var secretTypes = []string{
	"kubernetes.io/service-account-token", "kubernetes.io/dockerconfigjson", "kubernetes.io/dockercfg",
	"kubernetes.io/basic-auth", "kubernetes.io/ssh-auth", "kubernetes.io/tls", "bootstrap.kubernetes.io/token",
	"helm.sh/release.v1", "Opaque",
}

// collections are the listings that the configuration asks for.
func (c *Connector) collections() []*listing {
	var out []*listing
	for _, l := range listings {
		if l.kind != "Secret" && l.kind != "ConfigMap" || c.cfg.Secrets == SecretValues {
			out = append(out, l)
			continue
		}
		if c.cfg.Secrets == SecretNone || l.kind == "ConfigMap" {
			continue
		}
		rest := make([]string, 0, len(secretTypes))
		for _, typ := range secretTypes {
			only := *l
			only.metadataOnly, only.fieldSelector, only.secretType = true, "type="+typ, typ
			out = append(out, &only)
			rest = append(rest, "type!="+typ)
		}
		others := *l
		others.metadataOnly, others.fieldSelector = true, strings.Join(rest, ",")
		out = append(out, &others)
	}
	return out
}

// notRead are the sections that the configuration leaves out.
func (c *Connector) notRead() []remit.Gap {
	var gaps []remit.Gap
	if c.cfg.Secrets == SecretNone {
		gaps = append(gaps, remit.Gap{Section: "secrets", Reason: "not read, as configured", Need: "read Secrets with their values or their metadata"})
	}
	if c.cfg.Secrets != SecretValues {
		gaps = append(gaps, remit.Gap{Section: "configmaps", Reason: "not read, as configured: there is no telling what lies in them without reading values", Need: "read Secrets with their values"})
	}
	return gaps
}

// run is one reading of a live cluster: an inventory, or a watch.
type run struct {
	*Connector
	emit  connector.Emit
	live  bool
	model *model

	reducer *reducer
	events  chan event
	slots   chan struct{}
	tasks   sync.WaitGroup

	open       map[string]map[*task]bool // tasks of a section that have not ended well yet
	gaps       map[string][]*remit.Gap   // by section
	waiting    map[*task]bool            // tasks whose first listing goes on
	failed     map[*task]error           // tasks with a gap, and why
	total      int                       // how many tasks there are
	started    map[string]bool           // custom resources that are read, by listing id
	discovered bool                      // it is known which custom resources there are
	resync     map[string]bool           // sections to hand over from Begin to Complete
	handed     bool                      // the first full hand-over is done
}

// Inventory implements [connector.Connector].
func (c *Connector) Inventory(ctx context.Context, emit connector.Emit) error {
	if c.files != nil {
		return c.inventoryFiles(ctx, emit)
	}
	return c.read(ctx, emit, false)
}

// Watch implements [connector.Watcher]. On files it fails with
// [remit.Unsupported].
func (c *Connector) Watch(ctx context.Context, emit connector.Emit) error {
	if c.files != nil {
		return remit.Errorf(remit.Unsupported, "watch", "files cannot be watched: read them again instead")
	}
	return c.read(ctx, emit, true)
}

func (c *Connector) read(ctx context.Context, emit connector.Emit, live bool) error {
	system, err := c.System(ctx)
	if err != nil {
		return err
	}
	reducer, err := c.newReducer(system)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	r := &run{
		Connector: c, emit: emit, live: live,
		model:   newModel(system.ID, c.cfg, c.agents, false, live),
		reducer: reducer,
		events:  make(chan event, 1024),
		slots:   make(chan struct{}, listers),
		open:    map[string]map[*task]bool{},
		gaps:    map[string][]*remit.Gap{},
		waiting: map[*task]bool{},
		started: map[string]bool{},
		resync:  map[string]bool{},
		failed:  map[*task]error{},
	}
	defer r.tasks.Wait()
	defer cancel()
	return r.do(ctx)
}

func (r *run) do(ctx context.Context) error {
	for _, l := range r.collections() {
		r.start(ctx, l)
	}
	for _, gap := range r.notRead() {
		r.gaps[gap.Section] = append(r.gaps[gap.Section], &gap)
		// What was not asked for keeps nothing else from being complete.
		r.model.setComplete(gap.Section, true)
	}
	found, err := r.client.customResources(ctx, r.agents, r.cfg.retry)
	r.discover(ctx, found, err)

	for len(r.waiting) > 0 {
		if err := r.next(ctx); err != nil {
			return err
		}
	}
	if err := r.nothingRead(); err != nil {
		return err
	}
	if err := r.handOver(ctx); err != nil || !r.live {
		return err
	}
	r.handed = true

	type discovery struct {
		found []*listing
		err   error
	}
	discovered := make(chan discovery)
	again := time.NewTicker(rediscover)
	defer again.Stop()
	var flush <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-again.C:
			// Not here: an API server that hangs must not hold up the events
			// that are here already.
			r.tasks.Go(func() {
				found, err := r.client.customResources(ctx, r.agents, retryPolicy{attempts: 1})
				select {
				case discovered <- discovery{found, err}:
				case <-ctx.Done():
				}
			})
		case d := <-discovered:
			r.discover(ctx, d.found, d.err)
		case <-flush:
			flush = nil
			if err := r.handOver(ctx); err != nil {
				return err
			}
		case e := <-r.events:
			if err := r.take(ctx, e); err != nil {
				return err
			}
			if flush == nil && (len(r.model.dirty) > 0 || len(r.resync) > 0) {
				flush = time.After(coalesce)
			}
		}
	}
}

// next takes one event.
func (r *run) next(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case e := <-r.events:
		return r.take(ctx, e)
	}
}

// start begins the tasks of a listing.
func (r *run) start(ctx context.Context, l *listing) {
	namespaces := []string{""}
	if l.namespaced && len(r.cfg.Namespaces) > 0 {
		namespaces = r.cfg.Namespaces
	}
	section := l.section()
	for _, ns := range namespaces {
		t := &task{
			listing: l, namespace: ns, client: r.client, reducer: r.reducer, retry: r.cfg.retry, pageLimit: r.cfg.pageLimit,
			log: r.cfg.Logger, events: r.events, slots: r.slots, live: r.live,
		}
		if r.open[section] == nil {
			r.open[section] = map[*task]bool{}
		}
		r.open[section][t] = true
		r.waiting[t] = true
		r.total++
		r.tasks.Go(func() { t.run(ctx) })
	}
}

// take brings one event into the model.
func (r *run) take(ctx context.Context, e event) error {
	switch {
	case e.fatal != nil:
		return explain("read inventory", e.fatal, r.address(), r.login)
	case e.put != nil:
		for _, o := range e.put {
			if o.ref.Kind == "Namespace" && !r.model.scope.includes(o.ref.Name) {
				continue
			}
			r.model.put(o)
		}
	case e.gone != nil:
		for _, ref := range e.gone {
			r.model.remove(ref)
		}
	case e.ended:
		return r.ended(ctx, e.task, e.err)
	}
	return nil
}

// ended notes that a listing has ended, and how.
func (r *run) ended(ctx context.Context, t *task, failure error) error {
	section := t.listing.section()
	first := r.waiting[t]
	delete(r.waiting, t)
	if failure != nil {
		gap := t.gap(failure)
		known := slices.ContainsFunc(r.gaps[section], func(g *remit.Gap) bool { return *g == *gap })
		r.failed[t] = failure
		r.open[section][t] = true
		r.model.setComplete(section, false)
		if !known {
			r.gaps[section] = append(r.gaps[section], gap)
			if r.handed {
				return r.emit(ctx, connector.Page{Section: section, Gap: gap})
			}
		}
		return nil
	}
	wasFailed := r.failed[t] != nil
	delete(r.failed, t)
	delete(r.open[section], t)
	if len(r.open[section]) == 0 && (section != sectionAgents || r.discovered) {
		delete(r.gaps, section)
		r.model.setComplete(section, true)
		if r.handed {
			r.resync[section] = true
			if wasFailed || first {
				for name, in := range derived {
					if slices.Contains(in, section) {
						r.resync[name] = true
					}
				}
			}
		}
	}
	if !r.handed {
		// Says how far things are; the records follow when all is known.
		return r.emit(ctx, connector.Page{Section: section})
	}
	return nil
}

// nothingRead is the error of a reading in which not one listing worked, and nil
// for every other.
func (r *run) nothingRead() error {
	if len(r.failed) < r.total {
		return nil
	}
	const op = "read inventory"
	var first *task
	refusedAll := true
	for t, err := range r.failed {
		refusedAll = refusedAll && judgeError(err) == refused
		if first == nil || sectionRank(t.listing.section()) < sectionRank(first.listing.section()) {
			first = t
		}
	}
	if first == nil {
		return nil
	}
	if refusedAll {
		return remit.Errorf(remit.Forbidden, op,
			"the login of %s may list nothing at all: give it the ClusterRole of deploy/kubernetes/clusterrole.yaml; the first refusal: %w", r.login, r.failed[first])
	}
	return explain(op, r.failed[first], r.address(), r.login)
}

// handOver emits what changed in the model, and whole sections where they were
// listed (anew).
func (r *run) handOver(ctx context.Context) error {
	whole := r.resync
	r.resync = map[string]bool{}
	if !r.handed {
		for _, section := range sectionOrder {
			if section != sectionFiles {
				whole[section] = true
			}
		}
	} else {
		for section := range whole {
			r.model.touchSection(section)
		}
	}
	return handOver(ctx, r.model, r.emit, whole, r.gaps)
}

// handOver flushes the model in pages. Sections in whole are framed by Begin and,
// where everything of them was seen, Complete; their gaps come with Begin.
func handOver(ctx context.Context, m *model, emit connector.Emit, whole map[string]bool, gaps map[string][]*remit.Gap) error {
	pages := pager{ctx: ctx, emit: emit}
	begun := map[string]bool{}
	pending := slices.SortedFunc(maps.Keys(whole), func(a, b string) int {
		return cmp.Or(cmp.Compare(sectionRank(a), sectionRank(b)), cmp.Compare(a, b))
	})
	begin := func(section string) error {
		begun[section] = true
		page := connector.Page{Section: section, Begin: true}
		for _, gap := range gaps[section] {
			page.Gap = gap
			if err := emit(ctx, page); err != nil {
				return err
			}
			page = connector.Page{Section: section}
		}
		if page.Begin {
			pages.begin = true
		}
		return nil
	}
	end := func(section string) error {
		complete := len(gaps[section]) == 0 && m.sectionComplete(section)
		return pages.end(section, complete)
	}
	// Sections come in their order, so those before the one at hand are done.
	current := ""
	advance := func(to string) error {
		if to == current {
			return nil
		}
		if current != "" {
			if err := pages.flush(current); err != nil {
				return err
			}
		}
		if whole[current] {
			if err := end(current); err != nil {
				return err
			}
		}
		for len(pending) > 0 && (to == "" || sectionRank(pending[0]) < sectionRank(to)) {
			section := pending[0]
			pending = pending[1:]
			if begun[section] {
				continue
			}
			if err := begin(section); err != nil {
				return err
			}
			if err := end(section); err != nil {
				return err
			}
		}
		current = to
		if whole[to] && !begun[to] {
			return begin(to)
		}
		return nil
	}
	err := m.flush(func(section string, records remit.Records, deleted []remit.ID) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := advance(section); err != nil {
			return err
		}
		return pages.add(section, records, deleted)
	}, func(section string, deleted []remit.ID) error {
		return emit(ctx, connector.Page{Section: section, Deleted: deleted})
	})
	if err != nil {
		return err
	}
	return advance("")
}

// pager collects records into pages.
type pager struct {
	ctx     context.Context
	emit    connector.Emit
	begin   bool
	records remit.Records
	deleted []remit.ID
}

func (p *pager) add(section string, records remit.Records, deleted []remit.ID) error {
	p.records.Append(records)
	p.deleted = append(p.deleted, deleted...)
	if p.records.Len()+len(p.deleted) < pageRecords {
		return nil
	}
	return p.flush(section)
}

func (p *pager) flush(section string) error {
	if p.records.Len() == 0 && len(p.deleted) == 0 {
		return nil
	}
	page := connector.Page{Section: section, Begin: p.begin, Records: p.records, Deleted: p.deleted}
	p.begin, p.records, p.deleted = false, remit.Records{}, nil
	return p.emit(p.ctx, page)
}

// end emits what is left of a whole section.
func (p *pager) end(section string, complete bool) error {
	if err := p.flush(section); err != nil {
		return err
	}
	if !p.begin && !complete {
		return nil
	}
	page := connector.Page{Section: section, Begin: p.begin, Complete: complete}
	p.begin = false
	return p.emit(p.ctx, page)
}

// discover begins to read the custom resources that agent rules name and that
// were found, as far as they are not read yet.
func (r *run) discover(ctx context.Context, found []*listing, err error) {
	if err != nil {
		if ctx.Err() == nil && !r.handed {
			r.gaps[sectionAgents] = append(r.gaps[sectionAgents], &remit.Gap{
				Section: sectionAgents, Reason: reason(err), Need: "the ClusterRole system:discovery, which every login has by default",
			})
		}
		return
	}
	first := !r.discovered
	r.discovered = true
	for _, l := range found {
		if !r.started[l.id()] {
			r.started[l.id()] = true
			r.model.setComplete(sectionAgents, false)
			r.start(ctx, l)
		}
	}
	if len(r.open[sectionAgents]) == 0 {
		r.model.setComplete(sectionAgents, true)
		if first && r.handed {
			delete(r.gaps, sectionAgents)
			r.resync[sectionAgents] = true
		}
	}
}

// customResources finds which of the custom resources that the rules name the
// cluster has, by its discovery documents, which every login may read.
func (c *client) customResources(ctx context.Context, agents *agentMatcher, retry retryPolicy) ([]*listing, error) {
	wanted := agents.resources()
	var groups metav1.APIGroupList
	if err := c.patiently(ctx, "/apis", &groups, retry); err != nil {
		return nil, err
	}
	var found []*listing
	for _, g := range groups.Groups {
		kinds := wanted[g.Name]
		if len(kinds) == 0 {
			continue
		}
		version := cmp.Or(g.PreferredVersion.Version, "v1")
		var resources metav1.APIResourceList
		if err := c.patiently(ctx, "/apis/"+g.Name+"/"+version, &resources, retry); err != nil {
			return nil, err
		}
		for _, res := range resources.APIResources {
			if !slices.Contains(kinds, res.Kind) || strings.Contains(res.Name, "/") || !slices.Contains(res.Verbs, "list") {
				continue
			}
			found = append(found, &listing{
				group: g.Name, version: version, resource: res.Name, kind: customKind(g.Name, res.Kind),
				namespaced: res.Namespaced, metadataOnly: true, custom: true,
			})
		}
	}
	return found, nil
}

// patiently gets a document and tries again what is worth it.
func (c *client) patiently(ctx context.Context, path string, into any, retry retryPolicy) error {
	note := &hint{}
	ctx = context.WithValue(ctx, hintKey{}, note)
	for attempt := 1; ; attempt++ {
		err := c.get(ctx, path, into)
		if err == nil || ctx.Err() != nil || judgeError(err) != again || attempt >= retry.attempts || isRefusedConnection(err) {
			return err
		}
		if err := sleep(ctx, retry.delay(attempt, note.take())); err != nil {
			return err
		}
	}
}

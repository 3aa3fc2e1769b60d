package server

import (
	"context"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"remit"
	"remit/activity"
	"remit/server/ingest"
	"remit/server/token"
)

// Metrics are what Remit tells of itself, for Prometheus. docs/reference/metrics.md
// lists them.
type Metrics struct {
	registry *prometheus.Registry

	received, bytes *prometheus.CounterVec // by origin
	dead            *prometheus.CounterVec
	triggers        *prometheus.CounterVec // by origin and outcome
	pipeline        [4]counter
	checkpoints     prometheus.Histogram
}

// counter follows a number that only grows.
type counter struct {
	prometheus.Counter
	last int64
}

func (c *counter) set(n int64) {
	if n > c.last {
		c.Add(float64(n - c.last))
		c.last = n
	}
}

// Gauges are what is asked for when the metrics are read.
type Gauges struct {
	// Waiting is how many batches and bytes are in the queue.
	Waiting func(ctx context.Context) (batches, bytes int64, err error)
	// Findings counts unresolved findings by severity.
	Findings func(ctx context.Context, system remit.ID) ([]remit.FacetCount, error)
	// Plans counts the plans that somebody should know of, by state.
	Plans func(ctx context.Context) (map[remit.ResponseState]int, error)
}

// NewMetrics makes metrics at zero.
func NewMetrics(g Gauges) *Metrics {
	m := &Metrics{registry: prometheus.NewRegistry()}
	vec := func(name, help string) *prometheus.CounterVec {
		v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{"origin"})
		m.registry.MustRegister(v)
		return v
	}
	m.received = vec("remit_received_events_total", "Events that were put into the queue.")
	m.bytes = vec("remit_received_bytes_total", "Bytes of the events that were put into the queue, without secrets.")
	m.dead = vec("remit_received_dead_total", "Received events of which nothing could be made; see dead-letters.jsonl.")
	m.triggers = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "remit_triggers_total", Help: "Signals, leaked secrets and reports that were taken in, by what became of them.",
	}, []string{"origin", "outcome"})
	m.registry.MustRegister(m.triggers)
	for i, c := range [...]struct{ name, help string }{
		{"remit_counted_events_total", "Events that were attributed and counted."},
		{"remit_duplicate_events_total", "Events that had been counted before."},
		{"remit_ignored_events_total", "Stages of requests that say nothing."},
		{"remit_dead_events_total", "Events that could not be decoded; see dead-letters.jsonl."},
	} {
		m.pipeline[i].Counter = prometheus.NewCounter(prometheus.CounterOpts{Name: c.name, Help: c.help})
		m.registry.MustRegister(m.pipeline[i].Counter)
	}
	m.checkpoints = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "remit_checkpoint_seconds", Help: "How long it took to write what a stretch of events changed.",
		Buckets: prometheus.ExponentialBuckets(0.005, 2, 12),
	})
	m.registry.MustRegister(m.checkpoints, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), gauges{g})
	return m
}

// Received notes what was taken in; see [ingest.Intake].
func (m *Metrics) Received(from ingest.Origin, t ingest.Taken) {
	m.received.WithLabelValues(from.Name).Add(float64(t.Events))
	m.bytes.WithLabelValues(from.Name).Add(float64(t.Bytes))
	m.dead.WithLabelValues(from.Name).Add(float64(t.Dead))
}

// Triggered notes what became of a signal, a leaked secret or a report.
func (m *Metrics) Triggered(origin, outcome string) {
	m.triggers.WithLabelValues(origin, outcome).Inc()
}

// Counted notes a checkpoint; see [Activity].
func (m *Metrics) Counted(c activity.Counts, took time.Duration) {
	for i, n := range [...]int64{c.Events, c.Duplicate, c.Ignored, c.Dead} {
		m.pipeline[i].set(n)
	}
	m.checkpoints.Observe(took.Seconds())
}

// Handler serves them to who has a token with that scope.
func (m *Metrics) Handler(tokens *token.Tokens) http.Handler {
	inner := promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := tokens.Check(r.Context(), token.Bearer(r), token.ReadMetrics); err != nil {
			status := http.StatusServiceUnavailable
			switch remit.KindOf(err) {
			case remit.Unauthorized:
				w.Header().Set("WWW-Authenticate", `Bearer realm="remit"`)
				status = http.StatusUnauthorized
			case remit.Forbidden:
				status = http.StatusForbidden
			}
			http.Error(w, http.StatusText(status), status)
			return
		}
		inner.ServeHTTP(w, r)
	})
}

// gauges are read when somebody asks.
type gauges struct{ Gauges }

var (
	queueBatches = prometheus.NewDesc("remit_queue_batches", "Batches of events that wait in the queue, or were not yet removed from it.", nil, nil)
	queueBytes   = prometheus.NewDesc("remit_queue_bytes", "Bytes in the queue.", nil, nil)
	findingsOpen = prometheus.NewDesc("remit_findings", "Unresolved findings.", []string{"severity"}, nil)
	plans        = prometheus.NewDesc("remit_plans", "Plans that wait or are under way, and those that failed within a day.", []string{"state"}, nil)
)

func (gauges) Describe(d chan<- *prometheus.Desc) {
	d <- queueBatches
	d <- queueBytes
	d <- findingsOpen
	d <- plans
}

func (g gauges) Collect(out chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if g.Waiting != nil {
		if batches, bytes, err := g.Waiting(ctx); err == nil {
			out <- prometheus.MustNewConstMetric(queueBatches, prometheus.GaugeValue, float64(batches))
			out <- prometheus.MustNewConstMetric(queueBytes, prometheus.GaugeValue, float64(bytes))
		}
	}
	if g.Findings != nil {
		counts, _ := g.Findings(ctx, "") // what cannot be read is left out
		for _, c := range counts {
			if c.Facet == "severity" {
				out <- prometheus.MustNewConstMetric(findingsOpen, prometheus.GaugeValue, float64(c.Count), c.Value)
			}
		}
	}
	if g.Plans != nil {
		counts, _ := g.Plans(ctx)
		for state, n := range counts {
			out <- prometheus.MustNewConstMetric(plans, prometheus.GaugeValue, float64(n), string(state))
		}
	}
}

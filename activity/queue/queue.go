// Package queue holds batches of raw events on disk between the sender's
// acknowledgement and the pipeline's checkpoint.
//
// It is NATS JetStream in both sizes: a server inside this process, without a
// listener, which writes every batch to disk before it acknowledges it, or an
// external cluster by URL.
package queue

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"remit"
)

// Batch is raw events of one source, one JSON object a line, without secrets.
type Batch struct {
	System  remit.ID  // whose events they are; "" when the events tell
	Source  string    // the name of their source, "" when it is to be recognised
	Learned time.Time // when they were received
	Events  []byte
}

// Options say where the queue is and how much it holds.
type Options struct {
	// Dir is where the embedded queue keeps its files; URL, when set, is an
	// external cluster ("nats://…") that is used instead.
	Dir, URL string

	// MaxBytes is how much may wait; 0 is 8 GiB. When it is full, Put refuses
	// and the sender has to try again later.
	MaxBytes int64
}

// Queue is safe for concurrent use.
type Queue struct {
	server *server.Server // nil when it is external
	conn   *nats.Conn
	stream jetstream.JetStream
	id     string

	failing atomic.Int64 // since when nothing can be put, in Unix nanoseconds; 0 while it can
}

const (
	streamName = "ACTIVITY"
	subject    = "activity.raw"

	// maxMessage bounds one message, and with it what one Put may carry.
	maxMessage = 8 << 20

	headerSystem  = "Remit-System"
	headerSource  = "Remit-Source"
	headerLearned = "Remit-Learned"
)

// MaxBatch is the largest Events of one batch, in bytes.
const MaxBatch = maxMessage - 64<<10

// Open starts the embedded queue, or connects to the external one, and goes on
// with what waits in it. Only one process may have an embedded queue open.
func Open(ctx context.Context, o Options) (*Queue, error) {
	const op = "open queue"
	if o.MaxBytes <= 0 {
		o.MaxBytes = 8 << 30
	}
	q := new(Queue)
	connect := []nats.Option{nats.Name("remit"), nats.MaxReconnects(-1)}
	if o.URL == "" {
		s, err := server.NewServer(&server.Options{
			ServerName: "remit", DontListen: true, JetStream: true, StoreDir: o.Dir,
			SyncAlways: true, MaxPayload: maxMessage, NoLog: true, NoSigs: true,
			JetStreamMaxMemory: 64 << 20, JetStreamMaxStore: o.MaxBytes + o.MaxBytes/4,
		})
		if err != nil {
			return nil, remit.Errorf(remit.Internal, op, "%w", err)
		}
		s.Start()
		if !s.ReadyForConnections(30 * time.Second) {
			s.Shutdown()
			return nil, remit.Errorf(remit.Unavailable, op, "the queue in %s did not start within 30 seconds: is another process using it?", o.Dir)
		}
		q.server = s
		connect = append(connect, nats.InProcessServer(s))
	}
	conn, err := nats.Connect(o.URL, connect...)
	if err != nil {
		q.Close()
		return nil, remit.Errorf(remit.Unavailable, op, "connect to %s: %w", withoutPassword(o.URL), err)
	}
	q.conn = conn
	var made jetstream.Stream
	if q.stream, err = jetstream.New(conn); err == nil {
		made, err = q.stream.CreateOrUpdateStream(ctx, jetstream.StreamConfig{
			Name: streamName, Subjects: []string{subject}, Storage: jetstream.FileStorage,
			Retention: jetstream.LimitsPolicy, Discard: jetstream.DiscardNew, MaxBytes: o.MaxBytes,
			MaxMsgSize: maxMessage, AllowDirect: false,
		})
	}
	if err != nil {
		q.Close()
		return nil, remit.Errorf(remit.Unavailable, op, "%w", err)
	}
	q.id = strconv.FormatInt(made.CachedInfo().Created.UnixNano(), 36)
	return q, nil
}

// ID tells this queue from any other, also from a later one in its place, so that
// a position in one is not taken for one in the other.
func (q *Queue) ID() string { return q.id }

// Failing is since when nothing could be put because the queue does not work, a
// full one aside; the zero time while it works. An embedded one whose disk was
// full once does not recover by itself: it has to be opened again.
func (q *Queue) Failing() time.Time {
	if since := q.failing.Load(); since != 0 {
		return time.Unix(0, since)
	}
	return time.Time{}
}

func withoutPassword(url string) string {
	if at := strings.LastIndexByte(url, '@'); at >= 0 {
		if scheme, _, ok := strings.Cut(url, "://"); ok {
			return scheme + "://" + url[at+1:]
		}
		return url[at+1:]
	}
	return url
}

// Close stops the queue. What waits in it stays.
func (q *Queue) Close() {
	if q.conn != nil {
		q.conn.Close()
	}
	if q.server != nil {
		q.server.Shutdown()
		q.server.WaitForShutdown()
	}
}

// Put writes a batch and returns when it is on disk. [remit.Unavailable] when
// the queue is full or does not answer: the batch is not in it, or is in it and
// may be sent again without harm.
func (q *Queue) Put(ctx context.Context, b Batch) error {
	const op = "queue events"
	if len(b.Events) > MaxBatch {
		return remit.Errorf(remit.Invalid, op, "a batch of %d bytes: send at most %d at once", len(b.Events), MaxBatch)
	}
	m := nats.NewMsg(subject)
	m.Header.Set(headerSystem, string(b.System))
	m.Header.Set(headerSource, b.Source)
	m.Header.Set(headerLearned, strconv.FormatInt(b.Learned.UnixMicro(), 10))
	m.Data = b.Events
	_, err := q.stream.PublishMsg(ctx, m)
	var api *jetstream.APIError
	switch {
	case err == nil:
		q.failing.Store(0)
		return nil
	case errors.As(err, &api) && api.ErrorCode == 10077:
		q.failing.Store(0)
		return remit.Errorf(remit.Unavailable, op, "the queue is full: send the batch again later")
	}
	if ctx.Err() == nil {
		q.failing.CompareAndSwap(0, time.Now().UnixNano())
	}
	return remit.Errorf(remit.Unavailable, op, "%w", err)
}

// Read calls each with every batch behind the one of sequence number after, in
// order, and waits for more until ctx ends or each fails. idle is called when
// nothing waits; both are called by one goroutine, and idle at least about
// every interval.
func (q *Queue) Read(ctx context.Context, after int64, interval time.Duration, each func(sequence int64, b Batch) error, idle func() error) error {
	const op = "read queue"
	s, err := q.stream.Stream(ctx, streamName)
	if err != nil {
		return remit.Errorf(remit.Unavailable, op, "%w", err)
	}
	if info, err := s.Info(ctx); err == nil && info.State.LastSeq < uint64(after) {
		after = 0 // another queue than the one that the position is of
	}
	consumer, err := q.stream.OrderedConsumer(ctx, streamName, jetstream.OrderedConsumerConfig{
		DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: uint64(after) + 1,
	})
	if err != nil {
		return remit.Errorf(remit.Unavailable, op, "%w", err)
	}
	messages, err := consumer.Messages(jetstream.PullMaxBytes(4 * maxMessage))
	if err != nil {
		return remit.Errorf(remit.Unavailable, op, "%w", err)
	}
	defer messages.Stop()
	for {
		m, err := messages.Next(jetstream.NextMaxWait(interval))
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, nats.ErrTimeout):
			if err := idle(); err != nil {
				return err
			}
			continue
		case err != nil:
			return remit.Errorf(remit.Unavailable, op, "%w", err)
		}
		meta, err := m.Metadata()
		if err != nil {
			return remit.Errorf(remit.Internal, op, "%w", err)
		}
		micros, _ := strconv.ParseInt(m.Headers().Get(headerLearned), 10, 64)
		b := Batch{
			System: remit.ID(m.Headers().Get(headerSystem)), Source: m.Headers().Get(headerSource),
			Learned: time.UnixMicro(micros).UTC(), Events: m.Data(),
		}
		if err := each(int64(meta.Sequence.Stream), b); err != nil {
			return err
		}
	}
}

// Discard removes the batches up to a sequence number, which a checkpoint has
// counted.
func (q *Queue) Discard(ctx context.Context, upTo int64) error {
	s, err := q.stream.Stream(ctx, streamName)
	if err == nil {
		err = s.Purge(ctx, jetstream.WithPurgeSequence(uint64(upTo)+1))
	}
	if err != nil {
		return remit.Errorf(remit.Unavailable, "discard from queue", "%w", err)
	}
	return nil
}

// Waiting is how many batches and bytes are in the queue.
func (q *Queue) Waiting(ctx context.Context) (batches, bytes int64, err error) {
	s, err := q.stream.Stream(ctx, streamName)
	if err != nil {
		return 0, 0, remit.Errorf(remit.Unavailable, "look at queue", "%w", err)
	}
	info, err := s.Info(ctx)
	if err != nil {
		return 0, 0, remit.Errorf(remit.Unavailable, "look at queue", "%w", err)
	}
	return int64(info.State.Msgs), int64(info.State.Bytes), nil
}

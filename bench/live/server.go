package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"remit"
	"remit/e2e/process"
	"remit/server/ingest"
	"remit/store/sqlstore"
)

// system is whose events are sent.
const system = "prod"

// server is a running `remit serve` and a client of it.
type server struct {
	data, url      string
	token, metrics string
	client         *http.Client
	group          *process.Group
	process        *process.Process
	system         remit.ID
}

// serve starts a server on loopback, which ends with this process.
func (b *bench) serve(ctx context.Context, data string) (_ *server, err error) {
	port, err := process.FreePort()
	if err != nil {
		return nil, err
	}
	address := "127.0.0.1:" + strconv.Itoa(port)
	s := &server{data: data, url: "https://" + address}
	command := func(args ...string) (string, error) {
		var said bytes.Buffer
		cmd := exec.CommandContext(ctx, b.program, append(args, "--data-dir", data)...)
		cmd.Stderr = &said
		out, err := cmd.Output()
		if err != nil {
			return "", fmt.Errorf("remit %s: %w: %s", strings.Join(args, " "), err, said.String())
		}
		return strings.TrimSpace(string(out)), nil
	}
	if s.token, err = command("token", "create", "bench", "--system", system, "--source", "kubernetes"); err != nil {
		return nil, err
	}
	if s.metrics, err = command("token", "create", "bench-metrics", "--for", "metrics"); err != nil {
		return nil, err
	}
	authority, err := command("token", "authority")
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM([]byte(authority))
	s.client = &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}, ForceAttemptHTTP2: true,
	}}
	if s.group, err = process.NewGroup("remit-bench-live"); err != nil {
		return nil, err
	}
	s.process, err = s.group.Start(process.Command{
		Name: "remit", Path: b.program, Args: []string{"serve", "--no-watch", "--listen", address, "--data-dir", data},
	})
	if err == nil {
		err = s.process.Wait(ctx, s.healthy)
	}
	if err != nil {
		return nil, errors.Join(err, s.group.Close())
	}
	return s, nil
}

func (s *server) stop() error {
	s.client.CloseIdleConnections()
	return errors.Join(s.process.Stop(syscall.SIGTERM, 30*time.Second), s.group.Close())
}

func (s *server) healthy(ctx context.Context) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+"/healthz", nil)
	if err != nil {
		return err
	}
	response, err := s.client.Do(r)
	if err != nil {
		return err
	}
	return response.Body.Close()
}

// again is an answer that asks for the same once more.
type again struct{ error }

// send posts events and returns when the server has them on disk.
func (s *server) send(ctx context.Context, body *bytes.Buffer) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url+ingest.Path, bytes.NewReader(body.Bytes()))
	if err != nil {
		return err
	}
	r.Header.Set("Authorization", "Bearer "+s.token)
	r.Header.Set("Content-Type", "application/json")
	response, err := s.client.Do(r)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	switch response.StatusCode {
	case http.StatusOK:
		if !bytes.Contains(answer, []byte(`"dead":0`)) {
			return fmt.Errorf("events were not understood: %s", answer)
		}
		return nil
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		return again{fmt.Errorf("%s: %s", response.Status, answer)}
	}
	return fmt.Errorf("%s: %s", response.Status, answer)
}

// victim is the ID of an account that is robbed.
func (s *server) victim(ctx context.Context, store *sqlstore.Store, i int) (remit.ID, error) {
	if s.system == "" {
		systems, err := store.Systems(ctx)
		if err != nil {
			return "", err
		}
		for _, one := range systems {
			if one.Name == system {
				s.system = one.ID
			}
		}
		if s.system == "" {
			return "", errors.New("the system was not made with its first event")
		}
	}
	return remit.IdentityID(s.system, remit.Ref{Kind: "ServiceAccount", Namespace: robbed, Name: victim(i)}), nil
}

// sample is what the server told of its queue.
type sample struct {
	batches, bytes float64
	uncounted      float64 // events that were received and are in no checkpoint yet

	// Of the process until then.
	counted                  float64
	cpu, memory              float64 // seconds, bytes
	checkpoints, checkpointS float64 // and how many seconds they took
}

// sample asks for the metrics once a second.
func (s *server) sample(ctx context.Context) (all []sample) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return all
		case <-tick.C:
		}
		if one, err := s.ask(ctx); err == nil {
			all = append(all, one)
		}
	}
}

func (s *server) ask(ctx context.Context) (one sample, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+"/metrics", nil)
	if err != nil {
		return one, err
	}
	r.Header.Set("Authorization", "Bearer "+s.metrics)
	response, err := s.client.Do(r)
	if err != nil {
		return one, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return one, errors.New(response.Status)
	}
	lines := bufio.NewScanner(response.Body)
	for lines.Scan() {
		line := lines.Text() // a label may have a space in it
		name, _, _ := strings.Cut(line[:max(0, strings.LastIndexByte(line, ' '))], "{")
		n, _ := strconv.ParseFloat(line[strings.LastIndexByte(line, ' ')+1:], 64)
		switch name {
		case "remit_queue_batches":
			one.batches = n
		case "remit_queue_bytes":
			one.bytes = n
		case "remit_received_events_total":
			one.uncounted += n
		case "remit_counted_events_total":
			one.counted = n
			one.uncounted -= n
		case "process_cpu_seconds_total":
			one.cpu = n
		case "process_resident_memory_bytes":
			one.memory = n
		case "remit_checkpoint_seconds_count":
			one.checkpoints = n
		case "remit_checkpoint_seconds_sum":
			one.checkpointS = n
		}
	}
	return one, lines.Err()
}

// background sends ordinary events at a steady rate. When the server is slow the
// requests of one second are late, and sent all the same: the rate is kept over
// the whole time if it can be.
type background struct {
	*server
	rate, batch, identities int

	events, refused atomic.Int64
	mu              sync.Mutex
	took            []time.Duration
}

// senders is how many requests of the background may be under way: less than what
// the server takes at once, so that a theft is never refused.
const senders = 8

func (b *background) run(ctx context.Context) {
	if b.rate == 0 {
		return
	}
	due := make(chan struct{})
	var all sync.WaitGroup
	defer all.Wait()
	defer close(due)
	for range senders {
		all.Go(func() {
			var body bytes.Buffer
			for range due {
				ordinary(&body, b.batch, b.identities)
				b.deliver(ctx, &body)
			}
		})
	}
	began := time.Now()
	for n := 0; ; n++ {
		at := began.Add(time.Duration(n) * time.Duration(b.batch) * time.Second / time.Duration(b.rate))
		pause(ctx, time.Until(at))
		select {
		case due <- struct{}{}:
		case <-ctx.Done():
			return
		}
	}
}

// deliver sends until it is taken.
func (b *background) deliver(ctx context.Context, body *bytes.Buffer) {
	for ctx.Err() == nil {
		began := time.Now()
		err := b.send(ctx, body)
		if err == nil {
			b.events.Add(int64(b.batch))
			b.mu.Lock()
			b.took = append(b.took, time.Since(began))
			b.mu.Unlock()
			return
		}
		if ctx.Err() == nil {
			b.refused.Add(1)
		}
		pause(ctx, time.Second)
	}
}

func (b *background) times() []time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.took
}

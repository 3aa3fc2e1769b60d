// Command auditlog makes a real audit log: it starts a Kubernetes API server with
// a controller manager and nodes, fills it with Deployments whose pods have
// service accounts of their own, and lets the pods, the nodes, a pipeline and a
// few people work through client-go, each with its own credential from its own
// address, until the log is long enough or the time is up. The log is then copied
// to a file, for `go run ./bench/activity -log`.
//
//	go run ./bench/auditlog -o audit.log
//	go run ./bench/auditlog -o audit.log -events 1000000 -time 20m -accounts 1000
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"time"

	"remit/e2e/cluster"
)

func main() {
	var b bench
	flag.StringVar(&b.out, "o", "", "the `file` that the log is copied to")
	flag.IntVar(&b.events, "events", 200_000, "how many events to end after")
	flag.DurationVar(&b.limit, "time", 5*time.Minute, "how long to work at most, the making of the accounts not counted")
	flag.IntVar(&b.accounts, "accounts", 300, "service accounts, each with a Deployment of one pod")
	flag.IntVar(&b.nodes, "nodes", 6, "nodes that the pods are on")
	flag.IntVar(&b.workers, "workers", 24, "how many requests are under way at once")
	flag.BoolVar(&b.stages, "received", false, "log the stage RequestReceived of every request too")
	flag.Parse()
	if b.out == "" || flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := b.run(ctx); err != nil {
		log.Fatal(err)
	}
}

type bench struct {
	out                              string
	events, accounts, nodes, workers int
	limit                            time.Duration
	stages                           bool
}

// policy is what clusters commonly log: everything at level Metadata, once.
const policy = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: Metadata
`

func (b *bench) run(ctx context.Context) (err error) {
	out, err := os.Create(b.out) // now, not after minutes of work
	if err != nil {
		return err
	}
	defer func() {
		if err = errors.Join(err, out.Close()); err != nil {
			os.Remove(b.out)
		}
	}()
	o := cluster.Options{AuditPolicy: policy, Nodes: b.nodes}
	if b.stages {
		o.AuditPolicy = cluster.MetadataAuditPolicy
	}
	c, err := cluster.Run(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	began := time.Now()
	t, err := fill(ctx, c, b.accounts)
	if err != nil {
		return err
	}
	log.Printf("%d accounts with their pods in %s", b.accounts, time.Since(began).Round(time.Second))

	working, stop := context.WithTimeout(ctx, b.limit)
	defer stop()
	began = time.Now()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		t.work(working, b.workers)
	}()
	events := follow(working, c.AuditLog, b.events)
	stop()
	<-ended
	if err := ctx.Err(); err != nil {
		return err
	}
	took := time.Since(began)
	log.Printf("%d events in all, after %s of work; %d requests failed", events, took.Round(time.Second), t.failed.Load())
	// The watches have ended, and the last answers are logged.
	time.Sleep(time.Second)
	s, err := copyLog(c.AuditLog, out)
	if err != nil {
		return err
	}
	fmt.Printf("%d events, %d bytes an event; %d different combinations of user, verb, URI, program, address and credential (%.3f an event)\n",
		s.events, s.bytes/max(1, s.events), s.different, float64(s.different)/float64(max(1, s.events)))
	fmt.Printf("%d without the URI's query (%.3f an event); %d users, %d credentials, %d addresses\n",
		s.noQuery, float64(s.noQuery)/float64(max(1, s.events)), s.users, s.credentials, s.addresses)
	for _, v := range s.verbs() {
		fmt.Printf("%8d %s\n", v.count, v.verb)
	}
	return nil
}

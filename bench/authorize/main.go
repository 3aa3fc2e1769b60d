//go:build unix

// Command authorize measures how long an API server waits for Remit's answer to its
// authorization webhook. It starts a real API server with many refused credentials in
// its list, has Remit's own handler follow that list and listen with TLS, and asks it
// at a steady rate over connections that are kept, as an API server does.
//
//	go run ./bench/authorize
//	go run ./bench/authorize -rate 10000 -for 30s
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"remit/connector/kubernetes"
	"remit/e2e/cluster"
	"remit/server"
	"remit/server/authorize"
	"remit/server/token"
	"remit/store/sqlstore"
)

func main() {
	var b bench
	flag.IntVar(&b.rate, "rate", 5000, "requests a second")
	flag.DurationVar(&b.lasts, "for", 10*time.Second, "how long")
	flag.IntVar(&b.refused, "refused", 10000, "how many credentials are refused")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := b.run(ctx); err != nil {
		log.Fatal(err)
	}
}

type bench struct {
	rate, refused int
	lasts         time.Duration
}

const system = "prod"

func (b *bench) run(ctx context.Context) (err error) {
	dir, err := os.MkdirTemp("", "remit-bench-authorize-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	c, err := cluster.Run(ctx, cluster.Options{NoControllerManager: true})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	if err := b.refuse(ctx, c); err != nil {
		return err
	}
	address, secret, roots, stop, err := b.serve(ctx, c, dir)
	if err != nil {
		return err
	}
	defer stop()
	b.ask(ctx, "https://"+address+authorize.Path(system), secret, roots)
	return ctx.Err()
}

// refuse fills the list.
func (b *bench) refuse(ctx context.Context, c *cluster.Cluster) error {
	const namespace = "remit-system"
	if _, err := c.Client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}, metav1.CreateOptions{}); err != nil {
		return err
	}
	list := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "remit-contained"}, Data: map[string]string{}}
	for i := range b.refused {
		list.Data[fmt.Sprintf("JTI-%08d", i)] = "refuse"
	}
	_, err := c.Client.CoreV1().ConfigMaps(namespace).Create(ctx, list, metav1.CreateOptions{})
	return err
}

// serve listens as `remit serve` does.
func (b *bench) serve(ctx context.Context, c *cluster.Cluster, dir string) (address, secret string, roots *x509.CertPool, stop func(), err error) {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	store, err := sqlstore.Open(ctx, filepath.Join(dir, "remit.db"))
	if err != nil {
		return
	}
	tokens, err := token.New(store, make([]byte, 32), nil)
	if err != nil {
		return
	}
	if secret, _, err = tokens.Create(ctx, token.Request{Client: "api-server", Scope: token.Authorize, System: system}); err != nil {
		return
	}
	authorizer, err := kubernetes.OpenAuthorizerRESTConfig(c.Admin, log)
	if err != nil {
		return
	}
	authority, err := server.OpenAuthority(dir)
	if err != nil {
		return
	}
	certificates, err := server.OwnCertificates(authority, nil)
	if err != nil {
		return
	}
	l, err := server.Listen("127.0.0.1:0", certificates)
	if err != nil {
		return
	}
	mux := http.NewServeMux()
	mux.Handle(authorize.Pattern, &authorize.Handler{Tokens: token.NewCache(tokens), Answers: map[string]http.Handler{system: authorizer}, Log: log})
	ctx, cancel := context.WithCancel(ctx)
	var work sync.WaitGroup
	work.Go(func() { _ = authorizer.Run(ctx) })
	work.Go(func() { _ = server.Serve(ctx, l, mux, log) })
	for !authorizer.Ready() && ctx.Err() == nil {
		time.Sleep(10 * time.Millisecond)
	}
	roots = x509.NewCertPool()
	roots.AppendCertsFromPEM(authority.PEM())
	return l.Addr().String(), secret, roots, func() {
		cancel()
		work.Wait()
		store.Close()
	}, nil
}

// review is what an API server asks about a pod's request, as it writes it.
const review = `{"kind":"SubjectAccessReview","apiVersion":"authorization.k8s.io/v1","metadata":{},"spec":{"resourceAttributes":{"namespace":"shop","verb":"list","version":"v1","resource":"configmaps"},` +
	`"user":"system:serviceaccount:shop:worker-3","groups":["system:serviceaccounts","system:serviceaccounts:shop","system:authenticated"],"uid":"0f5f2d0e-6b0e-4a36-9f0e-2f7c1d9a5b11",` +
	`"extra":{"authentication.kubernetes.io/credential-id":["JTI=%08d"],"authentication.kubernetes.io/node-name":["node-a"],"authentication.kubernetes.io/node-uid":["5c2f8a4e-0b57-4b8c-8a57-0c0f0f3c6a77"],` +
	`"authentication.kubernetes.io/pod-name":["worker-3-5d9c7b8f6d-abcde"],"authentication.kubernetes.io/pod-uid":["a3d1c9b2-7e52-4f0b-b1f8-2d5e6c7a8b90"]}},"status":{"allowed":false}}`

// workers are how many requests are under way at most.
const workers = 64

// ask sends at a steady rate and prints how long the answers took: of those that
// were sent, and counted from when they were due, which also holds what this
// machine was late to send them.
func (b *bench) ask(ctx context.Context, url, secret string, roots *x509.CertPool) {
	client := &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}, ForceAttemptHTTP2: true, MaxIdleConnsPerHost: workers,
	}}
	total := int(float64(b.rate) * b.lasts.Seconds())
	sent, due := make([]time.Duration, total), make([]time.Duration, total)
	var mu sync.Mutex
	wrong, next := 0, 0
	var before syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &before)
	began := time.Now()
	var work sync.WaitGroup
	for range workers {
		work.Go(func() {
			for {
				mu.Lock()
				i := next
				next++
				mu.Unlock()
				if i >= total || ctx.Err() != nil {
					return
				}
				at := began.Add(time.Duration(i) * time.Second / time.Duration(b.rate))
				time.Sleep(time.Until(at))
				start := time.Now()
				// Half of them are refused.
				ok := askOnce(ctx, client, url, secret, i%(2*b.refused), i%(2*b.refused) < b.refused)
				sent[i], due[i] = time.Since(start), time.Since(at)
				if !ok {
					mu.Lock()
					wrong++
					mu.Unlock()
				}
			}
		})
	}
	work.Wait()
	took := time.Since(began)
	var after syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &after) // of oneself it never fails
	fmt.Printf("%d requests in %s: %.0f a second, %d refused credentials in the list, %d wrong answers\n", total, took.Round(time.Millisecond), float64(total)/took.Seconds(), b.refused, wrong)
	fmt.Printf("%v of processor time each, of those who ask and who answers together\n", (cpu(&after)-cpu(&before))/time.Duration(total))
	for _, row := range []struct {
		what string
		all  []time.Duration
	}{{"answered", sent}, {"answered, from when it was due", due}} {
		slices.Sort(row.all)
		at := func(q float64) time.Duration { return row.all[int(q*float64(total-1))].Round(10 * time.Microsecond) }
		fmt.Printf("%-32s p50 %v  p90 %v  p99 %v  most %v\n", row.what, at(.5), at(.9), at(.99), at(1))
	}
}

func cpu(r *syscall.Rusage) time.Duration { return time.Duration(r.Utime.Nano() + r.Stime.Nano()) }

func askOnce(ctx context.Context, client *http.Client, url, secret string, credential int, refused bool) bool {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(fmt.Sprintf(review, credential)))
	if err != nil {
		return false
	}
	r.Header.Set("Authorization", "Bearer "+secret)
	r.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(r)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return err == nil && resp.StatusCode == http.StatusOK && strings.Contains(string(body), `"denied":true`) == refused
}

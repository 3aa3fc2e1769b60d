//go:build linux

// Command authorize measures how long an API server waits for Remit's answer to its
// authorization webhook. It starts a real API server with many refused credentials in
// its list and `remit serve`, which follows that list, and asks it at a steady rate
// over a connection that is kept, as an API server does.
//
//	go run ./bench/authorize
//	go run ./bench/authorize -rate 10000 -for 30s
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"remit/e2e/cluster"
	"remit/e2e/process"
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
	group, err := process.NewGroup("remit-bench-authorize")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, group.Close()) }()
	served, asks, err := b.serve(ctx, c, group, dir)
	if err != nil {
		return err
	}
	return errors.Join(b.ask(ctx, served, asks), served.Stop(syscall.SIGTERM, time.Minute))
}

// refuse fills the list.
func (b *bench) refuse(ctx context.Context, c *cluster.Cluster) error {
	const namespace = "remit-system"
	if _, err := c.Client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}, metav1.CreateOptions{}); err != nil {
		return err
	}
	list := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "remit-contained"}, StringData: map[string]string{}}
	for i := range b.refused {
		list.StringData[fmt.Sprintf("refuse.JTI-%08d", i)] = "by hand"
	}
	_, err := c.Client.CoreV1().Secrets(namespace).Create(ctx, list, metav1.CreateOptions{})
	return err
}

// serve starts `remit serve` and waits until it refuses what is in the list. The
// configuration is that with which an API server asks it.
func (b *bench) serve(ctx context.Context, c *cluster.Cluster, group *process.Group, dir string) (*process.Process, *rest.Config, error) {
	program := filepath.Join(dir, "remit")
	build := exec.CommandContext(ctx, "go", "build", "-o", program, "remit/cmd/remit")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		return nil, nil, fmt.Errorf("build remit: %w", err)
	}
	port, err := process.FreePort()
	if err != nil {
		return nil, nil, err
	}
	address := "127.0.0.1:" + strconv.Itoa(port)
	config := "listen: {address: " + address + ", events: false}\nsystems:\n  - {name: " + system + ", kubeconfig: " + c.Kubeconfig + ", authorize: true}\n"
	if err := os.WriteFile(filepath.Join(dir, "remit.yaml"), []byte(config), 0o600); err != nil {
		return nil, nil, err
	}
	create := exec.CommandContext(ctx, program, "token", "create", "api-server", "--for", "authorize", "--system", system, "--webhook", "https://"+address, "--data-dir", dir)
	create.Stderr = os.Stderr
	kubeconfig, err := create.Output()
	if err != nil {
		return nil, nil, fmt.Errorf("remit token create: %w", err)
	}
	asks, err := clientcmd.RESTConfigFromKubeConfig(kubeconfig)
	if err != nil {
		return nil, nil, err
	}
	served, err := group.Start(process.Command{Name: "remit", Path: program, Args: []string{"serve", "--data-dir", dir}})
	if err != nil {
		return nil, nil, err
	}
	client, err := rest.HTTPClientFor(asks)
	if err != nil {
		return nil, nil, err
	}
	return served, asks, served.Wait(ctx, func(ctx context.Context) error {
		if !askOnce(ctx, client, asks.Host, 0, true) {
			return errors.New("it does not refuse what is in the list")
		}
		return nil
	})
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
func (b *bench) ask(ctx context.Context, served *process.Process, asks *rest.Config) error {
	// Who asks stands for an API server, which has far more in memory and so
	// collects its garbage far less often than a small program would.
	debug.SetGCPercent(1000)
	client, err := rest.HTTPClientFor(asks)
	if err != nil {
		return err
	}
	total := int(float64(b.rate) * b.lasts.Seconds())
	sent, due := make([]time.Duration, total), make([]time.Duration, total)
	var mu sync.Mutex
	wrong, next := 0, 0
	before, err := processorTime(served)
	if err != nil {
		return err
	}
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
				ok := askOnce(ctx, client, asks.Host, i%(2*b.refused), i%(2*b.refused) < b.refused)
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
	after, err := processorTime(served)
	if err != nil {
		return err
	}
	fmt.Printf("%d requests in %s: %.0f a second, %d refused credentials in the list, %d wrong answers\n", total, took.Round(time.Millisecond), float64(total)/took.Seconds(), b.refused, wrong)
	fmt.Printf("%v of remit serve's processor time each\n", (after-before)/time.Duration(total))
	for _, row := range []struct {
		what string
		all  []time.Duration
	}{{"answered", sent}, {"answered, from when it was due", due}} {
		slices.Sort(row.all)
		at := func(q float64) time.Duration { return row.all[int(q*float64(total-1))].Round(10 * time.Microsecond) }
		fmt.Printf("%-32s p50 %v  p90 %v  p99 %v  most %v\n", row.what, at(.5), at(.9), at(.99), at(1))
	}
	return ctx.Err()
}

// processorTime is what a process has used of it, in user and kernel mode:
// proc_pid_stat(5), in clock ticks, of which Linux tells a hundred a second.
func processorTime(p *process.Process) (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.Pid()))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	ticks := 0
	for _, field := range fields[11:13] { // utime and stime, the 14th and 15th
		n, err := strconv.Atoi(field)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	return time.Duration(ticks) * time.Second / 100, nil
}

func askOnce(ctx context.Context, client *http.Client, url string, credential int, refused bool) bool {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(fmt.Sprintf(review, credential)))
	if err != nil {
		return false
	}
	r.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(r)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return err == nil && resp.StatusCode == http.StatusOK && strings.Contains(string(body), `"denied":true`) == refused
}

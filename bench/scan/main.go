// Command scan measures `remit scan` on a large cluster: a real API server with
// (by default) 10,000 service accounts, 20,000 pods, 5,000 bindings and 20,000
// Secrets. It prints wall and processor time and peak memory of the whole
// process, and beside it what merely listing the same objects costs a client
// that throws them away, which is the floor.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"remit/bench/load"
	"remit/e2e/cluster"
)

func main() {
	var size load.Size
	flag.IntVar(&size.Namespaces, "namespaces", 200, "namespaces")
	flag.IntVar(&size.ServiceAccounts, "accounts", 10_000, "service accounts")
	flag.IntVar(&size.Pods, "pods", 20_000, "pods")
	flag.IntVar(&size.Bindings, "bindings", 5_000, "bindings")
	flag.IntVar(&size.Secrets, "secrets", 20_000, "Secrets")
	runs := flag.Int("runs", 3, "scans to measure")
	profile := flag.String("cpuprofile", "", "where the last scan writes a processor profile")
	flag.Parse()
	if err := run(size, *runs, *profile); err != nil {
		log.Fatal(err)
	}
}

func run(size load.Size, runs int, profile string) (err error) {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "bench-scan-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	remit := filepath.Join(dir, "remit")
	if out, err := exec.Command("go", "build", "-o", remit, "./cmd/remit").CombinedOutput(); err != nil {
		return fmt.Errorf("build remit: %w\n%s", err, out)
	}
	c, err := cluster.Run(ctx, cluster.Options{NoControllerManager: true})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	if err := load.Fill(ctx, c.Admin, size, log.Printf); err != nil {
		return err
	}
	floor, err := list(ctx, c.Admin)
	if err != nil {
		return err
	}
	fmt.Printf("listing alone: wall %.1f s (the floor)\n", floor.Seconds())
	for i := range runs {
		args := []string{"scan", "--kubeconfig", c.Kubeconfig, "--format", "json", "--output", filepath.Join(dir, "scan.json")}
		cmd := exec.Command(remit, args...)
		cmd.Stderr = os.Stderr
		if i == runs-1 && profile != "" {
			cmd.Env = append(os.Environ(), "REMIT_CPUPROFILE="+profile)
		}
		began := time.Now()
		if err := cmd.Run(); err != nil {
			return err
		}
		usage := cmd.ProcessState.SysUsage().(*syscall.Rusage)
		wall := time.Since(began)
		info, err := os.Stat(filepath.Join(dir, "scan.json"))
		if err != nil {
			return err
		}
		fmt.Printf("scan %d: wall %.1f s (%.1f × listing), processor %.1f s, peak memory %d MB, document %d MB\n",
			i+1, wall.Seconds(), wall.Seconds()/floor.Seconds(),
			(cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds(), usage.Maxrss/1024, info.Size()>>20)
	}
	return nil
}

// list reads the four large listings and throws them away.
func list(ctx context.Context, config *rest.Config) (time.Duration, error) {
	config = rest.CopyConfig(config)
	config.QPS, config.Burst = 1000, 1000
	config.ContentType, config.AcceptContentTypes = "application/vnd.kubernetes.protobuf", "application/vnd.kubernetes.protobuf"
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return 0, err
	}
	began := time.Now()
	for _, page := range []func(metav1.ListOptions) (metav1.ListInterface, error){
		func(o metav1.ListOptions) (metav1.ListInterface, error) {
			return client.CoreV1().ServiceAccounts("").List(ctx, o)
		},
		func(o metav1.ListOptions) (metav1.ListInterface, error) { return client.CoreV1().Pods("").List(ctx, o) },
		func(o metav1.ListOptions) (metav1.ListInterface, error) {
			return client.CoreV1().Secrets("").List(ctx, o)
		},
		func(o metav1.ListOptions) (metav1.ListInterface, error) {
			return client.RbacV1().RoleBindings("").List(ctx, o)
		},
		func(o metav1.ListOptions) (metav1.ListInterface, error) {
			return client.AppsV1().Deployments("").List(ctx, o)
		},
		func(o metav1.ListOptions) (metav1.ListInterface, error) {
			return client.AppsV1().ReplicaSets("").List(ctx, o)
		},
	} {
		for o := (metav1.ListOptions{Limit: 500}); ; {
			found, err := page(o)
			if err != nil {
				return 0, err
			}
			if o.Continue = found.GetContinue(); o.Continue == "" {
				break
			}
		}
	}
	return time.Since(began), nil
}

package kubernetes

import (
	"context"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"remit/connector"
	"remit/e2e/cluster"
)

// A watch lives through a restart of the API server, and what changed meanwhile
// arrives.
func TestWatchSurvivesOutage(t *testing.T) {
	c := cluster.Start(t, func(o *cluster.Options) { o.NoControllerManager = true })
	k := openFor(t, c.Admin, Config{})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var mu sync.Mutex
	names := map[string]bool{}
	ready := make(chan struct{})
	ended := make(chan error, 1)
	go func() {
		ended <- k.Watch(ctx, func(_ context.Context, page connector.Page) error {
			mu.Lock()
			defer mu.Unlock()
			for _, id := range page.Records.Identities {
				names[id.Name] = true
			}
			if page.Section == sectionAccess && page.Complete {
				select {
				case <-ready:
				default:
					close(ready)
				}
			}
			return nil
		})
	}()
	<-ready
	c.StopAPIServer()
	time.Sleep(time.Second)
	if err := c.StartAPIServer(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Client.CoreV1().ServiceAccounts("default").Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "after"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	deadline := time.After(2 * time.Minute)
	for {
		mu.Lock()
		done := names["after"]
		mu.Unlock()
		if done {
			break
		}
		select {
		case err := <-ended:
			t.Fatalf("Watch ended: %v", err)
		case <-deadline:
			t.Fatal("what changed after the outage never arrived")
		case <-time.After(50 * time.Millisecond):
		}
	}
	cancel()
	<-ended
}

package token_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"remit"
	"remit/server/token"
	"remit/store/sqlstore"
)

// counting is a store that counts who looks for a credential, and fails on demand.
type counting struct {
	*sqlstore.Store
	asked atomic.Int64
	fail  atomic.Bool
}

func (s *counting) Credentials(ctx context.Context, f remit.Filter, page remit.PageRequest) ([]remit.Credential, string, error) {
	s.asked.Add(1)
	if s.fail.Load() {
		return nil, "", remit.Errorf(remit.Unavailable, "", "the database is away")
	}
	return s.Store.Credentials(ctx, f, page)
}

// TestCache asks the store once for many checks, sees a revocation within seconds,
// outlasts a store that fails, and remembers nobody who was refused.
func TestCache(t *testing.T) {
	ctx := t.Context()
	_, inner, _ := opened(t)
	store := &counting{Store: inner}
	var mu sync.Mutex
	now := time.Date(2026, 11, 25, 10, 30, 0, 0, time.UTC)
	tokens, err := token.New(store, make([]byte, 32), func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		return now
	})
	if err != nil {
		t.Fatal(err)
	}
	pass := func(d time.Duration) {
		mu.Lock()
		defer mu.Unlock()
		now = now.Add(d)
	}
	secret, _, err := tokens.Create(ctx, token.Request{Client: "api-server", Scope: token.Authorize, System: "prod", Lifetime: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	cache := token.NewCache(tokens)
	check := func(want remit.ErrorKind) {
		t.Helper()
		if got, err := cache.Check(ctx, secret, token.Authorize); remit.KindOf(err) != want || err == nil && got.System != "prod" {
			t.Errorf("%+v, %v (want %q)", got, err, want)
		}
	}
	eventually := func(want remit.ErrorKind) {
		t.Helper()
		for end := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
			_, err := cache.Check(ctx, secret, token.Authorize)
			if remit.KindOf(err) == want {
				return
			}
			if time.Now().After(end) {
				t.Fatalf("%v, not %q", err, want)
			}
		}
	}
	var work sync.WaitGroup
	for range 100 {
		work.Go(func() { check("") })
	}
	work.Wait()
	if n := store.asked.Load(); n > 5 {
		t.Errorf("100 checks asked the store %d times", n)
	}
	before := store.asked.Load()
	for range 1000 {
		check("")
	}
	if n := store.asked.Load(); n != before {
		t.Errorf("the store was asked %d times for what is known", n-before)
	}
	if _, err := cache.Check(ctx, secret, token.SendEvents); remit.KindOf(err) != remit.Forbidden {
		t.Errorf("a token for something else: %v", err)
	}
	for range 2 { // nobody who was refused is remembered
		before := store.asked.Load()
		if _, err := cache.Check(ctx, token.Prefix+"unknown", token.Authorize); remit.KindOf(err) != remit.Unauthorized || store.asked.Load() == before {
			t.Errorf("an unknown token: %v", err)
		}
	}

	store.fail.Store(true)
	pass(9 * time.Minute)
	check("")
	pass(2 * time.Minute)
	check(remit.Unavailable)
	store.fail.Store(false)
	check("")

	if _, err := tokens.Revoke(ctx, "api-server"); err != nil {
		t.Fatal(err)
	}
	pass(6 * time.Second)
	eventually(remit.Unauthorized)
	check(remit.Unauthorized)

	// The end of a token is its end, whatever is remembered.
	if secret, _, err = tokens.Create(ctx, token.Request{Client: "short", Scope: token.Authorize, System: "prod", Lifetime: time.Minute}); err != nil {
		t.Fatal(err)
	}
	check("")
	pass(time.Minute)
	check(remit.Unauthorized)
}

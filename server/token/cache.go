package token

import (
	"context"
	"crypto/sha256"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/singleflight"

	"remit"
)

// How long a check of a token counts. Within fresh it is not made again; then it
// is, in the background, while the last answer still counts. When the store fails,
// the last answer counts for as long as lasting: a platform that asks Remit at each
// request must not get no answer because a database is away.
const (
	cacheFresh   = 5 * time.Second
	cacheLasting = 10 * time.Minute
	cacheTimeout = 30 * time.Second // of one check
	maxCached    = 256
)

// Cache remembers who was let in, for who asks thousands of times a second. It
// remembers nobody who was not. A revoked token is refused within seconds. Safe
// for concurrent use.
type Cache struct {
	check func(ctx context.Context, presented string, scope Scope) (Token, error)
	now   func() time.Time
	group singleflight.Group // of those who ask about the same token at once, one does

	mu    sync.RWMutex
	known map[cacheKey]*cached
}

// cacheKey is a token's digest, so that the token itself does not stay in memory.
type cacheKey struct {
	digest [sha256.Size]byte
	scope  Scope
}

type cached struct {
	token    Token
	checked  time.Time
	checking atomic.Bool // in the background
}

// NewCache remembers what tokens answer.
func NewCache(tokens *Tokens) *Cache {
	return &Cache{check: tokens.Check, now: tokens.now, known: map[cacheKey]*cached{}}
}

// Check is [Tokens.Check], remembered.
func (c *Cache) Check(ctx context.Context, presented string, scope Scope) (Token, error) {
	key := cacheKey{sha256.Sum256([]byte(presented)), scope}
	c.mu.RLock()
	last := c.known[key]
	c.mu.RUnlock()
	if last == nil {
		return c.ask(ctx, key, presented)
	}
	now := c.now()
	age := now.Sub(last.checked)
	if age < 0 || age >= cacheLasting || !now.Before(last.token.Expires) {
		return c.ask(ctx, key, presented)
	}
	if age >= cacheFresh && last.checking.CompareAndSwap(false, true) {
		go func() {
			defer last.checking.Store(false) // when the store failed, the next one tries again
			_, _ = c.ask(ctx, key, presented)
		}()
	}
	return last.token, nil
}

// ask checks a token and remembers the answer. It goes on when the one who asks
// has given up: others may wait for the same answer.
func (c *Cache) ask(ctx context.Context, key cacheKey, presented string) (Token, error) {
	found, err, _ := c.group.Do(string(key.digest[:])+string(key.scope), func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cacheTimeout)
		defer cancel()
		asked := c.now()
		found, err := c.check(ctx, presented, key.scope)
		c.mu.Lock()
		defer c.mu.Unlock()
		switch remit.KindOf(err) {
		case "":
			if len(c.known) >= maxCached {
				clear(c.known) // as many tokens are not in use at once
			}
			c.known[key] = &cached{token: found, checked: asked}
		case remit.Unauthorized, remit.Forbidden:
			delete(c.known, key)
		}
		return found, err
	})
	return found.(Token), err
}

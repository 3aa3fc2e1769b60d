//go:build unix

package main

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"remit"
	"remit/policy"
	"remit/server/token"
)

// TestOwnTokensAreJudged holds that `remit serve` judges its own tokens as it does
// any credential, and says nothing before there is one.
func TestOwnTokensAreJudged(t *testing.T) {
	data, err := openDataDir(t.Context(), &globalFlags{dataDir: t.TempDir()}, false)
	if err != nil {
		t.Fatal(err)
	}
	defer data.Close()
	set, err := policy.Load()
	if err != nil {
		t.Fatal(err)
	}
	tokens, err := token.New(data.Store, data.Key, nil)
	if err != nil {
		t.Fatal(err)
	}
	var said lockedBuffer
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- judgeTokens(ctx, judging{policy.NewEvaluator(set, data.Store, data.Store)}, tokens.System(), 10*time.Millisecond,
			slog.New(slog.NewTextHandler(&said, nil)))
	}()
	time.Sleep(50 * time.Millisecond) // no system yet
	if _, _, err := tokens.Create(t.Context(), token.Request{Client: "nobodys", Scope: token.SendEvents}); err != nil {
		t.Fatal(err)
	}
	wait(t, "a finding on a client without an owner", func() bool {
		found, _, err := data.Store.Findings(t.Context(), remit.FindingFilter{System: tokens.System()}, remit.PageRequest{})
		for _, f := range found {
			t.Log(f.Policy, f.Subject.Ref, f.Words)
		}
		return err == nil && len(found) > 0
	})
	stop()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if strings.Contains(said.String(), "ERROR") {
		t.Error(said.String())
	}
}

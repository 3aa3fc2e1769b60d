package sqlstore_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"time"

	"remit"
	"remit/store/sqlstore"
)

func Example() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "remit")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)

	s, err := sqlstore.Open(ctx, filepath.Join(dir, "remit.db")) // or postgres://remit@host/remit
	if err != nil {
		log.Fatal(err)
	}
	defer s.Close()

	system := remit.SystemID("kubernetes", "uid of kube-system")
	if err := s.PutSystem(ctx, remit.System{ID: system, Connector: "kubernetes", Name: "production"}); err != nil {
		log.Fatal(err)
	}

	// One listing of the system's service accounts shows one of them.
	run, err := s.StartRun(ctx, system)
	if err != nil {
		log.Fatal(err)
	}
	ref := remit.Ref{Kind: "ServiceAccount", Namespace: "payments", Name: "billing-api"}
	account := remit.Identity{
		Record: remit.Record{ID: remit.IdentityID(system, ref), System: system, Ref: ref},
		Type:   remit.ServiceAccount, Status: remit.Active,
	}
	monday := time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)
	run.Begin("service accounts")
	if _, err := run.Apply(ctx, "service accounts", monday, remit.Records{Identities: []remit.Identity{account}}, nil); err != nil {
		log.Fatal(err)
	}
	if _, err := run.Complete(ctx, "service accounts", monday); err != nil {
		log.Fatal(err)
	}

	// The next day's does not show it any more.
	tuesday := monday.AddDate(0, 0, 1)
	run.Begin("service accounts")
	gone, err := run.Complete(ctx, "service accounts", tuesday)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("removed:", gone.Removed)

	for _, at := range []time.Time{{}, monday.Add(time.Hour)} {
		found, _, err := s.Identities(ctx, remit.Filter{Search: "bill", At: at}, remit.PageRequest{})
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println("found:", len(found))
	}
	// Output:
	// removed: 1
	// found: 0
	// found: 1
}

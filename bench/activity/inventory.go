package main

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"remit"
	"remit/store/sqlstore"
)

// putInventory makes the store know the cluster whose log it is: its accounts,
// its nodes, and its pods with their addresses.
func putInventory(ctx context.Context, store *sqlstore.Store, system remit.ID, identities int) error {
	run, err := store.StartRun(ctx, system)
	if err != nil {
		return err
	}
	c := newCluster(identities)
	var page remit.Records
	put := func() error {
		_, err := run.Apply(ctx, "all", began, page, nil)
		page = remit.Records{}
		return err
	}
	identity := func(ref remit.Ref, of remit.IdentityType, attributes map[string]string) {
		i := remit.Identity{Record: remit.Record{ID: remit.IdentityID(system, ref), System: system, Ref: ref, Created: began.Add(-24 * time.Hour)}, Type: of, Status: remit.Active}
		i.Attributes = attributes
		page.Identities = append(page.Identities, i)
	}
	for i := range identities {
		identity(remit.Ref{Kind: "ServiceAccount", Namespace: namespace(i), Name: account(i)}, remit.ServiceAccount, nil)
		node := string(c.node(nil, i))
		if i%perNode == 0 {
			identity(remit.Ref{Kind: "Node", Name: node}, remit.Workload, map[string]string{"addresses": nodeAddress(i)})
		}
		pod := remit.Ref{Kind: "Pod", Namespace: namespace(i), Name: account(i) + "-" + strconv.FormatUint(uint64(c.actors[i].seed), 36)}
		r := remit.Resource{Record: remit.Record{ID: remit.ResourceID(system, pod), System: system, Ref: pod}, Type: "pod"}
		r.Attributes = map[string]string{"addresses": podAddress(i), "node": node}
		page.Resources = append(page.Resources, r)
		if page.Len() >= 1000 || i == identities-1 {
			if err := put(); err != nil {
				return fmt.Errorf("write the inventory: %w", err)
			}
		}
	}
	return nil
}

func podAddress(i int) string { return fmt.Sprintf("10.%d.%d.%d", i>>16&255, i>>8&255, i&255) }
func nodeAddress(i int) string {
	node := i / perNode
	return fmt.Sprintf("172.16.%d.%d", node>>8&255, node&255)
}

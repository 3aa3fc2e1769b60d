package main

import (
	"context"
	"strings"

	"remit"
	"remit/connector"
	"remit/connector/ocsf"
)

// systemOf finds the system that the user calls so for events of some sources, or
// makes it. Sources of one connector are asked of the caller; none is what is not
// known.
func systemOf(ctx context.Context, data *dataDir, name string, of []connector.Decoder) (remit.ID, error) {
	const op = "find system"
	all, err := data.Store.Systems(ctx)
	if err != nil {
		return "", err
	}
	for _, s := range all {
		if s.Name != name && string(s.ID) != name {
			continue
		}
		// Events in OCSF may be of any system.
		if len(of) > 0 && of[0].Source().Connector != s.Connector && of[0] != ocsf.Events {
			return "", remit.Errorf(remit.Invalid, op, "the events are of %s, and the system %s is of %s: name another with --system, or leave it out",
				of[0].Source().Name, s.Name, s.Connector)
		}
		return s.ID, nil
	}
	if len(of) == 0 {
		return "", remit.Errorf(remit.Invalid, op, "there is no system %q yet, and what kind it is of cannot be told from the events: name their source with --source, or under logs in remit.yaml with source (%s)",
			name, strings.Join(sourceNames(), ", "))
	}
	kind := of[0].Source().Connector
	made := remit.System{
		ID: remit.SystemID(kind, "named "+name), Connector: kind, Name: name, Native: "named " + name,
		Mode: remit.ModeObserve, Recorded: true,
	}
	return made.ID, data.Store.PutSystem(ctx, made)
}

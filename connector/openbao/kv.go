package openbao

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"remit"
	"remit/connector"
)

// KV is a secret of the KV secrets engine, version 2, as the destination of what
// another rotation makes. It implements [connector.Destination]. The engine keeps
// former versions, and so can give back what was there.
type KV struct {
	*Server
	path string // MOUNT/PATH
	keys []kvKey
}

// kvKey is a key and the part of the new secret that it holds.
type kvKey struct{ key, part string }

var _ connector.Destination = (*KV)(nil)

// KV is the secret at "MOUNT/PATH#KEY" or "MOUNT/PATH#KEY=PART,KEY=PART": without a
// part a key holds the part of its own name, or else the main one.
func (s *Server) KV(address string) (*KV, error) {
	path, keys, ok := strings.Cut(address, "#")
	path = strings.Trim(path, "/")
	if !ok || keys == "" || !strings.Contains(path, "/") || strings.Contains(path, "//") {
		return nil, remit.Errorf(remit.Invalid, "read destination", "%q does not name a secret and its keys: write kv:MOUNT/PATH#KEY", address)
	}
	d := &KV{Server: s, path: path}
	for text := range strings.SplitSeq(keys, ",") {
		key, part, _ := strings.Cut(text, "=")
		if key == "" {
			return nil, remit.Errorf(remit.Invalid, "read destination", "%q names a key without a name", address)
		}
		d.keys = append(d.keys, kvKey{key, part})
	}
	return d, nil
}

func (d *KV) ref() remit.Ref { return remit.Ref{Kind: "KV", Namespace: d.cfg.Namespace, Name: d.path} }

// kvState is what a delivery found, and its receipt.
type kvState struct {
	Version int64             `json:"version"`
	Digests map[string]string `json:"digests,omitempty"`
}

// kvVersion is one version.
type kvVersion struct {
	Data     map[string]json.RawMessage `json:"data"`
	Metadata struct {
		Version int64 `json:"version"`
	} `json:"metadata"`
}

// at is the path of the data, behind its mount, which may have more than one
// segment.
func (d *KV) at(ctx context.Context, op string) (string, error) {
	var mount data[struct {
		Path    string            `json:"path"`
		Type    string            `json:"type"`
		Options map[string]string `json:"options"`
	}]
	if err := d.do(ctx, op, http.MethodGet, "sys/internal/ui/mounts/"+escape(d.path), nil, &mount); err != nil {
		return "", err
	}
	rest, ok := strings.CutPrefix(d.path, mount.Data.Path)
	if !ok || mount.Data.Type != "kv" || mount.Data.Options["version"] != "2" {
		return "", remit.Errorf(remit.Unsupported, op, "%s does not lie in a KV secrets engine of version 2", d.path)
	}
	return escape(mount.Data.Path) + "data/" + escape(rest), nil
}

// read reads a version, 0 for the newest.
func (d *KV) read(ctx context.Context, op string, version int64) (at string, v kvVersion, err error) {
	if at, err = d.at(ctx, op); err != nil {
		return at, v, err
	}
	var answer data[kvVersion]
	err = d.do(ctx, op, http.MethodGet, fmt.Sprintf("%s?version=%d", at, version), nil, &answer)
	return at, answer.Data, err
}

// Plan implements [connector.Destination].
func (d *KV) Plan(ctx context.Context, _ connector.Delivery) (connector.PlannedDelivery, error) {
	_, v, err := d.read(ctx, "plan delivery", 0)
	if err != nil {
		return connector.PlannedDelivery{}, err
	}
	var names []string
	diff := ""
	for _, k := range d.keys {
		names = append(names, k.key)
		if _, there := v.Data[k.key]; there {
			diff += "- " + k.key + ": the old one\n"
		}
		diff += "+ " + k.key + ": the new one\n"
	}
	before, err := json.Marshal(kvState{Version: v.Metadata.Version})
	if err != nil {
		return connector.PlannedDelivery{}, remit.Errorf(remit.Internal, "plan delivery", "%w", err)
	}
	return connector.PlannedDelivery{
		Step: remit.Step{
			Object: d.ref(), Does: fmt.Sprintf("Write a version of %s with the new secret in %s; its other keys stay.", d.path, strings.Join(names, " and ")),
			Diff: diff, Undo: fmt.Sprintf("Write what version %d held in these keys as a new version, while the engine still keeps it.", v.Metadata.Version), Before: before,
		},
		Why: []string{fmt.Sprintf("Who reads %s only at his start, or caches it, has to read it again within the grace.", d.path)},
	}, nil
}

// write puts keys of a secret; null removes one.
func (d *KV) write(ctx context.Context, op, at string, keys map[string]any) (int64, error) {
	var answer data[struct {
		Version int64 `json:"version"`
	}]
	err := d.do(ctx, op, http.MethodPatch, at, map[string]any{"data": keys}, &answer)
	return answer.Data.Version, err
}

// Deliver implements [connector.Destination].
func (d *KV) Deliver(ctx context.Context, _ remit.Step, l connector.Delivery) (json.RawMessage, error) {
	const op = "deliver"
	keys, got := map[string]any{}, kvState{Digests: map[string]string{}}
	for _, k := range d.keys {
		name := k.part
		if name == "" {
			if _, err := l.Secret.Part(k.key); err == nil {
				name = k.key
			}
		}
		value, err := l.Secret.Part(name)
		if err != nil {
			return nil, err
		}
		keys[k.key], got.Digests[k.key] = string(value), connector.SecretDigest(value)
	}
	at, err := d.at(ctx, op)
	if err != nil {
		return nil, err
	}
	if got.Version, err = d.write(ctx, op, at, keys); err != nil {
		return nil, err
	}
	return json.Marshal(got)
}

// Verify implements [connector.Destination].
func (d *KV) Verify(ctx context.Context, _ remit.Step, receipt json.RawMessage) error {
	const op = "verify delivery"
	var got kvState
	if err := json.Unmarshal(receipt, &got); err != nil || len(got.Digests) == 0 {
		return remit.Errorf(remit.Invalid, op, "the receipt of %s cannot be read: %w", d.path, err)
	}
	_, v, err := d.read(ctx, op, 0)
	if remit.KindOf(err) == remit.NotFound {
		return remit.Errorf(remit.Conflict, op, "%s is gone", d.path)
	} else if err != nil {
		return err
	}
	for key, digest := range got.Digests {
		var value string
		if json.Unmarshal(v.Data[key], &value) != nil || !connector.MatchesDigest(digest, []byte(value)) {
			return remit.Errorf(remit.Conflict, op, "%s of %s does not hold what was delivered: somebody else has written it since", key, d.path)
		}
	}
	return nil
}

// Restore implements [connector.Destination].
func (d *KV) Restore(ctx context.Context, step remit.Step) error {
	const op = "restore"
	var before kvState
	if err := json.Unmarshal(step.Before, &before); err != nil || before.Version <= 0 {
		return remit.Errorf(remit.Invalid, op, "the step about %s cannot be read: %w", d.path, err)
	}
	_, was, err := d.read(ctx, op, before.Version)
	if remit.KindOf(err) == remit.NotFound {
		return remit.Errorf(remit.Unsupported, op, "version %d of %s is not kept any more", before.Version, d.path)
	} else if err != nil {
		return err
	}
	at, is, err := d.read(ctx, op, 0)
	if err != nil {
		return err
	}
	keys := map[string]any{}
	for _, k := range d.keys {
		old, there := was.Data[k.key]
		if now, still := is.Data[k.key]; there == still && string(now) == string(old) {
			continue
		}
		if keys[k.key] = nil; there {
			keys[k.key] = old
		}
	}
	if len(keys) == 0 {
		return nil
	}
	_, err = d.write(ctx, op, at, keys)
	return err
}

package kubernetes

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"remit"
	"remit/connector"
)

// SecretDestination is a Secret that holds what another credential's rotation makes.
// It implements [connector.Destination].
type SecretDestination struct {
	*Rotator
	ref  remit.Ref
	keys []secretEntry
}

// secretEntry is an entry of a Secret and the part of the new secret that it holds.
type secretEntry struct{ key, part string }

var _ connector.Destination = (*SecretDestination)(nil)

// SecretDestination is the Secret at "NAMESPACE/NAME#KEY" or
// "NAMESPACE/NAME#KEY=PART,KEY=PART": without a part an entry holds the part of its
// own name, or else the main one.
func (r *Rotator) SecretDestination(address string) (*SecretDestination, error) {
	place, keys, ok := strings.Cut(address, "#")
	namespace, name, named := strings.Cut(place, "/")
	if !ok || !named || namespace == "" || name == "" || strings.Contains(name, "/") || keys == "" {
		return nil, remit.Errorf(remit.Invalid, "read destination", "%q does not name a Secret and its entries: write secret:NAMESPACE/NAME#KEY", address)
	}
	d := &SecretDestination{Rotator: r, ref: remit.Ref{Kind: "Secret", Namespace: namespace, Name: name}}
	for text := range strings.SplitSeq(keys, ",") {
		key, part, _ := strings.Cut(text, "=")
		if key == "" {
			return nil, remit.Errorf(remit.Invalid, "read destination", "%q names an entry without a name", address)
		}
		d.keys = append(d.keys, secretEntry{key, part})
	}
	return d, nil
}

// secretHeld is what a delivery to a Secret found, and its receipt.
type secretHeld struct {
	UID     types.UID         `json:"uid"`
	Digests map[string]string `json:"digests,omitempty"`
}

// Plan implements [connector.Destination].
func (d *SecretDestination) Plan(ctx context.Context, _ connector.Delivery) (connector.PlannedDelivery, error) {
	const op = "plan delivery"
	var planned connector.PlannedDelivery
	secret, err := d.read(ctx, op)
	if err != nil {
		return planned, err
	}
	switch {
	case secret.Type == corev1.SecretTypeServiceAccountToken, secret.Type == corev1.SecretTypeBootstrapToken:
		return planned, remit.Errorf(remit.Forbidden, op, "%s is itself a credential of the cluster (%s), and nothing can be put into it", d.ref, secret.Type)
	case secret.Immutable != nil && *secret.Immutable:
		return planned, remit.Errorf(remit.Unsupported, op, "%s is immutable", d.ref)
	}
	var minus, plus []string
	for _, k := range d.keys {
		if _, there := secret.Data[k.key]; there {
			minus = append(minus, k.key+": the old one")
		}
		plus = append(plus, k.key+": the new one")
	}
	planned.Step = remit.Step{
		Object: d.ref, Does: fmt.Sprintf("Put the new secret into %s of %s.", d.keyNames(), d.ref),
		Diff: lines("-", minus...) + lines("+", plus...), Before: mustJSON(secretHeld{UID: secret.UID}),
	}
	refer, byHand, err := d.referring(ctx, op, d.ref.Namespace, d.ref.Name)
	if err != nil {
		return planned, err
	}
	var mounts []remit.Ref
	for _, w := range refer {
		if w.readsAtStart(d.ref.Name) {
			planned.Restart = append(planned.Restart, w.address())
		} else {
			mounts = append(mounts, w.ref)
		}
	}
	if len(mounts) > 0 {
		planned.Why = append(planned.Why, fmt.Sprintf("%s %s as files, which the kubelet brings up to date within about a minute. If the program reads them only at its start, add it as a destination (workload:…).", listed(mounts, "mounts", "mount"), d.ref))
	}
	if len(byHand) > 0 {
		planned.Why = append(planned.Why, fmt.Sprintf("%s, and nothing makes these anew: replace them by hand within the grace.", listed(byHand, "uses "+d.ref.String()+" without a controller", "use "+d.ref.String()+" without a controller")))
	}
	if manager := putsBack(&secret.ObjectMeta); manager != "" {
		planned.Why = append(planned.Why, fmt.Sprintf("%s is managed by %s.", d.ref, manager))
	}
	for _, owner := range secret.OwnerReferences {
		planned.Why = append(planned.Why, fmt.Sprintf("%s is owned by %s %s, which may write it again: the old credential does not end when it does.", d.ref, owner.Kind, owner.Name))
	}
	return planned, nil
}

func (d *SecretDestination) keyNames() string {
	names := make([]string, len(d.keys))
	for i, k := range d.keys {
		names[i] = k.key
	}
	return strings.Join(names, " and ")
}

func (d *SecretDestination) read(ctx context.Context, op string) (*corev1.Secret, error) {
	var secret corev1.Secret
	err := d.get(ctx, "Secret", d.ref.Namespace, d.ref.Name, &secret)
	return &secret, d.explain(op, err)
}

// Deliver implements [connector.Destination].
func (d *SecretDestination) Deliver(ctx context.Context, _ remit.Step, l connector.Delivery) (json.RawMessage, error) {
	const op = "deliver"
	data, got := map[string][]byte{}, secretHeld{Digests: map[string]string{}}
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
		data[k.key], got.Digests[k.key] = value, connector.SecretDigest(value)
	}
	err := d.untilAlone(ctx, func() error {
		secret, err := d.read(ctx, op)
		if err != nil {
			return err
		}
		got.UID = secret.UID
		return d.patch(ctx, "Secret", secret, map[string]any{"data": data})
	})
	if err != nil {
		return nil, d.explained(op, err)
	}
	return mustJSON(got), nil
}

// Verify implements [connector.Destination].
func (d *SecretDestination) Verify(ctx context.Context, _ remit.Step, receipt json.RawMessage) error {
	const op = "verify delivery"
	var got secretHeld
	if err := json.Unmarshal(receipt, &got); err != nil || len(got.Digests) == 0 {
		return remit.Errorf(remit.Invalid, op, "the receipt of %s cannot be read: %w", d.ref, err)
	}
	secret, err := d.read(ctx, op)
	if remit.KindOf(err) == remit.NotFound {
		return remit.Errorf(remit.Conflict, op, "%s is gone", d.ref)
	} else if err != nil {
		return err
	}
	for key, digest := range got.Digests {
		if !connector.MatchesDigest(digest, secret.Data[key]) {
			return remit.Errorf(remit.Conflict, op, "%s of %s does not hold what was delivered: somebody else has written it since", key, d.ref)
		}
	}
	return nil
}

// Restore implements [connector.Destination]: a Secret keeps nothing of what it
// held before.
func (d *SecretDestination) Restore(context.Context, remit.Step) error {
	return remit.Errorf(remit.Unsupported, "restore", "%s has not kept what it held before", d.ref)
}

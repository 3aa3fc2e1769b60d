package connector_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"remit"
	"remit/connector"
)

// TestSecretHidden prints, logs and marshals a secret in every way that happens by
// accident.
func TestSecretHidden(t *testing.T) {
	const value = "s3cr3t-value"
	secret := connector.NewSecret("password", []byte(value)).With("username", []byte("the-user"))
	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t", "%p"} {
		fmt.Fprintf(&out, verb+verb+verb, secret, *secret, struct{ S *connector.Secret }{secret})
		fmt.Fprintf(&out, verb, struct {
			s connector.Secret
			p *connector.Secret
		}{*secret, secret})
		fmt.Fprintf(&out, verb, []any{*secret, map[string]connector.Secret{"a": *secret}})
	}
	fmt.Fprint(&out, secret, errors.New(fmt.Sprint(secret)))
	for _, handler := range []slog.Handler{slog.NewJSONHandler(&out, nil), slog.NewTextHandler(&out, nil)} {
		slog.New(handler).Info("it", "secret", secret, "value", *secret, "in", struct{ S connector.Secret }{*secret}, slog.Group("g", "s", secret))
	}
	for _, v := range []any{secret, *secret, map[string]any{"s": secret}, struct{ S connector.Secret }{*secret}, connector.Delivery{Secret: secret}} {
		text, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		out.Write(text)
	}
	for _, leak := range []string{value, "the-user", fmt.Sprintf("%x", value), fmt.Sprintf("%X", value), fmt.Sprint([]byte(value))} {
		if strings.Contains(out.String(), leak) {
			t.Errorf("it shows %s: %s", leak, out.String())
		}
	}
	main, err := secret.Part("")
	if err != nil || string(main) != value {
		t.Errorf("%s, %v", main, err)
	}
	if _, err := secret.Part("token"); remit.KindOf(err) != remit.Invalid || strings.Contains(err.Error(), value) {
		t.Errorf("%v", err)
	}
	digest := connector.SecretDigest(main)
	if digest == connector.SecretDigest(main) || !connector.MatchesDigest(digest, main) || connector.MatchesDigest(digest, []byte("other")) || connector.MatchesDigest("nonsense", main) {
		t.Errorf("the digest is %s", digest)
	}
	secret.Zero()
	if strings.Trim(string(main), "\x00") != "" {
		t.Error("it is not overwritten")
	}
	var gone *connector.Secret
	gone.Zero()
	if _, err := gone.Part(""); !errors.Is(err, connector.ErrSecretGone) {
		t.Errorf("%v", err)
	}
}

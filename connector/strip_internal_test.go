package connector

import (
	"bytes"
	"testing"

	"pgregory.net/rapid"
)

// TestSuspicious says that what is not suspicious holds nothing to be stripped.
func TestSuspicious(t *testing.T) {
	pieces := []string{
		"-----BEGIN ", "RSA PRIVATE KEY", "-----", "LS0tLS1CRUdJTiBQUklWQVRFIEtFWS0tLS0t", "eyJhbGciOiJSUzI1NiJ9", ".", "eyJ", "Bearer ", "bearer",
		"0123456789abcdefghijkl", "sig=", "password=", "AccountKey", "=", " ", "-", "_", "\n", "LS0t",
	}
	rapid.Check(t, func(t *rapid.T) {
		text := []byte{}
		for _, piece := range rapid.SliceOfN(rapid.OneOf(rapid.SampledFrom(pieces), rapid.String()), 0, 8).Draw(t, "pieces") {
			text = append(text, piece...)
		}
		for _, find := range [...]func([]byte) (int, int){findPEM, findBase64PEM, findJWT, findBearer, findParameter} {
			if from, to := find(text); from >= 0 && !suspicious(text) {
				t.Fatalf("%q holds %q", text, bytes.Clone(text[from:to]))
			}
		}
	})
}

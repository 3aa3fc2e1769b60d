package secret

import (
	"encoding/json"
	"strings"
	"testing"
)

// The fuzz tests hold for every decoder that it does not panic, that what it
// returns can be written as JSON, and that it keeps its bounds.

func writable(t *testing.T, v any) {
	t.Helper()
	if _, err := json.Marshal(v); err != nil {
		t.Fatal(err)
	}
}

func FuzzCertificates(f *testing.F) {
	key, keyPEM := newKey(f, "ECDSA")
	cert, certPEM := newCertificate(f, key, certificateTemplate, nil, nil)
	f.Add([]byte(certPEM + keyPEM))
	f.Add([]byte("x: |\n  " + strings.ReplaceAll(certPEM, "\n", "\n  ")))
	f.Add(cert.Raw)
	f.Add([]byte("-----BEGIN OPENSSH " + "PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAABG5vbmU=\n-----END OPENSSH " + "PRIVATE KEY-----\n"))
	f.Add(openSSH("none", "ssh-ed25519", nil))
	f.Fuzz(func(t *testing.T, data []byte) {
		b, _ := ParseBundle(data, nil)
		if len(b.Certificates) > maxCertificates || len(b.Keys) > maxKeys {
			t.Fatal("not bounded")
		}
		writable(t, b)
		_, _ = openSSHKey(data)
		_, _ = ParseRequest(data)
		Keystore(data)
		Unwrap(data)
	})
}

func FuzzJWT(f *testing.F) {
	f.Add([]byte(newToken(boundClaims)))
	f.Add([]byte(newToken(legacyClaims)))
	f.Add([]byte(newToken(oidcClaims)))
	f.Add([]byte(newToken(`{"exp":1e308,"aud":[1]}`)))
	f.Fuzz(func(t *testing.T, data []byte) {
		if tok, err := ParseToken(data); err == nil {
			writable(t, tok)
		}
		// The claims are where the decoding is: try the bytes as such, too.
		if tok, err := ParseToken([]byte(newToken(string(data)))); err == nil {
			writable(t, tok)
		}
	})
}

func FuzzKubeconfig(f *testing.F) {
	f.Add([]byte("apiVersion: v1\nkind: Config\nusers:\n- name: a\n  user: {token: abcdefgh12345678}\n"))
	f.Add([]byte(`{"kind":"Config","users":[{"name":"a","user":{"client-certificate-data":"LS0tLS1CRUdJTg=="}}]}`))
	f.Add([]byte("kind: Config\nusers: &u\n- *u\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		IsKubeconfig(data)
		users, err := ParseKubeconfig(data, nil)
		if err == nil && len(users) > maxUsers {
			t.Fatal("not bounded")
		}
		writable(t, users)
	})
}

func FuzzDockerConfig(f *testing.F) {
	f.Add([]byte(`{"auths":{"ghcr.io":{"auth":"Ym90OnB3MTIzNDU2"}}}`))
	f.Add([]byte(`{"https://index.docker.io/v1/":{"auth":"Ym90OnB3MTIzNDU2"}}`))
	f.Add([]byte(`{"auths":{"a@b@c://x?y#z/v1/":{"username":"u","password":"pw123456"}}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		logins, err := ParseDockerConfig(data, nil)
		if err == nil && len(logins) > maxRegistries {
			t.Fatal("not bounded")
		}
		writable(t, logins)
	})
}

func FuzzScan(f *testing.F) {
	for _, s := range samples() {
		f.Add(s.key, []byte(s.value))
	}
	f.Add("", []byte(newToken(boundClaims)))
	f.Add("f", []byte(strings.Repeat("password=", 200)))
	s, fp := testScanner(f), testFingerprint(f)
	f.Fuzz(func(t *testing.T, name string, data []byte) {
		got := s.Scan(name, data, fp)
		if len(got.Found) > maxFound {
			t.Fatal("not bounded")
		}
		again := s.Scan(name, data, fp)
		a, _ := json.Marshal(got)
		b, _ := json.Marshal(again)
		if string(a) != string(b) {
			t.Fatalf("two scans differ:\n%s\n%s", a, b)
		}
		Named(name, data)
		NamedInPlain(name, data)
	})
}

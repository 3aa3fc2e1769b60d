package connector_test

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/valyala/fastjson"

	"remit/connector"
)

const jwt = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0.c2lnbmF0dXJl"

func isPassword(key string) bool { return key == "password" }

// TestStripTokens takes out what is secret and nothing around it.
func TestStripTokens(t *testing.T) {
	pem := "-----BEGIN RSA PRIVATE KEY-----\nAAAA\n-----END RSA PRIVATE KEY-----"
	tests := []struct{ name, text, want string }{
		{"token", jwt, "stripped"},
		{"token in a sentence", "got " + jwt + ", thanks", "got stripped, thanks"},
		{"encrypted token", "eyJhbGciOiJSU0EifQ.a.b.c.d", "stripped"},
		{"page token", "eyJuZXh0IjoxMjM0NTY3ODkwfQ", "eyJuZXh0IjoxMjM0NTY3ODkwfQ"},
		{"bearer", "Authorization: Bearer abcdefgh12345678", "Authorization: Bearer stripped"},
		{"the word bearer", "Bearer authentication is required", "Bearer authentication is required"},
		{"key", "x " + pem + " y", "x stripped y"},
		{"cut key", pem[:40], "stripped"},
		{"certificate", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"},
		{"key in base64", "k=" + base64.StdEncoding.EncodeToString([]byte(pem)), "k=stripped"},
		{"signed URL", "https://h/p?X-Amz-Credential=AKIA&X-Amz-Signature=0a0b&x=1", "https://h/p?X-Amz-Credential=AKIA&X-Amz-Signature=stripped&x=1"},
		{"shared access signature", "https://h/c?sv=1&sig=a%2Fb%3D&se=2", "https://h/c?sv=1&sig=stripped&se=2"},
		{"connection string", "AccountName=a;AccountKey=Zm9v==;x=y", "AccountName=a;AccountKey=stripped;x=y"},
		{"command", "login --user a --password=hunter2 b", "login --user a --password=stripped b"},
		{"other parameters", "a=b&design=1&sigma=2", "a=b&design=1&sigma=2"},
		{"document", `{"a":{"password":"x"},"b":[1,"c"]}`, `{"a":{"password":"stripped"},"b":[1,"c"]}`},
		{"document without secrets", `{"a": 1}`, `{"a": 1}`},
	}
	for _, test := range tests {
		quoted, err := json.Marshal(map[string]any{"text": test.text})
		if err != nil {
			t.Fatal(err)
		}
		v := fastjson.MustParseBytes(quoted)
		changed := connector.StripTokens(v, &fastjson.Arena{}, isPassword)
		if got := string(v.GetStringBytes("text")); got != test.want || changed != (test.want != test.text) {
			t.Errorf("%s: %q, changed %t", test.name, got, changed)
		}
	}
}

// TestStripTokensByKey strips texts and lists under a secret's key, both of two
// equal keys, and no objects, numbers or empty texts.
func TestStripTokensByKey(t *testing.T) {
	v := fastjson.MustParse(`{"password":"a","password":"b","list":{"password":["c","d",{"e":"f"}]},"object":{"password":{"set":"g"}},"number":{"password":7},"none":{"password":""}}`)
	if !connector.StripTokens(v, &fastjson.Arena{}, isPassword) {
		t.Error("nothing changed")
	}
	const want = `{"password":"stripped","password":"stripped","list":{"password":["stripped","stripped",{"e":"f"}]},"object":{"password":{"set":"g"}},"number":{"password":7},"none":{"password":""}}`
	if got := string(connector.AppendJSON(nil, v)); got != want {
		t.Errorf("got %s", got)
	}
	if connector.StripTokens(v, &fastjson.Arena{}, isPassword) {
		t.Error("stripping again changes something")
	}
}

// TestStripTokensIsLinear: texts that begin to look like secrets everywhere cost
// no more than others; a quadratic search would not end here.
func TestStripTokensIsLinear(t *testing.T) {
	for _, part := range []string{"eyJ", "eyJaaaaaaaaaa.", "-----BEGIN ", "-----BEGIN PRIVATE KEY", "LS0tLS1CRUdJTi", "bearer ", "BEARER ", "Bearer abcdefgh1 ", "LS0tLS1CRUdJTiBQUklWQVRFIEtFWS0tLS0t ", "-----BEGIN PRIVATE KEY----------END -----", "password=", "=", "sig=a "} {
		arena := &fastjson.Arena{}
		v := arena.NewObject()
		v.Set("x", arena.NewString(strings.Repeat(part, 1<<20/len(part))))
		connector.StripTokens(v, arena, nil)
	}
}

// FuzzStripTokens: stripping ends, needs to be done once only, and leaves JSON
// that any reader takes and understands as it was.
func FuzzStripTokens(f *testing.F) {
	f.Add([]byte(`{"a":"` + jwt + `","b":["Bearer abcdefgh12345678","\u001b\ud83d\ude00\"","-----BEGIN PRIVATE KEY-----"],"password":"x","c":1e5,"d":null}`))
	f.Add([]byte(`{"a":"{\"password\":\"x\",\"b\":\"sig=0123456789\"}","n":[nan,-1.5,00,1.2.3]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		v, err := fastjson.ParseBytes(data)
		if err != nil {
			return
		}
		same := connector.AppendJSON(nil, v)
		if !json.Valid(same) || !utf8.Valid(same) {
			t.Fatalf("written as %q", same)
		}
		connector.StripTokens(v, &fastjson.Arena{}, isPassword)
		once := connector.AppendJSON(nil, v)
		if !json.Valid(once) {
			t.Fatalf("stripped to %q", once)
		}
		connector.StripTokens(v, &fastjson.Arena{}, isPassword)
		if twice := connector.AppendJSON(nil, v); string(twice) != string(once) {
			t.Fatalf("%q, and again %q", once, twice)
		}
	})
}

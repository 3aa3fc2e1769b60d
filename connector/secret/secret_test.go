package secret

import (
	"encoding/hex"
	"encoding/json"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"remit"
)

// The secrets in these tests are put together when they run, from letters drawn
// with a fixed seed, so that no scanner takes this repository for a leak.

const (
	letters = "abcdefghijklmnopqrstuvwxyz"
	capital = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	digits  = "0123456789"
	alnum   = letters + capital + digits
	hexa    = digits + "abcdef"
)

func random(r *rand.Rand, alphabet string, n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = alphabet[r.IntN(len(alphabet))]
	}
	return string(b)
}

func seeded(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 7)) }

func testScanner(t testing.TB) *Scanner {
	t.Helper()
	s, err := NewScanner()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func testFingerprint(t testing.TB) Fingerprint {
	t.Helper()
	f, err := NewFingerprinter([]byte("0123456789abcdef0123456789abcdef"))
	if err != nil {
		t.Fatal(err)
	}
	return f.Fingerprint
}

// mustNotHold fails when the JSON of v holds any of the secrets.
func mustNotHold(t testing.TB, v any, secrets ...string) {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range secrets {
		if s != "" && strings.Contains(string(b), s) {
			t.Errorf("a secret is in the result: %s", b)
		}
	}
}

func TestFingerprint(t *testing.T) {
	t.Parallel()
	if _, err := NewFingerprinter(make([]byte, 15)); remit.KindOf(err) != remit.Invalid {
		t.Errorf("short key: got %v", err)
	}
	key := []byte("an installation key of 32 bytes!")
	f, err := NewFingerprinter(key)
	if err != nil {
		t.Fatal(err)
	}
	// Computed apart: printf %s swordfish | openssl dgst -sha256 -hmac KEY
	const want = "hmac:e7d67ac22bf03a280eaca98b80d137a0"
	got := f.Fingerprint([]byte("swordfish"))
	if got != want {
		t.Errorf("got %s, want %s: fingerprints must not change from release to release", got, want)
	}
	if b, err := hex.DecodeString(strings.TrimPrefix(got, "hmac:")); err != nil || len(b) != 16 {
		t.Errorf("%s: want 128 bits in hexadecimal", got)
	}
	key[0] ^= 1
	if f.Fingerprint([]byte("swordfish")) != want {
		t.Error("the key is not copied")
	}
	if f.Fingerprint(nil) != "" {
		t.Error("nothing has a fingerprint")
	}
}

// sample is a secret that a rule should recognise, in the value that holds it.
type sample struct {
	name     string
	key      string
	value    string
	secret   string
	rule     string
	provider string
	typ      remit.CredentialType
}

func samples() []sample {
	r := seeded(1)
	var out []sample
	add := func(name, key, prefix, secret, suffix, rule, provider string, typ remit.CredentialType) {
		out = append(out, sample{name, key, prefix + secret + suffix, secret, rule, provider, typ})
	}
	plain := func(key, secret, rule, provider string, typ remit.CredentialType) {
		add(rule, key, "", secret, "", rule, provider, typ)
	}
	plain("GITHUB_TOKEN", "ghp"+"_"+random(r, alnum, 36), "github-pat", "github", remit.APIKey)
	plain("token", "github"+"_pat_"+random(r, alnum, 82), "github-fine-grained-pat", "github", remit.APIKey)
	plain("x", "ghs"+"_"+random(r, alnum, 36), "github-app-token", "github", remit.ShortLivedToken)
	plain("x", "glpat"+"-"+random(r, alnum, 20), "gitlab-pat", "gitlab", remit.APIKey)
	plain("x", "xoxb"+"-"+random(r, digits, 12)+"-"+random(r, digits, 12)+random(r, alnum, 24), "slack-bot-token", "slack", remit.APIKey)
	plain("x", "https://hooks."+"slack.com/services/T"+random(r, capital+digits, 10)+"/B"+random(r, capital+digits, 10)+"/"+random(r, alnum, 24), "slack-webhook-url", "slack", remit.APIKey)
	plain("STRIPE_KEY", "sk"+"_live_"+random(r, alnum, 24), "stripe-access-token", "stripe", remit.APIKey)
	plain("x", "sk-"+"ant-api03-"+random(r, alnum, 93)+"AA", "anthropic-api-key", "anthropic", remit.APIKey)
	plain("x", "sk-"+random(r, alnum, 20)+"T3Blbk"+"FJ"+random(r, alnum, 20), "openai-api-key", "openai", remit.APIKey)
	plain("x", "AKI"+"A"+random(r, capital+"234567", 16), "aws-access-token", "aws", remit.APIKey)
	plain("AWS_SECRET_ACCESS_KEY", random(r, alnum+"/+", 40), "aws-secret-access-key", "aws", remit.APIKey)
	plain("x", "AI"+"za"+random(r, alnum, 35), "gcp-api-key", "gcp", remit.APIKey)
	plain("x", "hv"+"s."+random(r, alnum, 95), "vault-service-token", "vault", remit.StaticToken)
	plain("x", "np"+"m_"+random(r, letters+digits, 36), "npm-access-token", "npm", remit.APIKey)
	plain("x", "SG"+"."+random(r, alnum, 66), "sendgrid-api-token", "sendgrid", remit.APIKey)
	plain("x", "hf"+"_"+random(r, letters, 34), "huggingface-access-token", "huggingface", remit.APIKey)
	plain("x", "dop"+"_v1_"+random(r, hexa, 64), "digitalocean-pat", "digitalocean", remit.APIKey)
	plain("DATADOG_API_KEY", random(r, letters+digits, 40), "datadog-access-token", "datadog", remit.APIKey)
	plain("FASTLY_API_TOKEN", random(r, letters+digits, 32), "fastly-api-token", "fastly", remit.APIKey)
	plain("SLACK_SIGNING_SECRET", random(r, hexa, 31)+"4", "generic-api-key", "", remit.APIKey)
	add("postgres url", "DATABASE_URL", "postgres://app:", random(r, alnum, 14)+"!", "@db.internal:5432/app?sslmode=require", "url-password", "postgres", remit.Password)
	add("mongodb url", "u", "mongodb+srv://app:", random(r, alnum, 16), "@cluster0.abcde.mongodb.net/?retryWrites=true", "url-password", "mongodb", remit.Password)
	add("redis url without user", "u", "redis://:", random(r, alnum, 16), "@redis:6379/0", "url-password", "redis", remit.Password)
	add("amqp url", "u", "amqp://guest:", random(r, alnum, 9), "@mq", "url-password", "rabbitmq", remit.Password)
	add("git url", "u", "https://bot:", random(r, alnum, 20), "@github.com/acme/app.git", "url-password", "github", remit.Password)
	add("sqlalchemy", "u", "postgresql+psycopg2://app:", random(r, alnum, 12), "@db/app", "url-password", "postgres", remit.Password)
	add("mysql dsn", "DSN", "app:", random(r, alnum, 12), "@tcp(db:3306)/app", "mysql-dsn", "mysql", remit.Password)
	add("libpq", "dsn", "host=db user=app password=", random(r, alnum, 12), " dbname=app", "connection-string", "postgres", remit.Password)
	add("ado.net", "ConnectionStrings__Default", "Server=db;Initial Catalog=app;User Id=sa;Password=", random(r, alnum, 12)+"!", ";Encrypt=true", "connection-string", "sqlserver", remit.Password)
	add("jdbc", "url", "jdbc:mysql://db:3306/app?user=app&password=", random(r, alnum, 12), "&useSSL=true", "connection-string", "mysql", remit.Password)
	add("azure storage", "conn", "DefaultEndpointsProtocol=https;AccountName=acme;AccountKey=", random(r, alnum+"+/", 86)+"==", ";EndpointSuffix=core.windows.net", "azure-shared-key", "azure", remit.APIKey)
	add("properties", "application.properties", "server.port=8080\nspring.datasource.username=app\nspring.datasource.password=", "s3cr"+"3t-Pa55", "\nlogging.level.root=INFO\n", "config-password", "", remit.Password)
	add("yaml", "config.yaml", "db:\n  host: db\n  password: \"", "Tr0ub"+"4dor&3", "\"\n  pool: 5\n", "config-password", "", remit.Password)
	add("json", "config.json", `{"smtp":{"host":"mail","password":"`, "hunt3r!"+"2hunter", `"}}`, "config-password", "", remit.Password)
	add("env file", ".env", "PORT=80\nOPENAI=", "sk-"+random(r, alnum, 20)+"T3Blbk"+"FJ"+random(r, alnum, 20), "\nX=1\n", "openai-api-key", "openai", remit.APIKey)
	add("header", "headers", "Authorization: Bearer ", random(r, alnum, 40), "", "authorization-header", "", remit.StaticToken)
	return out
}

func TestScan(t *testing.T) {
	t.Parallel()
	s, fp := testScanner(t), testFingerprint(t)
	for _, tt := range samples() {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got := s.Scan(tt.key, []byte(tt.value), fp)
			if len(got.Found) != 1 || got.Cut {
				t.Fatalf("found %+v, want one", got)
			}
			f := got.Found[0]
			if f.Rule != tt.rule || f.Provider != tt.provider || f.Type != tt.typ {
				t.Errorf("got %s %q %s, want %s %q %s", f.Rule, f.Provider, f.Type, tt.rule, tt.provider, tt.typ)
			}
			if want := fp([]byte(tt.secret)); f.Fingerprint != want {
				t.Errorf("the fingerprint is not that of the secret alone")
			}
			if f.Rule == awsKeyRule {
				if f.Native != tt.secret {
					t.Errorf("native = %q, want the access key id", f.Native)
				}
				return // which is public
			}
			mustNotHold(t, got, tt.secret)
		})
	}
}

// A secret is the same one wherever it stands: all copies have one fingerprint.
func TestScanAnywhere(t *testing.T) {
	t.Parallel()
	s, fp := testScanner(t), testFingerprint(t)
	key := "ghp" + "_" + random(seeded(2), alnum, 36)
	for name, text := range map[string]string{
		"alone":       key,
		"quoted":      `"` + key + `"`,
		"line":        "token: " + key + "\n",
		"deep":        strings.Repeat("just some text\n", 20000) + key + strings.Repeat("\nmore text", 20000),
		"one line":    strings.Repeat("word ", 60000) + key + strings.Repeat(" word", 60000),
		"many":        strings.Repeat(key+"\n", 1000),
		"binary":      "\x00\xff\xfe " + key + " \x80\x81",
		"minified":    `{"a":1,"b":{"c":"` + key + `"}}`,
		"after İ":     strings.Repeat("İ", 5000) + " " + key, // longer in lower case
		"window edge": strings.Repeat("a", before) + "=" + key + strings.Repeat("z", 0),
	} {
		got := s.Scan("f", []byte(text), fp)
		if len(got.Found) != 1 || got.Found[0].Fingerprint != fp([]byte(key)) {
			t.Errorf("%s: found %+v", name, got.Found)
		}
		mustNotHold(t, got, key)
	}
}

func TestScanLongSecrets(t *testing.T) {
	t.Parallel()
	s, fp := testScanner(t), testFingerprint(t)
	// Longer than a window: the match is completed, not cut.
	key := "pypi-" + "AgEIcHlwaS5vcmc" + random(seeded(3), alnum, 900)
	text := strings.Repeat("filler text ", 500) + key + strings.Repeat(" filler text", 500)
	got := s.Scan("f", []byte(text), fp)
	if len(got.Found) != 1 || got.Found[0].Fingerprint != fp([]byte(key)) {
		t.Errorf("found %+v", got.Found)
	}
}

func TestScanSeveral(t *testing.T) {
	t.Parallel()
	s, fp := testScanner(t), testFingerprint(t)
	r := seeded(4)
	a, b := "ghp"+"_"+random(r, alnum, 36), "sk"+"_live_"+random(r, alnum, 24)
	pw := random(r, alnum, 12) + "%21"
	text := "GH=" + a + "\nSTRIPE=" + b + "\nDB=postgres://u:" + pw + "@h/d\n"
	for range 5 { // the order must not depend on chance
		got := s.Scan(".env", []byte(text), fp)
		var rules []string
		for _, f := range got.Found {
			rules = append(rules, f.Rule)
		}
		if want := "github-pat stripe-access-token url-password"; strings.Join(rules, " ") != want {
			t.Fatalf("got %v, want %s", rules, want)
		}
		mustNotHold(t, got, a, b, pw)
	}
}

// innocents are values that are no secrets, under names as they are met.
func innocents() [][2]string {
	r := seeded(5)
	uuid := func() string {
		return random(r, hexa, 8) + "-" + random(r, hexa, 4) + "-4" + random(r, hexa, 3) + "-a" + random(r, hexa, 3) + "-" + random(r, hexa, 12)
	}
	list := [][2]string{
		{"id", uuid()},
		{"REQUEST_ID", uuid()},
		{"tenantId", uuid()},
		{"AZURE_CLIENT_ID", uuid()},
		{"client_id", uuid()},
		{"image", "ghcr.io/acme/api@sha256:" + random(r, hexa, 64)},
		{"IMAGE_DIGEST", "sha256:" + random(r, hexa, 64)},
		{"checksum/config", random(r, hexa, 64)},
		{"GIT_COMMIT", random(r, hexa, 40)},
		{"revision", random(r, hexa, 40)},
		{"SOURCEGRAPH_COMMIT", random(r, hexa, 40)},
		{"DATADOG_AGENT_SHA", random(r, hexa, 40)},
		{"pod-template-hash", random(r, hexa, 10)},
		{"logo", "iVBORw0KGgo" + random(r, alnum+"+/", 400) + "=="},
		{"data", random(r, alnum+"+/", 1200) + "="},
		{"id_rsa.pub", "ssh-rsa AAAAB3NzaC1yc2E" + random(r, alnum+"+/", 300) + " me@host"},
		{"ssh-publickey", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA" + random(r, alnum+"+/", 44) + " deploy"},
		{"known_hosts", "github.com ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA" + random(r, alnum+"+/", 44) + "\n"},
		{"jwks", `{"keys":[{"kty":"RSA","kid":"` + random(r, alnum, 40) + `","n":"` + random(r, alnum+"_-", 342) + `","e":"AQAB","use":"sig"}]}`},
		{"STRIPE_PUBLISHABLE_KEY", "pk" + "_live_" + random(r, alnum, 24)},
		{"url", "https://api.example.com:8443/v1/things?x=1#top"},
		{"SENTRY_DSN", "https://" + random(r, hexa, 32) + "@o123.ingest.sentry.io/456"},
		{"DATABASE_URL", "postgres://db.internal:5432/app?sslmode=require"},
		{"DATABASE_URL", "postgres://app@db.internal/app"},
		{"DATABASE_URL", "postgres://$(DB_USER):$(DB_PASSWORD)@$(DB_HOST)/app"},
		{"DATABASE_URL", "postgres://user:${DB_PASSWORD}@db/app"},
		{"DATABASE_URL", "postgres://user:<password>@db/app"},
		{"proxy", "http://proxy.internal:3128"},
		{"NO_PROXY", "localhost,127.0.0.1,.svc,.cluster.local,10.0.0.0/8"},
		{"TOKEN_URL", "https://login.microsoftonline.com/" + uuid() + "/oauth2/v2.0/token"},
		{"issuer", "https://accounts.google.com"},
		{"password", "changeme"},
		{"PASSWORD", "${DB_PASSWORD}"},
		{"password", "$(PASSWORD)"},
		{"password", "{{ .Values.password }}"},
		{"token", "<your-token>"},
		{"apiKey", "xxxxxxxxxxxxxxxxxxxxxxxx"},
		{"api_key", "your-api-key-here"},
		{"API_KEY", "REPLACE_ME"},
		{"password", "********"},
		{"secretKey", "example-secret-key-123456"},
		{"token", "null"},
		{"AUTH_ENABLED", "true"},
		{"AWS_ACCESS_KEY_ID", "AKIA" + "IOSFODNN7EXAMPLE"},
		{"AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI/K7MDENG/" + "bPxRfiCYEXAMPLEKEY"},
		{"STRIPE_KEY", "sk" + "_test_XXXXXXXXXXXXXXXXXXXXXXXX"},
		{"password", "ref+vault://secret/data/app#/password"},
		{"token", "vault:secret/data/app#token"},
		{"api-key", "op://vault/item/field"},
		{"dbSecret", "arn:aws:secretsmanager:eu-west-1:123456789012:secret:prod/db-AbCdEf"},
		{"gcpSecret", "projects/12345/secrets/db-password/versions/latest"},
		{"password", "ENC[AES256_GCM,data:" + random(r, alnum, 12) + ",iv:" + random(r, alnum, 24) + "]"},
		{"existingSecret", "payments-db-credentials-v2"},
		{"secretName", "api-tls-2024-primary"},
		{"tokenPath", "/var/run/secrets/tokens/vault-token"},
		{"PASSWORD_FILE", "/run/secrets/db-password"},
		{"keyFile", "/etc/ssl/private/server.key"},
		{"privateKeySecretRef", "letsencrypt-account-key"},
		{"primary-key", "customer_id_2024"},
		{"partitionKey", "tenant#4711"},
		{"cacheKey", "session:v2:user:12345678"},
		{"sort-key", "2024-01-01T00:00:00Z"},
		{"keyspace", "orders_production_2024"},
		{"tokenizer", "cl100k_base_v2_tokens"},
		{"max_tokens", "4096"},
		{"token_limit", "128000"},
		{"author", "jane.doe@corp.io"},
		{"authority", "https://login.corp.io/tenant1"},
		{"access-mode", "ReadWriteOnce"},
		{"secretStoreRef", "cluster-vault-backend-01"},
		{"passwordPolicy", "minLength=12,upper=1,digit=1"},
		{"ttl", "3600s"},
		{"version", "v1.36.3+k3s1"},
		{"buildDate", "2026-01-02T03:04:05Z"},
		{"arn", "arn:aws:iam::123456789012:role/payments-api"},
		{"mac", "00:1b:44:11:3a:b7"},
		{"ipv6", "2001:db8:85a3::8a2e:370:7334"},
		{"etag", `"` + random(r, hexa, 32) + `"`},
		{"google-client-id", random(r, digits, 12) + "-" + random(r, letters+digits, 32) + ".apps.googleusercontent.com"},
		{"nginx.conf", "server {\n  listen 443 ssl;\n  ssl_certificate /etc/tls/tls.crt;\n  ssl_certificate_key /etc/tls/tls.key;\n  auth_basic \"Restricted\";\n  proxy_set_header Authorization $http_authorization;\n}\n"},
		{"prometheus.yml", "scrape_configs:\n- job_name: kube\n  bearer_token_file: /var/run/secrets/kubernetes.io/serviceaccount/token\n  tls_config:\n    ca_file: /ca.crt\n"},
		{"values.yaml", "auth:\n  existingSecret: db-credentials\n  secretKeys:\n    adminPasswordKey: postgres-password\n    userPasswordKey: password\n"},
		{"app.py", "import os\npassword = os.environ['DB_PASSWORD']\ntoken = get_token(client_id=CLIENT_ID)\napi_key = settings.API_KEY\n"},
		{"app.js", "const token = await getToken();\nif (!password) throw new Error('password required');\nconst apiKey = process.env.API_KEY;\n"},
		{"script.sh", "#!/bin/sh\nexport PGPASSWORD=\"$DB_PASSWORD\"\ncurl -H \"Authorization: Bearer $(cat /token)\" https://api/\n"},
		{"Corefile", ".:53 {\n    errors\n    health {\n      lameduck 5s\n    }\n    kubernetes cluster.local in-addr.arpa ip6.arpa\n    forward . /etc/resolv.conf\n}\n"},
		{"grafana.json", `{"uid":"` + random(r, alnum, 9) + `","title":"API keys","targets":[{"expr":"rate(http_requests_total{token!=\"\"}[5m])","refId":"A"}]}`},
		{"openapi.yaml", "components:\n  securitySchemes:\n    apiKey:\n      type: apiKey\n      name: X-API-Key\n      in: header\n  schemas:\n    Login:\n      properties:\n        password:\n          type: string\n          minLength: 12\n"},
		{"log4j2.xml", `<Configuration status="WARN"><Appenders><Console name="Console" target="SYSTEM_OUT"/></Appenders></Configuration>`},
		{"sealed", "AgB" + random(r, alnum+"+/", 700)},
		{"lorem", strings.Repeat("The secret of the key to access a token is the password of the author. ", 40)},
		{"crd", "description: Password is a reference to a secret key that contains the token used for authentication.\n"},
		{"kubelet", "authentication:\n  anonymous:\n    enabled: false\n  webhook:\n    cacheTTL: 2m0s\nclientCAFile: /etc/kubernetes/pki/ca.crt\nrotateCertificates: true\n"},
		{"hash", "sha512-" + random(r, alnum+"+/", 86) + "=="},
		{"integrity", "sha384-" + random(r, alnum+"+/", 64)},
		{"spiffe", "spiffe://corp.io/ns/payments/sa/api"},
		{"trace", "00-" + random(r, hexa, 32) + "-" + random(r, hexa, 16) + "-01"},
		{"leader", `{"holderIdentity":"api-7d9f8b6c5d-x2x9q_` + uuid() + `","leaseDurationSeconds":15}`},
		{"twilioAccount", "AC" + random(r, hexa, 32)},
		{"ulid", "01H" + random(r, capital+digits, 23)},
	}
	for range 200 {
		list = append(list, [2]string{"object", uuid()}, [2]string{"sha", random(r, hexa, 40)}, [2]string{"layer", "sha256:" + random(r, hexa, 64)},
			[2]string{"blob", random(r, alnum+"+/", 256)}, [2]string{"name", "api-" + random(r, letters+digits, 10) + "-" + random(r, letters+digits, 5)})
	}
	return list
}

func TestScanInnocent(t *testing.T) {
	t.Parallel()
	s := testScanner(t)
	for _, v := range innocents() {
		if got := s.Scan(v[0], []byte(v[1]), nil); len(got.Found) > 0 || got.Cut {
			t.Errorf("%s=%.120s: %+v", v[0], v[1], got.Found)
		}
		if typ, ok := NamedInPlain(v[0], []byte(v[1])); ok {
			t.Errorf("%s=%.120s: by name, %s", v[0], v[1], typ)
		}
		if typ, ok := Named(v[0], []byte(v[1])); ok && v[0] != "jwks" {
			t.Errorf("%s=%.120s: by name, %s", v[0], v[1], typ)
		}
	}
}

func TestNamed(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, value string
		want        remit.CredentialType // "" none
	}{
		{"password", "tiger", remit.Password},
		{"DB_PASSWORD", "correct horse battery staple", remit.Password},
		{"postgres-password", "postgres", remit.Password},
		{"mysql-root-password", "S3cret", remit.Password},
		{"redisPassword", "abc123", remit.Password},
		{"dbpass", "abc", ""}, // no word boundary to go by
		{"db_pass", "abc", remit.Password},
		{"api-key", "A8f02jd93k", remit.APIKey},
		{"apiKey", "A8f02jd93k", remit.APIKey},
		{"APIKey", "A8f02jd93k", remit.APIKey},
		{"x-api-key", "A8f02jd93k", remit.APIKey},
		{"clientSecret", "A8f02jd93k", remit.ClientSecret},
		{"oauth-client-secret", "A8f02jd93k", remit.ClientSecret},
		{"token", "A8f02jd93k", remit.StaticToken},
		{"SLACK_TOKEN_PROD", "A8f02jd93k", remit.StaticToken},
		{"private_key", "\x00\x01\x02\xff\xfe\x80\x81\x82", remit.PrivateKey},
		{"encryption-key", "\x93\x00\xff\x80\x01\x02\x03\x04", remit.APIKey},
		{"cookie-secret", "c2VjcmV0c2VjcmV0", remit.APIKey},
		{"username", "admin12345", ""},
		{"host", "db.internal", ""},
		{"password", "", ""},
		{"password", "  \n", ""},
		{"password", "true", ""},
		{"password", "5432", ""},
		{"token", "https://sso/token", ""},
		{"token", "db.internal:5432", ""},
		{"token", "kubernetes", ""},
		{"public-key", "A8f02jd93kA8f02jd93k", ""},
		{"key", "A8f02jd93k", ""},
		{"primary_key", "A8f02jd93k", ""},
		{"keyId", "A8f02jd93k", ""},
		{"token_endpoint", "A8f02jd93k", ""},
		{"password_hash", "A8f02jd93k", ""},
		{"secretName", "A8f02jd93k", ""},
		{"existingSecret", "A8f02jd93k", ""},
		{"tokens_per_minute", "100000000", ""},
	} {
		got, ok := Named(tt.name, []byte(tt.value))
		if got != tt.want || ok != (tt.want != "") {
			t.Errorf("Named(%q, %q) = %q, %v; want %q", tt.name, tt.value, got, ok, tt.want)
		}
	}
	for _, v := range []string{"$2y$10$abcdefghijklmnopqrstuv", "admin:$apr1$x$y", "SCRAM-SHA-256$4096:x"} {
		if !Hashed([]byte(v)) {
			t.Errorf("%s is the hash of a password", v)
		}
	}
}

// Every rule that is in use names its platform, and says what it finds.
func TestRules(t *testing.T) {
	t.Parallel()
	rs, err := compiled()
	if err != nil {
		t.Fatal(err)
	}
	if len(rs.rules) < 190 {
		t.Errorf("only %d rules", len(rs.rules))
	}
	byName := map[string]bool{"generic-api-key": true, "curl-auth-header": true, "curl-auth-user": true}
	for _, r := range rs.rules {
		if !r.ours && !byName[r.id] && r.provider == "" {
			t.Errorf("%s has no provider", r.id)
		}
		if len(r.keywords) == 0 || r.typ == "" {
			t.Errorf("%s is not complete", r.id)
		}
	}
}

func TestScanConcurrently(t *testing.T) {
	t.Parallel()
	s, fp := testScanner(t), testFingerprint(t)
	all := samples()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for _, v := range all {
				if got := s.Scan(v.key, []byte(v.value), fp); len(got.Found) != 1 {
					t.Errorf("%s: %d found", v.name, len(got.Found))
				}
			}
		})
	}
	wg.Wait()
}

func TestScanBounds(t *testing.T) {
	t.Parallel()
	s := testScanner(t)
	key := "ghp" + "_" + random(seeded(6), alnum, 36)
	far := strings.Repeat("x ", MaxValue/2) + key
	if got := s.Scan("f", []byte(far), nil); !got.Cut || len(got.Found) != 0 {
		t.Errorf("behind the bound: %+v", got)
	}
	var many strings.Builder
	r := seeded(7)
	for range 2000 {
		many.WriteString("ghp" + "_" + random(r, alnum, 36) + "\n")
	}
	if got := s.Scan("f", []byte(many.String()), nil); !got.Cut || len(got.Found) == 0 || len(got.Found) > maxFound {
		t.Errorf("%d found, cut %v", len(got.Found), got.Cut)
	}
}

func BenchmarkScannerText(b *testing.B) {
	s, fp := testScanner(b), testFingerprint(b)
	var text strings.Builder
	all := innocents()
	for i := 0; text.Len() < 1<<20; i++ {
		v := all[i%90]
		text.WriteString(v[0] + ": " + v[1] + "\n")
	}
	data := []byte(text.String()[:1<<20])
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		s.Scan("config.yaml", data, fp)
	}
}

func BenchmarkScannerHostile(b *testing.B) {
	s, fp := testScanner(b), testFingerprint(b)
	rs, err := compiled()
	if err != nil {
		b.Fatal(err)
	}
	var all strings.Builder
	for _, r := range rs.rules {
		for _, k := range r.keywords {
			all.WriteString(k + "=" + k)
		}
	}
	for name, unit := range map[string]string{
		"keywords": all.String(), "key": "key", "url": "a://a:", "curl": "curl -u a:", "token": "token=eyJ", "eyj": "eyJ.",
		"password": "password=", "aaa": "a", "pem": "-----BEGIN ", "secrets": "api_key=aB3dE5gH7jK9mN1pQ3s ", "newlines": "curl\n",
		"spaces": "secret     key   ", "quote": `"token":"`, "lob": "lob_live_", "twilio": "SK0123456789abcdef",
	} {
		data := []byte(strings.Repeat(unit, MaxValue/len(unit)+1)[:MaxValue])
		b.Run(name, func(b *testing.B) {
			b.SetBytes(MaxValue)
			for b.Loop() {
				s.Scan("", data, fp)
			}
		})
	}
}

func BenchmarkCompile(b *testing.B) {
	for b.Loop() {
		if _, err := NewScanner(); err != nil {
			b.Fatal(err)
		}
	}
}
